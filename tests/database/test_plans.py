"""Every statement finds its rows by an index, so that it costs the same among many rows as among
few: what the database says that it would do.

Statements are made and run by private parts. Nobody outside sees one.
"""

from __future__ import annotations

from datetime import timedelta

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
from asgi_sessions.oidc import BackChannelLogout
from asgi_sessions.ssf import EventReceiver
from tests.conftest import MakeSessions, name_of
from tests.support import Browser, Clock, make_app, vouched
from tests.support.engines import kind, sync_engine
from tests.support.inside import driver_of
from tests.support.plans import Explainer
from tests.support.sso import CLIENT, ISSUER, Provider, key, log_out, public, push

#: MySQL gives a note with each plan, which aiomysql makes a warning.
pytestmark = pytest.mark.filterwarnings(r"ignore:/\* select#")

#: Rows in the table: the planner of MariaDB reads a small table whole, index or not.
ROWS = 3000


@pytest.fixture
async def crowded(make_sessions: MakeSessions, database_url: str, clock: Clock) -> Sessions:
    """`Sessions` whose table has many rows, of which one in three has ended."""
    sessions = await make_sessions(max_sessions_per_person=5, on_event=lambda _: None)
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
            "bearer": False,
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


async def test_a_persons_rows_are_found_by_theirs_however_many_they_are_taken_for(
    crowded: Sessions, database_url: str
) -> None:
    """MariaDB and PostgreSQL would go along the sids, to have the rows in order, where they take
    those of a person for many: right after many rows were written MariaDB may be wrong, and
    PostgreSQL until it has looked at the table again, and read the whole table for a few.
    """
    id_, person = crowded.table.c.id, crowded.table.c.person_id
    first = f"01900000-0000-7000-8000-{ROWS // 3:012x}"
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        # Not all of them: to read the whole table for these would be right.
        connection.execute(update(crowded.table).where(id_ < first).values(person_id="polly"))
        if kind(database_url) == "postgresql":
            connection.exec_driver_sql(f"ANALYZE {crowded.table.name}")
            most = id_ < f"01900000-0000-7000-8000-{ROWS // 3 - 10:012x}"
            connection.execute(
                update(crowded.table).where(most, person == "polly").values(person_id="molly")
            )
    engine.dispose()
    explainer = Explainer(driver_of(crowded))
    sid = (await crowded.list_sessions("polly"))[0].sid
    for options in ({}, {"app_id": ALL_APPS}, {"app_id": ALL_APPS, "include_ended": True}):
        await crowded.list_sessions("polly", **options)
        await crowded.list_sessions("polly", before=sid, **options)
    assert len(explainer.asked) == 6, explainer.asked
    if kind(database_url) != "sqlite":  # which knows what it has
        assert explainer.whole == {}


async def test_a_list_reads_no_more_sessions_than_it_shows(
    crowded: Sessions, database_url: str
) -> None:
    """One who has a hundred thousand would wait a hundred times as long."""
    if "pgbouncer" in name_of(database_url):
        pytest.skip("nothing is set on connections that others get next, so PostgreSQL may sort")
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        connection.execute(update(crowded.table).values(person_id="polly"))
    engine.dispose()
    explainer = Explainer(driver_of(crowded))
    first, second = await crowded.list_sessions("polly", limit=2)
    assert await crowded.list_sessions("polly", limit=1, before=first.sid) == [second]
    assert len(explainer.asked) == 2, explainer.asked
    assert explainer.sorting == set()
    await crowded.list_sessions("polly", app_id=ALL_APPS)  # of some apps, there is no such order
    assert len(explainer.sorting) == 1


async def test_every_statement_finds_its_rows_by_an_index(crowded: Sessions, clock: Clock) -> None:
    explainer = Explainer(driver_of(crowded))
    await live_through_everything(crowded, clock)
    assert {sql.split()[0] for sql in explainer.asked} == {"SELECT", "UPDATE", "DELETE"}
    assert explainer.whole == {}


async def test_a_providers_word_finds_its_rows_by_an_index(
    crowded: Sessions, database_url: str, clock: Clock
) -> None:
    """Few among many that have a provider, or one person among many; in whatever order the rows
    are ended. A login and a resume need none of it.
    """
    c = crowded.table.c
    words = {"issuer": ISSUER, "subject": c.person_id, "provider_sid": c.id}
    engine = sync_engine(database_url)
    explainer = Explainer(driver_of(crowded))
    provider = Provider(clock)
    logout = BackChannelLogout(crowded, issuer=ISSUER, client_id=CLIENT, keys=public(key()))
    events = EventReceiver(crowded, issuer=ISSUER, audience=CLIENT, keys=public(key()))
    person = {"format": "iss_sub", "iss": ISSUER, "sub": "person-8"}
    try:
        for most in (c.person_id == "person-8", c.id != ""):
            with engine.connect() as connection:
                connection.execute(update(crowded.table).where(most).values(words))
                table = engine.dialect.identifier_preparer.format_table(crowded.table)
                tables = "TABLE " if engine.dialect.name in {"mysql", "mariadb"} else ""
                connection.exec_driver_sql(f"ANALYZE {tables}{table}")
            (session, *_) = await crowded.list_sessions("person-8")
            explainer.asked.clear()
            changed = provider.event("caep/event-type/token-claims-change", person)
            assert (await push(events, changed)).status_code == 202
            for token in (
                provider.logout_token(sid=session.sid),
                provider.logout_token(sub="person-8"),
            ):
                assert (await log_out(logout, token)).status_code == 200
            assert await crowded.list_sessions("person-8") == []
            assert any("subject" in sql for sql in explainer.asked)
            assert explainer.whole == {}
            with engine.connect() as connection:  # they live again
                mine = c.person_id == "person-8"
                connection.execute(update(crowded.table).where(mine).values(ended_at=None))
    finally:
        engine.dispose()


async def test_what_reads_everything_is_noticed(crowded: Sessions) -> None:
    explainer = Explainer(driver_of(crowded))
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
