"""Requests in process, as a server would hand them over, and what they cost."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from statistics import median, quantiles
from time import perf_counter
from typing import Any

#: An ASGI app of any framework; their types are not one another's.
App = Callable[[Any, Any, Any], Awaitable[None]]
#: One request, or one query.
RequestContext = Callable[[], Awaitable[object]]
#: What a contender is asked for: a call, how many in all, how many at once.
Measure = Callable[[RequestContext, int, int], Awaitable[float]]

USER_AGENT = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36"
)
_HEADERS = [
    (b"host", b"app.example"),
    (b"user-agent", USER_AGENT.encode()),
    (b"accept", b"text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
    (b"accept-language", b"en-GB,en;q=0.5"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
]
_BODY = {"type": "http.request", "body": b"", "more_body": False}


def now() -> datetime:
    """The time, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 -- the load's clock


def scope(
    path: str = "/",
    cookie: bytes | None = None,
    *,
    method: str = "GET",
    query: bytes = b"",
    header: bytes = b"cookie",
) -> dict[str, Any]:
    """What uvicorn makes of a browser's request; `header`: what carries the cookie."""
    headers = _HEADERS.copy()
    if cookie is not None:
        headers.append((header, cookie))
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "server": ("192.0.2.80", 443),
        "client": ("192.0.2.1", 40000),
        "scheme": "https",
        "method": method,
        "root_path": "",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query,
        "headers": headers,
        "state": {},
    }


def receiver() -> Callable[[], Awaitable[dict[str, Any]]]:
    """An empty body, and then a client that waits for its answer."""
    sent = False

    async def receive() -> dict[str, Any]:
        nonlocal sent
        if sent:
            await asyncio.get_running_loop().create_future()
        sent = True
        return _BODY

    return receive


async def _body() -> dict[str, Any]:
    return _BODY


async def _drop(message: Mapping[str, Any]) -> None:
    """Send into the void."""


@dataclass(frozen=True)
class Answer:
    """A response."""

    status: int
    body: str
    #: ``name=value`` of the last cookie that it sets.
    cookie: bytes | None


async def ask(
    app: App,
    path: str,
    cookie: bytes | None = None,
    *,
    method: str = "GET",
    query: bytes = b"",
) -> Answer:
    """One request, and what comes back."""
    messages: list[Mapping[str, Any]] = []

    async def send(message: Mapping[str, Any]) -> None:
        messages.append(message)

    await app(scope(path, cookie, method=method, query=query), receiver(), send)
    start = messages[0]
    cookies = [v.partition(b";")[0] for k, v in start["headers"] if k.lower() == b"set-cookie"]
    body = b"".join(m.get("body", b"") for m in messages[1:])
    return Answer(start["status"], body.decode(), cookies[-1] if cookies else None)


async def log_in(app: App, person: str) -> bytes:
    """The cookie that a login sets."""
    answer = await ask(app, "/login", method="POST", query=b"person=" + person.encode())
    if answer.cookie is None:
        raise RuntimeError(f"no cookie: {answer}")
    return answer.cookie


def requests(
    app: App,
    path: str,
    cookies: Sequence[bytes | None],
    *,
    seed: int = 1,
    body: bool = False,
    header: bytes = b"cookie",
) -> RequestContext:
    """Requests with one of the cookies each, drawn at random.

    Args:
        app: the app.
        path: where.
        cookies: None for a request without.
        seed: of the drawing.
        body: whether the app asks for the request's body, or for its client's leaving.
        header: what carries the cookie.
    """
    choose = Random(seed).choice

    if body:

        async def call() -> None:
            await app(scope(path, choose(cookies)), receiver(), _drop)

    else:

        async def call() -> None:
            await app(scope(path, choose(cookies), header=header), _body, _drop)

    return call


async def cost(call: RequestContext, total: int, concurrency: int) -> float:
    """Microseconds for each of so many calls, so many at a time."""
    each = max(total // concurrency, 1)

    async def worker() -> None:
        for _ in range(each):
            await call()

    start = perf_counter()
    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return (perf_counter() - start) / (each * concurrency) * 1e6


async def latencies(call: RequestContext, total: int, concurrency: int) -> list[float]:
    """Microseconds that each call took from its beginning to its end."""
    each = max(total // concurrency, 1)
    taken: list[float] = []

    async def worker() -> None:
        for _ in range(each):
            start = perf_counter()
            await call()
            taken.append((perf_counter() - start) * 1e6)

    await asyncio.gather(*(worker() for _ in range(concurrency)))
    return taken


def percentile(values: Sequence[float], percent: int) -> float:
    """So many of a hundred values are below it."""
    return quantiles(values, n=100, method="inclusive")[percent - 1]


async def p50(call: RequestContext, total: int, concurrency: int) -> float:
    """The latency that half of the calls stay below."""
    return median(await latencies(call, total, concurrency))


@dataclass(frozen=True)
class Spread:
    """Measures `cost`, and keeps the latencies of the same calls.

    Args:
        p50: microseconds that half of the calls stay below, of each measurement.
        p99: that 99 of 100 stay below.
        slowest: that all stay below.
    """

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    slowest: list[float] = field(default_factory=list)

    async def __call__(self, call: RequestContext, total: int, concurrency: int) -> float:
        """The cost."""
        start = perf_counter()
        taken = await latencies(call, total, concurrency)
        elapsed = perf_counter() - start
        self.p50.append(median(taken))
        self.p99.append(percentile(taken, 99))
        self.slowest.append(max(taken))
        return elapsed / len(taken) * 1e6


@dataclass(frozen=True)
class Contender:
    """Who is measured, and how many calls are under way at once."""

    name: str
    call: RequestContext
    concurrency: int = 1
    measure: Measure = cost


Rounds = dict[str, list[float]]

#: Calls after which everything is compiled, connected and cached.
_WARM = 1000


async def contest(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    seconds: float,
    tick: Callable[[], None] = lambda: None,
) -> Rounds:
    """Measure all in each round, to and fro, so that a machine whose speed drifts does so for all.

    Args:
        contenders: who.
        rounds: how often, after all have been warmed up.
        seconds: how long each takes in each round, about.
        tick: called after each round.
    """
    totals = {}
    for contender in contenders:
        at_once = contender.concurrency
        calls = max(at_once, 30)
        guess = await cost(contender.call, calls, at_once)
        while calls < _WARM and calls * guess / 1e6 < seconds / 2:
            calls *= 4
            guess = await cost(contender.call, calls, at_once)
        totals[contender.name] = max(int(seconds / guess * 1e6), at_once)
    gc.collect()
    gc.freeze()  # what was made before does not count
    measured: Rounds = {contender.name: [] for contender in contenders}
    for number in range(rounds):
        for contender in contenders if number % 2 else reversed(contenders):
            total = totals[contender.name]
            value = await contender.measure(contender.call, total, contender.concurrency)
            measured[contender.name].append(value)
        tick()
    gc.unfreeze()
    return measured


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Of each round."""
    return [a / b for a, b in zip(above, below, strict=True)]
