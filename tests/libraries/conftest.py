"""What the files of this directory are given alike."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from asgi_sessions import Sessions
from tests.libraries.fruit import Base
from tests.support import KEY, Clock

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine


@pytest.fixture
async def plain(anyio_backend: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Sessions]:
    """With data, on SQLite alone: no library makes a difference to a database."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with Sessions(url, secret_key=KEY, clock=clock, data=True) as sessions:
        await sessions.create_tables()
        yield sessions


@pytest.fixture
async def engine(anyio_backend: str, tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    """An app's own, with the table of fruit."""
    # Without greenlet, which the libraries of `apart` do not need, the import fails.
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/fruit.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()
