"""``python -m benchmarks``: measure, and write RESULTS.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from redis.asyncio import Redis
from rich.console import Console

from . import (
    figures_bearer,
    figures_cost,
    figures_data,
    figures_growth,
    figures_load,
    figures_peers,
    figures_person,
    figures_process,
)
from .bar import RichBar
from .effort import FULL, QUICK, Effort
from .figure import Figure, Keeping, Side
from .lab import Lab
from .places import places, version
from .plots import draw
from .report import results

HERE = Path(__file__).resolve().parent
_KINDS = ("sqlite", "postgresql", "mysql")
Part = Callable[[], Awaitable[list[Figure]]]


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="make bench",
        description="Measure. SQLite always; the servers that TEST_DATABASE_URLS names, as for the"
        " tests, in a database of their own that is dropped afterwards; Redis where TEST_REDIS_URL"
        " is.",
    )
    parser.add_argument("--quick", action="store_true", help="in less than two minutes")
    parser.add_argument(
        "--only", default="", help="letters of figures, and p and t for the peers: cdp"
    )
    parser.add_argument("--rows", type=int, help="of the largest table")
    parser.add_argument(
        "--large",
        type=_kinds,
        default=",".join(_KINDS),
        help="the kinds of database that get the largest tables; to fill MariaDB's takes long",
    )
    parser.add_argument("--sessions", type=int, help="in the other tables, each with its cookie")
    parser.add_argument("--output", type=Path, help="a directory for what is written")
    return parser.parse_args()


def _kinds(text: str) -> list[str]:
    """Kinds of database with a comma between them."""
    kinds = text.split(",")
    if not set(kinds) <= set(_KINDS):
        raise argparse.ArgumentTypeError(f"{text!r}: use some of {','.join(_KINDS)}")
    return kinds


def chosen(options: argparse.Namespace) -> Effort:
    """How much to measure."""
    effort = QUICK if options.quick else FULL
    if options.rows is not None:
        fewer = (rows for rows in effort.growth if rows < options.rows)
        effort = replace(effort, growth=(*fewer, options.rows))
    if options.sessions is not None:
        effort = replace(effort, sessions=options.sessions)
    return effort


def parts(lab: Lab, kinds_with_large: Collection[str]) -> list[tuple[str, str, Part]]:
    """Letters, what it says while it runs, and what to run."""
    every = lab.places
    kinds = {place.kind: place for place in reversed(every)}
    one_of_each = [place for place in every if kinds[place.kind] is place]
    but_mariadb = [place for place in one_of_each if place.kind != "mysql"]
    quick = lab.effort.name == "quick"
    some = but_mariadb if quick else one_of_each
    large = [place for place in some if place.kind in kinds_with_large]
    at_each = [
        ("c", figures_cost.one_at_a_time, every),
        ("d", figures_cost.many_at_a_time, every),
        ("e", figures_load.tail, every),
        ("f", figures_load.starts, every),
        ("g", figures_load.flushes, but_mariadb),
        ("g", figures_load.touches, one_of_each),
        ("hi", figures_growth.growth, large),
        ("j", figures_process.memory, every[:1]),
        ("k", figures_process.over_sockets, every[:1] if quick else one_of_each),
        ("l", figures_growth.from_empty, some),
        ("mn", figures_person.one_person, some),
        ("o", figures_load.locked, some),
        ("q", figures_cost.engines, every),
        ("v", figures_bearer.resumes, some),
        ("r", figures_data.reads, some),
        ("s", figures_data.writes, some),
        ("u", figures_data.visitors, but_mariadb if lab.effort.visitors else []),
        ("q", figures_cost.psycopg, [place for place in every if place.kind == "postgresql"]),
    ]
    return [
        ("ab", "a, b", partial(figures_cost.without_session, lab)),
        *(
            (letters, f"{letters}, {place.name}", partial(measure, lab, place))
            for letters, measure, where in at_each
            for place in where
        ),
    ]


async def measure(
    lab: Lab, todo: list[tuple[str, str, Part]], bar: RichBar, *, peers: str
) -> tuple[list[Figure], list[Side], list[Keeping]]:
    """Run the parts, and the peers."""
    figures: list[Figure] = []
    sides: list[Side] = []
    keeping: list[Keeping] = []
    with bar.part("sessions to draw from"):
        await lab.prepare()
    for _, what, run in todo:
        with bar.part(what):
            figures += await run()
    if peers:
        with bar.part("side by side"):
            sides, keeping = await figures_peers.side_by_side(lab, peers)
    return figures, sides, keeping


async def servers(lab: Lab) -> list[tuple[str, str]]:
    """Names and versions."""
    found = {place.name.partition(" ")[0]: version(place) for place in lab.places}
    if lab.redis:
        async with Redis.from_url(lab.redis) as redis:
            found["Redis"] = (await redis.info("server"))["redis_version"]
    return list(found.items())


async def run(options: argparse.Namespace, directory: Path) -> None:
    """Measure, and write."""
    effort = chosen(options)
    out = HERE / "out"
    output: Path = options.output or (HERE if effort == FULL and not options.only else out)
    for directory_made in (out, output):
        directory_made.mkdir(parents=True, exist_ok=True)
    urls = os.environ.get("TEST_DATABASE_URLS", "").split()
    redis = os.environ.get("TEST_REDIS_URL")
    only = set(options.only)
    with places(urls, directory) as found:
        lab = Lab(effort, found, redis, directory)
        every = parts(lab, options.large)
        todo = [part for part in every if not only or only & set(part[0])]
        peers = "".join(letter for letter in "pt" if not only or letter in only)
        with RichBar(1 + len(todo) + bool(peers)) as bar:
            lab.bar = bar
            figures, sides, keeping = await measure(lab, todo, bar, peers=peers)
        plots = draw(lab.series, sides, output)
        page = results(
            effort,
            figures,
            sides,
            keeping,
            servers=await servers(lab),
            plots=plots,
            skipped=skipped(lab, options.large),
        )
    (output / "RESULTS.md").write_text(page)
    raw = {
        "figures": [asdict(x) for x in figures],
        "sides": [asdict(x) for x in sides],
        "keeping": [asdict(x) for x in keeping],
    }
    (out / "results.json").write_text(json.dumps({**raw, "series": lab.series}, indent=1))
    Console().print(page, markup=False, highlight=False, soft_wrap=True)


def skipped(lab: Lab, kinds_with_large: Collection[str]) -> list[str]:
    """What was not there, or not asked for."""
    there = {place.kind for place in lab.places}
    missing = [
        f"{name} (TEST_DATABASE_URLS names none)"
        for name, kind in (("PostgreSQL", "postgresql"), ("MariaDB", "mysql"))
        if kind not in there
    ]
    missing += [
        f"*h* and *i* on {place.name} (--large)"
        for place in lab.places
        if place.kind not in kinds_with_large and not place.driver
    ]
    return missing + ([] if lab.redis else ["Redis (TEST_REDIS_URL is not set)"])


def main() -> None:
    """Run it all."""
    options = arguments()
    logging.disable(logging.WARNING)  # a login is logged, too
    with TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as directory:
        asyncio.run(run(options, Path(directory)))


if __name__ == "__main__":
    main()
