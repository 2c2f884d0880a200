"""The app's own connection of SQLAlchemy, in the middle of a transaction of the app's."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, NamedTuple, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy.engine import Engine

from asgi_sessions._database.batcher import as_sessions_error
from asgi_sessions._database.deadline import Deadline
from asgi_sessions._database.drivers import DRIVERS, SUPPORTED
from asgi_sessions._database.drivers.base import Driver, Raw
from asgi_sessions._database.tasks import running_loop
from asgi_sessions._errors import ConfigurationError

from .base import Lease

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, RootTransaction
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

    AppConnection: TypeAlias = AsyncConnection | AsyncSession

#: Of the engines whose connections have been passed, so that each is checked once.
_drivers: WeakKeyDictionary[Engine, Driver] = WeakKeyDictionary()


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


async def join(connection: AppConnection, *, timeout: float) -> Joined:  # noqa: ASYNC109 -- as Driver
    """Take part in the transaction of an app's `AsyncConnection` or `AsyncSession`; begin it if the
    app has not.

    Args:
        connection: the app's.
        timeout: seconds that this may take.

    Raises:
        ConfigurationError: for anything else, for a driver that is not supported, and for a
            connection that would spoil values (`Driver.check`).
        SessionsUnavailable: if the database does not answer.
    """
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession  # noqa: PLC0415 -- it needs greenlet, which only such apps have

    if not isinstance(connection, AsyncConnection | AsyncSession):
        raise ConfigurationError(
            f"connection={connection!r}: pass an AsyncConnection or an AsyncSession of SQLAlchemy"
        )
    try:
        async with Deadline(running_loop().time() + timeout):
            if isinstance(connection, AsyncSession):
                connection = await connection.connection()
            return await _join(connection)
    except Exception as error:
        raise as_sessions_error(error) from error


async def _join(connection: AsyncConnection) -> Joined:
    dialect = connection.dialect
    kind = DRIVERS.get((dialect.name, dialect.driver))
    if kind is None:
        raise ConfigurationError(
            f"connection= on {dialect.name}+{dialect.driver} is not supported: use {SUPPORTED}"
        )
    # SQLAlchemy begins a transaction at its own first statement: without one, ours would stand
    # outside of it.
    await connection.exec_driver_sql("SELECT 1")
    raw = (await connection.get_raw_connection()).driver_connection
    sync = connection.sync_connection
    root = None if sync is None else sync.get_transaction()
    # No public one; and SQLAlchemy begins a transaction in autocommit mode as well.
    if sync is None or root is None or sync._is_autocommit_isolation():  # noqa: SLF001
        raise ConfigurationError(
            "connection= has no transaction: pass one that is not in autocommit"
        )
    driver = _drivers.get(sync.engine)
    if driver is None:
        driver = _drivers[sync.engine] = kind()
    await driver.check(raw)
    return Joined(AppLease(raw), driver, sync, root)
