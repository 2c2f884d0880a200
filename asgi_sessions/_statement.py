"""A statement in a database's own words, compiled once: what goes in, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, DateTime
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler

Record = Sequence[Any]


class Statement:
    """A statement of SQLAlchemy in a dialect's words.

    Args:
        clause: the statement; its values are bind parameters.
        dialect: whose words, and whose conversion of values.
    """

    __slots__ = ("_binds", "_fixed", "_results", "sql")

    def __init__(self, clause: ClauseElement, dialect: Dialect) -> None:
        compiled = clause.compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 -- for the type checker: no DDL here
        self.sql = compiled.string
        self._binds = [
            (name, compiled.binds[name].type.dialect_impl(dialect).bind_processor(dialect))
            for name in compiled.positiontup or ()
        ]
        # Some dialects add parameters of their own: SQLite an offset to a limit.
        self._fixed = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required
        }
        columns: Iterable[ColumnElement[Any]] = getattr(clause, "exported_columns", ())
        self._results = [
            (index, process)
            for index, column in enumerate(columns)
            if (process := _reader(column, dialect)) is not None
        ]

    def params(self, values: Mapping[str, Any]) -> list[Any]:
        """The values in the order of the statement."""
        if self._fixed:
            values = {**self._fixed, **values}
        return [
            values[name] if process is None else process(values[name])
            for name, process in self._binds
        ]

    def rows(self, records: Sequence[Record]) -> Sequence[Record]:
        """The rows with values as SQLAlchemy gives them."""
        if not self._results:
            return records
        rows = [list(record) for record in records]
        for index, process in self._results:
            for row in rows:
                value = row[index]
                if value is not None:
                    row[index] = process(value)
        return rows


def _reader(column: ColumnElement[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What makes a driver's value ours: as SQLAlchemy has it, and times aware."""
    process = column.type.dialect_impl(dialect).result_processor(dialect, None)
    if not isinstance(column.type, DateTime) or dialect.name == "postgresql":
        return process
    return _utc_from_text if dialect.name == "sqlite" else _utc


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)  # what keeps no time zone has kept UTC


def _utc_from_text(value: str) -> datetime:
    return datetime.fromisoformat(value + "+00:00")
