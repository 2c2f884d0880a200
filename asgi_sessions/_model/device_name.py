"""What people call a device, told from its User-Agent: "Chrome on Windows"."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

try:  # the extra "devices"
    _parse: Callable[[str], Any] | None = import_module("ua_parser").parse
except ImportError:
    _parse = None

#: Characters of a User-Agent that stand for a name: a line on a phone.
_SHORT = 40
_NUMBERS = re.compile(r"\d+")

# Without the extra: what a User-Agent holds, and whose it is; the first that is found counts,
# because each browser names those that it wants to be taken for.
_BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "SamsungBrowser/": "Samsung Internet"}
_BROWSERS |= {"Firefox/": "Firefox", "FxiOS/": "Firefox", "CriOS/": "Chrome"}
_BROWSERS |= {"Chrome/": "Chrome", "Safari/": "Safari"}
_SYSTEMS = {"iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows"}
_SYSTEMS |= {"Mac OS X": "macOS", "CrOS": "ChromeOS", "Linux": "Linux"}

# With it: what the library says in more words than people do.
_WORDS = ("Mobile", "iOS", "WebView", "UI/WKWebView")
_CALLED = {"Mac OS X": "macOS", "Chrome OS": "ChromeOS"}


def device_name(
    user_agent: str | None,
    *,
    both: str = "{browser} on {system}",
    none: str = "Unknown device",
) -> str:
    """Such as "Firefox on Linux"; else what the client calls itself, cut to 40 characters.

    Browser and system are read by ua-parser where the extra ``devices`` is installed, else by a
    short list of the common ones. Foreign text either way: escape it in HTML.

    Args:
        user_agent: what the client calls itself.
        both: how browser and system are named together.
        none: the name of a client that calls itself nothing.
    """
    if not user_agent:
        return none
    browser, system = _read(user_agent)
    if browser and system:
        return both.format(browser=browser, system=system)
    return user_agent if len(user_agent) <= _SHORT else f"{user_agent[:_SHORT]}…"


def family(user_agent: str | None) -> tuple[str | None, str | None]:
    """What stays when a client is updated: browser and system, without their versions. Of a client
    that nobody knows it is its User-Agent without the numbers.
    """
    if not user_agent:
        return None, None
    browser, system = _read(user_agent)
    return (browser, system) if browser and system else (_NUMBERS.sub("", user_agent), None)


@lru_cache(maxsize=1024)
def _read(user_agent: str) -> tuple[str | None, str | None]:
    """Browser and system."""
    return _by_list(user_agent) if _parse is None else _told(_parse(user_agent))


def _told(read: Any) -> tuple[str | None, str | None]:  # noqa: ANN401 -- a type of the library
    browser = read.user_agent and " ".join(
        word for word in read.user_agent.family.split() if word not in _WORDS
    )
    system = read.os and _CALLED.get(read.os.family, read.os.family)
    if read.device and read.device.family in ("iPhone", "iPad"):
        system = read.device.family
    return browser, system


def _by_list(user_agent: str) -> tuple[str | None, str | None]:
    return _first(_BROWSERS, user_agent), _first(_SYSTEMS, user_agent)


def _first(names: dict[str, str], user_agent: str) -> str | None:
    return next((name for mark, name in names.items() if mark in user_agent), None)
