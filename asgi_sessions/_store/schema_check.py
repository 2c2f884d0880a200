"""How the tables that stand in a database differ from ours."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from sqlalchemy import JSON, Column, Table
from sqlalchemy.engine import Dialect

from asgi_sessions._database.drivers.base import Found
from asgi_sessions._errors import ConfigurationError, SessionsError, SessionsUnavailable

from .connection import RowConnection


class _Difference(NamedTuple):
    """What keeps a table from being used, and what else is in it that is not ours."""

    missing: list[str]
    unfit: list[str]
    foreign: list[str]
    #: Those of the foreign ones for which every new row would need a value.
    required: list[str]

    def __str__(self) -> str:
        parts = {
            "columns missing": self.missing,
            "columns of another kind": self.unfit,
            "columns that are not ours": self.foreign,
        }
        return "; ".join(f"{what}: {', '.join(names)}" for what, names in parts.items() if names)


async def refuse_others(
    connection: RowConnection, tables: Iterable[Table]
) -> dict[Table, list[Found]]:
    """See to it that no table has the name of one of ours, and cannot be used as ours.

    Returns:
        The columns of each table as they are; none of one that is missing.

    Raises:
        ConfigurationError: that names what differs.
    """
    dialect = await connection.ddl_dialect()
    found = {table: await connection.columns(table) for table in tables}
    _refuse(found, dialect)
    return found


async def explained(
    connection: RowConnection, tables: Sequence[Table], error: Exception
) -> SessionsError | None:
    """The reason for an error that the database has met, if its tables are the reason."""
    try:
        found = await refuse_others(connection, tables)
    except ConfigurationError as refused:
        return refused
    if missing := [table.fullname for table, columns in found.items() if not columns]:
        return SessionsUnavailable(
            f"the sessions database failed: {type(error).__name__}; missing in it: table "
            f"{', '.join(missing)}; `await sessions.create_tables()` or a migration makes it"
        )
    return None


def _refuse(found: dict[Table, list[Found]], dialect: Dialect) -> None:
    errors = []
    for table, columns in found.items():
        difference = _compare(table, columns, dialect) if columns else None
        if difference is not None:
            errors.append(f"the table {table.fullname} in the database is not ours: {difference}")
    if errors:
        raise ConfigurationError(
            f"{'; '.join(errors)}. If it is somebody else's, give Sessions another table_name=; if "
            "another version has made it, bring it up to date with a migration (docs/databases.md, "
            "Migrations)"
        )


def _compare(table: Table, columns: list[Found], dialect: Dialect) -> _Difference | None:
    """How a table differs, unless it can be used: what others have added harms nothing as long as
    rows can be written without it.
    """
    there = {column.name: column for column in columns}
    foreign = [column for column in columns if column.name not in table.c]
    difference = _Difference(
        missing=[column.name for column in table.c if column.name not in there],
        unfit=[
            f"{column.name} {_told(there[column.name])} instead of {_wanted(column, dialect)}"
            for column in table.c
            if column.name in there and not _fits(column, there[column.name], dialect)
        ],
        foreign=[column.name for column in foreign],
        required=[column.name for column in foreign if column.required],
    )
    usable = not (difference.missing or difference.unfit or difference.required)
    return None if usable else difference


def _fits(column: Column[Any], found: Found, dialect: Dialect) -> bool:
    """Whether a column that is there takes every value of ours, and gives it back as it was."""
    ours = column.type.dialect_impl(dialect)
    length, collation = getattr(ours, "length", None), getattr(ours, "collation", None)
    return (
        (dict if isinstance(ours, JSON) else ours.python_type) in found.holds
        and (length is None or found.length is None or found.length >= length)
        # Another one may hold two ids for the same, and so two people for one.
        and (None in {collation, found.collation} or found.collation == collation)
        and not (column.nullable and found.required)
    )


def _told(found: Found) -> str:
    return " ".join(
        filter(None, (found.shown, found.collation, "NOT NULL" if found.required else None))
    )


def _wanted(column: Column[Any], dialect: Dialect) -> str:
    return column.type.compile(dialect)
