"""As in `tests/servers`: the mark `servers`, and its tests with TEST_SERVERS=1 alone."""

from __future__ import annotations

from tests.servers.conftest import pytest_collection_modifyitems, pytest_configure

__all__ = ["pytest_collection_modifyitems", "pytest_configure"]
