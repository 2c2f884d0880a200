"""The proxy does to connections what its controls say, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from tests.servers.process import LOOPBACK, wait_until
from tests.servers.proxy import TcpProxy

Client = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Echo:
    """A server that answers every line by itself, and remembers them."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.open = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while line := await reader.readline():
                self.lines.append(line)
                writer.write(line)
                await writer.drain()
        except ConnectionError:  # cut
            return
        finally:
            self.open -= 1
            writer.close()


@pytest.fixture
async def echo(anyio_backend: str) -> AsyncIterator[tuple[Echo, int]]:
    serve = Echo()
    server = await asyncio.start_server(serve, LOOPBACK)
    yield serve, server.sockets[0].getsockname()[1]
    server.close()
    await until(lambda: not serve.open)


@pytest.fixture
async def proxy(echo: tuple[Echo, int]) -> AsyncIterator[TcpProxy]:
    async with TcpProxy(LOOPBACK, echo[1]) as proxy:
        yield proxy
    assert proxy.open == 0
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)


async def connect(proxy: TcpProxy) -> Client:
    return await asyncio.open_connection(LOOPBACK, proxy.port)


async def ask(client: Client, line: bytes = b"?\n", within: float = 5) -> bytes:
    reader, writer = client
    writer.write(line)
    return await asyncio.wait_for(reader.readline(), within)


async def close(client: Client) -> None:
    client[1].close()
    with contextlib.suppress(ConnectionError):
        await client[1].wait_closed()


async def until(so: Callable[[], bool]) -> None:
    async def condition() -> bool:
        return so()

    await wait_until(condition, "so", timeout=5)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_passes_on_and_counts(proxy: TcpProxy) -> None:
    one, other = await connect(proxy), await connect(proxy)
    assert await ask(one, b"1\n") == b"1\n"
    assert await ask(other, b"2\n") == b"2\n"
    assert (proxy.accepted, proxy.open) == (2, 2)
    assert (proxy.received, proxy.answered) == (4, 4)
    big = b"x" * 60_000 + b"\n"
    assert await ask(one, big) == big
    one[1].write_eof()  # a half-closed connection still gets its answers
    assert await one[0].read() == b""
    await close(one)
    await close(other)
    await until(lambda: not proxy.open)


async def test_refuses(proxy: TcpProxy) -> None:
    client = await connect(proxy)
    proxy.refuse()
    with pytest.raises(ConnectionRefusedError):
        await connect(proxy)
    assert await ask(client) == b"?\n"
    proxy.resume()
    other = await connect(proxy)
    assert await ask(other) == b"?\n"
    await close(client)
    await close(other)


async def test_cuts_with_a_reset(proxy: TcpProxy, echo: tuple[Echo, int]) -> None:
    client = await connect(proxy)
    assert await ask(client) == b"?\n"
    waiting = asyncio.ensure_future(client[0].readline())
    await asyncio.sleep(0)
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(waiting, 5)
    await until(lambda: not echo[0].open)
    other = await connect(proxy)
    assert await ask(other) == b"?\n"
    await close(client)
    await close(other)


async def test_delays_each_way(proxy: TcpProxy) -> None:
    client = await connect(proxy)
    proxy.delay(0.05)
    begun = time.monotonic()
    assert await ask(client) == b"?\n"
    assert 0.1 <= time.monotonic() - begun < 1
    await close(client)


async def test_a_stall_swallows_for_good(proxy: TcpProxy, echo: tuple[Echo, int]) -> None:
    idle, asking = await connect(proxy), await connect(proxy)
    assert await ask(idle) == b"?\n"
    assert await ask(asking) == b"?\n"
    proxy.stall()
    new = await connect(proxy)
    for client in (asking, new):
        with pytest.raises(TimeoutError):
            await ask(client, b"lost\n", within=0.05)
    proxy.resume()
    for client in (asking, new):
        with pytest.raises(TimeoutError):
            await ask(client, b"lost\n", within=0.05)
    assert proxy.silent == 2
    assert await ask(idle) == b"?\n"
    assert b"lost\n" not in echo[0].lines
    for client in (idle, asking, new):
        await close(client)
    await until(lambda: not proxy.open)


async def test_muted_the_question_arrives(proxy: TcpProxy, echo: tuple[Echo, int]) -> None:
    client = await connect(proxy)
    proxy.mute()
    with pytest.raises(TimeoutError):
        await ask(client, b"commit\n", within=0.1)
    assert echo[0].lines == [b"commit\n"]
    proxy.resume()
    proxy.cut()
    with pytest.raises(ConnectionResetError):
        await ask(client)
    await close(client)


async def test_no_server_is_a_reset(proxy: TcpProxy, echo: tuple[Echo, int]) -> None:
    target, proxy.target = proxy.target, (LOOPBACK, 1)  # nobody there
    client = await connect(proxy)
    with pytest.raises(ConnectionResetError):
        assert await ask(client) != b""
    proxy.target = target
    other = await connect(proxy)
    assert await ask(other) == b"?\n"
    await close(client)
    await close(other)


async def test_leaves_nothing_behind(anyio_backend: str, echo: tuple[Echo, int]) -> None:
    before = len(asyncio.all_tasks()), open_files()
    clients = []
    async with TcpProxy(LOOPBACK, echo[1]) as proxy:
        for number in range(20):
            if number == 10:
                proxy.stall()
            clients.append(await connect(proxy))
        proxy.resume()
        assert await ask(clients[0]) == b"?\n"
    for client in clients:
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(client[0].read(), 5)
        await close(client)
    await until(lambda: not echo[0].open)
    await until(lambda: (len(asyncio.all_tasks()), open_files()) == before)
