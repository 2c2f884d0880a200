"""A table that grows under connections that are open: what was planned while it was empty is run
all the same when it is full, and nobody has the table looked at (ANALYZE) in between. Still no
statement reads all of it.

The questions that a plan is kept for are asked of the private store, without an app around them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, text

from asgi_sessions import Sessions
from asgi_sessions._database.drivers.base import Driver
from asgi_sessions._store.connection import RowConnection
from asgi_sessions._store.store import Finding, Touch
from tests.support import KEY, Browser, Clock, make_app
from tests.support.engines import app_database, kind, own_database, sync_engine
from tests.support.plans import Explainer

ROWS = 20_000
#: In SQLite, which says what it would do, and counts no rows for that.
ROWS_IN_SQLITE = 200
#: Times after which PostgreSQL keeps a plan, and one more.
PLANNED = 7

Run = Callable[[Any, str, Sequence[Any]], Awaitable[Any]]


@dataclass
class Place:
    """A database of the test's own, and `Sessions` in it."""

    url: str
    sessions: Sessions
    clock: Clock

    def grow(self) -> None:
        """Write many rows: a thousand people with twenty each, nobody's time up."""
        now, moment = self.clock.now, timedelta(seconds=1)
        count = ROWS_IN_SQLITE if kind(self.url) == "sqlite" else ROWS
        rows = [
            {
                "id": f"01900000-0000-7000-8000-{number:012x}",
                "person_id": f"person-{number % 1000}",
                "app_id": "default",
                "origin": "login",
                "device_key": number.to_bytes(32),
                "live_device_key": number.to_bytes(32),
                "secret_hash": number.to_bytes(32),
                "started_at": now - (count - number) * moment,
                "last_seen_at": now,
                "expires_at": now + timedelta(days=3650) + number * moment,
                "remember": True,
                "bearer": False,
            }
            for number in range(count)
        ]
        engine = sync_engine(self.url)
        with engine.connect() as connection:
            connection.exec_driver_sql("BEGIN")  # it would commit each row by itself
            connection.execute(insert(self.sessions.table), rows)
            (_, cutoffs) = self.sessions.metadata.sorted_tables
            cut = [
                {"person_id": f"other-{number}", "app_id": "", "cut_at": now, "changed_at": now}
                for number in range(count)
            ]
            connection.execute(insert(cutoffs), cut)
            connection.exec_driver_sql("COMMIT")

    def read_so_far(self) -> dict[str, int]:
        """Rows that PostgreSQL has read by each index, and by none (``""``)."""
        engine = sync_engine(self.url)
        with engine.connect() as connection:
            # Each tells what it has read when it goes, a pooler's, too; and this one now.
            connection.execute(text("SELECT pg_stat_force_next_flush()"))
            connection.execute(
                text(
                    "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity"
                    " WHERE datname = current_database() AND pid <> pg_backend_pid()"
                )
            )
            by_none = connection.scalar(text("SELECT sum(seq_tup_read) FROM pg_stat_user_tables"))
            by_index = connection.execute(
                text("SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes")
            )
            return {"": int(by_none or 0), **{name: int(count) for name, count in by_index}}


@pytest.fixture(params=[False, True], ids=["", "own"])
async def place(
    anyio_backend: str,
    request: pytest.FixtureRequest,
    database_url: str,
    tmp_path: Path,
    clock: Clock,
) -> AsyncIterator[Place]:
    """With `Sessions` that open their connections, or borrow them from an app's own database."""
    with own_database(database_url, tmp_path) as url:
        async with AsyncExitStack() as stack:
            database: Any = url
            if request.param:
                database = await stack.enter_async_context(app_database(url))
            sessions = Sessions(database, secret_key=KEY, clock=clock, max_sessions_per_person=3)
            await stack.enter_async_context(sessions)
            await sessions.create_tables()
            yield Place(url, sessions, clock)


class Reads:
    """Counts what MariaDB reads for each statement.

    Attributes:
        rows: how many rows of tables and indexes at most, by statement.
    """

    def __init__(self, driver: Driver) -> None:
        self.rows: dict[str, int] = {}
        self._fetch = driver.fetch
        for name in ("fetch", "execute"):
            setattr(driver, name, self._counting(getattr(driver, name)))

    def _counting(self, run: Run) -> Run:
        async def counted(raw: object, sql: str, params: Sequence[Any]) -> object:
            before = await self._so_far(raw)
            answer = await run(raw, sql, params)
            read = await self._so_far(raw) - before
            self.rows[sql] = max(read, self.rows.get(sql, 0))
            return answer

        return counted

    async def _so_far(self, raw: object) -> int:
        counts = await self._fetch(raw, "SHOW SESSION STATUS LIKE 'Handler_read%%'", ())
        # Those of a temporary table are few, and what was asked here before is one.
        return sum(int(count) for name, count in counts if not name.endswith("_deleted"))


async def live(place: Place, round_: int) -> None:
    """Each function at least once, by one and by many at once."""
    sessions, clock = place.sessions, place.clock
    store, app = sessions._core.store, make_app(sessions)
    async with Browser(app) as browser, Browser(app, agent="Safari") as other:
        sid = await browser.login("person-1")
        await other.login("person-1")
        await browser.post("/renew")
        clock.turn(timedelta(minutes=5))
        await browser.see()
        await browser.post("/end-others")
        await other.see_as(f"flo-{round_}")
        await sessions.get({"type": "http", "headers": [], "state": {"person": {"id": "flo"}}})
        crowd = [Browser(app) for _ in range(12)]
        sids = await asyncio.gather(
            *(one.login(f"person-{number}") for number, one in enumerate(crowd))
        )
        for many in (3, 12, 40):
            known = (sids * 4)[:many]
            unknown = [f"01900000-0000-7000-9000-{number:012x}" for number in range(many)]
            await asyncio.gather(*map(store.by_sid, [*known, *unknown]))
            devices = [(f"person-{n}", n.to_bytes(32)) for n in range(many)]
            await asyncio.gather(
                *(store.find(Finding(p, "default", None, (k,))) for p, k in devices)
            )
            clock.turn(timedelta(minutes=1))
            await asyncio.gather(*(store.touch(Touch(one, clock.now, None)) for one in known))
            await store.living([*known, *unknown], now=clock.now)
        for ended in (False, True):
            await sessions.list_sessions("person-1", include_ended=ended)
            await sessions.list_sessions("person-1", include_ended=ended, before=sid)
        await sessions.end_session_by_id(sids[2], person_id="person-2")
        await sessions.end_all_sessions("person-3", except_sid=sids[3])
        await browser.post("/logout")
        for one in crowd:
            await one.aclose()
    await sessions.purge(batch_size=100)


async def test_no_statement_reads_all_of_a_table_that_has_grown(place: Place) -> None:
    engines, database = place.sessions._core.store.engines, kind(place.url)
    for round_ in range(PLANNED):
        await live(place, round_)
    place.grow()
    driver = engines.here.driver
    if database == "postgresql":
        # Behind a pooler no plans are kept, and none can be forbidden: for hundreds of sids at once
        # PostgreSQL rightly reads so small a table whole, once or twice.
        pooled = "statement_cache_size=0" in place.url
        before = place.read_so_far() if pooled else {}
        most = 3 * ROWS if pooled else ROWS / 2
        for round_ in range(2):
            await live(place, PLANNED + round_)
        await place.sessions.disconnect()
        read = {name: n - before.get(name, 0) for name, n in place.read_so_far().items()}
        assert {name: n for name, n in read.items() if n > most} == {}
    elif database == "mysql":
        reads = Reads(driver)
        await live(place, PLANNED)
        assert {sql: n for sql, n in reads.rows.items() if n > ROWS / 10} == {}
        assert len(reads.rows) > 20
    else:
        explainer = Explainer(driver)
        await live(place, PLANNED)
        assert explainer.whole == {}
        assert len(explainer.asked) > 10


async def test_what_reads_all_of_it_is_noticed(place: Place) -> None:
    if kind(place.url) == "sqlite":
        pytest.skip("tests/database/test_plans.py shows that")
    place.grow()
    store = place.sessions._core.store
    driver = store.engines.here.driver
    sql = f"SELECT count(acr) FROM {store.table.name} WHERE acr IS NULL"  # noqa: S608 -- a test's
    reads = Reads(driver) if kind(place.url) == "mysql" else None

    async def ask(access: RowConnection) -> None:
        await access.driver.fetch(access.raw, sql, ())

    await store._query(ask)
    if reads is not None:
        assert reads.rows[sql] >= ROWS
    elif kind(place.url) == "postgresql":
        await place.sessions.disconnect()
        assert max(place.read_so_far().values()) >= ROWS
