"""What is open ends with its session: responses that stream, and the check of all that is open.

What is open is told to end by hand here and there, as another process or another moment would do:
that has no public name.
"""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Self, cast

import pytest
from litestar import Litestar, get
from litestar.middleware import DefineMiddleware
from litestar.response import ServerSentEvent
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import Lifetimes, SessionMiddleware, Sessions
from tests.support import KEY, Clock
from tests.support.asgi import (
    SECONDS,
    Peer,
    behind,
    call,
    cookies,
    echo,
    http,
    log_in,
    respond,
    websocket,
)
from tests.support.inside import check_what_is_open, open_sids, opened, settled

HOUR = timedelta(hours=1)
EMPTY: Message = {"type": "http.response.body", "body": b"", "more_body": False}


@pytest.fixture
async def sessions(anyio_backend: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Sessions]:
    """Sessions whose streams end with them, on SQLite: no database is spoken to differently."""
    options: dict[str, Any] = {"secret_key": KEY, "clock": clock, "end_streams": True}
    async with Sessions(f"sqlite:///{tmp_path}/sessions.db", **options) as sessions:
        await sessions.create_tables()
        yield sessions


class Client(Peer):
    """The browser's end of a request."""

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        assert self._inbox.get_nowait() == {"type": "websocket.connect"}
        self.says({"type": "http.request", "body": b"", "more_body": False})
        return self

    async def streams(self) -> None:
        """It has started, and its first piece is there."""
        start = await self.gets()
        assert (start["type"], start["status"]) == ("http.response.start", 200)
        assert (await self.gets())["body"] == b"data: 1\n\n"


async def begin(send: Send, *headers: tuple[bytes, bytes], **more: object) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers, **more})
    await say(send, b"data: 1\n\n")


async def say(send: Send, body: bytes) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": True})


# --- how the app is told --------------------------------------------------------------------------


async def listens(receive: Receive, send: Send) -> None:
    """An app that waits for the browser to go."""
    await begin(send)
    while (await receive())["type"] != "http.disconnect":
        pass
    assert await receive() == {"type": "http.disconnect"}


async def talks(receive: Receive, send: Send) -> None:
    """An app that merely sends."""
    await begin(send)
    await say_on(send)


async def finishes(receive: Receive, send: Send) -> None:
    """An app that learns of the end elsewhere, and says its last word all the same."""
    await begin(send)
    while (await receive())["type"] != "http.disconnect":
        pass
    try:
        await send({"type": "http.response.body", "body": b"data: bye\n\n"})
    except OSError:
        raise AssertionError from None


async def gives_up(receive: Receive, send: Send) -> None:
    """An app whose tasks are told one by one."""
    await begin(send)
    async with asyncio.TaskGroup() as group:
        group.create_task(say_on(send))
        group.create_task(say_on(send))


async def says_it_in_other_words(receive: Receive, send: Send) -> None:
    """Starlette, where the server speaks ASGI 2.4."""
    await begin(send)
    try:
        await say_on(send)
    except OSError:
        raise ClientDisconnect from None


async def say_on(send: Send) -> None:
    while True:
        await asyncio.sleep(0)
        await say(send, b"")


@pytest.mark.parametrize("app", [listens, talks, finishes, gives_up, says_it_in_other_words])
async def test_a_stream_ends_cleanly_with_its_session(
    sessions: Sessions, app: Callable[[Receive, Send], Awaitable[None]]
) -> None:
    sid, cookie = await log_in(sessions)

    async def serve(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["state"]["sid"] == sid
        await app(receive, send)

    async with Client(behind(sessions, serve), http(cookie=cookie)) as client:
        await client.streams()
        assert open_sids(sessions) == [sid]
        await sessions.end_session_by_id(sid)
        sessions._core.live_connections.end(sid)  # as if told by another process, too
        while (message := await client.gets()).get("more_body"):
            assert message["body"] == b""
        assert message == EMPTY
    assert open_sids(sessions) == []


async def test_an_app_that_is_nowhere_near_is_told_when_it_comes_back(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    back = asyncio.Event()
    seen: list[object] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        await back.wait()
        seen.append(await receive())
        try:
            await say(send, b"a secret")
        except OSError as fault:
            seen.append(str(fault))

    async with Client(behind(sessions, app), http(cookie=cookie)) as client:
        await client.streams()
        await sessions.end_session_by_id(sid)
        assert await client.gets() == EMPTY  # the browser does not wait for the app
        back.set()
    assert seen == [{"type": "http.disconnect"}, "session ended"]


async def test_what_is_under_way_goes_first(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    sent: list[Message] = []
    stuck, free = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        await say(send, b"data: 2\n\n")

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        if message.get("body") == b"data: 2\n\n":
            stuck.set()
            await free.wait()  # the browser does not read
        sent.append(message)

    task = asyncio.ensure_future(behind(sessions, app)(http(cookie=cookie), receive, send))
    async with asyncio.timeout(SECONDS):
        await stuck.wait()
        await sessions.end_session_by_id(sid)
        await asyncio.sleep(0)
        assert len(sent) == 2
        free.set()
        await task
    assert [message["body"] for message in sent[1:]] == [b"data: 1\n\n", b"data: 2\n\n", b""]


async def test_announced_trailers_are_sent(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    trailers: Message = {"type": "http.response.trailers", "headers": [], "more_trailers": False}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send, trailers=True)
        if scope["path"] == "/all":
            await send(EMPTY)
            await send({**trailers, "more_trailers": True})
            await send(trailers)
            await sessions.end_session_by_id(sid)
        await receive()
        await receive()

    async with Client(behind(sessions, app), http(cookie=cookie)) as client:
        await client.streams()
        await sessions.end_session_by_id(sid)
        assert [await client.gets(), await client.gets()] == [EMPTY, trailers]
    sid, cookie = await log_in(sessions)
    async with Client(behind(sessions, app), http(path="/all", cookie=cookie)) as client:
        await client.streams()
        rest = [await client.gets() for _ in range(3)]
        assert rest == [EMPTY, {**trailers, "more_trailers": True}, trailers]


async def test_an_end_after_the_last_word_changes_nothing(sessions: Sessions) -> None:
    """As in a task of Starlette's that runs behind the response."""
    sid, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        await send(EMPTY)
        await sessions.end_session_by_id(sid)
        while (await receive())["type"] != "http.disconnect":
            pass

    async with Client(behind(sessions, app), http(cookie=cookie)) as client:
        await client.streams()
        assert await client.gets() == EMPTY


@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_browser_that_has_gone_needs_no_farewell(sessions: Sessions, kind: str) -> None:
    sid, cookie = await log_in(sessions)
    scope = http(cookie=cookie) if kind == "http" else websocket(cookie=cookie)
    gone = False

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if kind == "http":
            await begin(send)
        await sessions.end_session_by_id(sid)
        assert (await receive())["type"] == f"{kind}.disconnect"

    async def receive() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        nonlocal gone
        if message.get("body") != b"data: 1\n\n" and message["type"] != "http.response.start":
            gone = True
            raise OSError("gone")  # as servers say since ASGI 2.4

    async with asyncio.timeout(SECONDS):
        await behind(sessions, app)(scope, receive, send)
    assert gone


@pytest.mark.parametrize("ended", [True, False])
async def test_other_faults_of_the_app_are_raised(sessions: Sessions, *, ended: bool) -> None:
    sid, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        if ended:
            await sessions.end_session_by_id(sid)
            assert (await receive())["type"] == "http.request"
            assert (await receive())["type"] == "http.disconnect"
            raise ExceptionGroup("both", [ClientDisconnect(), ZeroDivisionError()])
        raise ClientDisconnect

    async def see() -> None:
        async with Client(behind(sessions, app), http(cookie=cookie)) as client:
            await client.streams()
            if ended:
                assert await client.gets() == EMPTY

    with pytest.raises(ExceptionGroup if ended else ClientDisconnect):
        await see()
    assert open_sids(sessions) == []


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize("ended", [True, False])
async def test_who_waits_can_still_be_cancelled(
    sessions: Sessions, kind: str, *, ended: bool
) -> None:
    """By a timeout at the very moment of the end, too."""
    sid, cookie = await log_in(sessions)
    scope = http(cookie=cookie) if kind == "http" else websocket(cookie=cookie)
    waiting = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if kind == "http":
            await begin(send)
        waiting.set()
        await receive()

    async def receive() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        pass

    task = asyncio.ensure_future(behind(sessions, app)(scope, receive, send))
    async with asyncio.timeout(SECONDS):
        await waiting.wait()
        await asyncio.sleep(0)
        if ended:
            (here,) = sessions._core.live_connections._loops.values()
            (end,) = here.open[sid]
            end()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert open_sids(sessions) == []


async def test_a_timeout_of_the_app_around_receive_is_not_mistaken_for_the_end(
    sessions: Sessions,
) -> None:
    sid, cookie = await log_in(sessions)
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        await receive()
        try:
            async with asyncio.timeout(0.001):
                await receive()
        except TimeoutError:
            seen.append("timeout")
        await sessions.end_session_by_id(sid)
        seen.append((await receive())["type"])
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0

    async with Client(behind(sessions, app), http(cookie=cookie)) as client:
        await client.streams()
        assert await client.gets() == EMPTY
    assert seen == ["timeout", "http.disconnect"]


async def test_starlette_can_ask_whether_it_is_over(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    seen: list[bool] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        await begin(send)
        seen.append(await request.is_disconnected())
        await sessions.end_session_by_id(sid)
        await asyncio.sleep(0)
        seen.append(await request.is_disconnected())

    async with Client(behind(sessions, app), http(cookie=cookie)) as client:
        await client.streams()
        assert await client.gets() == EMPTY
    assert seen == [False, True]


# --- which responses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, [(b"content-length", b"9")]),
        (200, [(b"x", b"y"), (b"Content-Length", b"9")]),
        (204, []),
        (304, []),
    ],
)
async def test_a_response_that_says_how_long_it_is_is_left_alone(
    sessions: Sessions, status: int, headers: Sequence[tuple[bytes, bytes]]
) -> None:
    sid, cookie = await log_in(sessions)
    body: Message = {"type": "http.response.body", "body": b"123456789" if headers else b""}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": headers})
        assert open_sids(sessions) == []
        await sessions.end_session_by_id(sid)
        assert (await receive())["type"] == "http.request"
        await send(body)

    sent = await call(behind(sessions, app), http(cookie=cookie))
    assert sent[1:] == [body]


async def test_a_stream_without_a_session_is_left_alone(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        assert open_sids(sessions) == []
        await send(EMPTY)

    assert len(await call(behind(sessions, app), http())) == 3
    assert sessions._core.live_connections._loops == {}


async def test_a_stream_that_logs_in_ends_with_the_new_session(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await begin(send)
        await receive()
        await receive()

    async with Client(behind(sessions, app), http("POST")) as client:
        start = await client.gets()
        assert len(cookies([start])) == 1
        await client.gets()
        await sessions.end_all_sessions("ann")
        assert await client.gets() == EMPTY


async def test_without_the_option_nothing_stands_between(tmp_path: Path, clock: Clock) -> None:
    async with Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, clock=clock) as sessions:
        await sessions.create_tables()
        sid, cookie = await log_in(sessions)

        async def receive() -> Message:
            raise AssertionError

        async def app(scope: Scope, given: Receive, send: Send) -> None:
            assert given is receive
            await begin(send)
            await sessions.end_session_by_id(sid)
            await say(send, b"data: 2\n\n")
            await send(EMPTY)

        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        await behind(sessions, app)(http(cookie=cookie), receive, send)
        assert len(sent) == 4
        assert sessions._core.live_connections._loops == {}


async def test_a_stream_uses_its_session_when_it_begins(sessions: Sessions, clock: Clock) -> None:
    """Not when it ends: that may be after the idle timeout."""
    sid, cookie = await log_in(sessions)
    clock.turn(timedelta(days=13))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        await receive()
        await receive()

    async with Client(behind(sessions, app), http(cookie=cookie)) as client:
        await client.streams()
        await settled(sessions)
        clock.turn(timedelta(days=13))
        await check_what_is_open(sessions)
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert session.last_seen_at == clock.now - timedelta(days=13)
        clock.turn(timedelta(days=1))  # streaming is no use of it
        await check_what_is_open(sessions)
        assert await client.gets() == EMPTY


# --- frameworks and other middleware --------------------------------------------------------------


async def passes(request: Request, call_next: RequestResponseEndpoint) -> Response:
    return await call_next(request)


@pytest.mark.parametrize("version", ["2.3", "2.4"])
@pytest.mark.parametrize("around", ["nothing", "inside", "outside", "compressed"])
async def test_a_streaming_response_of_starlette_ends(
    sessions: Sessions, version: str, around: str
) -> None:
    sid, cookie = await log_in(sessions)
    closed = asyncio.Event()
    scope = http(cookie=cookie, accept_encoding="gzip")
    scope["asgi"] = {"version": "3.0", "spec_version": version}

    async def stream() -> AsyncIterator[str]:
        try:
            while True:
                yield "data: 1\n\n" * 200
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def events(request: Request) -> Response:
        return StreamingResponse(stream(), media_type="text/event-stream")

    ours = Middleware(SessionMiddleware, sessions=sessions)
    theirs = Middleware(BaseHTTPMiddleware, dispatch=passes)
    stack = {
        "nothing": [ours],
        "inside": [ours, theirs],
        "outside": [theirs, ours],
        "compressed": [Middleware(GZipMiddleware), ours],
    }
    app = Starlette(routes=[Route("/", events)], middleware=stack[around])
    async with Client(app, scope) as client:
        assert (await client.gets())["type"] == "http.response.start"
        assert (await client.gets())["more_body"]
        await sessions.end_session_by_id(sid)
        while (await client.gets()).get("more_body"):
            pass
    gc.collect()  # Starlette leaves the generator to be cleared away
    async with asyncio.timeout(SECONDS):
        await closed.wait()


async def test_a_short_response_of_starlette_passes_unwatched(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, cookie = await log_in(sessions)
    monkeypatch.delattr(type(sessions._core.live_connections), "add")

    async def home(request: Request) -> Response:
        return PlainTextResponse(await request.body())

    app = Starlette(routes=[Route("/", home, methods=["POST"])])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    sent = await call(app, http("POST", cookie=cookie))
    assert sent[-1]["body"] == b""


# --- event loops ----------------------------------------------------------------------------------


def test_a_loop_that_was_closed_with_a_stream_open_is_let_go(tmp_path: Path) -> None:
    sessions = Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, end_streams=True)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await begin(send)
        scope["started"].set()
        await receive()

    async def receive() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        pass

    async def leave_open() -> str:
        await sessions.create_tables()
        sid, cookie = await log_in(sessions)
        started = asyncio.Event()
        scope = {**http(cookie=cookie), "started": started}
        task = asyncio.ensure_future(behind(sessions, app)(scope, receive, send))
        setattr(task, "_log_destroy_pending", False)  # noqa: B010 -- in no stub
        await started.wait()
        return sid

    loop = asyncio.new_event_loop()
    sid = loop.run_until_complete(leave_open())
    loop.close()  # without a word
    gone = weakref.ref(loop)
    del loop
    assert open_sids(sessions) == [sid]

    async def another() -> None:
        assert await sessions.end_session_by_id(sid) is not None
        other = await sessions.insert(http(), "bob")
        opened(sessions, other.id, lambda: None)()
        await sessions.disconnect()

    asyncio.run(another())
    gc.collect()
    assert gone() is None
    assert open_sids(sessions) == []


async def test_a_websocket_that_starlette_gives_up_is_no_fault(sessions: Sessions) -> None:
    """It has a word of its own for an OSError of sending."""
    from starlette.routing import WebSocketRoute
    from starlette.websockets import WebSocket

    sid, cookie = await log_in(sessions)

    async def ticks(socket: WebSocket) -> None:
        await socket.accept()
        while True:
            await socket.send_text("tick")
            await asyncio.sleep(0)

    app = Starlette(routes=[WebSocketRoute("/", ticks)])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    async with Peer(app, websocket(cookie=cookie)) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        await peer.gets()
        await sessions.end_session_by_id(sid)
        while (message := await peer.gets())["type"] == "websocket.send":
            pass
        assert message["code"] == 1008


async def test_a_stream_of_litestar_ends(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    left = asyncio.Event()

    async def ticks() -> AsyncIterator[str]:
        try:
            yield "1"
            await asyncio.get_running_loop().create_future()
        finally:
            left.set()

    @get("/")
    async def events() -> ServerSentEvent:
        return ServerSentEvent(ticks())

    app = Litestar([events], middleware=[DefineMiddleware(SessionMiddleware, sessions=sessions)])
    async with Client(cast("ASGIApp", app), http(cookie=cookie)) as client:
        assert (await client.gets())["type"] == "http.response.start"
        assert (await client.gets())["more_body"]
        await sessions.end_session_by_id(sid)
        assert not (await client.gets()).get("more_body")
    async with asyncio.timeout(SECONDS):
        await left.wait()


async def test_short_sessions_close_streams_and_sockets_alike(tmp_path: Path, clock: Clock) -> None:
    lifetimes = Lifetimes(idle=HOUR, absolute=HOUR)
    options: dict[str, Any] = {"secret_key": KEY, "clock": clock, "lifetimes": lifetimes}
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Sessions(url, end_streams=True, **options) as sessions:
        await sessions.create_tables()
        _, cookie = await log_in(sessions)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await listens(receive, send)

        async with (
            Client(behind(sessions, app), http(cookie=cookie)) as client,
            Peer(behind(sessions, echo), websocket(cookie=cookie)) as peer,
        ):
            await client.streams()
            await peer.gets()
            await peer.gets()
            clock.turn(HOUR)
            await check_what_is_open(sessions)
            assert await client.gets() == EMPTY
            assert (await peer.gets())["code"] == 1008


async def test_a_response_before_its_start_is_an_ordinary_one(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.end_session_by_id(sid)
        await respond(send, 200, b"done")

    sent = await call(behind(sessions, app), http(cookie=cookie))
    assert [message.get("body") for message in sent] == [None, b"done", b""]
