"""A PostgreSQL primary with a streaming replica, behind HAProxy or a proxy that is switched.

python -m tests.cluster.postgres    starts one, says where it is, and ends it at Ctrl-C.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from tests.servers.haproxy import HAProxy, listen, postgres_check
from tests.servers.postgres import PostgresServer
from tests.servers.process import LOOPBACK, free_port, until_interrupted
from tests.servers.proxy import TcpProxy

_log = logging.getLogger(__name__)


class PostgresPair:
    """A primary and a replica; `url` leads to the primary, whichever it is.

    `front="haproxy"`: HAProxy asks both and finds the primary by itself, also after a promotion.
    `front="proxy"`: a `TcpProxy` that `promote` points at the new primary; its other controls
    (`delay`, `cut`, ...) are there for the tests.

    With `synchronous` a commit is confirmed when the replica has it on disk, so a promotion loses
    nothing that was confirmed; while there is no replica, commits wait. After `promote` the new
    primary stands alone and waits for nobody, until `rejoin` brings in a new replica.
    """

    def __init__(
        self,
        directory: Path | None = None,
        *,
        front: Literal["haproxy", "proxy"] = "haproxy",
        synchronous: bool = True,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._directory = directory
        self._settings = settings
        self._synchronous = synchronous
        self.primary = PostgresServer(directory=directory, settings=settings)
        self.replica = self._new_replica(free_port())
        #: The ports stay with HAProxy's two servers; a new replica gets that of the dead one.
        self._ports = (self.primary.port, self.replica.port)
        self.port = free_port()
        self.haproxy: HAProxy | None = None
        self.proxy: TcpProxy | None = None
        if front == "haproxy":
            servers = "".join(
                f"    server postgres{number} {LOOPBACK}:{port} check\n"
                for number, port in enumerate(self._ports, 1)
            )
            sections = listen("primary", self.port, postgres_check() + servers)
            self.haproxy = HAProxy(sections, self.port, directory)
        else:
            self.proxy = TcpProxy(LOOPBACK, self.primary.port, listen_port=self.port)

    def _new_replica(self, port: int) -> PostgresServer:
        return PostgresServer(
            port, self._directory, settings=self._settings, replica_of=self.primary
        )

    @property
    def url(self) -> str:
        """To the primary."""
        return self.url_at(self.port)

    def url_at(self, port: int, scheme: str = "postgresql") -> str:
        """A URL with another port, another driver."""
        return self.primary.url_at(port, scheme)

    async def __aenter__(self) -> Self:
        try:
            await self.primary.init()
            await self.primary.start()
            await self._add_replica()
            if self.haproxy is not None:
                await self.haproxy.init()
                await self.haproxy.start()
                await self._wait_switched()
            if self.proxy is not None:
                await self.proxy.__aenter__()
        except BaseException:
            self.destroy()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.proxy is not None:
                await self.proxy.__aexit__(kind, error, trace)
        finally:
            self.destroy()

    def destroy(self) -> None:
        """End all processes at once and remove their files."""
        for server in (self.haproxy, self.replica, self.primary):
            if server is not None:
                server.destroy()

    async def _add_replica(self) -> None:
        await self.replica.init()
        await self.replica.start()
        if self._synchronous:
            await self.primary.set_synchronous(self.replica)

    async def _wait_switched(self) -> None:
        if self.haproxy is not None:  # it begins with holding both for up
            for number, port in enumerate(self._ports, 1):
                state = "UP" if port == self.primary.port else "DOWN"
                await self.haproxy.wait_state(f"primary/postgres{number}", state)

    async def kill_primary(self) -> None:
        """SIGKILL the primary, all of it."""
        await self.primary.kill9()

    async def promote(self) -> float:
        """Let the replica take over; return when clients get through; the seconds that took.

        The old primary is killed if it still runs (or is paused): two of them would be one too
        many. Its data are removed, as they may hold commits that nobody else has.
        """
        begun = asyncio.get_running_loop().time()
        await self.primary.kill9()
        await self.replica.promote()
        old, self.primary = self.primary, self.replica
        old.destroy()
        self.replica = old  # until `rejoin`
        if self.proxy is not None:
            self.proxy.target = (LOOPBACK, self.primary.port)
            self.proxy.cut()
        await self._wait_switched()
        return asyncio.get_running_loop().time() - begun

    async def rejoin(self) -> float:
        """A new replica in the place of the dead server; the seconds that took."""
        begun = asyncio.get_running_loop().time()
        self.replica = self._new_replica(self.replica.port)
        await self._add_replica()
        return asyncio.get_running_loop().time() - begun


async def _main() -> None:
    async with PostgresPair() as pair:
        _log.info("the primary: %s", pair.url)
        for server in (pair.primary, pair.replica):
            _log.info("%s, log %s/log", server, server.directory)
        await until_interrupted()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(_main())
