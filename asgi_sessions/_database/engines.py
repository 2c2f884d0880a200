"""The database as a process sees it: one engine for each event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

from .batcher import as_sessions_error
from .connection import Connection
from .deadline import Deadline
from .engine import Batched, Engine, Explain, Work
from .pools.base import Source
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
        self.source = source
        self._batched = batched
        self._explain = explain
        self._connection = connection
        self.timeout = timeout
        self._engines: dict[asyncio.AbstractEventLoop, Engine] = {}
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
    def database(self) -> Any:  # noqa: ANN401 -- what the app has given to Sessions, or its kind
        """What `Sessions.database` gives to the app; in an event loop, what that loop uses."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return self.source.database
        return self.here.pool.database

    def write(self, work: Work) -> asyncio.Future[Any]:
        """Have something done where rows are written, after what waits there."""
        return self.here.writes.submit("other", work)

    def query(self, work: Work) -> asyncio.Future[Any]:
        """Have something asked that no request waits for."""
        return self.here.queries.submit("other", work)

    def bulk(self, work: Work) -> asyncio.Future[Any]:
        """Have something done to many rows, so that nothing else waits for it."""
        return self.here.bulk.submit("bulk", work)

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
            engine = self._engines[loop] = Engine(
                self.source.pool(loop),
                self._batched,
                timeout=self.timeout,
                explain=self._explain,
                connection=self._connection,
                max_idle=self.source.max_idle,
            )
            return engine
