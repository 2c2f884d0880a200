"""Other people's libraries, which some tests are made with: the group "libraries"."""

from __future__ import annotations

import os
from importlib import import_module

import pytest


def need(module: str) -> None:
    """Skip the tests of a file where their library is missing. With TEST_SERVERS=1 they fail: a CI
    that skips them has not been told to install it.
    """
    if os.environ.get("TEST_SERVERS") == "1":
        import_module(module)
    else:
        pytest.importorskip(module)
