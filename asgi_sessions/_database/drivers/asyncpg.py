"""PostgreSQL, by asyncpg."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from sqlalchemy.engine import make_url

from asgi_sessions._database.statement import Record

from .base import Listening, Raw
from .postgresql import PostgreSQLDriver

#: Statements that asyncpg keeps prepared unless it is told another number.
_CACHED = 100


class AsyncpgDriver(PostgreSQLDriver):
    """asyncpg.

    It does not cache long statements and encodes array items twice, so inserting the rows one by
    one is the cheapest way here, too.
    """

    unprepared: ClassVar = (
        "?statement_cache_size=0 (beside the URL of a databases.Database of your own, "
        "statement_cache_size=0; to an AsyncEngine of your own, "
        'connect_args={"statement_cache_size": 0}; in session mode, or if the pooler keeps '
        "prepared statements apart, 99)"
    )

    def __init__(self, *, decided: bool = False) -> None:
        super().__init__(make_url("postgresql+asyncpg://").get_dialect()(), decided=decided)

    async def connect(self, **options: Any) -> Raw:  # noqa: ANN401 -- asyncpg's
        import asyncpg  # noqa: PLC0415 -- only there with PostgreSQL

        return await asyncpg.connect(**options)

    def pid(self, raw: Raw) -> int:
        return int(raw.get_server_pid())

    def prepares(self, raw: Raw) -> bool:
        # There is no public one. Whoever has chosen another number than asyncpg has thought of it.
        config = getattr(raw, "_config", None)
        return getattr(config, "statement_cache_size", _CACHED) == _CACHED

    async def simple(self, raw: Raw, sql: str) -> int:
        status: str = await raw.execute(sql)  # "SELECT 1"
        return int(status.rpartition(" ")[2]) if status.startswith("SELECT") else 0

    def socket(self, raw: Raw) -> Any:  # noqa: ANN401 -- of asyncio, of uvloop
        transport = getattr(raw, "_transport", None)  # there is no public one
        return None if transport is None else transport.get_extra_info("socket")

    async def fetch(self, raw: Raw, sql: str, params: Sequence[Any]) -> Sequence[Record]:
        rows: Sequence[Record] = await raw.fetch(sql, *params)
        return rows

    async def execute(self, raw: Raw, sql: str, params: Sequence[Any]) -> int:
        status: str = await raw.execute(sql, *params)  # "UPDATE 3"
        return int(status.rpartition(" ")[2])

    async def run(self, raw: Raw, sql: str, params: Sequence[Sequence[Any]]) -> None:
        await raw.executemany(sql, params)

    async def listen(self, raw: Raw, channel: str, heard: Callable[[str], None]) -> _Listening:
        listening = _Listening(raw, channel, heard)
        await raw.add_listener(channel, listening.hear)
        return listening

    def abandon(self, raw: Raw) -> None:
        raw.terminate()


class _Listening(Listening):
    def __init__(self, raw: Raw, channel: str, heard: Callable[[str], None]) -> None:
        self._raw = raw
        self._channel = channel
        self._heard = heard
        self._lost = False
        self._news = asyncio.Event()
        raw.add_termination_listener(self._lose)

    def hear(self, *told: Any) -> None:  # noqa: ANN401 -- connection, process, channel, payload
        """Called by asyncpg."""
        self._heard(told[-1])
        self._news.set()

    def _lose(self, _: object) -> None:
        self._lost = True
        self._news.set()

    async def wait(self, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, self._news.set)
        try:
            await self._news.wait()
        finally:
            timer.cancel()
        self._news.clear()
        if self._lost:
            raise ConnectionError("the connection that listens was lost")

    async def pulse(self) -> None:
        await self._raw.execute("SELECT 1")

    async def stop(self) -> None:
        await self._raw.remove_listener(self._channel, self.hear)
