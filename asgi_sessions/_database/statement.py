"""A statement in a database's own words, compiled once: what goes in, what comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from json import loads
from typing import Any, TypeVar

from sqlalchemy import JSON, ColumnElement, DateTime, LargeBinary
from sqlalchemy.engine import Dialect
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.types import TypeEngine

Record = Sequence[Any]
Packed = Callable[[ColumnElement[Any]], ColumnElement[Any]]
T = TypeVar("T")


def padded(items: Sequence[T]) -> list[T]:
    """As many as the next power of two, the last one again and again: few statements serve all
    numbers. There is one at least.
    """
    size = 1 << (len(items) - 1).bit_length()
    return [*items, *[items[-1]] * (size - len(items))]


def packing(
    columns: Iterable[ColumnElement[Any]], *, digits: Packed, moment: Packed | None = None
) -> Iterator[ColumnElement[Any]]:
    """The values of a row as JSON may hold them, and as `Statement` reads them.

    Args:
        columns: of the row.
        digits: makes bytes hexadecimal digits.
        moment: makes a time one of ISO 8601; None where it is without that.
    """
    for column in columns:
        if isinstance(column.type, LargeBinary):
            yield digits(column)
        elif moment is not None and isinstance(column.type, DateTime):
            yield moment(column)
        else:
            yield column


class TruncatedResult(ValueError):
    """The server truncated the aggregated JSON."""


class Statement:
    """A statement of SQLAlchemy in a dialect's words.

    Args:
        clause: the statement; its values are bind parameters.
        dialect: whose words, and whose conversion of values.
        packed: what is run in its place: the same with each row as a JSON array, some in one text
            with commas between them, and behind it how many they are if it might be cut short;
            bytes as hexadecimal digits, times as in ISO 8601.
    """

    __slots__ = ("_binds", "_fixed", "_packed", "_reads", "sql")

    def __init__(
        self, clause: ClauseElement, dialect: Dialect, *, packed: ClauseElement | None = None
    ) -> None:
        self._packed = packed is not None
        compiled = (clause if packed is None else packed).compile(dialect=dialect)
        assert isinstance(compiled, SQLCompiler)  # noqa: S101 -- for the type checker: no DDL here
        self.sql = compiled.string
        self._binds = [
            (name, _writer(compiled.binds[name].type, dialect))
            for name in compiled.positiontup or ()
        ]
        # Some dialects add parameters of their own: SQLite an offset to a limit.
        self._fixed = {
            name: bind.value for name, bind in compiled.binds.items() if not bind.required
        }
        columns: Iterable[ColumnElement[Any]] = getattr(clause, "exported_columns", ())
        readers = [_reader(column, dialect, packed=self._packed) for column in columns]
        self._reads = [(index, read) for index, read in enumerate(readers) if read is not None]

    def params(self, values: Mapping[str, Any]) -> list[Any]:
        """The values in the order of the statement."""
        if self._fixed:
            values = {**self._fixed, **values}
        return [
            values[name] if process is None else process(values[name])
            for name, process in self._binds
        ]

    def rows(self, records: Sequence[Record]) -> Iterable[Record]:
        """The rows with values as SQLAlchemy gives them.

        Raises:
            TruncatedResult: if the server has cut the packed text short.
        """
        if not self._reads and not self._packed:
            return records
        rows = _unpacked(records) if self._packed else [list(record) for record in records]
        for index, read in self._reads:  # by column, which is faster than by row
            for row in rows:
                if (value := row[index]) is not None:
                    row[index] = read(value)
        return rows


def _unpacked(records: Sequence[Record]) -> list[list[Any]]:
    texts = ",".join([record[0] for record in records if record[0] is not None])
    try:
        rows: list[list[Any]] = loads(f"[{texts}]")
    except ValueError as error:
        raise TruncatedResult(str(error)) from error
    if records and len(records[0]) > 1 and records[0][1] != len(rows):
        raise TruncatedResult(f"of {records[0][1]} rows the database has sent {len(rows)}")
    return rows


def _writer(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """What makes a value of ours the driver's. JSON is text on this side."""
    return None if isinstance(kind, JSON) else kind.dialect_impl(dialect).bind_processor(dialect)


def _reader(
    column: ColumnElement[Any], dialect: Dialect, *, packed: bool
) -> Callable[[Any], Any] | None:
    """What makes a driver's value ours: as SQLAlchemy has it, and times aware."""
    if packed and isinstance(column.type, LargeBinary):
        return bytes.fromhex
    if packed and isinstance(column.type, DateTime):
        # PostgreSQL writes times in the zone of the connection.
        return _utc_from_iso if dialect.name == "postgresql" else datetime.fromisoformat
    process = column.type.dialect_impl(dialect).result_processor(dialect, None)
    if not isinstance(column.type, DateTime) or dialect.driver == "asyncpg":
        return process
    if dialect.name == "postgresql":  # psycopg gives times in the zone of the connection
        return _as_utc
    return _utc_from_text if dialect.name == "sqlite" else _utc


def _utc(value: datetime) -> datetime:
    return value.replace(tzinfo=UTC)  # what keeps no time zone has kept UTC


def _utc_from_iso(value: str) -> datetime:
    moment = datetime.fromisoformat(value)
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _utc_from_text(value: str) -> datetime:
    return datetime.fromisoformat(value + "+00:00")
