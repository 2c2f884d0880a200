"""The check of all that is open: when it runs, what it asks, and what a fault of it does.

Its timer and its state have no public name. That it closes what has ended is tested from outside,
in tests/behaviour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from asgi_sessions import Sessions, SessionsUnavailable
from tests.conftest import MakeSessions
from tests.support import KEY, Clock
from tests.support.asgi import SECONDS, http, log_in, until
from tests.support.inside import check_what_is_open, driver_of, opened, store_of


@pytest.fixture
def sessions(plain: Sessions) -> Sessions:
    """On SQLite alone: no database is asked differently."""
    return plain


async def test_one_select_asks_for_all_that_is_open_and_none_for_nothing(
    make_sessions: MakeSessions,
) -> None:
    here, there = await make_sessions(), await make_sessions()
    told: list[str] = []
    people = [f"person-{number}" for number in range(300)]
    started = await asyncio.gather(*(there.insert(http(), person) for person in people))
    leaves = [
        opened(here, session.id, partial(told.append, session.id))
        for session in started
        for _ in range(2)
    ]
    last = started[-1]
    asked = statements(here)
    await check_what_is_open(here)
    assert len(asked) == 1
    await there.end_session_by_id(last.id)
    await check_what_is_open(here)
    await asyncio.sleep(0)
    assert told == [last.id] * 2
    assert len(asked) == 2
    for leave in leaves:
        leave()
        leave()  # once more harms nobody
    await check_what_is_open(here)
    assert len(asked) == 2


def statements(sessions: Sessions) -> list[str]:
    """The SQL that is run from now on, in the running loop."""
    driver = driver_of(sessions)
    fetch, seen = driver.fetch, []

    async def noting(raw: object, sql: str, params: Sequence[Any]) -> Any:
        seen.append(sql)
        return await fetch(raw, sql, params)

    driver.fetch = noting  # type: ignore[method-assign]
    return seen


async def test_more_than_a_statement_takes_are_asked_about_in_several(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asgi_sessions._store.store._SIDS_AT_A_TIME", 4)
    sids = [(await sessions.insert(http(), "ann")).id for _ in range(9)]
    asked = statements(sessions)
    dead = sorted([sids[4], sids[8]])
    for sid in dead:
        await sessions.end_session_by_id(sid)
    asked.clear()
    living = await sessions._core._living(sids)
    assert sorted(sid for sid in sids if sid not in living) == dead
    assert len(asked) == 3


async def test_nothing_is_asked_once_everything_is_closed(tmp_path: Path, clock: Clock) -> None:
    options: dict[str, Any] = {"secret_key": KEY, "clock": clock}
    interval = timedelta(milliseconds=1)
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Sessions(url, socket_check_interval=interval, **options) as sessions:
        await sessions.create_tables()
        sid, _ = await log_in(sessions)
        asked = statements(sessions)
        leave = opened(sessions, sid, lambda: None)
        await until(lambda: len(asked) >= 2)
        leave()
        await until(lambda: not sessions._core.live_connections._loops)
        count = len(asked)
        await asyncio.sleep(0.01)  # ten times the interval
        assert len(asked) == count


async def test_a_fault_of_the_check_is_told_once_and_it_goes_on(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sid, _ = await log_in(sessions)
    ended = asyncio.Event()
    leave = opened(sessions, sid, ended.set)
    sessions._core.live_connections._interval = 0.001
    (here,) = sessions._core.live_connections._loops.values()
    sessions._core.live_connections._look(here)
    faults = iter([SessionsUnavailable("no database"), RuntimeError("no clock"), OSError("gone")])

    async def gone(*arguments: object, **more: object) -> dict[str, bytes]:
        for fault in faults:
            raise fault
        return {}

    monkeypatch.setattr(store_of(sessions), "living", gone)
    async with asyncio.timeout(SECONDS):
        await ended.wait()
    assert caplog.text.count("could not be checked") == 1
    leave()


async def test_what_was_not_heard_during_a_check_is_looked_up_after_it(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sid, _ = await log_in(sessions)
    checks, free = 0, asyncio.Event()

    async def living(sids: Sequence[str], **more: object) -> dict[str, bytes]:
        nonlocal checks
        checks += 1
        await free.wait()
        return dict.fromkeys(sids, b"")

    monkeypatch.setattr(store_of(sessions), "living", living)
    leave = opened(sessions, sid, lambda: None)
    (here,) = sessions._core.live_connections._loops.values()
    sessions._core.live_connections._look(here)
    await until(lambda: checks == 1)
    sessions._core.live_connections._look(here)  # listening has begun in the middle of it
    free.set()
    async with asyncio.timeout(2):  # and not in five seconds
        await until(lambda: checks == 2)
    leave()


async def test_disconnecting_stops_the_check_and_the_next_that_opens_starts_it(
    sessions: Sessions,
) -> None:
    sid, _ = await log_in(sessions)
    first = opened(sessions, sid, lambda: None)
    (here,) = sessions._core.live_connections._loops.values()

    def goes_on() -> tuple[bool, bool]:
        return here.timer is not None, here.check is not None

    assert goes_on() == (True, False)
    await sessions.disconnect()
    assert goes_on() == (False, False)
    second = opened(sessions, sid, lambda: None)
    assert goes_on() == (True, False)
    sessions._core.live_connections._look(here)
    assert goes_on() == (False, True)
    await sessions.disconnect()  # in the middle of a check
    assert goes_on() == (False, False)
    first()
    second()
