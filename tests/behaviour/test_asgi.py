"""ASGI manners, with raw events: what passes through, what is sent when, who is told."""

from __future__ import annotations

import asyncio
import gc
import logging
import sqlite3
import threading
import types
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterable,
    Iterator,
)
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

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
from asgi_sessions.testing import logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, Vouch, make_app, set_cookies, touched, vouched

#: Nothing here takes longer; what does, hangs.
SECONDS = 10

# --- the server's side ----------------------------------------------------------------------------


def http(
    method: str = "GET", path: str = "/", *, cookie: str | None = None, **headers: str
) -> Scope:
    """The scope of a request."""
    fields = {"host": "test", "user-agent": "Firefox", **headers}
    if cookie is not None:
        fields["cookie"] = cookie
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.4"},
        "http_version": "1.1",
        "method": method,
        "scheme": "https",
        "path": path.partition("?")[0],
        "raw_path": path.encode(),
        "query_string": path.partition("?")[2].encode(),
        "root_path": "",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in fields.items()],
        "client": ("192.0.2.1", 4711),
        "server": ("test", 443),
    }


def websocket(*, cookie: str | None = None, denial: bool = False) -> Scope:
    """The scope of a WebSocket; with `denial`, of a server that can send a response instead."""
    scope = {**http(cookie=cookie), "type": "websocket", "scheme": "wss", "subprotocols": []}
    del scope["method"]
    scope["extensions"] = {"websocket.http.response": {}} if denial else {}
    return scope


async def call(app: ASGIApp, scope: Scope) -> list[Message]:
    """Serve one request without a body; what was sent."""
    sent: list[Message] = []
    incoming = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Message:
        for message in incoming:
            return message
        return await asyncio.Future()  # the client neither speaks nor goes

    async def send(message: Message) -> None:
        sent.append(message)

    async with asyncio.timeout(SECONDS):
        await app(scope, receive, send)
        await touched()
    return sent


def field(message: Message, name: str) -> list[str]:
    """The values of a header on the start of a response."""
    return [v.decode() for k, v in message.get("headers", ()) if k.decode().lower() == name]


def cookies(messages: Iterable[Message]) -> list[str]:
    """The cookies of ours on all of these messages, without their attributes."""
    values = [value for message in messages for value in field(message, "set-cookie")]
    return [value.partition(";")[0] for value in values if value.startswith("__Host-sid=")]


async def respond(send: Send, status: int = 200, *body: bytes) -> None:
    """A response in as many pieces as given."""
    await send({"type": "http.response.start", "status": status, "headers": []})
    for piece in body:
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def logs_in(sessions: Sessions, person: str = "ann", status: int = 200) -> ASGIApp:
    """An app that logs a person in with whatever is asked of it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": person})
        await respond(send, status, b"welcome")

    return SessionMiddleware(app, sessions=sessions)


async def log_in(sessions: Sessions, person: str = "ann") -> tuple[str, str]:
    """A new session: its sid, and the Cookie header of the browser that holds it."""
    ((name, value),) = (await logged_in_cookie(sessions, person)).items()
    return value.partition(".")[0], f"{name}={value}"


async def reasons(sessions: Sessions, person: str = "ann") -> list[str | None]:
    """Why each session of a person has ended, sorted; None, first of all, for a live one."""
    listed = await sessions.list_sessions(person, include_ended=True)
    return sorted((session.end_reason for session in listed), key=lambda reason: reason or "")


class Peer:
    """The browser's end of a WebSocket, as an async context."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._app = app
        self._scope = scope
        self._inbox: asyncio.Queue[Message] = asyncio.Queue()
        self._outbox: asyncio.Queue[Message] = asyncio.Queue()
        self.task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        async def serve() -> None:
            await self._app(self._scope, self._inbox.get, self._outbox.put)

        self.task = asyncio.create_task(serve())
        self.says({"type": "websocket.connect"})
        return self

    async def __aexit__(self, *fault: object) -> None:
        assert self.task is not None
        if fault[0] is not None:
            self.task.cancel()
        async with asyncio.timeout(SECONDS):
            await asyncio.wait([self.task])
        if fault[0] is None:
            self.task.result()
            assert self._outbox.empty(), self._outbox.get_nowait()

    def says(self, message: Message) -> None:
        """Something from the browser."""
        self._inbox.put_nowait(message)

    async def gets(self) -> Message:
        """The next thing for the browser."""
        async with asyncio.timeout(SECONDS):
            return await self._outbox.get()


ENDED = {"type": "websocket.close", "code": 1008, "reason": "session ended"}


def watched_sids(sessions: Sessions) -> list[str]:
    """The sessions on which something is open, in any event loop."""
    return [sid for here in sessions._core.live_connections._loops.values() for sid in here.open]


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
    insert = sessions._core.store.insert

    async def answered_too_late(*arguments: Any, **options: Any) -> Any:
        await insert(*arguments, **options)
        written.set()
        await asyncio.Future()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if before:
            await sessions.start_session(scope, {"id": "ann"})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sessions._core.store, "insert", answered_too_late)
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
        monkeypatch.setattr(sessions._core.store, "end", gone)
        await respond(send, 500)

    sent = await call(SessionMiddleware(app, sessions=sessions), http("POST"))
    assert sent[0]["status"] == 500
    assert cookies(sent) == []
    assert "could not be ended" in caplog.text


# --- cancelled, or left ---------------------------------------------------------------------------


@types.coroutine
def cancelled_at(n: int, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, bool]:
    """Run a coroutine whose task is cancelled while it waits for the `n`th time; whether it was."""
    steps = work.__await__()
    waits, fault = 0, None
    while True:
        try:
            waited_for = steps.send(None) if fault is None else steps.throw(fault)
        except StopIteration:
            return waits >= n
        except asyncio.CancelledError:
            if waits < n:
                raise
            return True
        waits += 1
        if waits == n:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield waited_for
        except BaseException as thrown:  # noqa: BLE001 -- handed on
            fault = thrown
        else:
            fault = None


def connection_threads() -> set[threading.Thread]:
    """One for each connection that aiosqlite has open."""
    return {t for t in threading.enumerate() if "_connection_worker" in t.name}


async def nothing_leaks(sessions: Sessions, before: set[threading.Thread]) -> None:
    """Disconnect; no connection may be left."""
    async with asyncio.timeout(SECONDS):
        await sessions.disconnect()
    for thread in connection_threads() - before:
        thread.join(SECONDS)
        assert not thread.is_alive()


async def anonymous(sessions: Sessions) -> dict[str, Any]:
    return {"method": "POST", "path": "/login?person=ann"}


async def over_a_live_session(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"method": "POST", "path": "/login?person=ann", "cookie": cookie}


async def as_somebody_else(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"cookie": cookie, **vouched("bob")}


async def renewing(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"method": "POST", "path": "/renew", "cookie": cookie}


async def logging_out(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"method": "POST", "path": "/end-session", "cookie": cookie}


async def vouched_for(sessions: Sessions) -> dict[str, Any]:
    return vouched("ann")


Arrange = Callable[[Sessions], Awaitable[dict[str, Any]]]
ARRANGES = [anonymous, over_a_live_session, as_somebody_else, renewing, logging_out, vouched_for]


async def delivered_or_dead(sessions: Sessions, handed_out: set[str]) -> None:
    """Each live session has a cookie somewhere; those by device are one per device."""
    for person in ("ann", "bob"):
        live = await sessions.list_sessions(person)
        by_device = [session for session in live if session.origin == "scope"]
        assert len(by_device) <= 1
        assert {session.id for session in live if session.origin == "login"} <= handed_out


@pytest.mark.parametrize("arrange", ARRANGES, ids=lambda arrange: str(arrange.__name__))
async def test_cancelled_at_any_await_no_row_is_live_without_its_cookie(
    make_sessions: MakeSessions, clock: Clock, arrange: Arrange
) -> None:
    before = connection_threads()
    sessions = await make_sessions()
    app = make_app(sessions)
    handed_out: set[str] = set()

    async def receive() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        await asyncio.sleep(0)  # the client reads slowly
        handed_out.update(c.partition("=")[2].partition(".")[0] for c in cookies([message]))

    cancelled, n = True, 0
    while cancelled:
        n += 1
        clock.turn(timedelta(seconds=61))  # a touch is due
        options = await arrange(sessions)
        handed_out.update(session.id for session in await sessions.list_sessions("ann"))
        scope = http(**options)

        async def request(scope: Scope = scope, n: int = n) -> bool:
            work = app(scope, receive, send)
            assert isinstance(work, Coroutine)
            return await cancelled_at(n, work)

        async with asyncio.timeout(SECONDS):
            cancelled = await asyncio.create_task(request())
            await sessions._core.background.settle()
        await delivered_or_dead(sessions, handed_out)
        for person in ("ann", "bob"):
            await sessions.end_all_sessions(person)
    assert n >= 4, "so few awaits?"
    await nothing_leaks(sessions, before)


@pytest.mark.parametrize("arrange", ARRANGES, ids=lambda arrange: str(arrange.__name__))
@pytest.mark.parametrize("lost", ["http.response.start", "http.response.body"])
async def test_a_client_that_has_gone_leaves_no_row_live_without_its_cookie(
    make_sessions: MakeSessions, arrange: Arrange, lost: str
) -> None:
    before = connection_threads()
    sessions = await make_sessions()
    handed_out: set[str] = set()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == lost:
            raise OSError("connection lost")
        handed_out.update(c.partition("=")[2].partition(".")[0] for c in cookies([message]))

    options = await arrange(sessions)
    handed_out.update(session.id for session in await sessions.list_sessions("ann"))
    with pytest.raises(OSError, match="connection lost"):
        await make_app(sessions)(http(**options), receive, send)
    await sessions._core.background.settle()
    await delivered_or_dead(sessions, handed_out)
    await nothing_leaks(sessions, before)


async def test_a_handshake_cancelled_at_any_await_leaves_no_row_live_without_its_cookie(
    make_sessions: MakeSessions,
) -> None:
    before = connection_threads()
    sessions = await make_sessions()
    handed_out: set[str] = set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await sessions.start_session(scope, {"id": "ann"})
        await send({"type": "websocket.accept"})
        await receive()

    middleware = SessionMiddleware(app, sessions=sessions)

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        handed_out.update(c.partition("=")[2].partition(".")[0] for c in cookies([message]))

    cancelled, n = True, 0
    while cancelled:
        n += 1
        incoming = iter(("websocket.connect", "websocket.disconnect"))

        async def receive(incoming: Iterator[str] = incoming) -> Message:
            await asyncio.sleep(0)
            return {"type": next(incoming)}

        async def handshake(receive: Receive = receive, n: int = n) -> bool:
            return await cancelled_at(n, middleware(websocket(), receive, send))

        async with asyncio.timeout(SECONDS):
            cancelled = await asyncio.create_task(handshake())
            await sessions._core.background.settle()
        await delivered_or_dead(sessions, handed_out)
        await sessions.end_all_sessions("ann")
    assert n >= 4, "so few awaits?"
    assert watched_sids(sessions) == []
    await nothing_leaks(sessions, before)


# --- among other layers ---------------------------------------------------------------------------


class Passes(BaseHTTPMiddleware):
    """The middleware that others write: sees the state, adds a header."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-sid-after"] = str(getattr(request.state, "sid", None))
        return response


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


def layered(sessions: Sessions, *layers: Middleware) -> Starlette:
    """The routes of `make_app` behind these layers, the first outermost."""

    async def big(request: Request) -> Response:
        return PlainTextResponse("x" * 5000, headers={"vary": "Accept-Language"})

    app = make_app(sessions, Route("/big", big))
    app.user_middleware = list(layers)
    return app


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


# --- WebSockets -----------------------------------------------------------------------------------


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, tells the sid, repeats what it hears until the browser goes."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(scope["state"]["sid"])})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    scope["state"]["left"] = message


async def test_a_websocket_resumes_like_a_request(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with Peer(app, websocket(cookie=cookie)) as peer:
        accept = await peer.gets()
        assert field(accept, "set-cookie") == []
        assert (await peer.gets())["text"] == sid
        peer.says({"type": "websocket.receive", "text": "hello"})
        assert (await peer.gets())["text"] == "hello"
        peer.says({"type": "websocket.disconnect", "code": 1001})
    assert await reasons(sessions) == [None]
    assert watched_sids(sessions) == []


async def test_a_websocket_without_a_session_is_left_alone(sessions: Sessions) -> None:
    app = SessionMiddleware(echo, sessions=sessions)
    async with Peer(app, websocket()) as peer:
        assert await peer.gets() == {"type": "websocket.accept"}
        assert (await peer.gets())["text"] == "None"
        assert watched_sids(sessions) == []
        peer.says({"type": "websocket.disconnect", "code": 1001})


async def test_a_login_before_accept_puts_the_cookie_on_the_handshake(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await echo(scope, receive, send)

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket()) as peer:
        accept = await peer.gets()
        sid = (await peer.gets())["text"]
        (cookie,) = cookies([accept])
        assert cookie.startswith(f"__Host-sid={sid}.")
        # It is watched from then on.
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED


async def test_a_login_over_a_live_session_keeps_the_socket(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await echo(scope, receive, send)

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        accept = await peer.gets()
        assert accept["type"] == "websocket.accept"
        assert len(cookies([accept])) == 1
        sid = (await peer.gets())["text"]
        assert await reasons(sessions) == [None, "replaced"]
        peer.says({"type": "websocket.receive", "text": "still here"})
        assert (await peer.gets())["text"] == "still here"
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED
    assert watched_sids(sessions) == []


async def test_a_login_after_accept_is_refused(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        with pytest.raises(ConfigurationError, match="before the response"):
            await sessions.start_session(scope, {"id": "ann"})
        await send({"type": "websocket.close", "code": 1000})

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket()) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        assert (await peer.gets())["type"] == "websocket.close"
    assert await reasons(sessions) == []


@pytest.mark.parametrize("answer", ["close", "denial", "raise"])
async def test_a_handshake_that_fails_after_a_login_delivers_nothing(
    sessions: Sessions, answer: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        if answer == "raise":
            raise LookupError("no such room")
        if answer == "close":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "websocket.http.response.start", "status": 500, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b""})

    async def run() -> list[Message]:
        return await call(SessionMiddleware(app, sessions=sessions), websocket(denial=True))

    if answer == "raise":
        with pytest.raises(LookupError, match="no such room"):
            await run()
    else:
        assert cookies(await run()) == []
    assert await reasons(sessions) == ["not_delivered"]


async def test_a_denial_can_carry_the_cookie(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})

    sent = await call(SessionMiddleware(app, sessions=sessions), websocket(denial=True))
    assert len(cookies(sent)) == 1
    assert await reasons(sessions) == [None]


async def test_ended_here_a_socket_closes_at_once_and_the_app_is_told(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with Peer(app, scope := websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED
    assert scope["state"]["left"]["type"] == "websocket.disconnect"
    assert scope["state"]["left"]["code"] == 1008


async def test_ended_here_every_socket_of_the_session_closes_and_no_other(
    sessions: Sessions,
) -> None:
    sid, cookie = await log_in(sessions)
    _, other_cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with (
        Peer(app, websocket(cookie=cookie)) as one,
        Peer(app, websocket(cookie=cookie)) as two,
        Peer(app, websocket(cookie=other_cookie)) as other,
    ):
        for peer in (one, two, other):
            await peer.gets()
            await peer.gets()
        await sessions.end_session_by_id(sid)
        assert await one.gets() == ENDED
        assert await two.gets() == ENDED
        other.says({"type": "websocket.receive", "text": "still here"})
        assert (await other.gets())["text"] == "still here"
        other.says({"type": "websocket.disconnect", "code": 1000})


async def test_a_logout_from_the_socket_closes_it(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await sessions.end_session(scope)
        assert scope["state"]["sid"] is None
        assert (await receive())["type"] == "websocket.disconnect"

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        assert await peer.gets() == ENDED
    assert await reasons(sessions) == ["logout"]


async def test_a_session_that_ends_before_accept_opens_no_socket(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    inside, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        inside.set()
        await ended.wait()
        await send({"type": "websocket.accept"})
        raise AssertionError("accepted")

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await inside.wait()
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED  # a server makes 403 of it
        ended.set()


async def test_an_app_that_only_sends_is_stopped_too(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    faults: list[BaseException] = []
    more = asyncio.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await more.acquire()
                await send({"type": "websocket.send", "text": "tick"})
        except OSError as fault:  # as on a connection that was lost
            faults.append(fault)
            raise

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        more.release()
        assert (await peer.gets())["text"] == "tick"
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED
        more.release()
    assert [str(fault) for fault in faults] == ["session ended"]


async def test_what_the_app_closes_itself_is_closed_once(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    closed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})
        await sessions.end_session_by_id(sid)
        await closed.wait()

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        assert await peer.gets() == {"type": "websocket.close", "code": 4000}
        closed.set()


async def test_an_app_may_close_after_the_session_has(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        await send({"type": "websocket.close", "code": 1000})

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED


async def test_after_the_browser_has_gone_nothing_is_sent(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert await receive() == {"type": "websocket.disconnect", "code": 1001}
        await sessions.end_session_by_id(sid)
        await gone.wait()

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        peer.says({"type": "websocket.disconnect", "code": 1001})
        gone.set()


async def test_a_message_that_was_waited_for_in_vain_is_not_lost(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()  # as a timeout does
        await asyncio.wait([waiting])
        await send({"type": "websocket.send", "text": "now"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await receive()

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        assert (await peer.gets())["text"] == "now"
        peer.says({"type": "websocket.receive", "text": "hello"})
        assert (await peer.gets())["text"] == "hello"
        peer.says({"type": "websocket.disconnect", "code": 1000})


async def test_ended_in_another_process_a_socket_closes_with_the_next_check(
    make_sessions: MakeSessions,
) -> None:
    sessions, elsewhere = await make_sessions(), await make_sessions()
    sid, cookie = await log_in(sessions)
    _, other_cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with (
        Peer(app, websocket(cookie=cookie)) as peer,
        Peer(app, websocket(cookie=other_cookie)) as other,
    ):
        for one in (peer, other):
            await one.gets()
            await one.gets()
        await sessions._core.live_connections.check()
        await elsewhere.end_session_by_id(sid)
        await sessions._core.live_connections.check()
        assert await peer.gets() == ENDED
        other.says({"type": "websocket.receive", "text": "still here"})
        assert (await other.gets())["text"] == "still here"
        other.says({"type": "websocket.disconnect", "code": 1000})


async def test_sockets_are_checked_again_and_again(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(socket_check_interval=timedelta(milliseconds=5))
    elsewhere = await make_sessions()
    sid, cookie = await log_in(sessions)
    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        await elsewhere.end_session_by_id(sid)
        assert await peer.gets() == ENDED
    assert watched_sids(sessions) == []


async def test_a_session_that_runs_out_closes_its_sockets(sessions: Sessions, clock: Clock) -> None:
    _, cookie = await log_in(sessions)
    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        clock.turn(timedelta(days=14))
        await sessions._core.live_connections.check()
        assert await peer.gets() == ENDED


async def test_what_the_browser_says_keeps_the_session_alive(
    sessions: Sessions, clock: Clock
) -> None:
    sid, cookie = await log_in(sessions)
    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        for _ in range(3):
            clock.turn(timedelta(days=9))
            peer.says({"type": "websocket.receive", "text": "hello"})
            await peer.gets()
            await sessions._core.background.settle()
            await sessions._core.live_connections.check()
        peer.says({"type": "websocket.disconnect", "code": 1000})
    session = await sessions.get_by_id(sid)
    assert session is not None
    assert session.last_seen_at == clock.now


async def test_an_outage_closes_no_socket(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _, cookie = await log_in(sessions)

    async def gone(*arguments: object) -> None:
        raise SessionsUnavailable("no database")

    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        with monkeypatch.context() as patch:
            patch.setattr(sessions._core.store, "living", gone)
            await sessions._core.live_connections.check()
        assert "could not be checked" in caplog.text
        peer.says({"type": "websocket.receive", "text": "still here"})
        assert (await peer.gets())["text"] == "still here"
        peer.says({"type": "websocket.disconnect", "code": 1000})


# --- the database does not answer -----------------------------------------------------------------


class Outage:
    """Sessions whose database directory is missing until `end`; and two cookies that are good."""

    def __init__(self, directory: Path, sessions: Sessions, cookies: list[str], sid: str) -> None:
        self._directory = directory
        self.sessions = sessions
        self.cookie, self.other_cookie = cookies
        self.sid = sid

    def end(self) -> None:
        """The database is back."""
        self._directory.with_name("away").rename(self._directory)


@asynccontextmanager
async def outage(tmp_path: Path, **options: Any) -> AsyncIterator[Outage]:
    """Log ann in, then take the database away."""
    directory = tmp_path / "data"
    directory.mkdir()
    url = f"sqlite:///{directory}/sessions.db"
    async with Sessions(url, secret_key="abcdefgh" * 4) as before:
        await before.create_tables()
        sid, cookie = await log_in(before)
        _, other_cookie = await log_in(before, "bob")
    directory.rename(directory.with_name("away"))
    sessions = Sessions(url, secret_key="abcdefgh" * 4, **options)
    try:
        yield Outage(directory, sessions, [cookie, other_cookie], sid)
    finally:
        await sessions.disconnect()
        # Where a connection failed, aiosqlite does not wait for its thread.
        for thread in connection_threads():
            await asyncio.to_thread(thread.join, SECONDS)


async def test_an_outage_is_a_503_that_leaves_the_cookie(tmp_path: Path) -> None:
    async with outage(tmp_path) as out:
        app = make_app(out.sessions)
        for options in ({"cookie": out.cookie}, vouched("ann")):
            start, body = await call(app, http(**options))
            assert start["status"] == 503
            assert field(start, "retry-after") == ["1"]
            assert field(start, "cache-control") == ["no-store"]
            assert field(start, "set-cookie") == []
            assert body["body"] == b"Service Unavailable"

        sent = await call(app, http())  # neither cookie nor person
        assert sent[0]["status"] == 200

        out.end()
        scope = http(cookie=out.cookie)
        assert (await call(app, scope))[0]["status"] == 200
        assert scope["state"]["sid"] == out.sid


async def test_no_lookup_of_a_request_fails_unheard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    # A record would keep the faults alive.
    monkeypatch.setattr(logging.getLogger("asgi_sessions.database"), "disabled", True)
    async with outage(tmp_path) as out:
        scope = http(cookie=f"{out.cookie}; {out.other_cookie}")
        sent = await call(make_app(out.sessions), scope)
        assert sent[0]["status"] == 503
    gc.collect()
    assert unheard == []


async def test_an_outage_can_mean_no_session_and_nobody_signed_in(tmp_path: Path) -> None:
    async with outage(tmp_path, on_unavailable="anonymous") as out:
        app = make_app(out.sessions)
        for options in ({"cookie": out.cookie}, {"cookie": out.cookie, **vouched("ann")}):
            scope = http(**options)
            sent = await call(app, scope)
            assert sent[0]["status"] == 200
            assert cookies(sent) == []
            assert scope["state"]["sid"] is None
            assert "person" not in scope["state"]
            assert not getattr(scope.get("user"), "is_authenticated", False)

        out.end()
        scope = http(cookie=out.cookie)
        await call(app, scope)
        assert scope["state"]["sid"] == out.sid


@pytest.mark.parametrize("mode", ["error", "anonymous"])
async def test_a_handler_that_cannot_start_a_session_answers_503(tmp_path: Path, mode: str) -> None:
    async with outage(tmp_path, on_unavailable=mode) as out:
        sent = await call(make_app(out.sessions), http("POST", "/login?person=ann"))
        assert sent[0]["status"] == 503
        assert field(sent[0], "retry-after") == ["1"]
        assert field(sent[0], "set-cookie") == []
        out.end()
        assert await reasons(out.sessions) == [None]  # the one from before


@pytest.mark.parametrize("outside", [True, False], ids=["outside", "inside"])
async def test_so_it_does_behind_base_http_middleware(tmp_path: Path, *, outside: bool) -> None:
    async with outage(tmp_path) as out:
        ours, base = Middleware(SessionMiddleware, sessions=out.sessions), Middleware(Passes)
        app = layered(out.sessions, *([ours, base] if outside else [base, ours]))
        sent = await call(app, http("POST", "/login?person=ann"))
        assert sent[0]["status"] == 503
        assert field(sent[0], "retry-after") == ["1"]


async def test_an_outage_in_the_middle_of_a_response_is_the_apps(tmp_path: Path) -> None:
    async with outage(tmp_path) as out:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await out.sessions.end_all_sessions("ann")

        with pytest.raises(SessionsUnavailable):
            await call(SessionMiddleware(app, sessions=out.sessions), http("POST"))


async def test_a_logout_in_an_outage_is_no_logout(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cookie = await log_in(sessions)

    async def gone(*arguments: object, **options: object) -> None:
        raise SessionsUnavailable("no database")

    with monkeypatch.context() as patch:
        patch.setattr(sessions._core.store, "end", gone)
        sent = await call(make_app(sessions), http("POST", "/end-session", cookie=cookie))
    assert sent[0]["status"] == 503
    assert cookies(sent) == []
    assert await reasons(sessions) == [None]


async def test_an_outage_refuses_a_handshake(tmp_path: Path) -> None:
    async with outage(tmp_path) as out:
        app = SessionMiddleware(echo, sessions=out.sessions)
        (close,) = await call(app, websocket(cookie=out.cookie))
        assert (close["type"], close["code"]) == ("websocket.close", 1013)

        start, body = await call(app, websocket(cookie=out.cookie, denial=True))
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)
        assert field(start, "retry-after") == ["1"]
        assert field(start, "set-cookie") == []
        assert body["type"] == "websocket.http.response.body"


async def test_an_outage_can_let_a_handshake_in_without_a_session(tmp_path: Path) -> None:
    async with outage(tmp_path, on_unavailable="anonymous") as out:
        app = SessionMiddleware(echo, sessions=out.sessions)
        async with Peer(app, websocket(cookie=out.cookie)) as peer:
            assert cookies([await peer.gets()]) == []
            assert (await peer.gets())["text"] == "None"
            peer.says({"type": "websocket.disconnect", "code": 1000})


async def test_an_outage_is_logged_once_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with outage(tmp_path) as out:
        app = make_app(out.sessions)
        for _ in range(3):
            await call(app, http(cookie=out.cookie))
        out.end()
        for _ in range(3):
            await call(app, http(cookie=out.cookie))
    ours = [r for r in caplog.records if r.name == "asgi_sessions.database"]
    about = [(r.levelno, r.getMessage()) for r in ours if "available" in r.getMessage()]
    assert [level for level, _ in about] == [logging.ERROR, logging.WARNING]
    assert "unavailable" in about[0][1]
    assert "available again" in about[1][1]


async def test_a_socket_that_the_app_has_closed_is_not_refused_after_that(tmp_path: Path) -> None:
    async with outage(tmp_path) as out:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "websocket.close", "code": 4000})
            await out.sessions.end_all_sessions("ann")

        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "websocket.connect"}

        async def send(message: Message) -> None:
            sent.append(message)

        with pytest.raises(SessionsUnavailable):
            await SessionMiddleware(app, sessions=out.sessions)(websocket(), receive, send)
        assert [message["code"] for message in sent] == [4000]


async def test_a_handshake_whose_login_fails_is_refused(tmp_path: Path) -> None:
    async with outage(tmp_path) as out:

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await out.sessions.start_session(scope, {"id": "ann"})

        middleware = SessionMiddleware(app, sessions=out.sessions)
        (close,) = await call(middleware, websocket())
        assert (close["type"], close["code"]) == ("websocket.close", 1013)
        start, _ = await call(middleware, websocket(denial=True))
        assert (start["type"], start["status"]) == ("websocket.http.response.start", 503)


# --- who is told ----------------------------------------------------------------------------------


async def test_each_step_is_told_once_it_is_done(make_sessions: MakeSessions) -> None:
    told: list[tuple[str, str, str | None]] = []

    def note(event: SessionEvent) -> None:
        told.append((event.kind, event.session.person_id, event.session.end_reason))

    sessions = await make_sessions(on_event=note)
    async with Browser(make_app(sessions)) as browser:
        await browser.login("ann")
        await browser.see()
        await browser.post("/renew")
        await browser.login("bob")
        await browser.post("/logout")
        await browser.post("/logout")
    assert told == [
        ("started", "ann", None),
        ("renewed", "ann", None),
        ("ended", "ann", "replaced"),
        ("started", "bob", None),
        ("ended", "bob", "logout"),
    ]


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


async def test_a_handler_that_fails_harms_nobody(
    make_sessions: MakeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails_later(event: SessionEvent) -> None:
        raise ValueError("the mail server is away")

    def fails(event: SessionEvent) -> None:
        raise ValueError("the mail server is away")

    for handler in (fails, fails_later):
        caplog.clear()
        sessions = await make_sessions(on_event=handler)
        async with Browser(make_app(sessions)) as browser:
            sid = await browser.login("ann")
            assert (await browser.see())["sid"] == sid
            await browser.post("/logout")
            assert (await browser.see())["sid"] is None
        await sessions.disconnect()
        assert caplog.text.count("the mail server is away") >= 2


async def test_what_is_told_and_logged_has_no_secret(
    make_sessions: MakeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "asgi_sessions")
    told: list[SessionEvent] = []
    sessions = await make_sessions(on_event=told.append)
    sid, cookie = await log_in(sessions)
    await call(make_app(sessions), http("POST", "/end-session", cookie=cookie))
    secret = cookie.split(".")[1]
    assert sid in caplog.text
    assert secret not in caplog.text + repr(told)
    ours = [record for record in caplog.records if record.name == "asgi_sessions.sessions"]
    assert [record.__dict__.get("sid") for record in ours] == [sid, sid]
