"""Tests that start servers of their own run with TEST_SERVERS=1 alone: they need Debian's packages
postgresql, mariadb-server, galera-4, rsync, haproxy and pgbouncer, and a minute.
"""

from __future__ import annotations

import os

import pytest

MARKER = "servers: starts database servers of its own; runs with TEST_SERVERS=1"


def pytest_configure(config: pytest.Config) -> None:
    """The mark is known, wherever it is used."""
    config.addinivalue_line("markers", MARKER)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect them, unless they are asked for."""
    if os.environ.get("TEST_SERVERS") == "1":
        return
    servers = [item for item in items if item.get_closest_marker("servers")]
    if servers:
        config.hook.pytest_deselected(items=servers)
        items[:] = [item for item in items if item not in servers]
