"""A timeout that cancels again if a cancellation was swallowed."""

from __future__ import annotations

import asyncio
from types import TracebackType

#: Seconds after which what was cancelled and still goes on is cancelled again.
_AGAIN = 0.1


class Deadline:
    """`asyncio.timeout_at`, but what goes on after it was cancelled is cancelled again.

    One cancellation may be lost: `asyncio.wait_for` of Python 3.11 swallows it if what it waits for
    is done at that moment, so that a driver goes on connecting; and the ROLLBACK of a transaction
    that was cancelled may wait as long as the statement before it.

    Args:
        until: the time of the event loop at which the body is over, by `TimeoutError`.
    """

    def __init__(self, until: float) -> None:
        self._until = until
        self._cancelled = 0

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 -- for the type checker: this is a coroutine
        self._task = task
        self._before = task.cancelling()
        self._loop = asyncio.get_running_loop()
        self._handle = self._loop.call_at(self._until, self._cancel)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handle.cancel()
        if not self._cancelled:
            return
        for _ in range(self._cancelled):
            self._task.uncancel()
        if kind is asyncio.CancelledError and self._task.cancelling() <= self._before:
            raise TimeoutError from error  # else somebody else has cancelled, too

    def _cancel(self) -> None:
        self._cancelled += 1
        self._task.cancel()
        self._handle = self._loop.call_later(_AGAIN, self._cancel)
