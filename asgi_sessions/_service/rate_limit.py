"""Limits how often something is reported, and counts what was suppressed. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from datetime import datetime, timedelta

#: Between two reports of what a client, or an outage, can trigger at any rate.
EVERY = timedelta(seconds=60)
#: How many kinds `ByKind` counts apart. Of more, those that were quiet the longest are forgotten,
#: so that the next one of theirs is reported at once.
APART = 1024


class RateLimit:
    """One report in `EVERY`."""

    def __init__(self) -> None:
        self._reported_at: datetime | None = None
        self._count = 0

    def due(self, now: datetime, count: int) -> int:
        """How many there were since the last report, if it is time for one; else 0."""
        self._count += count
        # abs: a clock that was set back must not silence it.
        if self._reported_at is not None and abs(now - self._reported_at) < EVERY:
            return 0
        self._reported_at = now
        count, self._count = self._count, 0
        return count


class ByKind:
    """One report of each kind in `EVERY`, for as many kinds as there is room for."""

    def __init__(self) -> None:
        self._kinds: OrderedDict[Hashable, RateLimit] = OrderedDict()

    def due(self, kind: Hashable, now: datetime) -> int:
        """How many of a kind there were since the last report, if it is time for one; else 0."""
        limit = self._kinds.pop(kind, RateLimit())
        self._kinds[kind] = limit  # the latest last
        while len(self._kinds) > APART:
            self._kinds.popitem(last=False)
        return limit.due(now, 1)
