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
from typing import Generic, TypeVar

from databases.core import Connection

from ._errors import SessionsError, SessionsUnavailable

Job = TypeVar("Job")
Answer = TypeVar("Answer")

#: Jobs that are handed over together at most.
BATCH = 200


class Lane(Generic[Job, Answer]):
    """Runs jobs on a connection of its own.

    Args:
        connect: opens a connection.
        release: gives it back.
        run: answers a batch, in its order; an exception in place of an answer is raised to the
            one who asked. What it raises itself goes to all of the batch.
        hold: keep the connection while there is nothing to do.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        release: Callable[[Connection], Awaitable[None]],
        run: Callable[[Connection, list[Job]], Awaitable[list[Answer | Exception]]],
        *,
        hold: bool,
    ) -> None:
        self._connect = connect
        self._release = release
        self._run = run
        self._hold = hold
        self._waiting: deque[tuple[Job, asyncio.Future[Answer]]] = deque()
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None
        self._work = asyncio.Event()
        self._done = asyncio.Event()

    def put(self, job: Job) -> asyncio.Future[Answer]:
        """Queue a job; the future brings the answer.

        Raises (through the future):
            SessionsUnavailable: if the database does not answer.
        """
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((job, future))
        self._work.set()
        self._done.clear()
        if self._task is None or self._task.done():
            # An empty context: what a request has set must not live on in the lane.
            self._task = asyncio.get_running_loop().create_task(self._serve(), context=Context())
        return future

    async def close(self) -> None:
        """Finish what waits, then give the connection back."""
        if self._task is not None and not self._task.done():
            await self._done.wait()
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _serve(self) -> None:
        batch: list[tuple[Job, asyncio.Future[Answer]]] = []
        try:
            while True:
                if not self._waiting:
                    self._work.clear()
                    self._done.set()
                    if not self._hold:
                        await self._drop()
                    await self._work.wait()
                while self._waiting and len(batch) < BATCH:
                    batch.append(self._waiting.popleft())
                await self._answer(batch)
                batch.clear()
        finally:
            # Only a closing loop or `close` ends the task.
            for _, future in (*batch, *self._waiting):
                if not future.done():
                    future.set_exception(SessionsUnavailable("the event loop is closing"))
            self._waiting.clear()
            self._done.set()
            await self._drop()

    async def _answer(self, batch: list[tuple[Job, asyncio.Future[Answer]]]) -> None:
        try:
            if self._connection is None:
                self._connection = await self._connect()
            answers = await self._run(self._connection, [job for job, _ in batch])
        except Exception as fault:  # noqa: BLE001 -- whatever a driver raises: the askers get it
            answers = [fault] * len(batch)
        if any(isinstance(a, Exception) and not isinstance(a, SessionsError) for a in answers):
            await self._drop()  # who knows what state it is in
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue  # the one who asked has gone
            if isinstance(answer, Exception):
                future.set_exception(as_sessions_error(answer))
            else:
                future.set_result(answer)

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is lost anyway; the fault before it counts
                await self._release(connection)


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
