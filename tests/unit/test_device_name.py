"""What a device is called, with the library for it and without.

The function is private. `Session` has what it gives.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from runpy import run_path
from typing import Literal

import pytest

from asgi_sessions._model import device_name as _device_name_module
from asgi_sessions._model.device_name import device_name

CHROME = "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0"
SAFARI = "AppleWebKit/605.1.15 (KHTML, like Gecko)"
MAC = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7)"
IPHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X)"
IPAD = "Mozilla/5.0 (iPad; CPU OS 18_1 like Mac OS X)"
WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"
ANDROID = "Mozilla/5.0 (Linux; Android 10; K)"


@pytest.fixture(params=["ua-parser", "no library"])
def names_by(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Literal["ua-parser", "no library"]]:
    """By each of the two ways."""
    assert _device_name_module._parse is not None  # the tests' group installs it
    if request.param == "no library":
        monkeypatch.setattr(_device_name_module, "_parse", None)
    _device_name_module._read.cache_clear()
    yield request.param
    _device_name_module._read.cache_clear()


@pytest.mark.usefixtures("names_by")
@pytest.mark.parametrize(
    ("agent", "name"),
    [
        (f"{WINDOWS} {CHROME} Safari/537.36", "Chrome on Windows"),
        (f"{WINDOWS} {CHROME} Safari/537.36 Edg/142.0.0.0", "Edge on Windows"),
        (f"{WINDOWS} {CHROME} Safari/537.36 OPR/126.0.0.0", "Opera on Windows"),
        (f"{ANDROID} {CHROME} Mobile Safari/537.36", "Chrome on Android"),
        (
            f"{ANDROID} AppleWebKit/537.36 SamsungBrowser/27.0 Chrome/125.0 Mobile Safari/537.36",
            "Samsung Internet on Android",
        ),
        (f"{IPHONE} {SAFARI} Version/18.1 Mobile/15E148 Safari/604.1", "Safari on iPhone"),
        (f"{IPHONE} {SAFARI} FxiOS/133.0 Mobile/15E148 Safari/605.1.15", "Firefox on iPhone"),
        (f"{IPAD} {SAFARI} CriOS/142.0 Mobile/15E148 Safari/604.1", "Chrome on iPad"),
        (f"{MAC} {SAFARI} Version/18.1 Safari/605.1.15", "Safari on macOS"),
        (f"{MAC} {CHROME} Safari/537.36", "Chrome on macOS"),
        (
            "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
            "Firefox on Linux",
        ),
        (f"Mozilla/5.0 (X11; CrOS x86_64 14541.0.0) {CHROME} Safari/537.36", "Chrome on ChromeOS"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("my phone", "my phone"),
        ("x" * 40, "x" * 40),
        ("x" * 41, "x" * 40 + "…"),
        ("", "Unknown device"),
        (None, "Unknown device"),
    ],
)
def test_a_device_is_called_as_people_call_it(agent: str | None, name: str) -> None:
    assert device_name(agent) == name


def test_the_library_knows_more_than_the_list(names_by: str) -> None:
    agent = f"{WINDOWS} {CHROME} Safari/537.36 Vivaldi/7.0"
    by_library = names_by == "ua-parser"
    assert (device_name(agent) == "Vivaldi on Windows") is by_library


def test_the_library_need_not_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ua_parser", None)
    alone = run_path(str(_device_name_module.__file__))
    assert alone["_parse"] is None
    assert alone["device_name"](f"{MAC} {SAFARI} Version/18.1 Safari/605.1.15") == "Safari on macOS"
