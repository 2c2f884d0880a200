"""The options of `Sessions`, checked once; all faults come in one message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeVar

from ._changeset import checked
from ._cookies import CookieSettings
from ._device import StoreIP
from ._errors import ConfigurationError, InvalidSession
from ._lifetimes import LONGEST, Lifetimes
from ._tokens import Keys

OnUnavailable = Literal["error", "anonymous"]
AutoStart = bool | Callable[[Mapping[str, Any]], bool]
Clock = Callable[[], datetime]
Made = TypeVar("Made")

# PostgreSQL cuts names at 63 bytes, and indexes are named after the table.
_TABLE_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,45}")


def system_clock() -> datetime:
    """The time now, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 -- this is the clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What `Sessions` was told, as it will be used."""

    keys: Keys
    cookie: CookieSettings
    app_id: str
    lifetimes: Lifetimes
    auto_start: AutoStart
    store_ip: StoreIP
    touch_interval: timedelta
    max_sessions_per_person: int | None
    keep_ended: timedelta
    on_unavailable: OnUnavailable
    table_name: str
    clock: Clock
    socket_check_interval: timedelta
    end_streams: bool
    notify: bool
    timeout: timedelta

    def now(self) -> datetime:
        """The clock's time in UTC.

        Raises:
            ConfigurationError: if the clock gives a time without a zone.
        """
        now = self.clock()
        if now.tzinfo is UTC:
            return now
        if now.tzinfo is None:
            raise ConfigurationError(
                "clock must return an aware datetime: use datetime.now(timezone.utc)"
            )
        return now.astimezone(UTC)


def settings(given: Mapping[str, Any], *more: Callable[[], object]) -> Settings:
    """Check the options of `Sessions`.

    Args:
        given: the options by name.
        more: what else raises `ConfigurationError` for options that cannot work.

    Raises:
        ConfigurationError: with every fault and its mend.
    """
    faults = [
        f"{name}={given[name]!r}: {mend}"
        for name, (right, mend) in _CHECKS.items()
        if not right(given[name])
    ]

    def attempt(make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except (ConfigurationError, InvalidSession) as fault:
            faults.append(str(fault))
            return None

    app_id = attempt(lambda: _app_id(given["app_id"]))
    keys = attempt(
        lambda: Keys(given["secret_key"], given["old_secret_keys"], purpose=app_id or "")
    )
    cookie = attempt(
        lambda: CookieSettings(
            **{field.name: given[f"cookie_{field.name}"] for field in fields(CookieSettings)}
        )
    )
    attempt(lambda: _touch_often(given["touch_interval"], given["lifetimes"]))
    for make in more:
        attempt(make)
    if faults or app_id is None or keys is None or cookie is None:
        raise ConfigurationError("; ".join(faults))
    return Settings(
        app_id=app_id, keys=keys, cookie=cookie, **{name: given[name] for name in _CHECKS}
    )


def _app_id(value: object) -> str:
    app_id: str = checked(app_id="" if value is None else value)["app_id"]
    return app_id


def _touch_often(interval: object, lifetimes: object) -> None:
    if (
        isinstance(interval, timedelta)
        and isinstance(lifetimes, Lifetimes)
        and interval * 2 > lifetimes.idle
    ):
        # Somebody active must never look idle.
        raise ConfigurationError(
            f"touch_interval={interval} must be at most half of the idle timeout "
            f"({lifetimes.idle}): pass a shorter touch_interval"
        )


def _duration(value: object) -> bool:
    return isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST * 100


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: value in words


def _count(value: object) -> bool:
    return value is None or (type(value) is int and value > 0)


def _table_name(value: object) -> bool:
    return isinstance(value, str) and _TABLE_NAME.fullmatch(value) is not None


_A_DURATION = (_duration, "use a datetime.timedelta that is not negative (40,000 days at most)")
_YES_OR_NO = (lambda value: isinstance(value, bool), "use True or False")
_MORE_THAN_0 = (
    lambda value: _duration(value) and value > timedelta(0),
    "use a datetime.timedelta of more than 0",
)
_CHECKS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "lifetimes": (lambda v: isinstance(v, Lifetimes), "use AAL1 or Lifetimes(...)"),
    "auto_start": (
        lambda v: isinstance(v, bool) or callable(v),
        "use True, False or a function of the scope",
    ),
    "store_ip": (_one_of("full", "truncated", "none"), "use 'full', 'truncated' or 'none'"),
    "touch_interval": _A_DURATION,
    "max_sessions_per_person": (_count, "use None or 1 and more"),
    "keep_ended": _A_DURATION,
    "on_unavailable": (_one_of("error", "anonymous"), "use 'error' or 'anonymous'"),
    "table_name": (
        _table_name,
        "use at most 46 letters, digits and _, with the schema before a dot if it has one",
    ),
    "clock": (callable, "use a function that returns an aware datetime"),
    "socket_check_interval": _MORE_THAN_0,
    "end_streams": _YES_OR_NO,
    "notify": _YES_OR_NO,
    "timeout": _MORE_THAN_0,
}
