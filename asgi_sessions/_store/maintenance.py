"""Counts, ends, marks and removes many rows, a limited number at a time.

Nothing here takes longer than its slice or its batch asks, and nothing is locked but the rows
that a batch writes. Whoever calls decides how many follow one another, and how soon.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, bindparam, delete, func, not_, or_, select

from asgi_sessions._database.engines import Engines
from asgi_sessions._model.row import Row
from asgi_sessions._model.tokens import new_sid

from .clauses import LIMIT, Clauses, Condition, values
from .connection import RowConnection
from .data import Data
from .ending import AT_ONCE, Ends

#: Rows a batch may have at most: a statement with many parameters takes its time to be made.
LARGEST_BATCH = 4096


#: Rows of a first batch, and of the smallest; of the smallest of ends, for which somebody waits.
FIRST_BATCH, SMALLEST_BATCH, SMALLEST_END = 64, 16, 256


class Pace:
    """How many rows come next: fewer after a batch that took long, else more.

    Args:
        most: rows at a time.
        aim: seconds that a batch should take.
        least: rows at a time, however long that takes.

    Attributes:
        size: rows of the next batch.
        took: seconds that the last one took.
    """

    def __init__(self, most: int, aim: float, least: int = SMALLEST_BATCH) -> None:
        self._now = asyncio.get_running_loop().time
        self._most, self._aim = most, aim
        self._least = min(least, most)
        self.size = min(max(FIRST_BATCH, least), most)
        self.took = 0.0

    @contextmanager
    def measured(self) -> Iterator[None]:
        """Around a batch."""
        begun = self._now()
        yield
        self.took = self._now() - begun

    def follow(self, took: float) -> None:
        """Change the size by what a batch took."""
        shorter, longer = max(self.size // 2, self._least), min(self.size * 2, self._most)
        self.size = shorter if took > self._aim else longer

    async def rest(self, most: float | None = None) -> None:
        """After a batch for as long as it took, in which requests have the database; for so many
        seconds at most.
        """
        await asyncio.sleep(self.took if most is None else min(self.took, most))
        self.follow(self.took)


async def in_batches(work: Callable[[int], Awaitable[int]], most: int, *, aim: float) -> int:
    """Do something to so many rows at a time, until there are none; to how many it was done.

    After a batch that took long the next is smaller, and each is followed by a rest of its length.

    Args:
        work: does it to at most so many rows; to how many it did.
        most: rows at a time.
        aim: seconds that a batch should take.
    """
    pace, done = Pace(most, aim), 0
    while True:
        with pace.measured():
            count = await work(pace.size)
        if not count:
            return done
        done += count
        await pace.rest()


class Batch(NamedTuple):
    """Rows that were ended, and the moment from which to go on; None if that was all."""

    ended: list[Row]
    onwards: datetime | None


class Maintenance:
    """The table of sessions, many rows at a time.

    Args:
        engines: where the database is reached.
        sql: what is said of the table.
        ends: how rows end.
        data: removes the data of rows, and old visitors; None where sessions have no data.
    """

    def __init__(
        self, engines: Engines, sql: Clauses, ends: Ends, data: Data | None = None
    ) -> None:
        self._data = data
        self._write, self._query = engines.bulk, engines.query
        self._sql = sql
        self._ends = ends

    # --- purge --------------------------------------------------------------------------------

    async def mark(self, limit: int, *, now: datetime) -> int:
        """Write down the end of so many rows that have run out; how many. Where somebody acted in
        one for its person, their own, which nobody could open any more, ends with it.
        """
        sql, c = self._sql, self._sql.c

        async def work(connection: RowConnection) -> int:
            rows = await connection.select(
                "over",
                lambda: sql.rows.where(self._over).order_by(c.expires_at).limit(LIMIT),
                {"p_now": now, "p_limit": limit},
            )
            async with connection.transaction():
                expired = await self._ends.expire(connection, rows, now)
                own = [row.actor_sid for row in expired if row.actor_sid is not None]
                for some in (own[i : i + AT_ONCE] for i in range(0, len(own), AT_ONCE)):
                    await self._ends.end_these(connection, some, reason="expired", now=now)
            return len(expired)

        count: int = await self._write(work)
        return count

    async def remove(self, limit: int, *, before: datetime) -> int:
        """Remove so many rows that ended before a moment; how many."""
        sql, c = self._sql, self._sql.c

        async def work(connection: RowConnection) -> int:
            ids = await connection.ids(
                "old",
                lambda: (
                    sql.ids.where(c.ended_at < sql.param("ended_at"))
                    .order_by(c.ended_at)
                    .limit(LIMIT)
                ),
                {"p_ended_at": before, "p_limit": limit},
            )
            if not ids:
                return 0
            mine = connection.driver.among(c.id, ids)
            if self._data is not None:  # an app's own statement ends rows and leaves their data
                await self._data.remove(connection, ids)
            return await connection.execute(
                ("delete", mine.shape),
                lambda: delete(sql.table).where(mine.match()),
                mine.values,
            )

        count: int = await self._write(work)
        return count

    async def forget_visitors(self, limit: int, *, now: datetime) -> int:
        """Remove so many visitors whose time is up; how many."""
        assert self._data is not None  # noqa: S101 -- for the type checker
        work = partial(self._data.forget_visitors, limit=limit, now=now)
        count: int = await self._write(work)
        return count

    @property
    def _over(self) -> Condition:
        # By `expires_at` alone: what is merely idle is found when its time is up, too.
        c = self._sql.c
        return self._sql.unended & (c.expires_at <= self._sql.now)

    # --- ends ---------------------------------------------------------------------------------

    async def end_some(
        self,
        app_id: str | None,
        since: datetime,
        until: datetime,
        *,
        limit: int,
        reason: str,
        now: datetime,
    ) -> Batch:
        """End so many live rows that expire within a time: of an app, or of all (None)."""
        sql, c = self._sql, self._sql.c
        given = {**sql.at(now), **_span(since, until), "p_limit": limit}
        mine = self._within("expires_at") & sql.live
        if app_id is not None:
            mine &= sql.app
            given |= values(app_id=app_id)

        async def work(connection: RowConnection) -> Batch:
            rows = await connection.select(
                ("expiring", app_id is None),
                lambda: sql.rows.where(mine).order_by(c.expires_at).limit(LIMIT),
                given,
            )
            sids = [row.id for row in rows]
            ended = await self._ends.end_these(connection, sids, reason=reason, now=now)
            return Batch(ended, rows[-1].expires_at if len(rows) == limit else None)

        batch: Batch = await self._write(work)
        return batch

    # --- counts -------------------------------------------------------------------------------

    async def started(self, since: datetime, until: datetime) -> int:
        """How many rows started within a time: by their ids, which begin with it."""
        span = {"p_since": new_sid(since, bytes), "p_until": new_sid(until, bytes)}
        return sum((await self._count("started", "id", span)).values())

    async def ended(self, since: datetime, until: datetime) -> dict[str, int]:
        """How many rows ended within a time, by the reason."""
        c = self._sql.c
        return await self._count("ended", "ended_at", _span(since, until), by=c.end_reason)

    async def removable(self, since: datetime, until: datetime) -> int:
        """How many rows ended within a time."""
        counts = await self._count("removable", "ended_at", _span(since, until))
        return sum(counts.values())

    async def live(self, since: datetime, until: datetime, *, now: datetime) -> dict[str, int]:
        """How many live rows expire within a time, by their app."""
        span = {**_span(since, until), **self._sql.at(now)}
        return await self._count("live", "expires_at", span, self._sql.live, by=self._sql.c.app_id)

    async def unmarked(
        self, since: datetime, until: datetime, *, now: datetime, before: datetime
    ) -> int:
        """How many rows that expire within a time have run out without a word of it in the table,
        by that moment or before.
        """
        c = self._sql.c
        by_then = or_(
            c.expires_at <= bindparam("p_before", type_=c.expires_at.type),
            not_(self._sql.within),
        )
        given = {**_span(since, until), **self._sql.at(before), "p_before": before, "p_now": now}
        return sum((await self._count("over", "expires_at", given, self._over, by_then)).values())

    async def bounds(self, name: str) -> tuple[datetime, datetime] | None:
        """The first and the last moment in a column: ``ended_at``, or ``expires_at`` of those that
        nobody has ended; None if there is none.
        """
        c = self._sql.c
        column = c[name]
        mine = column.is_not(None) if name == "ended_at" else self._sql.unended

        def one(order: ColumnElement[Any]) -> Callable[[], Select[Any]]:
            return lambda: select(column).where(mine).order_by(order).limit(1)

        async def work(connection: RowConnection) -> tuple[datetime, datetime] | None:
            # Apart, so that each is one look into the index.
            first = await connection.records(("first", name), one(column.asc()), {})
            last = await connection.records(("last", name), one(column.desc()), {})
            return (first[0][0], last[0][0]) if first and last else None

        bounds: tuple[datetime, datetime] | None = await self._query(work)
        return bounds

    # --- pieces -------------------------------------------------------------------------------

    def _within(self, name: str) -> Condition:
        column = self._sql.c[name]
        since = bindparam("p_since", type_=column.type)
        until = bindparam("p_until", type_=column.type)
        within = (column >= since) & (column < until)
        # Only rows that nobody has ended are ever filtered by expires_at.
        return within & self._sql.unended if name == "expires_at" else within

    async def _count(
        self,
        key: str,
        name: str,
        given: dict[str, Any],
        *conditions: Condition,
        by: ColumnElement[Any] | None = None,
    ) -> dict[str, int]:
        """Count the rows within a span of an indexed column, by the values of another."""
        counted = select(func.count()).select_from(self._sql.table)
        counted = counted.where(self._within(name), *conditions)
        if by is not None:
            counted = counted.add_columns(by).group_by(by)

        async def work(connection: RowConnection) -> dict[str, int]:
            records = await connection.records(("count", key), lambda: counted, given)
            return {str(kind[0]) if kind else "": count for count, *kind in records}

        counts: dict[str, int] = await self._query(work)
        return counts


def _span(since: datetime, until: datetime) -> dict[str, Any]:
    return {"p_since": since, "p_until": until}
