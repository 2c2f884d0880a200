"""Which driver a database has."""

from __future__ import annotations

from databases import Database, DatabaseURL

from ._driver import Driver
from ._errors import ConfigurationError
from ._mysql import MySQL
from ._postgresql import PostgreSQL
from ._sqlite import SQLite

_KINDS: dict[str, type[Driver]] = {
    "sqlite": SQLite,
    "postgresql": PostgreSQL,
    "postgres": PostgreSQL,
    "mysql": MySQL,
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
    if kind is PostgreSQL:
        return PostgreSQL(decided="statement_cache_size" in database.options)
    return kind()
