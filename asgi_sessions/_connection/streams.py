"""Long responses end with their session: Server-Sent Events, downloads without a known length."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions._service.live_connections import LiveConnections

from .context import RequestContext
from .revocable import RevocableConnection

#: They have no body, and often no Content-Length to say so.
_EMPTY = (204, 304)
_BODIES = ("http.response.body", "http.response.zerocopysend", "http.response.pathsend")


class Stream(RevocableConnection):
    """The response to one request. If it says how long it is, it is left alone; else it is watched
    from its start, and when its session ends its body does: cleanly, so that a browser's
    EventSource takes it for an end and comes back, as nobody.

    Args:
        receive: the server's.
        send: the server's.
        begin: called when a long response has started; it may have `end` called.
        scope: of the request.

    Attributes:
        leave: to be called when the response is over, if it was a long one.
    """

    disconnect: ClassVar[Message] = {"type": "http.disconnect"}

    _started = False
    _trailers = False
    leave: Callable[[], None] | None = None

    def __init__(
        self, receive: Receive, send: Send, begin: Callable[[Stream], None], scope: Scope
    ) -> None:
        super().__init__(receive, send)
        self._begin = begin
        self.scope = scope

    def pass_on(self, message: Message) -> Awaitable[None]:
        """What the app sends. No coroutine of its own while the response may be a short one."""
        if self._started:
            return self.send(message)
        if message["type"] == "http.response.start":
            headers = message.get("headers", ())
            if not isinstance(headers, list | tuple):  # ASGI allows what can be read only once
                message = {**message, "headers": list(headers)}
            if _is_long(message):
                return self._start(message)
        return self._send(message)

    async def _start(self, message: Message) -> None:
        await self._send(message)
        # Not before: a body cannot end that has not begun.
        self._started = True
        self._trailers = bool(message.get("trailers"))
        self._begin(self)

    def _is_last(self, message: Message) -> bool:
        if message["type"] == "http.response.trailers":
            return not message.get("more_trailers")
        return message["type"] in _BODIES and not message.get("more_body") and not self._trailers

    def _farewell(self) -> Sequence[Message]:
        end: list[Message] = [{"type": "http.response.body", "body": b"", "more_body": False}]
        if self._trailers:
            end.append({"type": "http.response.trailers", "headers": [], "more_trailers": False})
        return end


class Streams:
    """An ASGI app around an app's HTTP side, right behind the middleware.

    Args:
        app: the app.
        key: of the `RequestContext` in the scope.
        live_connections: what is open.
        used: notes that the session of a response is in use: at the start, for the end may be far.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        live_connections: LiveConnections,
        used: Callable[[RequestContext], object],
    ) -> None:
        self._app = app
        self._key = key
        self._live_connections = live_connections
        self._used = used

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        stream = Stream(receive, send, self._begin, scope)
        try:
            await self._app(scope, stream.receive, stream.pass_on)
        except Exception as error:
            if not stream.explains(error):
                raise
        finally:
            if stream.leave is not None:
                stream.leave()
                await stream.finish()

    def _begin(self, stream: Stream) -> None:
        context: RequestContext = stream.scope[self._key]
        if context.row is not None:
            stream.leave = self._live_connections.add(
                context.row.id,
                stream.end,
                lambda: context.secret,
                lambda: context.unproved_since,
                context.row.actor_sid,
            )
            self._used(context)


def _is_long(start: Message) -> bool:
    """Whether nobody knows when a response will be over."""
    for name, _ in start.get("headers", ()):
        if name == b"content-length" or name.lower() == b"content-length":
            return False
    return start["status"] not in _EMPTY
