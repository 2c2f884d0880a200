"""The middleware: a session before the app runs, a cookie when its response starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._binding import Respond
from ._call import SESSIONS, Call
from ._channel import Socket
from ._cookies import add_vary
from ._delivery import Delivery
from ._device import headers_of
from ._errors import ConfigurationError, InvalidSession, SessionsUnavailable
from ._events import logger
from ._outage import outage_at_hand, outage_of
from ._person import Person, person_from_scope
from ._resolve import resolve, resumes
from ._sessions import Sessions
from ._streams import Streams

PersonReader = Callable[[Scope], object]

_KINDS = frozenset({"http", "websocket"})
#: The status of a layer that has met an exception.
_FAILED = 500
_TRY_AGAIN: Message = {"type": "websocket.close", "code": 1013, "reason": "try again later"}
_STARTS = ("http.response.start", "websocket.accept", "websocket.http.response.start")


class SessionMiddleware:
    """Pure ASGI: works in Starlette, FastAPI, Litestar and any other ASGI app.

    Sets ``state.sid``, ``state.session`` and ``state.session_end_reason`` for each HTTP request
    and WebSocket; passes everything else through.

    Args:
        app: the app behind it.
        sessions: the `Sessions` that hold the rows.
        person: reads from the scope whom another layer has authenticated: None, a `Person`, or
            any object or mapping with an id. That layer has to run before this one.

    Raises:
        ConfigurationError: if `sessions` are none.
    """

    def __init__(
        self, app: ASGIApp, *, sessions: Sessions, person: PersonReader = person_from_scope
    ) -> None:
        if not isinstance(sessions, Sessions):
            raise ConfigurationError(
                f"SessionMiddleware(sessions={sessions!r}): pass the Sessions of your app"
            )
        self.app = app
        self._sessions = sessions
        self._person = person
        self._core = sessions._core
        self._settings = sessions._core.settings
        self._key = sessions._key
        self._read = self._settings.cookie.reader()
        self._verify = self._settings.keys.verify
        self._store = self._core.store
        self._binding = sessions._binding
        self._delivery = Delivery(self._core, self._binding)
        self._touch_if_due = self._delivery.touch_if_due
        self._serve_http: ASGIApp = app
        if self._settings.end_streams:
            self._serve_http = Streams(app, self._key, self._core.watched, self._touch_now)

    # Any: the types of Starlette's and of Litestar's ASGI are not one another's. In one piece,
    # because each further step would cost every request.
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, C901 -- as said above
        """Serve one connection."""
        kind = scope["type"]
        if kind not in _KINDS or self._key in scope:
            await self.app(scope, receive, send)
            return
        headers = headers_of(scope)
        person = self._person(scope)
        call = scope[self._key] = Call(scope)
        scope[SESSIONS] = self._sessions
        if self._binding is not None:
            if (respond := self._binding.responder(scope)) is not None:
                await self._answer_device(respond, scope, receive, send)
                return
            call.root_path = scope.get("root_path", "")  # routers change it
        values = self._read(headers)
        if (values or person is not None) and not await self._enter(
            scope, call, person, values, send
        ):
            return
        if kind == "websocket":
            await self._serve_websocket(scope, call, receive, send)
            return

        forward: Send = send

        def send_with_cookie(message: Message) -> Awaitable[None]:
            nonlocal forward
            if message["type"] == "http.response.start" and not call.responding:
                if message["status"] >= _FAILED and (fault := outage_at_hand()) is not None:
                    self._count(call, fault)
                    if message["status"] == _FAILED:  # a layer's own, and not the app's word
                        call.responding = call.replaced = True
                        forward = _swallow
                        return _unavailable(scope, send, fault)
                if call.tells:
                    return self._delivery.start(call, message, forward)
                call.responding = True
                if call.vary:
                    headers = add_vary(message.get("headers", ()))
                    return forward({**message, "headers": headers})
            return forward(message)

        try:
            await self._serve_http(scope, receive, send_with_cookie)
        except Exception as fault:
            if not await self._gives_up(scope, call, send, fault):
                raise
        finally:
            if call.undelivered is not None:
                await self._delivery.withdraw(call)
            if call.now is not None:
                self._touch_if_due(call, call.now)

    async def _enter(
        self, scope: Scope, call: Call, person: object, values: list[str], send: Send
    ) -> bool:
        """Find the session; False if the request has been refused."""
        core = self._core
        identified = call.person = None if person is None else self._identify(scope, call, person)
        tokens, refused = [], []
        for value in values:
            token = self._verify(value)
            if token is None:
                refused.append(value)
            else:
                tokens.append(token)
        if refused:
            core.note_forged(scope, refused)
        if identified is None and not tokens:
            return True
        try:
            if len(tokens) == 1:  # the rule, and gathering takes time
                rows = [await self._store.by_sid(tokens[0].sid)]
            else:
                rows = await asyncio.gather(*(self._store.by_sid(token.sid) for token in tokens))
            if not resumes(self._settings, call, identified, tokens, rows):
                sent, start = bool(values), identified is not None and self._starts(scope)
                await resolve(
                    core,
                    scope,
                    call,
                    tokens,
                    rows,
                    binding=self._binding,
                    person=identified,
                    sent=sent,
                    start=start,
                )
        except SessionsUnavailable as fault:
            return await self._go_without(scope, call, send, fault)
        if (begun := core.events.down_since) is not None:
            core.events.available(begun)
        return True

    async def _answer_device(
        self, respond: Respond, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer what a browser asks by itself to bind a session or to prove its device."""
        try:
            await respond(scope, receive, send)
        except SessionsUnavailable as fault:
            self._core.events.unavailable(fault)
            await _unavailable(scope, send, fault)

    async def _go_without(
        self, scope: Scope, call: Call, send: Send, fault: SessionsUnavailable
    ) -> bool:
        """Refuse a request whose session cannot be looked up, or let it go on without one."""
        self._count(call, fault)
        if self._settings.on_unavailable == "error":
            await _unavailable(scope, send, fault)
            return False
        call.sign_out(scope)  # nobody knows whether they have been revoked
        call.fault = fault
        return True

    def _identify(self, scope: Scope, call: Call, person: object) -> Person | None:
        try:
            return self._core.identify(person)
        except InvalidSession as fault:
            # A session nobody could end is none; and whom none can hold is not let in.
            logger.warning("person refused: %s", fault)
            call.sign_out(scope)
            return None

    def _starts(self, scope: Scope) -> bool:
        if scope.get("method") == "OPTIONS":
            return False
        auto_start = self._settings.auto_start
        return auto_start if isinstance(auto_start, bool) else bool(auto_start(scope))

    async def _serve_websocket(
        self, scope: Scope, call: Call, receive: Receive, send: Send
    ) -> None:
        socket = Socket(receive, send, lambda: self._touch_now(call))
        watched: dict[str, Callable[[], None]] = {}

        def watch() -> None:
            sid = None if call.row is None else call.row.id
            if sid is not None and sid not in watched:
                watched[sid] = self._core.watched.add(sid, partial(_end, socket, call, sid))

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "websocket.close" and (fault := outage_at_hand()) is not None:
                self._count(call, fault)
                message = _TRY_AGAIN
            if message["type"] not in _STARTS or call.responding:
                call.responding |= message["type"] == "websocket.close"
                await socket.send(message)
                return
            watch()
            await self._delivery.start(call, message, socket.send)

        watch()
        try:
            await self.app(scope, socket.receive, send_with_cookie)
        except Exception as fault:
            if not socket.explains(fault) and not await self._gives_up(scope, call, send, fault):
                raise
        finally:
            for leave in watched.values():
                leave()
            await socket.finish()
            await self._delivery.withdraw(call)
            self._touch_now(call)

    def _touch_now(self, call: Call) -> None:
        self._touch_if_due(call, self._settings.now())

    async def _gives_up(self, scope: Scope, call: Call, send: Send, fault: Exception) -> bool:
        """Answer an outage that the app has met and not dealt with; False if it is too late for
        that, and for any other fault, which is the app's own.
        """
        outage = outage_of(fault)
        if outage is None:
            return False
        self._count(call, outage)
        if not call.responding:
            await _unavailable(scope, send, outage)
            return True
        return call.replaced  # a layer raises again what it has answered

    def _count(self, call: Call, fault: SessionsUnavailable) -> None:
        """However often the app asks, one request is one that an outage has affected."""
        if not call.affected:
            call.affected = True
            self._core.events.unavailable(fault)


def _end(socket: Socket, call: Call, sid: str) -> None:
    # Not when a login over this session has given the socket another one.
    if call.row is None or call.row.id == sid:
        socket.end()


async def _swallow(_: Message) -> None:
    """The body of a response that another one has taken the place of."""


async def _unavailable(scope: Scope, send: Send, fault: SessionsUnavailable) -> None:
    """503 in place of an answer; the cookie stays as it is (ASVS 16.5.2)."""
    prefix = ""
    if scope["type"] == "websocket":
        if "websocket.http.response" not in scope.get("extensions", {}):
            await send(_TRY_AGAIN)
            return
        prefix = "websocket."
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"retry-after", b"%d" % fault.retry_after),
        (b"cache-control", b"no-store"),
    ]
    await send({"type": f"{prefix}http.response.start", "status": 503, "headers": headers})
    await send({"type": f"{prefix}http.response.body", "body": b"Service Unavailable"})
