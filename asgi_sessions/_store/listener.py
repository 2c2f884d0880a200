"""Listens for the ends that other processes announce (PostgreSQL's LISTEN), on a connection of its
own, with asyncpg's own methods.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from asgi_sessions._database.deadline import Deadline
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
        connect: opens the connection, one of asyncpg.
        channel: what is listened to.
        tell: says a word on the channel, over another connection.
        heard: called with each word of others.
        ready: called whenever listening begins: nobody has heard what was told before.
        timeout: seconds that the database may take.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Any]],
        channel: str,
        *,
        tell: Callable[[str], Awaitable[None]],
        heard: Callable[[str], None],
        ready: Callable[[], None],
        timeout: float,
    ) -> None:
        self._connect = connect
        self._channel = channel
        self._tell = tell
        self._heard = heard
        self._ready = ready
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._raw: Any = None
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
                    lost = await self._open()
                    if pause != FIRST_PAUSE:
                        pause = FIRST_PAUSE
                        logger.warning(
                            "told of ends in other processes again", extra={"event": "notified"}
                        )
                    self.hears = True
                    self._ready()
                    await self._until(lost)
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
            raw, self._raw = self._raw, None
            if raw is not None:
                with suppress(Exception):
                    raw.terminate()
            raise
        finally:
            await self._close()

    async def _open(self) -> asyncio.Future[None]:
        """Connect and listen; the future is done when the connection is lost."""
        lost: asyncio.Future[None] = self._loop.create_future()
        echo: asyncio.Future[None] = self._loop.create_future()
        word = str(uuid.uuid4())

        def hear(*told: Any) -> None:  # noqa: ANN401 -- connection, process, channel, payload
            payload = told[-1]
            if payload != word:
                self._heard(payload)
            elif not echo.done():
                echo.set_result(None)

        async with self._deadline():
            self._raw = await self._connect()
            self._raw.add_termination_listener(lambda _: lost.set_result(None))
            await self._raw.add_listener(self._channel, hear)
        await self._tell(word)
        await asyncio.wait([echo, lost], timeout=self._timeout, return_when=asyncio.FIRST_COMPLETED)
        if not echo.done():
            async with self._deadline():
                await self._raw.remove_listener(self._channel, hear)
            raise ConfigurationError(
                "LISTEN hears nothing, as behind PgBouncer in transaction mode: give Sessions a URL"
                " that leads to PostgreSQL itself, or leave notify out"
            )
        return lost

    async def _until(self, lost: asyncio.Future[None]) -> None:
        """Wait until the connection is lost; that raises."""
        while True:
            await asyncio.wait([lost], timeout=PULSE)
            if lost.done():
                raise ConnectionError("the connection that listens was lost")
            async with self._deadline():
                await self._raw.execute("SELECT 1")

    async def _close(self) -> None:
        self.hears = False
        raw, self._raw = self._raw, None
        if raw is not None:
            with suppress(Exception):  # then it has been broken off
                async with self._deadline():
                    await raw.close()

    def _deadline(self) -> Deadline:
        return Deadline(self._loop.time() + self._timeout)
