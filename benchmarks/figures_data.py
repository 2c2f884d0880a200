"""Figures r, s and u: what the data of a session cost, to be read and to be written, and what
visitors cost everybody else.
"""

from __future__ import annotations

import asyncio
from itertools import count
from random import Random

from asgi_sessions import AAL1, Sessions

from .apps import KEY, bare, ours
from .drivers import QueryFirst, updating
from .figure import Figure, ratio
from .figures_load import NEVER
from .filler import grow_visitors
from .lab import Lab, check
from .load import App, Contender, RequestContext, Spread, ask, p50, requests
from .places import Place
from .rows import MANY, MANY_PERSON, fill, fill_data

_AT_ONCE = {1: "1 at a time", 64: "64 at once"}
#: Requests at once, and times of one UPDATE for each request that a write takes at most.
_WRITES = {1: 1.5, 64: 0.5}


async def reads(lab: Lab, place: Place) -> list[Figure]:
    """r: a request that reads one key, against a resume of an app without data."""
    cookies = lab.sample.cookies
    async with (
        lab.opened(place, data=True) as (_, with_data),
        lab.opened(place) as (_, without),
    ):
        await _expect(with_data, "/read", cookies[0])
        spreads = {"read": Spread(), "resume": Spread()}
        rounds = await lab.contest(
            f"data that are read, {place.name}",
            [
                contender
                for name, app, path in (("read", with_data, "/read"), ("resume", without, "/me"))
                for contender in (
                    Contender(f"{name} 1", requests(app, path, cookies)),
                    Contender(f"{name} 64", requests(app, path, cookies), 64, spreads[name]),
                )
            ],
        )
    what = f"{place.name}, against a resume without data"
    p99 = {name: spread.p99 for name, spread in spreads.items()}
    return [
        *(
            ratio(
                "r",
                f"a request that reads one key, {_AT_ONCE[at_once]}, {what}",
                rounds,
                (f"read {at_once}", f"resume {at_once}"),
                bound=1.2,
            )
            for at_once in (1, 64)
        ),
        ratio("r", f"its p99, 64 at once, {what}", p99, ("read", "resume")),
    ]


async def writes(lab: Lab, place: Place) -> list[Figure]:
    """s: a request that writes one key, against an app with one UPDATE for each request."""
    cookies = lab.sample.cookies
    async with (
        lab.opened(place, data=True) as (sessions, app),
        updating(place, sessions.table) as update,
    ):
        draw, sids, numbers = Random(4).choice, lab.sample.ids, count(1)
        one_each = QueryFirst(bare(), update, lambda: (f'{{"count":{next(numbers)}}}', draw(sids)))
        await _expect(app, "/write", cookies[0])
        spreads = {"write": Spread(), "update": Spread()}
        rounds = await lab.contest(
            f"data that are written, {place.name}",
            [
                contender
                for name, who, path in (("write", app, "/write"), ("update", one_each, "/me"))
                for contender in (
                    Contender(f"{name} 1", requests(who, path, cookies)),
                    Contender(f"{name} 64", requests(who, path, cookies), 64, spreads[name]),
                )
            ],
        )
    what = f"{place.name}, against one UPDATE per request"
    p99 = {name: spread.p99 for name, spread in spreads.items()}
    return [
        *(
            ratio(
                "s",
                f"a request that writes one key, {_AT_ONCE[at_once]}, {what}",
                rounds,
                (f"write {at_once}", f"update {at_once}"),
                bound=bound,
            )
            for at_once, bound in _WRITES.items()
        ),
        ratio("s", f"its p99, 64 at once, {what}", p99, ("write", "update")),
    ]


async def visitors(lab: Lab, place: Place) -> list[Figure]:
    """u: what is asked of a table beside many visitors, against one beside none."""
    if place.kind == "sqlite":  # two files: one alone is read from memory sooner
        alone = Place(place.name, f"sqlite:///{lab.directory}/alone.db")
        place = Place(place.name, f"sqlite:///{lab.directory}/visited.db")
    else:
        alone = place
    size, sample = lab.effort.visitors, lab.sample

    def opened(where: Place, name: str) -> Sessions:
        return Sessions(
            where.url,
            secret_key=KEY,
            table_name=name,
            data=True,
            visitor_lifetimes=AAL1,  # half of its idle timeout is NEVER
            touch_interval=NEVER,
        )

    async with opened(place, "visited") as visited, opened(alone, "alone") as by_itself:
        calls = {}
        for name, where, sessions in (("beside", place, visited), ("alone", alone, by_itself)):
            await sessions.create_tables()
            await asyncio.to_thread(fill, where, sessions.table, sample)
            await asyncio.to_thread(fill_data, where, sessions.table)
            if sessions is visited:
                with lab.bar.step(f"{size:,} visitors, {place.name}", 1):
                    await asyncio.to_thread(grow_visitors, where, sessions.table, size)
            app = ours(sessions)
            await check(app, sample.cookies[0], sample.rows[0]["person_id"])
            resume = requests(app, "/read", sample.cookies)
            calls[name] = [
                Contender(f"p50 {name}", resume, measure=p50),
                Contender(f"64 {name}", resume, 64),
                Contender(f"list {name}", _listing(sessions), measure=p50),
            ]
        rounds = await lab.contest(
            f"beside visitors, {place.name}", [*calls["beside"], *calls["alone"]]
        )
    against = f"{place.name}, beside {size:,} visitors, against none"
    return [
        ratio("u", f"{what}, {against}", rounds, (f"{name} beside", f"{name} alone"), bound=1.15)
        for name, what in (
            ("p50", "resume with data, p50, 1 at a time"),
            ("64", "resume with data, 64 at once"),
            ("list", f"list of {MANY}, p50"),
        )
    ]


def _listing(sessions: Sessions) -> RequestContext:
    async def call() -> None:
        found = await sessions.list_sessions(MANY_PERSON, limit=MANY)
        if len(found) != MANY:
            raise RuntimeError(f"{len(found)} sessions")

    return call


async def _expect(app: App, path: str, cookie: bytes) -> None:
    """That there is something to be read or written."""
    answer = await ask(app, path, cookie)
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer}")
