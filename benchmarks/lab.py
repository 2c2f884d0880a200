"""What the figures have in common: places, the sample and its table."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any, Protocol

from asgi_sessions import Sessions

from .apps import KEY, cookie, ours
from .effort import Effort
from .load import App, Contender, Rounds, ask, contest
from .places import Place
from .rows import Sample, cookies, fill, fill_data, freshen, make_sample

TABLE = "sessions"
#: Touches fall due after it, by default.
TOUCH = timedelta(seconds=60)


class Bar(Protocol):
    """Says how far it is."""

    def step(self, what: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
        """While something is under way; gives a function that is told how much is done."""


class Silent:
    """Says nothing."""

    @contextmanager
    def step(self, what: str, total: int) -> Iterator[Callable[[int], None]]:
        """Nobody looks."""
        yield lambda done: None


@dataclass
class Lab:
    """Everything that a figure needs.

    Args:
        effort: how much.
        places: the databases.
        redis: the URL of a Redis server, if there is one.
        directory: for files.
        bar: the bar.
    """

    effort: Effort
    places: list[Place]
    redis: str | None
    directory: Path
    bar: Bar = field(default_factory=Silent)
    sample: Sample = field(default_factory=lambda: Sample([], []))
    #: Cookies of Starlette's own middleware, as many as the sample has.
    signed: list[bytes] = field(default_factory=list)
    #: For the plots: series of points.
    series: dict[str, dict[str, list[tuple[float, float]]]] = field(default_factory=dict)
    #: Tables of many rows that are there.
    grown: set[tuple[str, int]] = field(default_factory=set)
    _filled: set[str] = field(default_factory=set)
    _with_data: set[str] = field(default_factory=set)

    async def prepare(self) -> None:
        """Make the sample."""
        size = self.effort.sessions
        with self.bar.step("logging in", size) as advance_to:
            self.sample = await make_sample(size, self.directory, advance_to)
        self.signed = await cookies(cookie(), [row["person_id"] for row in self.sample.rows])

    async def contest(
        self, what: str, contenders: Sequence[Contender], *, times: float = 1
    ) -> Rounds:
        """Measure contenders in turn.

        Args:
            what: is measured.
            contenders: who.
            times: the usual seconds.
        """
        effort, done = self.effort, count(1)
        with self.bar.step(what, effort.rounds) as advance_to:
            return await contest(
                contenders,
                rounds=effort.rounds,
                seconds=effort.seconds * times,
                tick=lambda: advance_to(next(done)),
            )

    @asynccontextmanager
    async def opened(
        self,
        place: Place,
        *,
        database: object = None,
        **options: Any,  # noqa: ANN401 -- handed on
    ) -> AsyncIterator[tuple[Sessions, App]]:
        """Our app on a place, with the sample in its table.

        Args:
            place: where.
            database: a `databases.Database` instead of the place's URL.
            options: of `Sessions`.
        """
        given: Any = database or place.url
        sessions = Sessions(given, secret_key=KEY, table_name=TABLE, **options)
        async with sessions:
            if place.engine_url not in self._filled:
                self._filled.add(place.engine_url)
                await sessions.create_tables()
                fill(place, sessions.table, self.sample)
            if "data" in options and place.engine_url not in self._with_data:
                self._with_data.add(place.engine_url)
                await sessions.create_tables()
                fill_data(place, sessions.table)
            freshen(place, sessions.table, TOUCH)
            app = ours(sessions)
            await check(app, self.sample.cookies[0], self.sample.rows[0]["person_id"])
            await sessions._core.background.settle()  # touches, for which nobody waits
            yield sessions, app


async def check(app: App, cookie: bytes, person: str) -> None:
    """Whether a cookie leads to its person, so that no speed is bought by finding nobody."""
    answer = await ask(app, "/who", cookie)
    if (answer.status, answer.body) != (200, person):
        raise RuntimeError(f"{person} was to be found: {answer}")
    answer = await ask(app, "/me", cookie)
    if answer.status >= 400:
        raise RuntimeError(f"{person} was to be let in: {answer}")
