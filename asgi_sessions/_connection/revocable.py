"""Between the server and the app: a WebSocket or a response that can be ended from outside."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import ClassVar

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Send
from starlette.websockets import WebSocketDisconnect

#: RFC 6455, 7.4.1: the endpoint closes because of its policy.
POLICY_VIOLATION = 1008
_REASON = "session ended"


class SessionGone(OSError):
    """What sending raises once the session has ended, as on a connection that was lost."""


#: Exceptions that an app may raise once it was disconnected: Starlette has one of its own for
#: an OSError.
_TOLD = (SessionGone, ClientDisconnect, WebSocketDisconnect)


class RevocableConnection(ABC):
    """Passes messages on until `end`; then the browser sees the end, and the app a disconnect.

    The app learns of it wherever it is: `receive` gives the disconnect, also one that waits;
    `send` raises `SessionGone`, but lets an app finish that does so by itself.

    Args:
        receive: the server's.
        send: the server's.
    """

    #: What `receive` gives once the session has ended.
    disconnect: ClassVar[Message]

    # Defaults of the class: most responses are short, and need not be slowed down by all of them.
    _ended = False
    _over = False
    _listening: frozenset[asyncio.Task[object]] = frozenset()
    _sending: asyncio.Lock | None = None
    _ending: asyncio.Task[None] | None = None

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send

    @abstractmethod
    def _is_last(self, message: Message) -> bool:
        """Whether nothing more can be sent after it."""

    @abstractmethod
    def _farewell(self) -> Sequence[Message]:
        """What tells the browser that it is over."""

    def end(self) -> None:
        """End it now, whatever the app is doing. In the loop of the connection."""
        if not self._ended:
            self._ended = True
            listening, self._listening = self._listening, frozenset()
            for task in listening:
                task.cancel()  # `receive` makes a disconnect of it
            self._ending = asyncio.get_running_loop().create_task(self._hang_up())

    async def receive(self) -> Message:
        """The next message from the browser, or the disconnect."""
        if self._ended:
            return dict(self.disconnect)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- for the type checker: this is a coroutine
        before = task.cancelling()
        self._listening |= {task}
        try:
            return await self._receive()
        except asyncio.CancelledError:
            if task in self._listening or task.uncancel() > before:
                raise  # somebody else has cancelled, too
            return dict(self.disconnect)
        finally:
            self._listening -= {task}

    async def send(self, message: Message) -> None:
        """Pass a message on.

        Raises:
            SessionGone: if the session has ended.
        """
        async with self._lock():
            last = self._is_last(message)
            if self._ended:
                if last:
                    return
                raise SessionGone(_REASON)
            self._over |= last
            await self._send(message)

    def explains(self, error: Exception) -> bool:
        """Whether an app has raised this because it was told that the session has ended."""
        if not self._ended:
            return False
        if isinstance(error, ExceptionGroup):
            return error.split(_TOLD)[1] is None
        return isinstance(error, _TOLD)

    async def finish(self) -> None:
        """The app is done: leave nothing running."""
        if self._ending is not None:
            await self._ending

    async def _hang_up(self) -> None:
        async with self._lock():  # a message that is under way goes first
            if not self._over:
                self._over = True
                with suppress(Exception):  # the browser has gone, too
                    for message in self._farewell():
                        await self._send(message)

    def _lock(self) -> asyncio.Lock:
        if self._sending is None:
            self._sending = asyncio.Lock()
        return self._sending


class Socket(RevocableConnection):
    """A WebSocket: the browser gets 1008.

    Args:
        receive: the server's.
        send: the server's.
        used: called whenever the browser has sent something.
    """

    disconnect: ClassVar[Message] = {
        "type": "websocket.disconnect",
        "code": POLICY_VIOLATION,
        "reason": _REASON,
    }

    def __init__(self, receive: Receive, send: Send, used: Callable[[], object]) -> None:
        super().__init__(receive, send)
        self._used = used

    async def receive(self) -> Message:
        """The next message from the browser, or the disconnect."""
        message = await super().receive()
        if message["type"] == "websocket.receive":
            self._used()
        elif message["type"] == "websocket.disconnect" and not self._ended:
            self._over = True
        return message

    def _is_last(self, message: Message) -> bool:
        return bool(message["type"] == "websocket.close")

    def _farewell(self) -> Sequence[Message]:
        return [{"type": "websocket.close", "code": POLICY_VIOLATION, "reason": _REASON}]
