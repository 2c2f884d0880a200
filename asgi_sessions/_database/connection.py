"""A database connection with a cache of compiled statements."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy import Select, Table
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement

from .drivers.base import Driver, Found, Insertion
from .pools.base import Lease
from .statement import Record, Statement, TruncatedResult

Values = Mapping[str, Any]


class Connection:
    """A database connection with a cache of compiled statements.

    Every statement has a key, which says all that its text depends on; `make` builds it when
    the key is new.

    Args:
        lease: the connection, as a pool has lent it.
        driver: how to speak to it.
        statements: by key; shared by the connections of a database.

    Attributes:
        raw: the driver's own connection.
    """

    def __init__(self, lease: Lease, driver: Driver, statements: dict[Hashable, Statement]) -> None:
        self.lease = lease
        self.raw = lease.raw
        self._statements = statements
        self._in_transaction = False
        self.driver = driver

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """What runs inside is done completely or not at all.

        Inside another transaction it is part of that one: MariaDB drops savepoints at a deadlock,
        so that going back to one would fail with another error than the one that asks to try again.
        """
        if self._in_transaction:
            yield
            return
        self._in_transaction = True
        try:
            async with self.lease.transaction():
                yield
        finally:
            self._in_transaction = False

    async def _fetch(self, statement: Statement, values: Values) -> Iterable[Record]:
        records = await self.driver.fetch(self.raw, statement.sql, statement.params(values))
        return statement.rows(records)

    def _statement(self, key: Hashable, make: Callable[[], ClauseElement]) -> Statement:
        statement = self._statements.get(key)
        if statement is None:
            statement = self._statements[key] = Statement(make(), self.driver.dialect)
        return statement

    async def gather(
        self, key: Hashable, make: Callable[[], Select[Any]], values: Values, *, many: bool
    ) -> Iterable[Record]:
        """The records of a SELECT, one or many, in no order: the look-ups of requests."""
        statement = self._statements.get(key)
        if statement is None:
            rows = make()
            packed = self.driver.pack(rows, many=many)
            statement = self._statements[key] = Statement(rows, self.driver.dialect, packed=packed)
        try:
            return await self._fetch(statement, values)
        except TruncatedResult:  # from now on the rows as they are
            del self._statements[key]
            return await self._fetch(self._statement(key, make), values)

    async def records(
        self, key: Hashable, make: Callable[[], ClauseElement], values: Values
    ) -> list[Record]:
        """What a statement selects, whatever its columns."""
        return list(await self._fetch(self._statement(key, make), values))

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

    async def execute_each(
        self, key: Hashable, make: Callable[[], ClauseElement], values: Iterable[Values]
    ) -> None:
        """Run a statement once for each of these."""
        statement = self._statement(key, make)
        params = [statement.params(each) for each in values]
        await self.driver.run(self.raw, statement.sql, params)

    async def insert(self, new: Insertion) -> None:
        """Write rows, but those that are there."""
        await self.execute_each(("insert", new.shape), new.make, new.values)

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
        except Exception as error:
            if not self.driver.already_exists(error):
                raise
