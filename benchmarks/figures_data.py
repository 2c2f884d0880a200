"""Figures r and s: what the data of a session cost, to be read and to be written."""

from __future__ import annotations

from itertools import count
from random import Random

from .apps import bare
from .drivers import QueryFirst, updating
from .figure import Figure, ratio
from .lab import Lab
from .load import App, Contender, Spread, ask, requests
from .places import Place

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


async def _expect(app: App, path: str, cookie: bytes) -> None:
    """That there is something to be read or written."""
    answer = await ask(app, path, cookie)
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer}")
