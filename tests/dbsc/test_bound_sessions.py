"""A bound session: by its cookies it is there, by a stolen one it is not.

How many alarms are remembered is private: more sessions than that would have to be attacked. So is
the signer of the names by which browsers know sessions.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket

from asgi_sessions import Incident
from asgi_sessions._service.rate_limit import APART
from asgi_sessions.dbsc import DBSC
from tests.support import KEY, OLD_KEY, Browser, make_app, set_cookies
from tests.support.dbsc import LIFE, SECOND, SID, MakeWorld, World, statements
from tests.support.devices import BOUND, DeviceBrowser

# --- a bound session ------------------------------------------------------------------------------


async def test_without_a_live_bound_cookie_there_is_no_session_and_nothing_is_cleared(
    world: World,
) -> None:
    browser = world.browser()
    sid = await browser.bound()
    world.clock.turn(LIFE - timedelta(microseconds=1))
    assert (await browser.see())["sid"] == sid
    world.clock.turn(timedelta(microseconds=1))
    response = await browser.get("/")
    assert response.json() == {
        "sid": None,
        "person_id": None,
        "reason": "not_bound",
        "user": False,
    }
    assert "set-cookie" not in response.headers
    assert response.headers["vary"] == "Cookie"
    browser.forget()
    assert (await browser.see())["reason"] == "not_bound"
    assert (await browser.refresh()).status_code == 200
    assert (await browser.see())["sid"] == sid
    assert world.reasons() == ["no_cookie", "expired_challenge"]


async def test_a_session_without_its_proof_has_no_data_and_makes_no_visitor(
    make_world: MakeWorld,
) -> None:
    world = await make_world(data=True)

    async def put(request: Request) -> Response:
        request.session.update(request.query_params)
        return JSONResponse(dict(request.session))

    app = make_app(world.sessions, Route("/put", put))
    browser = DeviceBrowser(app)
    await browser.bound()
    assert (await browser.get("/put?a=1")).json() == {"a": "1"}
    world.clock.turn(LIFE)
    response = await browser.get("/put?b=2")
    assert response.json() == {"b": "2"}
    assert "set-cookie" not in response.headers
    await browser.refresh()
    assert (await browser.get("/put")).json() == {"a": "1"}


async def test_a_stolen_sid_alone_never_works(world: World) -> None:
    browser, thief = world.browser(), world.browser()
    await browser.bound()
    thief.cookies.set(SID, browser.cookies[SID])
    for _ in range(3):
        assert (await thief.see())["reason"] == "not_bound"
        assert (await thief.see_as("ann"))["user"] is False
        world.clock.turn(LIFE / 2)
        await browser.refresh()


async def test_the_bound_cookie_of_another_session_or_key_is_worth_nothing(world: World) -> None:
    browser, other = world.browser(), world.browser()
    await browser.bound()
    await other.bound()
    mine, theirs = browser.forget(), other.cookies[BOUND]
    sid, tag, thumbprint, until, signature = mine.split(".")
    longer = str(int(until) + 10**9)
    for value in (
        theirs,
        "",
        "x",
        mine[:-1],
        mine + "x",
        f"{sid}.{tag}.{thumbprint}.{longer}.{signature}",
        f"{sid}.{tag}.{theirs.split('.')[2]}.{until}.{signature}",
        f"{sid}.{theirs.split('.')[1]}.{thumbprint}.{until}.{signature}",
        ".".join(theirs.split(".")[:4]) + f".{signature}",
        f"{sid}.{tag}.{thumbprint}",
        f"{sid}.{tag}.{thumbprint}.",
    ):
        response = await browser.get(
            "/", headers={"cookie": f"{SID}={browser.cookies[SID]}; {BOUND}={value}"}
        )
        assert response.json()["reason"] == "not_bound", value
    both = f"{SID}={browser.cookies[SID]}; {BOUND}={theirs}; {BOUND}={mine}"
    assert (await browser.get("/", headers={"cookie": both})).json()["sid"] == browser.sid


async def test_a_cookie_of_another_app_or_key_proves_nothing(make_world: MakeWorld) -> None:
    shop = await make_world(app_id="shop")
    browser = shop.browser()
    sid = await browser.bound()
    cookies = dict(browser.cookies)
    newer = await make_world(app_id="shop", secret_key="abcdefgh" * 4, old_secret_keys=[KEY])
    assert (await signed_in(newer, cookies)) == sid
    refreshed = DeviceBrowser(make_app(newer.sessions), device=browser.device)
    refreshed.cookies.update(cookies)
    refreshed.identifier, refreshed.challenge = browser.identifier, browser.challenge
    answer = await refreshed.ask(browser.device.proof(str(browser.challenge)))
    # By the name that the browser knows it by, though another key signs by now.
    assert answer.json()["session_identifier"] == browser.identifier
    assert browser.identifier in answer.headers["secure-session-challenge"]
    assert newer.sessions._core.settings.keys.signer("dbsc.session").sign(sid or "") != (
        browser.identifier.encode()
    )
    shop.clock.turn(LIFE - SECOND)
    early = await refreshed.get("/")
    assert browser.identifier in early.headers["secure-session-challenge"]
    shop.clock.turn(-(LIFE - SECOND))
    dropped = await make_world(app_id="shop", secret_key=OLD_KEY)
    assert (await signed_in(dropped, cookies)) is None


async def signed_in(world: World, cookies: dict[str, str]) -> str | None:
    browser = world.browser()
    browser.cookies.update(cookies)
    sid: str | None = (await browser.see())["sid"]
    return sid


async def test_a_renewal_of_a_bound_session_keeps_it_bound(world: World) -> None:
    browser = world.browser()
    sid = await browser.bound()
    assert (await browser.post("/renew")).json()["sid"] == sid
    assert (await browser.see())["sid"] == sid
    # What was asked before is not answered after; the browser is asked again.
    assert browser.challenge is not None
    assert (await browser.ask(browser.device.proof(browser.challenge))).status_code == 403
    assert (await browser.refresh()).status_code == 200
    assert await world.is_bound(sid)


async def test_a_new_login_replaces_a_bound_session_whose_device_is_lost(world: World) -> None:
    browser = world.browser()
    old = await browser.bound()
    browser.forget()
    await browser.log_in()
    assert browser.sid != old
    session = await world.sessions.get_by_id(old)
    assert session is not None
    assert session.end_reason == "replaced"
    assert (await browser.see())["sid"] == browser.sid
    assert (await browser.register()).status_code == 200


async def test_a_logout_works_without_the_device_and_takes_both_cookies(world: World) -> None:
    browser = world.browser()
    sid = await browser.bound()
    browser.forget()
    response = await browser.post("/end-session")
    assert [line.partition(";")[0] for line in set_cookies(response, BOUND)] == [f"{BOUND}="]
    assert "Max-Age=0" in set_cookies(response, BOUND)[0]
    assert len(set_cookies(response)) == 1
    session = await world.sessions.get_by_id(sid)
    assert session is not None
    assert session.end_reason == "logout"


async def test_requests_that_left_before_the_bound_cookie_was_there_are_let_in(
    world: World,
) -> None:
    browser = world.browser()
    sid = await browser.bound()
    browser.forget()
    under_way = {"sec_fetch_site": "same-origin"}
    assert (await browser.see(**under_way))["sid"] == sid
    assert (await browser.see())["sid"] is None  # no browser that binds sessions sends this
    world.clock.turn(timedelta(seconds=10))
    assert (await browser.see(**under_way))["reason"] == "not_bound"
    assert (await browser.refresh()).status_code == 200
    browser.forget()
    assert (await browser.see(**under_way))["reason"] == "not_bound"


async def test_a_process_without_the_option_lets_no_bound_session_in(
    make_world: MakeWorld,
) -> None:
    world, without_it = await make_world(), await make_world(None)
    browser = world.browser()
    await browser.bound()
    other = Browser(make_app(without_it.sessions))
    other.cookies.update(browser.cookies)
    assert (await other.see())["reason"] == "not_bound"


async def test_a_websocket_needs_the_device_too(world: World) -> None:
    async def who(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.state.sid, websocket.state.session_end_reason])
        await websocket.close()

    browser = world.browser()
    sid = await browser.bound()
    app = make_app(world.sessions, WebSocketRoute("/who", who))

    def ask(cookies: dict[str, str]) -> object:
        client = TestClient(app, base_url="https://test", cookies=cookies)
        with client.websocket_connect("/who") as socket:
            return socket.receive_json()

    cookies = dict(browser.cookies)
    assert await asyncio.to_thread(ask, cookies) == [sid, None]
    del cookies[BOUND]
    assert await asyncio.to_thread(ask, cookies) == [None, "not_bound"]


async def test_a_bound_session_costs_no_further_query(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    asked = statements(world)
    assert (await browser.see())["sid"] == browser.sid
    assert len(asked) == 1
    browser.forget()
    assert (await browser.see())["sid"] is None
    assert len(asked) == 2


# --- alarms ---------------------------------------------------------------------------------------


async def test_nobody_hides_the_alarm_of_another(world: World) -> None:
    thief, victim = world.browser(), world.browser()
    await thief.bound("thief")
    await victim.bound("ann")
    for browser in (thief, victim):
        browser.forget()
    for _ in range(3):
        await thief.see()
        await thief.ask("no proof")
    await victim.see()
    await victim.ask("no proof")
    assert alarms(world) == [
        ("no_cookie", thief.sid, 1),
        ("malformed", thief.sid, 1),
        ("no_cookie", victim.sid, 1),
        ("malformed", victim.sid, 1),
    ]
    world.clock.turn(60 * SECOND)
    await thief.see()
    assert alarms(world)[4:] == [("no_cookie", thief.sid, 3)]


async def test_a_request_that_was_let_in_hides_no_other(make_world: MakeWorld) -> None:
    world = await make_world(DBSC(on_skipped={"server_error"}))
    thief, victim = world.browser(), world.browser()
    await thief.bound("thief")
    await victim.bound("ann")
    for browser in (thief, victim, thief):
        browser.forget()
        browser.cookies.set(BOUND, "none")
        await browser.see(secure_session_skipped="server_error")
    assert alarms(world) == [("server_error", thief.sid, 1), ("server_error", victim.sid, 1)]


async def test_alarms_are_remembered_for_so_many_sessions_and_no_more(world: World) -> None:
    events = world.sessions._core.events
    for one in range(APART + 1):
        for _ in range(2):
            events.device_refused("no_cookie", f"sid {one}", lambda: None)
    assert len(events._devices._kinds) == APART
    assert len(alarms(world)) == APART + 1
    events.device_refused("no_cookie", "sid 2", lambda: None)
    assert len(alarms(world)) == APART + 1
    events.device_refused("no_cookie", "sid 0", lambda: None)  # forgotten, and so told anew
    assert alarms(world)[-1] == ("no_cookie", "sid 0", 1)
    assert len(alarms(world)) == APART + 2
    assert ("no_cookie", "sid 1") not in events._devices._kinds  # quiet for the longest time
    assert ("no_cookie", "sid 2") in events._devices._kinds


def alarms(world: World) -> list[tuple[str | None, str | None, int]]:
    return [(one.reason, one.sid, one.count) for one in world.told if isinstance(one, Incident)]
