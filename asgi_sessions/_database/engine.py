"""The database as one event loop sees it: connections, statements, and when to let go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from asgi_sessions._errors import SessionsError, SessionsUnavailable

from .batcher import Batcher, Run
from .connection import Connection
from .deadline import Deadline
from .drivers.base import Raw
from .pools.base import Pool
from .statement import Statement
from .tasks import own_task

# The store's own kind of connection is in each of these what its work is given.
Work = Callable[[Any], Awaitable[Any]]
Batched = Callable[[Any, list[Any]], Awaitable[Sequence[Any]]]
#: Finds the reason for an error in the tables, if it lies there.
Explain = Callable[[Any, Exception], Awaitable[SessionsError | None]]

#: Seconds of rest before the first sign of life, seconds between two, and how many may be lost.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

#: Jobs that go into one statement at most.
LOOKUPS = TOUCHES = 256
STARTS = 64


class Engine:
    """A pool in one event loop, and the batchers over it.

    Args:
        pool: opened here if nobody has.
        batched: what answers many jobs of a kind at once: look-ups, starts, touches, and saves
            where sessions have data.
        timeout: seconds that anything may take.
        explain: finds the reason for an error in the tables, if it lies there.
        connection: the kind of connection that these are given.
        max_idle: seconds after which a connection at rest is not trusted any more.
    """

    def __init__(
        self,
        pool: Pool,
        batched: Mapping[str, Batched],
        *,
        timeout: float,
        explain: Explain,
        connection: type[Connection],
        max_idle: float,
    ) -> None:
        self._connection = connection
        self.pool = pool
        self.driver = pool.driver
        self._timeout = timeout
        self._explain = explain
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        hold = pool.hold

        self._statements: dict[Hashable, Statement] = {}
        batcher = partial(
            Batcher[Connection],
            release=self._release,
            leave=self._leave,
            is_transient=self.driver.is_transient,
            reason=self._reason,
            hold=hold,
            timeout=timeout,
            halve=self.driver.elsewhere,
            max_idle=max_idle if self.driver.elsewhere else None,
            stale=_is_stale,
            shortage=pool.shortage,
        )
        # Apart, so that neither a slow list nor a write delays the look-up of a request; and a
        # login waits neither for ends of many rows nor for a use of one that somebody has locked.
        other: tuple[Run[Connection], int] = (_one, 1)
        touch, bulk = {"touch": (batched["touch"], TOUCHES)}, {"bulk": other}
        save = {"save": (batched["save"], STARTS)} if "save" in batched else {}
        # Where one transaction writes at a time, a batcher that takes turns is the best order.
        serial = self.driver.serial
        self.lookups = batcher(self._acquire, kinds={"look-up": (batched["look-up"], LOOKUPS)})
        self.writes = batcher(
            self._acquire_by_index,
            kinds={
                "start": (batched["start"], STARTS),
                "other": other,
                **(bulk | touch | save if serial else {}),
            },
            last="touch" if serial else None,
        )
        by_index = self._acquire_by_index
        # Neither of them waits for a lock. A request waits for a save.
        held = hold and (bool(save) or not pool.frugal)
        self.touches = self.saves = (
            self.writes
            if serial
            else batcher(by_index, kinds={**touch, **save}, last="touch", hold=held)
        )
        self.queries = batcher(by_index, kinds={"other": other})
        self.bulk = self.writes if serial else batcher(by_index, kinds=bulk, hold=False, keep=hold)
        batchers = (self.lookups, self.writes, self.touches, self.queries, self.bulk)
        self._batchers = tuple(dict.fromkeys(batchers))
        pool.on_replaced(self._wake)

    async def open(self) -> None:
        """Open the pool unless somebody has; then close it when the event loop ends."""
        async with self._opening:
            if not self.pool.is_open:
                await self.pool.open()
                self._keeper = own_task(self._keep())
                await asyncio.sleep(0)  # a task cancelled before its first step never cleans up

    async def _keep(self) -> None:
        """Do nothing until `close` or the end of the loop cancels it, then close the pool."""
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            for batcher in self._batchers:
                await batcher.ended()
            with suppress(Exception):  # it is gone anyway
                async with Deadline(asyncio.get_running_loop().time() + self._timeout):
                    await self.pool.close()

    async def close(self) -> None:
        """Finish what waits; close the pool if `open` has opened it."""
        await asyncio.gather(*(batcher.close() for batcher in self._batchers))
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def leave(self) -> None:
        """Let go of everything: the event loop was closed without a word."""
        for batcher in self._batchers:
            batcher.leave()

        self.pool.leave()

    def _wake(self) -> None:
        """The app has replaced the pool: whoever holds a connection gives it back."""
        for batcher in self._batchers:
            batcher.wake()

    async def _reason(self, connection: Connection, error: Exception) -> SessionsError | None:
        if (hint := self.driver.hint(error)) is not None:
            return SessionsUnavailable(hint)
        return await self._explain(connection, error) if self.driver.of_tables(error) else None

    def _leave(self, connection: Connection) -> None:
        with suppress(Exception):
            connection.lease.leave()
            self.driver.leave(connection.raw)

    async def _acquire(self) -> Connection:
        await self.open()
        try:
            lease = await self.driver.opened(self.pool.borrow())
        except Exception:
            # The thread of an aiosqlite connection that failed still reports its end to this
            # loop, which had better be there.
            await asyncio.sleep(self.driver.last_word)
            raise
        connection = self._connection(lease, self.driver, self._statements)
        try:
            if self.pool.owned:
                _keep_alive(self.driver.socket(connection.raw))
            await self.driver.prepare(connection.raw, owned=self.pool.owned, timeout=self._timeout)
        except BaseException:
            await self._release(connection, broken=True)
            raise
        return connection

    async def _acquire_by_index(self) -> Connection:
        """For statements of many shapes; the look-ups find their rows by an index in any case, and
        are spared the question.
        """
        connection = await self._acquire()
        try:
            connection.lease.by_index = await self.driver.by_index(connection.raw)
        except BaseException:
            await self._release(connection, broken=True)
            raise
        return connection

    async def _release(self, connection: Connection, *, broken: bool) -> None:
        raw = connection.raw
        if broken:
            self._abandon(raw)
        # By a task: what is cancelled must not leave a pool alone with its connection.
        release = asyncio.ensure_future(connection.lease.give_back(broken=broken))
        # The connection is lost anyway; the error before this one counts.
        release.add_done_callback(_retrieve_exception)
        try:
            await asyncio.wait([release])
        finally:
            if not release.done() or release.cancelled() or release.exception() is not None:
                self._abandon(raw)  # it has broken just now, or its pool waits for its other end

    def _abandon(self, raw: Raw) -> None:
        with suppress(Exception):
            self.driver.abandon(raw)


def _keep_alive(sock: Any) -> None:  # noqa: ANN401 -- of asyncio, of uvloop
    """Have the kernel send a sign of life while nothing else is sent: what lies between does not
    forget the connection, and one whose other end is gone breaks by itself.
    """
    if sock is None or sock.family == getattr(socket, "AF_UNIX", None):
        return
    with suppress(OSError):  # it may be closed, or a kernel may know no such option
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEP_ALIVE.items():
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _retrieve_exception(task: asyncio.Future[None]) -> None:
    with suppress(asyncio.CancelledError):
        task.exception()


def _is_stale(connection: Connection) -> bool:
    return connection.lease.stale


async def _one(connection: Connection, jobs: Sequence[Work]) -> list[Any]:
    (work,) = jobs
    return [await work(connection)]
