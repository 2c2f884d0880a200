"""ASGI by hand: scopes as a server makes them, and the browser's end of what an app is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import SessionMiddleware, Sessions
from asgi_sessions.testing import logged_in_cookie
from tests.support.inside import touched

#: Nothing here takes longer; what does, hangs.
SECONDS = 10


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


def websocket(
    *,
    cookie: str | None = None,
    denial: bool = False,
    subprotocols: Sequence[str] = (),
    **headers: str,
) -> Scope:
    """The scope of a WebSocket; with `denial`, of a server that can send a response instead."""
    scope = {**http(cookie=cookie), "type": "websocket", "scheme": "wss"}
    del scope["method"]
    scope["subprotocols"] = [*subprotocols]
    scope["headers"] += [(name.encode(), value.encode()) for name, value in headers.items()]
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


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Accepts, tells the sid, repeats what it hears until the browser goes."""
    assert (await receive())["type"] == "websocket.connect"
    await send({"type": "websocket.accept"})
    await send({"type": "websocket.send", "text": str(scope["state"]["sid"])})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": message["text"]})
    scope["state"]["left"] = message


async def until(there: Callable[[], object]) -> None:
    """Wait for what nobody tells."""
    async with asyncio.timeout(SECONDS):
        while not there():  # noqa: ASYNC110 -- there is no event
            await asyncio.sleep(0.001)


def behind(sessions: Sessions, app: ASGIApp) -> ASGIApp:
    return SessionMiddleware(app, sessions=sessions)
