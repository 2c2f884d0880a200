"""Tasks that run beside requests, and that the end of the app waits for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Coroutine, Sequence
from typing import Any, TypeVar

from asgi_sessions._database.tasks import running_loop

T = TypeVar("T")

_logger = logging.getLogger("asgi_sessions")
_FAILED = "work beside a request failed"


#: Sessions that are reported in one go: a millisecond.
_AT_ONCE = 32


async def slices(items: Sequence[T]) -> AsyncIterator[Sequence[T]]:
    """Many items in slices, so that other requests come in between."""
    for start in range(0, len(items), _AT_ONCE):
        yield items[start : start + _AT_ONCE]
        await asyncio.sleep(0)


class BackgroundTasks:
    """The tasks of one `Sessions`, in all event loops."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def run(self, work: Coroutine[Any, Any, Any], name: str | None = None) -> asyncio.Task[Any]:
        """Run something beside the request, whatever becomes of that; log its exception."""
        return self._keep(asyncio.get_running_loop().create_task(_logged(work), name=name))

    async def complete(self, work: Coroutine[Any, Any, T]) -> T:
        """Wait for something that goes on to its end even if nobody waits for it any more."""
        task = self._keep(asyncio.get_running_loop().create_task(work))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(_log_error)
            raise

    async def settle(self, within: float | None = None) -> None:
        """Wait for the tasks of this event loop; cancel what takes longer than so many seconds."""
        loop = running_loop()
        until = None if within is None else loop.time() + within
        while mine := [task for task in self._tasks if task.get_loop() is loop]:
            left = None if until is None else max(until - loop.time(), 0)
            _, late = await asyncio.wait(mine, timeout=left)
            if late:
                _logger.warning("%d handlers of on_event did not finish in time", len(late))
                for task in late:
                    task.cancel()
                await asyncio.wait(late, timeout=within)
                return

    def _keep(self, task: asyncio.Task[T]) -> asyncio.Task[T]:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _log_error(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        _logger.error(_FAILED, exc_info=error)


async def _logged(work: Coroutine[Any, Any, Any]) -> None:
    try:
        await work
    except Exception:
        _logger.exception(_FAILED)
