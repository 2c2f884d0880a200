"""SQLite, by aiosqlite."""

from __future__ import annotations

import asyncio
import sqlite3
from asyncio.tasks import _unregister_task
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from threading import Thread, main_thread
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

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

from .base import Driver, Found, Holder, Raw, T


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
        #: What an app's own connections have for a busy_timeout.
        self._patience: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    async def fetch(self, raw: Raw, sql: str, params: Sequence[Any]) -> Sequence[Record]:
        rows: Sequence[Record] = await raw.execute_fetchall(sql, params)
        return rows

    async def execute(self, raw: Raw, sql: str, params: Sequence[Any]) -> int:
        return await self._do(raw, lambda connection: connection.execute(sql, params).rowcount)

    async def run(self, raw: Raw, sql: str, params: Sequence[Sequence[Any]]) -> None:
        await self._do(raw, lambda connection: connection.executemany(sql, params))

    async def _do(self, raw: Raw, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in the connection's thread. To change to it and back costs more than most
        statements, and aiosqlite's own cursors do so once more to be closed.
        """
        done: T = await raw._execute(work, raw._conn)  # noqa: SLF001 -- there is no other way
        return done

    def pack(self, rows: Select[Any], *, many: bool) -> Select[Any] | None:
        # For each row Python's module waits for the interpreter's lock, which a busy event loop
        # holds for milliseconds. So there is one row.
        if not many:
            return None
        values = packing(rows.subquery().c, digits=_digits, moment=_moment)
        return select(func.group_concat(func.json_array(*values)))

    def insert_once(self, table: Table) -> Insert:
        return sqlite.insert(table).on_conflict_do_nothing()

    def upsert(self, table: Table, rows: Select[Any], changes: Mapping[str, Any]) -> Insert:
        new = sqlite.insert(table).from_select([*table.c], rows)
        return new.on_conflict_do_update(index_elements=[*table.primary_key], set_=changes)

    async def columns(self, raw: Raw, table: Table) -> list[Found]:
        asked = 'SELECT name, type, "notnull" AND dflt_value IS NULL FROM pragma_table_info(?, ?)'
        rows = await self.fetch(raw, asked, (table.name, table.schema))
        return [
            Found(name, type_ or "without a type", _holds(type_), None, None, bool(required))
            for name, type_, required in rows
        ]

    def hint(self, error: Exception) -> str | None:
        if "database is locked" not in str(error):
            return None
        return (
            "the SQLite database is locked: another transaction has written and does not end; if "
            "it is this request's own, pass connection= to what is called inside of it"
        )

    def of_tables(self, error: Exception) -> bool:
        text = str(error)
        return isinstance(error, sqlite3.IntegrityError) or any(sign in text for sign in _SIGNS)

    async def prepare(self, raw: Raw, *, owned: bool, timeout: float) -> None:  # noqa: ASYNC109 -- as Driver
        if not owned:
            ((self._patience[raw],),) = await raw.execute_fetchall("PRAGMA busy_timeout")
        # In milliseconds; short of the timeout, because a thread that waits cannot be broken off.
        await raw.execute_fetchall(f"PRAGMA busy_timeout = {int(timeout * 800)}")
        if owned:
            # Readers and the writer do not wait for one another. It stays with the file, so an
            # app's own database is left as it is.
            await raw.execute_fetchall("PRAGMA journal_mode = WAL")
        _stop_at_exit(raw)

    async def restore(self, raw: Raw, *, by_index: bool) -> None:  # noqa: ARG002 -- as Driver
        _open.discard(raw)
        if (patience := self._patience.pop(raw, None)) is not None:
            await raw.execute_fetchall(f"PRAGMA busy_timeout = {patience}")

    async def discard(self, raw: Raw) -> None:
        await self.close(raw)

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


_SAVEPOINT = "asgi_sessions"


class SharedAiosqliteDriver(AiosqliteDriver):
    """aiosqlite on the only connection there is, on which the app's own statements run, too.

    Each statement is committed by itself, unless the app has begun a transaction: then it is part
    of that. Only one of our own transactions runs at a time.
    """

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self._nested = False

    async def fetch(self, raw: Raw, sql: str, params: Sequence[Any]) -> Sequence[Record]:
        return await self._do(raw, lambda connection: connection.execute(sql, params).fetchall())

    async def prepare(self, raw: Raw, *, owned: bool, timeout: float) -> None:  # noqa: ASYNC109 -- as Driver
        """Change nothing: it is the app's."""

    async def restore(self, raw: Raw, *, by_index: bool) -> None:
        """Nothing has been changed."""

    async def discard(self, raw: Raw) -> None:
        """Keep it: there is no other."""

    async def opened(self, opening: Coroutine[Any, Any, Holder]) -> Holder:
        return await opening

    async def begin(self, raw: Raw) -> None:
        self._nested = raw.in_transaction
        await raw.execute_fetchall(f"SAVEPOINT {_SAVEPOINT}" if self._nested else "BEGIN")

    async def commit(self, raw: Raw) -> None:
        if self._nested:
            await raw.execute_fetchall(f"RELEASE {_SAVEPOINT}")
        else:
            await raw.commit()

    async def rollback(self, raw: Raw) -> None:
        if self._nested:
            await raw.execute_fetchall(f"ROLLBACK TO {_SAVEPOINT}")
            await raw.execute_fetchall(f"RELEASE {_SAVEPOINT}")
        else:
            await raw.rollback()

    def leave(self, raw: Raw) -> None:
        """Keep it: there is no other."""

    async def _do(self, raw: Raw, work: Callable[[sqlite3.Connection], T]) -> T:
        """Do something in one go, so that no statement of the app comes between it and its
        commit.
        """

        def run(connection: sqlite3.Connection) -> T:
            before = connection.in_transaction
            try:
                return work(connection)
            finally:
                if connection.in_transaction and not before:
                    connection.commit()

        return await super()._do(raw, run)


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
        if name in {"JSON", "JSONB"}:
            return frozenset({dict})
    return frozenset({bytes, datetime, bool, int})  # "1" becomes 1


def _stop(task: asyncio.Task[Holder]) -> None:
    """Close what nobody waits for any more."""
    with suppress(Exception, asyncio.CancelledError):  # it may have failed meanwhile
        task.result().leave()
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
