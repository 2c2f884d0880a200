"""A database connection that reads and changes rows of the table of sessions."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, Select, Update, update
from sqlalchemy.sql import ClauseElement

from asgi_sessions._database.connection import Connection, Values
from asgi_sessions._database.drivers.base import InClause
from asgi_sessions._model.row import Row

from .clauses import Clauses, Condition

_new = tuple.__new__


class RowConnection(Connection):
    """A database connection that knows what a row of the table of sessions is."""

    async def select(
        self, key: Hashable, make: Callable[[], ClauseElement], values: Values
    ) -> list[Row]:
        """The rows that a statement selects or returns, whose columns are those of `Row`."""
        records = await self._fetch(self._statement(key, make), values)
        return [_new(Row, record) for record in records]

    async def rows(
        self, key: Hashable, make: Callable[[], Select[Any]], values: Values, *, many: bool
    ) -> list[Row]:
        """The rows of a SELECT, one or many, in no order: the look-ups of requests."""
        records = await self.gather(key, make, values, many=many)
        return [_new(Row, record) for record in records]

    def by_id(self, sql: Clauses) -> list[ColumnElement[Any]]:
        """The order of `Clauses.owned`, as the index of people has it."""
        return [sql.c.ended_at, sql.c.id] if self.driver.orders_nulls else [sql.c.id]

    async def among(self, sql: Clauses, mine: InClause) -> list[Row]:
        """The rows in which a unique column is one of these, in no order."""
        return await self.rows(mine.shape, lambda: mine.pick(sql.rows), mine.values, many=mine.many)

    async def update(
        self,
        key: Hashable,
        sql: Clauses,
        condition: Callable[[], Condition],
        *,
        changes: Mapping[str, Any],
        values: Values,
    ) -> list[Row]:
        """Change what fulfils a condition; the rows that were changed, as they are now."""
        change = update(sql.table).values(changes)
        if self.driver.returning:
            columns = sql.rows.exported_columns
            return await self.select(
                ("update", key), lambda: change.where(condition()).returning(*columns), values
            )
        async with self.transaction():
            ids = await self.ids(
                ("lock", key),
                # Of one sid or of some: all lock in the same order.
                lambda: sql.ids.where(condition()).order_by(sql.c.id).with_for_update(),
                values,
            )
            if not ids:
                return []
            mine = self.driver.among(sql.c.id, ids)
            await self.execute(
                ("update", key, mine.shape),
                lambda: change.where(mine.match()),
                {**values, **mine.values},
            )
            return await self.among(sql, mine)

    async def change_unlocked(
        self,
        key: Hashable,
        sql: Clauses,
        condition: Callable[[], Condition],
        *,
        changes: Mapping[str, Any],
        values: Values,
    ) -> None:
        """Change what fulfils a condition, but for rows that somebody has locked, where the server
        can leave them out.
        """
        change = update(sql.table).values(changes)

        def free() -> Update:
            mine = sql.ids.where(condition()).with_for_update(skip_locked=True, key_share=True)
            return change.where(self.driver.one_of(sql.c.id, mine))

        if self.driver.skips:
            try:
                await self.execute((key, "unlocked"), free, values)
            except Exception as error:
                if not self.driver.unknown(error):
                    raise
                self.driver.skips = False
            else:
                return
        await self.execute(key, lambda: change.where(condition()), values)
