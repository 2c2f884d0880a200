"""The start of a response carries the cookie; a login whose cookie cannot be sent is ended."""

from __future__ import annotations

import asyncio

from starlette.types import Message, Send

from asgi_sessions._errors import SessionsError
from asgi_sessions._model.carrier import unstored
from asgi_sessions._model.tokens import Token
from asgi_sessions._service.core import Core
from asgi_sessions._service.events import logger
from asgi_sessions._service.joining import Transaction

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
        context.undelivered, context.issued = None, ()

    async def _answer(self, context: RequestContext, message: Message) -> Message:
        """The start of a response, with the cookie that it has to carry."""
        context.responding = True
        failed = message.get("status", 0) >= _SERVER_ERROR
        if _undecided(context) is not None:
            # The browser keeps what it has.
            context.token, context.clear, context.visitor = None, False, None
        # A late answer must not bring back the cookie of what has ended meanwhile.
        if context.token is not None and (failed or not await self._holds(context, context.token)):
            context.token = None
        if context.token is None:
            await self._not_delivered(context)  # the app has failed, or has given up the login
        if failed:
            await self._not_issued(context)
        cookie = await self._cookie(context)
        headers = list(message.get("headers", ()))
        if cookie is not None:
            headers = self._settings.cookie.write(headers, cookie)
        if message["type"] != "websocket.accept":  # no cache keeps a handshake
            if context.unstored:
                headers = unstored(headers)
            headers = self._settings.carriers.for_caches(headers, private=context.private)
        elif cookie is None and not context.extra:
            return message
        headers += context.beside
        if self._binding is not None:
            headers += self._binding.headers(context)
        return {**message, "headers": headers}

    async def _cookie(self, context: RequestContext) -> bytes | None:
        """The Set-Cookie value of a response, if it has one."""
        cookie = self._settings.cookie
        if context.token is not None and context.row is not None and context.session is not None:
            left = context.session.expires_at - self._settings.now()
            return cookie.render(
                self._settings.keys.sign(context.token),
                max_age=max(round(left.total_seconds()), 1) if context.row.remember else None,
            )
        if context.clear and not await self._has_ended(context):
            return None
        if context.visitor is not None:  # after a logout, too: one cookie says it all
            left = self._settings.visitor_lifetimes.absolute
            return cookie.render(
                self._settings.keys.sign(context.visitor, "visitor"),
                max_age=round(left.total_seconds()),
            )
        return cookie.render("", max_age=0) if context.clear else None

    async def _holds(self, context: RequestContext, token: Token) -> bool:
        """Whether a token is still good. In an outage it is, since it was a moment ago; but of an
        app's transaction nobody knows then how it has ended, and the cookie of a renewal that was
        rolled back would be taken for a theft.
        """
        try:
            return await self._core.holds(token)
        except SessionsError:
            return context.transaction is None

    async def _has_ended(self, context: RequestContext) -> bool:
        """Whether the session that was logged out is over: the app may have rolled that back, and
        an outage logs nobody out.
        """
        sid = context.cleared_sid
        if context.transaction is None or sid is None:
            return True
        try:
            row = await self._core.store.by_sid(sid)
        except SessionsError:
            return False
        return row is None or not row.live(self._settings.now(), self._settings.terms)

    async def withdraw(self, context: RequestContext) -> None:
        """End the session of a login whose cookie has not reached anybody."""
        # Shielded: a client that has gone must not leave a session behind.
        if context.undelivered is not None:
            await asyncio.shield(self._core.background.run(self._not_delivered(context)))
        if context.issued:
            await asyncio.shield(self._core.background.run(self._not_issued(context)))

    async def _not_delivered(self, context: RequestContext) -> None:
        sid, context.undelivered = context.undelivered, None
        if sid is None:
            return
        context.drop()
        if (transaction := _undecided(context)) is not None:
            transaction.too_late(sid, None if context.data is None else context.data.give_back)
            return
        await self._end(sid)
        if context.data is not None:
            await context.data.give_back()

    async def _not_issued(self, context: RequestContext) -> None:
        """End the sessions of new tokens that have not reached anybody."""
        sids, context.issued = context.issued, ()
        if (transaction := _undecided(context)) is not None:
            for sid in sids:
                transaction.too_late(sid)
            return
        for sid in sids:
            await self._end(sid)

    async def _end(self, sid: str) -> None:
        try:
            await self._core.end(sid, "not_delivered")
        except SessionsError as error:
            # Nobody has its secret; it runs out by itself.
            logger.warning("session %s was not delivered and could not be ended: %s", sid, error)


def _undecided(context: RequestContext) -> Transaction | None:
    """The app's transaction of which nobody knows yet whether it commits, if there is one."""
    transaction = context.transaction
    return transaction if transaction is not None and transaction.is_open else None
