"""Which devices are new to their people: by what the table knows of them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from asgi_sessions import Incident, SessionEvent
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app

pytestmark = pytest.mark.anyio

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
YEAR = timedelta(days=365)

Told = list[SessionEvent | Incident]


def chrome(version: int) -> str:
    return f"{WINDOWS} Chrome/{version}.0.0.0 Safari/537.36"


def news(told: Told) -> list[bool]:
    """Whether each session that has started was on a new device; what was told is forgotten."""
    events = [event for event in told if isinstance(event, SessionEvent)]
    told.clear()
    return [event.new_device for event in events if event.kind == "started"]


async def visit(browser: Browser, person: str = "ann") -> None:
    """A login and a logout, after which the browser has no cookie of a session."""
    await browser.login(person)
    await browser.post("/logout")
    assert "__Host-sid" not in browser.cookies


async def test_an_updated_browser_is_no_new_device(make_sessions: MakeSessions) -> None:
    told: Told = []
    app = make_app(await make_sessions(on_event=told.append))
    await visit(Browser(app, agent=chrome(120)))
    await Browser(app, agent=chrome(121)).login("ann")  # by what has ended
    await Browser(app, agent=chrome(122)).login("ann")  # by what is live
    await Browser(app, agent="Thing/1.0").login("ann")
    await Browser(app, agent="Thing/1.1").login("ann")
    assert news(told) == [True, False, False, True, False]
    for agent, address, person in (
        (f"{WINDOWS} Chrome/123.0.0.0 Safari/537.36 Edg/123.0.0.0", "192.0.2.1", "ann"),
        (chrome(123).replace("Windows NT 10.0", "X11; Linux x86_64"), "192.0.2.1", "ann"),
        (chrome(123), "192.0.2.2", "ann"),
        (chrome(123), "192.0.2.1", "ben"),
        ("", "192.0.2.1", "ann"),
    ):
        await Browser(app, agent=agent, address=address).login(person)
    assert news(told) == [True] * 5


async def test_without_stored_addresses_a_device_is_known_exactly_or_not(
    make_sessions: MakeSessions,
) -> None:
    told: Told = []
    app = make_app(await make_sessions(on_event=told.append, store_ip="none"))
    for version in (120, 120, 121):
        await Browser(app, agent=chrome(version)).login("ann")
    assert news(told) == [True, False, True]


async def test_whoever_was_thrown_out_is_new_again(
    make_sessions: MakeSessions,
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append, device_cookie=YEAR)
    app = make_app(sessions)
    thief, owner = Browser(app), Browser(app, agent="Chrome")
    await thief.login("ann")
    await owner.login("ann")
    await owner.post("/end-others")
    for agent in ("Firefox", "Firefox 2"):
        thief.headers["user-agent"] = agent
        await thief.login("ann")  # with its dead cookie, its row and its mark
        await owner.post("/end-others")
    await visit(owner)
    assert news(told) == [True, True, True, True, False]


async def test_what_a_stranger_had_ended_before_does_not_vouch_and_what_was_spared_does(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    await visit(Browser(app))
    clock.turn(timedelta(seconds=1))
    await Browser(app).login("ann")
    clock.turn(timedelta(seconds=1))
    await sessions.end_all_sessions("ann")
    clock.turn(timedelta(seconds=1))
    owner, other = Browser(app), Browser(app)
    await owner.login("ann")
    assert news(told) == [True, False, True]
    await other.login("ann")
    await owner.post("/end-others")
    clock.turn(timedelta(seconds=1))
    await owner.post("/logout")
    await owner.login("ann")
    assert news(told) == [False, False]
