"""What operators do to all sessions: on each database what asks it in a way of its own.

The operator is private: the command `asgi-sessions` is how to reach it, which is tested by itself.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from asgi_sessions import AAL1, Lifetimes, SessionEvent, Sessions
from asgi_sessions._cli import operator as _operator_module
from asgi_sessions._cli.operator import LONGEST_SPAN, SHORTEST_SPAN, Due, Operator
from asgi_sessions._store import ending as _ends_module
from tests.conftest import MakeSessions
from tests.support import KEY, Clock

DAY, HOUR, TICK = timedelta(days=1), timedelta(hours=1), timedelta(microseconds=1)


async def start(sessions: Sessions, person: str = "ann", app: str = "default") -> str:
    scope: dict[str, Any] = {"type": "http", "headers": [], "client": ("192.0.2.1", 1)}
    return (await sessions.insert(scope, {"id": person, "app_id": app})).id


async def left(sessions: Sessions, *sids: str) -> list[str]:
    return [sid for sid in sids if await sessions.get_by_id(sid) is not None]


# --- purge ----------------------------------------------------------------------------------------


async def test_a_dry_run_counts_what_the_purge_then_does(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(
        lifetimes=Lifetimes(absolute=10 * DAY, idle=2 * DAY), keep_ended=90 * DAY
    )
    idle_before = await start(sessions)
    clock.turn(TICK)
    idle_since = await start(sessions)
    clock.turn(DAY)
    ended_before, ended_since = await start(sessions), await start(sessions)
    clock.turn(DAY - TICK)
    await sessions.end_session_by_id(ended_before)
    clock.turn(TICK)  # what has ended now is kept in 90 days, for the last time
    await sessions.end_session_by_id(ended_since)
    clock.turn(85 * DAY)
    merely_idle = [await start(sessions) for _ in range(3)]
    clock.turn(5 * DAY)

    told: list[int] = []
    due = await Operator(sessions, pause=0).due()
    assert due == Due(mark=2, remove=2)
    assert await Operator(sessions, pause=0).purge(2, told.append) == due
    assert sum(told) == 4
    both = (idle_before, ended_before, idle_since, ended_since)
    assert await left(sessions, *both) == [idle_since, ended_since]
    assert await left(sessions, *merely_idle) == merely_idle

    clock.turn(TICK)
    assert await Operator(sessions, pause=0).due() == Due(mark=0, remove=2)
    clock.turn(90 * DAY)
    due = await Operator(sessions, pause=0).due()
    assert due == Due(mark=3, remove=5)
    assert await Operator(sessions, pause=0).purge(1000, told.append) == due


async def test_what_is_over_is_marked_with_the_moment_at_which_each_was(
    make_sessions: MakeSessions, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ends_module, "AT_ONCE", 4)
    sessions = await make_sessions()
    began = clock.now
    sids = []
    for n in range(11):
        clock.now = began + n * HOUR
        sids.append(await start(sessions))
    revoked = await start(sessions)
    clock.now = began + 31 * DAY
    await sessions.end_session_by_id(revoked)
    told: list[int] = []
    await Operator(sessions, pause=0).purge(7, told.append)
    assert told == [7, 4 + 0]
    for n, sid in enumerate(sids):
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert (session.ended_at, session.end_reason) == (began + n * HOUR + AAL1.idle, "expired")


async def test_an_empty_table_has_nothing_to_be_purged_ended_or_counted(plain: Sessions) -> None:
    operator = Operator(plain, pause=0)
    assert await operator.due() == await operator.purge(10, print) == Due(0, 0)
    assert await operator.end_all(None, 10, print) == 0
    stats = await operator.stats(2)
    assert (stats.live.total(), stats.ended.total()) == (0, 0)
    assert list(stats.started.values()) == [0, 0]


# --- ends -----------------------------------------------------------------------------------------


async def test_all_sessions_of_an_app_end_in_batches_and_are_told_of(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    events: list[SessionEvent] = []
    sessions = await make_sessions(on_event=events.append)
    mine, others = [], []
    for n in range(9):
        if n % 4 == 3:
            clock.turn(DAY)  # else at the same moment
        mine.append(await start(sessions, f"p{n}", "mail"))
        others.append(await start(sessions, f"p{n}", "wiki"))
    await sessions.end_session_by_id(mine[0], reason="left")
    events.clear()

    told: list[int] = []
    assert await Operator(sessions, pause=0).end_all("mail", 2, told.append) == 8
    assert sum(told) == 8
    assert max(told) == 2
    assert {event.session.id for event in events} == set(mine[1:])
    ended = [await sessions.get_by_id(sid) for sid in mine]
    assert [session and session.end_reason for session in ended] == ["left", *["revoked"] * 8]
    assert all([(s := await sessions.get_by_id(sid)) and s.live(clock.now) for sid in others])

    assert await Operator(sessions, pause=0).end_all(None, 10, told.append) == 9
    assert await Operator(sessions, pause=0).end_all(None, 10, told.append) == 0


async def test_sessions_that_start_meanwhile_stay(plain: Sessions, clock: Clock) -> None:
    old = [await start(plain) for _ in range(3)]
    new: list[str] = []

    tasks: list[asyncio.Task[None]] = []

    async def log_in_again() -> None:
        new.append(await start(plain))

    def told(count: int) -> None:
        if count:
            clock.turn(timedelta(seconds=1))
            tasks.append(asyncio.create_task(log_in_again()))

    assert await Operator(plain, pause=0).end_all(None, 1, told) == 3
    await asyncio.gather(*tasks)
    assert await left(plain, *new) == new
    assert {session.id for session in await plain.list_sessions("ann")} == set(new)
    assert len(new) == len(old)


# --- stats ----------------------------------------------------------------------------------------


async def test_counts_are_by_app_by_reason_and_by_day(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(lifetimes=Lifetimes(absolute=30 * DAY, idle=DAY))
    midnight = datetime(2026, 1, 5, tzinfo=UTC)
    clock.now = midnight - TICK * 1000  # sids have milliseconds and a part of one
    for reason in ("logout", "limit"):
        await sessions.end_session_by_id(await start(sessions), reason=reason)
    clock.now = midnight
    for reason in ("logout", "logout", "revoked"):
        await sessions.end_session_by_id(await start(sessions), reason=reason)
    await start(sessions, "idle")
    clock.now = midnight + 1.5 * DAY
    await start(sessions, "ann", "mail")
    await start(sessions, "bob", "mail")
    await start(sessions, "ann", "wiki")

    operator = Operator(sessions, pause=0)
    stats = await operator.stats(2)
    assert stats.live == {"mail": 2, "wiki": 1}
    assert stats.ended == {"logout": 2, "revoked": 1}
    assert stats.started == {date(2026, 1, 5): 4, date(2026, 1, 6): 3}
    assert 0 < operator.longest <= operator.busy
    assert operator.steps >= 4
    stats = await Operator(sessions, pause=0).stats(3)
    assert stats.ended == {"logout": 3, "revoked": 1, "limit": 1}
    assert stats.started[date(2026, 1, 4)] == 2


# --- in short steps -------------------------------------------------------------------------------


async def test_each_step_is_followed_by_a_rest_as_long_as_it_took_times_the_pause(
    plain: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([0.0, 0.25, 1.0, 3.0, 4.0, 4.5])
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr(_operator_module, "perf_counter", lambda: next(times))
    operator = Operator(plain, pause=1.5)
    with monkeypatch.context() as patched:
        patched.setattr(_operator_module, "sleep", rest)
        await operator.purge(10, print)
    assert rests == [0.375, 3.0, 0.75]
    assert (operator.steps, operator.busy, operator.longest) == (3, 2.75, 2.0)


def test_slices_grow_while_they_are_quick_and_shrink_while_they_are_slow(
    tmp_path: Path, clock: Clock
) -> None:
    operator = Operator(Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, clock=clock))
    since, until = clock.now, clock.now + 4 * DAY
    lengths, at = [], since
    for start_, end in operator._spans(since, until):
        assert start_ == at
        at = end
        lengths.append(end - start_)
        operator._last = 0.0 if len(lengths) < 12 else 1.0
    assert at == until
    assert lengths[:4] == [SHORTEST_SPAN, 2 * SHORTEST_SPAN, 4 * SHORTEST_SPAN, 8 * SHORTEST_SPAN]
    assert max(lengths) == LONGEST_SPAN
    assert lengths[-2] == SHORTEST_SPAN


def test_slices_end_with_the_day_where_days_are_counted(tmp_path: Path, clock: Clock) -> None:
    operator = Operator(Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, clock=clock))
    midnight = datetime(2026, 1, 1, tzinfo=UTC)
    spans = list(operator._spans(midnight, midnight + 9 * DAY, by_day=True))
    assert all((end - TICK).date() == start_.date() for start_, end in spans)
    assert len(spans) == 8 + 8 * 4
