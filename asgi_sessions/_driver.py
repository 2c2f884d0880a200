"""What differs between databases: dialect, driver calls, and which faults pass by themselves.

`databases` opens and pools the connections; statements go through its `raw_connection` straight
to the driver, because its own query layer costs several times the driver's call and tells no
row count. Everything a driver needs to know about values, SQLAlchemy's dialect of it knows.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from threading import Thread, main_thread
from typing import Any, ClassVar, NamedTuple
from weakref import WeakSet

from databases import Database
from sqlalchemy import BindParameter, ColumnElement, Insert, Table, any_, bindparam, func
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.dialects.mysql import aiomysql
from sqlalchemy.dialects.sqlite import pysqlite
from sqlalchemy.engine import Dialect, make_url

from ._errors import ConfigurationError
from ._statement import Record


class Keys(NamedTuple):
    """Some values of a column, asked for in one of few shapes, so that few statements serve all.

    Attributes:
        shape: what tells one shape from another.
        match: that the column is one of them.
        values: the values of its parameters.
    """

    shape: Hashable
    match: Callable[[], ColumnElement[bool]]
    values: Mapping[str, Any]


class Driver(ABC):
    """One kind of database. `raw` is the driver's own connection."""

    #: Whether UPDATE tells the rows that it changed.
    returning: ClassVar[bool] = True
    #: Whether one transaction writes at a time, so that none has to lock what it reads.
    serial: ClassVar[bool] = False
    #: Options for a pool of our own.
    pool: ClassVar[Mapping[str, Any]] = {}
    #: Options of a URL that `databases` does not read, and what makes them the driver's.
    url_options: ClassVar[Mapping[str, Callable[[str], Any]]] = {}
    #: Whether connections of an app's own database may be held: where no pool waits for them.
    hold: ClassVar[bool] = False
    #: Seconds in which a connection that could not be opened has its last word.
    last_word: ClassVar[float] = 0
    dialect: Dialect

    @abstractmethod
    async def fetch(self, raw: Any, sql: str, params: Sequence[Any]) -> Sequence[Record]:  # noqa: ANN401 -- each driver's own
        """The rows of a statement."""

    @abstractmethod
    async def execute(self, raw: Any, sql: str, params: Sequence[Any]) -> int:  # noqa: ANN401 -- as above
        """How many rows a statement changed."""

    @abstractmethod
    def insert_once(self, table: Table) -> Insert:
        """An INSERT that does nothing where a unique column is taken."""

    def among(self, column: ColumnElement[Any], keys: Iterable[Any]) -> Keys:
        """That a column is one of these: as many parameters as the next power of two."""
        given = list(keys)
        size = 1 << (len(given) - 1).bit_length()
        given += given[-1:] * (size - len(given))
        names = [f"p_{column.name}_{i}" for i in range(size)]
        return Keys(
            (column.name, size),
            lambda: column.in_([bindparam(name, type_=column.type) for name in names]),
            dict(zip(names, given, strict=True)),
        )

    async def prepare(self, raw: Any, *, owned: bool, timeout: float) -> None:  # noqa: ANN401, B027, ASYNC109 -- as above
        """Make a new connection ready."""

    async def ddl_dialect(self, raw: Any) -> Dialect:  # noqa: ANN401, ARG002 -- as above
        """The dialect in which to make tables."""
        return self.dialect

    def passing(self, fault: Exception) -> bool:  # noqa: ARG002 -- as above
        """Whether the database asks to try again: a deadlock, a lost race."""
        return False

    def made_already(self, fault: Exception) -> bool:  # noqa: ARG002 -- as above
        """Whether a table or an index is there already."""
        return False

    def leave(self, raw: Any) -> None:  # noqa: ANN401 -- as above
        """Let go of a connection whose event loop is gone."""
        self.abandon(raw)

    def abandon(self, raw: Any) -> None:  # noqa: ANN401, B027 -- as above
        """Break a connection off without waiting for its other end."""


class SQLite(Driver):
    """aiosqlite."""

    hold = True
    serial = True
    last_word = 0.01

    def __init__(self) -> None:
        self.dialect = pysqlite.dialect(paramstyle="qmark")

    async def fetch(self, raw: Any, sql: str, params: Sequence[Any]) -> Sequence[Record]:  # noqa: ANN401 -- as Driver
        rows: Sequence[Record] = await raw.execute_fetchall(sql, params)
        return rows

    async def execute(self, raw: Any, sql: str, params: Sequence[Any]) -> int:  # noqa: ANN401 -- as Driver
        async with raw.execute(sql, params) as cursor:
            return int(cursor.rowcount)

    def insert_once(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing()

    async def prepare(self, raw: Any, *, owned: bool, timeout: float) -> None:  # noqa: ANN401, ASYNC109 -- as Driver
        # In milliseconds; short of the timeout, because a thread that waits cannot be broken off.
        await raw.execute_fetchall(f"PRAGMA busy_timeout = {int(timeout * 800)}")
        if owned:
            # Readers and the writer do not wait for one another. It stays with the file, so an
            # app's own database is left as it is.
            await raw.execute_fetchall("PRAGMA journal_mode = WAL")
        _stop_at_exit(raw)

    def leave(self, raw: Any) -> None:  # noqa: ANN401 -- as Driver
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raw.stop()
        else:
            # From a thread without an event loop: it would report to the one that runs here,
            # which may have ended by then.
            Thread(target=raw.stop).start()


def _stop_after_main() -> None:
    main_thread().join()
    for raw in tuple(_open):
        with suppress(Exception):
            raw.stop()


_open: WeakSet[Any] = WeakSet()
_exit = Thread(target=_stop_after_main, name="asgi_sessions exit", daemon=True)


def _stop_at_exit(raw: Any) -> None:  # noqa: ANN401 -- aiosqlite has no stubs of its own
    """Python waits at its end for the thread of an aiosqlite connection. If the loop was closed
    without cancelling its tasks, nobody has closed the connection, and it would wait for ever.
    """
    if _exit.ident is None:
        _exit.start()
    _open.add(raw)


class PostgreSQL(Driver):
    """asyncpg."""

    pool: ClassVar = {"min_size": 1, "max_size": 5}
    url_options: ClassVar = {"statement_cache_size": int}

    def __init__(self, *, decided: bool = False) -> None:
        self.dialect = make_url("postgresql+asyncpg://").get_dialect()()
        # Whether prepared statements are known to be good, or somebody has said so.
        self._decided = decided

    async def prepare(self, raw: Any, *, owned: bool, timeout: float) -> None:  # noqa: ANN401, ARG002, ASYNC109 -- as Driver
        """Refuse to prepare statements where others would run them: asyncpg gives them the same
        names in each process, and a pooler takes the processes' turns on one connection.
        """
        if self._decided:
            return
        # Without parameters `execute` prepares nothing. A pooler invents the number of the process.
        same = f"SELECT 1 WHERE pg_backend_pid() = {int(raw.get_server_pid())}"
        if await raw.execute(same) != "SELECT 1":
            raise ConfigurationError(
                "behind PgBouncer or another pooler the URL needs ?statement_cache_size=0, or "
                "processes would run one another's statements; for a databases.Database of your "
                "own, statement_cache_size=0; in session mode, or if the pooler keeps prepared "
                "statements apart, 100"
            )
        self._decided = True

    async def fetch(self, raw: Any, sql: str, params: Sequence[Any]) -> Sequence[Record]:  # noqa: ANN401 -- as Driver
        rows: Sequence[Record] = await raw.fetch(sql, *params)
        return rows

    async def execute(self, raw: Any, sql: str, params: Sequence[Any]) -> int:  # noqa: ANN401 -- as Driver
        status: str = await raw.execute(sql, *params)  # "UPDATE 3"
        return int(status.rpartition(" ")[2])

    def among(self, column: ColumnElement[Any], keys: Iterable[Any]) -> Keys:
        """One parameter for all of them, an array."""
        name = f"p_{column.name}_any"
        given = bindparam(name, type_=postgresql.ARRAY(column.type))
        return Keys(column.name, lambda: column == any_(given), {name: list(keys)})

    def insert_once(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing()

    def passing(self, fault: Exception) -> bool:
        # serialization_failure, deadlock_detected
        return getattr(fault, "sqlstate", None) in {"40001", "40P01"}

    def made_already(self, fault: Exception) -> bool:
        # unique_violation, duplicate_table: two processes made it at once, IF NOT EXISTS or not.
        return getattr(fault, "sqlstate", None) in {"23505", "42P07"}

    def abandon(self, raw: Any) -> None:  # noqa: ANN401 -- as Driver
        raw.terminate()


class _Bytes(mysql.BINARY):
    """Written in hexadecimal digits, which every `sql_mode` reads alike: the drivers escape bytes
    with backslashes, which escape nothing under NO_BACKSLASH_ESCAPES.
    """

    def bind_expression(self, bindvalue: BindParameter[bytes]) -> ColumnElement[bytes]:
        return func.unhex(bindvalue, type_=self)


class MySQL(Driver):
    """aiomysql or asyncmy, for MariaDB and MySQL."""

    returning = False
    pool: ClassVar = {"min_size": 1, "max_size": 5}

    def __init__(self) -> None:
        self.dialect = aiomysql.dialect()
        self.dialect.colspecs = {**self.dialect.colspecs, mysql.BINARY: _Bytes}
        self._fits = False

    async def prepare(self, raw: Any, *, owned: bool, timeout: float) -> None:  # noqa: ANN401, ARG002, ASYNC109 -- as Driver
        """See to it that values arrive as they are; an app's own connection is only looked at."""
        if owned:
            # Known ones, whatever the server's are.
            await self.execute(raw, "SET NAMES utf8mb4, SESSION sql_mode = 'TRADITIONAL'", ())
        elif not self._fits:
            await self._look_at(raw)
            self._fits = True

    async def _look_at(self, raw: Any) -> None:  # noqa: ANN401 -- as Driver
        question = "SELECT @@sql_mode, @@character_set_client, @@character_set_connection"
        ((modes, *charsets),) = await self.fetch(raw, question, ())
        if set(charsets) != {"utf8mb4"}:
            # What another one cannot spell becomes "?", and people whose ids hold it one person.
            raise ConfigurationError(
                "the connections of the databases.Database given to Sessions have the character "
                f"sets {', '.join(charsets)}, which would bend ids: pass it charset='utf8mb4' and "
                "no other in its init_command, or give Sessions a URL"
            )
        if "ORACLE" in modes.split(","):
            raise ConfigurationError(
                "under sql_mode=ORACLE, which the databases.Database given to Sessions has, BEGIN "
                "begins no transaction: take ORACLE out of the sql_mode, or give Sessions a URL"
            )

    async def fetch(self, raw: Any, sql: str, params: Sequence[Any]) -> Sequence[Record]:  # noqa: ANN401 -- as Driver
        async with raw.cursor() as cursor:
            await cursor.execute(sql, _plain(params))
            rows: Sequence[Record] = await cursor.fetchall()
            return rows

    async def execute(self, raw: Any, sql: str, params: Sequence[Any]) -> int:  # noqa: ANN401 -- as Driver
        async with raw.cursor() as cursor:
            await cursor.execute(sql, _plain(params))
            return int(cursor.rowcount)

    async def ddl_dialect(self, raw: Any) -> Dialect:  # noqa: ANN401 -- as Driver
        ((version,),) = await self.fetch(raw, "SELECT VERSION()", ())
        # The two name their collations differently.
        kind = "mariadb" if "MariaDB" in version else "mysql"
        dialect: Dialect = make_url(f"{kind}+aiomysql://").get_dialect()()
        return dialect

    def insert_once(self, table: Table) -> Insert:
        return mysql.insert(table).on_duplicate_key_update(id=table.c.id)

    def passing(self, fault: Exception) -> bool:
        # ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (a certification conflict of Galera, too);
        # ER_CHECKREAD: innodb_snapshot_isolation, the default since MariaDB 11.6;
        # ER_UNKNOWN_COM_ERROR, ER_ERROR_DURING_COMMIT: a node that is not in its cluster
        return fault.args[:1] in {(1020,), (1047,), (1180,), (1205,), (1213,)}

    def made_already(self, fault: Exception) -> bool:
        return fault.args[:1] in {(1050,), (1061,)}  # ER_TABLE_EXISTS_ERROR, ER_DUP_KEYNAME

    def abandon(self, raw: Any) -> None:  # noqa: ANN401 -- as Driver
        with suppress(Exception):
            raw.close()


def _plain(params: Sequence[Any]) -> list[Any]:
    """Values as the drivers may be trusted with."""
    return [_PLAIN[type(v)](v) if type(v) in _PLAIN else v for v in params]


_PLAIN: dict[type, Callable[[Any], Any]] = {
    bytes: bytes.hex,  # see _Bytes
    datetime: lambda moment: moment.replace(tzinfo=None),  # a DATETIME has no zone; ours are UTC
}


_DRIVERS: dict[str, type[Driver]] = {"sqlite": SQLite, "postgresql": PostgreSQL, "mysql": MySQL}


def driver_for(database: Database) -> Driver:
    """The driver of a database.

    Raises:
        ConfigurationError: for one that is not supported.
    """
    url = database.url
    dialect = "postgresql" if url.dialect == "postgres" else url.dialect
    if dialect not in _DRIVERS or url.driver == "aiopg":
        raise ConfigurationError(
            f"{url.scheme} is not supported: use sqlite, postgresql (asyncpg), mysql (aiomysql) "
            "or mysql+asyncmy"
        )
    if dialect == "postgresql":
        return PostgreSQL(decided="statement_cache_size" in database.options)
    return _DRIVERS[dialect]()
