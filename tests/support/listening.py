"""The private listener without a database: a server, and a connection, that obey a test."""

from __future__ import annotations

from collections.abc import Callable

from asgi_sessions._database.drivers.asyncpg import AsyncpgDriver
from asgi_sessions._database.pools.base import Line
from asgi_sessions._store.listener import Listener


class Connection(Line):
    """What the listener asks of asyncpg's, lent by itself."""

    def __init__(self) -> None:
        self.raw = self
        self.log: list[str] = []
        self.hear: Callable[..., None] = print
        self.lose: Callable[..., None] = print
        self.dead = False

    def add_termination_listener(self, lose: Callable[..., None]) -> None:
        self.lose = lose

    async def add_listener(self, channel: str, hear: Callable[..., None]) -> None:
        self.log.append(f"listen {channel}")
        self.hear = hear

    async def remove_listener(self, channel: str, hear: Callable[..., None]) -> None:
        self.log.append(f"unlisten {channel}")

    async def execute(self, sql: str) -> None:
        self.log.append(sql)
        if self.dead:
            raise OSError("no answer")

    async def give_back(self, *, broken: bool) -> None:
        self.log.append("close")
        if self.dead:
            raise OSError("no answer")

    def terminate(self) -> None:
        self.log.append("terminate")
        raise RuntimeError("the event loop is closed")

    def says(self, word: str) -> None:
        self.hear(self, 1, "ended", word)


class Server:
    """Where a listener listens."""

    def __init__(self) -> None:
        self.connections: list[Connection] = []
        self.faults: list[Exception] = []
        self.echoes = True
        self.heard: list[str] = []
        self.ready = 0

    async def connect(self) -> Connection:
        if self.faults:
            raise self.faults.pop(0)
        self.connections.append(Connection())
        return self.connections[-1]

    async def tell(self, word: str) -> None:
        if self.echoes:
            self.connections[-1].says(word)
            self.connections[-1].says(word)

    def is_ready(self) -> None:
        self.ready += 1

    def listener(self, timeout: float = 5) -> Listener:
        return Listener(
            self.connect,
            AsyncpgDriver(),
            "ended",
            tell=self.tell,
            heard=self.heard.append,
            ready=self.is_ready,
            timeout=timeout,
        )


async def stopped(listener: Listener) -> None:
    listener.stop()
    await listener.stopped()
