"""ASGI manners, with raw events: what passes through, what is sent when, who is told."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.sessions import SessionMiddleware as SignedCookieMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import (
    ConfigurationError,
    SessionEvent,
    SessionMiddleware,
    Sessions,
    SessionsUnavailable,
)
from tests.conftest import MakeSessions
from tests.support import Browser, Vouch, make_app, set_cookies, vouched
from tests.support.asgi import call, cookies, http, log_in, reasons, respond
from tests.support.inside import store_of
from tests.support.layers import Passes, layered


def logs_in(sessions: Sessions, person: str = "ann", status: int = 200) -> ASGIApp:
    """An app that logs a person in with whatever is asked of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": person})
        await respond(send, status, b"welcome")

    return SessionMiddleware(app, sessions=sessions)


# --- what is none of our business -----------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lifespan", "webtransport", "something new"])
async def test_other_scopes_pass_through_untouched(sessions: Sessions, kind: str) -> None:
    given: list[object] = []

    async def app(*arguments: object) -> None:
        given.extend(arguments)

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {"type": kind, "state": {"pool": 1}}
    await SessionMiddleware(app, sessions=sessions)(scope, receive, send)
    assert given[0] is scope
    assert scope == {"type": kind, "state": {"pool": 1}}
    assert given[1:] == [receive, send]


async def test_what_the_lifespan_left_in_the_state_stays_there(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["state"]["pool"] == 1
        await respond(send)

    scope = {**http(), "state": {"pool": 1}}
    await call(SessionMiddleware(app, sessions=sessions), scope)
    left = {name: value for name, value in scope["state"].items() if name != sessions._key}
    assert left == {"pool": 1, "sid": None, "session": None, "session_end_reason": None}


async def test_a_response_to_nobody_is_passed_on_with_no_more_than_vary(sessions: Sessions) -> None:
    start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"X-Case", b"1")]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(start)
        await send({"type": "http.response.body", "body": b"hello"})

    sent = await call(SessionMiddleware(app, sessions=sessions), http())
    assert sent[0] == {**start, "headers": [(b"X-Case", b"1"), (b"vary", b"Cookie")]}
    assert start["headers"] == [(b"X-Case", b"1")]


async def test_messages_that_are_no_response_pass_between(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)
    hints: Message = {"type": "http.response.informational", "status": 103, "headers": []}
    push: Message = {"type": "http.response.push", "path": "/style.css", "headers": []}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send(hints)
        await sessions.renew_session(scope)
        await send(push)
        await respond(send)

    sent = await call(SessionMiddleware(app, sessions=sessions), http(cookie=cookie))
    assert sent[:2] == [hints, push]
    assert len(cookies(sent[2:3])) == 1


# --- state lives in the call ----------------------------------------------------------------------


async def test_interleaved_requests_keep_to_themselves(sessions: Sessions) -> None:
    both_in, both_done = asyncio.Barrier(2), asyncio.Barrier(2)
    seen: dict[str, tuple[str, str]] = {}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["path"]
        before = scope["state"]["sid"]
        await both_in.wait()
        started = await sessions.start_session(scope, {"id": name})
        await both_done.wait()
        assert scope["state"]["sid"] == started.id
        seen[name] = (before, started.id)
        await respond(send)

    middleware = SessionMiddleware(app, sessions=sessions)
    attributes = dict(vars(middleware))
    ann, cookie_of_ann = await log_in(sessions, "/ann")
    bob, cookie_of_bob = await log_in(sessions, "/bob")
    answers = await asyncio.gather(
        call(middleware, http("POST", "/ann", cookie=cookie_of_ann)),
        call(middleware, http("POST", "/bob", cookie=cookie_of_bob)),
    )

    assert [seen["/ann"][0], seen["/bob"][0]] == [ann, bob]
    for name, sent in zip(("/ann", "/bob"), answers, strict=True):
        (cookie,) = cookies(sent)
        assert cookie.startswith(f"__Host-sid={seen[name][1]}.")
        assert await reasons(sessions, name) == [None, "replaced"]
    assert vars(middleware) == attributes


async def test_no_transaction_is_held_while_the_app_runs(tmp_path: Path) -> None:
    async with Sessions(f"sqlite:///{tmp_path}/own.db", secret_key="abcdefgh" * 4) as sessions:
        await sessions.create_tables()

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await sessions.start_session(scope, {"id": "ann"})
            other = sqlite3.connect(f"{tmp_path}/own.db", timeout=0, isolation_level=None)
            other.execute("BEGIN EXCLUSIVE")  # fails if anybody reads or writes
            other.execute("ROLLBACK")
            other.close()
            await respond(send)

        sent = await call(SessionMiddleware(app, sessions=sessions), http("POST"))
        assert sent[0]["status"] == 200


# --- the one response -----------------------------------------------------------------------------


async def test_a_stream_carries_one_cookie_at_its_start(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await respond(send, 200, b"one", b"two", b"three")

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert len(sent) == 5
    assert len(cookies(sent[:1])) == 1
    assert all("headers" not in message for message in sent[1:])


async def test_a_second_start_carries_no_second_cookie(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await respond(send)
        await respond(send)

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert len(cookies(sent)) == 1


async def test_a_session_cannot_be_started_once_the_response_has_begun(sessions: Sessions) -> None:
    faults: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for change in (sessions.start_session(scope, "ann"), sessions.renew_session(scope)):
            with pytest.raises(ConfigurationError, match="response has begun") as caught:
                await change
            faults.append(str(caught.value))
        await send({"type": "http.response.body", "body": b""})

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert len(faults) == 2
    assert cookies(sent) == []
    assert await reasons(sessions) == []


async def test_a_streaming_response_logs_in_before_it_streams(sessions: Sessions) -> None:
    async def stream(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})

        async def pieces() -> AsyncIterator[bytes]:
            yield b"one"
            yield request.state.sid.encode()

        return StreamingResponse(pieces())

    app = make_app(sessions, Route("/stream", stream, methods=["POST"]))
    async with Browser(app) as browser:
        response = await browser.post("/stream")
        assert len(set_cookies(response)) == 1
        assert response.content == b"one" + (await browser.see())["sid"].encode()


async def test_an_answer_to_head_carries_the_cookie(sessions: Sessions) -> None:
    async with Browser(make_app(sessions)) as browser:
        response = await browser.head("/", headers=vouched("ann"))
        assert response.content == b""
        assert len(set_cookies(response)) == 1
        assert response.headers["cache-control"] == "no-store"
        assert "cookie" in response.headers["vary"].lower()
        assert await reasons(sessions) == [None]


@pytest.mark.parametrize("status", [302, 400, 401, 404, 422, 499])
async def test_an_error_that_the_app_answers_with_is_delivered_with_the_cookie(
    sessions: Sessions, status: int
) -> None:
    sent = await call(logs_in(sessions, status=status), http("POST"))
    assert len(cookies(sent)) == 1
    assert await reasons(sessions) == [None]


async def test_options_start_nothing_and_resume_what_is_there(sessions: Sessions) -> None:
    async with Browser(make_app(sessions)) as browser:
        response = await browser.options("/", headers=vouched("ann"))
        assert response.json()["sid"] is None
        assert set_cookies(response) == []
        assert await reasons(sessions) == []
        sid = await browser.login("ann")
        assert (await browser.options("/")).json()["sid"] == sid
        assert (await browser.options("/", headers=vouched("ann"))).json()["sid"] == sid
    async with Browser(make_app(sessions)) as browser:
        sid = (await browser.see_as("bob"))["sid"]
        assert (await browser.options("/", headers=vouched("bob"))).json()["sid"] == sid


# --- an answer that never comes -------------------------------------------------------------------


@pytest.mark.parametrize("status", [500, 502, 503])
async def test_a_server_error_after_a_login_delivers_nothing(
    sessions: Sessions, status: int
) -> None:
    sent = await call(logs_in(sessions, status=status), scope := http("POST"))
    assert sent[0]["status"] == status
    assert cookies(sent) == []
    assert await reasons(sessions) == ["not_delivered"]
    assert scope["state"]["sid"] is None
    assert scope["state"]["session"] is None


async def test_an_app_that_raises_after_a_login_delivers_nothing(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        raise LookupError("no template")

    sent: list[Message] = []
    with pytest.raises(LookupError, match="no template"):
        sent += await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert sent == []
    assert await reasons(sessions) == ["not_delivered"]


async def test_an_error_page_made_outside_carries_no_cookie(sessions: Sessions) -> None:
    async def broken(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        raise LookupError("no template")

    app = make_app(sessions, Route("/broken", broken, methods=["POST"]))
    async with Browser(app, raise_app_exceptions=False) as browser:
        response = await browser.post("/broken")
        assert response.status_code == 500
        assert set_cookies(response) == []
    assert await reasons(sessions) == ["not_delivered"]


async def test_an_app_that_never_answers_delivers_nothing(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})

    assert await call(SessionMiddleware(app, sessions=sessions), http("POST")) == []
    assert await reasons(sessions) == ["not_delivered"]


async def test_an_app_that_raises_later_has_delivered_the_cookie(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise LookupError("half way")

    with pytest.raises(LookupError, match="half way"):
        await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert await reasons(sessions) == [None]


async def test_a_logout_that_ends_in_an_error_still_clears_the_cookie(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.end_session(scope)
        await respond(send, 500)

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST", cookie=cookie))
    assert cookies(sent) == ["__Host-sid="]
    assert await reasons(sessions) == ["logout"]


async def test_a_renewal_that_ends_in_an_error_leaves_the_old_secret_good(
    sessions: Sessions,
) -> None:
    sid, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.renew_session(scope)
        await respond(send, 500)

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST", cookie=cookie))
    assert cookies(sent) == []
    assert await reasons(sessions) == [None]
    scope = http(cookie=cookie)
    await call(SessionMiddleware(respond_only, sessions=sessions), scope)
    assert scope["state"]["sid"] == sid


async def respond_only(scope: Scope, receive: Receive, send: Send) -> None:
    """An app that does nothing of its own."""
    await respond(send)


async def test_first_requests_that_fail_do_not_add_up_to_rows(sessions: Sessions) -> None:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send, 500)

    app = Vouch(SessionMiddleware(failing, sessions=sessions))
    for _ in range(3):
        sent = await call(app, http(**vouched("ann")))
        assert cookies(sent) == []
    assert await reasons(sessions) == [None]


@pytest.mark.parametrize("before", [False, True], ids=["only login", "second login"])
async def test_a_login_that_the_app_gave_up_on_is_not_delivered(
    sessions: Sessions, *, before: bool
) -> None:
    written = asyncio.Event()
    insert = store_of(sessions).insert

    async def answered_too_late(*arguments: Any, **options: Any) -> Any:
        await insert(*arguments, **options)
        written.set()
        await asyncio.Future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if before:
            await sessions.start_session(scope, {"id": "ann"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(store_of(sessions), "insert", answered_too_late)
            login = asyncio.create_task(sessions.start_session(scope, {"id": "ann"}))
            await written.wait()
            login.cancel()  # as a timeout of the app's own does
            await asyncio.wait([login])
        await respond(send, 200, b"try again later")

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert sent[0]["status"] == 200
    assert await reasons(sessions) == ["not_delivered", *(["replaced"] if before else [])]


async def test_a_login_that_was_not_delivered_is_the_end_even_if_the_row_cannot_be_ended(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def gone(*arguments: object, **options: object) -> None:
        raise SessionsUnavailable("the database has just gone")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        monkeypatch.setattr(store_of(sessions), "end", gone)
        await respond(send, 500)

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert sent[0]["status"] == 500
    assert cookies(sent) == []
    assert "could not be ended" in caplog.text


# --- among other layers ---------------------------------------------------------------------------


class LogsIn(BaseHTTPMiddleware):
    """Logs in from a middleware, before or after the app has answered."""

    def __init__(self, app: ASGIApp, sessions: Sessions) -> None:
        super().__init__(app)
        self.sessions = sessions

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        if request.headers.get("x-log-in") == "before":
            await self.sessions.start_session(request, {"id": "ann"})
        response = await call_next(request)
        if request.headers.get("x-log-in") == "after":
            await self.sessions.start_session(request, {"id": "ann"})
        return response


OURS = "ours"
NEIGHBOURS = {
    "base": Middleware(Passes),
    "gzip": Middleware(GZipMiddleware, minimum_size=10),
    "signed cookie": Middleware(SignedCookieMiddleware, secret_key="abcdefgh" * 4),
}


@pytest.mark.parametrize("neighbour", NEIGHBOURS.values(), ids=NEIGHBOURS.keys())
@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
async def test_other_layers_may_stand_on_either_side(
    sessions: Sessions, neighbour: Middleware, *, outside: bool
) -> None:
    ours = Middleware(SessionMiddleware, sessions=sessions)
    layers = [ours, neighbour] if outside else [neighbour, ours]
    async with Browser(layered(sessions, *layers)) as browser:
        response = await browser.post("/login?person=ann")
        assert len(set_cookies(response)) == 1
        sid = response.json()["sid"]
        assert (await browser.see())["sid"] == sid

        big = await browser.get("/big")
        assert big.text == "x" * 5000
        vary = [part.strip() for part in big.headers["vary"].lower().split(",")]
        assert vary.count("cookie") == 1
        assert "accept-language" in vary
        assert set_cookies(big) == []

        response = await browser.post("/end-session")
        assert response.json() == {"message": "session ended"}
        assert len(set_cookies(response)) == 1
        assert (await browser.see())["sid"] is None
    assert await reasons(sessions) == ["logout"]


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
async def test_an_app_that_raises_under_base_http_middleware_delivers_nothing(
    sessions: Sessions, *, outside: bool
) -> None:
    async def broken(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        raise LookupError("no template")

    ours, base = Middleware(SessionMiddleware, sessions=sessions), Middleware(Passes)
    app = make_app(sessions, Route("/broken", broken, methods=["POST"]))
    app.user_middleware = [ours, base] if outside else [base, ours]
    async with Browser(app) as browser:
        with pytest.raises(LookupError, match="no template"):
            await browser.post("/broken")
    assert await reasons(sessions) == ["not_delivered"]


async def test_a_layer_inside_can_log_in_before_and_after_the_app(sessions: Sessions) -> None:
    ours = Middleware(SessionMiddleware, sessions=sessions)
    app = layered(sessions, ours, Middleware(LogsIn, sessions=sessions))
    for when in ("before", "after"):
        async with Browser(app) as browser:
            response = await browser.get("/big", headers={"x-log-in": when})
            assert len(set_cookies(response)) == 1
            assert (await browser.see())["person_id"] == "ann"


async def test_a_layer_outside_is_told_that_it_comes_too_early_or_too_late(
    sessions: Sessions,
) -> None:
    ours = Middleware(SessionMiddleware, sessions=sessions)
    app = layered(sessions, Middleware(LogsIn, sessions=sessions), ours)
    async with Browser(app) as browser:
        with pytest.raises(ConfigurationError, match="did not pass through SessionMiddleware"):
            await browser.get("/big", headers={"x-log-in": "before"})
        with pytest.raises(ConfigurationError, match="response has begun"):
            await browser.get("/big", headers={"x-log-in": "after"})
    assert await reasons(sessions) == []


async def test_installed_twice_it_works_once(sessions: Sessions) -> None:
    ours = Middleware(SessionMiddleware, sessions=sessions)
    async with Browser(layered(sessions, ours, ours)) as browser:
        response = await browser.post("/login?person=ann")
        assert len(set_cookies(response)) == 1
        assert (await browser.see())["sid"] == response.json()["sid"]
    assert await reasons(sessions) == [None]


async def test_two_sessions_of_different_names_share_an_app(make_sessions: MakeSessions) -> None:
    staff = await make_sessions(app_id="staff", cookie_name="staff")
    shop = await make_sessions(app_id="shop", cookie_name="shop")

    async def both(request: Request) -> Response:
        await staff.start_session(request, {"id": "ann"})
        await shop.start_session(request, {"id": "ann"})
        return PlainTextResponse("")

    async def sids(request: Request) -> Response:
        ended = [await one.end_session(request) for one in (staff, shop)]
        return JSONResponse([session and session.app_id for session in ended])

    app = Starlette(routes=[Route("/both", both), Route("/sids", sids)])
    app.add_middleware(SessionMiddleware, sessions=staff)
    app.add_middleware(SessionMiddleware, sessions=shop)
    async with Browser(app) as browser:
        response = await browser.get("/both")
        assert len(set_cookies(response, "__Host-staff")) == 1
        assert len(set_cookies(response, "__Host-shop")) == 1
        assert (await browser.get("/sids")).json() == ["staff", "shop"]


async def test_a_mounted_app_shares_the_session_of_the_app_around_it(sessions: Sessions) -> None:
    inner = make_app(sessions)  # has the middleware too
    outer = make_app(sessions, Mount("/inner", inner))
    async with Browser(outer) as browser:
        response = await browser.post("/inner/login?person=ann")
        assert len(set_cookies(response)) == 1
        sid = response.json()["sid"]
        assert (await browser.see())["sid"] == sid
        assert (await browser.get("/inner/")).json()["sid"] == sid
        response = await browser.post("/inner/end-session")
        assert len(set_cookies(response)) == 1
        assert (await browser.see())["sid"] is None
    assert await reasons(sessions) == ["logout"]


async def test_only_a_mounted_app_may_have_sessions(sessions: Sessions) -> None:
    inner = make_app(sessions)

    async def home(request: Request) -> Response:
        return JSONResponse(hasattr(request.state, "sid"))

    outer = Starlette(routes=[Mount("/inner", inner), Route("/", home)])
    async with Browser(outer) as browser:
        await browser.post("/inner/login?person=ann")
        assert (await browser.get("/inner/")).json()["person_id"] == "ann"
        assert (await browser.get("/")).json() is False


# --- who is told ----------------------------------------------------------------------------------


async def test_a_handler_may_wait_and_nobody_waits_for_it(make_sessions: MakeSessions) -> None:
    go, told = asyncio.Event(), list[str]()

    async def mail(event: SessionEvent) -> None:
        await go.wait()
        told.append(event.kind)

    sessions = await make_sessions(on_event=mail)
    async with Browser(make_app(sessions)) as browser:
        await browser.login("ann")
        await browser.post("/logout")
        assert told == []
        go.set()
    await sessions.disconnect()  # finishes what is under way
    assert sorted(told) == ["ended", "started"]
