"""Rows: many of them written at once, all of them read, and none within reach."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, Table, insert, text

from asgi_sessions import Session, Sessions
from tests.support import Clock
from tests.support.engines import run

#: More than three of the batches in which sessions end, which are of 256 rows or more.
MANY = 3 * 256 + 40


def fill(
    others: Connection,
    table: Table,
    clock: Clock,
    person: str = "ann",
    *,
    count: int = MANY,
    app: str = "default",
    prefix: str = "0190",
) -> list[str]:
    """Give a person many live rows, seen a second after one another; their sids, newest first."""
    sids = [f"{prefix}0000-0000-7000-8000-{number:012x}" for number in range(count)]
    rows = [
        {
            "id": sid,
            "person_id": person,
            "app_id": app,
            "origin": "login",
            "device_key": bytes(32),
            "secret_hash": bytes(32),
            "started_at": clock.now - timedelta(hours=1),
            "last_seen_at": clock.now + timedelta(seconds=number - count),
            "expires_at": clock.now + timedelta(days=20, seconds=number),
            "remember": True,
            "bearer": False,
        }
        for number, sid in enumerate(sids)
    ]
    others.exec_driver_sql("BEGIN")  # it would commit each row by itself
    others.execute(insert(table), rows)
    others.exec_driver_sql("COMMIT")
    return sids[::-1]


async def session_of(sessions: Sessions, sid: str) -> Session:
    """The session of a sid, which there is."""
    session = await sessions.get_by_id(sid)
    assert session is not None
    return session


async def table_of(sessions: Sessions) -> list[dict[str, Any]]:
    """All rows with all columns, as somebody who has the database reads them."""
    query = sessions.table.select().order_by(sessions.table.c.id)
    return await run(sessions, query)


@asynccontextmanager
async def outage(sessions: Sessions) -> AsyncIterator[None]:
    """The database answers each statement with an error."""
    name = sessions.table.name
    await run(sessions, text(f"ALTER TABLE {name} RENAME TO {name}_away"))
    yield
    await run(sessions, text(f"ALTER TABLE {name}_away RENAME TO {name}"))
