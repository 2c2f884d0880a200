"""The cookie that marks a device: whom it knows, how it is sent, and what counts for nothing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from asgi_sessions import ConfigurationError, Sessions
from tests.behaviour.test_new_devices import Told, news, visit
from tests.conftest import MakeSessions
from tests.support import KEY, OLD_KEY, Browser, Clock, make_app, set_cookies, vouched

pytestmark = pytest.mark.anyio

YEAR = timedelta(days=365)
MARK = "__Host-sid-device"


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite alone: the mark is in no table."""
    return f"sqlite:///{tmp_path}/sessions.db"


#: Addresses that nobody has come from yet.
ADDRESSES = (f"203.0.113.{number}" for number in range(1, 255))


def with_mark(app: ASGIApp, mark: str) -> Browser:
    """A browser of which nothing else is known."""
    browser = Browser(app, address=next(ADDRESSES))
    browser.cookies.set(MARK, mark)
    return browser


def mark_of(browser: Browser) -> str:
    mark = browser.cookies[MARK]
    assert len(mark) <= 512
    return mark


async def test_a_marked_browser_is_known_when_all_else_is_gone(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append, device_cookie=YEAR)
    app = make_app(sessions)
    browser = Browser(app)
    await visit(browser)
    mark = mark_of(browser)
    clock.turn(timedelta(days=100))
    assert await sessions.purge()
    await with_mark(app, mark).login("ann")
    assert news(told) == [True, False]
    rotated = await make_sessions(
        on_event=told.append, device_cookie=YEAR, secret_key=OLD_KEY, old_secret_keys=[KEY]
    )
    await with_mark(make_app(rotated), mark).login("ann")
    await with_mark(app, mark).see(**vouched("ann"))  # another layer vouches for
    assert news(told) == [False, False]
    clock.turn(YEAR - timedelta(days=100))  # counted from the login
    await with_mark(app, mark).login("ann")
    assert news(told) == [True]


async def test_it_is_sent_beside_a_login_that_is_remembered_and_by_nothing_else(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(device_cookie=YEAR)

    async def fails(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        return Response(status_code=500)

    async def leaves(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        await sessions.end_session(request)
        return Response()

    routes = [Route(f"/{one.__name__}", one, methods=["POST"]) for one in (fails, leaves)]
    app = make_app(sessions, *routes)
    browser = Browser(app)
    for path in ("/fails", "/leaves", "/login?person=ann&remember=0", "/logout"):
        response = await browser.post(path)
        assert set_cookies(response, MARK) == []
    response = await browser.post("/login?person=ann")
    (cookie,) = set_cookies(response, MARK)
    value, *attributes = cookie.split("; ")
    assert attributes == ["Max-Age=31536000", "Path=/", "HttpOnly", "SameSite=Lax", "Secure"]
    assert "ann" not in value
    assert len(response.headers.get_list("set-cookie")) == 2  # one of each
    assert response.headers["cache-control"] == "no-store"
    for path in ("/renew", "/logout"):
        assert set_cookies(await browser.post(path), MARK) == []
    assert mark_of(browser) == value.partition("=")[2]  # the logout has left it
    scoped = await Browser(app).get("/", headers=vouched("ben"))
    assert len(set_cookies(scoped, MARK)) == len(set_cookies(scoped)) == 1
    assert set_cookies(await Browser(app).get("/", headers=vouched("ben")), MARK) == []


async def test_the_mark_of_somebody_else_is_none_and_one_browser_may_have_several_people(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    app = make_app(await make_sessions(on_event=told.append, device_cookie=YEAR))
    browser = Browser(app)
    people = ["ann", "ben", "cleo", "dora", "emil", "flo"]
    for person in people:
        await visit(browser, person)
        clock.turn(timedelta(seconds=1))
    assert news(told) == [True] * 6
    mark = mark_of(browser)
    for person in people:
        await with_mark(app, mark).login(person)
    assert news(told) == [False] * 6
    await visit(browser, "ann")
    assert news(told) == [False]
    await visit(browser, "gus")  # a seventh: the longest ago goes
    for person in ("ann", "ben", "gus"):
        await with_mark(app, mark_of(browser)).login(person)
    assert news(told) == [True, False, True, False]
    assert mark_of(browser).partition(".")[0] == mark.partition(".")[0]


async def test_marks_that_were_made_up_count_for_nothing(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    options: dict[str, Any] = {"on_event": told.append, "device_cookie": YEAR}
    app = make_app(await make_sessions(**options))
    browser, foreign = Browser(app), Browser(make_app(await make_sessions(**options, app_id="b")))
    await visit(browser)
    await visit(foreign)
    name, seconds, signature = mark_of(browser).split(".")
    told.clear()
    for forged in (
        f"{name}.{seconds}.{'A' * 43}",
        f"{'A' * 22}.{seconds}.{signature}",
        f"{name}.{int(seconds) + 1}.{signature}",
        f"{name}.{seconds}",
        name,
        "x" * 600,
        mark_of(foreign),
    ):
        await with_mark(app, forged).login("ann")
        assert news(told) == [True], forged
    clock.turn(-timedelta(days=1))  # from the future
    await with_mark(app, mark_of(browser)).login("ann")
    assert news(told) == [True]


async def test_a_mark_from_before_all_sessions_were_ended_counts_for_nothing(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append, device_cookie=YEAR)
    app = make_app(sessions)
    browser = Browser(app)
    await visit(browser)
    clock.turn(timedelta(minutes=1))
    await sessions.end_all_sessions("ann")
    clock.turn(timedelta(minutes=1))
    await with_mark(app, mark_of(browser)).login("ann")
    assert news(told) == [True, True]
    await visit(browser)
    await with_mark(app, mark_of(browser)).login("ann")
    assert news(told) == [False, False]


async def test_the_mark_of_a_session_that_was_ended_as_somebody_elses_counts_for_nothing(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append, device_cookie=YEAR)
    app = make_app(sessions)
    thief, owner = Browser(app), Browser(app, agent="Chrome")
    stolen = await thief.login("ann")
    clock.turn(timedelta(seconds=1))
    await visit(owner)
    await sessions.end_session_by_id(stolen)
    for browser in (owner, thief):
        await with_mark(app, mark_of(browser)).login("ann")
    assert news(told) == [True, True, False, True]


def test_a_foreign_page_brings_no_mark_to_a_websocket(tmp_path: Path) -> None:
    told: Told = []
    sessions = Sessions(
        f"sqlite:///{tmp_path}/s.db", secret_key=KEY, on_event=told.append, device_cookie=YEAR
    )

    async def socket(websocket: WebSocket) -> None:
        await sessions.start_session(websocket, {"id": "ann"})
        await websocket.accept()
        await websocket.close()

    app = make_app(sessions, WebSocketRoute("/socket", socket))
    app.router.lifespan_context = sessions.lifespan
    with TestClient(app, base_url="https://testserver") as client:
        assert client.portal is not None
        client.portal.call(sessions.create_tables)
        client.post("/login?person=ann", headers={"user-agent": "Firefox"})
        client.post("/logout")
        for agent, origin in (("Chrome", "https://evil.example"), ("Edge", "https://testserver")):
            headers = {"origin": origin, "user-agent": agent}
            with client.websocket_connect("wss://testserver/socket", headers=headers):
                pass
    assert news(told) == [True, True, False]


@pytest.mark.parametrize("wrong", [True, 30, timedelta(0), timedelta(days=401)])
def test_a_lifetime_that_no_cookie_can_have_is_refused(tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"device_cookie=.*400 days"):
        Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, device_cookie=wrong)
