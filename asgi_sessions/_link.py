"""The database as one event loop sees it: connections, statements, and when to let go."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeVar
from weakref import ref

from databases import Database
from databases.core import Connection
from sqlalchemy import ColumnElement, Select, Table, Update, select, update
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from ._driver import Driver, Record, Statement, driver_for
from ._errors import ConfigurationError
from ._lane import Lane, as_sessions_error
from ._row import Row

Answer = TypeVar("Answer")


class Access:
    """A connection in the hands of a lane."""

    def __init__(
        self, connection: Connection, driver: Driver, statements: dict[Hashable, Statement]
    ) -> None:
        self._connection = connection
        self._statements = statements
        self.driver = driver

    async def release(self) -> None:
        """Give the connection back."""
        await self._connection.__aexit__()

    @property
    def raw(self) -> Any:  # noqa: ANN401 -- each driver's own
        """The driver's connection."""
        return self._connection.raw_connection

    def transaction(self) -> AbstractAsyncContextManager[Any]:
        """All or nothing."""
        return self._connection.transaction()

    async def fetch(self, clause: ClauseElement) -> Sequence[Record]:
        """The rows that a statement selects or returns."""
        statement = Statement(clause, self.driver.dialect)
        records = await self.driver.fetch(self.raw, statement.sql, statement.params())
        return statement.rows(records)

    def statement(self, key: Hashable, make: Callable[[], ClauseElement]) -> Statement:
        """A statement that is compiled once and kept under a key."""
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = Statement(make(), self.driver.dialect)
        return statement

    async def run(self, statement: Statement, params: Sequence[Any]) -> Sequence[Record]:
        """The rows of a statement that was compiled before."""
        return statement.rows(await self.driver.fetch(self.raw, statement.sql, params))

    async def execute(self, clause: ClauseElement) -> int:
        """How many rows a statement has changed."""
        statement = Statement(clause, self.driver.dialect)
        return await self.driver.execute(self.raw, statement.sql, statement.params())

    async def update(
        self,
        table: Table,
        values: dict[str, Any],
        condition: ColumnElement[bool],
        columns: Sequence[ColumnElement[Any]],
    ) -> Sequence[Record]:
        """Change rows; those changed, as they are now."""
        change: Update = update(table).where(condition).values(values)
        if self.driver.returning:
            return await self.fetch(change.returning(*columns))
        async with self.transaction():
            locked: Select[Any] = select(table.c.id).where(condition).with_for_update()
            ids = [row[0] for row in await self.fetch(locked)]
            if not ids:
                return []
            mine = table.c.id.in_(ids)
            await self.execute(update(table).where(mine).values(values))
            return await self.fetch(select(*columns).where(mine))

    async def ddl_dialect(self) -> Dialect:
        """The dialect of this very server."""
        return await self.driver.ddl_dialect(self.raw)

    async def create(self, statement: str) -> None:
        """Run a statement that makes something, unless it is there."""
        try:
            await self.driver.fetch(self.raw, statement, ())
        except Exception as fault:
            if not self.driver.made_already(fault):
                raise


Work = Callable[[Access], Awaitable[Any]]
Batched = Callable[[Access, list[str | bytes]], Awaitable[Sequence[Row | None]]]

#: Look-ups that go into one SELECT at most.
BATCH = 256


class Link:
    """A `databases.Database` in one event loop, and the lanes over it.

    Args:
        database: connected here if nobody has.
        owned: whether it was made by us; then connections are held. Of an app's own only
            those are that no pool waits for.
        timeout: seconds that anything may take.
    """

    def __init__(
        self, database: Database, batched: Batched, *, owned: bool, timeout: float
    ) -> None:
        self.database = database
        self.driver = driver_for(database)
        self._owned = owned
        self._timeout = timeout
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        hold = owned or self.driver.hold

        self._statements: dict[Hashable, Statement] = {}
        lane = partial(
            Lane[Access, Any, Any],
            self._acquire,
            self._release,
            self._leave,
            passing=self.driver.passing,
            hold=hold,
            timeout=timeout,
        )
        # Three, so that neither a slow list nor a write delays the look-up of a request.
        self.lookups = lane(batched, batch=BATCH)
        self.writes = lane(_one, batch=1)
        self.queries = lane(_one, batch=1)
        self._lanes = (self.lookups, self.writes, self.queries)
        self.look_up: Callable[[str | bytes], asyncio.Future[Row | None]] = self.lookups.put

    async def open(self) -> None:
        """Connect unless somebody has; then disconnect when the event loop ends."""
        async with self._opening:
            if not self.database.is_connected:
                await self.database.connect()
                loop = asyncio.get_running_loop()
                self._keeper = loop.create_task(self._keep(), context=Context())
                setattr(self._keeper, "_log_destroy_pending", False)  # noqa: B010 -- as Lane
                await asyncio.sleep(0)  # a task that has not begun is cancelled without a word

    async def _keep(self) -> None:
        """Do nothing until `close` or the end of the loop cancels it, then disconnect."""
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            for lane in self._lanes:
                await lane.ended()
            with suppress(Exception):  # it is gone anyway
                async with asyncio.timeout(self._timeout):
                    await self.database.disconnect()

    async def close(self) -> None:
        """Finish what waits; disconnect what `open` connected."""
        for lane in self._lanes:
            await lane.close()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def leave(self) -> None:
        """Let go of everything: the event loop was closed without a word."""
        for lane in self._lanes:
            lane.leave()

    def _leave(self, access: Access) -> None:
        with suppress(Exception):
            self.driver.leave(access.raw)

    async def _acquire(self) -> Access:
        await self.open()
        connection = self.database.connection()
        try:
            await connection.__aenter__()
        except Exception:
            # The thread of an aiosqlite connection that failed still reports its end to this
            # loop, which had better be there.
            await asyncio.sleep(self.driver.last_word)
            raise
        access = Access(connection, self.driver, self._statements)
        try:
            await self.driver.prepare(access.raw, owned=self._owned, timeout=self._timeout)
        except BaseException:
            await self._release(access, broken=True)
            raise
        return access

    async def _release(self, access: Access, *, broken: bool) -> None:
        # It is lost anyway; the fault before it counts.
        if broken:
            with suppress(Exception):
                self.driver.abandon(access.raw)
        with suppress(Exception):
            await access.release()
        if broken:
            # `databases` keeps the connection of a task whose BEGIN has failed.
            self.database._connection = None  # noqa: SLF001 -- there is no other way


class Links:
    """One `Link` for each event loop that uses the database.

    A connection belongs to the loop that opened it, and tests use many loops: Starlette's
    TestClient without ``with`` takes a new one for each request.

    Args:
        database: a URL, or an app's own `databases.Database`, which stays in its loop.
    """

    def __init__(self, database: str | Database) -> None:
        #: Answers many look-ups at once; set by the store, which has the SQL.
        self.batched: Batched
        self._owned = not isinstance(database, Database)
        #: Seconds that anything may take.
        self.timeout = 5.0
        self.first = database if isinstance(database, Database) else _make(database)
        self._movable = self._owned or driver_for(self.first).hold
        if self.first.url.dialect == "sqlite":
            _refuse_memory(self.first)
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._first_loop: ref[asyncio.AbstractEventLoop] | None = None
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
            async with asyncio.timeout(self.timeout):
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
                self._links.pop(other).leave()
            if self._first_loop is None:
                self._first_loop = ref(loop)
            first = self._first_loop() is loop
            if not first and not self._movable:
                raise ConfigurationError(
                    "the databases.Database given to Sessions belongs to another event loop: "
                    "use it in one loop (TestClient as a context manager), or give Sessions a URL, "
                    "which works in any loop"
                )
            database = self.first if first or not self._owned else _make(str(self.first.url))
            link = self._links[loop] = Link(
                database, self.batched, owned=self._owned, timeout=self.timeout
            )
            return link


async def _one(access: Access, jobs: Sequence[Work]) -> list[Any]:
    (work,) = jobs
    return [await work(access)]


def _make(url: str) -> Database:
    try:
        database = Database(url)
        _ = database.url.port  # what is no number raises here
        given = database.url.options
        options = {k: v for k, v in driver_for(database).pool.items() if k not in given}
        return Database(url, **options) if options else database
    except ImportError as fault:
        raise ConfigurationError(
            f"the driver for this database URL is missing ({fault.name}): install "
            "asgi-login-sessions[postgresql] or asgi-login-sessions[mysql]"
        ) from fault
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 -- KeyError, ValueError, AttributeError, ...
        raise ConfigurationError(
            "this is no database URL that `databases` knows; use one like "
            "'sqlite:///sessions.db' or 'postgresql://user:password@host/name'; what has another "
            "meaning in URLs, such as / in a password, is written as %2F"
        ) from None  # the fault may quote the password


def _refuse_memory(database: Database) -> None:
    url = str(database.url)
    if not database.url.database or ":memory:" in url or "mode=memory" in url:
        raise ConfigurationError(
            "an in-memory SQLite database is another one for each connection, so sessions would "
            "be lost at once: use a file, for instance 'sqlite:///sessions.db' "
            "(in tests: f'sqlite:///{tmp_path}/sessions.db')"
        )
