"""Figures h and i: what many rows cost, and removing many of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from statistics import median
from time import perf_counter

from asgi_sessions import Sessions

from .apps import KEY, ours
from .figure import Figure, ratio
from .figures_load import NEVER
from .filler import grow
from .lab import Lab, check
from .load import App, Contender, latencies, p50, percentile, requests
from .places import Place
from .rows import MANY_PERSON, Sample, fill, sizes_of

#: Requests at once while rows are removed.
CONCURRENT = 16
#: Requests between two looks whether it is over.
_BATCH = 10 * CONCURRENT


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
    call = requests(table.app, "/me", table.sample.cookies)
    name = table.place.name

    async def undisturbed() -> list[float]:
        taken: list[float] = []
        until = perf_counter() + lab.effort.rounds * lab.effort.seconds
        while perf_counter() < until:
            taken += await latencies(call, _BATCH, CONCURRENT)
        return taken

    with lab.bar.step(f"purge, {name}", 3) as tick:
        before = await undisturbed()
        tick(1)
        start = perf_counter()
        purge = asyncio.ensure_future(table.sessions.purge())
        taken: list[float] = []
        while not purge.done():
            taken += await latencies(call, _BATCH, CONCURRENT)
        removed, seconds = await purge, perf_counter() - start
        tick(2)
        after = await undisturbed()
    meanwhile, usual = percentile(taken, 99), percentile([*before, *after], 99)
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
            values=[removed / seconds],
            sign="rows/s",
        ),
    ]
