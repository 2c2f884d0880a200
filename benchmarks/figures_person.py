"""Figures m and n: a person who has far too many sessions, and the end of all of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from statistics import median

from asgi_sessions import Sessions

from .apps import KEY, ours
from .figure import Figure, ratio
from .figures_growth import Grown, disturbed
from .figures_load import NEVER, logins
from .filler import grow
from .lab import Lab, check
from .load import Contender, RequestContext, ratios, requests
from .places import Place, engine, run
from .rows import MANY, MANY_PERSON, cookies, fill, settle

#: Who has nearly all rows of the table, which is called so.
_CROWD = "crowd"
#: For so many rounds of the others, all of them end once: for each they have to come to life again.
_ROUNDS = 3


async def one_person(lab: Lab, place: Place) -> list[Figure]:
    """M and n, on the same table."""
    async with _crowded(lab, place) as table:
        return await _asked(lab, table) + await _ended(lab, table)


@asynccontextmanager
async def _crowded(lab: Lab, place: Place) -> AsyncIterator[Grown]:
    many, sample = lab.effort.many, lab.sample
    if place.kind == "sqlite":
        place = Place(place.name, f"sqlite:///{lab.directory}/crowded.db")
    sessions = Sessions(place.url, secret_key=KEY, table_name="crowded", touch_interval=NEVER)
    async with sessions:
        await sessions.create_tables()
        with lab.bar.step(f"{many:,} rows of one person, {place.name}", many) as tick:
            await asyncio.to_thread(grow, place, sessions.table, many, dead=many + 1, tick=tick)
            run(place.url, "UPDATE crowded SET person_id = 'crowd'")
            await asyncio.to_thread(fill, place, sessions.table, sample)
        app = ours(sessions)
        await check(app, sample.cookies[0], sample.rows[0]["person_id"])
        yield Grown(many, place, sessions, app, sample)


async def _asked(lab: Lab, table: Grown) -> list[Figure]:
    """Theirs, against the same of others."""

    def listing(person: str) -> RequestContext:
        async def call() -> None:
            found = await table.sessions.list_sessions(person, limit=MANY)
            if len(found) != MANY:
                raise RuntimeError(f"{len(found)} sessions")

        return call

    app, others = table.app, table.sample.part(64).cookies
    theirs = await cookies(app, [_CROWD] * len(others))
    pairs = {
        f"list of {MANY}": (listing(_CROWD), listing(MANY_PERSON), 1),
        "login, 64 at once": (logins(app, _CROWD), logins(app), 64),
        "resume, 64 at once": (requests(app, "/me", theirs), requests(app, "/me", others), 64),
    }
    rounds = await lab.contest(
        f"one person with many rows, {table.place.name}",
        [
            Contender(f"{what} {name}", call, at_once)
            for what, (their, other, at_once) in pairs.items()
            for name, call in (("theirs", their), ("others'", other))
        ],
    )
    whose = f"of a person with {table.rows:,} sessions, {table.place.name}, against others'"
    return [
        ratio("m", f"{what}, {whose}", rounds, (f"{what} theirs", f"{what} others'"))
        for what in pairs
    ]


async def _ended(lab: Lab, table: Grown) -> list[Figure]:
    """Other people's requests while all of theirs end, against undisturbed."""
    name, ends = table.place.name, max(lab.effort.rounds // _ROUNDS, 1)
    calls = {"resume": requests(table.app, "/me", table.sample.cookies), "login": logins(table.app)}
    figures, pace = [], []
    with lab.bar.step(f"the end of all, {name}", ends * len(calls)) as tick:
        for number, (what, call) in enumerate(calls.items()):
            each = []
            for end in range(ends):
                _revive(table)
                beside = await disturbed(
                    call, lambda: table.sessions.end_all_sessions(_CROWD), lab.effort.seconds
                )
                if beside.rows < table.rows:
                    raise RuntimeError(f"{beside.rows} have ended")
                each.append(beside)
                tick(number * ends + end + 1)
            meanwhile = [one.p99 for one in each]
            usual = [one.usual_p99 for one in each]
            pace += [one.rows / one.seconds for one in each]
            figures.append(
                Figure(
                    letter="n",
                    what=f"other people's {what} p99, 16 at once, while {table.rows:,} sessions of"
                    f" one person end, {name}, against undisturbed",
                    ours=median(meanwhile),
                    against=median(usual),
                    unit="µs",
                    values=ratios(meanwhile, usual),
                )
            )
    end_all = Figure(
        letter="n",
        what=f"end_all_sessions meanwhile, {name}",
        ours=table.rows,
        against=None,
        unit="rows",
        values=pace,
        sign="rows/s",
    )
    return [*figures, end_all]


def _revive(table: Grown) -> None:
    with engine(table.place.url) as made, made.connect() as connection:
        connection.exec_driver_sql(
            "UPDATE crowded SET ended_at = NULL, end_reason = NULL WHERE ended_at IS NOT NULL"
        )
        settle(table.place, table.sessions.table, connection)
