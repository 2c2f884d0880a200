"""A connection in the hands of a lane: statements by name, each compiled once."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from databases.core import Connection
from sqlalchemy import ColumnElement, Select, Table, Update, update
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from ._driver import Driver, Found, Insertion, Keys, Raw
from ._row import Row
from ._sql import Clauses, Condition
from ._statement import CutShort, Record, Statement

_new = tuple.__new__
Values = Mapping[str, Any]


class Access:
    """A connection and the statements that its database has been told before.

    Every statement has a key, which says all that its text depends on; `make` builds it when
    the key is new.

    Args:
        connection: of `databases`.
        driver: how to speak to it.
        statements: by key; shared by the connections of a database.
    """

    def __init__(
        self, connection: Connection, driver: Driver, statements: dict[Hashable, Statement]
    ) -> None:
        self._connection = connection
        self._users = connection._connection_counter  # noqa: SLF001 -- no public one; see release
        self._statements = statements
        self._in_transaction = False
        self.driver = driver

    async def release(self, *, broken: bool) -> None:
        """Give the connection back."""
        if broken:
            # `databases` counts a BEGIN or ROLLBACK that has failed as a user who has not left,
            # for whom it would keep the connection from the pool for ever.
            self._connection._connection_counter = self._users  # noqa: SLF001 -- no public one to set
        await self._connection.__aexit__()

    @property
    def raw(self) -> Raw:
        """The driver's connection."""
        return self._connection.raw_connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """All or nothing. Within one it is that one: MariaDB drops savepoints at a deadlock, so
        that going back to one would fail with another fault than the one that asks to try again.
        """
        if self._in_transaction:
            yield
            return
        self._in_transaction = True
        try:
            async with self._connection.transaction():
                yield
        finally:
            self._in_transaction = False

    def by_id(self, sql: Clauses) -> list[ColumnElement[Any]]:
        """The order of `Clauses.owned`, as the index of people has it."""
        return [sql.c.ended_at, sql.c.id] if self.driver.orders_nulls else [sql.c.id]

    def _statement(self, key: Hashable, make: Callable[[], ClauseElement]) -> Statement:
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = Statement(make(), self.driver.dialect)
        return statement

    async def _fetch(self, statement: Statement, values: Values) -> Iterable[Record]:
        records = await self.driver.fetch(self.raw, statement.sql, statement.params(values))
        return statement.rows(records)

    async def select(
        self, key: Hashable, make: Callable[[], ClauseElement], values: Values
    ) -> list[Row]:
        """The rows that a statement selects or returns, whose columns are those of `Row`."""
        records = await self._fetch(self._statement(key, make), values)
        return [_new(Row, record) for record in records]

    async def gather(
        self, key: Hashable, make: Callable[[], Select[Any]], values: Values, *, many: bool
    ) -> list[Row]:
        """The rows of a SELECT, one or many, in no order: the look-ups of requests."""
        statement = self._statements.get(key)
        if statement is None:
            rows = make()
            packed = self.driver.pack(rows, many=many)
            statement = self._statements[key] = Statement(rows, self.driver.dialect, packed=packed)
        try:
            records = await self._fetch(statement, values)
        except CutShort:  # from now on the rows as they are
            del self._statements[key]
            statement = self._statement(key, make)
            records = await self._fetch(statement, values)
        return [_new(Row, record) for record in records]

    async def records(
        self, key: Hashable, make: Callable[[], ClauseElement], values: Values
    ) -> list[Record]:
        """What a statement selects, whatever its columns."""
        return list(await self._fetch(self._statement(key, make), values))

    async def among(self, sql: Clauses, mine: Keys) -> list[Row]:
        """The rows in which a unique column is one of these, in no order."""
        return await self.gather(
            mine.shape, lambda: mine.pick(sql.rows), mine.values, many=mine.many
        )

    async def ids(
        self, key: Hashable, make: Callable[[], ClauseElement], values: Values
    ) -> list[str]:
        """The ids that a statement selects."""
        return [record[0] for record in await self.records(key, make, values)]

    async def execute(
        self, key: Hashable, make: Callable[[], ClauseElement], values: Values
    ) -> int:
        """How many rows a statement has changed."""
        statement = self._statement(key, make)
        return await self.driver.execute(self.raw, statement.sql, statement.params(values))

    async def insert(self, new: Insertion) -> None:
        """Write rows, but those that are there."""
        statement = self._statement(("insert", new.shape), new.make)
        params = [statement.params(values) for values in new.values]
        await self.driver.run(self.raw, statement.sql, params)

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
            except Exception as fault:
                if not self.driver.unknown(fault):
                    raise
                self.driver.skips = False
            else:
                return
        await self.execute(key, lambda: change.where(condition()), values)

    async def ddl_dialect(self) -> Dialect:
        """The dialect of this very server."""
        return await self.driver.ddl_dialect(self.raw)

    async def columns(self, table: Table) -> list[Found]:
        """The columns of the table that has this name; none if there is no such table."""
        return await self.driver.columns(self.raw, table)

    async def create(self, statement: str) -> None:
        """Run a statement that makes something, unless it is there."""
        try:
            await self.driver.fetch(self.raw, statement, ())
        except Exception as fault:
            if not self.driver.made_already(fault):
                raise
