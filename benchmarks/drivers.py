"""One query by primary key through the bare driver: what ours is measured against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import aiosqlite
import asyncpg
import psycopg
from databases import DatabaseURL
from sqlalchemy import Table

from .load import App
from .places import Place

#: Asks for the row of this sid.
Query = Callable[[str], Awaitable[object]]
#: As many connections as our own pool has at most.
POOL = 5

#: What a request does not need of a row.
_UNREAD = {"device_key", "live_device_key"}


def _select(table: Table, mark: str) -> str:
    columns = ", ".join(name for name in table.columns.keys() if name not in _UNREAD)  # noqa: SIM118 -- no dict
    return f"SELECT {columns} FROM {table.name} WHERE id = {mark}"  # noqa: S608 -- our own names


@asynccontextmanager
async def pooled(place: Place, table: Table) -> AsyncIterator[Query]:
    """Through the driver's pool; SQLite has none, so there it is the held connection."""
    if place.kind == "sqlite":
        async with held(place, table) as query:
            yield query
    elif place.kind == "postgresql":
        sql = _select(table, "$1")
        async with asyncpg.create_pool(place.url, min_size=POOL, max_size=POOL) as pool:

            async def ask(sid: str) -> object:
                return await pool.fetchrow(sql, sid)

            yield ask
    else:
        sql = _select(table, "%s")
        async with _module(place).create_pool(
            minsize=POOL, maxsize=POOL, autocommit=True, **_options(place)
        ) as pool:

            async def ask(sid: str) -> object:
                async with pool.acquire() as connection, connection.cursor() as cursor:
                    await cursor.execute(sql, (sid,))
                    return await cursor.fetchone()

            yield ask


@asynccontextmanager
async def held_by_psycopg(place: Place, table: Table) -> AsyncIterator[Query]:
    """As `held`, by PostgreSQL's other driver, in the way that costs it least."""
    sql, turn = _select(table, "$1"), asyncio.Lock()
    async with await psycopg.AsyncConnection.connect(place.url, autocommit=True) as connection:

        async def ask(sid: str) -> object:
            async with turn:
                cursor = psycopg.AsyncRawCursor(connection)
                await cursor.execute(sql, (sid,), binary=True)
                return await cursor.fetchone()

        yield ask


@asynccontextmanager
async def held(place: Place, table: Table) -> AsyncIterator[Query]:
    """Through one connection, kept open; one query after the other."""
    turn = asyncio.Lock()
    if place.kind == "sqlite":
        sql = _select(table, "?")
        async with aiosqlite.connect(DatabaseURL(place.url).database) as connection:

            async def ask(sid: str) -> object:
                return await connection.execute_fetchall(sql, (sid,))

            yield ask
    elif place.kind == "postgresql":
        sql = _select(table, "$1")
        opened = await asyncpg.connect(place.url)

        async def ask(sid: str) -> object:
            async with turn:
                return await opened.fetchrow(sql, sid)

        try:
            yield ask
        finally:
            await opened.close()
    else:
        sql = _select(table, "%s")
        async with _module(place).connect(autocommit=True, **_options(place)) as connection:

            async def ask(sid: str) -> object:
                async with turn, connection.cursor() as cursor:
                    await cursor.execute(sql, (sid,))
                    return await cursor.fetchone()

            yield ask


def _module(place: Place) -> Any:  # noqa: ANN401 -- neither has types
    return import_module(place.driver or "aiomysql")


def _options(place: Place) -> dict[str, Any]:
    url = DatabaseURL(place.url)
    return {
        "host": url.hostname,
        "port": url.port or 3306,
        "user": url.username or "root",
        "password": url.password or "",
        "db": url.database,
    }


class QueryFirst:
    """Middleware: one query for each request, then the app.

    Args:
        app: the app.
        query: asks the database.
        draw: a sid.
    """

    def __init__(self, app: App, query: Query, draw: Callable[[], str]) -> None:
        self.app = app
        self._query = query
        self._draw = draw

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- as App
        """Serve one connection."""
        await self._query(self._draw())
        await self.app(scope, receive, send)
