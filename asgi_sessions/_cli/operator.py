"""What an operator does to all sessions, in steps that leave the database to its requests."""

from __future__ import annotations

from asyncio import sleep
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from time import perf_counter
from typing import TypeVar

from asgi_sessions._sessions import Sessions
from asgi_sessions._store.maintenance import SMALLEST_END, Pace
from asgi_sessions._store.store import KEEP_CUTOFFS

T = TypeVar("T")

#: Seconds that one question of a count should take; the slices of time are cut to that. The longest
#: is short, because the first that is full comes after many that were empty.
AIM = 0.1
SHORTEST_SPAN, LONGEST_SPAN = timedelta(minutes=15), timedelta(hours=6)
_TICK = timedelta(microseconds=1)  # `until` is not within a slice
_DAY = timedelta(days=1)

#: Is told how many more rows have been dealt with.
Progress = Callable[[int], object]


@dataclass(frozen=True, slots=True)
class Due:
    """What a purge would do now: rows whose end it would write down, rows it would remove."""

    mark: int
    remove: int


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts of sessions.

    Attributes:
        live: those live now, by app.
        ended: those that ended on the days asked for, by reason.
        started: how many started on each of these days, in UTC.
    """

    live: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    started: dict[date, int] = field(default_factory=dict)


class Operator:
    """Long work on the sessions of a database, short steps at a time.

    Args:
        sessions: which.
        pause: how long to rest after each step, as a multiple of the time that it took: a
            database under load makes the steps longer, and with them the pauses.
    """

    def __init__(self, sessions: Sessions, pause: float = 1.0) -> None:
        self._core = sessions._core
        self._maintenance = sessions._core.store.maintenance
        self._engines = sessions._core.store.engines
        self._pause = pause
        self._now = sessions._core.settings.now()
        self._last = 0.0
        #: How many steps there were; seconds of the longest, and of all of them.
        self.steps, self.longest, self.busy = 0, 0.0, 0.0

    # --- purge --------------------------------------------------------------------------------

    async def due(self) -> Due:
        """Count what `purge` would do, without doing it."""
        now, before = self._now, self._before
        over = self._maintenance.unmarked
        mark = await self._total("expires_at", now + _TICK, partial(over, now=now, before=now))
        remove = await self._total("expires_at", now, partial(over, now=now, before=before - _TICK))
        remove += await self._total("ended_at", before, self._maintenance.removable)
        return Due(mark, remove)

    async def _total(
        self, column: str, until: datetime, count: Callable[[datetime, datetime], Awaitable[int]]
    ) -> int:
        """A count from the first moment in a column on."""
        bounds = await self._step(self._maintenance.bounds(column))
        if bounds is None:
            return 0
        return sum([n async for _, n in self._slices(bounds[0], until, count)])

    async def purge(self, batch_size: int, progress: Progress) -> Due:
        """As `Sessions.purge`, with pauses; what it has done."""
        forget = partial(self._core.store.cutoffs.forget, before=self._now - KEEP_CUTOFFS)
        with self._engines.here.bulk.kept():
            mark = await self._repeat(
                lambda: self._maintenance.mark(limit=batch_size, now=self._now), progress
            )
            remove = await self._repeat(
                lambda: self._maintenance.remove(before=self._before, limit=batch_size), progress
            )
            await self._repeat(lambda: forget(batch_size), lambda _: None)
            if self._core.data is not None:
                visitors = partial(self._maintenance.forget_visitors, now=self._now)
                await self._repeat(lambda: visitors(batch_size), lambda _: None)
        return Due(mark, remove)

    @property
    def _before(self) -> datetime:
        return self._now - self._core.settings.keep_ended

    async def _repeat(self, batch: Callable[[], Awaitable[int]], progress: Progress) -> int:
        done = 0
        while count := await self._step(batch()):
            done += count
            progress(count)
        return done

    # --- ends ---------------------------------------------------------------------------------

    async def end_all(self, app_id: str | None, batch_size: int, progress: Progress) -> int:
        """End every live session of an app, or of all apps (None); how many. Those that start
        meanwhile stay.
        """
        expiries = await self._step(self._maintenance.bounds("expires_at"))
        if expiries is None:
            return 0
        pace = Pace(batch_size, self._engines.here.driver.batch, SMALLEST_END)
        with self._engines.here.bulk.kept():
            return await self._end_all(app_id, expiries[1] + _TICK, pace, progress)

    async def _end_all(
        self, app_id: str | None, last: datetime, pace: Pace, progress: Progress
    ) -> int:
        done, now = 0, self._now
        for since, until in self._spans(now, last):
            onwards: datetime | None = since
            while onwards is not None:
                ended, onwards = await self._step(
                    self._maintenance.end_some(
                        app_id, onwards, until, limit=pace.size, reason="revoked", now=now
                    )
                )
                pace.follow(self._last)
                await self._core.report_ended(ended)
                done += len(ended)
                progress(len(ended))
        return done

    # --- stats --------------------------------------------------------------------------------

    async def stats(self, days: int) -> Stats:
        """Count what is live, and what began and ended today and on the days before."""
        now, maintenance, stats = self._now, self._maintenance, Stats()
        today = datetime.combine(now.date(), time(), UTC)
        since, until = today - (days - 1) * _DAY, today + _DAY
        expiries = await self._step(maintenance.bounds("expires_at"))
        if expiries is not None:
            live = partial(maintenance.live, now=now)
            async for _, apps in self._slices(now, expiries[1] + _TICK, live):
                stats.live.update(apps)
        async for _, reasons in self._slices(since, until, maintenance.ended):
            stats.ended.update(reasons)
        stats.started.update({(since + n * _DAY).date(): 0 for n in range(days)})
        async for start, count in self._slices(since, until, maintenance.started, by_day=True):
            stats.started[start.date()] += count
        return stats

    # --- steps --------------------------------------------------------------------------------

    async def _step(self, work: Awaitable[T]) -> T:
        began = perf_counter()
        result = await work
        self._last = perf_counter() - began
        self.steps += 1
        self.busy += self._last
        self.longest = max(self.longest, self._last)
        await sleep(self._last * self._pause)
        return result

    async def _slices(
        self,
        since: datetime,
        until: datetime,
        ask: Callable[[datetime, datetime], Awaitable[T]],
        *,
        by_day: bool = False,
    ) -> AsyncIterator[tuple[datetime, T]]:
        """The answers for slices of a time, with the beginning of each."""
        for start, end in self._spans(since, until, by_day=by_day):
            yield start, await self._step(ask(start, end))

    def _spans(
        self, since: datetime, until: datetime, *, by_day: bool = False
    ) -> Iterator[tuple[datetime, datetime]]:
        """A time in slices, each longer or shorter than the one before by how long that took."""
        length = SHORTEST_SPAN
        while since < until:
            end = min(since + length, until)
            if by_day:
                end = min(end, datetime.combine(since.date(), time(), UTC) + _DAY)
            yield since, end
            since = end
            length = (
                max(length / 2, SHORTEST_SPAN)
                if self._last > AIM
                else min(length * 2, LONGEST_SPAN)
            )
