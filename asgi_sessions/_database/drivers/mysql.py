"""MariaDB and MySQL: what aiomysql and asyncmy have in common, which is nearly all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Insert,
    Select,
    Table,
    func,
    literal_column,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.engine import Dialect, make_url
from sqlalchemy.types import TypeEngine

from asgi_sessions._database.statement import Record, packing
from asgi_sessions._errors import ConfigurationError

from .base import Driver, Found, Raw

#: Bytes of rows that one text may hold; a server's own limit may be a thousandth of it.
_TEXT = 1 << 26

_HOLDS: dict[str, type] = {
    "bigint": int,
    "binary": bytes,
    "blob": bytes,
    "datetime(6)": datetime,
    "int": int,
    "json": dict,
    "longblob": bytes,
    "longtext": str,
    "mediumblob": bytes,
    "mediumtext": str,
    "text": str,
    "tinyint": bool,
    "varbinary": bytes,
    "varchar": str,
}
#: What tells of a table that is not as it should be, as MariaDB numbers it.
_OF_TABLES = {
    1048,  # ER_BAD_NULL_ERROR
    1054,  # ER_BAD_FIELD_ERROR: an unknown column
    1146,  # ER_NO_SUCH_TABLE
    1176,  # ER_KEY_DOES_NOT_EXITS: an index that a hint names
    1264,  # ER_WARN_DATA_OUT_OF_RANGE
    1265,  # WARN_DATA_TRUNCATED
    1292,  # ER_TRUNCATED_WRONG_VALUE
    1364,  # ER_NO_DEFAULT_FOR_FIELD
    1366,  # ER_TRUNCATED_WRONG_VALUE_FOR_FIELD
    1406,  # ER_DATA_TOO_LONG
    1452,  # ER_NO_REFERENCED_ROW_2: a foreign key
    4025,  # ER_CONSTRAINT_FAILED
}
_NO_SUCH_TABLE = 1146


class _Bytes(TypeEngine[bytes]):
    """Written in hexadecimal digits, which every `sql_mode` reads alike: the drivers escape bytes
    with backslashes, which escape nothing under NO_BACKSLASH_ESCAPES.
    """

    def bind_expression(self, bindvalue: BindParameter[bytes]) -> ColumnElement[bytes]:
        return func.unhex(bindvalue, type_=self)


class _Binary(_Bytes, mysql.BINARY): ...


class _Varbinary(_Bytes, mysql.VARBINARY): ...


class MySQLDriver(Driver):
    """A library with the interface of PyMySQL, for MariaDB and MySQL.

    Args:
        dialect: SQLAlchemy's for the library; it is changed.
    """

    system = "MariaDB or MySQL"
    returning = False
    skips = True  # MariaDB 10.6, MySQL 8.0.1
    pipelines = False
    removals = 1  # of several, MariaDB overlooks those behind one that is not ASCII

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.dialect.colspecs = {
            **self.dialect.colspecs,
            mysql.BINARY: _Binary,
            mysql.VARBINARY: _Varbinary,
        }
        self._fits = False
        # Whether the connections give one text of any length.
        self._whole = False

    async def prepare(self, raw: Raw, *, owned: bool, timeout: float) -> None:  # noqa: ARG002, ASYNC109 -- as Driver
        """See to it that values arrive as they are; an app's own connection is only looked at."""
        if owned:
            # Known ones, whatever the server's are.
            options = f"sql_mode = 'TRADITIONAL', SESSION group_concat_max_len = {_TEXT}"
            await self.execute(raw, f"SET NAMES utf8mb4, SESSION {options}", ())
            self._whole = True
        else:
            await self.check(raw)

    async def check(self, raw: Raw) -> None:
        """Refuse a connection of the app's that spells values in another way than ours."""
        if self._fits:
            return
        question = "SELECT @@sql_mode, @@character_set_client, @@character_set_connection"
        ((modes, *charsets),) = await self.fetch(raw, question, ())
        if set(charsets) != {"utf8mb4"}:
            # What another one cannot spell becomes "?", and people whose ids hold it one person.
            raise ConfigurationError(
                "the app's database has connections with the character sets "
                f"{', '.join(charsets)}, which would bend ids: pass it charset='utf8mb4' and no "
                "other in its init_command, or give Sessions a URL"
            )
        if "ORACLE" in modes.split(","):
            raise ConfigurationError(
                "under sql_mode=ORACLE, which the app's connections have, BEGIN begins no "
                "transaction: take ORACLE out of the sql_mode, or give Sessions a URL"
            )
        self._fits = True

    async def fetch(self, raw: Raw, sql: str, params: Sequence[Any]) -> Sequence[Record]:
        async with raw.cursor() as cursor:
            await cursor.execute(sql, _plain(params))
            rows: Sequence[Record] = await cursor.fetchall()
            return rows

    async def execute(self, raw: Raw, sql: str, params: Sequence[Any]) -> int:
        async with raw.cursor() as cursor:
            await cursor.execute(sql, _plain(params))
            return int(cursor.rowcount)

    async def columns(self, raw: Raw, table: Table) -> list[Found]:
        name = self.dialect.identifier_preparer.format_table(table)
        try:
            rows = await self.fetch(raw, f"SHOW FULL COLUMNS FROM {name}", ())
        except Exception as error:
            if error.args[:1] == (_NO_SUCH_TABLE,):
                return []
            raise
        return [_found(row) for row in rows]

    def of_tables(self, error: Exception) -> bool:
        return bool(error.args) and error.args[0] in _OF_TABLES

    async def ddl_dialect(self, raw: Raw) -> Dialect:
        ((version,),) = await self.fetch(raw, "SELECT VERSION()", ())
        # The two name their collations differently.
        kind = "mariadb" if "MariaDB" in version else "mysql"
        dialect: Dialect = make_url(f"{kind}+aiomysql://").get_dialect()()
        return dialect

    def pack(self, rows: Select[Any], *, many: bool) -> Select[Any]:
        if many and self._whole:
            values = packing(rows.subquery().c, digits=func.hex, moment=_moment)
            # Of a text that is too long for some other limit, too, the server keeps what fits.
            whole = select(func.group_concat(func.json_array(*values)))
            return whole.add_columns(func.count())
        values = packing(rows.selected_columns, digits=func.hex, moment=_moment)
        return rows.with_only_columns(func.json_array(*values))

    def one_of(self, column: ColumnElement[Any], found: Select[Any]) -> ColumnElement[bool]:
        # MariaDB 11.8 would merge the subquery into the UPDATE, which then skips no locked row. A
        # LIMIT, however high, keeps it apart.
        apart = found.limit(literal_column("18446744073709551615")).subquery()
        return column == apart.c[str(column.key)]

    def insert_once(self, table: Table) -> Insert:
        column = next(iter(table.primary_key))
        return mysql.insert(table).on_duplicate_key_update({column.name: column})

    def upsert(self, table: Table, rows: Select[Any], changes: Mapping[str, Any]) -> Insert:
        new = mysql.insert(table).from_select([*table.c], rows)
        return new.on_duplicate_key_update(dict(changes))

    def json_of(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        return func.json_extract(text, literal_column("'$'"))  # MariaDB has no CAST(... AS JSON)

    def path(self, key: str) -> str:
        # MariaDB takes a leading hyphen for a range of numbers, even in quotes.
        return super().path(rf"\u002d{key[1:]}" if key.startswith("-") else key)

    def is_transient(self, error: Exception) -> bool:
        # ER_LOCK_WAIT_TIMEOUT, ER_LOCK_DEADLOCK (a certification conflict of Galera, too);
        # ER_CHECKREAD: innodb_snapshot_isolation, the default since MariaDB 11.6;
        # ER_UNKNOWN_COM_ERROR, ER_ERROR_DURING_COMMIT: a node that is not in its cluster
        return error.args[:1] in {(1020,), (1047,), (1180,), (1205,), (1213,)}

    def unknown(self, error: Exception) -> bool:
        return error.args[:1] == (1064,)  # ER_PARSE_ERROR

    def already_exists(self, error: Exception) -> bool:
        return error.args[:1] in {(1050,), (1061,)}  # ER_TABLE_EXISTS_ERROR, ER_DUP_KEYNAME

    async def close(self, raw: Raw) -> None:
        await raw.ensure_closed()

    def abandon(self, raw: Raw) -> None:
        with suppress(Exception):
            raw.close()


def _found(row: Record) -> Found:
    name, shown, collation, null, _, default, extra, *_ = row
    word, _, rest = shown.partition("(")
    kind = _HOLDS.get(word) or _HOLDS.get(shown)
    length = rest.partition(")")[0]
    return Found(
        name,
        shown,
        # MariaDB shows JSON as LONGTEXT.
        frozenset(({kind} if kind else set()) | ({dict} if word == "longtext" else set())),
        int(length) if kind in {bytes, str} and length else None,
        collation,
        null == "NO" and default is None and not extra,
    )


def _moment(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return func.concat(column, literal_column("'+00:00'"))


def _plain(params: Sequence[Any]) -> list[Any]:
    """Values as the drivers may be trusted with."""
    return [_PLAIN[type(v)](v) if type(v) in _PLAIN else v for v in params]


_PLAIN: dict[type, Callable[[Any], Any]] = {
    bytes: bytes.hex,  # see _Bytes
    datetime: lambda moment: str(moment)[:-6],  # a DATETIME has no zone; ours are UTC, "+00:00"
}
