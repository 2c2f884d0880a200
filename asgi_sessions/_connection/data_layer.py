"""Between the middleware and the app: ``request.session`` is loaded before the app runs, and saved
before its response leaves.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions._errors import ConfigurationError, SessionsUnavailable
from asgi_sessions._service.data_steps import DataSteps

from .context import RequestContext
from .data import RequestData
from .notices import Notices

_SERVER_ERROR = 500
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})


class DataLayer:
    """Gives the app ``scope["session"]``.

    Args:
        app: the app behind it.
        key: of the context in the scope.
        steps: what happens to data.
        regenerate: gives a login a new secret, from the scope.
        refuses: whether requests are refused while the database does not answer.
        touch_interval: how often it is noted that a visitor was there.
        notices: what the middleware warns of.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        steps: DataSteps,
        regenerate: Callable[[Scope], Awaitable[object]],
        *,
        refuses: bool,
        touch_interval: timedelta,
        notices: Notices,
    ) -> None:
        self._app = app
        self._key = key
        self._steps = steps
        self._regenerate = regenerate
        self._refuses = refuses
        self._touch_interval = touch_interval
        self._notices = notices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        context: RequestContext = scope[self._key]
        data = await self._load(context, scope)
        session = scope["session"] = data.dict

        session._regenerate = partial(self._renew, scope, context, data)  # noqa: SLF001 -- of this package
        failed = False

        # No coroutine of its own: nearly every message is only handed on.
        def save_and_send(message: Message) -> Awaitable[None]:
            nonlocal failed
            if message["type"] in _STARTS and not context.responding:
                failed = data.refused or message.get("status", 0) >= _SERVER_ERROR
                if not failed:
                    changes = data.changes(scope)
                    if changes is not None or data.clearing is not None:
                        return _send_after(data.begin(context, scope, changes), send, message)
            return send(message)

        try:
            await self._app(scope, receive, save_and_send)
            if not failed:
                await data.finish(context, scope, self._touch_interval)
        except BaseException as error:
            if not context.responding:
                data.give_up()
            elif _ends_a_socket(error):
                await data.finish(context, scope, self._touch_interval)
            raise
        finally:
            if data.is_hidden(scope):
                self._notices.give("session_hidden")
            session._regenerate = None  # noqa: SLF001 -- else it would be a cycle

    async def _load(self, context: RequestContext, scope: Scope) -> RequestData:
        """The data of a connection.

        Raises:
            ConfigurationError: if another layer in front has put its own into the scope.
            SessionsUnavailable: if the database does not answer, and the request is to be refused.
        """
        if isinstance(scope.get("session"), dict):
            raise ConfigurationError(
                "another layer in front of SessionMiddleware has put its own session into the "
                "scope: take that layer out (Starlette's own SessionMiddleware, for instance), or "
                "leave Sessions(data=True) out"
            )
        data = context.data = RequestData(self._steps)
        try:
            await data.load(context, scope)
        except SessionsUnavailable as error:
            if self._refuses:
                raise
            context.error, context.affected = error, True
            self._steps.events.unavailable(error)
        return data

    async def _renew(self, scope: Scope, context: RequestContext, data: RequestData) -> None:
        """A new secret for a login, or a visitor."""
        if context.row is None:
            await data.regenerate(context)
        elif not context.bearer:  # nobody can give a client somebody else's token unnoticed
            await self._regenerate(scope)


def _ends_a_socket(error: BaseException) -> bool:
    """Whether this is how the end of a socket is told: Starlette and Litestar each have one."""
    return type(error).__name__ == "WebSocketDisconnect"


async def _send_after(step: Awaitable[None], send: Send, message: Message) -> None:
    await step
    await send(message)
