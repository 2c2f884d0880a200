"""Beside other layers: nothing but the row decides who is logged in."""

import asyncio
import logging
import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import httpx
import litestar
import pytest
from fastapi import Depends, FastAPI
from litestar import get as litestar_get
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser, UnauthenticatedUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import asgi_sessions
from asgi_sessions import (
    AAL1,
    ALL_APPS,
    ConfigurationError,
    InvalidSession,
    Lifetimes,
    Person,
    Session,
    SessionMiddleware,
    Sessions,
    sign_out_of_scope,
)
from asgi_sessions.fastapi import (
    CurrentSession,
    current_session_of,
    fresh_session_of,
    optional_session_of,
)
from asgi_sessions.litestar import SessionsPlugin
from asgi_sessions.starlette import SessionAuthBackend
from asgi_sessions.testing import logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, entered, make_app, set_cookies, vouched
from tests.support.asgi import call, field, http, respond
from tests.support.inside import check_what_is_open, opened
from tests.support.rows import table_of

HOUR = timedelta(hours=1)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "asgi_sessions"):
        yield caplog


class Writes:
    """An inner layer that puts something of its own at ``request.state.session``."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["session"] = scope["state"]["sid"] = "a database session"
        await self.app(scope, receive, send)


# --- the state is never read back -----------------------------------------------------------------


async def test_what_another_layer_writes_to_the_state_decides_nothing(
    sessions: Sessions, log: pytest.LogCaptureFixture
) -> None:
    async def asked(request: Request) -> Response:
        current = sessions.current(request)
        found = [await sessions.get(request), await sessions.get_by_id(request)]
        return JSONResponse(
            {
                "current": current and current.person_id,
                "found": [session and session.person_id for session in found],
                "fresh": sessions.is_fresh(request, HOUR),
                "others": await sessions.end_other_sessions(request),
            }
        )

    app = Starlette(
        routes=[
            Route("/", asked),
            Route("/out", sessions.end_session_endpoint(), methods=["POST"]),
            Mount("/devices", sessions.routes()),
        ]
    )
    app.add_middleware(Writes)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    nobody = Browser(app)
    for _ in range(2):
        assert (await nobody.get("/")).json() == {
            "current": None,
            "found": [None, None],
            "fresh": False,
            "others": 0,
        }
    assert (await nobody.get("/devices/")).status_code == 401
    ada = Browser(app)
    ada.cookies.update(await logged_in_cookie(sessions, "ada", user_agent="Firefox"))
    assert (await ada.get("/")).json()["current"] == "ada"
    assert (await ada.get("/devices/")).status_code == 200
    assert (await ada.post("/out")).status_code == 200
    assert (await ada.get("/")).json()["current"] is None
    assert log.text.count("another layer has written to request.state.session") == 1


async def test_two_sessions_in_one_app_never_meet(make_sessions: MakeSessions) -> None:
    staff = await make_sessions(app_id="staff", cookie_name="staff")
    shop = await make_sessions(app_id="shop", cookie_name="shop")

    async def asked(request: Request) -> Response:
        both = [staff.current(request), shop.current(request)]
        return JSONResponse([session and session.person_id for session in both])

    async def leave(request: Request) -> Response:
        await staff.end_session(request)
        return Response()

    for outer, inner in ((staff, shop), (shop, staff)):
        app = Starlette(routes=[Route("/", asked), Route("/leave", leave, methods=["POST"])])
        app.add_middleware(SessionMiddleware, sessions=inner)
        app.add_middleware(SessionMiddleware, sessions=outer)
        browser = Browser(app)
        browser.cookies.update(await logged_in_cookie(shop, "bob"))
        assert (await browser.get("/")).json() == [None, "bob"]
        await browser.post("/leave")
        assert (await browser.get("/")).json() == [None, "bob"]
        browser.cookies.update(await logged_in_cookie(staff, "ada"))
        assert (await browser.get("/")).json() == ["ada", "bob"]


async def test_a_state_that_a_server_shares_is_noticed_and_each_request_gets_its_own(
    sessions: Sessions, log: pytest.LogCaptureFixture
) -> None:
    seen: list[Any] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append((scope["state"]["sid"], scope["state"].get("person"), scope["state"]["pool"]))

    async def nothing(*_: Any) -> Any: ...

    middleware = SessionMiddleware(app, sessions=sessions)
    state: dict[str, Any] = {"pool": 1}
    scopes: list[Scope] = []
    for person in ("ada", None, None):
        cookie = {} if person is None else await logged_in_cookie(sessions, person)
        line = "; ".join(f"{name}={value}" for name, value in cookie.items()).encode()
        scope: Scope = {"type": "http", "method": "GET", "path": "/", "state": state}
        scopes.append({**scope, "headers": [(b"cookie", line)]})
        await middleware(scopes[-1], nothing, nothing)
    assert [sid is None for sid, _, _ in seen] == [False, True, True]
    assert [pool for _, _, pool in seen] == [1, 1, 1]
    assert scopes[0]["state"]["sid"] == seen[0][0]  # nobody has written over it
    assert log.text.count("one scope['state']") == 1


async def test_a_person_left_in_a_shared_state_is_nobody_for_the_next_request(
    sessions: Sessions,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nothing(*_: Any) -> Any: ...

    middleware = SessionMiddleware(app, sessions=sessions)
    state: dict[str, Any] = {}
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": state}
    state["person"] = {"id": "ada"}  # a layer in front, for the first request alone
    await middleware(first := {**scope}, nothing, nothing)
    await middleware(second := {**scope}, nothing, nothing)
    state["person"] = {"id": "bob"}
    await middleware(third := {**scope}, nothing, nothing)
    people = [one["state"]["session"] for one in (first, second, third)]
    assert [person and person.person_id for person in people] == ["ada", None, "bob"]


async def test_a_state_of_another_kind_is_replaced(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nothing(*_: Any) -> Any: ...

    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": None}
    await SessionMiddleware(app, sessions=sessions)(scope, nothing, nothing)
    assert scope["state"]["sid"] is None


async def test_a_user_put_into_the_scope_behind_the_middleware_is_told_of_once(
    sessions: Sessions, log: pytest.LogCaptureFixture
) -> None:
    class Behind(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
            request.scope["user"] = SimpleUser("eve")
            return await call_next(request)

    async def home(request: Request) -> Response:
        return JSONResponse(request.state.sid)

    app = Starlette(routes=[Route("/", home)])
    app.add_middleware(Behind)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    for _ in range(2):
        assert (await Browser(app).get("/")).json() is None
    assert log.text.count("a layer behind SessionMiddleware") == 1


async def test_a_connection_that_has_passed_no_middleware_is_told_so(sessions: Sessions) -> None:
    with pytest.raises(ConfigurationError, match="did not pass through"):
        sessions.current({"type": "http", "state": {"session": "somebody"}})


# --- signing out ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"user": SimpleUser("ada"), "auth": AuthCredentials(["a"])}, (UnauthenticatedUser, [])),
        ({"user": {"id": "ada"}, "auth": object()}, (type(None), None)),
        ({"state": {"person": {"id": "ada"}}}, None),
        ({}, None),
    ],
)
def test_a_person_is_taken_out_in_the_kind_of_their_layer(before: Scope, after: Any) -> None:
    sign_out_of_scope(before)
    assert before.get("state", {}) == {}
    if after is None:
        assert "user" not in before
    else:
        kind, scopes = after
        assert isinstance(before["user"], kind)
        assert getattr(before["auth"], "scopes", None) == scopes


async def revoked(sessions: Sessions, app: ASGIApp, **headers: str) -> httpx.Response:
    browser = Browser(app)
    sid = (await browser.get("/", headers=headers)).json()
    await sessions.end_session_by_id(sid)
    return await browser.get("/", headers=headers)


async def home(request: Request) -> Response:
    return JSONResponse(request.state.sid)


@pytest.mark.parametrize("own", [True, False])
async def test_a_person_of_ones_own_reader_is_refused_unless_it_can_be_taken_out(
    sessions: Sessions, log: pytest.LogCaptureFixture, *, own: bool
) -> None:
    def sign_out(scope: Scope) -> None:
        scope["gone"] = True

    def person(scope: Scope) -> object:
        return None if scope.get("gone") else {"id": "ada"}

    options: dict[str, Any] = {"sign_out": sign_out} if own else {}
    app = Starlette(routes=[Route("/", home)])
    app.add_middleware(SessionMiddleware, sessions=sessions, person=person, **options)
    response = await revoked(sessions, app)
    if own:
        assert (response.status_code, response.json()) == (200, None)
        return
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Cookie"
    assert response.headers["cache-control"] == "no-store"
    assert response.text == "Signed out: revoked"
    assert log.text.count("pass sign_out=...") == 1


async def test_whoever_was_signed_out_can_be_refused_whatever_the_route(
    sessions: Sessions, clock: Clock
) -> None:
    app = make_app(sessions)
    app.user_middleware[1].kwargs["on_signed_out"] = "refuse"
    browser = Browser(app)
    sid = (await browser.see_as("ada"))["sid"]
    await sessions.end_session_by_id(sid)
    assert (await browser.get("/", headers=vouched("ada"))).status_code == 401
    assert (await browser.get("/")).status_code == 200  # without the dead token
    clock.turn(timedelta(seconds=1))
    since = vouched("ada", iso=clock.now.isoformat())
    assert (await browser.get("/", headers=since)).status_code == 200


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"on_signed_out": "ignore"}, "use 'anonymous' or 'refuse'"),
        ({"sign_out": None}, "use a function of the scope"),
        ({"person": "ada"}, "use a function of the scope"),
    ],
)
def test_arguments_of_the_middleware_that_cannot_be_are_refused(
    options: dict[str, Any], text: str
) -> None:
    sessions = Sessions("sqlite:///never.db", secret_key="abcdefgh" * 4)
    with pytest.raises(ConfigurationError, match=text):
        SessionMiddleware(Starlette(), sessions=sessions, **options)


# --- who a person is ------------------------------------------------------------------------------


async def test_the_subjects_of_two_issuers_are_two_people(make_sessions: MakeSessions) -> None:
    claims = {"iss": "https://one.example", "sub": "1"}
    sessions = await make_sessions()
    with pytest.raises(ConfigurationError, match=r"https://one.example.*pass Person\(id"):
        await sessions.insert({"type": "http"}, claims)
    one = await make_sessions(issuer="https://one.example")
    assert (await one.insert({"type": "http"}, claims)).person_id == "1"
    with pytest.raises(ConfigurationError, match="another issuer"):
        await one.insert({"type": "http"}, {**claims, "iss": "https://two.example"})
    assert (await sessions.insert({"type": "http"}, {**claims, "id": 7})).person_id == "7"
    person = Person(7, issuer="https://two.example", subject="1")
    assert (await sessions.insert({"type": "http"}, person)).person_id == "7"
    with pytest.raises(ConfigurationError, match="has no id"):
        await sessions.insert({"type": "http"}, {"iss": "https://one.example"})


async def test_nobody_is_not_anybody(sessions: Sessions) -> None:
    session = await sessions.insert({"type": "http"}, "ada")
    with pytest.raises(InvalidSession, match="person_id"):
        await sessions.end_session_by_id(session.sid, person_id=None)
    assert await sessions.get_by_id(session.sid) == session
    assert await sessions.end_session_by_id(session.sid) is not None


async def test_people_end_what_is_theirs_in_this_app_alone(make_sessions: MakeSessions) -> None:
    shop, bank = [await make_sessions(app_id=app) for app in ("shop", "bank")]
    there = await bank.insert({"type": "http"}, 1)
    assert await shop.list_sessions(1) == []
    assert await shop.end_session_by_id(there.sid, person_id=1) is None
    assert await shop.end_all_sessions(1) == 0
    assert len(await shop.list_sessions(1, app_id=ALL_APPS)) == 1
    assert await shop.end_session_by_id(there.sid, person_id=1, app_id="bank") is not None
    assert await bank.list_sessions(1) == []


class Role(StrEnum):
    ADMIN = "admin"


async def test_values_are_plain_whatever_class_they_came_in(make_sessions: MakeSessions) -> None:
    class Moment(datetime):
        """As pendulum and freezegun have them."""

    now = Moment(2026, 1, 1, 12, tzinfo=datetime.now().astimezone().tzinfo)  # noqa: TID251 -- any zone will do
    sessions = await make_sessions(clock=lambda: now)
    person = Person(Role.ADMIN, authenticated_at=now, auth_provider=Role.ADMIN)
    session = await sessions.insert({"type": "http"}, person)
    assert session.person_id == "admin"
    for value in (session.person_id, session.auth_provider):
        assert type(value) is str
    for moment in (session.started_at, session.authenticated_at, session.expires_at):
        assert type(moment) is datetime


# --- what a session is worth ----------------------------------------------------------------------


async def test_a_proof_in_the_future_is_never_fresh(sessions: Sessions, clock: Clock) -> None:
    scope, _ = await entered(sessions, "ada")
    assert sessions.is_fresh(scope, HOUR)
    clock.turn(timedelta(days=-300))
    assert not sessions.is_fresh(scope, HOUR)


async def test_a_session_shows_no_proof_later_than_now(sessions: Sessions, clock: Clock) -> None:
    ahead = Person("ada", authenticated_at=clock.now + timedelta(minutes=4))
    assert (await sessions.insert({"type": "http"}, ahead)).authenticated_at == clock.now
    too_far = Person("ada", authenticated_at=clock.now + timedelta(minutes=6))
    scope: Scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "user": too_far}

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nothing(*_: Any) -> Any: ...

    await SessionMiddleware(app, sessions=sessions)(scope, nothing, nothing)
    session = sessions.current(scope)
    assert session is not None
    assert session.authenticated_at is None


async def test_when_a_token_was_issued_makes_nothing_fresh(
    sessions: Sessions, clock: Clock
) -> None:
    async def fresh(request: Request) -> Response:
        return JSONResponse(sessions.is_fresh(request, HOUR))

    browser = Browser(make_app(sessions, Route("/fresh", fresh)))
    issued = vouched("ada", iat=clock.now.timestamp())
    assert (await browser.get("/fresh", headers=issued)).json() is False
    (session,) = await sessions.list_sessions("ada")
    await sessions.end_session_by_id(session.sid)
    clock.turn(timedelta(seconds=1))
    again = await browser.see_as("ada", iat=clock.now.timestamp())
    assert again["sid"] not in (None, session.sid)  # it still says "since the end"


async def test_a_device_that_is_found_without_its_cookie_shows_the_lesser_assurance(
    sessions: Sessions, clock: Clock
) -> None:
    async def shown(request: Request) -> Response:
        session = request.state.session
        proved = session.authenticated_at
        return JSONResponse([proved and proved.isoformat(), session.acr, session.amr])

    app = make_app(sessions, Route("/shown", shown))
    strong = {"iso": clock.now.isoformat(), "acr": "high", "amr": ["pwd", "otp"]}
    older = {"iso": (clock.now - HOUR).isoformat(), "acr": "low", "amr": ["pwd"]}
    await Browser(app).see_as("ada", **strong)
    for facts, expected in (
        (strong, [clock.now.isoformat(), "high", ["pwd", "otp"]]),
        (older, [(clock.now - HOUR).isoformat(), None, ["pwd"]]),
        ({}, [None, None, []]),
    ):
        response = await Browser(app).get("/shown", headers=vouched("ada", **facts))
        assert response.json() == expected


async def test_a_shorter_absolute_lifetime_counts_at_once(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    before = await make_sessions()
    session = await before.insert({"type": "http"}, "ada")
    shorter = Lifetimes(absolute=timedelta(hours=12), idle=timedelta(hours=12))
    after = await make_sessions(lifetimes=shorter)
    (found,) = await after.list_sessions("ada")
    assert found.expires_at == session.started_at + shorter.absolute
    clock.turn(shorter.absolute - timedelta(microseconds=1))
    assert len(await after.list_sessions("ada")) == 1
    clock.turn(timedelta(microseconds=1))
    assert await after.list_sessions("ada") == []
    assert len(await before.list_sessions("ada")) == 1
    ended = await after.get_by_id(session.sid)
    assert ended is not None
    assert (ended.end_reason, ended.ended_at) == ("expired", clock.now)


async def test_sessions_that_are_not_remembered_may_have_lifetimes_of_their_own(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    brief = Lifetimes(absolute=timedelta(hours=8), idle=timedelta(hours=1))
    sessions = await make_sessions(browser_lifetimes=brief)
    app = make_app(sessions)
    kept, brought_back = Browser(app), Browser(app)
    await kept.login("ada")
    sid = await brought_back.login("ada", remember=False)
    session = await sessions.get_by_id(sid)
    assert session is not None
    assert session.expires_at - session.started_at == brief.absolute
    clock.turn(timedelta(minutes=59))
    assert len(await sessions.list_sessions("ada")) == 2
    clock.turn(timedelta(minutes=1))
    assert [one.remember for one in await sessions.list_sessions("ada")] == [True]
    assert (await brought_back.see())["reason"] == "expired"
    assert (await kept.see())["person_id"] == "ada"
    with pytest.raises(ConfigurationError, match="browser_lifetimes"):
        await make_sessions(browser_lifetimes=replace(brief, idle=timedelta(seconds=100)))


# --- renewals -------------------------------------------------------------------------------------


async def test_a_rotation_gives_a_new_secret_and_proves_nothing(
    sessions: Sessions, clock: Clock
) -> None:
    async def rotate(request: Request) -> Response:
        session = await sessions.rotate_session(request)
        return JSONResponse(session and session.sid)

    app = make_app(sessions, Route("/rotate", rotate, methods=["POST"]))
    browser = Browser(app)
    assert (await browser.post("/rotate")).json() is None
    sid = await browser.login("ada")
    old = browser.cookies[sessions.cookie_name]
    clock.turn(HOUR)
    response = await browser.post("/rotate")
    assert response.json() == sid
    assert len(set_cookies(response)) == 1
    assert browser.cookies[sessions.cookie_name] != old
    (session,) = await sessions.list_sessions("ada")
    assert session.authenticated_at == clock.now - HOUR


@pytest.mark.parametrize("seen", [True, False], ids=["the new one seen", "never seen"])
async def test_a_copy_from_before_a_step_up_inherits_no_proof_and_renews_nothing(
    sessions: Sessions, clock: Clock, *, seen: bool
) -> None:
    async def step_up(request: Request) -> Response:
        session = await sessions.renew_session(request, acr="2", amr=["pwd", "otp"])
        return JSONResponse(session and session.sid)

    async def what(request: Request) -> Response:
        session = sessions.current(request)
        assert session is not None
        fresh = sessions.is_fresh(request, HOUR)
        return JSONResponse({"fresh": fresh, "acr": session.acr, "amr": session.amr})

    step = Route("/step-up", step_up, methods=["POST"])
    app = make_app(sessions, step, Route("/what", what))
    owner, thief = Browser(app), Browser(app)
    await owner.login("ada")
    thief.cookies.update(owner.cookies)
    await owner.post("/step-up")
    if seen:
        assert (await owner.get("/what")).json()["fresh"]
    clock.turn(timedelta(seconds=30))
    assert (await thief.get("/what")).json() == {"fresh": False, "acr": None, "amr": []}
    response = await thief.post("/step-up")
    assert not set_cookies(response)
    assert (await thief.get("/what")).json() == {"fresh": False, "acr": None, "amr": []}
    assert (await owner.get("/what")).json() == {"fresh": True, "acr": "2", "amr": ["pwd", "otp"]}


async def test_a_secret_whose_successor_was_never_seen_is_good_for_ten_minutes(
    sessions: Sessions, clock: Clock
) -> None:
    app = make_app(sessions)
    owner, copy = Browser(app), Browser(app)
    sid = await owner.login("ada")
    copy.cookies.update(owner.cookies)
    await owner.post("/renew")
    clock.turn(timedelta(minutes=10))
    assert (await copy.see())["sid"] == sid
    clock.turn(timedelta(microseconds=1))
    seen = await copy.see()
    assert (seen["sid"], seen["reason"]) == (None, "superseded")
    assert (await owner.see())["sid"] == sid  # which ends nothing


async def test_a_renewal_closes_what_was_opened_with_an_older_secret(
    make_sessions: MakeSessions,
) -> None:
    sessions, elsewhere = await make_sessions(), await make_sessions()
    browser = Browser(make_app(sessions))
    sid = await browser.login("ada")
    first = (await table_of(sessions))[0]["secret_hash"]
    closed: list[str] = []

    def tab(there: Sessions, name: str, secret: bytes | None) -> None:
        opened(there, sid, lambda: closed.append(name), lambda: secret)

    tab(sessions, "the owner's tab, or the thief's", first)
    tab(sessions, "a client without a cookie", None)
    tab(elsewhere, "in another process", first)
    assert (await browser.post("/renew")).json()["sid"] == sid
    tab(elsewhere, "with the new secret", (await table_of(sessions))[0]["secret_hash"])
    await asyncio.sleep(0)
    assert closed == ["the owner's tab, or the thief's"]
    await check_what_is_open(elsewhere)
    assert closed == ["the owner's tab, or the thief's", "in another process"]


@pytest.mark.parametrize(
    ("scheme", "host", "options", "told"),
    [
        ("http", "192.168.1.7:8000", {}, 1),
        ("http", "app.example", {}, 1),
        ("http", "localhost:8000", {}, 0),
        ("http", "app.localhost", {}, 0),
        ("http", "127.0.0.1:8000", {}, 0),
        ("http", "[::1]:8000", {}, 0),
        ("https", "app.example", {}, 0),
        ("http", "app.example", {"cookie_secure": False}, 0),
    ],
)
async def test_a_cookie_that_browsers_will_drop_is_told_of_once(
    make_sessions: MakeSessions,
    log: pytest.LogCaptureFixture,
    *,
    scheme: str,
    host: str,
    options: dict[str, Any],
    told: int,
) -> None:
    app = make_app(await make_sessions(**options))
    browser = Browser(app)
    for _ in range(2):
        await browser.post(f"{scheme}://{host}/login?person=ada")
    assert log.text.count("a login came over plain http") == told


# --- frameworks -----------------------------------------------------------------------------------


async def test_where_two_sessions_have_been_passed_it_has_to_be_said_whose_is_meant(
    make_sessions: MakeSessions,
) -> None:
    staff = await make_sessions(app_id="staff", cookie_name="staff")
    shop = await make_sessions(app_id="shop", cookie_name="shop")
    app = FastAPI()

    @app.get("/any")
    async def any_of_them(session: CurrentSession) -> str:
        return session.person_id

    @app.get("/staff")
    async def of_staff(session: Annotated[Session, Depends(current_session_of(staff))]) -> str:
        return session.person_id

    @app.get("/perhaps")
    async def perhaps(
        session: Annotated[Session | None, Depends(optional_session_of(staff))],
    ) -> str:
        return "nobody" if session is None else session.person_id

    @app.get("/fresh")
    async def fresh(session: Annotated[Session, fresh_session_of(shop, HOUR)]) -> str:
        return session.person_id

    @app.get("/user")
    async def user(request: Request) -> str:
        return str(request.user.display_name)

    app.add_middleware(AuthenticationMiddleware, backend=SessionAuthBackend(sessions=shop))
    app.add_middleware(SessionMiddleware, sessions=shop)
    app.add_middleware(SessionMiddleware, sessions=staff)
    browser = Browser(app)
    browser.cookies.update(await logged_in_cookie(shop, "bob"))
    with pytest.raises(ConfigurationError, match="two Sessions"):
        await browser.get("/any")
    assert (await browser.get("/staff")).status_code == 401
    assert (await browser.get("/perhaps")).json() == "nobody"
    assert (await browser.get("/fresh")).json() == "bob"
    assert (await browser.get("/user")).json() == "bob"
    browser.cookies.update(await logged_in_cookie(staff, "ada"))
    assert (await browser.get("/staff")).json() == "ada"


async def test_a_revoked_token_of_litestars_own_layer_is_refused_until_a_newer_one(
    sessions: Sessions, clock: Clock
) -> None:
    class Token:
        """As Litestar's JWT layer has it."""

        def __init__(self, iat: datetime, extras: object = None) -> None:
            self.iat, self.extras = iat, extras

    tokens: list[Token | None] = []

    class Jwt:
        """Puts its user and its token into the scope, as Litestar's JWT layer does."""

        def __init__(self, app: ASGIApp) -> None:
            self.app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if tokens[-1] is not None:
                scope["user"], scope["auth"] = {"id": "ada"}, tokens[-1]
            await self.app(scope, receive, send)

    @litestar_get("/")
    async def home(request: litestar.Request[Any, Any, Any]) -> str | None:
        session = sessions.current(request)
        return None if session is None else session.person_id

    plugins, jwt = [SessionsPlugin(sessions)], cast("Any", DefineMiddleware)(Jwt)
    app: Any = litestar.Litestar([home], middleware=[jwt], plugins=plugins)
    browser = Browser(app)
    tokens.append(Token(clock.now))
    assert (await browser.get("/")).text == "ada"
    await sessions.end_all_sessions("ada")
    assert (await browser.get("/")).status_code == 401
    clock.turn(timedelta(seconds=1))
    tokens.append(Token(clock.now, {"auth_time": (clock.now - HOUR).timestamp()}))
    assert (await browser.get("/")).status_code == 401  # refreshed, not authenticated
    tokens.append(Token(clock.now))
    assert (await browser.get("/")).text == "ada"
    tokens.append(None)
    assert (await browser.get("/")).status_code in (200, 204)


# --- secrets in tracebacks ------------------------------------------------------------------------


def shown(fault: BaseException) -> str:
    """What a tool shows that prints the variables of a traceback: those of this package's frames,
    but for the arguments of ASGI, which every frame of every layer has.
    """
    package = str(Path(asgi_sessions.__file__).parent)
    texts: list[str] = []
    for frame, _ in traceback.walk_tb(fault.__traceback__):
        if frame.f_code.co_filename.startswith(package):
            for name, value in frame.f_locals.items():
                if name not in ("scope", "receive", "send", "conn"):
                    texts.append(f"{name}={value!r}")
    return "\n".join(texts)


@pytest.mark.parametrize("step", ["resume", "login", "renew"])
async def test_no_frame_of_the_package_shows_the_cookie_or_the_secret(
    sessions: Sessions, step: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if step == "login":
            await sessions.start_session(scope, "bob")
        elif step == "renew":
            await sessions.renew_session(scope)
        raise RuntimeError("a fault of the app")

    async def nothing(*_: Any) -> Any: ...

    cookie = await logged_in_cookie(sessions, "ada")
    line = "; ".join(f"{name}={value}" for name, value in cookie.items()).encode()
    for kind in ("http", "websocket"):
        scope = {"type": kind, "method": "GET", "path": "/", "headers": [(b"cookie", line)]}
        with pytest.raises(RuntimeError) as caught:
            await SessionMiddleware(app, sessions=sessions)(scope, nothing, nothing)
        text = shown(caught.value)
        assert "self=" in text
        for value in cookie.values():
            for part in value.split(".")[1:]:
                assert part not in text


@pytest.mark.parametrize(
    "options", [{"table_name": "no name"}, {"old_secret_keys": ["short"]}, {"issuer": ""}]
)
def test_no_frame_of_a_constructor_that_fails_shows_a_key(options: dict[str, Any]) -> None:
    key = "a key that nobody may see in a log"
    with pytest.raises(ConfigurationError) as caught:
        Sessions("sqlite:///never.db", **{"secret_key": key, "old_secret_keys": [key], **options})
    text = shown(caught.value)
    assert "options=" in text or "faults=" in text
    assert key not in text
    assert "short" not in text


# --- what is left alone, and what does not count --------------------------------------------------


@pytest.mark.parametrize("exclude", [("/static", "/health/"), lambda s: s["path"] != "/in"])
async def test_excluded_paths_are_left_alone(make_sessions: MakeSessions, exclude: Any) -> None:
    sessions = await make_sessions(exclude=exclude)

    async def asked(request: Request) -> Response:
        return JSONResponse(sessions.current(request) is not None)

    async def login(request: Request) -> Response:
        with pytest.raises(ConfigurationError, match="excluded"):
            await sessions.start_session(request, "bob")
        with pytest.raises(ConfigurationError, match="excluded"):
            await sessions.end_session(request)
        return Response()

    paths = ("/static", "/static/a", "/health", "/in")
    routes = [Route(path, asked) for path in paths] + [Route("/health/login", login)]
    inner = Starlette(routes=routes)
    inner.add_middleware(SessionMiddleware, sessions=sessions)
    browser = Browser(inner)
    browser.cookies.update(await logged_in_cookie(sessions, "ada"))
    for path in paths:
        response = await browser.get(path)
        assert response.json() is (path == "/in")
        assert ("vary" in response.headers) is (path == "/in")
    await browser.get("/health/login")


async def test_excluded_paths_are_those_of_the_app_wherever_it_is_mounted(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(exclude=["/static"])

    async def left_alone(path: str, root_path: str) -> bool:
        scope = {**http(path=path), "root_path": root_path}

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await respond(send)

        start, _ = await call(SessionMiddleware(app, sessions=sessions), scope)
        return field(start, "vary") == []

    assert await left_alone("/app/static/a", "/app/")
    assert not await left_alone("/app/statics", "/app")
    assert not await left_alone("/application/static", "/app")


async def test_what_only_polls_keeps_no_session_from_idling(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(touch=lambda scope: scope["path"] != "/poll")

    async def poll(request: Request) -> Response:
        return Response()

    async def quiet(request: Request) -> Response:
        sessions.no_touch(request)
        return Response()

    browser = Browser(make_app(sessions, Route("/poll", poll), Route("/quiet", quiet)))
    sid = await browser.login("ada")
    started = clock.now
    clock.turn(HOUR)
    for path, seen in (("/poll", started), ("/quiet", started), ("/", clock.now)):
        await browser.get(path)
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert session.last_seen_at == seen


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exclude": "/static"}, "use a list of paths"),
        ({"exclude": ["static"]}, "use a list of paths"),
        ({"exclude": ["/"]}, "use a list of paths"),
        ({"touch": True}, "use a function of the scope"),
        ({"trusted_origins": "https://a.example"}, "use a list of origins"),
        ({"trusted_origins": ["https://a.example/"]}, "use a list of origins"),
        ({"trusted_origins": ["https://A.example"]}, "use a list of origins"),
        ({"issuer": ""}, "use the text of the claim iss"),
        ({"browser_lifetimes": HOUR}, "use Lifetimes"),
        ({"secret_key": "a" * 32}, "at least 8 of them distinct"),
        ({"old_secret_keys": ["changeme" * 4]}, "at least 8 of them distinct"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigurationError, match=text):
        Sessions("sqlite:///never.db", **{"secret_key": "abcdefgh" * 4, **options})


# --- other origins --------------------------------------------------------------------------------

ORIGINS = [
    ([], "app.example", True),
    (["https://app.example"], "app.example", True),
    (["https://app.example"], "app.example:443", True),
    (["http://app.example"], "app.example:80", True),
    (["https://app.example:444"], "app.example", False),
    (["https://front.example"], "app.example", True),
    (["https://evil.example"], "app.example", False),
    (["null"], "app.example", False),
    (["https://app.example", "https://evil.example"], "app.example", False),
    (["https://app.example"], None, False),
]


@pytest.mark.parametrize(("origins", "host", "let_in"), ORIGINS)
async def test_a_socket_of_a_foreign_origin_has_no_session(
    make_sessions: MakeSessions, origins: list[str], host: str | None, *, let_in: bool
) -> None:
    sessions = await make_sessions(trusted_origins=("https://front.example",))
    found: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        found.append(sessions.current(scope) is not None)

    async def nothing(*_: Any) -> Any:
        return {"type": "websocket.disconnect", "code": 1000}

    cookie = await logged_in_cookie(sessions, "ada")
    headers = [(b"cookie", f"{name}={value}".encode()) for name, value in cookie.items()]
    headers += [(b"origin", origin.encode()) for origin in origins]
    if host is not None:
        headers.append((b"host", host.encode()))
    scope: Scope = {"type": "websocket", "path": "/", "headers": headers}
    await SessionMiddleware(app, sessions=sessions)(scope, nothing, nothing)
    assert found == [let_in]


async def test_a_trusted_origin_may_log_out_and_the_browser_forgets(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(trusted_origins=["https://front.example"])
    leave = sessions.end_session_endpoint(clear_site_data=("cache", "storage"))
    away = sessions.end_session_endpoint(redirect_to="/", clear_site_data=("cache",))
    app = make_app(sessions, Route("/leave", leave), Route("/away", away))
    browser = Browser(app)
    for path, status, cleared in (
        ("/leave", 200, '"cache", "storage"'),
        ("/away", 303, '"cache"'),
    ):
        await browser.login("ada")
        cross = {"sec-fetch-site": "cross-site", "origin": "https://evil.example"}
        assert (await browser.post(path, headers=cross)).status_code == 403
        cross["origin"] = "https://front.example"
        response = await browser.post(path, headers=cross)
        assert response.status_code == status
        assert response.headers["clear-site-data"] == cleared
        assert (await browser.see())["sid"] is None
    for wrong in ("cache", ["cash"]):
        with pytest.raises(ConfigurationError, match="clear_site_data"):
            sessions.end_session_endpoint(clear_site_data=wrong)


async def test_the_default_is_for_all_sessions(plain: Sessions, clock: Clock) -> None:
    browser = Browser(make_app(plain))
    sid = await browser.login("ada", remember=False)
    (session,) = await plain.list_sessions("ada")
    assert session.expires_at == clock.now + AAL1.absolute
    clock.turn(AAL1.idle - timedelta(microseconds=1))
    assert (await browser.see())["sid"] == sid
    clock.turn(AAL1.idle)
    assert (await browser.see())["reason"] == "expired"
