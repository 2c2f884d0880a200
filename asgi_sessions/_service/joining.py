"""Steps in the life of sessions that are part of a transaction of the app. What follows from them
happens once it has committed, and not at all if it was rolled back.

SQLAlchemy tells that a transaction is about to end, not how it has ended, and a savepoint may have
been rolled back before. So when it is over, the rows are read again: what they say has happened.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import event

from asgi_sessions._database.pools.app_connection import Joined
from asgi_sessions._model.row import Row
from asgi_sessions._model.session import Session

from .background import BackgroundTasks, slices
from .core import Core
from .events import EventKind, Events, logger
from .live_connections import LiveConnections

T = TypeVar("T")

#: Seconds between two looks whether the transaction is over: at first, and at most.
_PAUSE, _LONGEST_PAUSE = 0.001, 0.05


class Report(NamedTuple):
    """A step that has been taken in the transaction."""

    kind: EventKind
    session: Session
    new_device: bool


class DeferredEvents(Events):
    """Keeps the reports until the transaction is over."""

    def __init__(self, events: Events, background: BackgroundTasks) -> None:
        super().__init__(None, events.now, background)
        self._has_handler = events.has_handler
        self.reports: list[Report] = []

    @property
    def has_handler(self) -> bool:
        return self._has_handler

    def report(self, kind: EventKind, session: Session, *, new_device: bool = False) -> None:
        self.reports.append(Report(kind, session, new_device))


class DeferredEnds(LiveConnections):
    """Closes nothing, which is done when the transaction is over.

    Attributes:
        secrets: the digests of the new secrets of sessions that were renewed, or what those have
            in place of one whose person acts for another, by their sids.
    """

    def __init__(self) -> None:
        self.secrets: dict[str, bytes] = {}

    def end(self, sid: str, *, but: bytes | None = None) -> None:
        if but is not None:
            self.secrets[sid] = but


class _Inline(BackgroundTasks):
    """Nothing goes on beside the caller: the connection is the app's again when it returns."""

    async def complete(self, work: Coroutine[Any, Any, T]) -> T:
        return await work


class Transaction:
    """What has been done in one transaction of the app, by one call.

    Args:
        core: what happens to sessions elsewhere.
        joined: the transaction.

    Attributes:
        core: the same as `core`, in the transaction.
    """

    def __init__(self, core: Core, joined: Joined) -> None:
        self._outer = core
        self._joined = joined
        self._undelivered: list[str] = []
        self._give_back: Callable[[], Awaitable[None]] | None = None
        inline = _Inline()
        self._events, self._ends = DeferredEvents(core.events, inline), DeferredEnds()
        self.core = core.within(core.store.within(joined), self._events, inline, self._ends)
        self._heard = False
        for name in ("commit", "rollback"):
            event.listen(joined.connection, name, self._over)

    @property
    def is_open(self) -> bool:
        """Whether the app has neither committed nor rolled back."""
        return bool(self._joined.root.is_active)

    def too_late(self, sid: str, give_back: Callable[[], Awaitable[None]] | None = None) -> None:
        """The response has begun before the commit, so that the cookie of this new session has not
        been sent, or its token: should it be committed yet, the session ends, and gives its data
        back.
        """
        self._undelivered.append(sid)
        self._give_back = give_back or self._give_back

    def _over(self, _: object) -> None:
        if not self._heard:
            self._heard = True
            self._outer.background.run(self._follow())

    async def _follow(self) -> None:
        pause = _PAUSE
        while self.is_open:  # SQLAlchemy tells before it does it
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        for name in ("commit", "rollback"):
            event.remove(self._joined.connection, name, self._over)
        secrets = self._ends.secrets
        rows = await self._read({*secrets, *(one.session.id for one in self._events.reports)})
        for sid, secret in secrets.items():
            if (row := rows[sid]) is not None and row.secret_hash == secret:
                self._outer.live_connections.end(sid, but=secret)
        async for some in slices(self._events.reports):
            for report in some:
                self._repeat(report, rows[report.session.id])
        await self._give_up(rows)
        # A provider that has ended its session before the commit has seen no row of this one.
        for sid, person in self.core.uncommitted or ():
            await self._outer.end_if_over(sid, person)

    async def _read(self, sids: Collection[str]) -> dict[str, Row | None]:
        """The rows as everybody sees them."""
        rows: dict[str, Row | None] = {}
        async for some in slices([*sids]):
            found = await asyncio.gather(*map(self._outer.store.by_sid, some))
            rows.update(zip(some, found, strict=True))
        return rows

    def _repeat(self, report: Report, row: Row | None) -> None:
        """Report a step outside of the transaction, and close what it closes, if the row has it."""
        kind, session = report.kind, report.session
        if kind == "started":
            happened = row is not None
        elif kind == "renewed":
            happened = row is not None and row.secret_hash == self._ends.secrets.get(session.id)
        else:
            happened = row is None or row.ended_at is not None
        if not happened:
            return
        self._outer.events.report(kind, session, new_device=report.new_device)
        if kind == "ended":
            self._outer.live_connections.end(session.id)

    async def _give_up(self, rows: dict[str, Row | None]) -> None:
        late = [sid for sid in self._undelivered if rows.get(sid) is not None]
        for sid in late:
            await self._end_late(sid)
        if late and self._give_back is not None:
            await self._give_back()

    async def _end_late(self, sid: str) -> None:
        logger.warning(
            "session %s was committed after its response had begun, too late for its cookie: "
            "commit before the handler returns",
            sid,
            extra={"event": "committed_too_late", "sid": sid},
        )
        await self._outer.end(sid, "not_delivered")
