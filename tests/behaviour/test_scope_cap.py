"""The bound on sessions that the middleware starts: devices beyond it share one."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from asgi_sessions import Sessions
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app, set_cookies, vouched


async def flood(sessions: Sessions, agents: int, person: str = "ann") -> list[str]:
    """The sids that so many devices get which come at once."""
    app = make_app(sessions)
    devices = [Browser(app, agent=f"agent {number}") for number in range(agents)]
    seen = await asyncio.gather(*(device.see_as(person) for device in devices))
    return [one["sid"] for one in seen]


async def test_a_token_with_500_user_agents_makes_51_rows(sessions: Sessions) -> None:
    sids = await flood(sessions, 500)
    assert None not in sids
    listed = await sessions.list_sessions("ann", limit=1000, include_ended=True)
    assert {session.sid for session in listed} == set(sids)
    assert len(listed) == 51
    (shared,) = [session for session in listed if session.user_agent == "Other devices"]
    assert shared.ip_address is None
    assert sids.count(shared.sid) == 450


async def test_no_login_is_counted_or_ended(make_sessions: MakeSessions, clock: Clock) -> None:
    sessions = await make_sessions(max_sessions_per_person=2, max_scope_sessions=3)
    browsers = [Browser(make_app(sessions)) for _ in range(2)]
    mine = []
    for browser in browsers:
        mine.append(await browser.login("ann"))
        clock.turn(timedelta(seconds=1))
    assert len(set(await flood(sessions, 20))) == 4
    assert [(await browser.see())["sid"] for browser in browsers] == mine
    third = await Browser(make_app(sessions)).login("ann")
    live = {session.sid for session in await sessions.list_sessions("ann")}
    assert len(live) == 6
    assert {mine[1], third} < live
    assert len(set(await flood(sessions, 2, "bob"))) == 2  # each person has their own


async def test_other_devices_end_together(make_sessions: MakeSessions, clock: Clock) -> None:
    sessions = await make_sessions(max_scope_sessions=1)
    app = make_app(sessions)
    first, second, third = (Browser(app, agent=f"agent {number}") for number in range(3))
    own = (await first.see_as("ann"))["sid"]
    response = await second.get("/", headers=vouched("ann"))
    shared = response.json()["sid"]
    assert not set_cookies(response)  # it would be good on each of the devices
    assert (await third.see_as("ann"))["sid"] == shared != own
    assert (await sessions.get(third_scope(third))) is not None
    await sessions.end_session_by_id(shared)
    clock.turn(timedelta(seconds=1))
    for device in (second, third):
        assert not (await device.see_as("ann"))["user"]
    assert (await first.see_as("ann"))["sid"] == own
    again = (await second.see_as("ann", iat=clock.now.timestamp()))["sid"]
    assert again not in (None, shared, own)


def third_scope(browser: Browser) -> dict[str, object]:
    """The scope of a request of this device."""
    agent = browser.headers["user-agent"].encode()
    return {
        "type": "http",
        "headers": [(b"user-agent", agent)],
        "client": ("192.0.2.1", 4711),
        "state": {"person": {"id": "ann"}},
    }


async def test_first_requests_of_one_device_beyond_the_bound_share_one_that_is_there(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(max_scope_sessions=1)
    app = make_app(sessions)
    await Browser(app, agent="the first").see_as("ann")
    same = [Browser(app, agent="another") for _ in range(6)]
    sids = {one["sid"] for one in await asyncio.gather(*(each.see_as("ann") for each in same))}
    (sid,) = sids
    assert sid in {session.sid for session in await sessions.list_sessions("ann")}


async def test_what_devices_share_that_has_run_out_makes_room(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(max_scope_sessions=1)
    first = await flood(sessions, 3)
    clock.turn(timedelta(days=31))
    second = await flood(sessions, 3)
    assert len(set(first)) == len(set(second)) == 2
    assert not set(first) & set(second)


async def test_there_may_be_any_number(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(max_scope_sessions=None)
    assert len(set(await flood(sessions, 60))) == 60
