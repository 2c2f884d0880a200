"""The database that `Sessions` was given, checked."""

from __future__ import annotations

import sys
from datetime import timedelta
from math import inf
from typing import TYPE_CHECKING, Any, cast

from databases import Database
from sqlalchemy.engine import Engine

from asgi_sessions._errors import ConfigurationError

from .pools.base import Source
from .pools.databases import DatabasesSource

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
else:  # it needs greenlet, and takes its time to be imported
    AsyncEngine = Any

#: The URLs for which `databases` has no driver.
_PSYCOPG = {"postgresql+psycopg", "postgresql+psycopg_async"}


def source_of(
    database: str | Database | AsyncEngine,
    *,
    notify: bool = False,
    max_idle: object = timedelta(minutes=4),
) -> Source:
    """Where the connections of `Sessions` come from.

    Args:
        database: a URL, or an app's own `databases.Database` or `AsyncEngine`.
        notify: whether processes tell one another of ends.
        max_idle: how long a connection may rest before it is used again.

    Raises:
        ConfigurationError: for a database that cannot be used so.
    """
    # The options refuse what is no duration.
    seconds = max_idle.total_seconds() if isinstance(max_idle, timedelta) else inf
    source = _source(database, seconds)
    if notify is True and not source.driver.notifies:
        raise ConfigurationError(
            f"notify={notify!r}: only PostgreSQL tells one process what another has done "
            f"(LISTEN, NOTIFY), not {source.driver.system}: leave it out; "
            "socket_check_interval says how soon ends in other processes are noticed"
        )
    return source


def _source(database: object, max_idle: float) -> Source:
    there = sys.modules.get("sqlalchemy.ext.asyncio")  # whoever has made an engine has imported it
    if there is not None and isinstance(database, there.AsyncEngine):
        from .pools.sqlalchemy import EngineSource  # noqa: PLC0415 -- it needs greenlet

        return EngineSource(cast("AsyncEngine", database), max_idle=max_idle)
    if isinstance(database, Database):
        return DatabasesSource(database, max_idle=max_idle)
    if not isinstance(database, str):
        fix = (
            "give it a URL such as 'sqlite:///sessions.db', an AsyncEngine of SQLAlchemy or a "
            "databases.Database"
        )
        if isinstance(database, Engine):
            fix = "its connections would block the event loop; make it with create_async_engine"
        raise ConfigurationError(f"invalid database URL, {type(database).__name__}: {fix}")
    if database.partition("://")[0] in _PSYCOPG:
        return _psycopg(database, max_idle)
    return DatabasesSource(database, max_idle=max_idle)


def _psycopg(url: str, max_idle: float) -> Source:
    try:
        import psycopg  # noqa: F401, PLC0415 -- it need not be there

        from .pools.sqlalchemy import EngineURLSource  # noqa: PLC0415 -- it needs greenlet
    except ImportError as error:
        raise ConfigurationError(
            f"the driver for this database URL is missing ({error.name}): install "
            "asgi-login-sessions[psycopg]"
        ) from error
    return EngineURLSource(url, max_idle=max_idle)
