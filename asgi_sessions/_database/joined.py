"""What `Engines` offers, on one connection in the middle of an app's transaction: each job runs at
once and by itself, nothing is tried again, and nothing is committed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from .batcher import as_sessions_error
from .connection import Connection
from .deadline import Deadline
from .drivers.base import Driver
from .engine import Batched, Work
from .tasks import running_loop


class JoinedEngines:
    """An `Engines` whose only connection is the app's.

    Args:
        connection: in the app's transaction.
        batched: what answers jobs of a kind.
        timeout: seconds that a job may take.
    """

    def __init__(
        self, connection: Connection, batched: Mapping[str, Batched], *, timeout: float
    ) -> None:
        self._connection = connection
        self._batched = batched
        self.timeout = timeout
        self.here = self.lookups = self.writes = self.queries = self

    @property
    def driver(self) -> Driver:
        """How to speak to the connection."""
        return self._connection.driver

    async def submit(self, kind: str, job: object) -> Any:  # noqa: ANN401 -- as Batcher
        """Answer one job of a kind.

        Raises:
            SessionsUnavailable: if the database does not, after which the app has to roll back.
        """

        async def work(connection: Connection) -> Any:  # noqa: ANN401 -- as Batcher
            (answer,) = await self._batched[kind](connection, [job])
            return answer

        return await self.write(work)

    async def write(self, work: Work) -> Any:  # noqa: ANN401 -- as Engines
        """Do something on the connection."""
        try:
            async with Deadline(running_loop().time() + self.timeout):
                return await work(self._connection)
        except Exception as error:
            raise as_sessions_error(error) from error

    query = write

    @property
    def bulk(self) -> _Bulk:
        """Both of what `Engines` and `Engine` have under this name."""
        return _Bulk(self)


class _Bulk:
    def __init__(self, engines: JoinedEngines) -> None:
        self._engines = engines

    async def __call__(self, work: Work) -> Any:  # noqa: ANN401 -- as Engines
        return await self._engines.write(work)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """The app keeps its connection."""
        yield
