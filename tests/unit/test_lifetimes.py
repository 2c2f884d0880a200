"""Two clocks end a session, the idle and the absolute one; both exact to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asgi_sessions import AAL1, AAL2, AAL3, BANKING, ConfigurationError, Lifetimes, Sessions
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
TICK = timedelta(microseconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)

#: Short enough to be outlived step by step.
SHORT = Lifetimes(idle=HOUR, absolute=3 * HOUR)


# --- as a value -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("preset", "absolute", "idle"),
    [
        (AAL1, 30 * DAY, 14 * DAY),
        (AAL2, 24 * HOUR, HOUR),
        (AAL3, 12 * HOUR, 15 * MINUTE),
        (BANKING, 12 * HOUR, 10 * MINUTE),
    ],
)
def test_a_preset_has_its_numbers(preset: Lifetimes, absolute: timedelta, idle: timedelta) -> None:
    assert preset == Lifetimes(absolute=absolute, idle=idle)


@pytest.mark.parametrize(
    ("idle", "absolute"),
    [
        (timedelta(0), HOUR),
        (-HOUR, HOUR),
        (HOUR, timedelta(0)),
        (HOUR + TICK, HOUR),
        (-HOUR, -HOUR),
        (HOUR, 400 * DAY + TICK),
        (timedelta.max, timedelta.max),
    ],
)
def test_lifetimes_that_end_nothing_are_refused(idle: timedelta, absolute: timedelta) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Lifetimes(idle=idle, absolute=absolute)
    assert "0 < idle <= absolute <= 400 days" in str(caught.value)
    assert f"idle={idle}, absolute={absolute}" in str(caught.value)


@pytest.mark.parametrize("name", ["idle", "absolute"])
@pytest.mark.parametrize("value", [3600, 3600.0, "1 h", None])
def test_a_duration_is_a_timedelta(name: str, value: object) -> None:
    durations: dict[str, Any] = {"idle": HOUR, "absolute": DAY, name: value}
    with pytest.raises(ConfigurationError) as caught:
        Lifetimes(**durations)
    assert str(caught.value) == f"Lifetimes({name}=...) takes a datetime.timedelta, not {value!r}"


@pytest.mark.parametrize(("idle", "absolute"), [(TICK, TICK), (400 * DAY, 400 * DAY)])
def test_the_shortest_and_the_longest_lifetimes_are_taken(
    idle: timedelta, absolute: timedelta
) -> None:
    assert Lifetimes(idle=idle, absolute=absolute).absolute == absolute


def test_lifetimes_do_not_change() -> None:
    with pytest.raises(AttributeError):
        AAL1.idle = HOUR  # type: ignore[misc]


# --- through the middleware -----------------------------------------------------------------------


@pytest.mark.parametrize("lifetimes", [AAL1, AAL2, AAL3, BANKING, SHORT])
async def test_a_session_is_in_until_it_was_idle_for_so_long(
    make_sessions: MakeSessions, clock: Clock, lifetimes: Lifetimes
) -> None:
    browser = Browser(make_app(await make_sessions(lifetimes=lifetimes)))
    sid = await browser.login("ada")
    clock.turn(lifetimes.idle - TICK)
    assert (await browser.see())["sid"] == sid
    clock.turn(lifetimes.idle)
    seen = await browser.see()
    assert (seen["sid"], seen["reason"]) == (None, "expired")


@pytest.mark.parametrize("early", [TICK, MINUTE])
async def test_a_session_is_in_until_the_moment_it_expires(
    make_sessions: MakeSessions, clock: Clock, early: timedelta
) -> None:
    browser = Browser(make_app(await make_sessions(lifetimes=SHORT)))
    sid = await browser.login("ada")
    for moment in (59 * MINUTE, 118 * MINUTE, 150 * MINUTE, SHORT.absolute - early):
        clock.now = NOON + moment
        assert (await browser.see())["sid"] == sid
    clock.now = NOON + SHORT.absolute
    seen = await browser.see()
    assert (seen["sid"], seen["reason"]) == (None, "expired")


async def test_a_session_of_another_layer_runs_out_as_well(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    browser = Browser(make_app(await make_sessions(lifetimes=SHORT)))
    first = (await browser.see_as("ada"))["sid"]
    clock.turn(SHORT.idle - TICK)
    assert (await browser.see_as("ada"))["sid"] == first
    clock.turn(SHORT.idle)
    assert (await browser.see_as("ada"))["sid"] != first


async def test_activity_extends_the_idle_time_and_never_the_absolute(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(lifetimes=SHORT)
    browser = Browser(make_app(sessions))
    sid = await browser.login("ada")
    clock.turn(30 * MINUTE)
    await browser.see()
    (session,) = await sessions.list_sessions("ada")
    assert session.idle_expires_at == NOON + 30 * MINUTE + SHORT.idle
    assert session.expires_at == NOON + SHORT.absolute
    await browser.post("/renew")
    (session,) = await sessions.list_sessions("ada")
    assert (session.sid, session.expires_at) == (sid, NOON + SHORT.absolute)


@pytest.mark.parametrize("late", [timedelta(0), TICK, 99 * DAY])
async def test_what_has_run_out_ended_at_the_moment_when_it_did(
    make_sessions: MakeSessions, clock: Clock, late: timedelta
) -> None:
    sessions = await make_sessions(lifetimes=SHORT)
    browser = Browser(make_app(sessions))
    sid = await browser.login("ada")
    clock.turn(SHORT.idle + late)
    await browser.see()
    ended = await sessions.end_session_by_id(sid, reason="too late")
    assert ended is not None
    assert (ended.ended_at, ended.end_reason) == (NOON + SHORT.idle, "expired")


# --- touches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("interval", [MINUTE, timedelta(seconds=1), 30 * MINUTE])
async def test_a_use_is_noted_once_per_touch_interval(
    make_sessions: MakeSessions, clock: Clock, interval: timedelta
) -> None:
    sessions = await make_sessions(lifetimes=SHORT, touch_interval=interval)
    browser = Browser(make_app(sessions))
    await browser.login("ada")

    async def last_seen() -> datetime:
        await browser.see()
        (session,) = await sessions.list_sessions("ada")
        return session.last_seen_at

    clock.turn(interval - TICK)
    assert await last_seen() == NOON
    clock.turn(TICK)
    assert await last_seen() == NOON + interval
    clock.turn(interval - TICK)
    assert await last_seen() == NOON + interval
    clock.turn(TICK)
    assert await last_seen() == NOON + 2 * interval


async def test_a_touch_interval_of_zero_notes_every_use(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(touch_interval=timedelta(0))
    browser = Browser(make_app(sessions))
    await browser.login("ada")
    clock.turn(TICK)
    await browser.see()
    (session,) = await sessions.list_sessions("ada")
    assert session.last_seen_at == NOON + TICK


async def test_a_clock_that_runs_back_takes_no_use_back(sessions: Sessions, clock: Clock) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ada")
    clock.turn(HOUR)
    await browser.see()
    clock.turn(-HOUR)
    assert (await browser.see())["sid"] == sid
    (session,) = await sessions.list_sessions("ada")
    assert session.last_seen_at == NOON + HOUR


# --- one predicate --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("moment", "lives"),
    [
        (NOON - DAY, True),
        (NOON, True),
        (NOON + HOUR - TICK, True),
        (NOON + HOUR, False),
        (NOON + HOUR + TICK, False),
        (NOON + DAY, False),
    ],
)
async def test_python_and_sql_agree_on_who_is_idle(
    make_sessions: MakeSessions, clock: Clock, moment: datetime, lives: bool
) -> None:
    sessions = await make_sessions(lifetimes=SHORT)
    session = await sessions.insert({"type": "http", "headers": []}, "ada")
    clock.now = moment
    assert session.live(moment) is lives
    listed = await sessions.list_sessions("ada")
    assert [one.sid for one in listed] == [session.sid] * lives


@pytest.mark.parametrize("early", [-TICK, timedelta(0), TICK])
async def test_python_and_sql_agree_on_what_has_expired(
    make_sessions: MakeSessions, clock: Clock, early: timedelta
) -> None:
    equal = Lifetimes(idle=HOUR, absolute=HOUR)  # a touch puts the idle end after the absolute
    sessions = await make_sessions(lifetimes=equal)
    browser = Browser(make_app(sessions))
    await browser.login("ada")
    clock.turn(30 * MINUTE)
    await browser.see()
    (session,) = await sessions.list_sessions("ada")
    assert session.idle_expires_at > session.expires_at
    clock.now = session.expires_at - early
    assert session.live(clock.now) is (early > timedelta(0))
    assert bool(await sessions.list_sessions("ada")) is (early > timedelta(0))


async def test_python_and_sql_agree_that_what_was_ended_is_dead(
    sessions: Sessions, clock: Clock
) -> None:
    session = await sessions.insert({"type": "http", "headers": []}, "ada")
    ended = await sessions.end_session_by_id(session.sid)
    assert ended is not None
    assert ended.live(clock.now) is False
    assert ended.live(clock.now - DAY) is False
    assert await sessions.list_sessions("ada") == []
