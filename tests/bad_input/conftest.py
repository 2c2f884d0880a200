"""What all tests of this directory throw their input at."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.twins import LOG_IN, World


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with asyncio.Runner() as runner:
        world = World(runner, str(tmp_path_factory.mktemp("bad-input")))
        world.run(world.sessions.create_tables())
        yield world
        world.run(world.sessions.disconnect())
        world.run(world.nowhere.disconnect())


@pytest.fixture(scope="module")
def valid(world: World) -> str:
    """The cookie of a session that stays live. Nothing that a test does may change that."""
    value: str = world.run(world.log_in(LOG_IN))
    return value
