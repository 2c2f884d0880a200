"""How long a session lives: two clocks, both checked on the server (ASVS 7.3.1, 7.3.2). `Terms` is
what the decisions need of the options.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from asgi_sessions._errors import ConfigurationError


def plain_utc(moment: datetime) -> datetime:
    """An aware time as a plain `datetime` in UTC. Subclasses (of pendulum, of freezegun) compute
    differently, and drivers that look at the type refuse them.
    """
    if type(moment) is datetime and moment.tzinfo is UTC:
        return moment
    moment = moment.astimezone(UTC)
    date, time = moment.date(), moment.time()
    return datetime(
        date.year,
        date.month,
        date.day,
        time.hour,
        time.minute,
        time.second,
        time.microsecond,
        tzinfo=UTC,
    )


#: RFC 6265bis caps a cookie's life at 400 days; no session is worth more.
LONGEST_LIFETIME = timedelta(days=400)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """An idle timeout and an absolute lifetime; whichever ends first ends the session.

    Args:
        idle: longest time between two requests.
        absolute: longest time from the start of the session, whatever happens.

    Raises:
        ConfigurationError: unless 0 < idle <= absolute <= 400 days.
    """

    idle: timedelta
    absolute: timedelta

    def __post_init__(self) -> None:
        for name, value in (("idle", self.idle), ("absolute", self.absolute)):
            if not isinstance(value, timedelta):
                raise ConfigurationError(
                    f"Lifetimes({name}=...) takes a datetime.timedelta, not {value!r}"
                )
        if not timedelta(0) < self.idle <= self.absolute <= LONGEST_LIFETIME:
            raise ConfigurationError(
                "Lifetimes needs 0 < idle <= absolute <= 400 days, got "
                f"idle={self.idle}, absolute={self.absolute}"
            )

    def expires_at(self, started_at: datetime) -> datetime:
        """The moment from which a session started at `started_at` is over, however busy."""
        return started_at + self.absolute

    def idle_since(self, now: datetime) -> datetime:
        """A session last seen at or before this moment is over."""
        return now - self.idle

    def too_old_since(self, now: datetime) -> datetime:
        """A session started at or before this moment is over."""
        return now - self.absolute


@lru_cache(maxsize=64)
def own_lifetimes(idle_seconds: int) -> Lifetimes:
    """The lifetimes of a session that has its own: its row says when it is over, however busy."""
    idle = min(timedelta(seconds=idle_seconds), LONGEST_LIFETIME)
    return Lifetimes(idle=idle, absolute=LONGEST_LIFETIME)


@dataclass(frozen=True, slots=True)
class Terms:
    """The lifetimes that hold now, by whether the cookie outlives the browser. Sessions with
    lifetimes of their own keep those.

    Attributes:
        persistent: of sessions with `remember`.
        browser: of sessions without: browsers restore such cookies, so they may need shorter ones.
    """

    persistent: Lifetimes
    browser: Lifetimes

    def of(self, *, remember: bool, idle_seconds: int | None = None) -> Lifetimes:
        """The lifetimes of a session."""
        if idle_seconds is not None:
            return own_lifetimes(idle_seconds)
        return self.persistent if remember else self.browser


#: Of visitors without a login: 14 days, 3 days idle.
VISITORS = Lifetimes(absolute=timedelta(days=14), idle=timedelta(days=3))

# NIST SP 800-63B-4, 2.1.3, 2.2.3 and 2.3.3: reauthentication at each assurance level.
#: 30 days, 14 days idle: the default.
AAL1 = Lifetimes(absolute=timedelta(days=30), idle=timedelta(days=14))
#: 24 hours, 1 hour idle.
AAL2 = Lifetimes(absolute=timedelta(hours=24), idle=timedelta(hours=1))
#: 12 hours, 15 minutes idle.
AAL3 = Lifetimes(absolute=timedelta(hours=12), idle=timedelta(minutes=15))
#: 12 hours, 10 minutes idle: what people expect of their bank.
BANKING = Lifetimes(absolute=timedelta(hours=12), idle=timedelta(minutes=10))
