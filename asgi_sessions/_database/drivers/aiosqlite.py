"""SQLite, by aiosqlite."""

from __future__ import annotations

import asyncio
import sqlite3
from asyncio.tasks import _unregister_task
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from datetime import datetime
from threading import Thread, main_thread
from typing import Any
from weakref import WeakSet

from sqlalchemy import (
    ColumnElement,
    Insert,
    Select,
    String,
    Table,
    case,
    func,
    literal_column,
    select,
    type_coerce,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.sqlite import pysqlite

from asgi_sessions._database.statement import Record, packing

from .base import Driver, Found, Holder, Raw


class AiosqliteDriver(Driver):
    """aiosqlite."""

    system = "SQLite"
    elsewhere = False
    batch = 0.007  # its thread shares the interpreter with the requests, too
    serial = True
    last_word = 0.01
    #: Seconds that a file has to open when whoever wanted it has been cancelled.
    patience = 0.5

    def __init__(self) -> None:
        self.dialect = pysqlite.dialect(paramstyle="qmark")

    async def fetch(self, raw: Raw, sql: str, params: Sequence[Any]) -> Sequence[Record]:
        rows: Sequence[Record] = await raw.execute_fetchall(sql, params)
        return rows

    async def execute(self, raw: Raw, sql: str, params: Sequence[Any]) -> int:
        async with raw.execute(sql, params) as cursor:
            return int(cursor.rowcount)

    def pack(self, rows: Select[Any], *, many: bool) -> Select[Any] | None:
        # For each row Python's module waits for the interpreter's lock, which a busy event loop
        # holds for milliseconds. So there is one row.
        if not many:
            return None
        values = packing(rows.subquery().c, digits=_digits, moment=_moment)
        return select(func.group_concat(func.json_array(*values)))

    def insert_once(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing()

    async def columns(self, raw: Raw, table: Table) -> list[Found]:
        asked = 'SELECT name, type, "notnull" AND dflt_value IS NULL FROM pragma_table_info(?, ?)'
        rows = await self.fetch(raw, asked, (table.name, table.schema))
        return [
            Found(name, type_ or "without a type", _holds(type_), None, None, bool(required))
            for name, type_, required in rows
        ]

    def of_tables(self, error: Exception) -> bool:
        text = str(error)
        return isinstance(error, sqlite3.IntegrityError) or any(sign in text for sign in _SIGNS)

    async def prepare(self, raw: Raw, *, owned: bool, timeout: float) -> None:  # noqa: ASYNC109 -- as Driver
        # In milliseconds; short of the timeout, because a thread that waits cannot be broken off.
        await raw.execute_fetchall(f"PRAGMA busy_timeout = {int(timeout * 800)}")
        if owned:
            # Readers and the writer do not wait for one another. It stays with the file, so an
            # app's own database is left as it is.
            await raw.execute_fetchall("PRAGMA journal_mode = WAL")
        _stop_at_exit(raw)

    async def opened(self, opening: Coroutine[Any, Any, Holder]) -> Holder:
        """By a task that the end of the event loop does not find: aiosqlite forgets the file that
        its thread is about to open if it is cancelled meanwhile, and nobody would close that.
        """
        task = asyncio.ensure_future(opening)
        _unregister_task(task)
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError:
            task.add_done_callback(_stop)
            await asyncio.wait([task], timeout=self.patience)
            raise
        return task.result()

    def leave(self, raw: Raw) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raw.stop()
        else:
            # From a thread without an event loop: it would report to the one that runs here,
            # which may have ended by then.
            Thread(target=raw.stop).start()


#: SQLite has one number for what it cannot make sense of.
_SIGNS = ("no such table", "no such column", "has no column named")


def _holds(declared: str) -> frozenset[type]:
    """What a column gives back as it was: by the rules of https://sqlite.org/datatype3.html."""
    name = declared.upper()
    if "INT" not in name:
        if any(word in name for word in ("CHAR", "CLOB", "TEXT")):
            return frozenset({str, bytes, datetime})
        if not name or "BLOB" in name:
            return frozenset({str, bytes, datetime, bool, int})
    return frozenset({bytes, datetime, bool, int})  # "1" becomes 1


def _stop(task: asyncio.Task[Holder]) -> None:
    """Close what nobody waits for any more."""
    if not task.cancelled() and task.exception() is None:
        with suppress(Exception):
            task.result().raw.stop()


def _digits(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return case((column.is_not(None), func.hex(column)))


def _moment(column: ColumnElement[Any]) -> ColumnElement[Any]:
    return type_coerce(column, String) + literal_column("'+00:00'")


def _stop_after_main() -> None:
    main_thread().join()
    for raw in tuple(_open):
        with suppress(Exception):
            raw.stop()


_open: WeakSet[Any] = WeakSet()
_exit = Thread(target=_stop_after_main, name="asgi_sessions exit", daemon=True)


def _stop_at_exit(raw: Raw) -> None:
    """Python waits at its end for the thread of an aiosqlite connection. If the loop was closed
    without cancelling its tasks, nobody has closed the connection, and it would wait for ever.
    """
    if _exit.ident is None:
        _exit.start()
    _open.add(raw)
