"""The options of `Sessions`, checked once; all faults come in one message."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from ._changeset import checked
from ._cookies import CookieSettings, SameSite
from ._device import StoreIP
from ._errors import ConfigurationError, InvalidSession
from ._lifetimes import LONGEST, Lifetimes
from ._tokens import Keys

OnUnavailable = Literal["error", "anonymous"]
AutoStart = bool | Callable[[Mapping[str, Any]], bool]
Clock = Callable[[], datetime]

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
    cap: int | None
    keep_ended: timedelta
    on_unavailable: OnUnavailable
    table_name: str
    clock: Clock
    socket_check_interval: timedelta
    timeout: timedelta

    def now(self) -> datetime:
        """The clock's time in UTC.

        Raises:
            ConfigurationError: if the clock gives a time without a zone.
        """
        now = self.clock()
        if now.tzinfo is None:
            raise ConfigurationError(
                "clock must return an aware datetime: use datetime.now(timezone.utc)"
            )
        return now.astimezone(UTC)


def settings(
    *,
    secret_key: str | bytes,
    old_secret_keys: Iterable[str | bytes],
    app_id: str,
    lifetimes: Lifetimes,
    cookie_name: str,
    cookie_secure: bool,
    cookie_samesite: SameSite,
    cookie_domain: str | None,
    cookie_path: str,
    cookie_partitioned: bool,
    auto_start: AutoStart,
    store_ip: StoreIP,
    touch_interval: timedelta,
    max_sessions_per_person: int | None,
    keep_ended: timedelta,
    on_unavailable: OnUnavailable,
    table_name: str,
    clock: Clock,
    socket_check_interval: timedelta,
    timeout: timedelta,
) -> Settings:
    """Check the options of `Sessions`.

    Raises:
        ConfigurationError: with every fault and its mend.
    """
    faults: list[str] = []

    def attempt(make: Callable[[], Any]) -> Any:  # noqa: ANN401 -- whatever it makes
        try:
            return make()
        except (ConfigurationError, InvalidSession) as fault:
            faults.append(str(fault))
            return None

    app_id = attempt(lambda: checked(app_id=app_id).get("app_id"))
    keys = attempt(lambda: Keys(secret_key, old_secret_keys, purpose=app_id or ""))
    cookie = attempt(
        lambda: CookieSettings(
            name=cookie_name,
            secure=cookie_secure,
            samesite=cookie_samesite,
            domain=cookie_domain,
            path=cookie_path,
            partitioned=cookie_partitioned,
        )
    )
    faults += _faults(
        (isinstance(lifetimes, Lifetimes), f"lifetimes={lifetimes!r}: use AAL1 or Lifetimes(...)"),
        (
            isinstance(auto_start, bool) or callable(auto_start),
            f"auto_start={auto_start!r}: use True, False or a function of the scope",
        ),
        (
            store_ip in ("full", "truncated", "none"),
            f"store_ip={store_ip!r}: use 'full', 'truncated' or 'none'",
        ),
        (
            max_sessions_per_person is None or _counts(max_sessions_per_person),
            f"max_sessions_per_person={max_sessions_per_person!r}: use None or 1 and more",
        ),
        (
            on_unavailable in ("error", "anonymous"),
            f"on_unavailable={on_unavailable!r}: use 'error' or 'anonymous'",
        ),
        (
            _TABLE_NAME.fullmatch(str(table_name)) is not None,
            f"table_name={table_name!r}: use at most 46 letters, digits and _",
        ),
        (callable(clock), f"clock={clock!r}: use a function that returns an aware datetime"),
        _duration("touch_interval", touch_interval),
        _duration("keep_ended", keep_ended),
        _duration("socket_check_interval", socket_check_interval),
        _duration("timeout", timeout),
    )
    if not faults and touch_interval * 2 > lifetimes.idle:
        # Somebody active must never look idle.
        faults.append(
            f"touch_interval={touch_interval} must be at most half of the idle timeout "
            f"({lifetimes.idle}): pass a shorter touch_interval"
        )
    if faults:
        raise ConfigurationError("; ".join(faults))
    return Settings(
        keys=keys,
        cookie=cookie,
        app_id=app_id,
        lifetimes=lifetimes,
        auto_start=auto_start,
        store_ip=store_ip,
        touch_interval=touch_interval,
        cap=max_sessions_per_person,
        keep_ended=keep_ended,
        on_unavailable=on_unavailable,
        table_name=table_name,
        clock=clock,
        socket_check_interval=socket_check_interval,
        timeout=timeout,
    )


def _duration(name: str, value: object) -> tuple[bool, str]:
    right = isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST * 100
    return right, f"{name}={value!r}: use a datetime.timedelta that is not negative"


def _counts(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _faults(*checks: tuple[bool, str]) -> list[str]:
    return [fault for right, fault in checks if not right]
