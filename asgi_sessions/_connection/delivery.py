"""The start of a response carries the cookie; a login whose cookie cannot be sent is ended."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Send

from asgi_sessions._errors import SessionsError
from asgi_sessions._model.carrier import for_caches
from asgi_sessions._service.core import Core
from asgi_sessions._service.events import logger

from .binding import Binding
from .context import RequestContext

_SERVER_ERROR = 500


class Delivery:
    """Sends the session cookie; ends the session if the cookie cannot be sent.

    Args:
        core: the steps of a session's life.
        binding: what binds sessions to devices, if anything does.
    """

    def __init__(self, core: Core, binding: Binding | None) -> None:
        self._core = core
        self._binding = binding
        self._settings = core.settings

    async def start(self, context: RequestContext, message: Message, send: Send) -> None:
        """Send the start of a response, with the cookie that it has to carry."""
        await send(await self._answer(context, message))
        context.undelivered = None

    async def _answer(self, context: RequestContext, message: Message) -> Message:
        """The start of a response, with the cookie that it has to carry."""
        context.responding = True
        failed = message.get("status", 0) >= _SERVER_ERROR
        # A late answer must not bring back the cookie of what has ended meanwhile.
        if context.token is not None and (failed or not await self._core.holds(context.token)):
            context.token = None
        if context.token is None:
            await self._not_delivered(context)  # the app has failed, or has given up the login
        cookie = None
        if context.token is not None and context.row is not None and context.session is not None:
            left = context.session.expires_at - self._settings.now()
            cookie = self._settings.cookie.render(
                self._settings.keys.sign(context.token),
                max_age=max(round(left.total_seconds()), 1) if context.row.remember else None,
            )
        elif context.clear:
            cookie = self._settings.cookie.render("", max_age=0)
        headers = list(message.get("headers", ()))
        if cookie is not None:
            headers = self._settings.cookie.write(headers, cookie)
        if message["type"] != "websocket.accept":  # no cache keeps a handshake
            headers = for_caches(headers, private=context.private)
        elif cookie is None:
            return message
        if context.extra is not None:
            headers.append(context.extra)
        if self._binding is not None:
            headers += self._binding.headers(context)
        return {**message, "headers": headers}

    async def withdraw(self, context: RequestContext) -> None:
        """End the session of a login whose cookie has not reached anybody."""
        if context.undelivered is not None:
            # Shielded: a client that has gone must not leave a session behind.
            await asyncio.shield(self._core.background.run(self._not_delivered(context)))

    async def _not_delivered(self, context: RequestContext) -> None:
        sid, context.undelivered = context.undelivered, None
        if sid is None:
            return
        context.drop()
        try:
            await self._core.end(sid, "not_delivered")
        except SessionsError as error:
            # Nobody has its cookie; it runs out by itself.
            logger.warning("session %s was not delivered and could not be ended: %s", sid, error)
