"""One statement by primary key through the bare driver: what ours is measured against."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
#: Runs a statement with these values.
Ask = Callable[..., Awaitable[object]]
#: As many connections as our own pool has at most.
POOL = 5

_MARKS = {"sqlite": ("?", "?"), "postgresql": ("$1", "$2"), "mysql": ("%s", "%s")}

#: What a request does not need of a row.
_UNREAD = {"device_key", "live_device_key"}


def _select(place: Place, table: Table) -> str:
    mark, _ = _MARKS[place.kind]
    columns = ", ".join(name for name in table.columns.keys() if name not in _UNREAD)  # noqa: SIM118 -- no dict
    return f"SELECT {columns} FROM {table.name} WHERE id = {mark}"  # noqa: S608 -- our own names


def pooled(place: Place, table: Table) -> AbstractAsyncContextManager[Query]:
    """The row of a sid, through the driver's pool."""
    return _pooled(place, _select(place, table))


def held(place: Place, table: Table) -> AbstractAsyncContextManager[Query]:
    """The row of a sid, through one connection, kept open; one query after the other."""
    return _held(place, _select(place, table))


def updating(place: Place, table: Table) -> AbstractAsyncContextManager[Ask]:
    """One UPDATE of a session's data, committed by itself, through the driver's pool; it is given
    the data and the sid.
    """
    data, sid = _MARKS[place.kind]
    sql = f"UPDATE {table.name}_data SET data = {data} WHERE id = {sid}"  # noqa: S608 -- our own names
    return _pooled(place, sql)


@asynccontextmanager
async def _pooled(place: Place, sql: str) -> AsyncIterator[Ask]:
    """Through the driver's pool; SQLite has none, so there it is the held connection."""
    if place.kind == "sqlite":
        async with _held(place, sql) as query:
            yield query
    elif place.kind == "postgresql":
        async with asyncpg.create_pool(place.url, min_size=POOL, max_size=POOL) as pool:

            async def ask(*values: str) -> object:
                return await pool.fetchrow(sql, *values)

            yield ask
    else:
        async with _module(place).create_pool(
            minsize=POOL, maxsize=POOL, autocommit=True, **_options(place)
        ) as pool:

            async def ask(*values: str) -> object:
                async with pool.acquire() as connection, connection.cursor() as cursor:
                    await cursor.execute(sql, values)
                    return await cursor.fetchone()

            yield ask


@asynccontextmanager
async def held_by_psycopg(place: Place, table: Table) -> AsyncIterator[Query]:
    """As `held`, by PostgreSQL's other driver, in the way that costs it least."""
    sql, turn = _select(place, table), asyncio.Lock()
    async with await psycopg.AsyncConnection.connect(place.url, autocommit=True) as connection:

        async def ask(sid: str) -> object:
            async with turn:
                cursor = psycopg.AsyncRawCursor(connection)
                await cursor.execute(sql, (sid,), binary=True)
                return await cursor.fetchone()

        yield ask


@asynccontextmanager
async def _held(place: Place, sql: str) -> AsyncIterator[Ask]:
    turn = asyncio.Lock()
    if place.kind == "sqlite":
        file = DatabaseURL(place.url).database
        async with aiosqlite.connect(file, isolation_level=None) as connection:

            async def ask(*values: str) -> object:
                return await connection.execute_fetchall(sql, values)

            yield ask
    elif place.kind == "postgresql":
        opened = await asyncpg.connect(place.url)

        async def ask(*values: str) -> object:
            async with turn:
                return await opened.fetchrow(sql, *values)

        try:
            yield ask
        finally:
            await opened.close()
    else:
        async with _module(place).connect(autocommit=True, **_options(place)) as connection:

            async def ask(*values: str) -> object:
                async with turn, connection.cursor() as cursor:
                    await cursor.execute(sql, values)
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
        draw: what it is asked with.
    """

    def __init__(self, app: App, query: Ask, draw: Callable[[], tuple[str, ...]]) -> None:
        self.app = app
        self._query = query
        self._draw = draw

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- as App
        """Serve one connection."""
        await self._query(*self._draw())
        await self.app(scope, receive, send)
