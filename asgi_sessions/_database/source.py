"""The database that `Sessions` was given, checked: a URL, or an app's own `databases.Database`."""

from __future__ import annotations

from datetime import timedelta
from math import ceil, inf

from databases import Database, DatabaseURL

from asgi_sessions._errors import ConfigurationError

from .drivers import driver_for, kind_of
from .url import read, refuse_unread
from .url_options import rules_for


class Source:
    """Where the connections of `Sessions` come from.

    Args:
        database: a URL, or an app's own `databases.Database`.
        notify: whether processes tell one another of ends.
        max_idle: how long a connection may rest before it is used again. A URL may say less
            (``?pool_recycle=``, in seconds).

    Attributes:
        owned: whether the database was made from a URL; then connections may be held.
        first: the app's own database, or the one for the first event loop.
        movable: whether other event loops may use it, too.
        max_idle: seconds after which a connection at rest is not trusted any more.

    Raises:
        ConfigurationError: for a database that cannot be used so.
    """

    def __init__(
        self,
        database: str | Database,
        *,
        notify: bool = False,
        max_idle: object = timedelta(minutes=4),
    ) -> None:
        self.owned = not isinstance(database, Database)
        # The options refuse what is no duration.
        self.max_idle = max_idle.total_seconds() if isinstance(max_idle, timedelta) else inf
        if isinstance(database, Database):
            _refuse_memory(database.url)
            refuse_unread(database, rules_for(database.url))
            self.first = database
        else:
            self.max_idle = _lowered(self.max_idle, database)
            self.first = _make(database, self.max_idle)
        driver = driver_for(self.first)
        self.movable = self.owned or driver.hold
        if notify is True and not driver.notifies:
            raise ConfigurationError(
                f"notify={notify!r}: only PostgreSQL tells one process what another has done "
                f"(LISTEN, NOTIFY), not {self.first.url.dialect}: leave it out; "
                "socket_check_interval says how soon ends in other processes are noticed"
            )

    def another(self) -> Database:
        """A database for a further event loop: connections belong to the loop that opened them."""
        return _make(str(self.first.url), self.max_idle) if self.owned else self.first


def _lowered(max_idle: float, url: str) -> float:
    """The seconds that a connection may rest, if the URL may say less; -1 says nothing."""
    try:
        given = DatabaseURL(url).options.get("pool_recycle", "-1")
        recycle = int(given)
    except Exception:  # noqa: BLE001 -- no URL, or no number: `_make` says so
        return max_idle
    return min(max_idle, recycle) if recycle >= 0 else max_idle


def _make(url: str, max_idle: float) -> Database:
    try:
        place = DatabaseURL(url)
        _ = place.port  # what is no number raises here
        kind = kind_of(place)
        _refuse_memory(place)
        options = read(place, rules_for(place), kind.pool)
        if kind.max_idle is not None and max_idle < inf:
            options[kind.max_idle] = max(ceil(max_idle), 1)  # 0 would be for ever
        return kind.make(url, options)
    except ImportError as error:
        raise ConfigurationError(
            f"the driver for this database URL is missing ({error.name}): install "
            "asgi-login-sessions[postgresql] or asgi-login-sessions[mysql]"
        ) from error
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 -- KeyError, ValueError, AttributeError, ...
        raise ConfigurationError(
            "invalid database URL; use one like "
            "'sqlite:///sessions.db' or 'postgresql://user:password@host/name'; what has another "
            "meaning in URLs, such as / in a password, is written as %2F"
        ) from None  # the error may quote the password


def _refuse_memory(place: DatabaseURL) -> None:
    url = str(place)
    if place.dialect != "sqlite":
        return
    if not place.database or ":memory:" in url or "mode=memory" in url:
        raise ConfigurationError(
            "an in-memory SQLite database is another one for each connection, so sessions would "
            "be lost at once: use a file, for instance 'sqlite:///sessions.db' "
            "(in tests: f'sqlite:///{tmp_path}/sessions.db')"
        )
