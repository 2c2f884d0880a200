"""What the files of this directory are given alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asgi_sessions import Sessions
from tests.support import KEY, Clock


@pytest.fixture
async def plain(anyio_backend: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Sessions]:
    """With data, on SQLite alone: no library makes a difference to a database."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with Sessions(url, secret_key=KEY, clock=clock, data=True) as sessions:
        await sessions.create_tables()
        yield sessions
