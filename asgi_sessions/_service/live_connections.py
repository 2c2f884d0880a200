"""What is open ends with its session: at once in this process, soon in every other."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from typing import NamedTuple, Protocol

from asgi_sessions._database.tasks import own_task

logger = logging.getLogger("asgi_sessions")

End = Callable[[], None]
Secret = Callable[[], bytes | None]
Unproved = Callable[[], datetime | None]
Heard = Callable[[str], None]


class Alive(NamedTuple):
    """What may be open on a session that lives.

    Attributes:
        secret: the digest of its secret.
        cut: of a session that is bound to its device: what has been open without the device's
            proof since then, or for longer, has outlived any proof; None where none is needed, or
            not for long enough.
    """

    secret: bytes
    cut: datetime | None


class _Opened(NamedTuple):
    """What tells how a connection was opened."""

    secret: Secret
    unproved: Unproved


class Ears(Protocol):
    """Receives notifications of sessions ended in other processes, in one event loop."""

    def stop(self) -> None:
        """Hear no more."""

    async def stopped(self) -> None:
        """Wait until what it takes to hear is given back."""


#: Given what to call with a sid that has ended, and what to call when hearing begins, also again.
Listen = Callable[[Heard, Callable[[], None]], Ears]


class _Here:
    """What is open in one event loop, by session, and what looks after it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.open: dict[str, dict[End, _Opened]] = {}
        self.timer: asyncio.TimerHandle | None = None
        self.check: asyncio.Task[None] | None = None
        self.ears: Ears | None = None
        self.again = False
        self.blind = False

    def remove(self, sids: Sequence[str], end: End) -> None:
        """Also while the loop is gone, and a coroutine of it is cleared away."""
        for sid in sids:
            mine = self.open.get(sid, {})
            mine.pop(end, None)
            if not mine:
                self.open.pop(sid, None)


class LiveConnections:
    """The open WebSockets and long responses of this process, whichever event loops they run in.

    Args:
        living: which of these sids live, and what may be open on them.
        interval: how often that is asked, with one question for all that is open in a loop;
            nothing is asked while there is nothing.
        listen: hears of ends in other processes before they are asked about; None without.
    """

    def __init__(
        self,
        living: Callable[[Sequence[str]], Awaitable[Mapping[str, Alive]]],
        interval: timedelta,
        listen: Listen | None,
    ) -> None:
        self._living = living
        self._interval = interval.total_seconds()
        self._listen = listen
        self._loops: dict[asyncio.AbstractEventLoop, _Here] = {}

    def add(
        self,
        sid: str,
        end: End,
        secret: Secret = lambda: None,
        unproved: Unproved = lambda: None,
        actor_sid: str | None = None,
    ) -> Callable[[], None]:
        """Have `end` called in the running loop when the session ends, or has been renewed since
        the connection was opened, or has needed its device's proof for so long that this
        connection, which was opened without, would need another one by now; call what is returned
        when it is over.

        Args:
            sid: of the session.
            end: ends the connection.
            secret: tells the digest of the secret with which it was opened; None if without one.
            unproved: tells since when it has been open by the cookie alone, without the proof of a
                device; None if it needs none.
            actor_sid: of the session that waits while somebody acts in this one: it ends with that
                one, too.
        """
        loop = asyncio.get_running_loop()
        here = self._loops.get(loop)
        if here is None:
            for other in [other for other in tuple(self._loops) if other.is_closed()]:
                self._loops.pop(other, None)  # closed with something open
            here = self._loops[loop] = _Here(loop)
        sids = [sid]
        here.open.setdefault(sid, {})[end] = _Opened(secret, unproved)
        if actor_sid is not None:
            sids.append(actor_sid)
            here.open.setdefault(actor_sid, {})[end] = _Opened(lambda: None, unproved)
        if here.timer is None and here.check is None:
            self._wait(here, self._interval)
        if self._listen is not None and here.ears is None:
            here.ears = self._listen(self.end, partial(self._look, here))
        return partial(here.remove, sids, end)

    def end(self, sid: str, *, but: bytes | None = None) -> None:
        """The session has ended: end what is open on it. From any thread.

        Args:
            sid: of the session.
            but: of a session that was renewed, the digest of its secret: what was opened with that
                one goes on.
        """
        for loop, here in tuple(self._loops.items()):
            for end, opened in tuple(here.open.get(sid, {}).items()):
                with suppress(RuntimeError):  # a loop that was closed with something open
                    loop.call_soon_threadsafe(_end, end, opened.secret, but)

    async def check(self) -> None:
        """End what is open in the running loop on sessions that have ended elsewhere."""
        here = self._loops.get(asyncio.get_running_loop())
        if here is None or not here.open:
            return
        # As they are before the question: a connection that is opened meanwhile, with a secret that
        # is newer than the answer, is not ended by it.
        opened = [
            (sid, end, how.secret(), how.unproved())
            for sid, ends in here.open.items()
            for end, how in ends.items()
        ]
        try:
            living = await self._living(list(here.open))
        except Exception as error:  # noqa: BLE001 -- it is tried again
            # Nothing is known of them, so nothing is done to them.
            if not here.blind:
                here.blind = True
                logger.warning("open connections could not be checked: %s", error)
            return
        here.blind = False
        for sid, end, secret, since in opened:
            alive = living.get(sid)
            if alive is None or secret not in (None, alive.secret) or _outlived(since, alive.cut):
                _close(end)

    async def stop(self) -> None:
        """Look after what is open in the running loop no more, until something is added."""
        here = self._loops.get(asyncio.get_running_loop())
        if here is None:
            return
        timer, here.timer = here.timer, None
        check, here.check = here.check, None
        ears, here.ears = here.ears, None
        if timer is not None:
            timer.cancel()
        if check is not None:
            check.cancel()
            await asyncio.wait([check])
        if ears is not None:
            ears.stop()
            await ears.stopped()

    # --- now and then ---------------------------------------------------------------------------

    def _wait(self, here: _Here, seconds: float) -> None:
        # An empty context: what a request has set must not live on in here.
        here.timer = here.loop.call_later(seconds, self._wake, here, context=Context())

    def _wake(self, here: _Here) -> None:
        here.timer = None
        if here.open:
            here.check = own_task(self._check(here))
            return
        del self._loops[here.loop]
        if here.ears is not None:
            here.ears.stop()

    async def _check(self, here: _Here) -> None:
        here.again = False
        await self.check()
        here.check = None
        self._wait(here, 0 if here.again else self._interval)

    def _look(self, here: _Here) -> None:
        """Check now: nobody has heard what was told before."""
        here.again = True
        if here.timer is not None and here.open:  # what was open a moment ago may come back
            here.timer.cancel()
            self._wake(here)


def _outlived(since: datetime | None, cut: datetime | None) -> bool:
    return since is not None and cut is not None and since <= cut


def _end(end: End, secret: Secret, but: bytes | None) -> None:
    """End a connection, unless it was opened with this very secret or with none at all, as those of
    clients without a cookie; where there is no secret, its session is over.
    """
    if but is None or secret() not in (None, but):
        _close(end)


def _close(end: End) -> None:
    """End a connection. What the app has given to close it may fail, which must hold up no other
    end, and no later check.
    """
    try:
        end()
    except Exception:
        logger.exception("what was open on a session that has ended could not be closed")
