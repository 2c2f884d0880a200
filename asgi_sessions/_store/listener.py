"""Listens for the ends that other processes announce (PostgreSQL's LISTEN), on a connection of its
own, as its driver listens.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress

from asgi_sessions._database.deadline import Deadline
from asgi_sessions._database.drivers.base import Driver, Listening
from asgi_sessions._database.pools.base import Line
from asgi_sessions._database.tasks import own_task
from asgi_sessions._errors import ConfigurationError

logger = logging.getLogger("asgi_sessions.database")

#: Seconds between two signs of life: no packet tells of a server that went without one.
PULSE = 5.0
#: Seconds before a lost connection is opened again: at first, and at most, each time twice as long.
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 60.0


class Listener:
    """Listens in the running event loop until `stop`; after a loss, again.

    Args:
        connect: opens the connection.
        driver: how to speak to it.
        channel: what is listened to.
        tell: says a word on the channel, over another connection.
        heard: called with each word of others.
        ready: called whenever listening begins: nobody has heard what was told before.
        timeout: seconds that the database may take.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Line]],
        driver: Driver,
        channel: str,
        *,
        tell: Callable[[str], Awaitable[None]],
        heard: Callable[[str], None],
        ready: Callable[[], None],
        timeout: float,
    ) -> None:
        self._connect = connect
        self._driver = driver
        self._channel = channel
        self._tell = tell
        self._heard = heard
        self._ready = ready
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._line: Line | None = None
        #: Whether it is listening now.
        self.hears = False
        self._task = own_task(self._serve())

    def stop(self) -> None:
        """Listen no more, and close the connection."""
        self._task.cancel()

    async def stopped(self) -> None:
        """Wait until the connection is closed."""
        await asyncio.wait([self._task])

    async def _serve(self) -> None:
        pause = FIRST_PAUSE
        try:
            while True:
                try:
                    listening = await self._open()
                    if pause != FIRST_PAUSE:
                        pause = FIRST_PAUSE
                        logger.warning(
                            "told of ends in other processes again", extra={"event": "notified"}
                        )
                    self.hears = True
                    self._ready()
                    await self._attend(listening)
                except Exception as error:  # noqa: BLE001 -- it is tried again
                    if pause == FIRST_PAUSE:  # once for each outage
                        logger.warning(
                            "not told of ends in other processes: %s",
                            str(error) or type(error).__name__,
                            extra={"event": "not_notified"},
                        )
                await self._close()
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)
        except GeneratorExit:  # the event loop was closed without a word
            line, self._line = self._line, None
            if line is not None:
                line.leave()
                with suppress(Exception):
                    self._driver.leave(line.raw)
            raise
        finally:
            await self._close()

    async def _open(self) -> Listening:
        """Connect and listen, and see that what is told is heard."""
        word = str(uuid.uuid4())
        echoed = False

        def hear(payload: str) -> None:
            nonlocal echoed
            if payload == word:
                echoed = True
            else:
                self._heard(payload)

        async with self._deadline():
            self._line = await self._connect()
            listening = await self._driver.listen(self._line.raw, self._channel, hear)
        await self._tell(word)
        until = self._loop.time() + self._timeout
        while not echoed and (left := until - self._loop.time()) > 0:
            await listening.wait(left)
        if not echoed:
            async with self._deadline():
                await listening.stop()
            raise ConfigurationError(
                "LISTEN hears nothing, as behind PgBouncer in transaction mode: give Sessions a URL"
                " or an engine that leads to PostgreSQL itself, or leave notify out"
            )
        return listening

    async def _attend(self, listening: Listening) -> None:
        """Hear until the connection is lost; that raises."""
        while True:
            until = self._loop.time() + PULSE
            while (left := until - self._loop.time()) > 0:
                await listening.wait(left)
            async with self._deadline():
                await listening.pulse()

    async def _close(self) -> None:
        self.hears = False
        line, self._line = self._line, None
        if line is not None:
            try:
                async with self._deadline():
                    await line.give_back(broken=False)
            except Exception:  # noqa: BLE001 -- each driver has its own
                with suppress(Exception):
                    self._driver.abandon(line.raw)

    def _deadline(self) -> Deadline:
        return Deadline(self._loop.time() + self._timeout)
