"""The database as a process sees it: one engine for each event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any
from weakref import ref

from databases import Database

from asgi_sessions._errors import ConfigurationError

from .batcher import as_sessions_error
from .connection import Connection
from .deadline import Deadline
from .engine import Batched, Engine, Explain, Work
from .source import Source
from .tasks import running_loop


class Engines:
    """One `Engine` for each event loop that uses the database.

    A connection belongs to the loop that opened it, and tests use many loops: Starlette's
    TestClient without ``with`` takes a new one for each request.

    Args:
        source: where the connections come from.
        batched: what answers many jobs of a kind at once: look-ups, starts, touches.
        explain: finds the reason for an error in the tables, if it lies there.
        connection: the kind of connection that these are given.
        timeout: seconds that anything may take.
    """

    def __init__(
        self,
        source: Source,
        batched: Mapping[str, Batched],
        *,
        explain: Explain,
        connection: type[Connection],
        timeout: float,
    ) -> None:
        self._source = source
        self._batched = batched
        self._explain = explain
        self._connection = connection
        self.timeout = timeout
        self._engines: dict[asyncio.AbstractEventLoop, Engine] = {}
        self._first_loop: ref[asyncio.AbstractEventLoop] | None = None
        self._lock = threading.Lock()  # loops may run in several threads

    @property
    def here(self) -> Engine:
        """The engine of the running loop.

        Raises:
            ConfigurationError: for an app's own database that was opened in another loop, and
                without a loop of asyncio.
        """
        loop = running_loop()
        engine = self._engines.get(loop)
        return self._make(loop) if engine is None else engine

    @property
    def database(self) -> Database:
        """The running loop's database; outside of any loop the first."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self._source.first
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
        """Connect the engine of the running loop.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        try:
            async with Deadline(running_loop().time() + self.timeout):
                await self.here.open()
        except Exception as error:
            raise as_sessions_error(error) from error

    async def close(self) -> None:
        """Close the engine of the running loop."""
        engine = self._engines.pop(asyncio.get_running_loop(), None)
        if engine is not None:
            await engine.close()

    def _make(self, loop: asyncio.AbstractEventLoop) -> Engine:
        with self._lock:
            for other in [other for other in self._engines if other.is_closed()]:
                self._engines.pop(other).leave()
            if self._first_loop is None:
                self._first_loop = ref(loop)
            first = self._first_loop() is loop
            if not first and not self._source.movable:
                raise ConfigurationError(
                    "the databases.Database given to Sessions belongs to another event loop: "
                    "use it in one loop (TestClient as a context manager), or give Sessions a URL, "
                    "which works in any loop"
                )
            engine = self._engines[loop] = Engine(
                self._source.first if first else self._source.another(),
                self._batched,
                owned=self._source.owned,
                timeout=self.timeout,
                explain=self._explain,
                connection=self._connection,
                max_idle=self._source.max_idle,
            )
            return engine
