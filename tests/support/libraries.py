"""Other people's libraries, which some tests are made with."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest


def need(module: str, *, apart: bool = False) -> None:
    """Skip the tests of a file where their library is missing. Where it has to be there they fail:
    with TEST_SERVERS=1 those of the group "libraries", and with TEST_APART=1 those of the group
    "libraries-apart".
    """
    if find_spec(module) is not None:
        return
    if os.environ.get("TEST_APART" if apart else "TEST_SERVERS") == "1":
        pytest.fail(f"{module} is not installed", pytrace=False)
    pytest.skip(f"{module} is not installed", allow_module_level=True)
