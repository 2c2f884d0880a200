"""Ends of many rows of one person, in batches that hold up nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from functools import partial
from heapq import nlargest
from typing import Any

from sqlalchemy import Select, bindparam, select

from asgi_sessions._database.engines import Engines
from asgi_sessions._database.statement import Record
from asgi_sessions._model.row import Row

from .clauses import LIMIT, Clauses, values
from .connection import RowConnection
from .ending import Ends
from .maintenance import SMALLEST_END, Pace

#: Rows of a batch at most: a statement with a parameter for each takes 5 ms to be made, once.
_BATCH = 512
#: Seconds that a batch should take where others write beside it, and rest after it at most:
#: somebody waits for the last.
_AIM = _REST = 0.02


class Bulk:
    """Ends many rows of one person, some at a time.

    Each row is read once, by the index of people, the newest first, and those that are to end do so
    in transactions of their own. So those that start meanwhile stay, and a row that somebody has
    locked, or an error, leaves the rows ended that have ended before.

    Args:
        engines: where the database is reached.
        sql: what is said of the table.
        ends: how rows end.
    """

    def __init__(self, engines: Engines, sql: Clauses, ends: Ends) -> None:
        self._engines = engines
        self._sql = sql
        self._ends = ends

    async def end_all(
        self,
        person_id: str,
        app_id: str | None,
        *,
        except_sid: str | None,
        reason: str,
        now: datetime,
    ) -> AsyncIterator[list[Row]]:
        """End a person's live sessions but one, in an app or in all; those of each batch."""

        def all_but_one(records: Sequence[Record]) -> list[str]:
            return [record[0] for record in records if record[0] != except_sid]

        with self._engines.here.bulk.kept():
            app = await self._app_after("", person_id) if app_id is None else app_id
            while app is not None:
                async for ended in self._batches(person_id, app, all_but_one, reason, now):
                    yield ended
                app = await self._app_after(app, person_id) if app_id is None else None

    async def trim(
        self, row: Row, most: int, *, reason: str, now: datetime
    ) -> AsyncIterator[list[Row]]:
        """End the logins that the person of a row has beside it in its app, but for so many that
        were seen last; those of each batch.
        """
        best: list[Record] = []

        def keep(records: Sequence[Record]) -> list[str]:
            nonlocal best
            everything = [*best, *(record for record in records if record[2])]
            best = nlargest(most, everything, key=_last_seen)
            kept = {row.id, *(record[0] for record in best)}
            return [record[0] for record in everything if record[0] not in kept]

        with self._engines.here.bulk.kept():
            async for ended in self._batches(row.person_id, row.app_id, keep, reason, now):
                yield ended

    async def _batches(
        self,
        person_id: str,
        app_id: str,
        choose: Callable[[Sequence[Record]], list[str]],
        reason: str,
        now: datetime,
    ) -> AsyncIterator[list[Row]]:
        """End what is chosen of a person's live rows in an app.

        Args:
            person_id: whose.
            app_id: in which app.
            choose: of some rows (the sid, when it was seen last, whether it counts as a login of
                the person) and of those before,
                the sids of those that are to end.
            reason: why.
            now: the moment.
        """
        driver = self._engines.here.driver
        pace = Pace(_BATCH, driver.batch if driver.serial else _AIM, SMALLEST_END)
        before: str | None = None
        more = True
        while more:
            given = values(person_id=person_id, app_id=app_id, before=before, limit=pace.size)
            with pace.measured():
                records = await self._newest(given, now)
                sids = choose(records)
                end = partial(self._ends.end_these, sids=sids, reason=reason, now=now)
                ended: list[Row] = await self._engines.bulk(end) if sids else []
            # A row that was live when it began has been read, or comes after what has been.
            more = len(records) == pace.size
            if ended:
                yield ended
            if more:
                before = records[-1][0]
                await pace.rest(_REST)

    async def _newest(self, given: dict[str, Any], now: datetime) -> Sequence[Record]:
        """The newest live rows of a person in an app, from one (`before`) on: by the index of
        people, from where that stands, so that none is read twice.
        """
        sql, c = self._sql, self._sql.c
        first = given["p_before"] is None

        def make(connection: RowConnection) -> Select[Any]:
            counts = sql.logins.label("counts")
            rows: Any = select(c.id, c.last_seen_at, counts).where(sql.owned)
            if not first:
                rows = rows.where(c.id < bindparam("p_before", type_=c.id.type))
            newest = [column.desc() for column in connection.by_id(sql)]
            return sql.by_person(rows.order_by(*newest).limit(LIMIT))

        async def work(connection: RowConnection) -> list[Record]:
            return await connection.records(
                ("newest", first), partial(make, connection), {**given, **sql.at(now)}
            )

        records: Sequence[Record] = await self._engines.bulk(work)
        return records

    async def _app_after(self, app_id: str, person_id: str) -> str | None:
        """The next app in which a person has rows."""
        sql, c = self._sql, self._sql.c

        async def work(connection: RowConnection) -> list[Record]:
            return await connection.records(
                "app after",
                lambda: (
                    select(c.app_id)
                    .where(sql.person, c.app_id > sql.param("app_id"))
                    .order_by(c.app_id)
                    .limit(1)
                ),
                values(person_id=person_id, app_id=app_id),
            )

        records: list[Record] = await self._engines.bulk(work)
        return records[0][0] if records else None


def _last_seen(record: Record) -> tuple[datetime, str]:
    return record[1], record[0]
