"""Which driver a database has."""

from __future__ import annotations

from databases import Database

from ._driver import Driver
from ._errors import ConfigurationError
from ._mysql import MySQL
from ._postgresql import PostgreSQL
from ._sqlite import SQLite

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
