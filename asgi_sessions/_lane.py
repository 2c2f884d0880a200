"""A lane: one task, one held connection, jobs in order.

Whoever asks waits for an answer, not for a connection: a request that is cancelled leaves its
job to the lane, so no statement is cut in half and no connection is lost. Jobs that arrive
while the lane works are taken together next time; nothing waits for a timer.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from contextvars import Context
from typing import Generic, NamedTuple, Protocol, TypeVar

from ._errors import SessionsError, SessionsUnavailable

Held = TypeVar("Held")
Job = TypeVar("Job")
Answer = TypeVar("Answer")


Held_contra = TypeVar("Held_contra", contravariant=True)


class Release(Protocol[Held_contra]):
    """Gives a connection back, a broken one without waiting for its other end."""

    async def __call__(self, held: Held_contra, /, *, broken: bool) -> None: ...


class Lane(Generic[Held, Job, Answer]):
    """Runs jobs on a connection of its own.

    Args:
        acquire: opens a connection.
        release: gives it back.
        run: answers a batch, in its order; an exception in place of an answer is raised to the
            one who asked. What it raises itself goes to all of the batch.
        passing: whether a fault asks to try again.
        batch: how many jobs are handed over together at most.
        hold: keep the connection while there is nothing to do.
        timeout: seconds that an answer may take, from the asking.
    """

    def __init__(
        self,
        acquire: Callable[[], Awaitable[Held]],
        release: Release[Held],
        run: Callable[[Held, list[Job]], Awaitable[list[Answer | Exception]]],
        *,
        passing: Callable[[Exception], bool],
        batch: int,
        hold: bool,
        timeout: float,
    ) -> None:
        self._acquire = acquire
        self._release = release
        self._run = run
        self._passing = passing
        self._batch = batch
        self._hold = hold
        self._timeout = timeout
        self._waiting: deque[_Asked[Job, Answer]] = deque()
        self._held: Held | None = None
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._done = asyncio.Event()

    def put(self, job: Job) -> asyncio.Future[Answer]:
        """Queue a job; the future brings the answer.

        Raises (through the future):
            SessionsUnavailable: if the database does not answer.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Answer] = loop.create_future()
        self._waiting.append(_Asked(job, future, loop.time() + self._timeout))
        self._work.set()
        self._done.clear()
        if self._task is None or self._task.done():
            # An empty context: what a request has set must not live on in the lane.
            self._task = loop.create_task(self._serve(), context=Context())
        return future

    async def close(self) -> None:
        """Finish what waits, then give the connection back."""
        if self._task is not None and not self._task.done():
            await self._done.wait()
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _serve(self) -> None:
        batch: list[_Asked[Job, Answer]] = []
        try:
            while True:
                if not self._waiting:
                    self._work.clear()
                    self._done.set()
                    if not self._hold:
                        await self._drop(broken=False)
                    await self._work.wait()
                while self._waiting and len(batch) < self._batch:
                    batch.append(self._waiting.popleft())
                await self._answer(batch)
                batch.clear()
        finally:
            # Only a closing loop or `close` ends the task.
            for asked in (*batch, *self._waiting):
                asked.answer(SessionsUnavailable("the event loop is closing"))
            self._waiting.clear()
            self._done.set()
            await self._drop(broken=False)

    async def _answer(self, batch: list[_Asked[Job, Answer]]) -> None:
        until = batch[0].until  # nobody has waited longer
        answers = await self._try([asked.job for asked in batch], until)
        # Once more, on a fresh connection: the held one may have died while it was idle. And as
        # long as the database itself asks for it. Each job is written so that it may run twice.
        first = True
        while again := [
            index
            for index, answer in enumerate(answers)
            if isinstance(answer, Exception)
            and not isinstance(answer, SessionsError)
            and (first or self._passing(answer))
        ]:
            first = False
            if asyncio.get_running_loop().time() >= until:
                break
            retried = await self._try([batch[index].job for index in again], until)
            for index, answer in zip(again, retried, strict=True):
                answers[index] = answer
        for asked, answer in zip(batch, answers, strict=True):
            asked.answer(answer)

    async def _try(self, jobs: list[Job], until: float) -> list[Answer | Exception]:
        answers: list[Answer | Exception]
        try:
            async with asyncio.timeout_at(until):
                if self._held is None:
                    self._held = await self._acquire()
                answers = await self._run(self._held, jobs)
        except Exception as fault:  # noqa: BLE001 -- whatever a driver raises: the askers get it
            answers = [fault] * len(jobs)
        if any(isinstance(a, Exception) and not isinstance(a, SessionsError) for a in answers):
            await self._drop(broken=True)  # who knows what state it is in
        return answers

    async def _drop(self, *, broken: bool) -> None:
        held, self._held = self._held, None
        if held is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timeout):
                    await self._release(held, broken=broken)


class _Asked(NamedTuple, Generic[Job, Answer]):
    job: Job
    future: asyncio.Future[Answer]
    until: float

    def answer(self, answer: Answer | Exception) -> None:
        if self.future.done():
            return  # the one who asked has gone
        if isinstance(answer, Exception):
            self.future.set_exception(as_sessions_error(answer))
        else:
            self.future.set_result(answer)


def as_sessions_error(fault: Exception) -> SessionsError:
    """Ours as they are; a driver's as `SessionsUnavailable` with the driver's as its cause."""
    if isinstance(fault, SessionsError):
        return fault
    hint = ""
    text = str(fault).lower()
    if "no such table" in text or "does not exist" in text or "doesn't exist" in text:
        hint = "; is the table there? `await sessions.create_tables()` or a migration makes it"
    error = SessionsUnavailable(f"the sessions database failed: {type(fault).__name__}{hint}")
    error.__cause__ = fault
    return error
