"""Which driver a database has."""

from __future__ import annotations

from databases import Database, DatabaseURL

from asgi_sessions._errors import ConfigurationError

from .aiosqlite import AiosqliteDriver
from .asyncpg import AsyncpgDriver
from .base import Driver
from .mysql import MySQLDriver

_KINDS: dict[str, type[Driver]] = {
    "sqlite": AiosqliteDriver,
    "postgresql": AsyncpgDriver,
    "postgres": AsyncpgDriver,
    "mysql": MySQLDriver,
}


def kind_of(url: DatabaseURL) -> type[Driver]:
    """The kind of database that a URL names.

    Raises:
        ConfigurationError: for one that is not supported.
        KeyError: for one that `databases` does not know.
    """
    if url.driver == "aiopg":
        raise ConfigurationError(
            f"{url.scheme} is not supported: use sqlite, postgresql (asyncpg), mysql (aiomysql) "
            "or mysql+asyncmy"
        )
    return _KINDS[url.dialect]


def driver_for(database: Database) -> Driver:
    """The driver of a database.

    Raises:
        ConfigurationError: for one that is not supported.
    """
    kind = kind_of(database.url)
    if kind is AsyncpgDriver:
        return AsyncpgDriver(decided="statement_cache_size" in database.options)
    return kind()
