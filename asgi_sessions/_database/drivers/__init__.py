"""How to speak to each database: one module for each library, named after it."""

from __future__ import annotations

from .aiomysql import AiomysqlDriver
from .aiosqlite import AiosqliteDriver
from .asyncmy import AsyncmyDriver
from .asyncpg import AsyncpgDriver
from .base import Driver
from .psycopg import PsycopgDriver

#: By the names of the dialect and of the library, as SQLAlchemy has them.
DRIVERS: dict[tuple[str, str], type[Driver]] = {
    ("sqlite", "aiosqlite"): AiosqliteDriver,
    ("postgresql", "asyncpg"): AsyncpgDriver,
    ("postgresql", "psycopg"): PsycopgDriver,
    ("mysql", "aiomysql"): AiomysqlDriver,
    ("mariadb", "aiomysql"): AiomysqlDriver,
    ("mysql", "asyncmy"): AsyncmyDriver,
    ("mariadb", "asyncmy"): AsyncmyDriver,
}
#: What the messages say that there is.
SUPPORTED = (
    "sqlite+aiosqlite, postgresql+asyncpg, postgresql+psycopg, mysql+aiomysql or mysql+asyncmy "
    "(for MariaDB mariadb+aiomysql, mariadb+asyncmy)"
)
