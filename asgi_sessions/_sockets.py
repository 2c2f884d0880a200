"""Open WebSockets end with their session: at once in this process, soon in every other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import timedelta

from ._errors import SessionsUnavailable

logger = logging.getLogger("asgi_sessions")

Close = Callable[[], None]


class OpenSockets:
    """The sockets of this process by session, whichever event loops they run in.

    Args:
        dead: which of these sids live no longer.
        interval: how often that is asked, with one question for all sockets of a loop; nothing
            is asked while there are none.
    """

    def __init__(
        self, dead: Callable[[Sequence[str]], Awaitable[list[str]]], interval: timedelta
    ) -> None:
        self._dead = dead
        self._interval = interval.total_seconds()
        self._open: dict[asyncio.AbstractEventLoop, dict[str, set[Close]]] = {}
        self._checkers: dict[asyncio.AbstractEventLoop, asyncio.Task[None]] = {}

    def add(self, sid: str, close: Close) -> None:
        """Have `close` called in the running loop when the session ends."""
        loop = asyncio.get_running_loop()
        mine = self._open.setdefault(loop, {})
        mine.setdefault(sid, set()).add(close)
        if loop not in self._checkers:
            self._checkers[loop] = loop.create_task(self._check_often(loop), context=Context())

    def remove(self, sid: str, close: Close) -> None:
        """The socket is gone; with the last of a loop its checker goes."""
        loop = asyncio.get_running_loop()
        mine = self._open[loop]
        mine[sid].discard(close)
        if not mine[sid]:
            del mine[sid]
        if not mine:
            del self._open[loop]
            self._checkers.pop(loop).cancel()

    def close(self, sid: str) -> None:
        """The session has ended: close its sockets. From any thread."""
        for loop, mine in tuple(self._open.items()):
            for close in tuple(mine.get(sid, ())):
                with suppress(RuntimeError):  # a loop that was closed with its sockets open
                    loop.call_soon_threadsafe(close)

    async def check(self) -> None:
        """Close the sockets of the running loop whose sessions have ended elsewhere."""
        mine = self._open.get(asyncio.get_running_loop(), {})
        try:
            dead = await self._dead(list(mine))
        except SessionsUnavailable as fault:
            # Nothing is known of them, so nothing is done to them.
            logger.warning("open sockets could not be checked: %s", fault)
            return
        for sid in dead:
            self.close(sid)

    async def _check_often(self, loop: asyncio.AbstractEventLoop) -> None:
        while loop in self._open:
            await asyncio.sleep(self._interval)
            await self.check()
