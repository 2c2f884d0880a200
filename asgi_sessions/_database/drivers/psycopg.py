"""PostgreSQL, by psycopg."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sqlalchemy.dialects.postgresql.psycopg import PGDialectAsync_psycopg

from asgi_sessions._database.statement import Record

from .base import Listening, Raw
from .postgresql import PostgreSQLDriver


class PsycopgDriver(PostgreSQLDriver):
    """psycopg, the third of the name."""

    unprepared: ClassVar = (
        "?prepare_threshold=none (to an AsyncEngine of your own, "
        'connect_args={"prepare_threshold": None}; in session mode, or if the pooler keeps '
        "prepared statements apart, 4)"
    )

    def __init__(self, *, decided: bool = False) -> None:
        from psycopg import AsyncRawCursor  # noqa: PLC0415 -- it need not be there
        from psycopg.rows import tuple_row  # noqa: PLC0415 -- as above

        dialect: Any = PGDialectAsync_psycopg
        # As asyncpg: the server's own numbered parameters, which nobody has to rewrite.
        super().__init__(dialect(paramstyle="numeric_dollar"), decided=decided)
        self._cursor: Any = AsyncRawCursor
        self._as_tuples = tuple_row

    def pid(self, raw: Raw) -> int:
        return int(raw.info.backend_pid)

    def prepares(self, raw: Raw) -> bool:
        return bool(raw.prepare_threshold == _THRESHOLD)

    # A cursor of the client's has nothing to be closed, and closing it costs as much as making it.

    async def simple(self, raw: Raw, sql: str) -> int:
        cursor = self._cursor(raw)
        await cursor.execute(sql, prepare=False)
        return max(int(cursor.rowcount), 0)

    async def fetch(self, raw: Raw, sql: str, params: Sequence[Any]) -> Sequence[Record]:
        cursor = self._cursor(raw, row_factory=self._as_tuples)
        # As text, psycopg reads times of one DateStyle alone.
        await cursor.execute(sql, params, binary=True)
        rows: Sequence[Record] = [] if cursor.description is None else await cursor.fetchall()
        return rows

    async def execute(self, raw: Raw, sql: str, params: Sequence[Any]) -> int:
        cursor = self._cursor(raw)
        await cursor.execute(sql, params)
        return int(cursor.rowcount)

    async def run(self, raw: Raw, sql: str, params: Sequence[Sequence[Any]]) -> None:
        await self._cursor(raw).executemany(sql, params)

    async def listen(self, raw: Raw, channel: str, heard: Callable[[str], None]) -> Listening:
        name = self.dialect.identifier_preparer.quote_identifier(channel)
        await self.simple(raw, f"LISTEN {name}")
        return _Listening(self, raw, name, heard)

    def abandon(self, raw: Raw) -> None:
        raw.pgconn.finish()


#: Runs of a statement after which psycopg prepares it unless it is told another number.
_THRESHOLD = 5


class _Listening(Listening):
    def __init__(
        self, driver: PsycopgDriver, raw: Raw, channel: str, heard: Callable[[str], None]
    ) -> None:
        self._driver = driver
        self._raw = raw
        self._channel = channel
        self._heard = heard

    async def wait(self, seconds: float) -> None:
        async for notify in self._raw.notifies(timeout=seconds, stop_after=1):
            self._heard(notify.payload)

    async def pulse(self) -> None:
        await self._driver.simple(self._raw, "SELECT 1")

    async def stop(self) -> None:
        await self._driver.simple(self._raw, f"UNLISTEN {self._channel}")
