"""The database as a process sees it: one link for each event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from datetime import timedelta
from math import ceil, inf
from typing import Any
from weakref import ref

from databases import Database, DatabaseURL

from ._deadline import Deadline
from ._drivers import driver_for, kind_of
from ._errors import ConfigurationError
from ._lane import as_sessions_error
from ._link import Batched, Explain, Link, Work
from ._tasks import running_loop
from ._url import read, refuse_unread
from ._url_options import rules_for


class Links:
    """One `Link` for each event loop that uses the database.

    A connection belongs to the loop that opened it, and tests use many loops: Starlette's
    TestClient without ``with`` takes a new one for each request.

    Args:
        database: a URL, or an app's own `databases.Database`, which stays in its loop.
        notify: whether processes tell one another of ends.
        max_idle: how long a connection may rest before it is used again. A URL may say less
            (``?pool_recycle=``, in seconds).

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
        #: What answers many jobs at once; set by the store, which has the SQL.
        self.batched: Mapping[str, Batched]
        #: Finds the reason for a fault in the tables; set by the store, which has them.
        self.explain: Explain
        self._owned = not isinstance(database, Database)
        #: Seconds that anything may take.
        self.timeout = 5.0
        # What is no time has been refused by the settings.
        self._max_idle = max_idle.total_seconds() if isinstance(max_idle, timedelta) else inf
        if isinstance(database, Database):
            _refuse_memory(database.url)
            refuse_unread(database, rules_for(database.url))
            self.first = database
        else:
            self._max_idle = _lowered(self._max_idle, database)
            self.first = _make(database, self._max_idle)
        self._movable = self._owned or driver_for(self.first).hold
        if notify is True and not driver_for(self.first).notifies:
            raise ConfigurationError(
                f"notify={notify!r}: only PostgreSQL tells one process what another has done "
                f"(LISTEN, NOTIFY), not {self.first.url.dialect}: leave it out; "
                "socket_check_interval says how soon ends in other processes are noticed"
            )
        self._links: dict[asyncio.AbstractEventLoop, Link] = {}
        self._first_loop: ref[asyncio.AbstractEventLoop] | None = None
        self._lock = threading.Lock()  # loops may run in several threads

    @property
    def here(self) -> Link:
        """The link of the running loop.

        Raises:
            ConfigurationError: for an app's own database that was opened in another loop, and
                without a loop of asyncio.
        """
        loop = running_loop()
        link = self._links.get(loop)
        return self._make_link(loop) if link is None else link

    @property
    def database(self) -> Database:
        """The running loop's database; outside of any loop the first."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self.first
        return self.here.database

    def write(self, work: Work) -> asyncio.Future[Any]:
        """Have something done where rows are written, after what waits there."""
        return self.here.writes.put("other", work)

    def query(self, work: Work) -> asyncio.Future[Any]:
        """Have something asked that no request waits for."""
        return self.here.queries.put("other", work)

    def bulk(self, work: Work) -> asyncio.Future[Any]:
        """Have something done to many rows, so that nothing else waits for it."""
        return self.here.bulk.put("bulk", work)

    async def open(self) -> None:
        """Connect the link of the running loop.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        try:
            async with Deadline(running_loop().time() + self.timeout):
                await self.here.open()
        except Exception as fault:
            raise as_sessions_error(fault) from fault

    async def close(self) -> None:
        """Close the link of the running loop."""
        link = self._links.pop(asyncio.get_running_loop(), None)
        if link is not None:
            await link.close()

    def _make_link(self, loop: asyncio.AbstractEventLoop) -> Link:
        with self._lock:
            for other in [other for other in self._links if other.is_closed()]:
                self._links.pop(other).leave()
            if self._first_loop is None:
                self._first_loop = ref(loop)
            first = self._first_loop() is loop
            if not first and not self._movable:
                raise ConfigurationError(
                    "the databases.Database given to Sessions belongs to another event loop: "
                    "use it in one loop (TestClient as a context manager), or give Sessions a URL, "
                    "which works in any loop"
                )
            database = (
                self.first
                if first or not self._owned
                else _make(str(self.first.url), self._max_idle)
            )
            link = self._links[loop] = Link(
                database,
                self.batched,
                owned=self._owned,
                timeout=self.timeout,
                explain=self.explain,
                max_idle=self._max_idle,
            )
            return link


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
    except ImportError as fault:
        raise ConfigurationError(
            f"the driver for this database URL is missing ({fault.name}): install "
            "asgi-login-sessions[postgresql] or asgi-login-sessions[mysql]"
        ) from fault
    except ConfigurationError:
        raise
    except Exception:  # noqa: BLE001 -- KeyError, ValueError, AttributeError, ...
        raise ConfigurationError(
            "this is no database URL that `databases` knows; use one like "
            "'sqlite:///sessions.db' or 'postgresql://user:password@host/name'; what has another "
            "meaning in URLs, such as / in a password, is written as %2F"
        ) from None  # the fault may quote the password


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
