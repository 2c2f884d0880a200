"""Ends of many rows of one person, in batches that hold up nobody else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from functools import partial
from heapq import nlargest
from typing import Any, Literal, NamedTuple

from sqlalchemy import Select, bindparam, select

from asgi_sessions._database.engines import Engines
from asgi_sessions._database.statement import Record
from asgi_sessions._model.row import Row

from .clauses import LIMIT, Clauses, Condition, values
from .connection import RowConnection
from .ending import Ends
from .maintenance import SMALLEST_END, Pace

#: Rows of a batch at most: a statement with a parameter for each takes 5 ms to be made, once.
_BATCH = 512
#: Seconds that a batch should take where others write beside it, and rest after it at most:
#: somebody waits for the last.
_AIM = _REST = 0.02


#: Where a row has what a provider calls its person, and their session there.
Column = Literal["subject", "provider_sid"]


class _Mine(NamedTuple):
    """Which rows: the name of the condition, which has to say that they live, and its values."""

    key: str
    condition: Condition
    given: dict[str, Any]


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
                mine = self._owned(person_id, app)
                async for ended in self._batches(mine, all_but_one, reason, now):
                    yield ended
                app = await self._app_after(app, person_id) if app_id is None else None

    async def end_named(
        self,
        column: Column,
        value: str,
        issuer: str,
        app_id: str,
        *,
        reason: str,
        now: datetime,
        still: Callable[[], Awaitable[bool]],
    ) -> AsyncIterator[list[Row]]:
        """End the live sessions in an app that have a value of an issuer's in a column; those of
        each batch. `still` is asked when it is known which they are, and none ends if it says no.
        """

        def everything(records: Sequence[Record]) -> list[str]:
            return [record[0] for record in records]

        given = values(**{column: value}, issuer=issuer, app_id=app_id)
        mine = _Mine(column, self._sql.named(column), given)
        with self._engines.here.bulk.kept():
            async for ended in self._batches(mine, everything, reason, now, still):
                yield ended

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
            mine = self._owned(row.person_id, row.app_id)
            async for ended in self._batches(mine, keep, reason, now):
                yield ended

    def _owned(self, person_id: str, app_id: str) -> _Mine:
        return _Mine("owned", self._sql.owned, values(person_id=person_id, app_id=app_id))

    async def _batches(
        self,
        mine: _Mine,
        choose: Callable[[Sequence[Record]], list[str]],
        reason: str,
        now: datetime,
        still: Callable[[], Awaitable[bool]] | None = None,
    ) -> AsyncIterator[list[Row]]:
        """End what is chosen of some live rows.

        Args:
            mine: which.
            choose: of some rows (the sid, when it was seen last, whether it counts as a login of
                the person) and of those before, the sids of those that are to end.
            reason: why.
            now: the moment.
            still: asked once, after the first have been read, whether they are to end; without it
                they are. Those that start later are never read.
        """
        driver = self._engines.here.driver
        pace = Pace(_BATCH, driver.batch if driver.serial else _AIM, SMALLEST_END)
        before: str | None = None
        more = True
        while more:
            with pace.measured():
                records = await self._newest(mine, before, pace.size, now)
                if before is None and still is not None and not await still():
                    return
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

    async def _newest(
        self, mine: _Mine, before: str | None, limit: int, now: datetime
    ) -> Sequence[Record]:
        """The newest of these rows, from one (`before`) on: by their index, from where that stands,
        so that none is read twice.
        """
        sql, c = self._sql, self._sql.c
        first = before is None

        def make(connection: RowConnection) -> Select[Any]:
            counts = sql.logins.label("counts")
            rows: Any = select(c.id, c.last_seen_at, counts).where(mine.condition)
            if not first:
                rows = rows.where(c.id < bindparam("p_before", type_=c.id.type))
            newest = [column.desc() for column in connection.by_id(sql)]
            return sql.by_person(rows.order_by(*newest).limit(LIMIT))

        async def work(connection: RowConnection) -> list[Record]:
            given = {**mine.given, **values(before=before, limit=limit), **sql.at(now)}
            return await connection.records(
                ("newest", mine.key, first), partial(make, connection), given
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
