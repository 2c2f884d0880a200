"""Rows that merely lie there, made by the server itself: millions of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, text
from sqlalchemy.schema import CreateIndex, DropIndex

from .load import USER_AGENT, now
from .places import Place, engine
from .rows import SPAN, moment, settle

#: Rows in one statement.
STEP = 500_000


def grow(
    place: Place,
    table: Table,
    size: int,
    *,
    dead: int,
    tick: Callable[[int], None] = lambda done: None,
    in_use: bool = False,
) -> None:
    """Insert rows that nobody asks for, and index them at the end.

    Args:
        place: where.
        table: into which.
        size: how many.
        dead: one of so many has ended long ago.
        tick: told how many there are.
        in_use: whether the indexes stay, and the database is told nothing.
    """
    at = now()
    facts = {
        "size": size,
        "dead": dead,
        "begin": (at - SPAN).timestamp() * 1000,
        "span": SPAN.total_seconds() * 1000,
        "agent": USER_AGENT,
        "seen": moment(place, at - timedelta(minutes=1)),
        "expires": moment(place, at + timedelta(days=20)),
        "ended": moment(place, at - timedelta(days=100)),
    }
    indexes = [] if in_use else sorted(table.indexes, key=lambda index: str(index.name))
    with engine(place.url) as made, made.connect() as connection:
        for index in indexes:
            connection.execute(DropIndex(index))
        for start in range(0, size, STEP):
            to = min(start + STEP, size)
            _insert(connection, place, table, {**facts, "first": start + 1, "last": to})
            tick(to)
        for index in indexes:
            connection.execute(CreateIndex(index))
        if not in_use:
            settle(place, table, connection)


def _insert(connection: Connection, place: Place, table: Table, facts: dict[str, Any]) -> None:
    words = {"table": table.name, "columns": _COLUMNS, **facts}
    connection.execute(text(_INSERT[place.kind].format_map(words)), facts)


def grow_visitors(place: Place, table: Table, size: int) -> None:
    """Insert so many visitors with data beside a table."""
    at = now()
    facts = {
        "size": size,
        "begin": (at - SPAN).timestamp() * 1000,
        "span": SPAN.total_seconds() * 1000,
        "seen": moment(place, at - timedelta(minutes=1)),
    }
    with engine(place.url) as made, made.connect() as connection:
        statement = _VISITORS[place.kind].format(table=table.name)
        connection.execute(text(statement), facts)
        if place.kind == "postgresql":
            connection.exec_driver_sql(f"VACUUM ANALYZE {table.name}_visitors")


_VISITORS = {
    "postgresql": """
        INSERT INTO {table}_visitors (id, secret_hash, started_at, last_seen_at, data)
        SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7' || substr(m, 1, 3) || '-8'
            || substr(m, 4, 3) || '-' || substr(m, 7, 12),
          sha256(convert_to('s' || i, 'UTF8')), to_timestamp(ms / 1000.0), :seen,
          jsonb_build_object('cart', jsonb_build_array(i, i + 1), 'token', m)
        FROM (SELECT i, ms, lpad(to_hex(ms), 12, '0') AS h, md5('v' || i) AS m
          FROM (SELECT i, CAST(CAST(:begin AS float8) + CAST(:span AS float8) * i / :size AS bigint)
              AS ms FROM generate_series(1, CAST(:size AS bigint)) AS i) AS a) AS b
    """,
    "sqlite": """
        INSERT INTO {table}_visitors (id, secret_hash, started_at, last_seen_at, data)
        WITH RECURSIVE a(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM a WHERE i < :size),
          b AS MATERIALIZED (SELECT i, CAST(:begin + :span * i / :size AS INTEGER) AS ms,
            lower(hex(randomblob(16))) AS m FROM a)
        SELECT substr(printf('%012x', ms), 1, 8) || '-' || substr(printf('%012x', ms), 9, 4)
            || '-7' || substr(m, 1, 3) || '-8' || substr(m, 4, 3) || '-' || substr(m, 7, 12),
          randomblob(32), strftime('%Y-%m-%d %H:%M:%f', ms / 1000.0, 'unixepoch') || '000', :seen,
          json_object('cart', json_array(i, i + 1), 'token', m)
        FROM b
    """,
}


_COLUMNS = (
    "id, person_id, app_id, origin, user_agent, ip_address, device_key, secret_hash, started_at,"
    " last_seen_at, expires_at, ended_at, end_reason, remember, bearer"
)
# Ids are UUIDv7 in the order of their time, as ours are; three sessions a person; what is random
# in a digest is so here, too.
_INSERT = {
    "postgresql": """
        INSERT INTO {table} ({columns})
        SELECT substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-7' || substr(m, 1, 3) || '-8'
            || substr(m, 4, 3) || '-' || substr(m, 7, 12),
          'filler-' || i / 3, 'default', 'login', :agent, '192.0.2.' || i % 256,
          sha256(convert_to('d' || i, 'UTF8')), sha256(convert_to('s' || i, 'UTF8')),
          to_timestamp(ms / 1000.0), :seen, :expires,
          CASE WHEN i % :dead = 0 THEN CAST(:ended AS timestamptz) END,
          CASE WHEN i % :dead = 0 THEN 'logout' END, true, false
        FROM (SELECT i, ms, lpad(to_hex(ms), 12, '0') AS h, md5('r' || i) AS m
          FROM (SELECT i, CAST(CAST(:begin AS float8) + CAST(:span AS float8) * i / :size AS bigint)
              AS ms
            FROM generate_series(CAST(:first AS bigint), CAST(:last AS bigint)) AS i) AS a) AS b
    """,
    "sqlite": """
        INSERT INTO {table} ({columns})
        WITH RECURSIVE a(i) AS (SELECT :first UNION ALL SELECT i + 1 FROM a WHERE i < :last),
          b AS MATERIALIZED (SELECT i, CAST(:begin + :span * i / :size AS INTEGER) AS ms,
            lower(hex(randomblob(9))) AS m FROM a)
        SELECT substr(printf('%012x', ms), 1, 8) || '-' || substr(printf('%012x', ms), 9, 4)
            || '-7' || substr(m, 1, 3) || '-8' || substr(m, 4, 3) || '-' || substr(m, 7, 12),
          'filler-' || i / 3, 'default', 'login', :agent, '192.0.2.' || i % 256,
          randomblob(32), randomblob(32),
          strftime('%Y-%m-%d %H:%M:%f', ms / 1000.0, 'unixepoch') || '000', :seen, :expires,
          CASE WHEN i % :dead = 0 THEN :ended END, CASE WHEN i % :dead = 0 THEN 'logout' END, 1, 0
        FROM b
    """,
    "mysql": """
        INSERT INTO {table} ({columns})
        SELECT CONCAT(SUBSTR(h, 1, 8), '-', SUBSTR(h, 9, 4), '-7', SUBSTR(m, 1, 3), '-8',
            SUBSTR(m, 4, 3), '-', SUBSTR(m, 7, 12)),
          CONCAT('filler-', i DIV 3), 'default', 'login', :agent, CONCAT('192.0.2.', i % 256),
          UNHEX(SHA2(CONCAT('d', i), 256)), UNHEX(SHA2(CONCAT('s', i), 256)),
          '1970-01-01' + INTERVAL ms * 1000 MICROSECOND, :seen, :expires,
          IF(i % :dead = 0, :ended, NULL), IF(i % :dead = 0, 'logout', NULL), 1, 0
        FROM (SELECT i, ms, LPAD(LOWER(HEX(ms)), 12, '0') AS h, MD5(CONCAT('r', i)) AS m
          FROM (SELECT seq AS i, CAST(:begin + :span * seq / :size AS UNSIGNED) AS ms
            FROM seq_{first}_to_{last}) AS a) AS b
    """,
}
