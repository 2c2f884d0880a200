"""The app's own connection of SQLAlchemy, in the middle of a transaction of the app's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from asgi_sessions._database.drivers.aiomysql import AiomysqlDriver
from asgi_sessions._database.drivers.aiosqlite import AiosqliteDriver
from asgi_sessions._database.drivers.asyncmy import AsyncmyDriver
from asgi_sessions._database.drivers.asyncpg import AsyncpgDriver
from asgi_sessions._database.drivers.base import Driver, Raw
from asgi_sessions._database.drivers.psycopg import PsycopgDriver
from asgi_sessions._errors import ConfigurationError

from .base import Lease

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RootTransaction
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    AppConnection: TypeAlias = AsyncConnection | AsyncSession

_DRIVERS: dict[str, Callable[[], Driver]] = {
    "aiomysql": AiomysqlDriver,
    "aiosqlite": AiosqliteDriver,
    "asyncmy": AsyncmyDriver,
    # The app has decided whether statements may be prepared.
    "asyncpg": partial(AsyncpgDriver, decided=True),
    "psycopg": PsycopgDriver,
}


class AppLease(Lease):
    """A connection that stays the app's: it commits, rolls back and gives back."""

    def __init__(self, raw: Raw) -> None:
        self.raw = raw

    def transaction(self) -> AbstractAsyncContextManager[object]:
        return nullcontext()  # the app's own is open

    async def give_back(self, *, broken: bool) -> None:
        """Nothing to do: nobody has lent it."""


class Joined(NamedTuple):
    """A transaction of the app that we take part in.

    Attributes:
        lease: its connection.
        driver: how to speak to that.
        connection: as SQLAlchemy sees it.
        root: the outermost transaction.
    """

    lease: AppLease
    driver: Driver
    connection: Connection
    root: RootTransaction


async def join(connection: AppConnection) -> Joined:
    """Take part in the transaction of an app's `AsyncConnection` or `AsyncSession`; begin it if the
    app has not.

    Raises:
        ConfigurationError: for anything else, and for a driver that is not supported.
    """
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession  # noqa: PLC0415 -- it needs greenlet, which only such apps have

    if isinstance(connection, AsyncSession):
        connection = await connection.connection()
    if not isinstance(connection, AsyncConnection):
        raise ConfigurationError(
            f"connection={connection!r}: pass an AsyncConnection or an AsyncSession of SQLAlchemy"
        )
    name = connection.dialect.driver
    if name not in _DRIVERS:
        supported = ", ".join(sorted(_DRIVERS))
        raise ConfigurationError(f"connection= on the driver {name!r}: use one of {supported}")
    # SQLAlchemy begins a transaction at its own first statement: without one, ours would stand
    # outside of it.
    await connection.exec_driver_sql("SELECT 1")
    raw = (await connection.get_raw_connection()).driver_connection
    sync = connection.sync_connection
    root = None if sync is None else sync.get_transaction()
    if sync is None or root is None:
        raise ConfigurationError(
            "connection= has no transaction: pass one that is not in autocommit"
        )
    return Joined(AppLease(raw), _DRIVERS[name](), sync, root)
