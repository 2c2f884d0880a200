"""Rows for the table: those whose cookies are drawn, and those that merely lie there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Connection, Table, insert, select, text

from asgi_sessions import Sessions

from .apps import KEY, ours
from .load import App, log_in, now
from .places import Place, engine

#: Sessions have begun within it: well within the idle timeout, so that all are live.
SPAN = timedelta(days=10)
#: Sessions of the one who has many.
MANY = 50
MANY_PERSON = "many"


@dataclass(frozen=True)
class Sample:
    """Sessions with their cookies. Each place holds the same rows, so one cookie opens all."""

    cookies: list[bytes]
    rows: list[dict[str, Any]]

    @property
    def ids(self) -> list[str]:
        """The sids."""
        return [row["id"] for row in self.rows]

    def part(self, size: int) -> Sample:
        """So many of them."""
        return Sample(self.cookies[:size], self.rows[:size])


async def cookies(app: App, persons: Sequence[str]) -> list[bytes]:
    """Log them in, 64 at a time."""
    found: list[bytes] = []
    for start in range(0, len(persons), 64):
        some = persons[start : start + 64]
        found += await asyncio.gather(*(log_in(app, person) for person in some))
    return found


async def make_sample(size: int, directory: Path, tick: Callable[[int], None]) -> Sample:
    """Start so many sessions, at random moments of the last days: their sids are spread over the
    whole of a table, as those of people are.
    """
    random, begin = Random(1), now() - SPAN
    sessions = Sessions(
        f"sqlite:///{directory}/sample.db",
        secret_key=KEY,
        clock=lambda: begin + SPAN * random.random(),
    )
    persons = [*(f"person-{i}" for i in range(size - MANY)), *[MANY_PERSON] * MANY]
    random.shuffle(persons)
    found: list[bytes] = []
    async with sessions:
        await sessions.create_tables()
        app = ours(sessions)
        for start in range(0, size, 1000):
            found += await cookies(app, persons[start : start + 1000])
            tick(len(found))
    with engine(f"sqlite:///{directory}/sample.db") as made, made.connect() as connection:
        rows = [dict(row) for row in connection.execute(select(sessions.table)).mappings()]
    by_id = {row["id"]: row for row in rows}
    # The cookie begins with its sid, after the name.
    ordered = [by_id[cookie.partition(b"=")[2].partition(b".")[0].decode()] for cookie in found]
    return Sample(found, ordered)


def fill(place: Place, table: Table, sample: Sample, *, in_use: bool = False) -> None:
    """Insert the sample; `in_use` as of `grow`."""
    rows = [{**row, "last_seen_at": now()} for row in sample.rows]
    with engine(place.url) as made, made.connect() as connection:
        begin(connection)
        for start in range(0, len(rows), 5000):
            connection.execute(insert(table), rows[start : start + 5000])
        connection.exec_driver_sql("COMMIT")
        if not in_use:
            settle(place, table, connection)


def fill_data(place: Place, table: Table) -> None:
    """Give every session in a table data of one key."""
    kind = "JSONB" if place.kind == "postgresql" else "CHAR"
    data = f"""CAST('{{"count":0}}' AS {kind})"""
    with engine(place.url) as made, made.connect() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO {table.name}_data (id, data) SELECT id, {data} FROM {table.name}"  # noqa: S608 -- our own names
        )
        if place.kind == "postgresql":
            connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}_data")


def begin(connection: Connection) -> None:
    """Many statements, one commit."""
    connection.exec_driver_sql("BEGIN")


def freshen(place: Place, table: Table, spread: timedelta) -> None:
    """As a table looks in use: every session was seen at some moment of the last `spread`, so that
    with the default options so many touches fall due per second as would.
    """
    at, seconds = now(), spread.total_seconds()
    values = {"now": moment(place, at), "epoch": at.timestamp(), "seconds": seconds}
    with engine(place.url) as made, made.connect() as connection:
        seen = _SEEN[place.kind]
        connection.execute(text(f"UPDATE {table.name} SET last_seen_at = {seen}"), values)  # noqa: S608 -- our own names
        settle(place, table, connection)


_SEEN = {
    "postgresql": "CAST(:now AS timestamptz) - random() * :seconds * interval '1 s'",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%f',"
    " :epoch - abs(random() % 1000000) / 1e6 * :seconds, 'unixepoch') || '000'",
    "mysql": "CAST(:now AS datetime(6)) - INTERVAL FLOOR(RAND() * :seconds * 1e6) MICROSECOND",
}


def moment(place: Place, at: datetime) -> Any:  # noqa: ANN401 -- as the driver takes it
    """A time in UTC, for a statement of our own."""
    return at if place.kind == "postgresql" else at.strftime("%Y-%m-%d %H:%M:%S.%f")


def settle(place: Place, table: Table, connection: Connection) -> None:
    """What the server would do by itself some time, in the middle of a measurement."""
    if place.kind == "postgresql":
        connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}")


_SIZES = {
    "postgresql": "SELECT relname, pg_relation_size(oid) FROM pg_class"
    " WHERE oid = '{table}'::regclass OR oid IN"
    " (SELECT indexrelid FROM pg_index WHERE indrelid = '{table}'::regclass)",
    "sqlite": "SELECT name, sum(pgsize) FROM dbstat WHERE name LIKE '%{table}%' GROUP BY name",
    # The index by the primary key is the table.
    "mysql": "SELECT index_name, stat_value * @@innodb_page_size FROM mysql.innodb_index_stats"
    " WHERE stat_name = 'size' AND table_name = '{table}' AND database_name = database()",
}


def sizes_of(place: Place, table: Table) -> dict[str, int]:
    """Bytes of the table and of each index, by its name as the database has it."""
    with engine(place.url) as made, made.connect() as connection:
        rows = connection.execute(text(_SIZES[place.kind].format(table=table.name))).all()
    return {str(name): int(size) for name, size in rows}
