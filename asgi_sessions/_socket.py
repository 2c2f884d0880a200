"""One WebSocket, between the server and the app: can be closed from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.types import Message, Receive, Send

#: RFC 6455, 7.4.1: the endpoint closes because of its policy.
POLICY_VIOLATION = 1008
_REASON = "session ended"


class SessionGone(OSError):
    """What sending raises once the session has ended, as on a connection that was lost."""


class Socket:
    """Passes messages on until `close`; then the browser gets 1008 and the app a disconnect.

    Args:
        receive: the server's.
        send: the server's.
        used: called whenever the browser has sent something.
    """

    def __init__(self, receive: Receive, send: Send, used: Callable[[], object]) -> None:
        self._receive = receive
        self._send = send
        self._used = used
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._receiving: asyncio.Future[Message] | None = None
        self._closing: asyncio.Task[None] | None = None
        self._sending = asyncio.Lock()
        self._over = False

    def close(self) -> None:
        """End the socket now, whatever the app is doing. In the socket's own loop."""
        if not self._ended.done():
            self._ended.set_result(None)
            self._closing = asyncio.get_running_loop().create_task(self._hang_up())

    async def receive(self) -> Message:
        """The next message from the browser, or the disconnect."""
        if self._receiving is None:
            self._receiving = asyncio.ensure_future(self._receive())
        await asyncio.wait((self._receiving, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if self._ended.done():
            return {"type": "websocket.disconnect", "code": POLICY_VIOLATION, "reason": _REASON}
        message, self._receiving = self._receiving.result(), None
        if message["type"] == "websocket.receive":
            self._used()
        elif message["type"] == "websocket.disconnect":
            self._over = True
        return message

    async def send(self, message: Message) -> None:
        """Pass a message on.

        Raises:
            SessionGone: if the session has ended.
        """
        async with self._sending:
            if self._ended.done():
                if message["type"] == "websocket.close":
                    return
                raise SessionGone(_REASON)
            if message["type"] == "websocket.close":
                self._over = True
            await self._send(message)

    async def finish(self) -> None:
        """The app is done: leave nothing running."""
        if self._receiving is not None:
            self._receiving.cancel()
        if self._closing is not None:
            await self._closing

    async def _hang_up(self) -> None:
        async with self._sending:
            if not self._over:
                self._over = True
                await self._send(
                    {"type": "websocket.close", "code": POLICY_VIOLATION, "reason": _REASON}
                )
