"""The databases: one of our own on each server, dropped afterwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from databases import DatabaseURL
from sqlalchemy import Engine, create_engine, text

#: On each server; what is there under this name goes.
DATABASE = "asgi_sessions_benchmark"

_ENGINES = {"sqlite": "sqlite", "postgresql": "postgresql+psycopg", "mysql": "mysql+pymysql"}


@dataclass(frozen=True)
class Place:
    """A database, and the driver that asks it."""

    name: str
    url: str

    @property
    def kind(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``, the last for MariaDB, too."""
        return DatabaseURL(self.url).dialect

    @property
    def driver(self) -> str:
        """``aiomysql`` or ``asyncmy``; nothing for the others."""
        return DatabaseURL(self.url).driver

    @property
    def engine_url(self) -> str:
        """For SQLAlchemy without asyncio."""
        return engine_url(self.url)


def engine_url(url: str) -> str:
    """For SQLAlchemy without asyncio."""
    place = DatabaseURL(url)
    return str(place.replace(dialect=_ENGINES[place.dialect], driver=None))


@contextmanager
def engine(url: str) -> Iterator[Engine]:
    """A connection without asyncio, each statement committed by itself unless it says BEGIN."""
    made = create_engine(engine_url(url), isolation_level="AUTOCOMMIT")
    try:
        yield made
    finally:
        made.dispose()


def run(url: str, *statements: str) -> None:
    """Each committed by itself."""
    with engine(url) as made, made.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)


@contextmanager
def places(urls: Iterable[str], directory: Path) -> Iterator[list[Place]]:
    """SQLite in a directory, and a database on each server.

    Args:
        urls: of the servers, as `databases` takes them.
        directory: for SQLite's files.
    """
    found = [Place("SQLite", f"sqlite:///{directory}/sessions.db")]
    servers: dict[str, str] = {}
    for url in urls:
        place = DatabaseURL(url)
        servers.setdefault(place.dialect, url)
        driver = place.driver or "aiomysql"
        name = "PostgreSQL" if place.dialect == "postgresql" else f"MariaDB ({driver})"
        found.append(Place(name, str(place.replace(database=DATABASE))))
    drop = f"DROP DATABASE IF EXISTS {DATABASE}"
    forced = {"postgresql": f"{drop} WITH (FORCE)"}
    for kind, url in servers.items():
        run(url, forced.get(kind, drop), f"CREATE DATABASE {DATABASE}")
    try:
        yield found
    finally:
        for kind, url in servers.items():
            run(url, forced.get(kind, drop))


_VERSIONS = {"sqlite": "SELECT sqlite_version()", "postgresql": "SHOW server_version"}


def version(place: Place) -> str:
    """The server's own word."""
    with engine(place.url) as made, made.connect() as connection:
        return str(connection.scalar(text(_VERSIONS.get(place.kind, "SELECT VERSION()"))))
