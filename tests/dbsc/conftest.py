"""The app that all tests of this directory share."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asgi_sessions import Incident, SessionEvent, Sessions
from asgi_sessions.dbsc import DBSC
from tests.support import KEY, Clock
from tests.support.dbsc import MakeWorld, World


@pytest.fixture
async def make_world(
    anyio_backend: str, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[MakeWorld]:
    caplog.set_level(logging.INFO, "asgi_sessions.security")
    made: list[Sessions] = []

    async def make(dbsc: DBSC | None = DBSC(), **options: Any) -> World:  # noqa: B008 -- frozen
        told: list[SessionEvent | Incident] = []
        sessions = Sessions(
            f"sqlite:///{tmp_path}/sessions.db",
            dbsc=dbsc,
            **{"secret_key": KEY, "clock": clock, "on_event": told.append, **options},
        )
        made.append(sessions)
        await sessions.create_tables()
        return World(sessions, clock, caplog, told)

    yield make
    for sessions in made:
        await sessions.disconnect()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()
