"""Two middlewares with the same key: one on a real database, and its twin, whose database cannot be
opened and answers 503 as soon as it is asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import Session, SessionMiddleware, Sessions
from asgi_sessions.testing import logged_in_cookie
from tests.support import KEY, Clock
from tests.support.inside import touched
from tests.support.odd_input import NAME

LOG_IN = "ann"


class Answer(NamedTuple):
    """What came back, and what the app behind the middleware saw of the session."""

    status: int
    headers: list[tuple[bytes, bytes]]
    sid: str | None
    session: Session | None
    reason: str | None


class World:
    """The middleware on a database, its twin without one, and an event loop for both."""

    def __init__(self, runner: asyncio.Runner, directory: str) -> None:
        self.runner = runner
        self.clock = Clock()
        self.sessions = Sessions(
            f"sqlite:///{directory}/sessions.db", secret_key=KEY, clock=self.clock
        )
        self.nowhere = Sessions(
            f"sqlite:///{directory}/missing/sessions.db", secret_key=KEY, clock=self.clock
        )
        self.app = SessionMiddleware(self._handler, sessions=self.sessions)
        self.app_nowhere = SessionMiddleware(self._handler, sessions=self.nowhere)
        self._names = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def new_person(self) -> str:
        """Somebody whom no other test knows."""
        self._names += 1
        return f"person-{self._names}"

    async def _handler(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Does what the scope's key `do` says, then answers 200 (or accepts and closes)."""
        await receive()
        if "do" in scope:
            await scope["do"](scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": []})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def ask(self, app: ASGIApp, scope: Scope) -> Answer:
        """One request or WebSocket."""
        sent: list[Message] = []

        async def receive() -> Message:
            if scope["type"] == "websocket":
                return {"type": "websocket.connect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)
        await touched()
        start = sent[0]
        accepted = start["type"] == "websocket.accept"
        status = 101 if accepted else start.get("status", start.get("code"))
        state = scope["state"]
        headers = list(start.get("headers", ()))
        return Answer(status, headers, state["sid"], state["session"], state["session_end_reason"])

    async def present(self, value: str | bytes, *, nowhere: bool = False) -> Answer:
        """A request with this value as our cookie."""
        raw = value.encode("latin-1") if isinstance(value, str) else value
        return await self.ask(
            self.app_nowhere if nowhere else self.app, request((b"cookie", NAME + b"=" + raw))
        )

    async def do(self, action: Callable[[Scope], Any], value: str | None = None) -> str:
        """A request that calls one of the functions of `Sessions`; the cookie that it set."""
        scope = request(*[(b"cookie", NAME + b"=" + value.encode())] if value else [])
        scope["do"] = action
        answer = await self.ask(self.app, scope)
        assert answer.status == 200
        (cookie,) = (value for name, value in answer.headers if name == b"set-cookie")
        return cookie.decode().partition(";")[0].partition("=")[2]

    async def log_in(self, person: str) -> str:
        """A session; the value of its cookie."""
        (value,) = (await logged_in_cookie(self.sessions, person)).values()
        return value

    async def renew(self, value: str) -> str:
        """A new secret; the value of its cookie."""
        return await self.do(self.sessions.renew_session, value)

    async def count(self, person: str) -> int:
        """How many rows a person has."""
        return len(await self.sessions.list_sessions(person, include_ended=True))


def request(*headers: tuple[bytes, bytes], **facts: object) -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": list(headers), **facts}


def sid_of(value: str) -> str:
    return value.partition(".")[0]


def gives_nothing(answer: Answer) -> bool:
    """No access, no 5xx, and no word about a session: nothing to set and nothing to clear."""
    nothing = (answer.sid, answer.session, answer.reason) == (None, None, None)
    expected = [(b"vary", b"Cookie")] if answer.status == 200 else []
    return nothing and answer.status in (200, 101) and answer.headers == expected


def lets_in(answer: Answer, value: str) -> bool:
    return answer.status == 200 and answer.sid == sid_of(value)


async def still_live(world: World, value: str) -> bool:
    return lets_in(await world.present(value), value)


def refused(world: World, values: Iterable[str], valid: str) -> int:
    """Present each value where there is no database; how many there were."""
    tried = 0

    async def present() -> None:
        nonlocal tried
        for value in values:
            if value != valid:
                tried += 1
                answer = await world.present(value, nowhere=True)
                assert gives_nothing(answer), value
        # That the twin has no database would otherwise prove nothing.
        assert (await world.present(valid, nowhere=True)).status == 503
        assert await still_live(world, valid)

    world.run(present())
    return tried
