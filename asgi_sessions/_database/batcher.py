"""A batcher: one task, one held connection, jobs of several kinds.

Whoever asks waits for an answer, not for a connection: a request that is cancelled leaves its
job to the batcher, so no statement is cut in half and no connection is lost. Jobs of a kind that
arrive while the batcher works are taken together next time; nothing waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, Protocol, TypeVar

from asgi_sessions import _metrics
from asgi_sessions._errors import SessionsError, SessionsUnavailable

from .deadline import Deadline
from .tasks import own_task

Held = TypeVar("Held")
Held_contra = TypeVar("Held_contra", contravariant=True)
Run = Callable[[Held, list[Any]], Awaitable[Sequence[Any]]]
#: A job, the future of its answer, and the time until which that must be there.
Waiting = tuple[Any, asyncio.Future[Any], float]
#: Jobs of which a batcher that wakes takes half.
_HALVED = 32
#: Seconds that the goodbye of a connection may take: a dead one would never be done with it.
_GOODBYE = 0.5


class Release(Protocol[Held_contra]):
    """Gives a connection back; a broken one without waiting for the server."""

    async def __call__(self, held: Held_contra, /, *, broken: bool) -> None: ...


class Batcher(Generic[Held]):
    """Runs jobs on a connection of its own, the kinds in turn.

    Args:
        acquire: opens a connection.
        release: gives it back.
        leave: lets go of it without waiting, when its event loop is gone.
        kinds: by the name of a kind, what answers a batch of its jobs, in their order, and how
            many it takes at most. It may be called again for the same jobs.
        is_transient: whether an error is transient, so that the batch is tried again.
        reason: asks the connection that has met an error for an error of ours that says more.
        hold: keep the connection while there is nothing to do.
        keep: keep it while somebody brings one job after another (`kept`).
        timeout: seconds that an answer may take, from the asking.
        halve: take half of many that have gathered while it slept: then the database works on the
            one half while the requests of the other go on, and they take turns from then on.
        last: the kind whose jobs are done even if the loop ends before; nobody waits for them.
        max_idle: seconds of rest after which a held connection is not used any more, because a
            firewall or a load balancer may have forgotten it without a word. For the same reason
            one that was there before has half of the time to answer, so that a new one has the
            other half. None where no network is between.
        stale: whether a held connection has to be replaced before it is used again.
        shortage: why none can be acquired, if too many are in use.
    """

    def __init__(
        self,
        acquire: Callable[[], Awaitable[Held]],
        release: Release[Held],
        leave: Callable[[Held], None],
        kinds: Mapping[str, tuple[Run[Held], int]],
        *,
        is_transient: Callable[[Exception], bool],
        reason: Callable[[Held, Exception], Awaitable[SessionsError | None]],
        hold: bool,
        keep: bool = False,
        timeout: float,
        halve: bool = False,
        last: str | None = None,
        max_idle: float | None = None,
        stale: Callable[[Held], bool],
        shortage: Callable[[], SessionsError | None] = lambda: None,
    ) -> None:
        self._acquire = acquire
        self._release = release
        self._leave = leave
        self._is_transient = is_transient
        self._reason = reason
        self._hold = hold
        self._keep = keep
        self._keepers = 0
        self._timeout = timeout
        self._halve = halve
        self._last = last
        self._max_idle = max_idle
        self._stale = stale
        self._shortage = shortage
        #: When the held connection has answered last.
        self._used = 0.0
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        if (metrics := _metrics.METRICS) is not None:
            kinds = {k: (metrics.measured(k, run), most) for k, (run, most) in kinds.items()}
        self._kinds = kinds
        self._waiting: dict[str, deque[Waiting]] = {kind: deque() for kind in kinds}
        self._batch: list[Waiting] = []
        self._kind = ""  # of the batch
        self._held: Held | None = None
        self._task: asyncio.Task[None] | None = None
        self._reached = False
        self._woken = True
        self._serving = False
        self._sleeping: asyncio.Future[None] | None = None
        self._idle = asyncio.Event()

    def submit(self, kind: str, job: object) -> asyncio.Future[Any]:
        """Queue a job; the future brings the answer.

        Raises (through the future):
            SessionsUnavailable: if the database does not answer.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting[kind].append((job, future, self._now() + self._timeout))
        if self._sleeping is not None:
            self.wake()
        elif not self._serving:
            self._serving = True
            self._task = own_task(self._serve())
        return future

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Keep the connection between the jobs that somebody brings one after another."""
        self._keepers += 1
        try:
            yield
        finally:
            self._keepers -= 1
            if not self._hold and not self._loop.is_closed():
                self.wake()  # to give it back

    async def close(self) -> None:
        """Finish what waits, then give the connection back."""
        if self._serving and self._task is not None:
            if any(self._waiting.values()):
                self._idle.clear()
            await self._idle.wait()
            self._task.cancel()
        await self.ended()

    async def ended(self) -> None:
        """Wait until the connection has been given back."""
        if self._task is not None:
            await asyncio.wait([self._task])

    def leave(self) -> None:
        """The event loop was closed with this batcher in it, so nothing can be awaited any more."""
        held, self._held = self._held, None
        if held is not None:
            self._leave(held)

    async def _serve(self) -> None:
        try:
            while True:
                for kind, waiting in self._waiting.items():
                    if waiting:
                        run, most = self._kinds[kind]
                        self._kind = kind
                        self._take(waiting, most)
                        await self._answer(run, self._batch)
                        self._batch.clear()
                if not any(self._waiting.values()):
                    if not self._hold and not (self._keep and self._keepers):
                        await self._drop(broken=False)
                    else:
                        await self._drop_stale()
                    await self._sleep()
        except asyncio.CancelledError:
            await self._finish()
            raise
        except GeneratorExit:
            self.leave()
            raise
        finally:
            # Only a closing loop or `close` ends the task.
            self._serving, self._sleeping = False, None
            closing = SessionsUnavailable("the event loop is closing")
            for refused in (self._batch, *self._waiting.values()):
                _refuse(refused, closing)
                refused.clear()
            self._idle.set()
            await self._drop(broken=False)

    def _take(self, waiting: deque[Waiting], most: int) -> None:
        """Those who have waited longest are the batch."""
        if self._woken and self._halve and len(waiting) >= _HALVED:
            most = min(most, len(waiting) // 2)
        self._woken = False
        while waiting and len(self._batch) < most:
            self._batch.append(waiting.popleft())

    async def _finish(self) -> None:
        """Do what is done even now. Those who asked have gone: nobody hears of a failure."""
        if self._last is None:
            return
        waiting = self._waiting[self._last]
        if self._batch:
            await self._drop(broken=True)  # a statement has been cut in half
            if self._kind == self._last:
                waiting.extendleft(reversed(self._batch))
                self._batch.clear()
        jobs = [job for job, _, _ in waiting]
        waiting.clear()
        if jobs:
            run, _ = self._kinds[self._last]
            with suppress(Exception):
                await self._try_often(run, jobs, self._now() + self._timeout)

    def wake(self) -> None:
        """See whether there is something to do, or a connection to be given back."""
        sleeping, self._sleeping = self._sleeping, None
        if sleeping is not None:
            sleeping.set_result(None)

    async def _sleep(self) -> None:
        if not any(self._waiting.values()):
            self._idle.set()
            self._sleeping = self._loop.create_future()
            await self._sleeping
            self._woken = True
            self._idle.clear()

    async def _answer(self, run: Run[Held], batch: list[Waiting]) -> None:
        jobs = [job for job, _, _ in batch]
        until = batch[0][2]  # nobody has waited longer
        try:
            answers = await self._try_often(run, jobs, until)
        except Exception as error:  # noqa: BLE001 -- it is propagated to the callers
            if len(batch) == 1 or not self._reached or self._now() >= until:
                _refuse(batch, error)
            else:  # the database is there, so it is one of them that it cannot answer
                for one in batch:
                    await self._answer(run, [one])
            return
        for (_, future, _), answer in zip(batch, answers, strict=True):
            if not future.done():  # else the one who asked has gone
                future.set_result(answer)

    async def _try_often(self, run: Run[Held], jobs: list[Any], until: float) -> Sequence[Any]:
        """Once more after an error, on a fresh connection: the held one may have died while it was
        idle. And as long as the database itself asks for it.
        """
        first: Exception | None = None
        remote = self._max_idle is not None
        if remote:
            await self._drop_forgotten()
        await self._drop_stale()
        while True:
            try:
                async with Deadline(self._half(until) if remote and first is None else until):
                    if self._held is None:
                        self._held = await self._acquire()
                    answers = await run(self._held, jobs)
                    self._used = self._now()
                    return answers
            except Exception as error:
                self._reached = self._held is not None
                late = isinstance(error, SessionsError) or self._now() >= until
                over = late or (first is not None and not self._is_transient(error))
                # That there was no time for a second attempt says nothing of what is wrong.
                telling = first if first is not None and isinstance(error, TimeoutError) else error
                reason = await self._ask_why(telling, until) if over else None
                await self._drop(broken=True)  # who knows what state it is in
                if reason is not None:
                    raise reason from error
                if over:
                    raise
                first = error

    async def _ask_why(self, error: Exception, until: float) -> SessionsError | None:
        if self._held is None:
            return self._shortage()
        with suppress(Exception):  # the first error counts
            async with Deadline(until):
                return await self._reason(self._held, error)
        return None

    def _half(self, until: float) -> float:
        """The time until which the first answer is waited for: half of what there is, if nobody
        can know whether the other end is still there.
        """
        if self._held is None and self._hold:
            return until  # a new one will be opened
        now = self._now()
        return now + (until - now) / 2

    async def _drop_forgotten(self) -> None:
        """Let go of a connection that has rested for too long."""
        rested = self._now() - self._used
        if self._held is not None and self._max_idle is not None and rested > self._max_idle:
            await self._drop(broken=True)  # nobody waits for the other end

    async def _drop_stale(self) -> None:
        """Let go of a connection whose pool the app has replaced."""
        if self._held is not None and self._stale(self._held):
            await self._drop(broken=False)

    async def _drop(self, *, broken: bool) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(TimeoutError):
                async with Deadline(self._now() + min(self._timeout, _GOODBYE)):
                    await self._release(held, broken=broken)


def _refuse(batch: Sequence[Waiting] | deque[Waiting], error: Exception) -> None:
    for _, future, _ in batch:
        if not future.done():
            with suppress(RuntimeError):  # nobody asks any more: the event loop is closed
                future.set_exception(as_sessions_error(error))


def as_sessions_error(error: Exception) -> SessionsError:
    """Return a `SessionsError` as it is; wrap anything else in `SessionsUnavailable`."""
    if isinstance(error, SessionsError):
        return error
    wrapped = SessionsUnavailable(f"the sessions database failed: {type(error).__name__}")
    wrapped.__cause__ = error
    return wrapped
