"""The database as one event loop sees it: connections, statements, and when to let go."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from databases import Database

from ._access import Access
from ._deadline import Deadline
from ._driver import Raw
from ._drivers import driver_for
from ._errors import SessionsError
from ._lane import Lane, Run
from ._statement import Statement
from ._tasks import own_task

Work = Callable[[Access], Awaitable[Any]]
Batched = Callable[[Access, list[Any]], Awaitable[Sequence[Any]]]
#: Finds the reason for a fault in the tables, if it lies there.
Explain = Callable[[Access, Exception], Awaitable[SessionsError | None]]

#: Seconds of rest before the first sign of life, seconds between two, and how many may be lost.
_KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}

#: Jobs that go into one statement at most.
LOOKUPS = TOUCHES = 256
STARTS = 64


class Link:
    """A `databases.Database` in one event loop, and the lanes over it.

    Args:
        database: connected here if nobody has.
        batched: what answers many jobs of a kind at once: look-ups, starts, touches.
        owned: whether it was made by us; then connections are held. Of an app's own only
            those are that no pool waits for.
        timeout: seconds that anything may take.
        explain: finds the reason for a fault in the tables, if it lies there.
        max_idle: seconds after which a connection at rest is not trusted any more.
    """

    def __init__(
        self,
        database: Database,
        batched: Mapping[str, Batched],
        *,
        owned: bool,
        timeout: float,
        explain: Explain,
        max_idle: float,
    ) -> None:
        self.database = database
        self.driver = driver_for(database)
        self._owned = owned
        self._timeout = timeout
        self._explain = explain
        self._keeper: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()
        hold = owned or self.driver.hold

        self._statements: dict[Hashable, Statement] = {}
        lane = partial(
            Lane[Access],
            release=self._release,
            leave=self._leave,
            passing=self.driver.passing,
            reason=self._reason,
            hold=hold,
            timeout=timeout,
            halve=self.driver.elsewhere,
            max_idle=max_idle if self.driver.elsewhere else None,
        )
        # Apart, so that neither a slow list nor a write delays the look-up of a request; and a
        # login waits neither for ends of many rows nor for a use of one that somebody has locked.
        other: tuple[Run[Access], int] = (_one, 1)
        touch, bulk = {"touch": (batched["touch"], TOUCHES)}, {"bulk": other}
        # Where one transaction writes at a time, a lane that takes turns is the best order.
        serial = self.driver.serial
        self.lookups = lane(self._acquire, kinds={"look-up": (batched["look-up"], LOOKUPS)})
        self.writes = lane(
            self._acquire_by_index,
            kinds={
                "start": (batched["start"], STARTS),
                "other": other,
                **(bulk | touch if serial else {}),
            },
            last="touch" if serial else None,
        )
        by_index = self._acquire_by_index
        self.touches = self.writes if serial else lane(by_index, kinds=touch, last="touch")
        self.queries = lane(by_index, kinds={"other": other})
        self.bulk = self.writes if serial else lane(by_index, kinds=bulk, hold=False, keep=hold)
        lanes = (self.lookups, self.writes, self.touches, self.queries, self.bulk)
        self._lanes = tuple(dict.fromkeys(lanes))

    async def open(self) -> None:
        """Connect unless somebody has; then disconnect when the event loop ends."""
        async with self._opening:
            if not self.database.is_connected:
                await self.database.connect()
                self._keeper = own_task(self._keep())
                await asyncio.sleep(0)  # a task that has not begun is cancelled without a word

    async def _keep(self) -> None:
        """Do nothing until `close` or the end of the loop cancels it, then disconnect."""
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            for lane in self._lanes:
                await lane.ended()
            with suppress(Exception):  # it is gone anyway
                async with Deadline(asyncio.get_running_loop().time() + self._timeout):
                    await self.database.disconnect()

    async def close(self) -> None:
        """Finish what waits; disconnect what `open` connected."""
        await asyncio.gather(*(lane.close() for lane in self._lanes))
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])

    def leave(self) -> None:
        """Let go of everything: the event loop was closed without a word."""
        for lane in self._lanes:
            lane.leave()

    async def _reason(self, access: Access, fault: Exception) -> SessionsError | None:
        return await self._explain(access, fault) if self.driver.of_tables(fault) else None

    def _leave(self, access: Access) -> None:
        with suppress(Exception):
            self.driver.leave(access.raw)

    async def _acquire(self) -> Access:
        await self.open()
        connection = self.database.connection()
        try:
            await self.driver.open(connection)
        except Exception:
            # The thread of an aiosqlite connection that failed still reports its end to this
            # loop, which had better be there.
            await asyncio.sleep(self.driver.last_word)
            raise
        access = Access(connection, self.driver, self._statements)
        try:
            if self._owned:
                _keep_alive(self.driver.socket(access.raw))
            await self.driver.prepare(access.raw, owned=self._owned, timeout=self._timeout)
        except BaseException:
            await self._release(access, broken=True)
            raise
        return access

    async def _acquire_by_index(self) -> Access:
        """For statements of many shapes; the look-ups find their rows by an index in any case, and
        are spared the question.
        """
        access = await self._acquire()
        try:
            await self.driver.by_index(access.raw)
        except BaseException:
            await self._release(access, broken=True)
            raise
        return access

    async def _release(self, access: Access, *, broken: bool) -> None:
        raw = access.raw
        if broken:
            self._abandon(raw)
        # By a task: what is cancelled must not leave a pool alone with its connection.
        release = asyncio.ensure_future(access.release(broken=broken))
        release.add_done_callback(_heard)  # it is lost anyway; the fault before it counts
        try:
            await asyncio.wait([release])
        finally:
            if not release.done() or release.cancelled() or release.exception() is not None:
                self._abandon(raw)  # it has broken just now, or its pool waits for its other end
            # `databases` keeps for a task what could not be given back.
            self.database._connection = None  # noqa: SLF001 -- there is no other way

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


def _heard(task: asyncio.Future[None]) -> None:
    with suppress(asyncio.CancelledError):
        task.exception()


async def _one(access: Access, jobs: Sequence[Work]) -> list[Any]:
    (work,) = jobs
    return [await work(access)]
