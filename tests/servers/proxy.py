"""A TCP proxy that can delay, cut, refuse and fall silent."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from types import TracebackType
from typing import Self

from tests.servers.process import LOOPBACK, free_port

_CHUNK = 1 << 16
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER: on, for 0 s


class TcpProxy:
    """Passes TCP connections from a loopback port on to `host:port`, until told otherwise.

        async with TcpProxy("127.0.0.1", 5432) as proxy:
            ...  # connect to proxy.port
            proxy.cut()

    The controls take effect at once, or at the next turn of the event loop (`cut`), and can be
    combined: `proxy.stall(); proxy.cut()`. `target` may be changed: new connections go there.

    If the target cannot be reached, a client's connection is accepted and then reset, as by any
    proxy; `refuse` is what a client sees of a host without the server.
    """

    def __init__(self, host: str, port: int, *, listen_port: int | None = None) -> None:
        self.target = (host, port)
        self.host = LOOPBACK
        self.port = free_port() if listen_port is None else listen_port
        #: All connections ever accepted.
        self.accepted = 0
        #: Bytes that came from clients; those of the servers.
        self.received = self.answered = 0
        self._delay = 0.0
        self._stalled = False
        self._muted = False
        self._fault: BaseException | None = None
        self._listener: socket.socket | None = None
        self._connections: dict[asyncio.Task[None], _Connection] = {}

    @property
    def open(self) -> int:
        """How many connections there are now."""
        return len(self._connections)

    @property
    def silent(self) -> int:
        """How many of them have lost data, and will never be answered."""
        return sum(bool(connection.lost) for connection in self._connections.values())

    async def __aenter__(self) -> Self:
        self._listen()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse()
        self.cut()
        if self._connections:
            await asyncio.wait(self._connections)
        if self._fault is not None:
            raise self._fault

    def refuse(self) -> None:
        """New connections are refused (ECONNREFUSED); those that exist go on."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def cut(self) -> None:
        """Reset (RST) all connections, on both sides; new ones are welcome."""
        for task, connection in self._connections.items():
            connection.reset = True
            task.cancel()

    def delay(self, seconds: float) -> None:
        """Hold back what is sent, in both directions, by so much each: twice that is added to
        a question and its answer. (Only 64 KiB are under way at a time.)"""
        self._delay = seconds

    def stall(self) -> None:
        """Accept connections and data, pass nothing on, answer nothing: a black hole.

        A connection that has lost data, or was made meanwhile, stays silent after `resume`, as
        those that a firewall has forgotten: neither end hears of it, until it gives up or `cut`.
        One that was idle all the time is as good as before.
        """
        self._stalled = True

    def forget(self) -> None:
        """All connections that there are stay silent from now on, as behind a load balancer that
        has forgotten them without a word; new ones are as good as ever.
        """
        for connection in self._connections.values():
            connection.lost |= {connection.client, connection.server}

    def mute(self) -> None:
        """Pass questions on, and swallow the answers: what was asked is done, and nobody knows.

        As with `stall`, a connection that has lost an answer stays silent after `resume`.
        """
        self._muted = True

    def resume(self) -> None:
        """End `refuse`, `stall`, `mute` and `delay`."""
        self._delay = 0.0
        self._stalled = self._muted = False
        self._listen()

    def _listen(self) -> None:
        if self._listener is None:
            listener = socket.socket()
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setblocking(False)
                listener.bind((self.host, self.port))
                listener.listen(1024)
                asyncio.get_running_loop().add_reader(listener, self._accept, listener)
            except BaseException:
                listener.close()
                raise
            self._listener = listener

    def _accept(self, listener: socket.socket) -> None:
        try:
            client, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):  # it is gone already
            return
        self.accepted += 1
        connection = _Connection(client)
        task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._connections[task] = connection
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._connections.pop(task).close()
        if not task.cancelled():
            self._fault = self._fault or task.exception()  # of the proxy's own

    async def _serve(self, connection: _Connection) -> None:
        client, server = connection.client, connection.server
        if self._stalled:
            connection.lost |= {client, server}
        else:
            try:
                await asyncio.get_running_loop().sock_connect(server, self.target)
            except OSError:
                connection.reset = True
                return
        try:
            async with asyncio.TaskGroup() as pumps:
                pumps.create_task(self._pump(connection, client, server))
                if not connection.lost:
                    pumps.create_task(self._pump(connection, server, client))
        except* OSError:  # one side is gone, without a goodbye: so is the other
            connection.reset = True

    async def _pump(
        self, connection: _Connection, source: socket.socket, sink: socket.socket
    ) -> None:
        loop = asyncio.get_running_loop()
        answers = source is connection.server
        while True:
            data = await loop.sock_recv(source, _CHUNK)
            if answers:
                self.answered += len(data)
            else:
                self.received += len(data)
            if self._delay:
                await asyncio.sleep(self._delay)
            if self._stalled or (self._muted and answers):
                connection.lost.add(sink)
            if sink in connection.lost:
                if not data and not answers:
                    raise ConnectionResetError  # the client has given up: nobody is left
            elif data:
                await loop.sock_sendall(sink, data)
            else:
                with contextlib.suppress(OSError):  # the other side may have closed as well
                    sink.shutdown(socket.SHUT_WR)
            if not data:
                return


class _Connection:
    """The two sockets of a connection."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server = socket.socket()
        #: Those to which nothing is sent any more, because something has been swallowed.
        self.lost: set[socket.socket] = set()
        self.reset = False
        for end in (self.client, self.server):
            end.setblocking(False)
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close both, politely or not."""
        for end in (self.client, self.server):
            if self.reset:
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            end.close()
