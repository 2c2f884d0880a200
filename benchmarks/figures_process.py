"""Figures j and k: whole processes; their memory, and requests over sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from statistics import median
from time import perf_counter

from . import client, server
from .figure import Figure
from .figures_growth import grown
from .lab import TABLE, Lab
from .places import Place

ROOT = Path(__file__).resolve().parent.parent
WORKERS = 2
#: Megabytes that a process may be larger at the end, or for more rows: what an allocator keeps.
SLACK = 4
#: Cookies that the processes are given; the same number, however many rows there are.
_COOKIES = 1000


async def memory(lab: Lab, place: Place) -> list[Figure]:
    """j: the resident size, over many requests, and with more rows."""
    ends, figures = [], []
    sizes = (lab.effort.growth[0], lab.effort.growth[-1])
    for rows in sizes:
        async with grown(lab, place, rows) as table:
            lines = lab.directory / "cookies.txt"
            lines.write_bytes(b"\n".join(table.sample.cookies[:_COOKIES]))
            arguments = (table.place.url, table.sessions.table.name, str(lines))
            with lab.bar.step(f"memory, {rows:,} rows", 1):
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "benchmarks.memory", *arguments),
                    str(lab.effort.requests),
                    cwd=ROOT,
                    stdout=asyncio.subprocess.PIPE,
                )
                told = (await process.communicate())[0]
        resident = [size / 1e6 for size in json.loads(told)]
        ends.append(resident[-1])
        figures.append(
            Figure(
                letter="j",
                what=f"resident size after {lab.effort.requests:,} requests against that after"
                f" three tenths of them, {rows:,} rows",
                ours=resident[-1],
                against=resident[2],
                unit="MB",
                values=[resident[-1] - resident[2]],
                sign="MB more",
                bound=SLACK,
            )
        )
    few, many = sizes
    figures.append(
        Figure(
            letter="j",
            what=f"resident size with {many:,} rows against {few:,}",
            ours=ends[1],
            against=ends[0],
            unit="MB",
            values=[ends[1] - ends[0]],
            sign="MB more",
            bound=SLACK,
        )
    )
    return figures


async def over_sockets(lab: Lab, place: Place) -> list[Figure]:
    """k: two workers of uvicorn, against the same with the signed cookie."""
    effort = lab.effort
    ours: list[float] = []
    theirs: list[float] = []
    async with lab.opened(place):  # for the rows
        pass
    async with AsyncExitStack() as stack:
        our_ports = await _workers(place.url, stack)
        cookie_ports = await _workers("", stack)
        mine = client.Load(lab.sample.cookies, lab.directory, "ours")
        signed = client.Load(lab.signed, lab.directory, "cookie")
        with lab.bar.step(f"over sockets, {place.name}", effort.rounds + 1) as tick:
            for number in range(effort.rounds + 1):
                pair = [(mine, our_ports, ours), (signed, cookie_ports, theirs)]
                for load, ports, rates in pair if number % 2 else reversed(pair):
                    rate = await load.per_second(ports, effort.socket_seconds)
                    if number:
                        rates.append(rate)
                tick(number + 1)
    return [
        Figure(
            letter="k",
            what=f"{WORKERS} workers of uvicorn, {client.CONNECTIONS} connections, {place.name},"
            " against the cookie middleware",
            ours=median(ours),
            against=median(theirs),
            unit="requests/s",
            values=[a / b for a, b in zip(ours, theirs, strict=True)],
            bound=0.95,
            at_least=True,
        )
    ]


async def _workers(url: str, stack: AsyncExitStack) -> list[int]:
    """Where they listen. A socket each: of one that they share, a worker may take up to all
    connections, by luck.
    """
    return [await stack.enter_async_context(_served(url)) for _ in range(WORKERS)]


@asynccontextmanager
async def _served(url: str) -> AsyncIterator[int]:
    with socket.socket() as listener:
        # uvicorn sends an answer in two pieces, and would keep the second back until the first is
        # acknowledged: asyncio sees to that only where it has made the socket itself.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # handed down to connections
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "uvicorn", "--factory", "benchmarks.server:make"),
            *("--fd", str(listener.fileno()), "--loop", "asyncio", "--http", "httptools"),
            *("--no-access-log", "--log-level", "warning"),
            cwd=ROOT,
            env={**os.environ, server.URL: url, server.TABLE: TABLE},
            pass_fds=[listener.fileno()],
        )
    try:
        await _answers(port)
        yield port
    finally:
        process.terminate()
        await process.wait()


async def _answers(port: int) -> None:
    """Wait until a server does."""
    until = perf_counter() + 30
    while perf_counter() < until:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            answer = await reader.read()
            writer.close()
        except OSError:  # it does not listen yet
            await asyncio.sleep(0.05)
        else:
            if not answer.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(answer.decode())
            return
    raise RuntimeError("the server did not start")
