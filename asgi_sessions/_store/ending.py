"""How rows end: each once; rows that have expired end at the moment at which they expired."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, bindparam, case, func, select, update
from sqlalchemy.sql import ClauseElement

from asgi_sessions._database.statement import padded
from asgi_sessions._model.lifetimes import Terms
from asgi_sessions._model.row import Row

from .clauses import Clauses, Condition, values
from .connection import RowConnection
from .data import Data

#: Rows that a statement marks as expired at most.
AT_ONCE = 128


class Ends:
    """The one way in which a row ends: it gives up its device, too.

    Args:
        sql: what is said of the table.
        terms: when a row's time is up.
        channel: where ends are told to other processes, in the same statement; None for nowhere.
        data: removes the data of what ends; None where sessions have no data.
    """

    def __init__(
        self, sql: Clauses, terms: Terms, channel: str | None = None, data: Data | None = None
    ) -> None:
        self._sql = sql
        self._data = data
        self._terms = terms
        self._channel = channel
        self._deadlines: dict[int, ColumnElement[Any]] = {}

    async def end(
        self,
        connection: RowConnection,
        key: Hashable,
        condition: Condition,
        given: Mapping[str, Any],
        *,
        reason: str,
        now: datetime,
    ) -> list[Row]:
        """End the rows that fulfil a condition, which has to say that they live, unless they are
        locked and known to; those that ended now.
        """
        work = partial(self._end, connection, key, condition, given, reason=reason, now=now)
        return await self._with_data(connection, work)

    async def _with_data(
        self, connection: RowConnection, end: Callable[[], Awaitable[list[Row]]]
    ) -> list[Row]:
        """End rows and remove their data, all of it or nothing."""
        if self._data is None:
            return await end()
        async with connection.transaction():
            rows = await end()
            if rows:
                await self._data.remove(connection, [row.id for row in rows])
        return rows

    async def _end(
        self,
        connection: RowConnection,
        key: Hashable,
        condition: Condition,
        given: Mapping[str, Any],
        *,
        reason: str,
        now: datetime,
    ) -> list[Row]:
        written = {**given, **self._sql.at(now), **values(ended_at=now, end_reason=reason)}
        if self._channel is not None:
            return await connection.select(
                ("tell", key), lambda: self._telling(condition, self._channel), written
            )
        return await connection.update(
            ("end", key), self._sql, lambda: condition, changes=self._sql.ended, values=written
        )

    async def end_these(
        self, connection: RowConnection, sids: Sequence[str], *, reason: str, now: datetime
    ) -> list[Row]:
        """End those that live of these rows. They are locked in the order of their sids, so that
        two who end the same do not wait for one another.
        """
        if not sids:
            return []
        sql = self._sql
        mine = connection.driver.among(sql.c.id, sids)
        if len(sids) == 1 or not connection.driver.locks:
            live = mine.match() & sql.live
            return await self.end(connection, mine.shape, live, mine.values, reason=reason, now=now)
        async with connection.transaction():
            records = await connection.records(
                ("lock", mine.shape),
                lambda: (
                    select(sql.c.id, sql.live.label("live"))
                    .where(mine.match())
                    .order_by(sql.c.id)
                    .with_for_update()
                ),
                {**mine.values, **sql.at(now)},
            )
            # By the sids alone: of a table that has grown since it was looked at last, PostgreSQL
            # believes that few rows are live, and would read all of these.
            sids = [sid for sid, live in records if live]
            if not sids:
                return []
            mine = connection.driver.among(sql.c.id, sids)
            key = ("locked", mine.shape)
            return await self.end(
                connection, key, mine.match(), mine.values, reason=reason, now=now
            )

    def overdue(self, rows: Iterable[Row], now: datetime) -> list[Row]:
        """Those of these rows that have expired but are not yet marked as ended."""
        terms = self._terms
        return [row for row in rows if row.ended_at is None and not row.live(now, terms)]

    async def expire(
        self, connection: RowConnection, rows: Sequence[Row], now: datetime
    ) -> list[Row]:
        """Write down the end of those of these rows whose time is up; those that ended now, not
        what others have ended since the rows were read.
        """
        over = self.overdue(rows, now)
        if not over:
            return []
        ended: list[Row] = []
        async with connection.transaction():
            for some in (over[i : i + AT_ONCE] for i in range(0, len(over), AT_ONCE)):
                expire = partial(self._expire, connection, some, now)
                ended += await self._with_data(connection, expire)
        return ended

    def _telling(self, condition: Condition, channel: str | None) -> ClauseElement:
        """An UPDATE that tells the sid of each row that it ends: when it is committed, or never.
        Not those whose time is up, which every process sees by its own clock.
        """
        columns = self._sql.rows.exported_columns
        change = update(self._sql.table).where(condition).values(self._sql.ended)
        ended = change.returning(*columns).cte("ended")
        told = func.pg_notify(channel, ended.c.id).alias("told")
        return select(*ended.c).select_from(ended, told)

    async def _expire(
        self, connection: RowConnection, over: Sequence[Row], now: datetime
    ) -> list[Row]:
        """Each at its own moment, in one statement."""
        sql = self._sql
        mine = connection.driver.among(sql.c.id, [row.id for row in over])
        given = {**mine.values, **sql.at(now), **values(end_reason="expired")}
        over = padded(over)
        for i, row in enumerate(over):
            given |= {f"p_over_{i}": row.id, f"p_deadline_{i}": row.deadline(self._terms)}
        return await connection.update(
            ("expire", mine.shape, len(over)),
            sql,
            lambda: mine.match() & sql.overdue,
            changes={**sql.ended, "ended_at": self._deadline(len(over))},
            values=given,
        )

    def _deadline(self, size: int) -> ColumnElement[Any]:
        """The moment that is given for a row, of so many."""
        c = self._sql.c
        if size not in self._deadlines:
            self._deadlines[size] = case(
                *(
                    (
                        c.id == bindparam(f"p_over_{i}", type_=c.id.type),
                        bindparam(f"p_deadline_{i}", type_=c.ended_at.type),
                    )
                    for i in range(size)
                )
            )
        return self._deadlines[size]
