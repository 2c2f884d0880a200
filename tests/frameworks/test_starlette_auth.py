"""`SessionAuthBackend`: request.user and @requires, from the session and from nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_sessions import ConfigurationError, Session, SessionMiddleware, Sessions
from asgi_sessions.starlette import SessionAuthBackend, SessionUser
from asgi_sessions.testing import logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Vouch, vouched


async def whoami(request: Request) -> Response:
    user = request.user
    identity = user.identity if user.is_authenticated else ""  # Starlette's nobody has none
    return JSONResponse([user.is_authenticated, user.display_name, identity])


@requires("authenticated")
async def members_only(request: Request) -> Response:
    return await whoami(request)


@requires("authenticated", redirect="whoami")
def members_only_in_a_thread(request: Request) -> Response:
    return JSONResponse(request.user.identity)


@requires("authenticated")
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.user.identity)
    await websocket.close()


ROUTES = [
    Route("/", whoami, name="whoami"),
    Route("/members", members_only),
    Route("/thread", members_only_in_a_thread),
    WebSocketRoute("/echo", echo),
]


def make(sessions: Sessions, *outer: Middleware, **options: Any) -> Starlette:
    return Starlette(
        routes=ROUTES,
        middleware=[
            *outer,
            Middleware(SessionMiddleware, sessions=sessions),
            Middleware(AuthenticationMiddleware, backend=SessionAuthBackend(**options)),
        ],
    )


async def test_whoever_has_a_session_is_the_user(sessions: Sessions) -> None:
    app = make(sessions)
    stranger, ann = Browser(app), Browser(app)
    ann.cookies.update(await logged_in_cookie(sessions, "ann"))
    assert (await stranger.get("/")).json() == [False, "", ""]
    assert (await stranger.get("/members")).status_code == 403
    assert (await stranger.get("/thread")).status_code == 303
    assert (await ann.get("/")).json() == [True, "ann", "ann"]
    assert (await ann.get("/members")).json() == [True, "ann", "ann"]
    assert (await ann.get("/thread")).json() == "ann"
    await sessions.end_all_sessions("ann")
    assert (await ann.get("/members")).status_code == 403


async def test_a_websocket_has_its_user_too(sessions: Sessions) -> None:
    cookie = await logged_in_cookie(sessions, "ann")
    with TestClient(make(sessions), base_url="https://test") as client:
        with (
            pytest.raises(WebSocketDisconnect),
            client.websocket_connect("wss://test/echo") as socket,
        ):
            socket.receive_text()
        client.cookies.update(cookie)
        with client.websocket_connect("wss://test/echo") as socket:
            assert socket.receive_text() == "ann"


@dataclass
class Account:
    """A row of the app's own."""

    identity: str
    display_name: str
    is_authenticated: bool = True


ACCOUNTS = {"ann": Account("ann", "Ann of the shop")}


def load(session: Session) -> Account | None:
    return ACCOUNTS.get(session.person_id)


async def load_later(session: Session) -> Account | None:
    return load(session)


@pytest.mark.parametrize("load_person", [load, load_later])
async def test_the_user_may_be_one_of_the_apps_own(sessions: Sessions, load_person: Any) -> None:
    browser = Browser(make(sessions, load_person=load_person))
    browser.cookies.update(await logged_in_cookie(sessions, "ann"))
    assert (await browser.get("/members")).json() == [True, "Ann of the shop", "ann"]


@pytest.mark.parametrize("load_person", [load, load_later])
async def test_somebody_whom_the_app_no_longer_knows_is_no_user(
    sessions: Sessions, load_person: Any
) -> None:
    browser = Browser(make(sessions, load_person=load_person))
    browser.cookies.update(await logged_in_cookie(sessions, "locked out"))
    assert (await browser.get("/")).json() == [False, "", ""]
    assert (await browser.get("/members")).status_code == 403
    assert len(await sessions.list_sessions("locked out")) == 1  # it is the app that says no


async def test_the_user_of_a_session_knows_it(sessions: Sessions) -> None:
    session = await sessions.insert({"type": "http", "headers": []}, "ann")
    assert SessionUser(session).session is session


async def test_the_other_way_round_is_refused_with_the_mend(sessions: Sessions) -> None:
    middleware = [
        Middleware(AuthenticationMiddleware, backend=SessionAuthBackend()),
        Middleware(SessionMiddleware, sessions=sessions),
    ]
    browser = Browser(Starlette(routes=ROUTES, middleware=middleware))
    with pytest.raises(ConfigurationError, match=r"SessionMiddleware: add it to the app, outside"):
        await browser.get("/")


async def test_a_layer_outside_that_vouches_gets_a_session_which_makes_the_user(
    sessions: Sessions,
) -> None:
    browser = Browser(make(sessions, Middleware(Vouch)))
    for _ in range(2):
        answer = await browser.get("/", headers=vouched("ann"))
        assert answer.json() == [True, "ann", "ann"]
    (session,) = await sessions.list_sessions("ann")
    assert session.origin == "scope"
    assert (await browser.get("/")).json() == [False, "", ""]  # nobody vouches any more
    await sessions.end_session_by_id(session.sid)
    assert (await browser.get("/", headers=vouched("ann"))).json() == [False, "", ""]


async def test_a_user_of_a_session_is_nobodys_word_for_further_sessions(
    sessions: Sessions, make_sessions: MakeSessions
) -> None:
    others = await make_sessions(table_name="others", cookie_name="other")

    async def inside(request: Request) -> Response:
        return JSONResponse([request.user.identity, request.state.sid])

    inner = Starlette(
        routes=[Route("/", inside)], middleware=[Middleware(SessionMiddleware, sessions=others)]
    )
    app = Starlette(
        routes=[Mount("/inner", inner)],
        middleware=[
            Middleware(SessionMiddleware, sessions=sessions),
            Middleware(AuthenticationMiddleware, backend=SessionAuthBackend(load)),
        ],
    )
    browser = Browser(app)
    browser.cookies.update(await logged_in_cookie(sessions, "ann"))
    assert (await browser.get("/inner/")).json() == ["ann", None]
    assert await others.list_sessions("ann") == []


async def test_where_an_outage_makes_people_anonymous_there_is_no_user(tmp_path: Path) -> None:
    sessions = Sessions(
        f"sqlite:///{tmp_path}/missing/sessions.db", secret_key=KEY, on_unavailable="anonymous"
    )
    working = Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)
    await working.create_tables()
    browser = Browser(make(sessions))
    browser.cookies.update(await logged_in_cookie(working, "ann"))
    assert (await browser.get("/")).json() == [False, "", ""]
    await working.disconnect()
    await sessions.disconnect()
