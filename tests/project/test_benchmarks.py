"""The benchmarks run: each piece once, with next to nothing to measure. No time is judged."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from benchmarks import (
    apps,
    figures_cost,
    figures_data,
    figures_growth,
    figures_load,
    figures_person,
)
from benchmarks.effort import Effort
from benchmarks.figure import Figure, Keeping, Side, ratio
from benchmarks.lab import Lab, check
from benchmarks.load import Contender, Spread, ask, contest, log_in, requests
from benchmarks.places import Place, places
from benchmarks.report import results

EFFORT = Effort(
    name="tiny",
    rounds=2,
    seconds=0.001,
    sessions=60,
    levels=(1, 64),
    peer_sessions=1,
    growth=(200, 400),
    dead=10,
    many=200,
    requests=10,
    socket_seconds=1,
    visitors=200,
)

Measure = Callable[[Lab, Place], Awaitable[list[Figure]]]


@pytest.fixture(autouse=True)
def frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    """What pytest has imported is left alone by gc.collect (tests/conftest.py). Each contest would
    take that back at its end.
    """
    monkeypatch.setattr(gc, "unfreeze", lambda: None)


@pytest.fixture
async def lab(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Lab]:
    with places([], tmp_path) as found:
        made = Lab(EFFORT, found, None, tmp_path)
        await made.prepare()
        yield made


async def test_every_figure_in_process_is_measured_and_told(lab: Lab) -> None:
    figures = await figures_cost.without_session(lab)
    each: list[Measure] = [
        figures_cost.one_at_a_time,
        figures_cost.many_at_a_time,
        figures_load.tail,
        figures_load.starts,
        figures_load.flushes,
        figures_load.touches,
        figures_growth.growth,
        figures_growth.from_empty,
        figures_person.one_person,
        figures_load.locked,
        figures_cost.engines,
        figures_data.reads,
        figures_data.writes,
        figures_data.visitors,
    ]
    for measure in each:
        figures += await measure(lab, lab.places[0])
    assert [*dict.fromkeys(figure.letter for figure in figures)] == [*"abcdefghilmnoqrsu"]
    # What is counted, not timed, holds on any machine.
    counted = [figure for figure in figures if figure.sign == "statements"]
    assert len(counted) == 3
    assert all(figure.reached for figure in counted)
    page = results(EFFORT, figures, [], servers=[("SQLite", "3")], plots=[], skipped=["Redis"])
    for figure in figures:
        assert figure.what in page


async def test_what_is_measured_is_the_same_work(lab: Lab) -> None:
    async with lab.opened(lab.places[0]) as (_, ours):
        for app in (ours, apps.cookie()):
            cookie = await log_in(app, "somebody")
            await check(app, cookie, "somebody")
            nobody = await ask(app, "/me")
            assert nobody.status == 401
            out = await ask(app, "/logout", cookie, method="POST")
            assert out.status == 200
            assert out.cookie is not None
        # A signed cookie knows of no logout; a row does.
        assert (await ask(ours, "/me", lab.sample.cookies[0])).status == 200
        await ask(ours, "/logout", lab.sample.cookies[0], method="POST")
        assert (await ask(ours, "/me", lab.sample.cookies[0])).status == 401


async def test_a_contest_measures_every_contender_in_every_round() -> None:
    spread = Spread()
    call = requests(apps.bare(), "/me", [None])
    rounds = await contest(
        [Contender("a", call), Contender("b", call, 64, spread)], rounds=3, seconds=0.001
    )
    assert {name: len(values) for name, values in rounds.items()} == {"a": 3, "b": 3}
    assert len(spread.p50) == len(spread.p99) == 3
    assert all(low <= high for low, high in zip(spread.p50, spread.p99, strict=True))


def test_a_ratio_is_the_median_of_the_rounds_own() -> None:
    # The machine was ten times as slow in the second round, for both.
    rounds = {"ours": [2.0, 20.0, 2.0], "theirs": [1.0, 10.0, 4.0]}
    figure = ratio("d", "resume", rounds, ("ours", "theirs"), bound=1.5)
    assert figure.value == 2.0
    assert figure.reached is False
    assert ratio("d", "resume", rounds, ("ours", "theirs")).reached is None
    assert ratio("d", "resume", rounds, ("theirs", "ours"), bound=0.5).reached is True


def test_the_page_tells_who_was_measured_and_what_was_not() -> None:
    side = Side(
        name="ours, SQLite",
        store="SQLite",
        ours=True,
        one=300,
        many=40,
        framework=11,
        p50=2000,
        p99=4000,
        login=100,
        logout=200,
        remark="Looks at the row.",
    )
    page = results(EFFORT, [], [side], servers=[], plots=[("Cost", "a.svg")], skipped=["Redis"])
    assert "| **ours, SQLite** | 1 × | 1 × | 1 × | 300 µs | 40 µs | 29 µs |" in page
    assert "Not measured: Redis." in page
    assert "![Cost](a.svg)" in page
    assert "Looks at the row." in page


def test_the_page_tells_what_data_cost_as_multiples_of_ours() -> None:
    ours = Keeping(
        name="ours, PostgreSQL",
        store="PostgreSQL",
        ours=True,
        read=(200, 50, 4000),
        write=(500, 100, 8000),
    )
    other = Keeping(
        name="starsessions",
        store="Redis",
        ours=False,
        read=(300, 200, 16000),
        write=(500, 250, 16000),
    )
    page = results(EFFORT, [], [], [other, ours], servers=[], plots=[], skipped=[])
    assert "| starsessions | 1.50 × | 4 × | 4 × | 1 × | 2.50 × | 2 × | 300 µs |" in page
    assert "| **ours, PostgreSQL** | 1 × |" in page
