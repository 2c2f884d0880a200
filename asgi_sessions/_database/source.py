"""The database that `Sessions` was given, checked."""

from __future__ import annotations

from datetime import timedelta
from math import inf

from databases import Database

from asgi_sessions._errors import ConfigurationError

from .pools.base import Source
from .pools.databases import DatabasesSource


def source_of(
    database: str | Database,
    *,
    notify: bool = False,
    max_idle: object = timedelta(minutes=4),
) -> Source:
    """Where the connections of `Sessions` come from.

    Args:
        database: a URL, or an app's own `databases.Database`.
        notify: whether processes tell one another of ends.
        max_idle: how long a connection may rest before it is used again.

    Raises:
        ConfigurationError: for a database that cannot be used so.
    """
    # The options refuse what is no duration.
    seconds = max_idle.total_seconds() if isinstance(max_idle, timedelta) else inf
    source = DatabasesSource(database, max_idle=seconds)
    if notify is True and not source.driver.notifies:
        raise ConfigurationError(
            f"notify={notify!r}: only PostgreSQL tells one process what another has done "
            f"(LISTEN, NOTIFY), not {source.driver.system}: leave it out; "
            "socket_check_interval says how soon ends in other processes are noticed"
        )
    return source
