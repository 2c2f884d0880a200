"""Connections from `databases`: from a URL, or from an app's own `databases.Database`.

`databases` opens and pools the connections. Its query layer costs several times the driver's call
and tells no row count, so statements go through its `raw_connection` straight to the driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from math import ceil, inf
from typing import NamedTuple
from weakref import ref

from databases import Database, DatabaseURL
from databases.core import Connection

from asgi_sessions._database.drivers.aiomysql import AiomysqlDriver
from asgi_sessions._database.drivers.aiosqlite import AiosqliteDriver
from asgi_sessions._database.drivers.asyncmy import AsyncmyDriver
from asgi_sessions._database.drivers.asyncpg import AsyncpgDriver
from asgi_sessions._database.drivers.base import Driver, Raw
from asgi_sessions._database.url import read, refuse_unread
from asgi_sessions._database.url_options import rules_for
from asgi_sessions._errors import ConfigurationError

from .base import MOST, Lease, Line, Pool, Source


class _Kind(NamedTuple):
    """What `databases` offers for one driver.

    Attributes:
        driver: how to speak to its connections.
        sizes: the options for a pool of our own.
        max_idle: the option that says after how many seconds of rest a pool closes a connection.
    """

    driver: type[Driver]
    sizes: Mapping[str, int] = {}
    max_idle: str | None = None


_SIZES = {"min_size": 1, "max_size": 8}
_SQLITE = _Kind(AiosqliteDriver)
_POSTGRESQL = _Kind(AsyncpgDriver, _SIZES, "max_inactive_connection_lifetime")
_AIOMYSQL = _Kind(AiomysqlDriver, _SIZES, "pool_recycle")
_ASYNCMY = _Kind(AsyncmyDriver, _SIZES, "pool_recycle")
_KINDS = {
    "sqlite": _SQLITE,
    "postgresql": _POSTGRESQL,
    "postgres": _POSTGRESQL,
    "mysql": _AIOMYSQL,
}

#: The libraries that may be named, as SQLAlchemy spells it; a URL need not name one.
_LIBRARIES = {
    "sqlite": {"", "aiosqlite"},
    "postgresql": {"", "asyncpg"},
    "postgres": {"", "asyncpg"},
    "mysql": {"", "aiomysql", "asyncmy"},
}

#: What asyncpg's `create_pool` takes, and its `connect` does not.
_OF_POOLS = {
    "connect",
    "init",
    "max_inactive_connection_lifetime",
    "max_queries",
    "max_size",
    "min_size",
    "reset",
    "setup",
}


def kind_of(url: DatabaseURL) -> _Kind:
    """The kind of database that a URL names.

    Raises:
        ConfigurationError: for one that is not supported.
        KeyError: for one that `databases` does not know.
    """
    if url.dialect in _KINDS and url.driver not in _LIBRARIES[url.dialect]:
        raise ConfigurationError(
            f"{url.scheme} is not supported: use sqlite (aiosqlite), postgresql (asyncpg), mysql "
            "(aiomysql) or mysql+asyncmy; postgresql+psycopg as a URL or by an AsyncEngine, not by "
            "a databases.Database, which speaks asyncpg to PostgreSQL"
        )
    return _ASYNCMY if url.scheme == "mysql+asyncmy" else _KINDS[url.dialect]


def driver_of(database: Database) -> Driver:
    """The driver of a database.

    Raises:
        ConfigurationError: for one that is not supported.
    """
    kind = kind_of(database.url).driver
    if kind is AsyncpgDriver:
        return AsyncpgDriver(decided="statement_cache_size" in database.options)
    return kind()


class DatabasesSource(Source):
    """A URL, for which each event loop gets a `databases.Database` of its own, or an app's own.

    Args:
        database: the URL, or the `databases.Database`.
        max_idle: seconds that a connection may rest before it is used again. A URL may say less
            (``?pool_recycle=``).

    Raises:
        ConfigurationError: for a database that cannot be used so.
    """

    def __init__(self, database: str | Database, *, max_idle: float) -> None:
        self._owned = not isinstance(database, Database)
        self.max_idle = max_idle
        if isinstance(database, Database):
            _refuse_memory(database.url)
            refuse_unread(database.url, database.options, rules_for(database.url))
            self._first = database
        else:
            self.max_idle = _lowered(max_idle, database)
            self._first = _make(database, self.max_idle)
        self._first_loop: ref[asyncio.AbstractEventLoop] | None = None
        self.driver = kind_of(self._first.url).driver

    @property
    def address(self) -> str:
        return self._first.url.obscure_password

    @property
    def database(self) -> Database:
        return self._first

    def pool(self, loop: asyncio.AbstractEventLoop) -> DatabasesPool:
        if self._first_loop is None:
            self._first_loop = ref(loop)
        if self._first_loop() is loop:
            return DatabasesPool(self._first, owned=self._owned)
        if self._owned:
            another = _make(str(self._first.url), self.max_idle)
            return DatabasesPool(another, owned=True)
        # For SQLite `databases` pools nothing, so that each loop has connections of its own.
        if self.driver is not AiosqliteDriver:
            raise ConfigurationError(
                "the databases.Database given to Sessions belongs to another event loop: "
                "use it in one loop (TestClient as a context manager), or give Sessions a URL, "
                "which works in any loop"
            )
        return DatabasesPool(self._first, owned=False)


class DatabasesPool(Pool):
    """A `databases.Database` in one event loop.

    Args:
        database: opened here if nobody has.
        owned: whether it was made from a URL.
    """

    def __init__(self, database: Database, *, owned: bool) -> None:
        self._database = database
        self.driver = driver_of(database)
        self.owned = owned
        # For SQLite `databases` opens a connection, and a thread, whenever one is borrowed, so no
        # pool waits for those that are held. The connections of an app's own pool it needs itself.
        said = {"max_size": MOST, **database.options, **database.url.options}["max_size"]
        self.hold = isinstance(self.driver, AiosqliteDriver) or (owned and int(said) >= MOST)

    @property
    def database(self) -> Database:
        return self._database

    @property
    def is_open(self) -> bool:
        return self.database.is_connected

    async def open(self) -> None:
        await self.database.connect()

    async def close(self) -> None:
        await self.database.disconnect()

    async def borrow(self) -> DatabasesLease:
        borrowed = self.database.connection()
        # `databases` would give the same one to whoever asks next in this task.
        self.database._connection = None  # noqa: SLF001 -- there is no other way
        await borrowed.__aenter__()
        return DatabasesLease(borrowed)

    async def connect(self) -> Line:
        """A connection of asyncpg that its pool does not count."""
        url, given = self.database.url, self.database.options
        options = {name: given[name] for name in {*given} - _OF_POOLS}
        ssl = url.options.get("ssl")
        if ssl is not None:  # as `databases` reads it
            options.setdefault("ssl", {"true": True, "false": False}.get(ssl.lower(), ssl))
        place = {
            "host": url.hostname,
            "port": url.port,
            "user": url.username,
            "password": url.password,
            "database": url.database,
        }
        connect = given.get("connect", self.driver.connect)
        return ApartLine(await connect(**{**place, **options}), self.driver)


class DatabasesLease(Lease):
    """A connection of `databases`.

    Args:
        borrowed: the connection, entered.
    """

    def __init__(self, borrowed: Connection) -> None:
        self.raw = borrowed.raw_connection
        self._borrowed = borrowed
        self._users = borrowed._connection_counter  # noqa: SLF001 -- no public one; see give_back

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return self._borrowed.transaction()

    async def give_back(self, *, broken: bool) -> None:
        if broken:
            # `databases` counts a BEGIN or ROLLBACK that has failed as a user who has not left,
            # for whom it would keep the connection from the pool for ever.
            self._borrowed._connection_counter = self._users  # noqa: SLF001 -- no public one to set
        await self._borrowed.__aexit__()


class ApartLine(Line):
    """A connection that was opened beside the pool, to do nothing but listen."""

    def __init__(self, raw: Raw, driver: Driver) -> None:
        self.raw = raw
        self._driver = driver

    async def give_back(self, *, broken: bool) -> None:  # noqa: ARG002 -- no pool is to know
        await self._driver.close(self.raw)


def _lowered(max_idle: float, url: str) -> float:
    """The seconds that a connection may rest, if the URL may say less; -1 says nothing."""
    try:
        given = DatabaseURL(url).options.get("pool_recycle", "-1")
        recycle = int(given)
    except Exception:  # noqa: BLE001 -- no URL, or no number: `_make` says so
        return max_idle
    return min(max_idle, recycle) if recycle >= 0 else max_idle


def _make(url: str, max_idle: float) -> Database:
    try:
        if url.startswith("mariadb"):  # SQLAlchemy tells the two apart, `databases` does not
            url = f"mysql{url.removeprefix('mariadb')}"
        place = DatabaseURL(url)
        _ = place.port  # what is no number raises here
        kind = kind_of(place)
        _refuse_memory(place)
        options = read(place, rules_for(place), kind.sizes)
        if kind.max_idle is not None and max_idle < inf:
            options[kind.max_idle] = max(ceil(max_idle), 1)  # 0 would be for ever
        database = Database(url, **options)
        if kind is _AIOMYSQL and options.get("ssl"):  # aiomysql does not insist on TLS
            from .databases_aiomysql import EncryptedBackend  # noqa: PLC0415 -- it need not be there

            database._backend = EncryptedBackend(url, **options)  # noqa: SLF001 -- it has no other place
    except ImportError as error:
        raise ConfigurationError(
            f"the driver for this database URL is missing ({error.name}): install "
            "asgi-login-sessions[postgresql] or asgi-login-sessions[mysql]"
        ) from error
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 -- KeyError, ValueError, AttributeError, ...
        raise ConfigurationError(
            "invalid database URL; use one like "
            "'sqlite:///sessions.db' or 'postgresql://user:password@host/name'; what has another "
            "meaning in URLs, such as / in a password, is written as %2F"
        ) from None  # the error may quote the password
    return database


def _refuse_memory(place: DatabaseURL) -> None:
    url = str(place)
    if place.dialect != "sqlite":
        return
    if not place.database or ":memory:" in url or "mode=memory" in url:
        raise ConfigurationError(
            "an in-memory SQLite database is another one for each connection, so sessions would "
            "be lost at once: use a file, for instance 'sqlite:///sessions.db' "
            "(in tests: f'sqlite:///{tmp_path}/sessions.db')"
        )
