"""Replicated databases: nodes die, stand still and come back under load, and nobody is the worse
for it. The short form; ``python -m tests.cluster.hold`` goes on for as long as it is told.
"""

from __future__ import annotations

import pytest

from tests.cluster.galera import GaleraCluster
from tests.cluster.hold import (
    hold_galera,
    hold_postgres,
    kill_a_node,
    kill_the_primary,
    pause_a_node,
    pause_the_replica,
)
from tests.cluster.load import Load
from tests.cluster.postgres import PostgresPair

pytestmark = pytest.mark.servers


def expect_nothing_wrong(load: Load, capsys: pytest.CaptureFixture[str]) -> None:
    """No session lost, none revived, nobody logged out by mistake; and something was done."""
    with capsys.disabled():
        print("\n" + "\n".join(load.report.lines(load.model)))  # noqa: T201 -- figures
    assert load.model.faults == [], load.log
    assert not load.model.lost
    assert not load.model.revived
    assert load.model.false_logouts == 0
    assert load.report.requests["login"]
    assert load.report.requests["logout"]


async def test_a_galera_cluster_loses_no_session(
    galera: GaleraCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    async def strikes(load: Load) -> None:
        await kill_a_node(galera, load, 0)  # the one that HAProxy prefers
        await pause_a_node(galera, load, 1)

    load = await hold_galera(galera, strikes, seed=1)
    expect_nothing_wrong(load, capsys)
    assert load.report.struck.total() == 2


async def test_a_promoted_replica_has_every_session(
    pair: PostgresPair, capsys: pytest.CaptureFixture[str]
) -> None:
    async def strikes(load: Load) -> None:
        await kill_the_primary(pair, load)
        await pause_the_replica(pair, load)

    load = await hold_postgres(pair, strikes, seed=1)
    expect_nothing_wrong(load, capsys)
    assert load.report.struck["replicas promoted"] == 1
