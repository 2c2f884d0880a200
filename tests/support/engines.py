"""A database as somebody else sees it: other connections, with drivers that the package does not
use; its locks, and who waits for them.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from databases import Database, DatabaseURL
from sqlalchemy import Connection, Engine, Select, create_engine, make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import AsyncAdaptedQueuePool, NullPool

from asgi_sessions import Sessions

_WAITING = {
    "postgresql": "SELECT count(*) FROM pg_stat_activity"
    " WHERE wait_event_type = 'Lock' AND (query LIKE :query OR wait_event = 'advisory')",
    "mariadb": "SELECT (SELECT count(*) FROM information_schema.INNODB_TRX"
    " WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE :query) +"
    " (SELECT count(*) FROM information_schema.PROCESSLIST"
    " WHERE state LIKE 'Waiting for table%' AND info LIKE :query)",
}
_WAITING["mysql"] = _WAITING["mariadb"]

#: Seconds between two questions who waits: InnoDB tells the same for 0.1 s after it was asked.
POLL = 0.11


def kind(url: str) -> str:
    """``sqlite``, ``postgresql`` or ``mysql``, the last for MariaDB, too."""
    return url.partition(":")[0].partition("+")[0]


def app_database(url: str, **options: Any) -> Database:
    """A database of an app's own: what `databases` does not read from a URL is given beside it."""
    size = DatabaseURL(url).options.get("statement_cache_size")
    if size is not None:
        options["statement_cache_size"] = int(size)
    return Database(url, **options)


@cache
def is_mariadb(url: str) -> bool:
    """Whether it is MariaDB, not MySQL: both have the same scheme in a URL for `Sessions`."""
    engine = _engine(str(make_url(url).set(drivername="mysql+pymysql", query={})))
    with engine.connect() as connection:
        version = connection.scalar(text("SELECT VERSION()"))
    return "MariaDB" in str(version)


def sync_engine(url: str) -> Engine:
    """An engine as an app's Alembic has it, each statement committed by itself."""
    place = make_url(url).set(query={})  # its options are for another driver
    drivers = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}
    driver = drivers[kind(url)]
    # The two name their collations differently, and SQLAlchemy tells them apart by the URL.
    if kind(url) == "mysql" and is_mariadb(url):
        driver = "mariadb+pymysql"
    return _engine(str(place.set(drivername=driver)))


def _engine(url: str) -> Engine:
    # Nothing is prepared: it would not survive PgBouncer. And there is no pool: a connection of
    # a test that fails would stay open in it, be dropped in the middle of another, and fail that.
    options = {"prepare_threshold": None} if kind(url) == "postgresql" else {}
    return create_engine(
        url, isolation_level="AUTOCOMMIT", connect_args=options, poolclass=NullPool
    )


class EngineURL(str):
    """The URL of a database that `Sessions` reaches by an engine of the app.

    Attributes:
        driver: the library, as SQLAlchemy calls it with its dialect: ``postgresql+psycopg``.
    """

    __slots__ = ("driver",)
    driver: str

    @classmethod
    def of(cls, url: str, driver: str) -> EngineURL:
        made = cls(url)
        made.driver = driver
        return made


def app_engine(url: str, driver: str, **options: Any) -> AsyncEngine:
    """An engine of an app's own, with which nothing is prepared where the URL says so."""
    place = make_url(url)
    if place.query.get("statement_cache_size") == "0":  # behind PgBouncer
        asyncpg = driver.endswith("asyncpg")
        unprepared = {"statement_cache_size": 0} if asyncpg else {"prepare_threshold": None}
        options["connect_args"] = unprepared | options.get("connect_args", {})
    if kind(url) == "sqlite" and make_url(url).database not in {None, ""}:
        # As SQLAlchemy has it by itself, since 2.0.38.
        options.setdefault("poolclass", AsyncAdaptedQueuePool)
    return create_async_engine(place.set(drivername=driver, query={}), **options)


async def run(sessions: Sessions, statement: Any) -> list[dict[str, Any]]:
    """Run a statement on the database of `Sessions`, as the app would; the rows that it gives."""
    if isinstance(sessions.database, Database):
        if isinstance(statement, Select):
            return [dict(row._mapping) for row in await sessions.database.fetch_all(statement)]
        await sessions.database.execute(statement)
        return []
    async with sessions.database.begin() as connection:
        result = await connection.execute(statement)
        return [dict(row._mapping) for row in result] if result.returns_rows else []


@contextmanager
def own_database(url: str, directory: Path) -> Iterator[str]:
    """The URL of an empty database on the same server, or of a file in the directory."""
    name = f"space_{uuid.uuid4().hex[:12]}"
    if kind(url) == "sqlite":
        yield f"sqlite:///{directory}/{name}.db"
        return
    engine = sync_engine(url)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield str(DatabaseURL(url).replace(database=name))
    finally:
        force = " WITH (FORCE)" if kind(url) == "postgresql" else ""  # a pool may keep connections
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name}{force}")


class Onlooker:
    """Somebody else's connection to the table of a test.

    Args:
        url: the database.
        table: the table's name.
    """

    def __init__(self, url: str, table: str) -> None:
        self.engine = sync_engine(url)
        self.table = table

    def close(self) -> None:
        self.engine.dispose()

    def run(self, *statements: str) -> None:
        """Run statements on one connection; ``{}`` in them is the table."""
        with self.engine.connect() as connection:
            for statement in statements:
                connection.exec_driver_sql(statement.format(self.table))

    def count(self, condition: str = "1 = 1") -> int:
        """How many rows there are."""
        with self.engine.connect() as connection:
            found = connection.scalar(
                text(f"SELECT count(*) FROM {self.table} WHERE {condition}")  # noqa: S608 -- a test's
            )
        return int(found or 0)

    def cut(self, connections: Iterable[int]) -> None:
        """Close connections of others, by the server's numbers for them."""
        postgresql = self.engine.dialect.name == "postgresql"
        for number in connections:
            # Behind a pool it may be the one that asks.
            with suppress(OperationalError), self.engine.connect() as connection:
                connection.exec_driver_sql(
                    f"SELECT pg_terminate_backend({number})" if postgresql else f"KILL {number}"
                )

    @contextmanager
    def locked(self) -> Iterator[Callable[[int], None]]:
        """Hold the locks of all rows. Gives a function that returns when so many wait for them;
        SQLite does not tell, so there it returns at once.
        """
        sqlite = self.engine.dialect.name == "sqlite"
        with self.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if sqlite else "BEGIN")
            try:
                if not sqlite:
                    connection.exec_driver_sql(f"SELECT id FROM {self.table} FOR UPDATE")  # noqa: S608 -- as above
                yield self._until_waiting
            finally:
                connection.exec_driver_sql("ROLLBACK")

    @contextmanager
    def shut(self) -> Iterator[Callable[[int], None]]:
        """Let nobody write to the table, not even to a row that nobody has locked; else as
        `locked`.
        """
        if self.engine.dialect.name == "sqlite":
            with self.locked() as until_waiting:
                yield until_waiting
            return
        postgresql = self.engine.dialect.name == "postgresql"
        with self.engine.connect() as connection:
            lock = (
                "LOCK TABLE {} IN SHARE ROW EXCLUSIVE MODE" if postgresql else "LOCK TABLES {} READ"
            )
            if postgresql:
                connection.exec_driver_sql("BEGIN")
            connection.exec_driver_sql(lock.format(self.table))
            try:
                yield self._until_waiting
            finally:
                connection.exec_driver_sql("ROLLBACK" if postgresql else "UNLOCK TABLES")

    def waiting(self) -> int:
        """How many statements on the table wait for a lock."""
        with self.engine.connect() as connection:
            return self._waiting(connection)

    def _waiting(self, connection: Connection) -> int:
        query = _WAITING.get(self.engine.dialect.name)
        if query is None:
            return 0
        return int(connection.scalar(text(query), {"query": f"%{self.table}%"}) or 0)

    def _until_waiting(self, number: int) -> None:
        if self.engine.dialect.name == "sqlite":
            return
        until = time.monotonic() + 5  # seconds
        with self.engine.connect() as connection:
            while (waiting := self._waiting(connection)) < number:
                assert time.monotonic() < until, f"{waiting} wait for a lock, not {number}"
                time.sleep(POLL)


def connection_threads() -> set[threading.Thread]:
    """One for each connection that aiosqlite has open."""
    return {t for t in threading.enumerate() if "_connection_worker" in t.name}
