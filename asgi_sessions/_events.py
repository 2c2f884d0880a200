"""What happened, for the log and for the app: never a secret in either (ASVS 16.2.5)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal

from ._errors import ConfigurationError
from ._session import Session

logger = logging.getLogger("asgi_sessions")

EventKind = Literal["started", "ended", "renewed", "reuse_detected"]


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One step in a session's life, told once it is in the database.

    Attributes:
        kind: ``started``, ``ended`` (`session.end_reason` says why), ``renewed``, or
            ``reuse_detected`` (a superseded secret was presented: the cookie was stolen).
        session: the session as it is after the step.
    """

    kind: EventKind
    session: Session


EventHandler = Callable[[SessionEvent], Awaitable[None] | None]


class Events:
    """Tells the log and the app's handler; a handler that fails harms nobody.

    Args:
        handler: called with each event; what it awaits runs beside the request.

    Raises:
        ConfigurationError: if the handler is none.
    """

    def __init__(self, handler: EventHandler | None) -> None:
        if handler is not None and not callable(handler):
            raise ConfigurationError(f"on_event={handler!r}: use a function of a SessionEvent")
        self._handler = handler
        self._tasks: set[asyncio.Task[Any]] = set()
        self.down = False
        self.touch_failures = 0

    def tell(self, kind: EventKind, session: Session) -> None:
        """Log the step and hand it to the handler."""
        level = logging.WARNING if kind == "reuse_detected" else logging.INFO
        facts = {"sid": session.id, "person_id": session.person_id, "reason": session.end_reason}
        why = f" ({session.end_reason})" if kind == "ended" else ""
        logger.log(level, "session %s%s: %s", kind.replace("_", " "), why, session.id, extra=facts)
        if self._handler is None:
            return
        try:
            result = self._handler(SessionEvent(kind, session))
            if result is not None:
                self.run(_awaited(result))
        except Exception:
            logger.exception("on_event failed for %s of %s", kind, session.id)

    def run(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let something run beside the request, whatever becomes of that."""
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def settle(self) -> None:
        """Wait for what runs beside requests in this event loop."""
        loop = asyncio.get_running_loop()
        while mine := [task for task in self._tasks if task.get_loop() is loop]:
            await asyncio.wait(mine)

    def unavailable(self, fault: Exception) -> None:
        """The database did not answer: logged when an outage begins."""
        if not self.down:
            self.down = True
            logger.error("sessions unavailable: %s", fault, exc_info=fault)

    def available(self) -> None:
        """The database answered: logged when an outage is over."""
        if self.down:
            self.down = False
            logger.warning("sessions available again")

    def touch_failed(self, fault: Exception) -> None:
        """A touch was lost: counted, and no reason to end anything."""
        self.touch_failures += 1
        logger.warning("touch failed (%d so far): %s", self.touch_failures, fault)


async def _awaited(result: Awaitable[None]) -> None:
    await result


async def _logged(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception:
        logger.exception("work beside a request failed")
