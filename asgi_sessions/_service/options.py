"""The options of `Sessions`, checked once; all errors come in one message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from typing import Any, Literal, TypeVar

from asgi_sessions._database.pools.base import Source
from asgi_sessions._errors import ConfigurationError, InvalidSession
from asgi_sessions._model.carrier import Carriers
from asgi_sessions._model.changeset import checked
from asgi_sessions._model.cookies import CookieSettings
from asgi_sessions._model.device import StoreIP
from asgi_sessions._model.device_mark import DeviceMarks
from asgi_sessions._model.lifetimes import LONGEST_LIFETIME, Lifetimes, Terms, plain_utc
from asgi_sessions._model.session_data import SessionData
from asgi_sessions._model.tokens import Keys
from asgi_sessions._pages.cross_origin import are_origins

OnUnavailable = Literal["error", "anonymous"]
AutoStart = bool | Callable[[Mapping[str, Any]], bool]
Exclude = Sequence[str] | Callable[[Mapping[str, Any]], bool]
Touch = Callable[[Mapping[str, Any]], bool]
Clock = Callable[[], datetime]
Made = TypeVar("Made")

# PostgreSQL cuts names at 63 bytes, and indexes are named after the table.
_TABLE_NAME = re.compile(r"([A-Za-z_][A-Za-z0-9_]{0,62}\.)?[A-Za-z_][A-Za-z0-9_]{0,45}")


def system_clock() -> datetime:
    """The time now, aware, UTC."""
    return datetime.now(UTC)  # noqa: TID251 -- this is the clock


@dataclass(frozen=True, kw_only=True)
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
    browser_lifetimes: Lifetimes | None
    exclude: Exclude
    touch: Touch | None
    trusted_origins: Sequence[str]
    issuer: str | None
    max_scope_sessions: int | None
    connection_max_idle: timedelta
    bearer: bool
    data: SessionData | bool
    visitor_lifetimes: Lifetimes
    device_cookie: timedelta | None

    @cached_property
    def session_data(self) -> SessionData | None:
        """What was said of the data; None if sessions have none."""
        if isinstance(self.data, bool):
            return SessionData() if self.data else None
        return self.data

    @cached_property
    def device_marks(self) -> DeviceMarks | None:
        """The cookie that marks devices; None if nobody has asked for it."""
        if self.device_cookie is None:
            return None
        return DeviceMarks(self.keys, self.cookie, self.device_cookie)

    @cached_property
    def terms(self) -> Terms:
        """The lifetimes of sessions with and without `remember`."""
        return Terms(self.lifetimes, self.browser_lifetimes or self.lifetimes)

    @cached_property
    def carriers(self) -> Carriers:
        """By what clients bring their sessions."""
        return Carriers(bearer=self.bearer)

    def excludes(self, scope: Mapping[str, Any]) -> bool:
        """Whether a connection is left alone: its path is one of `exclude`, or below it."""
        if not isinstance(self.exclude, Sequence):
            return bool(self.exclude(scope))
        path, root = scope.get("path", ""), scope.get("root_path", "").rstrip("/")
        if root and f"{path}/".startswith(f"{root}/"):
            path = path[len(root) :]
        return any(f"{path}/".startswith(prefix) for prefix in self._excluded)

    @cached_property
    def _excluded(self) -> tuple[str, ...]:
        assert isinstance(self.exclude, Sequence)  # noqa: S101 -- for the type checker
        return tuple(f"{prefix.rstrip('/')}/" for prefix in self.exclude)

    @cached_property
    def now(self) -> Clock:
        """Tells the clock's time in UTC.

        Raises:
            ConfigurationError: if the clock gives a time without a zone.
        """
        return self.clock if self.clock is system_clock else self._checked_clock

    def _checked_clock(self) -> datetime:
        now = self.clock()
        if type(now) is datetime and now.tzinfo is UTC:
            return now
        if now.tzinfo is None:
            raise ConfigurationError(
                "clock must return an aware datetime: use datetime.now(timezone.utc)"
            )
        return plain_utc(now)


def settings(
    given: Mapping[str, Any], source: Callable[[], Source], *more: Callable[[], object]
) -> tuple[Settings, Source]:
    """Check the options of `Sessions`, and its database.

    Args:
        given: the options by name.
        source: checks the database.
        more: what else raises `ConfigurationError` for options that cannot work.

    Raises:
        ConfigurationError: with every error and its mend.
    """
    errors = [
        f"{name}={given[name]!r}: {mend}"
        for name, (right, mend) in _CHECKS.items()
        if not right(given[name])
    ]

    def attempt(make: Callable[[], Made]) -> Made | None:
        try:
            return make()
        except (ConfigurationError, InvalidSession) as error:
            errors.append(str(error))
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
    names = ["lifetimes", "browser_lifetimes"]
    if given["data"] is not False:
        names.append("visitor_lifetimes")
    for name in names:
        attempt(partial(_touch_often, given["touch_interval"], given[name], name))
    attempt(partial(_apart, cookie, given["data"]))
    place = attempt(source)
    for check in more:
        attempt(check)
    options = {name: given[name] for name in _CHECKS}
    if errors or app_id is None or keys is None or cookie is None or place is None:
        raise ConfigurationError("; ".join(errors))
    return Settings(app_id=app_id, keys=keys, cookie=cookie, **options), place


def _app_id(value: object) -> str:
    app_id: str = checked(app_id="" if value is None else value)["app_id"]
    return app_id


def _apart(cookie: CookieSettings | None, data: object) -> None:
    starlettes = data.starlette_cookie if isinstance(data, SessionData) else None
    if cookie is not None and starlettes is not None and starlettes.name == cookie.wire_name:
        raise ConfigurationError(
            f"SessionData(starlette_cookie=...) has the name {starlettes.name!r} of our own cookie,"
            " which would be cleared with it: give Sessions another cookie_name"
        )


def _touch_often(interval: object, lifetimes: object, name: str) -> None:
    if (
        isinstance(interval, timedelta)
        and isinstance(lifetimes, Lifetimes)
        and interval * 2 > lifetimes.idle
    ):
        # Somebody active must never look idle.
        raise ConfigurationError(
            f"touch_interval={interval} must be at most half of the idle timeout "
            f"of {name} ({lifetimes.idle}): pass a shorter touch_interval"
        )


def _duration(value: object) -> bool:
    return isinstance(value, timedelta) and timedelta(0) <= value <= LONGEST_LIFETIME * 100


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: value in words


def _count(value: object) -> bool:
    return value is None or (type(value) is int and value > 0)


def _paths(value: object) -> bool:
    if callable(value):
        return True
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(isinstance(one, str) and one.startswith("/") and one.strip("/") for one in value)
    )


def _table_name(value: object) -> bool:
    return isinstance(value, str) and _TABLE_NAME.fullmatch(value) is not None


_SECOND = timedelta(seconds=1)
#: Browsers keep no cookie for longer (RFC 6265bis, 5.5).
_LONGEST_COOKIE = timedelta(days=400)
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
    "max_scope_sessions": (_count, "use None or 1 and more"),
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
    "connection_max_idle": _MORE_THAN_0,
    "browser_lifetimes": (
        lambda v: v is None or isinstance(v, Lifetimes),
        "use Lifetimes(...), or None for those of `lifetimes`",
    ),
    "exclude": (
        _paths,
        "use a list of paths such as '/static', or a function of the scope",
    ),
    "touch": (lambda v: v is None or callable(v), "use a function of the scope, or None"),
    "trusted_origins": (
        are_origins,
        "use a list of origins as browsers write them, such as 'https://app.example.com'",
    ),
    "bearer": _YES_OR_NO,
    "data": (
        lambda v: isinstance(v, bool | SessionData),
        "use True, False or SessionData(...)",
    ),
    "device_cookie": (
        lambda v: v is None or (_duration(v) and _SECOND <= v <= _LONGEST_COOKIE),
        "use a datetime.timedelta of 1 second to 400 days, or None",
    ),
    "visitor_lifetimes": (lambda v: isinstance(v, Lifetimes), "use Lifetimes(...)"),
    "issuer": (
        lambda v: v is None or (isinstance(v, str) and bool(v)),
        "use the text of the claim iss, such as 'https://login.example.com', or None",
    ),
}
