"""Connections from the pool of an engine of SQLAlchemy: an app's own, or one made from a URL.

SQLAlchemy opens the connections, pools them, and puts them into autocommit mode; statements go to
the driver's own connection, because `AsyncConnection.execute` costs three times the driver's call.
When a connection goes back to its pool, it is as the app left it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from math import ceil, inf
from typing import NamedTuple
from urllib.parse import SplitResult, urlsplit
from weakref import ref

import greenlet  # noqa: F401 -- where it is missing, SQLAlchemy does not name it
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import (
    AssertionPool,
    NullPool,
    PoolProxiedConnection,
    QueuePool,
    StaticPool,
)
from sqlalchemy.pool import Pool as PoolOfEngine

from asgi_sessions._database.deadline import Deadline
from asgi_sessions._database.drivers import DRIVERS, SUPPORTED
from asgi_sessions._database.drivers.aiosqlite import AiosqliteDriver, SharedAiosqliteDriver
from asgi_sessions._database.drivers.base import Driver, Raw
from asgi_sessions._database.drivers.psycopg import PsycopgDriver
from asgi_sessions._database.url import read
from asgi_sessions._database.url_options import rules_for
from asgi_sessions._errors import ConfigurationError, SessionsError, SessionsUnavailable

from .base import MOST, Lease, Line, Pool, Source

#: Connections in a pool of our own.
_MOST_OF_OURS = 8
#: What libpq tells the kernel, which then sends a sign of life while nothing else is sent.
_KEEPALIVES = {"keepalives_idle": 60, "keepalives_interval": 15, "keepalives_count": 4}
#: Seconds in which a connection that has rested in the pool has to answer.
_PROOF = 0.5
#: Seconds for a new one: whoever waits for it has less.
_AS_LONG_AS_IT_TAKES = 3600.0


class EngineSource(Source):
    """An app's own `AsyncEngine`.

    Args:
        engine: whose pool lends the connections.
        max_idle: seconds that a connection may rest before it is used again. The engine may say
            less (``pool_recycle``).

    Raises:
        ConfigurationError: for an engine that cannot be used so.
    """

    def __init__(self, engine: AsyncEngine, *, max_idle: float) -> None:
        _refuse_unusable(engine)
        self._engine = engine
        self.driver = DRIVERS[engine.dialect.name, engine.dialect.driver]
        recycle: float = getattr(engine.sync_engine.pool, "_recycle", -1)
        self.max_idle = min(max_idle, recycle) if recycle >= 0 else max_idle
        self._loop: ref[asyncio.AbstractEventLoop] | None = None
        self._filled: ref[PoolOfEngine] | None = None

    @property
    def address(self) -> str:
        return self._engine.url.render_as_string(hide_password=True)

    @property
    def database(self) -> AsyncEngine:
        return self._engine

    def pool(self, loop: asyncio.AbstractEventLoop) -> EnginePool:
        there = self._engine.sync_engine.pool
        # These two keep no connection that waits for the loop that opened it.
        if not isinstance(there, (NullPool, StaticPool)):
            before = None if self._loop is None else self._loop()
            same = self._filled is not None and self._filled() is there
            # A thread of aiosqlite serves whichever loop asks, but not two at the same time.
            over = before is None or (self.driver is AiosqliteDriver and before.is_closed())
            if same and before is not loop and not over:
                raise ConfigurationError(
                    "the AsyncEngine given to Sessions has a pool that belongs to another event "
                    "loop: use it in one loop (TestClient as a context manager), `await "
                    "engine.dispose()` at the end of each loop, make the engine with "
                    "poolclass=NullPool, or give Sessions a URL, which works in any loop"
                )
            self._loop, self._filled = ref(loop), ref(there)
        static = isinstance(there, StaticPool)
        return EnginePool(self._engine, SharedAiosqliteDriver() if static else self.driver(), loop)


class EngineURLSource(Source):
    """A URL of psycopg, for which each event loop gets an `AsyncEngine` of its own.

    Args:
        url: the URL.
        max_idle: seconds that a connection may rest before it is used again. The URL may say less
            (``?pool_recycle=``).

    Raises:
        ConfigurationError: for a URL that cannot be used so.
    """

    driver = PsycopgDriver

    def __init__(self, url: str, *, max_idle: float) -> None:
        place = _parsed(url)
        options = read(place, rules_for(place), {})
        most: int = options.pop("max_size", _MOST_OF_OURS)
        recycle: int = options.pop("pool_recycle", -1)
        self.max_idle = min(max_idle, recycle) if recycle >= 0 else max_idle
        self._options = {
            "connect_args": _KEEPALIVES | options,
            "pool_size": most,
            "max_overflow": 0,
            "pool_recycle": max(ceil(self.max_idle), 1) if self.max_idle < inf else -1,
        }
        self._url = place.url.set(drivername="postgresql+psycopg", query={})
        self._first = self._make()
        self._first_loop: ref[asyncio.AbstractEventLoop] | None = None

    def _make(self) -> AsyncEngine:
        return create_async_engine(self._url, **self._options)

    @property
    def address(self) -> str:
        return self._url.render_as_string(hide_password=True)

    @property
    def database(self) -> AsyncEngine:
        return self._first

    def pool(self, loop: asyncio.AbstractEventLoop) -> EnginePool:
        if self._first_loop is None:
            self._first_loop = ref(loop)
        engine = self._first if self._first_loop() is loop else self._make()
        return EnginePool(engine, self.driver(), loop, owned=True)


class _Parsed(NamedTuple):
    """A URL as the rules for its options see it, and as SQLAlchemy does."""

    components: SplitResult
    dialect: str
    driver: str
    database: str
    url: URL


def _parsed(url: str) -> _Parsed:
    try:
        there = make_url(url)
        components = urlsplit(url)
        _ = components.port  # what is no number raises here
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            "invalid database URL; use one like 'postgresql+psycopg://user:password@host/name'; "
            "what has another meaning in URLs, such as / in a password, is written as %2F"
        ) from None  # the error may quote the password
    return _Parsed(components, "postgresql", "psycopg", there.database or "", there)


class EnginePool(Pool):
    """An `AsyncEngine` in one event loop.

    Args:
        engine: whose pool lends the connections.
        driver: how to speak to them.
        loop: the event loop.
        owned: whether the engine was made from a URL.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        driver: Driver,
        loop: asyncio.AbstractEventLoop,
        *,
        owned: bool = False,
    ) -> None:
        self._engine = engine
        self._loop = loop
        self._capacity = _capacity(self._there)
        self._replaced: Callable[[], None] | None = None
        self._open = False
        #: The connection of a StaticPool: it is the app's only one, and must never be reset.
        self._only: AsyncConnection | None = None
        self._only_of: StaticPool | None = None
        self._borrowing = asyncio.Lock()
        self.driver = driver
        self.owned = owned
        self.hold = self._capacity >= MOST
        self.frugal = not owned

    @property
    def database(self) -> AsyncEngine:
        return self._engine

    @property
    def is_open(self) -> bool:
        return self._open

    async def open(self) -> None:
        """Borrow a connection once, to see that the database is there."""
        lease = await self.driver.opened(self.borrow())
        await lease.give_back(broken=False)
        event.listen(self._engine.sync_engine, "engine_disposed", self._disposed)
        self._open = True

    async def close(self) -> None:
        self.leave()
        only, self._only = self._only, None
        if only is not None:
            await only.close()
        if self.owned:
            await self._engine.dispose()

    def leave(self) -> None:
        self._open = False
        if event.contains(self._engine.sync_engine, "engine_disposed", self._disposed):
            event.remove(self._engine.sync_engine, "engine_disposed", self._disposed)

    def on_replaced(self, then: Callable[[], None]) -> None:
        self._replaced = then

    def _disposed(self, _: object) -> None:
        """The app has disposed of the engine, perhaps in another thread: its pool is a new one."""
        if self._replaced is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._replaced)

    @property
    def _there(self) -> PoolOfEngine:
        """The pool that the engine has now."""
        return self._engine.sync_engine.pool

    def is_stale(self, there: PoolOfEngine) -> bool:
        """Whether a connection of this pool is one that the app has disposed of."""
        return self._engine.sync_engine.pool is not there

    def shortage(self) -> SessionsError | None:
        there = self._there
        if not isinstance(there, QueuePool) or there.checkedout() < self._capacity:
            return None
        return SessionsUnavailable(
            "the pool of the AsyncEngine given to Sessions had no free connection, all of its "
            f"{there.checkedout()} are in use: give it room for five more than the app's own "
            "requests hold (pool_size, max_overflow)"
        )

    async def borrow(self) -> Lease:
        """A connection that is new, or has just answered.

        One that has broken while it rested in the pool is replaced: SQLAlchemy would find that out
        by its own next statement, but ours do not go through it.
        """
        there = self._there
        if isinstance(there, StaticPool):
            return await self._borrow_only(there)
        while True:
            has_rested = isinstance(there, QueuePool) and there.checkedin() > 0
            connection = await self._engine.connect()
            lease = EngineLease(connection, await connection.get_raw_connection(), there, self)
            try:
                self._refuse_foreign(lease.raw)
                seconds = _PROOF if has_rested else _AS_LONG_AS_IT_TAKES
                async with Deadline(self._loop.time() + seconds):
                    # It puts each driver into autocommit mode. SQLAlchemy takes that back when the
                    # connection goes back to the pool.
                    await connection.execution_options(isolation_level="AUTOCOMMIT")
                    if has_rested and self.driver.elsewhere and not there._pre_ping:  # noqa: SLF001 -- no public one
                        await self.driver.fetch(lease.raw, "SELECT 1", ())
                self._refuse_in_transaction(lease.raw)
            except BaseException as error:
                self._drop(lease)
                is_dead = isinstance(error, Exception) and not isinstance(error, SessionsError)
                if not (has_rested and is_dead):
                    raise
            else:
                return lease

    async def connect(self) -> Line:
        """A connection of the pool that does not come back to it: nobody else shall hear what it
        listens to.
        """
        lease = await self.borrow()
        assert isinstance(lease, EngineLease)  # noqa: S101 -- for the type checker: no SQLite
        lease.apart = True
        return lease

    async def _borrow_only(self, there: StaticPool) -> Lease:
        async with self._borrowing:
            if self._only is None or self._only.closed or self._only_of is not there:
                self._only, self._only_of = await self._engine.connect(), there
            fairy = await self._only.get_raw_connection()
        return OnlyLease(fairy.driver_connection, there, self)

    def _refuse_foreign(self, raw: Raw) -> None:
        """Refuse a connection that belongs to another loop, in which the app has opened it."""
        theirs = getattr(raw, "_loop", None)  # no driver has a public one
        if isinstance(theirs, asyncio.AbstractEventLoop) and theirs is not self._loop:
            raise ConfigurationError(
                "the AsyncEngine given to Sessions has been used in another event loop: `await "
                "engine.dispose()` at the end of each loop, or make it with poolclass=NullPool"
            )

    def _refuse_in_transaction(self, raw: Raw) -> None:
        """Refuse a connection of SQLite that is never in autocommit mode."""
        if not self.driver.elsewhere and raw.in_transaction:
            raise ConfigurationError(
                "the connections of the AsyncEngine given to Sessions are always in a transaction, "
                "as those of sqlite3 with autocommit=False: leave that out"
            )

    def _drop(self, lease: EngineLease) -> None:
        lease.leave()
        with suppress(Exception):
            self.driver.leave(lease.raw)


class _LeaseOfEngine(Lease):
    """A connection of an engine's pool.

    Args:
        raw: the driver's own connection.
        there: the pool of SQLAlchemy.
        pool: ours.
    """

    def __init__(self, raw: Raw, there: PoolOfEngine, pool: EnginePool) -> None:
        self.raw = raw
        self._there = there
        self._pool = pool

    @property
    def stale(self) -> bool:
        return self._pool.is_stale(self._there)

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return _transaction(self._pool.driver, self.raw)


class EngineLease(_LeaseOfEngine):
    """A connection that SQLAlchemy has checked out of its pool.

    Args:
        connection: in autocommit mode.
        fairy: what the pool has lent.
        there: the pool.
        pool: ours.

    Attributes:
        apart: whether it does not come back to the pool.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        fairy: PoolProxiedConnection,
        there: PoolOfEngine,
        pool: EnginePool,
    ) -> None:
        super().__init__(fairy.driver_connection, there, pool)
        self.apart = False
        self._connection = connection
        self._fairy = fairy

    async def give_back(self, *, broken: bool) -> None:
        driver = self._pool.driver
        if not broken and not self._pool.owned:
            try:
                await driver.restore(self.raw, by_index=self.by_index)
            except Exception:  # noqa: BLE001 -- it has broken just now
                broken = True
        if not (broken or self.apart or self.stale):
            await self._connection.close()
            return
        # SQLAlchemy does not close what it cannot break off, as with psycopg, and would try to roll
        # back on a closed socket.
        self._fairy.detach()
        await (driver.discard if broken else driver.close)(self.raw)

    def leave(self) -> None:
        with suppress(Exception):
            self._fairy.detach()


class OnlyLease(_LeaseOfEngine):
    """The only connection of a StaticPool, which the app uses at the same time.

    It is never given back: that would roll back what the app has under way.
    """

    async def give_back(self, *, broken: bool) -> None: ...


@asynccontextmanager
async def _transaction(driver: Driver, raw: Raw) -> AsyncIterator[None]:
    await driver.begin(raw)
    try:
        yield
    except asyncio.CancelledError:
        # The connection is dropped, and the server rolls back. A ROLLBACK might wait as long as
        # the statement that was cancelled.
        if driver.shared:
            await driver.rollback(raw)
        raise
    except Exception:
        await driver.rollback(raw)
        raise
    await driver.commit(raw)


def _capacity(there: PoolOfEngine) -> float:
    """How many connections a pool can lend at the same time."""
    if not isinstance(there, QueuePool):
        return inf
    overflow = there._max_overflow  # noqa: SLF001 -- there is no public one
    return inf if overflow < 0 else there.size() + overflow


def _refuse_unusable(engine: AsyncEngine) -> None:
    dialect, there = engine.dialect, engine.sync_engine.pool
    if (dialect.name, dialect.driver) not in DRIVERS:
        raise ConfigurationError(
            f"an AsyncEngine on {dialect.name}+{dialect.driver} is not supported: use {SUPPORTED}"
        )
    sqlite = dialect.name == "sqlite"
    if isinstance(there, StaticPool) and not sqlite:
        raise ConfigurationError(
            "the AsyncEngine given to Sessions has a StaticPool, whose only connection cannot "
            "answer two requests at the same time: leave poolclass out, or use NullPool"
        )
    if isinstance(there, AssertionPool):
        raise ConfigurationError(
            "the AsyncEngine given to Sessions has an AssertionPool, which lends one connection at "
            "a time: leave poolclass out, or use NullPool"
        )
    if sqlite and not isinstance(there, StaticPool) and _is_memory(engine.url):
        raise ConfigurationError(
            "an in-memory SQLite database is another one for each connection, so sessions would "
            "be lost at once: make the engine with poolclass=StaticPool, as SQLAlchemy does by "
            "itself for 'sqlite+aiosqlite://', or use a file"
        )
    options = engine.sync_engine.get_execution_options()
    if options.get("postgresql_readonly") or (sqlite and _is_read_only(engine.url)):
        raise ConfigurationError(
            "the AsyncEngine given to Sessions is read-only, and sessions are written: give it the "
            "engine that writes"
        )
    if options.get("schema_translate_map"):
        raise ConfigurationError(
            "the AsyncEngine given to Sessions has a schema_translate_map, which statements that "
            "go straight to the driver do not obey: give it the engine without that option, and "
            "name the schema with table_name='schema.sessions'"
        )


def _is_memory(url: URL) -> bool:
    name = url.database or ""
    return not name or ":memory:" in name or url.query.get("mode") == "memory"


def _is_read_only(url: URL) -> bool:
    return url.query.get("mode") == "ro" or url.query.get("immutable") in {"1", "true"}
