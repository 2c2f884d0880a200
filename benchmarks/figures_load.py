"""Figures e to g and o: the slowest requests, logins, and what noting their use costs."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from random import Random
from statistics import median
from typing import Any
from uuid import uuid4

from databases import Database
from sqlalchemy import Connection, Select, func, select, update
from starlette.requests import Request

from asgi_sessions import Sessions

from .apps import KEY, bare, make
from .drivers import POOL, QueryFirst, pooled
from .figure import Figure, ratio
from .lab import Lab
from .load import (
    USER_AGENT,
    App,
    Contender,
    Measure,
    RequestContext,
    Spread,
    ask,
    now,
    requests,
    scope,
)
from .places import Place, engine
from .rows import begin
from .tracing import Statements, tracing

CONCURRENT = 64
#: Longer than any run.
NEVER = timedelta(days=7)
#: So short that every request is noted.
AT_EACH = timedelta(microseconds=1)


async def tail(lab: Lab, place: Place) -> list[Figure]:
    """e: the 99th percentile, against one query for each request."""
    async with (
        lab.opened(place) as (sessions, app),
        pooled(place, sessions.table) as query,
    ):
        draw, sids = Random(4).choice, lab.sample.ids
        one_each = QueryFirst(bare(), query, lambda: (draw(sids),))
        mine, theirs = Spread(), Spread()
        await lab.contest(
            f"the slowest of 64 at once, {place.name}",
            [
                Contender("ours", requests(app, "/me", lab.sample.cookies), CONCURRENT, mine),
                Contender(
                    "query", requests(one_each, "/me", lab.sample.cookies), CONCURRENT, theirs
                ),
            ],
            times=2,
        )
    what = f"64 at once, {place.name}, against one query per request"
    p99 = {"ours": mine.p99, "query": theirs.p99}
    p50 = {"ours": mine.p50, "query": theirs.p50}
    # Where the first in line does not go first, the p99 is good, and some wait for ever.
    slowest = {"ours": mine.slowest, "query": theirs.slowest}
    return [
        ratio("e", f"p99, {what}", p99, ("ours", "query"), bound=1.0),
        ratio("e", f"p50, {what}", p50, ("ours", "query")),
        ratio("e", f"the slowest, {what}", slowest, ("ours", "query")),
    ]


async def starts(lab: Lab, place: Place) -> list[Figure]:
    """f: logins, against one INSERT for each through `databases`."""
    async with lab.opened(place) as (_, app), _inserting(place) as other:
        rounds = await lab.contest(
            f"logins, {place.name}",
            [
                Contender("ours", logins(app), CONCURRENT),
                Contender("insert", logins(other), CONCURRENT),
            ],
            times=2,
        )
    above, below = rounds["insert"], rounds["ours"]
    return [
        Figure(
            letter="f",
            what=f"start_session, 64 at once, {place.name}, against one INSERT per request",
            ours=median(below),
            against=median(above),
            unit="µs",
            values=[a / b for a, b in zip(above, below, strict=True)],
            sign="× as fast",
            bound=10 if place.kind == "sqlite" else 5,
            at_least=True,
        )
    ]


def logins(app: App, person: str | None = None) -> RequestContext:
    """Logins of a person, or of whoever is drawn."""
    random = Random(5)

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        if message.get("status", 200) >= 400:
            raise RuntimeError(f"a login failed: {message}")

    async def call() -> None:
        whose = person or f"person-{random.randrange(20_000)}"
        await app(scope("/login", method="POST", query=b"person=" + whose.encode()), receive, send)

    return call


@asynccontextmanager
async def _inserting(place: Place) -> AsyncIterator[App]:
    """An app whose login is one INSERT into a table like ours."""
    table = Sessions(place.url, secret_key=KEY, table_name="inserts").table
    # SQLite's threads wait for one another longer than usual before they give up.
    options: dict[str, Any] = (
        {"timeout": 60} if place.kind == "sqlite" else {"min_size": 1, "max_size": POOL}
    )
    statement = table.insert()
    async with Database(place.url, **options) as database:
        sessions = Sessions(database, secret_key=KEY, table_name="inserts")
        await sessions.create_tables()

        async def login(request: Request) -> None:
            at = now()
            values = {
                "id": str(uuid4()),
                "person_id": request.query_params["person"],
                "app_id": "default",
                "auth_provider": None,
                "origin": "login",
                "user_agent": USER_AGENT,
                "ip_address": "192.0.2.1",
                "device_key": secrets.token_bytes(32),
                "secret_hash": sha256(secrets.token_bytes(32)).digest(),
                "started_at": at,
                "last_seen_at": at,
                "authenticated_at": at,
                "expires_at": at + timedelta(days=30),
                "remember": True,
                "bearer": False,
            }
            await database.execute(statement, values)

        async def logout(request: Request) -> None:
            """Nobody logs out here."""

        yield make(lambda request: None, login, logout)
        await sessions.disconnect()


async def touches(lab: Lab, place: Place) -> list[Figure]:
    """g: a resume with its touch, against one without."""
    async with (
        lab.opened(place) as (_, by_default),
        lab.opened(place, touch_interval=NEVER) as (_, never),
        lab.opened(place, touch_interval=AT_EACH) as (_, always),
    ):
        cookies = lab.sample.cookies
        rounds = await lab.contest(
            f"touches, {place.name}",
            [
                Contender("on", requests(by_default, "/me", cookies), CONCURRENT),
                Contender("off", requests(never, "/me", cookies), CONCURRENT),
                Contender("always", requests(always, "/me", cookies), CONCURRENT),
            ],
        )
    return [
        ratio(
            "g",
            f"resume, touches as by default, {place.name}, against none",
            rounds,
            ("on", "off"),
            bound=1.05,
        ),
        ratio(
            "g",
            f"resume, every request touching, {place.name}, against none",
            rounds,
            ("always", "off"),
        ),
    ]


async def flushes(lab: Lab, place: Place) -> list[Figure]:
    """g: statements for touches that have gathered while another writer held the table."""
    sizes = sorted({min(size, len(lab.sample.rows)) for size in (64, 256)})
    return [await _flushes(lab, place, size) for size in sizes]


async def _flushes(lab: Lab, place: Place, size: int) -> Figure:
    async with (
        tracing(place) as (database, statements),
        lab.opened(place, database=database, touch_interval=AT_EACH) as (
            sessions,
            app,
        ),
    ):
        touched = lab.sample.part(size)
        since = now()
        await _held_up(place, sessions, app, touched.cookies, statements)
        table = sessions.table
        used = select(func.count()).where(
            table.c.id.in_(touched.ids), table.c.last_seen_at >= since
        )
        with engine(place.url) as made, made.connect() as connection:
            if (count := connection.scalar(used)) != size:
                raise RuntimeError(f"{count} of {size} were touched")
    updates = sum("UPDATE" in statement for statement in statements)
    return Figure(
        letter="g",
        what=f"UPDATEs for {size} touches while another writer held the table, {place.name}: a"
        " flush that waits for it, and one for what gathers meanwhile",
        ours=updates,
        against=size,
        unit="",
        values=[updates],
        sign="statements",
        bound=2,
    )


async def _held_up(
    place: Place, sessions: Sessions, app: App, cookies: list[bytes], statements: Statements
) -> None:
    """Requests whose answers are out while their touches wait for another writer."""
    answered = 0
    done = asyncio.Event()

    async def receive() -> Mapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal answered
        answered += message["type"] == "http.response.body"
        if answered == len(cookies):
            done.set()

    with engine(place.url) as made, made.connect() as connection:
        _hold(place, connection, select(sessions.table.c.id))
        statements.clear()
        running = [
            asyncio.ensure_future(app(scope("/me", cookie), receive, send)) for cookie in cookies
        ]
        await done.wait()
        connection.exec_driver_sql("ROLLBACK")
    await asyncio.gather(*running)
    await sessions._core.background.settle()  # nobody waits for a touch


def _hold(place: Place, connection: Connection, rows: Select[Any]) -> None:
    """Lock rows; on SQLite, all there are."""
    if place.kind == "sqlite":
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    else:
        begin(connection)
        connection.execute(rows.with_for_update())


async def locked(lab: Lab, place: Place) -> list[Figure]:
    """O: while the touch of one session cannot be written, because somebody holds its row."""
    async with lab.opened(place) as (sessions, app):
        table, first = sessions.table, lab.sample.cookies[0]
        row = table.c.id == lab.sample.rows[0]["id"]
        due = update(table).where(row).values(last_seen_at=now() - timedelta(hours=1))

        def measured(spread: Spread, *, hold: bool) -> Measure:
            async def measure(call: RequestContext, total: int, concurrency: int) -> float:
                with engine(place.url) as made, made.connect() as connection:
                    connection.execute(due)
                    if hold:
                        _hold(place, connection, select(table.c.id).where(row))
                    await ask(app, "/me", first)
                    cost = await spread(call, total, concurrency)
                    if hold:
                        connection.exec_driver_sql("ROLLBACK")
                    return cost

            return measure

        calls = {
            "other people's resume": requests(app, "/me", lab.sample.cookies[1:]),
            "resume of that session": requests(app, "/me", [first]),
        }
        spreads = {(what, hold): Spread() for what in calls for hold in (True, False)}
        rounds = await lab.contest(
            f"a touch that is locked out, {place.name}",
            [
                Contender(f"{what} {hold}", calls[what], CONCURRENT, measured(spread, hold=hold))
                for (what, hold), spread in spreads.items()
            ],
        )
        await sessions._core.background.settle()
    rest = f"64 at once, while somebody holds the row of a touch, {place.name}, against undisturbed"
    figures = []
    for what in calls:
        p99 = {str(hold): spreads[what, hold].p99 for hold in (True, False)}
        figures += [
            ratio("o", f"{what}, {rest}", rounds, (f"{what} True", f"{what} False")),
            ratio("o", f"{what}, p99, {rest}", p99, ("True", "False")),
        ]
    return figures
