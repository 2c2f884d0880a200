"""The offer to bind a session: who gets it, where it leads, and what is told if that is nowhere."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import fastapi
import litestar
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from asgi_sessions import SessionMiddleware, Sessions
from asgi_sessions.dbsc import DBSC
from tests.support import Browser, make_app, set_cookies, vouched
from tests.support.dbsc import MakeWorld, World
from tests.support.devices import BOUND, BY_ITSELF, PATH, Device, DeviceBrowser, offered

#: Of how many offers somebody has to take one up, and within what time at the least.
MOST, LEAST_TIME = 20, timedelta(minutes=1)

# --- the offer ------------------------------------------------------------------------------------


async def test_a_login_and_a_renewal_offer_to_bind_and_nothing_else_does(world: World) -> None:
    browser = world.browser()
    login = await browser.post("/login?person=ann")
    first = offered(login)
    assert first is not None
    assert set_cookies(login, BOUND) == []
    assert offered(await browser.get("/")) is None
    second = offered(await browser.post("/renew"))
    assert second not in (None, first)
    browser.offer = second
    assert (await browser.register()).status_code == 200
    assert offered(await browser.post("/renew")) is None  # it is bound
    assert offered(await browser.post("/logout")) is None


async def test_a_login_that_fails_offers_nothing(world: World) -> None:
    async def fail(request: Request) -> Response:
        await world.sessions.start_session(request, "ann")
        return Response(status_code=500)

    browser = Browser(make_app(world.sessions, Route("/fail", fail)))
    assert offered(await browser.get("/fail")) is None


async def test_a_session_that_another_layer_vouches_for_is_not_worth_binding(world: World) -> None:
    browser = world.browser()
    response = await browser.get("/", headers=vouched("ann"))
    assert set_cookies(response)
    assert offered(response) is None


async def test_a_login_over_a_websocket_offers_it_too(world: World) -> None:
    async def enter(websocket: WebSocket) -> None:
        await world.sessions.start_session(websocket, "ann")
        await websocket.accept()
        await websocket.close()

    app = make_app(world.sessions, WebSocketRoute("/enter", enter))
    with TestClient(app, base_url="https://test").websocket_connect("/enter") as socket:
        sent: Any = socket.extra_headers
        names = [name for name, _ in sent]
    assert b"set-cookie" in names
    assert b"secure-session-registration" in names


async def test_without_the_option_nothing_is_offered_and_nothing_answered(
    make_world: MakeWorld,
) -> None:
    world = await make_world(None)
    browser = world.browser()
    await browser.log_in()
    assert browser.offer is None
    assert (await browser.post(f"{PATH}/register")).status_code == 404
    assert not await world.is_bound(browser.sid)


async def test_the_routes_are_where_the_app_is_mounted(world: World) -> None:
    inner = make_app(world.sessions)
    app = Starlette(routes=[Mount("/shop", inner)])
    browser = Browser(app)
    login = await browser.post("/shop/login?person=ann")
    path = f"/shop{PATH}/register"
    assert f'path="{path}"' in login.headers["secure-session-registration"]
    challenge = offered(login)
    assert challenge is not None
    proof = Device().proof(challenge, register=True)
    response = await browser.post(path, headers={**BY_ITSELF, "secure-session-response": proof})
    assert response.json()["refresh_url"] == f"/shop{PATH}/refresh"
    assert (await browser.post(f"{PATH}/register")).status_code == 404
    assert (await browser.post(f"/shop/deeper{PATH}/register")).status_code == 404


def starlette_app(sessions: Sessions) -> ASGIApp:
    return make_app(sessions)


def fastapi_app(sessions: Sessions) -> ASGIApp:
    app = fastapi.FastAPI()

    @app.post("/login")
    async def login(request: Request) -> dict[str, str]:
        return {"sid": (await sessions.start_session(request, "ann")).sid}

    @app.get("/")
    async def home(request: Request) -> dict[str, str | None]:
        return {"sid": request.state.sid}

    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


def litestar_app(sessions: Sessions) -> ASGIApp:
    @litestar.post("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> dict[str, str]:
        return {"sid": (await sessions.start_session(request, "ann")).sid}

    @litestar.get("/")
    async def home(request: litestar.Request[Any, Any, Any]) -> dict[str, str | None]:
        return {"sid": request.state.sid}

    app: Any = litestar.Litestar([login, home])
    return SessionMiddleware(app, sessions=sessions)


@pytest.mark.parametrize("make", [starlette_app, fastapi_app, litestar_app])
async def test_each_framework_binds(world: World, make: Callable[[Sessions], ASGIApp]) -> None:
    browser = DeviceBrowser(make(world.sessions))
    sid = await browser.bound()
    assert (await browser.see())["sid"] == sid
    assert (await browser.refresh()).status_code == 200
    browser.forget()
    assert (await browser.see())["sid"] is None


async def test_the_path_is_the_apps_to_choose(make_world: MakeWorld) -> None:
    world = await make_world(DBSC(path="/device"))
    browser = world.browser()
    login = await browser.post("/login?person=ann")
    assert 'path="/device/register"' in login.headers["secure-session-registration"]
    assert (await browser.get("/device/refresh")).status_code == 405
    assert (await browser.get("/device/other")).status_code == 404


@pytest.mark.parametrize(
    ("root_path", "below", "mounted"),
    [
        ("/shop/", "/shop", "/shop"),
        ("/shop/", "/shop/", "/shop"),  # as uvicorn --root-path /shop/ has it
        ("/shop", "/shop", "/shop"),
        ("/", "", ""),
        ("/shop/", "", "/shop"),  # servers that leave it out of the path
    ],
)
async def test_a_slash_at_the_end_of_the_root_path_is_none_of_the_path(
    world: World, root_path: str, below: str, mounted: str
) -> None:
    inner = make_app(world.sessions)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # Starlette's router would not find its routes below a root path with a slash at its end.
        outer = dict(scope, root_path=root_path, path=below + scope["path"])

        async def with_its_own(scope: Any, receive: Any, send: Any) -> None:
            path = scope["path"].removeprefix(below)
            await inner.router(dict(scope, root_path="", path=path), receive, send)

        await SessionMiddleware(with_its_own, sessions=world.sessions)(outer, receive, send)

    browser = DeviceBrowser(app)
    login = await browser.post("/login?person=ann")
    assert f'path="{mounted}{PATH}/register"' in login.headers["secure-session-registration"]
    browser.offer, browser.sid = offered(login), login.json()["sid"]
    response = await browser.register()
    assert response.json()["refresh_url"] == f"{mounted}{PATH}/refresh"
    assert (await browser.refresh()).status_code == 200
    assert (await browser.get(f"/deeper{PATH}/refresh")).status_code == 404


# --- offers that lead nowhere ---------------------------------------------------------------------

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{}.0.0.0 Safari/537.36{}"
)


def not_taken_up(world: World) -> list[str]:
    return [
        record.getMessage()
        for record in world.caplog.records
        if vars(record).get("event") == "offers_not_taken_up"
    ]


async def test_offers_that_nobody_takes_up_are_told_once(world: World) -> None:
    browser = world.browser(agent=CHROME.format(150, ""))
    for _ in range(MOST):
        await browser.log_in()
    assert not_taken_up(world) == []  # so many at once may still be on their way
    world.clock.turn(LEAST_TIME)
    for _ in range(3):
        await browser.log_in()
    (message,) = not_taken_up(world)
    assert message.startswith(
        f"of {MOST + 1} browsers that bind sessions, none has come to {PATH}/register:"
    )


async def test_time_alone_is_no_reason_to_tell_of_offers(world: World) -> None:
    browser = world.browser(agent=CHROME.format(145, ""))
    for _ in range(MOST - 1):
        await browser.log_in()
        world.clock.turn(LEAST_TIME)
    assert not_taken_up(world) == []
    await browser.log_in()
    assert len(not_taken_up(world)) == 1


@pytest.mark.parametrize("route", ["register", "refresh"])
async def test_one_browser_that_comes_shows_that_the_way_is_right(world: World, route: str) -> None:
    await world.browser().post(f"{PATH}/{route}")
    await many_logins(world, CHROME.format(150, ""))
    assert not_taken_up(world) == []


async def test_a_browser_that_registered_at_another_process_shows_it_too(
    make_world: MakeWorld,
) -> None:
    world, other = await make_world(), await make_world()
    browser = world.browser()
    await browser.log_in()
    await browser.register()
    elsewhere = other.browser()
    elsewhere.cookies.update(browser.cookies)
    await elsewhere.see()
    await many_logins(other, CHROME.format(150, ""))
    assert not_taken_up(other) == []


@pytest.mark.parametrize(
    "agent",
    [
        "Firefox",
        "",
        CHROME.format(144, ""),
        CHROME.format(150, " Edg/150.0.0.0"),
        CHROME.format(150, "").replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64"),
    ],
)
async def test_browsers_that_may_not_bind_sessions_show_nothing(world: World, agent: str) -> None:
    await many_logins(world, agent)
    assert not_taken_up(world) == []


async def many_logins(world: World, agent: str) -> None:
    browser = world.browser(agent=agent)
    for _ in range(MOST + 1):
        await browser.log_in()
        world.clock.turn(LEAST_TIME)
