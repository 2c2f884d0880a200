"""The middleware: a session before the app runs; what the response carries, `Delivery` writes."""

from __future__ import annotations

import asyncio
from asyncio import _get_running_loop
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ._connection.answers import Answers
from ._connection.binding import Respond
from ._connection.context import SESSIONS, RequestContext
from ._connection.data_layer import DataLayer
from ._connection.delivery import Delivery
from ._connection.notices import Notices, drops_secure_cookies
from ._connection.outage import outage_at_hand, outage_of
from ._connection.reading import Reader
from ._connection.resolving import resolve, resumes
from ._connection.revocable import Socket
from ._connection.streams import Streams
from ._connection.touching import touch_if_due
from ._database.tasks import running_loop
from ._errors import ConfigurationError, InvalidSession, SessionsUnavailable
from ._model.bearer import SUBPROTOCOL
from ._model.device import headers_of
from ._model.person import Person, is_vouched_for, person_from_scope, sign_out_of_scope
from ._model.tokens import Presented
from ._service.events import logger
from ._service.identity import identify
from ._sessions import Sessions

PersonReader = Callable[[Scope], object]
SignOut = Callable[[Scope], object]
OnSignedOut = Literal["anonymous", "refuse"]

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
        sign_out: takes that person out of the scope again, when their session was revoked. A
            `person` of your own needs one of your own: a person who is still there after the
            default is refused with 401.
        on_signed_out: ``anonymous`` lets the request of somebody who was signed out go on without
            a person, so that they reach a login; ``refuse`` answers it with 401.

    Raises:
        ConfigurationError: if an argument cannot be one.
    """

    def __init__(
        self,
        # Each framework has types of its own for what is called with scope, receive and send.
        app: Callable[[Any, Any, Any], Awaitable[None]],
        *,
        sessions: Sessions,
        person: PersonReader = person_from_scope,
        sign_out: SignOut = sign_out_of_scope,
        on_signed_out: OnSignedOut = "anonymous",
    ) -> None:
        if not isinstance(sessions, Sessions):
            raise ConfigurationError(
                f"SessionMiddleware(sessions={sessions!r}): pass the Sessions of your app"
            )
        for name, function in (("person", person), ("sign_out", sign_out)):
            if not callable(function):
                raise ConfigurationError(
                    f"SessionMiddleware({name}={function!r}): use a function of the scope"
                )
        if on_signed_out not in ("anonymous", "refuse"):
            raise ConfigurationError(
                f"SessionMiddleware(on_signed_out={on_signed_out!r}): use 'anonymous' or 'refuse'"
            )
        self.app = app
        self._sign_out = sign_out
        self._refuses = on_signed_out == "refuse"
        self._notices = Notices()
        self._sessions = sessions
        self._alone = (sessions,)
        self._person = person
        self._core = sessions._core
        self._settings = sessions._core.settings
        self._excludes = self._settings.excludes if self._settings.exclude else None
        self._touch = self._settings.touch
        self._key = sessions._key
        self._read = Reader(self._core).read
        self._for_caches = self._settings.carriers.for_caches
        self._store = self._core.store
        self._binding = sessions._binding
        self._delivery = Delivery(self._core, self._binding)
        self._answers = Answers(self._settings.carriers)
        self._data = sessions._core.data
        self._serve: ASGIApp = app
        if self._data is not None:
            self._serve = DataLayer(
                app,
                self._key,
                self._data,
                sessions.rotate_session,
                refuses=self._settings.on_unavailable == "error",
                touch_interval=self._settings.touch_interval,
                notices=self._notices,
            )
        self._serve_http = self._serve
        if self._settings.end_streams:
            streams = Streams(self._serve, self._key, self._core.live_connections, self._touch_now)
            self._serve_http = streams

    # Any: Starlette's and Litestar's ASGI types are incompatible. It stays one function, because
    # every extra call slows down every request.
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401, C901, PLR0912, PLR0915 -- as said above
        """Serve one connection."""
        kind = scope["type"]
        if kind not in _KINDS or self._key in scope:
            await self.app(scope, receive, send)
            return
        if _get_running_loop() is None:
            running_loop()  # raises, rather here than at the first login
        context = scope[self._key] = RequestContext(scope, self._key)
        outer = scope.get(SESSIONS)
        scope[SESSIONS] = self._alone if outer is None else (*outer, self._sessions)
        if context.shared:
            self._notices.give("shared_state")
        if self._excludes is not None and self._excludes(scope):
            context.excluded = True
            await self.app(scope, receive, send)
            return
        if self._touch is not None:
            context.touches = bool(self._touch(scope))
        if type(scope.get("headers")) is not list:
            headers_of(scope)  # from now on they can be read more than once
        person = self._person(scope)
        if self._binding is not None:
            if (respond := self._binding.responder(scope)) is not None:
                await self._answer_device(respond, scope, receive, send)
                return
            context.root_path = scope.get("root_path", "")  # routers change it
        tokens = self._read(scope, context)
        if (tokens is not None or person is not None) and not await self._enter(
            scope, context, person, tokens, send
        ):
            return
        if kind == "websocket":
            await self._serve_websocket(scope, context, receive, send)
            return

        forward: Send = send

        def send_with_cookie(message: Message) -> Awaitable[None]:
            nonlocal forward
            if message["type"] == "http.response.start" and not context.responding:
                if message["status"] >= _FAILED and (error := outage_at_hand()) is not None:
                    self._count(context, error)
                    if message["status"] == _FAILED:  # a layer's own, and not the app's word
                        context.responding = context.replaced = True
                        forward = _swallow
                        return self._answers.unavailable(scope, send, error)
                if context.tells:
                    if (
                        (context.token or context.visitor) is not None
                        and self._settings.cookie.secure
                        and drops_secure_cookies(scope)
                    ):
                        self._notices.give("cookie_over_http")
                    return self._delivery.start(context, message, forward)
                context.responding = True
                headers = self._for_caches(message.get("headers", ()), private=context.private)
                return forward({**message, "headers": headers})
            return forward(message)

        try:
            await self._serve_http(scope, receive, send_with_cookie)
        except Exception as error:
            if not await self._gives_up(scope, context, send, error):
                raise
        finally:
            if context.undelivered is not None or context.issued:
                await self._delivery.withdraw(context)
            if context.now is not None:
                touch_if_due(self._core, context, context.now)
            # Otherwise `_look_around` has nothing to tell, and nearly every request is spared it.
            overwritten = context.state.get("session") is not context.session
            if overwritten or (context.row is None and scope.get("user") is not None):
                self._look_around(scope, context, person, overwritten=overwritten)

    def _look_around(
        self, scope: Scope, context: RequestContext, person: object, *, overwritten: bool
    ) -> None:
        """Warn of layers that do not get along with this one."""
        if overwritten:
            self._notices.give("state_overwritten")
        if person is None and context.error is None and is_vouched_for(scope):
            self._notices.give("person_behind")

    async def _enter(
        self,
        scope: Scope,
        context: RequestContext,
        person: object,
        presented: list[Presented] | None,
        send: Send,
    ) -> bool:
        """Find the session of a request with cookies or a person; False if it has been refused."""
        core, tokens = self._core, presented or []
        identified = context.person = None if person is None else self._identify(person)
        if person is not None and identified is None:
            if not await self._signed_out(scope, context, send):
                return False
            person = None
        if person is None and not tokens:
            return True
        try:
            if len(tokens) == 1:  # the rule, and gathering takes time
                rows = [await self._store.by_sid(tokens[0].sid)]
            else:
                rows = await asyncio.gather(*(self._store.by_sid(token.sid) for token in tokens))
            if not resumes(self._settings, context, identified, tokens, rows):
                start = identified is not None and self._starts(scope)
                stays = await resolve(
                    core,
                    scope,
                    context,
                    tokens,
                    rows,
                    binding=self._binding,
                    person=identified,
                    sent=presented is not None,
                    start=start,
                )
                if not stays and not await self._signed_out(scope, context, send):
                    return False
        except SessionsUnavailable as error:
            return await self._go_without(scope, context, send, error)
        if (begun := core.events.down_since) is not None:
            core.events.available(begun)
        return True

    def _identify(self, person: object) -> Person | None:
        try:
            return identify(person, self._settings)
        except InvalidSession as error:
            # The table cannot hold their id, so nobody could end their session.
            logger.warning("person refused: %s", error)
            return None

    async def _answer_device(
        self, respond: Respond, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer what a browser asks by itself to bind a session or to prove its device."""
        try:
            await respond(scope, receive, send)
        except SessionsUnavailable as error:
            self._core.events.unavailable(error)
            await self._answers.unavailable(scope, send, error)

    async def _go_without(
        self, scope: Scope, context: RequestContext, send: Send, error: SessionsUnavailable
    ) -> bool:
        """Refuse a request whose session cannot be looked up, or let it go on without one."""
        self._count(context, error)
        if self._settings.on_unavailable == "error":
            await self._answers.unavailable(scope, send, error)
            return False
        context.error = error
        if context.person is None:
            return True
        # Nobody knows whether they have been revoked.
        return await self._signed_out(scope, context, send)

    async def _signed_out(self, scope: Scope, context: RequestContext, send: Send) -> bool:
        """Take the person whom another layer vouches for out of the scope; False if the request
        has been refused.
        """
        context.person = None
        self._sign_out(scope)
        left = self._sign_out is sign_out_of_scope and self._person(scope) is not None
        if left:
            self._notices.give("not_signed_out")
        if not left and not self._refuses:
            return True
        await self._answers.signed_out(scope, send, context.end_reason)
        return False

    def _starts(self, scope: Scope) -> bool:
        if scope.get("method") == "OPTIONS":
            return False
        auto_start = self._settings.auto_start
        return auto_start if isinstance(auto_start, bool) else bool(auto_start(scope))

    async def _serve_websocket(
        self, scope: Scope, context: RequestContext, receive: Receive, send: Send
    ) -> None:
        socket = Socket(receive, send, lambda: self._touch_now(context))
        leaves: dict[str, Callable[[], None]] = {}

        def watch() -> None:
            row = context.row
            if row is not None and (sid := row.id) not in leaves:
                leaves[sid] = self._core.live_connections.add(
                    sid,
                    partial(_end, socket, context, sid),
                    lambda: context.secret,
                    lambda: context.unproved_since,
                    row.actor_sid,
                )

        async def send_with_cookie(message: Message) -> None:
            if message["type"] == "websocket.close" and (error := outage_at_hand()) is not None:
                self._count(context, error)
                message = _TRY_AGAIN
            if message["type"] not in _STARTS or context.responding:
                context.responding |= message["type"] == "websocket.close"
                await socket.send(message)
                return
            watch()
            accepts = message["type"] == "websocket.accept"
            if accepts and context.names_subprotocol and message.get("subprotocol") is None:
                message = {**message, "subprotocol": SUBPROTOCOL}
            await self._delivery.start(context, message, socket.send)

        watch()
        try:
            await self._serve(scope, socket.receive, send_with_cookie)
        except Exception as error:
            if not socket.explains(error) and not await self._gives_up(scope, context, send, error):
                raise
        finally:
            for leave in leaves.values():
                leave()
            await socket.finish()
            await self._delivery.withdraw(context)
            self._touch_now(context)

    def _touch_now(self, context: RequestContext) -> None:
        touch_if_due(self._core, context, self._settings.now())

    async def _gives_up(
        self, scope: Scope, context: RequestContext, send: Send, error: Exception
    ) -> bool:
        """Answer an outage that the app has met and not dealt with; False if it is too late for
        that, and for any other error, which is the app's own.
        """
        outage = outage_of(error) or context.unsaved
        if outage is None:
            return False
        self._count(context, outage)
        if not context.responding:
            await self._answers.unavailable(scope, send, outage)
            return True
        return context.replaced  # a layer raises again what it has answered

    def _count(self, context: RequestContext, error: SessionsUnavailable) -> None:
        """However often the app asks, one request is one that an outage has affected."""
        if not context.affected:
            context.affected = True
            self._core.events.unavailable(error)


def _end(socket: Socket, context: RequestContext, sid: str) -> None:
    # Not when a login over this session has given the socket another one, or is about to.
    over = context.undelivered not in (None, sid)
    if not over and (context.row is None or context.row.id == sid):
        socket.end()


async def _swallow(_: Message) -> None:
    """The body of a response that another one has taken the place of."""
