"""RESULTS.md: the tables, and what they rest on."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from .client import tool
from .effort import Effort
from .figure import Figure, Keeping, Side

PACKAGES = (
    "asgi-login-sessions",
    "starlette",
    "databases",
    "SQLAlchemy",
    "aiosqlite",
    "asyncpg",
    "aiomysql",
    "asyncmy",
    "itsdangerous",
    "uvicorn",
    "httptools",
    "starsessions",
    "redis",
    "litestar",
    "advanced-alchemy",
    "fastapi",
    "fastapi-users",
    "fastapi-users-db-sqlalchemy",
    "Django",
    "psycopg",
)

METHOD = """\
Every number is a median of rounds in which all contenders of its line are measured in turn, to
and fro, so that a machine whose speed drifts does so for all of them. The ratio is the median of
the rounds' own ratios, so it may differ a little from that of the two numbers beside it. Requests
are ASGI calls in process, with the headers of a browser, on asyncio's own event loop; the cost of
one is the time until all are answered, divided by their number, with what it takes to make the
request. Handlers do nothing but read the person's id. *Cookie request*: the same app under
Starlette's `SessionMiddleware`, with a valid cookie that the handler reads. Options are the
defaults, but for what a line says: every session was last seen at a random moment of the last
minute, so that touches fall due as they do in use. Pools have 5 connections. Every contender is
checked to find the right person before it is measured. The load runs in the process that it
measures, except for *j* and *k*. PostgreSQL is told what is in a table (ANALYZE) before it is
measured, except for *l*, where each database is told of one table and of the other not. The
requests of *n* run until the end is over, and undisturbed for the seconds of a round before it and
after it. For *k* each worker has a socket of its own and half of the connections, because of one
that they share a worker takes as many as luck has it, up to all; and the listening sockets have
TCP_NODELAY, which the workers of uvicorn do not set: without it answers wait 40 ms for the client's
system to acknowledge their first half, whoever made them. The sessions of *r* to *u* have data of
one key; *r* is measured against `/me` of an app without data, *s* against the app alone that waits
for one UPDATE of the same row through the driver's pool, which looks no session up."""


_SIDE_BY_SIDE = """\
Costs at 64 at once unless it says otherwise. *session's share*: without what the same framework
costs when nobody asks for a session."""


_KEEPING = """\
A request that reads one key of the session's data, and one that writes another value to one. Ours
with `data=True`; the look-up of the session is a part of each."""


def machine() -> list[str]:
    """Cores, CPU, memory and system."""
    model = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text().splitlines()
        model = next((x.partition(": ")[2] for x in lines if x.startswith("model name")), model)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return [
        f"{os.cpu_count()} cores, {model}, {memory:.0f} GiB, {system}",
        "the databases run on the same machine",
        f"CPython {platform.python_version()}, asyncio's event loop, {tool()} for *k*",
    ]


def versions(servers: Sequence[tuple[str, str]]) -> str:
    """Of the servers and of the packages."""
    found = [f"{name} {number}" for name, number in servers]
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def number(value: float | None, unit: str = "") -> str:
    """With three digits, or all that stand before the point."""
    if value is None:
        return ""
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    text = f"{value:,.{digits}f}"
    return f"{text} {unit}".strip()


def figures_table(figures: Sequence[Figure]) -> list[str]:
    """One line for each figure."""
    lines = [
        "| | ratio | target | reached | ours | against | figure | rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in figures:
        bound = ""
        if one.bound is not None:
            bound = f"{'≥' if one.at_least else '≤'} {number(one.bound, one.sign)}"
        spread = f"{number(min(one.values))} – {number(max(one.values))}"
        cells = [
            one.letter,
            f"**{number(one.value, one.sign)}**",
            bound,
            {None: "", True: "yes", False: "**no**"}[one.reached],
            number(one.ours, one.unit),
            number(one.against, one.unit),
            one.what,
            spread if len(one.values) > 1 else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_HEADS = (
    *("request", "login", "logout", "request, 1 at a time", "64 at once", "session's share"),
    *("p50", "p99", "login", "logout", "kept in"),
)


def peers_table(sides: Sequence[Side]) -> list[str]:
    """One line for each side; costs as multiples of ours on PostgreSQL, or what is there."""
    measure = next((x for x in sides if x.name == "ours, PostgreSQL"), sides[0])
    lines = [
        f"| {' | '.join((f'× *{measure.name}*', *_HEADS))} |",
        "|---" * (len(_HEADS) + 1) + "|",
    ]
    for one in sides:
        times = [
            f"{number(a / b)} ×"
            for a, b in (
                (one.many, measure.many),
                (one.login, measure.login),
                (one.logout, measure.logout),
            )
        ]
        costs = [one.one, one.many, one.many - one.framework, one.p50, one.p99]
        costs += [one.login, one.logout]
        name = f"**{one.name}**" if one.ours else one.name
        cells = [name, *times, *(f"{number(cost)} µs" for cost in costs), one.store]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


_OF_DATA = ("1 at a time", "64 at once", "p99 of these")


def data_table(keeping: Sequence[Keeping]) -> list[str]:
    """One line for each side; costs as multiples of ours on PostgreSQL, or what is there."""
    measure = next((x for x in keeping if x.name == "ours, PostgreSQL"), keeping[0])
    heads = [f"× *{measure.name}*"]
    heads += [f"{what}, {how}" for what in ("read", "write") for how in _OF_DATA]
    heads += [*(f"{what}, {how}" for what in ("read", "write") for how in _OF_DATA), "kept in"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for one in keeping:
        costs = [*one.read, *one.write]
        times = [a / b for a, b in zip(costs, (*measure.read, *measure.write), strict=True)]
        cells = [
            f"**{one.name}**" if one.ours else one.name,
            *(f"{number(value)} ×" for value in times),
            *(f"{number(cost)} µs" for cost in costs),
            one.store,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def results(
    effort: Effort,
    figures: Sequence[Figure],
    sides: Sequence[Side],
    keeping: Sequence[Keeping] = (),
    *,
    servers: Sequence[tuple[str, str]],
    plots: Sequence[tuple[str, str]],
    skipped: Sequence[str],
) -> str:
    """The whole page.

    Args:
        effort: how much was measured.
        figures: the lines of the first table.
        sides: those of the second.
        keeping: those of the third.
        servers: their names and versions.
        plots: titles and file names.
        skipped: what was not there to be measured.
    """
    rest = " ".join(sys.argv[1:])
    command = f"make bench ARGS={rest!r}" if rest else "make bench"
    parts = ["# Results", f"`{command}`, written by it. {_amount(effort)}"]
    if skipped:
        parts.append(f"Not measured: {'; '.join(skipped)}.")
    if figures:
        parts += ["## Figures", "\n".join(figures_table(figures))]
    if sides:
        parts += [
            "## Side by side",
            _SIDE_BY_SIDE,
            "\n".join(peers_table(sides)),
            "### Who does more, who does less",
            "\n".join(f"- **{name}**: {remark}" for name, remark in _remarks(sides)),
        ]
    if keeping:
        parts += ["## Session data, side by side", _KEEPING, "\n".join(data_table(keeping))]
    if plots:
        parts += ["## Plots", *(f"![{title}]({file})" for title, file in plots)]
    parts += ["## How it was measured", METHOD, "\n".join(f"- {line}" for line in machine())]
    parts.append(f"Versions: {versions(servers)}.")
    return "\n\n".join(parts) + "\n"


def _remarks(sides: Sequence[Side]) -> list[tuple[str, str]]:
    mine = next((("ours", one.remark) for one in sides if one.ours), None)
    others = [(f"{one.name} ({one.store})", one.remark) for one in sides if not one.ours]
    return ([mine] if mine else []) + others


def _amount(effort: Effort) -> str:
    rows = ", ".join(f"{rows:,}" for rows in effort.growth)
    return (
        f"The {effort.name} form: {effort.rounds} rounds of {effort.seconds} s for each,"
        f" {effort.sessions:,} sessions in the table, drawn at random ({effort.peer_sessions:,}"
        f" at each peer); tables of {rows} rows for *h*, one row of {effort.dead} ended long ago"
        f" for *i*; {effort.requests:,} requests for *j*; {effort.socket_seconds} s for each round"
        f" of *k*; {effort.many:,} rows for *l*, and of one person for *m* and *n*;"
        f" {effort.visitors:,} visitors for *u*."
    )
