"""Where databases differ: one test for each difference that could cost somebody their session, or
show it to somebody else.

The drivers, where the differences are evened out, are private.
"""

from __future__ import annotations

import asyncio
import itertools
import unicodedata
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from asgi_sessions import (
    ALL_APPS,
    ConfigurationError,
    InvalidSession,
    Lifetimes,
    Session,
    Sessions,
)
from asgi_sessions._database.drivers import mysql
from asgi_sessions._database.drivers.aiosqlite import AiosqliteDriver
from asgi_sessions._database.drivers.base import Driver
from asgi_sessions._database.drivers.mysql import MySQLDriver
from asgi_sessions._database.drivers.postgresql import PostgreSQLDriver
from tests.conftest import ENGINES, URLS, MakeSessions, name_of
from tests.support import KEY, Browser, Clock, make_app
from tests.support.engines import (
    EngineURL,
    app_database,
    is_mariadb,
    kind,
    own_database,
    run,
    sync_engine,
)

SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
#: Alike to some collation, and not the same people.
ALIKE = [
    *("ann", "Ann", "ANN", "ann ", "ann  ", " ann", "ann\u00a0", "ann\u200b", "an\u0301n"),
    *("jürgen", unicodedata.normalize("NFD", "jürgen"), "jurgen", "juergen", "JÜRGEN"),
    *("strasse", "straße", "STRAẞE", "ﬁnn", "finn", "Å", "\u212b", "K", "\u212a", "k"),
    *(
        "i",
        "I",
        "\u0131",
        "İ",
        "1",
        "\uff11",
        "¹",
        "01",
        "1.0",
        "😀",
        "😁",
        "\U0001f468\u200d\U0001f4bb",
    ),
    *("a_b", "a%b", "a\\b", "a'b", 'a"b', "a`b", "a;b", "a--b", "%s", ":x", "$1", "?"),
]


def scope(**headers: bytes) -> dict[str, Any]:
    """A request without a browser."""
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    return {"type": "http", "headers": pairs, "client": ("192.0.2.1", 4711)}


async def insert(sessions: Sessions, person: str = "ann", **facts: object) -> Session:
    return await sessions.insert(scope(), {"id": person, **facts})


# --- ids ------------------------------------------------------------------------------------------


async def test_people_whose_ids_are_alike_are_different_people(sessions: Sessions) -> None:
    sids = {person: (await insert(sessions, person)).sid for person in ALIKE}
    for person, sid in sids.items():
        (found,) = await sessions.list_sessions(person)
        assert (found.person_id, found.sid) == (person, sid)
    for person, other in itertools.pairwise(ALIKE):
        assert await sessions.end_session_by_id(sids[person], person_id=other) is None
    for number, person in enumerate(ALIKE, 1):
        assert await sessions.end_all_sessions(person) == 1
        assert await sessions.list_sessions(person) == []
        assert len(await sessions.list_sessions(ALIKE[-1])) == (number < len(ALIKE))


async def test_apps_whose_ids_are_alike_are_different_apps(sessions: Sessions) -> None:
    for app in ALIKE:
        await insert(sessions, app_id=app)
    for number, app in enumerate(ALIKE, 1):
        (found,) = await sessions.list_sessions("ann", app_id=app)
        assert found.app_id == app
        assert await sessions.end_all_sessions("ann", app_id=app) == 1
        others = await sessions.list_sessions("ann", app_id=ALL_APPS)
        assert len(others) == len(ALIKE) - number


async def test_the_cap_counts_each_of_those_who_are_alike(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(max_sessions_per_person=1)
    people = ALIKE[:16]
    for person in (*people, *people):
        await insert(sessions, person)
    for person in people:
        assert len(await sessions.list_sessions(person)) == 1


async def test_a_device_shared_by_those_who_are_alike_is_one_for_each(sessions: Sessions) -> None:
    people = ALIKE[:16]
    browser = Browser(make_app(sessions))
    sids = []
    for person in people:
        browser.cookies.clear()
        sids.append((await browser.see_as(person))["sid"])
    assert len(set(sids)) == len(people)
    for person, sid in zip(people, sids, strict=True):
        browser.cookies.clear()
        assert (await browser.see_as(person))["sid"] == sid


@pytest.mark.parametrize("char", ["x", "ä", "😀"])
async def test_ids_may_have_255_characters_of_any_width(sessions: Sessions, char: str) -> None:
    person, app = char * 255, char * 254 + "x"
    facts = {"auth_provider": char * 255, "acr": char * 255, "amr": [char * 127, char * 127]}
    session = await insert(sessions, person, app_id=app, **facts)
    (found,) = await sessions.list_sessions(person, app_id=app)
    assert found == session
    assert (found.person_id, found.app_id, found.auth_provider) == (person, app, char * 255)
    assert (found.acr, found.amr) == (char * 255, (char * 127, char * 127))
    with pytest.raises(InvalidSession, match="at most 255"):
        await insert(sessions, char * 256)


# --- text -----------------------------------------------------------------------------------------


async def test_nul_is_refused_in_every_text_that_is_not_a_header(sessions: Sessions) -> None:
    session = await insert(sessions)
    for attempt in (
        insert(sessions, "a\0b"),
        insert(sessions, app_id="a\0b"),
        insert(sessions, auth_provider="a\0b"),
        sessions.list_sessions("a\0b"),
        sessions.list_sessions("ann", app_id="a\0b"),
        sessions.end_all_sessions("a\0b"),
        sessions.end_session_by_id(session.sid, person_id="a\0b"),
        sessions.end_session_by_id(session.sid, reason="a\0b"),
    ):
        with pytest.raises(InvalidSession, match="NUL"):
            await attempt
    assert await sessions.get_by_id("\0") is None
    assert await sessions.list_sessions("ann") == [session]


async def test_nul_in_a_user_agent_is_replaced(sessions: Sessions) -> None:
    session = await sessions.insert(scope(user_agent=b"Fire\0fox"), {"id": "ann"})
    assert session.user_agent == "Fire\ufffdfox"
    assert await sessions.get_by_id(session.sid) == session


async def test_characters_of_four_bytes_come_back(sessions: Sessions) -> None:
    person, agent, reason = "ann 😀\U0010fffd", "Firefox 🦊 𐍈", "🧹" * 50
    session = await sessions.insert(scope(user_agent=agent.encode()), {"id": person})
    ended = await sessions.end_session_by_id(session.sid, person_id=person, reason=reason)
    (found,) = await sessions.list_sessions(person, include_ended=True)
    assert ended == found
    assert (found.person_id, found.user_agent, found.end_reason) == (person, agent, reason)


@pytest.mark.parametrize(
    "agent", [b'"\\"', b"\\u0000", b"\x01\x1f\x7f", b"\xff", "😀\u2028".encode(), b""]
)
async def test_a_lookup_brings_what_a_list_brings(
    sessions: Sessions, clock: Clock, agent: bytes
) -> None:
    async with Browser(make_app(sessions)) as browser:
        headers = [(b"user-agent", agent)]
        login = await browser.post("/login?person=ann", headers=headers)
        renewal = await browser.post("/renew", headers=headers)
    store = sessions._core.store
    row = await store.by_sid(login.json()["sid"])
    assert renewal.status_code == 200
    assert row is not None
    assert row.previous_secret_hash not in (None, row.secret_hash)
    assert (row.remember, row.live_device_key, row.ended_at) == (True, None, None)
    listed = await store.listed("ann", None, live=None, limit=9, before=None)
    assert listed == [row]
    assert [type(value) for value in listed[0]] == [type(value) for value in row]
    # As the driver gives them, value by value: the row of a renewal that came second.
    written = ("secret_hash", "previous_secret_hash", "secret_seen_at", "authenticated_at")
    same = {
        name: getattr(row, name) for name in (*written, "last_seen_at", "acr", "amr", "renewed_at")
    }
    plain = await store.renew(row._replace(secret_hash=bytes(32)), same, now=clock.now)
    assert plain is not None
    assert plain == row
    assert [type(value) for value in plain] == [type(value) for value in row]


async def test_many_that_are_looked_up_at_once_are_those_that_were_asked_for(
    sessions: Sessions,
) -> None:
    people = [f"{number} ann\\' \"%s\u2003😀" for number in range(70)]
    started = [await sessions.insert(scope(), {"id": person}) for person in people]
    unknown = "01900000-0000-7000-8000-000000000000"
    found = await asyncio.gather(
        *(sessions.get_by_id(sid) for session in started for sid in (session.sid, unknown))
    )
    assert found[::2] == started
    assert found[1::2] == [None] * 70
    nobody = await asyncio.gather(*(sessions.get_by_id(unknown) for _ in range(70)))
    assert nobody == [None] * 70


@pytest.mark.filterwarnings("ignore:Row .* was cut by GROUP_CONCAT")  # aiomysql says so, too
async def test_many_whose_rows_do_not_fit_into_one_answer_are_found(
    make_sessions: MakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mysql, "_TEXT", 1000)  # bytes; elsewhere there is no such limit
    sessions = await make_sessions()
    started = [await sessions.insert(scope(), {"id": f"ann {number}"}) for number in range(20)]
    for _ in range(2):
        found = await asyncio.gather(*(sessions.get_by_id(session.sid) for session in started))
        assert found == started
    theirs = {(await sessions.insert(scope(), {"id": "ann"})).sid for _ in range(20)}
    assert {session.sid for session in await sessions.list_sessions("ann")} == theirs


async def test_a_user_agent_of_500_wide_characters_fits(sessions: Sessions) -> None:
    session = await sessions.insert(scope(user_agent="🦊".encode() * 501), {"id": "ann"})
    found = await sessions.get_by_id(session.sid)
    assert found is not None
    assert found.user_agent == "🦊" * 500


# --- times ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("microsecond", [0, 1, 123456, 999999])
async def test_times_come_back_aware_in_utc_to_the_microsecond(
    make_sessions: MakeSessions, clock: Clock, microsecond: int
) -> None:
    sessions = await make_sessions()
    clock.now = datetime(2026, 3, 8, 2, 30, 59, microsecond, tzinfo=UTC)
    proof = clock.now - SECOND - MICROSECOND
    session = await insert(sessions, authenticated_at=proof)
    clock.turn(SECOND)
    ended = await sessions.end_session_by_id(session.sid)
    (found,) = await sessions.list_sessions("ann", include_ended=True)
    assert ended == found
    assert (found.started_at, found.last_seen_at) == (clock.now - SECOND, clock.now - SECOND)
    assert (found.authenticated_at, found.ended_at) == (proof, clock.now)
    assert found.expires_at == clock.now - SECOND + timedelta(days=30)
    times = [value for value in asdict(found).values() if isinstance(value, datetime)]
    assert [time.tzinfo for time in times] == [UTC] * 6


async def test_times_of_other_zones_are_converted(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions()
    east, west = timezone(timedelta(hours=5, minutes=45)), timezone(timedelta(hours=-9.5))
    moment = clock.now
    clock.now = moment.astimezone(east)
    session = await insert(sessions, authenticated_at=moment.astimezone(west))
    assert session.started_at == session.authenticated_at == moment
    assert session.started_at.isoformat().endswith("+00:00")
    clock.now = (moment + timedelta(days=14) - MICROSECOND).astimezone(west)
    assert await sessions.list_sessions("ann") == [session]
    clock.turn(MICROSECOND)
    assert await sessions.list_sessions("ann") == []


@pytest.mark.parametrize("year", [1000, 1582, 1970])
async def test_an_old_proof_of_identity_can_be_stored(sessions: Sessions, year: int) -> None:
    proof = datetime(year, 1, 1, tzinfo=UTC)
    session = await insert(sessions, authenticated_at=proof)
    assert session.authenticated_at == proof
    assert await sessions.get_by_id(session.sid) == session


@pytest.mark.parametrize("proof", [datetime.min, datetime(999, 12, 31), datetime.max])  # noqa: DTZ001, DTZ901 -- below
async def test_a_proof_that_not_every_database_can_store_is_none(
    sessions: Sessions, clock: Clock, proof: datetime
) -> None:
    session = await insert(sessions, authenticated_at=proof.replace(tzinfo=UTC))
    assert session.authenticated_at == clock.now  # the login is one
    assert await sessions.get_by_id(session.sid) == session


# --- settings of connections ----------------------------------------------------------------------

DRIVERS: dict[str, Any] = {
    "sqlite": AiosqliteDriver,
    "postgresql": PostgreSQLDriver,
    "mysql": MySQLDriver,
}


def is_known(url: str, setting: object) -> bool:
    """Whether the server has the setting: some are MariaDB's alone."""
    alone = ("ORACLE", "EMPTY_STRING_IS_NULL", "innodb_snapshot_isolation")
    return not any(name in str(setting) for name in alone) or is_mariadb(url)


#: MySQL deprecates what some of these tests set, and aiomysql says so.
deprecated = pytest.mark.filterwarnings("ignore:.*(utf8mb3|sql modes should be used with strict)")


def on_each(**statements: list[str]) -> pytest.MarkDecorator:
    """Run a test with each of these statements as the first on each connection, as the defaults
    of a server or a role would be.
    """
    return pytest.mark.parametrize(
        ("database_url", "statement"),
        [
            pytest.param(url, statement, id=f"{name_of(url)}-{statement}")
            for url in [*URLS, *ENGINES]
            for statement in statements[kind(url)]
            if not isinstance(url, EngineURL) or url.driver.endswith("psycopg")
            # A pooler would hand the connection with what is set on to others, tests beside it too.
            if "pgbouncer" not in name_of(url)
            if is_known(url, statement)
        ],
        indirect=["database_url"],
    )


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch, database_url: str, statement: str) -> None:
    """Run the statement on each new connection."""
    driver = DRIVERS[kind(database_url)]
    prepare = driver.prepare

    async def with_statement(self: Driver, raw: object, *, owned: bool, timeout: float) -> None:  # noqa: ASYNC109 -- the driver's
        await self.fetch(raw, statement, ())
        await prepare(self, raw, owned=owned, timeout=timeout)

    monkeypatch.setattr(driver, "prepare", with_statement)


async def live_a_life(sessions: Sessions, clock: Clock) -> None:
    """All that the SQL of the package does, with values that are easily bent."""
    person, agent = "ann\\' \"`%s;--😀 ", "Fire\\fox\\' \""
    clock.turn(timedelta(microseconds=654321))
    sids = []
    for _ in range(10):  # their digests have most bytes
        request = scope(user_agent=agent.encode())
        sids.append((await sessions.insert(request, {"id": person})).sid)
        clock.turn(MICROSECOND)
    found = await sessions.list_sessions(person)
    assert [session.sid for session in found] == sids[::-1]
    assert {(session.person_id, session.user_agent) for session in found} == {(person, agent)}
    assert found[0].started_at == clock.now - MICROSECOND
    ended = await sessions.end_session_by_id(sids[0], person_id=person, reason="o'clock\\")
    assert ended is not None
    assert (ended.end_reason, ended.ended_at) == ("o'clock\\", clock.now)
    assert await sessions.end_all_sessions(person, except_sid=sids[1]) == 8
    assert [one.sid for one in await sessions.list_sessions(person)] == [sids[1]]
    for number in range(5):
        browser = Browser(make_app(sessions), agent=f"Firefox {number}")
        sid = await browser.login("bob")
        assert (await browser.see())["sid"] == sid
        await browser.post("/renew")
        clock.turn(61 * SECOND)
        assert (await browser.see())["sid"] == sid
        touched = await sessions.get_by_id(sid)
        assert touched is not None
        assert touched.last_seen_at == clock.now
    for number in range(5):
        browser = Browser(make_app(sessions), agent=f"Firefox {number}")
        sid = (await browser.see_as("cho"))["sid"]
        browser.cookies.clear()
        assert (await browser.see_as("cho"))["sid"] == sid
    clock.turn(timedelta(days=30))
    assert await sessions.purge() == 0
    clock.turn(timedelta(days=91))
    assert await sessions.purge(batch_size=3) == 20


@on_each(
    sqlite=["PRAGMA case_sensitive_like = ON"],
    postgresql=["SET TIME ZONE 'America/New_York'", "SET TIME ZONE '-05:45'"],
    mysql=["SET time_zone = '+05:45'", "SET time_zone = 'SYSTEM'"],
)
@pytest.mark.usefixtures("configured")
async def test_the_time_zone_of_a_connection_changes_no_time(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    clock.now = datetime(2026, 3, 8, 2, 30, tzinfo=UTC)  # no such time in New York
    sessions = await make_sessions()
    await live_a_life(sessions, clock)
    old = await insert(sessions, authenticated_at=datetime(1000, 1, 1, tzinfo=UTC))
    assert await sessions.list_sessions("ann") == [old]  # when zones had seconds


@on_each(
    sqlite=["PRAGMA encoding = 'UTF-16'", "PRAGMA recursive_triggers = ON"],
    postgresql=[
        "SET DateStyle = 'SQL, DMY'",
        "SET IntervalStyle = 'sql_standard'",
        "SET bytea_output = 'escape'",
        "SET standard_conforming_strings = off",
    ],
    mysql=[
        "SET sql_mode = ''",
        "SET sql_mode = 'TRADITIONAL'",
        "SET sql_mode = 'ANSI'",
        "SET sql_mode = 'NO_BACKSLASH_ESCAPES'",
        "SET sql_mode = 'ANSI,TRADITIONAL,NO_BACKSLASH_ESCAPES,HIGH_NOT_PRECEDENCE'",
        "SET sql_mode = 'ORACLE'",
        "SET sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,EMPTY_STRING_IS_NULL,TIME_ROUND_FRACTIONAL'",
        "SET collation_connection = 'utf8mb4_unicode_ci'",
        "SET collation_connection = 'latin1_swedish_ci'",
        "SET NAMES latin1",
        "SET NAMES utf8mb3",
    ],
)
@deprecated
@pytest.mark.usefixtures("configured")
async def test_the_dialect_of_a_connection_bends_no_value(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    await live_a_life(await make_sessions(), clock)


@on_each(
    sqlite=["PRAGMA cell_size_check = ON"],
    postgresql=["SET row_security = off"],
    mysql=["SET sql_mode = ''", "SET sql_mode = 'STRICT_ALL_TABLES'"],
)
@deprecated
@pytest.mark.usefixtures("configured")
async def test_nothing_is_cut_or_replaced_in_silence(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions()
    longest = {"person": "😀" * 255, "app_id": "ß" * 255, "auth_provider": "\U0010ffff" * 255}
    session = await sessions.insert(
        scope(user_agent=("𐍈" * 500).encode()) | {"client": ("ffff:" * 7 + "ffff", 1)},
        {"id": longest["person"], **longest},
    )
    ended = await sessions.end_session_by_id(session.sid, reason="😀" * 50)
    (found,) = await sessions.list_sessions(longest["person"], app_id=ALL_APPS, include_ended=True)
    assert ended == found
    assert found.user_agent == "𐍈" * 500
    assert found.ip_address == "ffff:" * 7 + "ffff"
    assert found.end_reason == "😀" * 50
    for facts in ({"app_id": "x" * 256}, {"auth_provider": "x" * 256}):
        with pytest.raises(InvalidSession, match="at most 255"):
            await insert(sessions, **facts)
    with pytest.raises(InvalidSession, match="at most 50"):
        await sessions.end_session_by_id(session.sid, reason="x" * 51)


# --- isolation ------------------------------------------------------------------------------------

LEVELS = {
    "sqlite": ["PRAGMA read_uncommitted = OFF"],
    "postgresql": [
        f"SET default_transaction_isolation = '{level}'"
        for level in ("read committed", "repeatable read", "serializable")
    ],
    "mysql": [
        "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "SET SESSION innodb_snapshot_isolation = ON",
        "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE",
    ],
}


@on_each(**LEVELS)
@pytest.mark.usefixtures("configured")
async def test_what_another_process_has_written_is_seen_at_the_next_lookup(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    here, elsewhere = [await make_sessions() for _ in range(2)]
    browser = Browser(make_app(here))
    for _ in range(3):
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
        await elsewhere.end_session_by_id(sid)
        assert (await browser.see())["reason"] == "revoked"
        other = await insert(elsewhere)
        assert await here.list_sessions("ann") == [other]
        assert await here.end_all_sessions("ann") == 1
        assert await elsewhere.list_sessions("ann") == []
        clock.turn(SECOND)


@on_each(**LEVELS)
@pytest.mark.usefixtures("configured")
async def test_writes_at_the_same_moment_are_tried_again(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    both = [await make_sessions(max_sessions_per_person=3) for _ in range(2)]
    first = [await insert(both[0]) for _ in range(3)]
    clock.turn(61 * SECOND)
    apps = [make_app(sessions) for sessions in both]
    made, seen, *_ = await asyncio.gather(
        asyncio.gather(*(insert(both[i % 2], f"person {i % 3}") for i in range(24))),
        asyncio.gather(*(Browser(apps[i % 2]).see_as("cho") for i in range(12))),
        asyncio.gather(*(both[i % 2].end_all_sessions("ann") for i in range(4))),
        asyncio.gather(*(both[i % 2].end_session_by_id(first[0].sid) for i in range(4))),
        asyncio.gather(*(sessions.purge() for sessions in both)),
    )
    sids = {session.sid for session in made}
    live = [await both[0].list_sessions(f"person {i}") for i in range(3)]
    assert [len(sessions) for sessions in live] == [3, 3, 3]
    assert {session.sid for sessions in live for session in sessions} <= sids
    assert len({answer["sid"] for answer in seen}) == 1
    assert len(await both[0].list_sessions("cho")) == 1
    assert await both[0].list_sessions("ann") == []


async def test_row_counts_are_those_of_the_rows_that_changed(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(keep_ended=SECOND)
    for _ in range(7):
        await insert(sessions)
    app = make_app(sessions)
    browsers = [Browser(app) for _ in range(3)]
    for browser in browsers:
        await browser.login("ann")
    assert (await browsers[0].post("/end-others")).json() == 9
    assert (await browsers[0].post("/end-others")).json() == 0
    assert await sessions.end_all_sessions("ann") == 1
    assert await sessions.end_all_sessions("ann") == 0
    assert await sessions.purge() == 0
    clock.turn(2 * SECOND)
    assert await sessions.purge(batch_size=4) == 10
    assert await sessions.purge() == 0


# --- names ----------------------------------------------------------------------------------------

MakeNamed = Callable[..., Awaitable[Sessions]]


@pytest.fixture
async def make_named(
    anyio_backend: str, database_url: str, clock: Clock, tmp_path: Path
) -> AsyncIterator[MakeNamed]:
    """A factory of `Sessions` on tables of other names, in a database of their own."""
    made: list[Sessions] = []
    with own_database(database_url, tmp_path) as url:

        async def make(table_name: str) -> Sessions:
            sessions = Sessions(url, secret_key=KEY, clock=clock, table_name=table_name)
            made.append(sessions)
            await sessions.create_tables()
            return sessions

        yield make
        for sessions in made:
            await sessions.disconnect()


@pytest.mark.parametrize(
    "name",
    ["order", "user", "CamelCase", "_", "a" * 46],
)
async def test_a_table_may_have_any_name(make_named: MakeNamed, clock: Clock, name: str) -> None:
    sessions = await make_named(name)
    assert sessions.table.name == name
    await live_a_life(sessions, clock)
    await sessions.create_tables()  # they are there


async def test_two_tables_do_not_know_each_other(make_named: MakeNamed) -> None:
    one, other = await make_named("sessions"), await make_named("sessions_2")
    browser = Browser(make_app(one))
    sid = await browser.login("ann")
    assert await other.get_by_id(sid) is None
    assert await other.list_sessions("ann", include_ended=True) == []
    assert await other.end_all_sessions("ann") == 0
    assert await other.end_session_by_id(sid) is None
    assert (await browser.see())["sid"] == sid
    second = await Browser(make_app(other)).login("ann")
    assert [session.sid for session in await one.list_sessions("ann")] == [sid]
    assert [session.sid for session in await other.list_sessions("ann")] == [second]
    browser_of_both = Browser(make_app(other))
    browser_of_both.cookies = browser.cookies
    assert (await browser_of_both.see())["sid"] is None


@pytest.fixture
def schema(database_url: str, tmp_path: Path) -> Iterator[str]:
    """A schema that no other test uses, and that connections find."""
    name = f"auth_{uuid.uuid4().hex[:12]}"
    if kind(database_url) == "sqlite":
        yield name
        return
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {name}")
        yield name
        cascade = " CASCADE" if kind(database_url) == "postgresql" else ""
        connection.exec_driver_sql(f"DROP SCHEMA {name}{cascade}")


async def test_a_table_may_be_in_another_schema(
    schema: str,
    make_sessions: MakeSessions,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    clock: Clock,
) -> None:
    prepare = AiosqliteDriver.prepare

    async def attach(self: AiosqliteDriver, raw: Any, *, owned: bool, timeout: float) -> None:  # noqa: ASYNC109 -- the driver's
        await prepare(self, raw, owned=owned, timeout=timeout)
        await raw.execute_fetchall(f"ATTACH DATABASE '{tmp_path}/{schema}.db' AS {schema}")

    monkeypatch.setattr(AiosqliteDriver, "prepare", attach)
    sessions = await make_sessions(table_name=f"{schema}.sessions")
    assert (sessions.table.schema, sessions.table.name) == (schema, "sessions")
    await live_a_life(sessions, clock)
    await sessions.create_tables()
    elsewhere = await make_sessions()
    assert await elsewhere.list_sessions("ann", include_ended=True) == []


# --- an app's own database ------------------------------------------------------------------------

OWN: dict[str, dict[str, dict[str, Any]]] = {
    "sqlite": {"no WAL": {}},
    "postgresql": {
        "another zone, serializable": {
            "server_settings": {
                "timezone": "Asia/Kathmandu",
                "default_transaction_isolation": "serializable",
            }
        },
        "another style": {
            "server_settings": {"datestyle": "SQL, DMY", "bytea_output": "escape"},
            "statement_cache_size": 0,
        },
    },
    "mysql": {
        settings: {"init_command": f"SET {settings}"}
        for settings in (
            "sql_mode = ''",
            "sql_mode = 'NO_BACKSLASH_ESCAPES', time_zone = '+05:45'",
            "sql_mode = 'ANSI,TRADITIONAL,NO_BACKSLASH_ESCAPES,HIGH_NOT_PRECEDENCE'",
            "sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,EMPTY_STRING_IS_NULL,TIME_ROUND_FRACTIONAL'",
            "collation_connection = 'utf8mb4_unicode_ci'",
            "autocommit = 0",
        )
    },
}
#: What a connection can tell of its settings.
SETTINGS = {
    "sqlite": "PRAGMA journal_mode",
    "postgresql": "SELECT string_agg(name || '=' || setting, ' ' ORDER BY name) FROM pg_settings",
    "mysql": "SELECT json_objectagg(variable_name, variable_value)"
    " FROM {schema}.session_variables"
    " WHERE variable_name NOT IN ('TIMESTAMP', 'PSEUDO_THREAD_ID', 'RAND_SEED1', 'RAND_SEED2',"
    " 'LAST_INSERT_ID', 'LAST_GTID', 'GTID_CURRENT_POS', 'GTID_BINLOG_POS', 'IDENTITY',"
    " 'STATEMENT_ID')",
}


def own_options(url: str) -> dict[str, dict[str, Any]]:
    """What PgBouncer lets through of them: it keeps few settings for each client."""
    if "statement_cache_size" in url:
        return {"timezone": {"server_settings": {"timezone": "Asia/Kathmandu"}}}
    return OWN[kind(url)]


@pytest.mark.parametrize(
    ("database_url", "options"),
    [
        pytest.param(url, options, id=f"{name_of(url)}-{name}")
        for url in URLS
        for name, options in own_options(url).items()
        if is_known(url, options)
    ],
    indirect=["database_url"],
)
async def test_a_database_of_the_apps_own_keeps_its_settings(
    database_url: str, options: dict[str, Any], make_sessions: MakeSessions, clock: Clock
) -> None:
    if kind(database_url) != "sqlite":
        options = {**options, "min_size": 1, "max_size": 1}  # the app and Sessions take turns
    question = SETTINGS[kind(database_url)]
    if kind(database_url) == "mysql":
        mariadb = is_mariadb(database_url)
        question = question.format(schema="information_schema" if mariadb else "performance_schema")
    async with app_database(database_url, **options) as database:
        settings = await database.fetch_val(question)
        sessions = await make_sessions(database=database)
        await live_a_life(sessions, clock)
        await sessions.disconnect()
        assert database.is_connected
        if name_of(database_url) != "pgbouncer":  # whose connections are now these, now those
            assert await database.fetch_val(question) == settings


#: Those that would, and the words of their refusals.
BENT: dict[str, list[tuple[dict[str, Any], str]]] = {
    "sqlite": [({"url": "sqlite:///:memory:"}, "in-memory")],
    "postgresql": [],
    "mysql": [
        ({"charset": "latin1"}, "latin1.*pass it charset='utf8mb4'"),
        ({"init_command": "SET NAMES utf8mb3"}, "utf8mb3, utf8mb3"),
        ({"init_command": "SET collation_connection = latin1_swedish_ci"}, "utf8mb4, latin1"),
        ({"init_command": "SET sql_mode = 'ORACLE'"}, "take ORACLE out"),
    ],
}


@pytest.mark.parametrize(
    ("database_url", "options", "mend"),
    [
        pytest.param(url, options, mend, id=f"{url.partition(':')[0]}-{options}")
        for url in URLS
        for options, mend in BENT[kind(url)]
        if is_known(url, options)
    ],
    indirect=["database_url"],
)
@deprecated
async def test_a_database_of_the_apps_own_that_would_bend_or_lose_values_is_refused(
    database_url: str, options: dict[str, Any], mend: str, make_sessions: MakeSessions
) -> None:
    await make_sessions()
    async with app_database(**{"url": database_url, **options}) as database:
        for _ in range(2):  # it stays refused
            with pytest.raises(ConfigurationError, match=mend):
                await make_sessions(database=database)
            assert await database.fetch_val("SELECT 1") == 1


async def test_a_database_that_an_apps_tests_roll_back_keeps_nothing(
    database_url: str, make_sessions: MakeSessions, clock: Clock
) -> None:
    outside = await make_sessions()
    async with app_database(database_url, force_rollback=True) as database:
        sessions = Sessions(
            database, secret_key=KEY, clock=clock, table_name=outside.table.fullname
        )
        session = await insert(sessions)
        assert await sessions.list_sessions("ann") == [session]
        assert await sessions.end_all_sessions("ann") == 1
        await sessions.disconnect()
    assert await outside.list_sessions("ann", include_ended=True) == []


@pytest.mark.parametrize("remember", [True, False])
async def test_a_session_with_lifetimes_of_its_own_idles_to_the_microsecond(
    make_sessions: MakeSessions, clock: Clock, *, remember: bool
) -> None:
    sessions = await make_sessions(
        browser_lifetimes=Lifetimes(idle=timedelta(days=1), absolute=timedelta(days=1))
    )
    for microsecond in (0, 1, 123_000, 999_999):
        clock.now = clock.now.replace(microsecond=microsecond)
        started = await sessions.insert(scope(), {"id": "ann"})
        await run(
            sessions,
            update(sessions.table)
            .where(sessions.table.c.id == started.id)
            .values(idle_seconds=3600, remember=remember),
        )
        clock.turn(timedelta(hours=1) - MICROSECOND)
        (listed,) = await sessions.list_sessions("ann")
        assert listed.live(clock.now), listed
        clock.turn(MICROSECOND)
        assert await sessions.list_sessions("ann") == []
