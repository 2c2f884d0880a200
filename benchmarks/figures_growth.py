"""Figures h, i and l: what many rows cost, removing many of them, and growing to many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from asgi_sessions import Sessions

from .apps import KEY, ours
from .figure import Figure, ratio
from .figures_load import AT_EACH, NEVER, logins
from .filler import grow
from .lab import Lab, check
from .load import (
    App,
    Contender,
    Measure,
    RequestContext,
    cost,
    latencies,
    p50,
    percentile,
    requests,
)
from .places import Place, run
from .rows import MANY_PERSON, Sample, fill, sizes_of

#: Requests at once while rows are removed.
CONCURRENT = 16
#: Requests between two looks whether it is over.
_BATCH = 10 * CONCURRENT
#: Statements that keep a database from gathering statistics of a table by itself, and those that
#: have it gather them.
_LEFT_ALONE = {
    "postgresql": "ALTER TABLE {table} SET (autovacuum_enabled = off)",
    "mysql": "ALTER TABLE {table} STATS_PERSISTENT = 1, STATS_AUTO_RECALC = 0",
}
_TOLD = {
    "postgresql": "ANALYZE {table}",
    "sqlite": "ANALYZE {table}",
    "mysql": "ANALYZE TABLE {table}",
}
#: Runs of a statement after which every driver has prepared it and every server has planned it.
_PREPARED = 20


@dataclass(frozen=True)
class Grown:
    """A table of some size."""

    rows: int
    place: Place
    sessions: Sessions
    app: App
    sample: Sample


@asynccontextmanager
async def grown(lab: Lab, place: Place, rows: int) -> AsyncIterator[Grown]:
    """A table of so many rows, made if it is not there."""
    if place.kind == "sqlite":  # a file of its own, whose size is the table's
        place = Place(place.name, f"sqlite:///{lab.directory}/rows_{rows}.db")
    # Half of the rows at most are drawn: the sample holds a person's 50 sessions anywhere.
    sample = lab.sample if rows >= 2 * len(lab.sample.rows) else _half(lab.sample, rows // 2)
    sessions = Sessions(place.url, secret_key=KEY, table_name=f"rows_{rows}", touch_interval=NEVER)
    async with sessions:
        await sessions.create_tables()
        if (place.url, rows) not in lab.grown:
            lab.grown.add((place.url, rows))
            size, dead = rows - len(sample.rows), lab.effort.dead
            with lab.bar.step(f"{rows:,} rows, {place.name}", rows) as tick:
                await asyncio.to_thread(grow, place, sessions.table, size, dead=dead, tick=tick)
                await asyncio.to_thread(fill, place, sessions.table, sample)
        app = ours(sessions)
        await check(app, sample.cookies[0], sample.rows[0]["person_id"])
        yield Grown(rows, place, sessions, app, sample)


def _half(sample: Sample, size: int) -> Sample:
    """So many of them, among them those of the person who has many."""
    order = sorted(
        range(len(sample.rows)), key=lambda i: sample.rows[i]["person_id"] != MANY_PERSON
    )
    chosen = order[:size]
    return Sample([sample.cookies[i] for i in chosen], [sample.rows[i] for i in chosen])


@dataclass(frozen=True)
class Disturbed:
    """Requests beside other work, and undisturbed.

    Args:
        rows: that the work has changed.
        seconds: that it took.
        p99: microseconds that 99 of 100 requests stayed below meanwhile.
        usual_p99: the same before and after.
    """

    rows: int
    seconds: float
    p99: float
    usual_p99: float


async def disturbed(
    call: RequestContext, work: Callable[[], Awaitable[int]], seconds: float
) -> Disturbed:
    """Requests, 16 at once, beside some work, and undisturbed for so long before and after it."""

    async def undisturbed() -> list[float]:
        taken: list[float] = []
        until = perf_counter() + seconds
        while perf_counter() < until:
            taken += await latencies(call, _BATCH, CONCURRENT)
        return taken

    before = await undisturbed()
    start = perf_counter()
    running = asyncio.ensure_future(work())
    taken: list[float] = []
    while not running.done():
        taken += await latencies(call, _BATCH, CONCURRENT)
    rows, took = await running, perf_counter() - start
    usual = percentile([*before, *await undisturbed()], 99)
    return Disturbed(rows, took, percentile(taken, 99), usual)


async def growth(lab: Lab, place: Place) -> list[Figure]:
    """H and i, on tables from small to large."""
    async with AsyncExitStack() as stack:
        tables = [
            await stack.enter_async_context(grown(lab, place, rows)) for rows in lab.effort.growth
        ]
        figures = await _compared(lab, tables)
        figures += await _listed(lab, tables[-1])
        figures += _stored(tables[-1])
        return figures + await _purged(lab, tables[-1])


async def _compared(lab: Lab, tables: list[Grown]) -> list[Figure]:
    first, last = tables[0], tables[-1]
    name = first.place.name
    rounds = await lab.contest(
        f"resume among more and more rows, {name}",
        [
            contender
            for table in tables
            for contender in (
                Contender(
                    f"{table.rows} p50",
                    requests(table.app, "/me", table.sample.cookies),
                    measure=p50,
                ),
                Contender(f"{table.rows} 64", requests(table.app, "/me", table.sample.cookies), 64),
            )
        ],
    )
    for kind, label in (("p50", "1 at a time"), ("64", "64 at once")):
        lab.series.setdefault("rows", {})[f"{name}, {label}"] = [
            (table.rows, median(rounds[f"{table.rows} {kind}"])) for table in tables
        ]
    what = f"{name}, {last.rows:,} rows against {first.rows:,}"
    return [
        ratio(
            "h",
            f"resume p50, 1 at a time, {what}",
            rounds,
            (f"{last.rows} p50", f"{first.rows} p50"),
            bound=None if last.place.kind == "mysql" else 1.15,
        ),
        ratio(
            "h",
            f"resume, 64 at once, {what}",
            rounds,
            (f"{last.rows} 64", f"{first.rows} 64"),
        ),
    ]


async def _listed(lab: Lab, table: Grown) -> list[Figure]:
    async def listing() -> None:
        found = await table.sessions.list_sessions(MANY_PERSON)
        if len(found) != 50:
            raise RuntimeError(f"{len(found)} sessions")

    name = table.place.name
    rounds = await lab.contest(
        f"a list of 50, {name}",
        [
            Contender("list", listing, measure=p50),
            Contender("resume", requests(table.app, "/me", table.sample.cookies), measure=p50),
        ],
    )
    what = f"list of a person's 50 sessions among {table.rows:,} rows, {name}, against a resume"
    return [ratio("h", what, rounds, ("list", "resume"), bound=2)]


def _stored(table: Grown) -> list[Figure]:
    """What the rows take, in all and by index."""
    sizes = sizes_of(table.place, table.sessions.table)
    where = f"{table.rows:,} rows, {table.place.name}"
    parts = {"table and indexes": sum(sizes.values()), **sizes}
    return [
        Figure(
            letter="h",
            what=f"{what.replace(table.sessions.table.name, 'sessions')}, {where}",
            ours=size / 1e6,
            against=None,
            unit="MB",
            values=[size / table.rows],
            sign="bytes a row",
        )
        for what, size in parts.items()
    ]


async def _purged(lab: Lab, table: Grown) -> list[Figure]:
    name = table.place.name
    with lab.bar.step(f"purge, {name}", 1):
        beside = await disturbed(
            requests(table.app, "/me", table.sample.cookies),
            table.sessions.purge,
            lab.effort.rounds * lab.effort.seconds,
        )
    removed, meanwhile, usual = beside.rows, beside.p99, beside.usual_p99
    return [
        Figure(
            letter="i",
            what=f"resume p99, 16 at once, while {removed:,} of {table.rows:,} rows are purged,"
            f" {name}, against undisturbed",
            ours=meanwhile,
            against=usual,
            unit="µs",
            values=[meanwhile / usual],
            bound=2,
        ),
        Figure(
            letter="i",
            what=f"purge meanwhile, {name}",
            ours=removed,
            against=None,
            unit="rows",
            values=[removed / beside.seconds],
            sign="rows/s",
        ),
    ]


async def from_empty(lab: Lab, place: Place) -> list[Figure]:
    """L: a table that grew while its process went on, against one that the database knows."""
    if place.kind == "sqlite":
        place = Place(place.name, f"sqlite:///{lab.directory}/from_empty.db")
    size = lab.effort.many
    sample = _half(lab.sample, size // 2)

    def opened(name: str) -> Sessions:
        return Sessions(place.url, secret_key=KEY, table_name=name, touch_interval=AT_EACH)

    async with opened("in_use") as in_use, opened("known") as first:
        for sessions in (in_use, first):
            await sessions.create_tables()
            _tell(place, sessions, _LEFT_ALONE)
        for call, at_once, _ in _uses(in_use, sample).values():
            await cost(call, _PREPARED * at_once, at_once)
        with lab.bar.step(f"2 tables of {size:,} rows, {place.name}", 2) as tick:
            for number, table in enumerate((in_use.table, first.table), 1):
                rest = size - len(sample.rows)
                await asyncio.to_thread(grow, place, table, rest, dead=lab.effort.dead, in_use=True)
                await asyncio.to_thread(fill, place, table, sample, in_use=True)
                tick(number)
        _tell(place, first, _TOLD)
        async with opened("known") as known:
            each = {"in use": _uses(in_use, sample), "known": _uses(known, sample)}
            for sessions in (in_use, known):
                if len(await sessions.list_sessions(MANY_PERSON)) != 50:
                    raise RuntimeError("a table is not as it should be")
            # Apart: what is written is still on its way to the disk while the next one is measured.
            rounds = {
                what: await lab.contest(
                    f"grown from empty, {what}, {place.name}",
                    [Contender(name, *uses[what]) for name, uses in each.items()],
                )
                for what in each["known"]
            }
    against = f"{place.name}, grown to {size:,} rows in use and not analyzed, against analyzed"
    return [
        ratio("l", f"{what}, {against}", measured, ("in use", "known"))
        for what, measured in rounds.items()
    ]


def _uses(sessions: Sessions, sample: Sample) -> dict[str, tuple[RequestContext, int, Measure]]:
    """What is done with a table, how much of it at once, and how it is measured."""
    app = ours(sessions)

    async def listing() -> None:
        await sessions.list_sessions(MANY_PERSON)

    async def with_touches(call: RequestContext, total: int, concurrency: int) -> float:
        """So that whoever is next has none of them beside it."""
        start = perf_counter()
        await cost(call, total, concurrency)
        await sessions._core.background.settle()
        return (perf_counter() - start) / total * 1e6

    return {
        "resume with its touch, 64 at once": (
            requests(app, "/me", sample.cookies),
            64,
            with_touches,
        ),
        "list of 50": (listing, 1, p50),
        "login, 64 at once": (logins(app), 64, cost),
    }


def _tell(place: Place, sessions: Sessions, statements: Mapping[str, str]) -> None:
    if place.kind in statements:
        run(place.url, statements[place.kind].format(table=sessions.table.name))
