"""Figures a to d and q: what a request costs."""

from __future__ import annotations

from contextlib import AsyncExitStack
from random import Random
from statistics import median

from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from .apps import bare, cookie
from .drivers import Query, held, held_by_psycopg, pooled
from .figure import Figure, ratio
from .lab import Lab
from .load import Contender, RequestContext, requests
from .places import Place
from .tracing import tracing

CONCURRENT = 64
#: Times of a request that is compared to the cookie's: at most.
_AGAINST_COOKIE = {"sqlite": 1.0, "postgresql": 1.0, "mysql": 1.3}


async def without_session(lab: Lab) -> list[Figure]:
    """A and b: no cookie, and one that does not verify."""
    place = lab.places[0]
    forged = [one[:-6] + b"AAAAAA" for one in lab.sample.cookies]
    async with lab.opened(place) as (_, app):
        rounds = await lab.contest(
            "requests without a session",
            [
                Contender("bare", requests(bare(), "/", [None]), CONCURRENT),
                Contender("none", requests(app, "/", [None]), CONCURRENT),
                Contender("forged", requests(app, "/", forged), CONCURRENT),
                Contender("bare, forged", requests(bare(), "/", forged), CONCURRENT),
            ],
        )
    figures = [
        _over("a", "neither cookie nor person, over the bare app", rounds, ("none", "bare"), 2),
        _over(
            "b",
            "a cookie that does not verify, over the bare app",
            rounds,
            ("forged", "bare, forged"),
            8,
        ),
    ]
    figures += [
        await _asked(lab, "a", "without a cookie", [None]),
        await _asked(lab, "b", "with forged ones", [*forged[:100]]),
    ]
    return figures


def _over(
    letter: str, what: str, rounds: dict[str, list[float]], names: tuple[str, str], bound: float
) -> Figure:
    above, below = (rounds[name] for name in names)
    return Figure(
        letter=letter,
        what=what,
        ours=median(above),
        against=median(below),
        unit="µs",
        values=[a - b for a, b in zip(above, below, strict=True)],
        sign="µs more",
        bound=bound,
    )


async def _asked(lab: Lab, letter: str, what: str, cookies: list[bytes | None]) -> Figure:
    """Statements that 100 requests cost."""
    place = lab.places[0]
    async with (
        tracing(place) as (database, statements),
        lab.opened(place, database=database) as (_sessions, app),
    ):
        if not statements:
            raise RuntimeError("nothing is traced")
        statements.clear()
        call = requests(app, "/", cookies)
        for _ in range(100):
            await call()
        count = len(statements)
    return Figure(
        letter=letter,
        what=f"statements for 100 requests {what}",
        ours=count,
        against=None,
        unit="",
        values=[count],
        sign="statements",
        bound=0,
    )


async def one_at_a_time(lab: Lab, place: Place) -> list[Figure]:
    """c: against the driver's own query."""
    async with (
        lab.opened(place) as (sessions, app),
        pooled(place, sessions.table) as in_pool,
        held(place, sessions.table) as in_hand,
    ):
        draw, sids = Random(3).choice, lab.sample.ids

        async def from_pool() -> None:
            await in_pool(draw(sids))

        async def from_hand() -> None:
            await in_hand(draw(sids))

        bare_query: RequestContext = from_pool if place.kind == "postgresql" else from_hand
        contenders = [
            Contender("ours", requests(app, "/me", lab.sample.cookies)),
            Contender("query", bare_query),
        ]
        if place.kind == "postgresql":
            contenders.append(Contender("held", from_hand))
        rounds = await lab.contest(f"one request at a time, {place.name}", contenders)
    bare_word = "pooled fetchrow" if place.kind == "postgresql" else "held connection's query"
    figures = [
        ratio(
            "c",
            f"resume, 1 at a time, {place.name}, against a {bare_word}",
            rounds,
            ("ours", "query"),
            bound=1.5,
        )
    ]
    if "held" in rounds:
        what = f"the same, {place.name}, against a held connection's fetchrow"
        figures.append(ratio("c", what, rounds, ("ours", "held")))
    return figures


async def many_at_a_time(lab: Lab, place: Place) -> list[Figure]:
    """d: whole requests against the signed cookie's."""
    levels = (64, 256)
    signed = cookie()
    async with lab.opened(place) as (_, app):
        rounds = await lab.contest(
            f"requests at once, {place.name}",
            [
                contender
                for level in levels
                for contender in (
                    Contender(f"ours {level}", requests(app, "/me", lab.sample.cookies), level),
                    Contender(f"cookie {level}", requests(signed, "/me", lab.signed), level),
                )
            ],
        )
    return [
        ratio(
            "d",
            f"resume, {level} at once, {place.name}, against the cookie request",
            rounds,
            (f"ours {level}", f"cookie {level}"),
            bound=_AGAINST_COOKIE[place.kind],
        )
        for level in levels
    ]


async def engines(lab: Lab, place: Place) -> list[Figure]:
    """Q: an app's AsyncEngine against a URL of the same driver."""
    levels = [level for level in (1, 64, 256) if level in lab.effort.levels]
    figures: list[Figure] = []
    for driver in _DRIVERS[place.kind]:
        name = driver or place.driver or "aiomysql"
        url = _spelled(place, name)
        ways = {"a URL": (place, url), "an engine": (place, create_async_engine(url))}
        if place.kind == "sqlite":  # ours puts the file into WAL mode, an app need not
            other = Place(place.name, f"sqlite:///{lab.directory}/rollback.db")
            ways[_ROLLBACK] = (other, create_async_engine(_spelled(other, name)))
        async with AsyncExitStack() as stack:
            calls = {}
            for way, (where, database) in ways.items():
                if isinstance(database, AsyncEngine):
                    stack.push_async_callback(database.dispose)
                opened = lab.opened(where, database=database)
                _, app = await stack.enter_async_context(opened)
                calls[way] = requests(app, "/me", lab.sample.cookies)
            rounds = await lab.contest(
                f"an engine and a URL, {place.name}, {name}",
                [
                    Contender(f"{way} {level}", call, level)
                    for level in levels
                    for way, call in calls.items()
                ],
            )
        figures += [
            ratio(
                "q",
                f"resume, {level} at once, {place.name}, {name}, {way} against a URL",
                rounds,
                (f"{way} {level}", f"a URL {level}"),
            )
            for way in [*ways][1:]
            for level in levels
        ]
    return figures


_DRIVERS = {"sqlite": ["aiosqlite"], "postgresql": ["asyncpg", "psycopg"], "mysql": [""]}
_ROLLBACK = "an engine of a file with a rollback journal"


def _spelled(place: Place, driver: str) -> str:
    """The URL as SQLAlchemy spells it."""
    return f"{place.kind}+{driver}://{place.url.partition('://')[2]}"


async def psycopg(lab: Lab, place: Place) -> list[Figure]:
    """Q: psycopg against asyncpg, by themselves and under ours."""
    async with (
        lab.opened(place) as (sessions, one),
        lab.opened(place, database=_spelled(place, "psycopg")) as (_, other),
        held(place, sessions.table) as by_asyncpg,
        held_by_psycopg(place, sessions.table) as by_psycopg,
    ):
        draw, sids = Random(3).choice, lab.sample.ids

        def bare_query(query: Query) -> RequestContext:
            async def call() -> None:
                await query(draw(sids))

            return call

        pairs = {
            "a held connection's query": (bare_query(by_psycopg), bare_query(by_asyncpg)),
            "resume": [requests(app, "/me", lab.sample.cookies) for app in (other, one)],
        }
        rounds = await lab.contest(
            f"psycopg and asyncpg, {place.name}",
            [
                Contender(f"{what} {name}", call)
                for what, calls in pairs.items()
                for name, call in zip(("psycopg", "asyncpg"), calls, strict=True)
            ],
        )
    return [
        ratio(
            "q",
            f"{what}, 1 at a time, psycopg against asyncpg",
            rounds,
            (f"{what} psycopg", f"{what} asyncpg"),
        )
        for what in pairs
    ]
