"""The databases that all tests of this directory share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.cluster.galera import GaleraCluster
from tests.cluster.postgres import PostgresPair


@pytest.fixture(scope="package")
def galera() -> Iterator[GaleraCluster]:
    """One for all tests: whoever hurts it makes it whole again."""
    cluster = GaleraCluster()
    asyncio.run(cluster.__aenter__())
    yield cluster
    cluster.destroy()


@pytest.fixture(scope="package")
def pair() -> Iterator[PostgresPair]:
    """As above: a primary, and its replica in step."""
    pair = PostgresPair()
    asyncio.run(pair.__aenter__())
    yield pair
    pair.destroy()
