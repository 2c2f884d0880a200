"""PostgreSQL, by asyncpg."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from databases import Database
from sqlalchemy import ColumnElement, Insert, Table, any_, bindparam
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import make_url

from ._driver import Driver, Keys
from ._errors import ConfigurationError
from ._statement import Record

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


class PostgreSQL(Driver):
    """asyncpg."""

    notifies: ClassVar = True
    pool: ClassVar = {"min_size": 1, "max_size": 5}
    url_options: ClassVar = {"statement_cache_size": int}

    def __init__(self, *, decided: bool = False) -> None:
        self.dialect = make_url("postgresql+asyncpg://").get_dialect()()
        # Whether prepared statements are known to be good, or somebody has said so.
        self._decided = decided

    async def connect(self, database: Database) -> Any:  # noqa: ANN401 -- as Driver
        """None of the pool's, whose connections are counted."""
        import asyncpg  # noqa: PLC0415 -- only there with PostgreSQL

        url = database.url
        options = {name: database.options[name] for name in {*database.options} - _OF_POOLS}
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
        return await database.options.get("connect", asyncpg.connect)(**{**place, **options})

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
