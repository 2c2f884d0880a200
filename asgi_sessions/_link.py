"""The database as one event loop sees it: connections, statements, and when to let go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from databases import Database
from databases.core import Connection
from sqlalchemy.sql import ClauseElement

from ._errors import ConfigurationError
from ._lane import Lane, as_sessions_error

Answer = TypeVar("Answer")
Work = Callable[[Connection], Awaitable[Any]]


async def fetch(connection: Connection, statement: ClauseElement) -> list[tuple[Any, ...]]:
    """Run one statement; its rows as tuples in the order selected or returned."""
    return [tuple(row._mapping.values()) for row in await connection.fetch_all(statement)]


class Link:
    """A `databases.Database` in one event loop, and the lanes over it.

    Args:
        database: connected here if nobody has.
        owned: whether it was made by us; then connections are held. Of an app's own only
            SQLite's are (it has no pool that could wait for them).
    """

    def __init__(self, database: Database, *, owned: bool) -> None:
        self.database = database
        self._sqlite = database.url.dialect == "sqlite"
        self._owned = owned
        self._opened = False
        self._opening = asyncio.Lock()
        hold = owned or self._sqlite
        # Three, so that neither a slow list nor a write delays the look-up of a request.
        self.lookups = Lane[Work, Any](self._acquire, self._release, _each, hold=hold)
        self.writes = Lane[Work, Any](self._acquire, self._release, _each, hold=hold)
        self.queries = Lane[Work, Any](self._acquire, self._release, _each, hold=hold)

    async def open(self) -> None:
        """Connect unless somebody has."""
        async with self._opening:
            if not self.database.is_connected:
                await self.database.connect()
                self._opened = True

    async def close(self) -> None:
        """Finish what waits; disconnect what `open` connected."""
        for lane in (self.lookups, self.writes, self.queries):
            await lane.close()
        if self._opened and self.database.is_connected:
            await self.database.disconnect()
        self._opened = False

    async def _acquire(self) -> Connection:
        await self.open()
        connection = self.database.connection()
        await connection.__aenter__()
        if self._sqlite:
            await self._set_up_sqlite(connection)
        return connection

    async def _set_up_sqlite(self, connection: Connection) -> None:
        await connection.fetch_all("PRAGMA busy_timeout = 5000")  # milliseconds
        if self._owned:
            # Readers and the writer do not wait for one another. It stays with the file, so an
            # app's own database is left as it is.
            await connection.fetch_all("PRAGMA journal_mode = WAL")

    @staticmethod
    async def _release(connection: Connection) -> None:
        await connection.__aexit__()


class Links:
    """One `Link` for each event loop that uses the database.

    A connection belongs to the loop that opened it, and tests use many loops: Starlette's
    TestClient without ``with`` takes a new one for each request.

    Args:
        database: a URL, or an app's own `databases.Database`, which stays in its loop.
    """

    def __init__(self, database: str | Database) -> None:
        self._owned = not isinstance(database, Database)
        self.first = database if isinstance(database, Database) else _make(database)
        if self.first.url.dialect == "sqlite":
            _refuse_memory(self.first)
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._first_loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()  # loops may run in several threads

    @property
    def here(self) -> Link:
        """The link of the running loop.

        Raises:
            ConfigurationError: for an app's own database that was opened in another loop.
        """
        loop = asyncio.get_running_loop()
        link = self._links.get(loop)
        return self._make_link(loop) if link is None else link

    @property
    def database(self) -> Database:
        """The running loop's database; outside of any loop the first."""
        try:
            return self.here.database
        except RuntimeError:
            return self.first

    async def open(self) -> None:
        """Connect the link of the running loop.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        try:
            await self.here.open()
        except Exception as fault:
            raise as_sessions_error(fault) from fault

    async def close(self) -> None:
        """Close the link of the running loop."""
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None:
            await link.close()

    def _make_link(self, loop: asyncio.AbstractEventLoop) -> Link:
        with self._lock:
            for other in [other for other in self._links if other.is_closed()]:
                del self._links[other]
            first = self._first_loop is None
            if first:
                self._first_loop = loop
            elif not self._owned and self.first.url.dialect != "sqlite":
                raise ConfigurationError(
                    "the databases.Database given to Sessions belongs to another event loop: "
                    "use it in one loop (TestClient as a context manager), or give Sessions a URL, "
                    "which works in any loop"
                )
            database = self.first if first or not self._owned else _make(str(self.first.url))
            link = self._links[loop] = Link(database, owned=self._owned)
            return link


async def _each(connection: Connection, jobs: Sequence[Work]) -> list[Any]:
    answers: list[Any] = []
    for work in jobs:
        try:
            answers.append(await work(connection))
        except Exception as fault:  # noqa: BLE001 -- raised to the one who asked
            answers.append(fault)
    return answers


def _make(url: str) -> Database:
    try:
        return Database(url)
    except ImportError as fault:
        raise ConfigurationError(
            f"the driver for this database URL is missing ({fault.name}): install "
            "asgi-login-sessions[postgresql] or asgi-login-sessions[mysql]"
        ) from fault
    except Exception as fault:
        raise ConfigurationError(
            "this is no database URL that `databases` knows; use one like "
            "'sqlite:///sessions.db' or 'postgresql://user:password@host/name'"
        ) from fault


def _refuse_memory(database: Database) -> None:
    name = database.url.database
    if name in ("", ":memory:") or "mode=memory" in str(database.url):
        raise ConfigurationError(
            "an in-memory SQLite database is another one for each connection, so sessions would "
            "be lost at once: use a file, for instance 'sqlite:///sessions.db' "
            "(in tests: f'sqlite:///{tmp_path}/sessions.db')"
        )
