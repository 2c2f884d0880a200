"""Many rows of one person: they end in batches, and nobody else waits for it.

The batches and their pace are private, and what is tested here is that nobody notices them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection

from asgi_sessions import ALL_APPS, SessionEvent, Sessions, SessionsUnavailable
from asgi_sessions._cli.operator import Operator
from asgi_sessions._model.row import Row
from asgi_sessions._store import bulk_ending
from asgi_sessions._store.connection import RowConnection
from asgi_sessions._store.ending import Ends
from asgi_sessions._store.maintenance import SMALLEST_END, Pace
from asgi_sessions._store.starting import ROOM
from asgi_sessions._store.store import Touch
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Clock, make_app
from tests.support.engines import EngineURL, kind, sync_engine
from tests.support.inside import driver_of, settled
from tests.support.rows import MANY, fill

SCOPE: dict[str, Any] = {"type": "http", "headers": [], "client": ("192.0.2.1", 1)}


@pytest.fixture
def others(database_url: str) -> Iterator[Connection]:
    """Somebody else's connection."""
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        yield connection


async def live(sessions: Sessions, person: str = "ann") -> list[str]:
    found = await sessions.list_sessions(person, app_id=ALL_APPS, limit=100)
    return [session.sid for session in found]


async def start(sessions: Sessions, person: str = "ann") -> str:
    return (await sessions.insert(SCOPE, person)).sid


class Watch:
    """What goes to the database, and how many rows come back."""

    def __init__(self, sessions: Sessions) -> None:
        self.params = self.read = 0
        driver = driver_of(sessions)
        self._fetch, self._execute = driver.fetch, driver.execute
        setattr(driver, "fetch", self.fetch)  # noqa: B010 -- a method, for mypy
        setattr(driver, "execute", self.execute)  # noqa: B010 -- as above

    async def fetch(self, raw: object, sql: str, params: Sequence[Any]) -> Sequence[Any]:
        self.params = max(self.params, len(params))
        rows = await self._fetch(raw, sql, params)
        asks = sql.startswith("SELECT") and "ORDER BY" in sql and "FOR UPDATE" not in sql
        if asks and "_cutoffs" not in sql:
            self.read += len(rows)
        return rows

    async def execute(self, raw: object, sql: str, params: Sequence[Any]) -> int:
        self.params = max(self.params, len(params))
        return await self._execute(raw, sql, params)


# --- all of them ----------------------------------------------------------------------------------


async def test_each_of_many_sessions_ends_and_is_told_of_once(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    events: list[SessionEvent] = []
    sessions = await make_sessions(on_event=events.append)
    sids = fill(others, sessions.table, clock)
    theirs = await start(sessions, "bob")
    watch = Watch(sessions)
    assert await sessions.end_all_sessions("ann") == MANY
    # Each was looked for once, and no statement was as long as there are rows.
    assert watch.read == MANY
    assert watch.params <= bulk_ending._BATCH + 10
    assert await live(sessions) == []
    assert await live(sessions, "bob") == [theirs]
    ended = [event.session for event in events if event.kind == "ended"]
    assert sorted(session.sid for session in ended) == sorted(sids)
    assert {(one.end_reason, one.ended_at) for one in ended} == {("revoked", clock.now)}
    assert await sessions.end_all_sessions("ann") == 0


async def test_of_many_sessions_one_is_spared_in_whichever_batch_it_is(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    sessions = await make_sessions()
    sids = fill(others, sessions.table, clock)
    for spared in (sids[0], sids[SMALLEST_END], sids[-1]):
        others.execute(sessions.table.update().values(ended_at=None))
        assert await sessions.end_all_sessions("ann", except_sid=spared) == MANY - 1
        assert await live(sessions) == [spared]
    assert await sessions.end_all_sessions("ann", except_sid=sids[-1]) == 0


async def test_many_sessions_end_in_each_app_of_a_person(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    sessions = await make_sessions()
    for number, app in enumerate(("default", "mail", "a calendar")):
        fill(
            others,
            sessions.table,
            clock,
            app=app,
            prefix=f"019{number}",
            count=SMALLEST_END + number,
        )
    assert await sessions.end_all_sessions("ann", app_id="mail") == SMALLEST_END + 1
    assert await sessions.end_all_sessions("ann", app_id=ALL_APPS) == 2 * SMALLEST_END + 2
    assert await sessions.end_all_sessions("nobody", app_id=ALL_APPS) == 0
    assert await live(sessions) == []


async def test_a_session_that_starts_while_many_end_lives(
    make_sessions: MakeSessions, others: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = await make_sessions()
    fill(others, sessions.table, clock)
    started: list[str] = []

    async def rest(_: Pace, __: float) -> None:
        started.append(await start(sessions))

    monkeypatch.setattr(Pace, "rest", rest)
    assert await sessions.end_all_sessions("ann") == MANY
    assert len(started) == 3
    assert sorted(await live(sessions)) == sorted(started)


async def test_what_ends_meanwhile_is_not_counted(
    make_sessions: MakeSessions, others: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was read before: another process has been faster."""
    sessions, faster = await make_sessions(), await make_sessions()
    fill(others, sessions.table, clock, count=SMALLEST_END)
    end_these = Ends.end_these
    counts: list[int] = []

    async def late(self: Ends, access: RowConnection, sids: Sequence[str], **how: Any) -> list[Row]:
        monkeypatch.setattr(Ends, "end_these", end_these)
        counts.append(await faster.end_all_sessions("ann"))
        return await end_these(self, access, sids, **how)

    monkeypatch.setattr(Ends, "end_these", late)
    assert await sessions.end_all_sessions("ann") == 0
    assert counts == [SMALLEST_END]


async def test_an_end_goes_on_when_nobody_waits_for_it_any_more(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    events: list[SessionEvent] = []
    begun = asyncio.Event()

    def note(event: SessionEvent) -> None:
        events.append(event)
        begun.set()

    sessions = await make_sessions(on_event=note)
    fill(others, sessions.table, clock)
    request = asyncio.create_task(sessions.end_all_sessions("ann"))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert len(events) < MANY
    await settled(sessions)
    assert len(events) == MANY
    assert await live(sessions) == []


@pytest.fixture
def plain_others(plain: Sessions) -> Iterator[Connection]:
    engine = sync_engine(str(plain.database.url))
    with engine.connect() as connection:
        yield connection


async def test_an_end_that_fails_when_nobody_waits_for_it_is_logged(
    plain: Sessions,
    plain_others: Connection,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(plain_others, plain.table, clock)
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def rest(_: Pace, __: float) -> None:
        begun.set()
        await go_on.wait()
        raise SessionsUnavailable("gone")

    monkeypatch.setattr(Pace, "rest", rest)
    go_on.set()
    with pytest.raises(SessionsUnavailable):
        await plain.end_all_sessions("ann")
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    begun.clear()
    go_on.clear()
    request = asyncio.create_task(plain.end_all_sessions("ann"))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    go_on.set()
    await settled(plain)
    assert [
        record.getMessage() for record in caplog.records if record.levelno == logging.ERROR
    ] == ["work beside a request failed"]


async def test_many_sessions_may_take_longer_to_end_than_one_statement(
    plain: Sessions, plain_others: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(plain_others, plain.table, clock)
    end_these = Ends.end_these

    async def slow(self: Ends, access: RowConnection, sids: Sequence[str], **how: Any) -> list[Row]:
        await asyncio.sleep(0.7)
        return await end_these(self, access, sids, **how)

    monkeypatch.setattr(Ends, "end_these", slow)
    url, timeout = str(plain.database.url), timedelta(seconds=2)
    async with Sessions(url, secret_key=KEY, clock=clock, timeout=timeout) as sessions:
        assert await sessions.end_all_sessions("ann") == MANY


async def test_other_work_goes_on_while_many_ends_are_told_of(
    plain: Sessions, plain_others: Connection, clock: Clock
) -> None:
    fill(plain_others, plain.table, clock)
    told: list[int] = [0]
    begun = asyncio.Event()

    def note(event: object) -> None:
        told[-1] += 1
        begun.set()

    plain._core.events._handler = note
    request = asyncio.create_task(plain.end_all_sessions("ann"))
    await begun.wait()
    while not request.done():
        told.append(0)
        await asyncio.sleep(0)
    assert sum(told) == MANY
    assert max(told) <= 32


# --- the pace -------------------------------------------------------------------------------------


async def test_a_batch_that_took_long_is_followed_by_a_smaller_one() -> None:
    pace = Pace(most=512, aim=0.01, least=128)
    sizes = []
    for took in (0.001, 0.001, 0.001, 0.02, 0.02, 0.02, 0.001):
        sizes.append(pace.size)
        pace.follow(took)
    assert [*sizes, pace.size] == [128, 256, 512, 512, 256, 128, 128, 256]
    assert Pace(most=7, aim=1).size == Pace(most=7, aim=1, least=128).size == 7
    short = Pace(most=512, aim=1)
    with short.measured():
        await asyncio.sleep(0.03)
    began = time.monotonic()
    await short.rest(0)
    assert time.monotonic() - began < 0.03
    assert short.size == 128


async def test_an_operator_ends_more_at_a_time_where_that_is_fast(
    plain: Sessions, plain_others: Connection, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(plain_others, plain.table, clock, count=1000)
    monkeypatch.setattr(driver_of(plain), "batch", 60)
    told: list[int] = []
    assert await Operator(plain, pause=0).end_all(None, 400, told.append) == 1000
    assert max(told) == 400
    monkeypatch.setattr(driver_of(plain), "batch", 0)
    plain_others.execute(plain.table.update().values(ended_at=None))
    told.clear()
    assert await Operator(plain, pause=0).end_all("default", 400, told.append) == 1000
    assert max(told) == SMALLEST_END


# --- the cap --------------------------------------------------------------------------------------


async def test_a_login_ends_what_is_far_over_the_cap(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    events: list[SessionEvent] = []
    sessions = await make_sessions(max_sessions_per_person=3, on_event=events.append)
    sids = fill(others, sessions.table, clock)
    fill(others, sessions.table, clock, app="mail", count=5, prefix="0192")
    watch = Watch(sessions)
    sid = await start(sessions)
    ended = [event.session for event in events if event.kind == "ended"]
    assert sorted(session.sid for session in ended) == sorted(sids[2:])
    assert {session.end_reason for session in ended} == {"limit"}
    assert watch.params <= bulk_ending._BATCH + 10
    live_here = await sessions.list_sessions("ann")
    assert [session.sid for session in live_here] == [sid, *sids[:2]]
    assert len(await sessions.list_sessions("ann", app_id="mail")) == 5
    watch.read = 0
    await start(sessions)
    assert watch.read < ROOM


async def test_a_first_request_ends_nothing_however_far_over_the_cap_the_logins_are(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    sessions = await make_sessions(max_sessions_per_person=1)
    fill(others, sessions.table, clock)
    async with Browser(make_app(sessions)) as browser:
        assert (await browser.see_as("ann"))["sid"] is not None
    assert len(await sessions.list_sessions("ann", limit=1000)) == MANY + 1


async def test_a_login_far_over_the_cap_leaves_what_another_layer_vouches_for(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    sessions = await make_sessions(max_sessions_per_person=1)
    async with Browser(make_app(sessions)) as browser:
        vouched = (await browser.see_as("ann"))["sid"]
    fill(others, sessions.table, clock)
    clock.turn(timedelta(seconds=1))
    sid = await start(sessions)
    assert sorted(await live(sessions)) == sorted([sid, vouched])


async def test_a_new_session_stays_though_many_were_seen_later(
    make_sessions: MakeSessions, others: Connection, clock: Clock
) -> None:
    """The clock of the process where it starts is slow."""
    sessions = await make_sessions(max_sessions_per_person=2)
    sids = fill(others, sessions.table, clock)
    clock.turn(-timedelta(minutes=30))
    sid = await start(sessions)
    assert sorted(await live(sessions)) == sorted([sid, sids[0]])


# --- uses -----------------------------------------------------------------------------------------


async def test_a_row_that_somebody_has_locked_holds_up_no_login_and_no_use_of_another(
    make_sessions: MakeSessions, others: Connection, clock: Clock, database_url: str
) -> None:
    if kind(database_url) == "sqlite":
        pytest.skip("one transaction writes at a time")
    sessions = await make_sessions(timeout=timedelta(seconds=2))
    fill(others, sessions.table, clock, "many")  # MariaDB would read a handful whole, and lock it
    locked, free = await start(sessions), await start(sessions, "bob")
    row = await sessions._core.store.by_sid(locked)
    assert row is not None
    clock.turn(timedelta(minutes=5))
    touch = sessions._core.store.touch
    others.exec_driver_sql("BEGIN")
    table = sessions.table.name
    others.exec_driver_sql(f"SELECT id FROM {table} WHERE id = '{locked}' FOR UPDATE")  # noqa: S608 -- a test's
    began = time.monotonic()
    uses = [touch(Touch(locked, clock.now, row.secret_hash)), touch(Touch(free, clock.now, None))]
    await asyncio.gather(*uses, start(sessions, "cy"))
    assert time.monotonic() - began < 1
    others.exec_driver_sql("ROLLBACK")
    seen = [await sessions.get_by_id(sid) for sid in (locked, free)]
    assert [one and clock.now - one.last_seen_at for one in seen] == [
        timedelta(minutes=5),
        timedelta(0),
    ]
    await touch(Touch(locked, clock.now, row.secret_hash))
    row = await sessions._core.store.by_sid(locked)
    assert row is not None
    assert row.last_seen_at == row.secret_seen_at == clock.now


async def test_a_login_does_not_wait_for_a_use_that_the_database_does_not_answer(
    sessions: Sessions, database_url: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    if kind(database_url) == "sqlite":
        pytest.skip("one transaction writes at a time")
    sid, go_on = await start(sessions), asyncio.Event()
    change = RowConnection.change_unlocked

    async def slow(self: RowConnection, *args: Any, **how: Any) -> None:
        await go_on.wait()
        await change(self, *args, **how)

    monkeypatch.setattr(RowConnection, "change_unlocked", slow)
    use = sessions._core.store.touch(Touch(sid, clock.now, None))
    await asyncio.wait_for(start(sessions, "bob"), 2)
    assert not use.done()
    go_on.set()
    await use


class TooOld(Exception):
    """A server's that knows no SKIP LOCKED."""


async def test_a_server_that_leaves_out_no_locked_rows_is_asked_once(
    sessions: Sessions, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sid = await start(sessions)
    driver = driver_of(sessions)
    execute, asked = driver.execute, 0

    async def old(raw: object, sql: str, params: Sequence[Any]) -> int:
        nonlocal asked
        if "SKIP LOCKED" in sql or "IN (SELECT" in sql:  # the latter on SQLite, which has no locks
            asked += 1
            raise TooOld
        return await execute(raw, sql, params)

    monkeypatch.setattr(driver, "execute", old)
    monkeypatch.setattr(driver, "skips", True)
    monkeypatch.setattr(driver, "unknown", lambda fault: isinstance(fault, TooOld))
    for _ in range(2):
        clock.turn(timedelta(minutes=5))
        await sessions._core.store.touch(Touch(sid, clock.now, None))
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert session.last_seen_at == clock.now
    assert asked == 1
    monkeypatch.setattr(driver, "skips", True)
    monkeypatch.setattr(driver, "unknown", lambda _: False)
    with pytest.raises(SessionsUnavailable):
        await sessions._core.store.touch(Touch(sid, clock.now, None))


# --- connections ----------------------------------------------------------------------------------


async def test_ends_of_many_rows_hold_a_connection_while_they_last(
    make_sessions: MakeSessions, others: Connection, clock: Clock, database_url: str
) -> None:
    sessions = await make_sessions()
    fill(others, sessions.table, clock)
    sid = await start(sessions)
    await sessions._core.store.touch(Touch(sid, clock.now, None))
    await sessions.get_by_id(sid)
    await live(sessions)
    link = sessions._core.store.engines.here

    def held() -> int:
        return sum(batcher._held is not None for batcher in link._batchers)

    by_engine = isinstance(database_url, EngineURL)
    at_rest = 3 if kind(database_url) == "sqlite" or by_engine else 4
    assert held() == at_rest
    seen: set[object] = set()
    end = asyncio.create_task(sessions.end_all_sessions("ann"))
    while not end.done():
        await asyncio.sleep(0)
        seen.add(link.bulk._held)
    assert await end == MANY + 1
    await asyncio.sleep(0.1)
    assert held() == at_rest
    if kind(database_url) != "sqlite":
        assert len(seen - {None}) == 1
        if not by_engine:
            assert sessions.database.options["max_size"] >= 6
