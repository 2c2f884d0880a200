"""What a response does for its session: carries the cookie, and notes that it was used."""

from __future__ import annotations

import asyncio
from datetime import datetime

from starlette.types import Message, Send

from ._binding import Binding
from ._call import Call
from ._cookies import for_caches
from ._core import Core
from ._errors import SessionsError
from ._events import logger

_SERVER_ERROR = 500


class Delivery:
    """Sees to it that a session and its cookie come into the world together.

    Args:
        core: the steps of a session's life.
        binding: what binds sessions to devices, if anything does.
    """

    def __init__(self, core: Core, binding: Binding | None) -> None:
        self._core = core
        self._binding = binding
        self._settings = core.settings

    async def start(self, call: Call, message: Message, send: Send) -> None:
        """Send the start of a response, with the cookie that it has to carry."""
        await send(await self._answer(call, message))
        call.undelivered = None

    async def _answer(self, call: Call, message: Message) -> Message:
        """The start of a response, with the cookie that it has to carry."""
        call.responding = True
        failed = message.get("status", 0) >= _SERVER_ERROR
        # A late answer must not bring back the cookie of what has ended meanwhile.
        if call.token is not None and (failed or not await self._core.holds(call.token)):
            call.token = None
        if call.token is None:
            await self._not_delivered(call)  # the app has failed, or has given up the login
        cookie = None
        if call.token is not None and call.row is not None and call.session is not None:
            left = call.session.expires_at - self._settings.now()
            cookie = self._settings.cookie.render(
                self._settings.keys.sign(call.token),
                max_age=max(round(left.total_seconds()), 1) if call.row.remember else None,
            )
        elif call.clear:
            cookie = self._settings.cookie.render("", max_age=0)
        headers = list(message.get("headers", ()))
        if cookie is not None:
            headers = self._settings.cookie.write(headers, cookie)
        if message["type"] != "websocket.accept":  # no cache keeps a handshake
            headers = for_caches(headers, private=call.private)
        elif cookie is None:
            return message
        if call.extra is not None:
            headers.append(call.extra)
        if self._binding is not None:
            headers += self._binding.headers(call)
        return {**message, "headers": headers}

    async def withdraw(self, call: Call) -> None:
        """End the session of a login whose cookie has not reached anybody."""
        if call.undelivered is not None:
            # Shielded: a client that has gone must not leave a session behind.
            await asyncio.shield(self._core.events.run(self._not_delivered(call)))

    async def _not_delivered(self, call: Call) -> None:
        sid, call.undelivered = call.undelivered, None
        if sid is None:
            return
        call.drop()
        try:
            await self._core.end(sid, "not_delivered")
        except SessionsError as fault:
            # Nobody has its cookie; it runs out by itself.
            logger.warning("session %s was not delivered and could not be ended: %s", sid, fault)

    def touch_if_due(self, call: Call, now: datetime) -> None:
        """Note that the session of a call is used, unless that was done a short while ago. Nobody
        waits for it: a server may hold the client's next request back until the app is done.
        """
        row = call.row
        if row is None:
            return
        arrived = (
            row.previous_secret_hash is not None
            and row.secret_seen_at is None
            and call.presented == row.secret_hash
        )
        if not arrived and (
            not call.touches or now - row.last_seen_at < self._settings.touch_interval
        ):
            return
        seen_at = now if arrived else row.secret_seen_at
        call.row = row._replace(last_seen_at=now, secret_seen_at=seen_at)
        self._core.touch(row, seen=arrived, now=now)
