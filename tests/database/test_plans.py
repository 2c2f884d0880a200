"""Every statement finds its rows by an index, so that it costs the same among many rows as among
few: what the database says that it would do.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import MetaData, insert, update

from asgi_sessions import AAL1, ALL_APPS, Sessions
from asgi_sessions._database.drivers.aiomysql import AiomysqlDriver
from asgi_sessions._database.drivers.aiosqlite import AiosqliteDriver
from asgi_sessions._database.drivers.asyncpg import AsyncpgDriver
from asgi_sessions._database.drivers.base import Driver
from asgi_sessions._model.lifetimes import Terms
from asgi_sessions._store.clauses import Clauses
from asgi_sessions._store.connection import RowConnection
from asgi_sessions._store.tables import sessions_table
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app, vouched
from tests.support.engines import kind, sync_engine

#: Rows in the table: the planner of MariaDB reads a small table whole, index or not.
ROWS = 3000

Run = Callable[[Any, str, Sequence[Any]], Awaitable[Any]]


@pytest.fixture
async def crowded(make_sessions: MakeSessions, database_url: str, clock: Clock) -> Sessions:
    """`Sessions` whose table has many rows, of which one in three has ended."""
    sessions = await make_sessions(max_sessions_per_person=5)
    moment = timedelta(seconds=1)
    rows = [
        {
            "id": f"01900000-0000-7000-8000-{number:012x}",
            "person_id": f"person-{number % 1000}",
            "app_id": "default",
            "origin": "login",
            "device_key": number.to_bytes(32),
            "live_device_key": None if number % 3 == 0 else number.to_bytes(32),
            "secret_hash": number.to_bytes(32),
            "started_at": clock.now - (ROWS - number) * moment,
            "last_seen_at": clock.now,
            "expires_at": clock.now + timedelta(days=1) + number * moment,
            "ended_at": clock.now - number * moment if number % 3 == 0 else None,
            "remember": True,
        }
        for number in range(ROWS)
    ]
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        connection.execute(insert(sessions.table), rows)
        table = engine.dialect.identifier_preparer.format_table(sessions.table)
        tables = "TABLE " if engine.dialect.name in {"mysql", "mariadb"} else ""
        connection.exec_driver_sql(f"ANALYZE {tables}{table}")
    engine.dispose()
    return sessions


class Explainer:
    """Has each statement explained before it is run for the first time.

    Attributes:
        whole: the steps that read the table or an index from one end to the other, by statement.
        asked: the statements that look for rows.
    """

    def __init__(self, driver: Driver) -> None:
        self.whole: dict[str, list[str]] = {}
        self.asked: set[str] = set()
        self._dialect = driver.dialect.name
        self._fetch = driver.fetch
        for name in ("fetch", "execute"):
            setattr(driver, name, self._explaining(getattr(driver, name)))

    def _explaining(self, run: Run) -> Run:
        async def explained(raw: object, sql: str, params: Sequence[Any]) -> object:
            if " WHERE " in " ".join(sql.split()) and sql not in self.asked:
                self.asked.add(sql)
                if whole := await self.read_whole(raw, sql, params):
                    self.whole[sql] = whole
            return await run(raw, sql, params)

        return explained

    async def read_whole(self, raw: object, sql: str, params: Sequence[Any]) -> list[str]:
        """The steps of a plan that would read everything."""
        if self._dialect == "sqlite":
            rows = await self._fetch(raw, f"EXPLAIN QUERY PLAN {sql}", params)
            # Nearly all rows have not ended; to find them in order is the one good reason.
            bad = () if "ORDER BY" in sql else ("(ended_at=?)", "(ended_at=? AND expires_at>?)")
            # What another step has found, or nothing at all, around subqueries.
            found = ("SCAN anon", "SCAN CONSTANT ROW")
            steps = [row[3] for row in rows if not row[3].startswith(found)]
            return [one for one in steps if one.startswith("SCAN") or one.endswith(bad)]
        if self._dialect == "postgresql":
            # Its planner may find reading all of so few rows cheaper.
            await self._fetch(raw, "SET enable_seqscan = off", ())
            try:
                ((plan,),) = await self._fetch(raw, f"EXPLAIN (FORMAT JSON) {sql}", params)
            finally:
                await self._fetch(raw, "RESET enable_seqscan", ())
            plans = plan if isinstance(plan, list) else json.loads(plan)  # drivers differ
            return [str(node) for node in nodes(plans[0]["Plan"]) if is_whole(node)]
        # id, select_type, table, type, possible_keys, key, ...
        rows = await self._fetch(raw, f"EXPLAIN {sql}", params)
        # <derived2>: what another step has found.
        tables = [row for row in rows if not (row[2] or "<").startswith("<")]
        return [str(row) for row in tables if row[3] in {"ALL", "index"}]


async def live_through_everything(sessions: Sessions, clock: Clock) -> None:
    """Each function at least once, by logins and by people whom another layer vouches for."""
    app = make_app(sessions)
    async with Browser(app) as browser, Browser(app, agent="Safari") as other:
        for client in (browser, other):
            await client.login("person-7")
        await browser.post("/renew")
        clock.turn(timedelta(minutes=5))
        await browser.see()
        await other.see()
        await browser.post("/end-others")
        sid = await other.login("person-7")
        await sessions.end_session_by_id(sid, person_id="person-7")
        await other.see_as("flo")
        await other.see_as("flo")
        await sessions.get({"type": "http", "headers": [], "state": {"person": {"id": "flo"}}})
        await browser.post("/logout")
        clock.turn(timedelta(days=15))
        await other.get("/", headers=vouched("flo"))
    for options in ({}, {"app_id": ALL_APPS}, {"app_id": ALL_APPS, "include_ended": True}):
        found = await sessions.list_sessions("person-8", limit=1, **options)
        before = found[0].sid if found else sid
        await sessions.list_sessions("person-8", limit=1, before=before, **options)
    await sessions.end_all_sessions("person-8", except_sid=sid)
    await sessions.end_all_sessions("person-8", app_id="default")
    clock.turn(timedelta(days=365))
    await sessions.purge(batch_size=100)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


def is_whole(node: dict[str, Any]) -> bool:
    """Whether a node reads a table, and is not told from where to where."""
    others = {"Bitmap Heap Scan", "Values Scan", "Function Scan"}  # what was given, or found
    kind = node["Node Type"]
    return kind not in others and kind.endswith("Scan") and "Index Cond" not in node


async def test_a_persons_rows_are_found_by_theirs_however_many_mariadb_takes_them_for(
    crowded: Sessions, database_url: str
) -> None:
    """It would go along the sids, to have the rows in order, where it takes those of a person for
    many: right after many rows were written, it may be wrong, and read the whole table for a few.
    """
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        connection.execute(update(crowded.table).values(person_id="polly"))
    engine.dispose()
    explainer = Explainer(crowded._core.store.engines.here.driver)
    sid = (await crowded.list_sessions("polly"))[0].sid
    for options in ({}, {"app_id": ALL_APPS}, {"app_id": ALL_APPS, "include_ended": True}):
        await crowded.list_sessions("polly", **options)
        await crowded.list_sessions("polly", before=sid, **options)
    assert len(explainer.asked) == 6, explainer.asked
    if kind(database_url) == "mysql":  # others know what they have
        assert explainer.whole == {}


async def test_every_statement_finds_its_rows_by_an_index(crowded: Sessions, clock: Clock) -> None:
    explainer = Explainer(crowded._core.store.engines.here.driver)
    await live_through_everything(crowded, clock)
    assert {sql.split()[0] for sql in explainer.asked} == {"SELECT", "UPDATE", "DELETE"}
    assert explainer.whole == {}


async def test_what_reads_everything_is_noticed(crowded: Sessions) -> None:
    explainer = Explainer(crowded._core.store.engines.here.driver)
    table = crowded._core.store.table.name
    sql = f"SELECT id FROM {table} WHERE end_reason IS NULL"  # noqa: S608 -- a name of the tests

    async def ask(access: RowConnection) -> None:
        await access.driver.fetch(access.raw, sql, ())

    await crowded._core.store._query(ask)
    assert list(explainer.whole) == [sql]


@pytest.mark.parametrize("driver", [AiosqliteDriver(), AsyncpgDriver(), AiomysqlDriver()])
def test_what_has_not_ended_is_null_and_no_more(driver: Driver) -> None:
    """With the "= 1" that SQLAlchemy adds to conditions, MariaDB would find it in no index."""
    table = sessions_table("sessions", MetaData())
    sql = str(Clauses(table, Terms(AAL1, AAL1)).live.compile(dialect=driver.dialect))
    if driver.dialect.name == "postgresql":  # it is to be found in none there
        assert sql.startswith("(")
        assert sql.endswith(") IS TRUE")
    sql = sql.replace("+", "").removeprefix("(")
    assert sql.startswith("sessions.ended_at IS NULL AND sessions.expires_at > ")
