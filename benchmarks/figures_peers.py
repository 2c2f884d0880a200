"""Side by side, ours and the peers': one logged-in request, one login and one logout; and one
request that reads data of a session, and one that writes some.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from random import Random
from statistics import median
from typing import Any

from redis.asyncio import Redis

from .apps import bare
from .figure import Keeping, Side
from .lab import Lab, check
from .load import App, Contender, RequestContext, Rounds, Spread, ask, log_in, requests
from .peers.everyone import OURS, PEERS
from .peers.peer import PREFIX, Stores
from .rows import cookies

CONCURRENT = 64
#: Logins, and logouts, of each in each round.
BATCH = 64

STORES = {
    "cookie": "the cookie",
    "redis": "Redis",
    "postgresql": "PostgreSQL",
    "postgresql+redis": "PostgreSQL and Redis",
}


@dataclass(frozen=True)
class Stand:
    """Who stands there."""

    name: str
    store: str
    app: App
    bare: App
    remark: str
    cookies: list[bytes]
    keeps: bool = True

    @property
    def ours(self) -> bool:
        """Whether it is this package."""
        return self.remark == OURS


async def side_by_side(lab: Lab, letters: str) -> tuple[list[Side], list[Keeping]]:
    """Measure all of them in the same rounds: p, sessions; t, data."""
    async with AsyncExitStack() as stack:
        peers = [stand async for stand in _peers(lab, stack)]
        keeping = await _data(lab, peers) if "t" in letters else []
        return await _sessions(lab, peers) if "p" in letters else [], keeping


async def _data(lab: Lab, peers: list[Stand]) -> list[Keeping]:
    async with AsyncExitStack() as stack:
        stands = [stand async for stand in _ours(lab, stack, data=True)]
        stands += [stand for stand in peers if stand.keeps]
        spreads = {(stand.name, how): Spread() for stand in stands for how in ("read", "write")}
        contenders = []
        for stand in stands:
            # The peers have the person among their data.
            for how, path in (("read", "/read" if stand.ours else "/me"), ("write", "/write")):
                answer = await ask(stand.app, path, stand.cookies[0])
                if answer.status != 200:
                    raise RuntimeError(f"{stand.name}, {path}: {answer}")
                call = requests(stand.app, path, stand.cookies, body=True)
                name, spread = f"{stand.name} {how}", spreads[stand.name, how]
                contenders += [
                    Contender(f"{name} 1", call),
                    Contender(f"{name} {CONCURRENT}", call, CONCURRENT, spread),
                ]
        rounds = await lab.contest("data of sessions", contenders)

        def costs(stand: Stand, how: str) -> tuple[float, float, float]:
            one, many = (rounds[f"{stand.name} {how} {level}"] for level in (1, CONCURRENT))
            return median(one), median(many), median(spreads[stand.name, how].p99)

        return [
            Keeping(
                name=stand.name,
                store=stand.store,
                ours=stand.ours,
                read=costs(stand, "read"),
                write=costs(stand, "write"),
            )
            for stand in stands
        ]


async def _sessions(lab: Lab, peers: list[Stand]) -> list[Side]:
    async with AsyncExitStack() as stack:
        stands = [*[stand async for stand in _ours(lab, stack)], *peers]
        ins, outs = await _logins(lab, stands)
        levels, spreads = await _levels(lab, stands)
        frameworks = await _frameworks(lab, stands)
        lab.series["concurrency"] = {
            stand.name: [(n, median(levels[f"{stand.name} {n}"])) for n in lab.effort.levels]
            for stand in stands
        }
        return [
            Side(
                name=stand.name,
                store=stand.store,
                ours=stand.ours,
                one=median(levels[f"{stand.name} 1"]),
                many=median(levels[f"{stand.name} {CONCURRENT}"]),
                framework=median(frameworks[f"{id(stand.bare)}"]),
                p50=median(spreads[stand.name].p50),
                p99=median(spreads[stand.name].p99),
                login=median(ins[stand.name]),
                logout=median(outs[stand.name]),
                remark=stand.remark,
            )
            for stand in stands
        ]


async def _ours(
    lab: Lab,
    stack: AsyncExitStack,
    **options: Any,  # noqa: ANN401 -- handed on
) -> AsyncIterator[Stand]:
    app_alone = bare()
    for place in lab.places:
        _, app = await stack.enter_async_context(lab.opened(place, **options))
        yield Stand(f"ours, {place.name}", place.name, app, app_alone, OURS, lab.sample.cookies)


async def _peers(lab: Lab, stack: AsyncExitStack) -> AsyncIterator[Stand]:
    stores = Stores({place.kind: place for place in lab.places}, lab.redis)
    if lab.redis:
        await stack.enter_async_context(_clean(lab.redis))
    frameworks: dict[object, App] = {}
    persons = [f"person-{i}" for i in range(lab.effort.peer_sessions)]
    for peer in PEERS:
        if not stores.has(peer.store):
            continue
        app = await stack.enter_async_context(peer.open(stores))
        if peer.bare not in frameworks:
            frameworks[peer.bare] = peer.bare()
        found: list[bytes] = []
        with lab.bar.step(f"logins, {peer.name}", len(persons)) as tick:
            for start in range(0, len(persons), 100):
                found += await cookies(app, persons[start : start + 100])
                tick(len(found))
        await _check(app, found[0], persons[0])
        store = STORES[peer.store]
        bare_app = frameworks[peer.bare]
        yield Stand(peer.name, store, app, bare_app, peer.remark, found, peer.keeps)


async def _check(app: App, cookie: bytes, person: str) -> None:
    """That it works: in, and out again."""
    await check(app, cookie, person)
    other = await log_in(app, "person-7")
    await check(app, other, "person-7")
    left = await ask(app, "/logout", other, method="POST")
    if left.status >= 400:
        raise RuntimeError(f"no logout: {left}")


@asynccontextmanager
async def _clean(url: str) -> AsyncIterator[None]:
    """Leave nothing of ours in Redis."""
    try:
        yield
    finally:
        async with Redis.from_url(url) as redis:
            keys = [key async for key in redis.scan_iter(f"*{PREFIX}*", count=1000)]
            for start in range(0, len(keys), 1000):
                await redis.delete(*keys[start : start + 1000])


def _me(stand: Stand) -> RequestContext:
    return requests(stand.app, "/me", stand.cookies, body=True)


async def _levels(lab: Lab, stands: list[Stand]) -> tuple[Rounds, dict[str, Spread]]:
    contenders = []
    spreads = {stand.name: Spread() for stand in stands}
    for stand in stands:
        call = _me(stand)
        contenders += [
            Contender(f"{stand.name} {level}", call, level, spreads[stand.name])
            if level == CONCURRENT
            else Contender(f"{stand.name} {level}", call, level)
            for level in lab.effort.levels
        ]
    return await lab.contest("logged-in requests", contenders), spreads


async def _frameworks(lab: Lab, stands: list[Stand]) -> Rounds:
    alone = {id(stand.bare): stand.bare for stand in stands}
    return await lab.contest(
        "frameworks alone",
        [
            Contender(str(number), requests(app, "/me", [None], body=True), CONCURRENT)
            for number, app in alone.items()
        ],
    )


async def _logins(lab: Lab, stands: list[Stand]) -> tuple[Rounds, Rounds]:
    """Logins whose cookies the logouts after them use up."""
    random = Random(8)
    waiting: dict[str, list[bytes]] = {stand.name: [] for stand in stands}
    ins, outs = [], []
    for stand in stands:
        ins.append(Contender(stand.name, _login(stand, waiting[stand.name], random), CONCURRENT))
        outs.append(Contender(stand.name, _logout(stand, waiting[stand.name]), CONCURRENT))
    rounds = lab.effort.rounds
    both: Rounds = {}
    gone: Rounds = {}
    with lab.bar.step("logins and logouts", rounds + 1) as tick:
        for number in range(rounds + 1):
            order = list(zip(ins, outs, strict=True))
            for login, logout in order if number % 2 else reversed(order):
                for contender, values in ((login, both), (logout, gone)):
                    value = await contender.measure(contender.call, BATCH, CONCURRENT)
                    if number:
                        values.setdefault(contender.name, []).append(value)
            tick(number + 1)
    return both, gone


def _login(stand: Stand, waiting: list[bytes], random: Random) -> RequestContext:
    async def call() -> None:
        waiting.append(await log_in(stand.app, f"person-{random.randrange(20_000)}"))

    return call


def _logout(stand: Stand, waiting: list[bytes]) -> RequestContext:
    async def call() -> None:
        answer = await ask(stand.app, "/logout", waiting.pop(), method="POST")
        if answer.status >= 400:
            raise RuntimeError(f"no logout: {answer}")

    return call
