"""What comes out: lines of the two tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from .load import Rounds, ratios


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A line of the first table.

    Args:
        letter: of the figure.
        what: is measured.
        ours: what it is with us.
        against: what it is for the one that we are measured against.
        unit: of both.
        values: what counts, of each round: their ratio or difference.
        sign: of these: ``×`` or a unit.
        bound: what they are to reach; None where nothing was set.
        at_least: whether it is a lower bound.
    """

    letter: str
    what: str
    ours: float
    against: float | None
    unit: str
    values: Sequence[float]
    sign: str = "×"
    bound: float | None = None
    at_least: bool = False

    @property
    def value(self) -> float:
        """The median."""
        return median(self.values)

    @property
    def reached(self) -> bool | None:
        """Whether the bound is."""
        if self.bound is None:
            return None
        return self.value >= self.bound if self.at_least else self.value <= self.bound


def ratio(
    letter: str,
    what: str,
    rounds: Rounds,
    names: tuple[str, str],
    *,
    unit: str = "µs",
    bound: float | None = None,
) -> Figure:
    """The first contender's cost, in that of the second."""
    above, below = (rounds[name] for name in names)
    return Figure(
        letter=letter,
        what=what,
        ours=median(above),
        against=median(below),
        unit=unit,
        values=ratios(above, below),
        bound=bound,
    )


@dataclass(frozen=True, kw_only=True)
class Side:
    """A line of the second table: microseconds, medians; at 64 at once unless it says otherwise.

    Args:
        name: of the library.
        store: where it keeps sessions.
        ours: whether it is this package.
        one: a logged-in request, 1 at a time.
        many: at 64 at once.
        framework: what the same framework costs without sessions.
        p50: the latency that half of the requests stay below.
        p99: that 99 of 100 stay below.
        login: one login.
        logout: one logout.
        remark: what it does more, or less.
    """

    name: str
    store: str
    ours: bool
    one: float
    many: float
    framework: float
    p50: float
    p99: float
    login: float
    logout: float
    remark: str


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """A line of the third table: microseconds, medians, of a request that reads or writes one key
    of a session's data.

    Args:
        name: of the library.
        store: where it keeps sessions.
        ours: whether it is this package.
        read: 1 at a time, 64 at once, and the latency that 99 of 100 of these stay below.
        write: the same.
    """

    name: str
    store: str
    ours: bool
    read: tuple[float, float, float]
    write: tuple[float, float, float]
