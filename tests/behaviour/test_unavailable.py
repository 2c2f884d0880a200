"""The database does not answer: nobody is logged out, and nobody is let in."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.middleware import Middleware
from starlette.types import Message, Receive, Scope, Send

from asgi_sessions import SessionMiddleware, Sessions, SessionsUnavailable
from tests.support import make_app, vouched
from tests.support.asgi import (
    SECONDS,
    Peer,
    call,
    cookies,
    echo,
    field,
    http,
    log_in,
    reasons,
    websocket,
)
from tests.support.engines import connection_threads
from tests.support.inside import store_of
from tests.support.layers import Passes, layered


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
        patch.setattr(store_of(sessions), "end", gone)
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
