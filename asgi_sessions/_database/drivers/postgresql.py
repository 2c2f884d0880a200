"""PostgreSQL: what asyncpg and psycopg have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from json import JSONEncoder
from typing import Any, ClassVar

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Insert,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    cast,
    func,
    literal_column,
    select,
    values,
)
from sqlalchemy import column as sql_column
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine import Dialect

from asgi_sessions._database.statement import packing
from asgi_sessions._errors import ConfigurationError

from .base import Driver, Found, InClause, Merge, Raw

_encode = JSONEncoder(ensure_ascii=False).encode
_COLUMNS = """
SELECT a.attname, format_type(a.atttypid, a.atttypmod), t.typname::text,
    nullif(a.atttypmod, -1) - 4, a.attnotnull AND NOT a.atthasdef AND a.attidentity = ''
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""
_HOLDS: dict[str, type] = {
    "bool": bool,
    "bytea": bytes,
    "int4": int,
    "int8": int,
    "json": dict,
    "jsonb": dict,
    "text": str,
    "timestamptz": datetime,
    "varchar": str,
}


class PostgreSQLDriver(Driver):
    """A library for PostgreSQL that takes its parameters as ``$1``, ``$2``.

    Args:
        dialect: SQLAlchemy's for the library.
        decided: whether somebody has said that prepared statements are good, or that there are
            none.
    """

    system: ClassVar = "PostgreSQL"
    notifies: ClassVar = True
    locks: ClassVar = True
    orders_nulls: ClassVar = True
    skips = True
    batch: ClassVar = 0.005
    # With a parameter each. A plan for an array of any length takes it for one of ten, so that
    # PostgreSQL prefers to plan anew for a shorter one, which costs more than to read its rows.
    few: ClassVar = 16
    row_by_row: ClassVar = True  # pipelined, which is the cheapest way
    #: How the library is told to prepare no statements.
    unprepared: ClassVar[str]

    def __init__(self, dialect: Dialect, *, decided: bool = False) -> None:
        self.dialect = dialect
        self._decided = decided

    @abstractmethod
    def pid(self, raw: Raw) -> int:
        """The number of the server's process, as the connection was told when it was opened."""

    @abstractmethod
    async def simple(self, raw: Raw, sql: str) -> int:
        """Run a statement without parameters, and without preparing it: how many rows it gives."""

    @abstractmethod
    def prepares(self, raw: Raw) -> bool:
        """Whether this connection may prepare statements under names that others use, too."""

    async def check(self, raw: Raw) -> None:
        """Refuse to prepare statements where others would run them.

        A library gives its statements the same names in each process, and a pooler takes the
        processes' turns on one connection.
        """
        if self._decided or not self.prepares(raw):
            return
        # A pooler invents the number of the process.
        if await self.simple(raw, f"SELECT 1 WHERE pg_backend_pid() = {self.pid(raw)}") != 1:
            raise ConfigurationError(
                f"behind PgBouncer or another pooler the URL needs {self.unprepared}, or processes "
                "would run one another's statements"
            )
        self._decided = True

    async def begin(self, raw: Raw) -> None:
        await self.simple(raw, "BEGIN")

    async def commit(self, raw: Raw) -> None:
        await self.simple(raw, "COMMIT")

    async def rollback(self, raw: Raw) -> None:
        await self.simple(raw, "ROLLBACK")

    async def by_index(self, raw: Raw) -> bool:
        """Have PostgreSQL go along indexes. A statement that was planned while the table was empty
        would read the whole table until the next ANALYZE. And where PostgreSQL expects few rows of
        a person who has many, it would find and sort all of them, rather than read some in order.
        Behind a pooler nothing is set, because other clients would get the connection so.
        """
        off = ", ".join(f"set_config('{name}', 'off', false)" for name in _OTHER_WAYS)
        return await self.simple(raw, f"SELECT {off} WHERE pg_backend_pid() = {self.pid(raw)}") == 1

    async def restore(self, raw: Raw, *, by_index: bool) -> None:
        if by_index:
            for name in _OTHER_WAYS:
                await self.simple(raw, f"RESET {name}")

    def among(self, column: ColumnElement[Any], keys: Iterable[Any]) -> InClause:
        """One parameter for many, an array; of few, whose statement is planned once for all. Each
        is looked for by itself: in a table that is empty PostgreSQL would rather read all of it
        than look for some, and would keep to that when it has grown.
        """
        given = list(keys)
        if len(given) > self.few:
            return self._among_many(column, given)
        mine = super().among(column, given)
        if len(mine.values) == 1:
            return mine
        kept = {**dict.fromkeys(mine.values), **dict(zip(mine.values, given, strict=False))}

        def each() -> tuple[ColumnElement[Any], FromClause, ColumnElement[Any]]:
            names = [(bindparam(name, type_=column.type),) for name in kept]
            table = values(sql_column("k", column.type), name="given").data(names)
            return column, table, table.c.k

        return mine._replace(values=kept, each=each)

    def _among_many(self, column: ColumnElement[Any], given: list[Any]) -> InClause:
        name = f"p_{column.name}_any"

        def array() -> ColumnElement[Any]:
            return bindparam(name, type_=postgresql.ARRAY(column.type))

        def each() -> tuple[ColumnElement[Any], FromClause, ColumnElement[Any]]:
            listed = func.unnest(array()).table_valued(sql_column("k", column.type))
            table = listed.render_derived("given")
            return column, table, table.c.k

        return InClause(
            column.name, lambda: column == any_(array()), {name: given}, many=True, each=each
        )

    def one_of(self, column: ColumnElement[Any], found: Select[Any]) -> ColumnElement[bool]:
        # Of an array it knows that it is short, and looks each up in the index.
        return column == any_(func.array(found.scalar_subquery()))

    def pack(self, rows: Select[Any], *, many: bool) -> Select[Any] | None:
        if not many:
            return None  # JSON takes the server longer than it saves
        row = func.json_build_array(*packing(rows.subquery().c, digits=_digits))
        return select(func.string_agg(cast(row, Text), literal_column("','")))

    def insert_once(self, table: Table) -> Insert:
        return postgresql.insert(table).on_conflict_do_nothing()

    def upsert(self, table: Table, rows: Select[Any], changes: Mapping[str, Any]) -> Insert:
        new = postgresql.insert(table).from_select([*table.c], rows)
        return new.on_conflict_do_update(index_elements=[*table.primary_key], set_=changes)

    def merge(self, written: Mapping[str, str], removed: Sequence[str]) -> Merge:
        def make(column: ColumnElement[Any]) -> ColumnElement[Any]:
            gone = bindparam("p_gone", type_=postgresql.ARRAY(Text))
            new = self.json_of(bindparam("p_object", type_=Text()))
            return column.op("-")(gone).op("||")(new)

        pairs = [f"{_encode(key)}:{text}" for key, text in written.items()]
        return Merge((), make, {"p_gone": [*removed], "p_object": f"{{{','.join(pairs)}}}"})

    def json_of(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        return cast(text, postgresql.JSONB)

    async def columns(self, raw: Raw, table: Table) -> list[Found]:
        name = self.dialect.identifier_preparer.format_table(table)
        return [
            Found(
                column,
                shown,
                frozenset({_HOLDS[kind]} if kind in _HOLDS else ()),
                length if kind == "varchar" else None,
                None,
                required,
            )
            for column, shown, kind, length, required in await self.fetch(raw, _COLUMNS, (name,))
        ]

    def of_tables(self, error: Exception) -> bool:
        # Of their classes: data exceptions (asyncpg's own word for a value that a column cannot
        # take, too), constraints, names and types.
        return (getattr(error, "sqlstate", None) or "")[:2] in {"22", "23", "42"}

    def is_transient(self, error: Exception) -> bool:
        # serialization_failure, deadlock_detected
        return getattr(error, "sqlstate", None) in {"40001", "40P01"}

    def already_exists(self, error: Exception) -> bool:
        # unique_violation, duplicate_table: two processes made it at once, IF NOT EXISTS or not.
        return getattr(error, "sqlstate", None) in {"23505", "42P07"}


#: The ways to find rows other than along an index.
_OTHER_WAYS = ("enable_seqscan", "enable_bitmapscan")


def _digits(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.encode(column, literal_column("'hex'"))
