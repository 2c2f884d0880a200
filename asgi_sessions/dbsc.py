"""Device Bound Session Credentials: a stolen cookie is worth nothing.

The browser holds a key that cannot leave its device, and proves it every few minutes. Needs
``asgi-login-sessions[dbsc]``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from ._connection.binding import Binding, DeviceBinding
from ._errors import ConfigurationError
from ._service.core import Core

try:
    from ._dbsc.binding import DeviceBound
except ModuleNotFoundError as _fault:  # of the libraries that the extra brings
    raise ImportError(
        f"asgi_sessions.dbsc needs {_fault.name}: install asgi-login-sessions[dbsc]",
        name=_fault.name,
    ) from _fault

__all__ = ["DBSC", "SkipReason"]

#: Why a browser has not renewed its proof, by its own account (W3C webappsec-dbsc,
#: Secure-Session-Skipped).
SkipReason = Literal["unreachable", "server_error", "quota_exceeded"]

_PATH = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_SHORTEST, _LONGEST = timedelta(seconds=4), timedelta(days=1)


@dataclass(frozen=True, kw_only=True)
class DBSC(DeviceBinding):
    """Binds sessions to devices: ``Sessions(..., dbsc=DBSC())``.

    A browser that can, binds the session at login; one that cannot, goes on as before. A bound
    session needs a second, short-lived cookie, which a browser gets for a proof by its key.

    Args:
        cookie_lifetime: how long a proof is good, and so a stolen pair of cookies. 4 s to 1 day;
            Chromium refreshes twice in five minutes at most, so 5 minutes and more in production.
        path: the middleware answers ``PATH/register`` and ``PATH/refresh`` itself.
        on_skipped: ``refuse`` whoever does not prove their device, or let them in for some of
            the reasons that a browser may name: a set of ``unreachable``, ``server_error`` and
            ``quota_exceeded``. Whoever has stolen the cookie may name them, too.

    Raises:
        ConfigurationError: for options that cannot work, all errors in one message.
    """

    cookie_lifetime: timedelta = timedelta(minutes=10)
    path: str = "/.session/dbsc"
    on_skipped: Literal["refuse"] | Collection[SkipReason] = "refuse"

    def __post_init__(self) -> None:
        if errors := list(self._errors()):
            raise ConfigurationError("; ".join(errors))

    def _errors(self) -> Iterator[str]:
        if not _lasts(self.cookie_lifetime):
            yield (
                f"cookie_lifetime={self.cookie_lifetime!r}: use a datetime.timedelta of 4 seconds "
                "to 1 day"
            )
        if not _is_path(self.path):
            yield (
                f"path={self.path!r}: use one like '/.session/dbsc', of letters, digits, ., _, ~ "
                "and -, without a slash at its end"
            )
        if not _is_policy(self.on_skipped):
            yield (
                f"on_skipped={self.on_skipped!r}: use 'refuse', or a set of some of "
                f"{', '.join(map(repr, get_args(SkipReason)))}"
            )

    def _unfit(self, options: Mapping[str, Any]) -> list[str]:
        """For `Sessions`: what speaks against it in the other options."""
        return [
            f"dbsc needs cookie_{name}={needed!r}: {why}"
            for name, needed, why in (
                ("secure", True, "browsers bind sessions over https alone"),
                ("domain", None, "browsers would not refresh for other hosts"),
                ("path", "/", "the cookie has to reach the routes of dbsc, too"),
                ("partitioned", False, "browsers bind no partitioned cookies"),
            )
            if options[f"cookie_{name}"] != needed
        ]

    def _attach(self, core: Core) -> Binding:
        """For `Sessions`: the binding that the middleware asks."""
        skips = () if isinstance(self.on_skipped, str) else self.on_skipped
        return DeviceBound(core, self.path, self.cookie_lifetime, skips)


def _lasts(value: object) -> bool:
    return isinstance(value, timedelta) and _SHORTEST <= value <= _LONGEST


def _is_path(value: object) -> bool:
    return isinstance(value, str) and _PATH.fullmatch(value) is not None


def _is_policy(value: object) -> bool:
    if isinstance(value, str):
        return value == "refuse"
    known = get_args(SkipReason)
    return isinstance(value, Collection) and all(reason in known for reason in value)
