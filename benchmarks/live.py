"""``python -m benchmarks.live``: many open sockets and streams in one process.

What they hold, how soon all of them end with the sessions of a person, what the check costs, how
soon a process hears of an end in another, and what `end_streams` costs a short response. On
SQLite, and on each server of TEST_DATABASE_URLS, in a database of its own that is dropped
afterwards. Takes less than two minutes for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

from asgi_sessions import Sessions

from . import live_app
from .apps import KEY, ours
from .load import Contender, contest, log_in, percentile, ratios, requests
from .places import Place, places

ROOT = Path(__file__).resolve().parent.parent
#: Seconds after which it gives up, for each database.
PATIENCE = 120
#: Ends whose latency is measured.
ENDS = 100
_AT_ONCE = 50

Line = tuple[str, str]


@asynccontextmanager
async def served(url: str, *, notify: bool = False) -> AsyncIterator[int]:
    """A server of one process, and its port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--factory", "benchmarks.live_app:make"),
        *("--port", str(port), "--loop", "asyncio", "--backlog", "4096"),
        *("--no-access-log", "--log-level", "error", "--timeout-graceful-shutdown", "1"),
        cwd=ROOT,
        env={**os.environ, live_app.URL: url, live_app.NOTIFY: "1" if notify else ""},
    )
    try:
        while True:
            try:
                await get(port, "/size")
            except OSError:  # it does not listen yet
                await asyncio.sleep(0.05)
            else:
                break
        yield port
    finally:
        process.terminate()
        await process.wait()


async def get(port: int, path: str) -> str:
    """The body of an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n\r\n")[2].decode()


class Open:
    """A socket or stream, from the browser's side.

    Args:
        path: ``/socket`` or ``/events``.
        cookie: of its session.
    """

    def __init__(self, path: str, cookie: bytes) -> None:
        self._path = path
        self._cookie = cookie
        self.closed_at = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self, port: int) -> None:
        """Until the app has it."""
        reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        upgrade = (
            b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        )
        self._writer.write(
            b"GET %s HTTP/1.1\r\nHost: a\r\nCookie: %s\r\n%s\r\n"
            % (self._path.encode(), self._cookie, upgrade if self._path == "/socket" else b"")
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if self._path == "/events":
            await reader.readuntil(b"data: hello\n\n\r\n")
        elif b" 101 " not in head:
            raise RuntimeError(head.decode())
        self._task = asyncio.create_task(self._wait(reader))

    async def _wait(self, reader: asyncio.StreamReader) -> None:
        if self._path == "/events":
            if await reader.readexactly(5) != b"0\r\n\r\n":  # the last chunk
                raise RuntimeError("the stream did not end cleanly")
        else:
            frame = await reader.readexactly(4)
            if (frame[0], int.from_bytes(frame[2:4])) != (0x88, 1008):
                raise RuntimeError(f"not closed: {frame!r}")
        self.closed_at = perf_counter()
        self._writer.close()

    async def ended(self) -> float:
        """When it was closed."""
        if self._task is None:
            raise RuntimeError("start it first")
        await self._task
        return self.closed_at

    async def leave(self) -> None:
        """Close it from here."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._writer.close()


async def open_all(port: int, path: str, cookies: list[bytes]) -> list[Open]:
    """One for each cookie."""
    all_of_them = [Open(path, cookie) for cookie in cookies]
    for start in range(0, len(all_of_them), _AT_ONCE):
        await asyncio.gather(*(one.start(port) for one in all_of_them[start : start + _AT_ONCE]))
    return all_of_them


async def size(port: int) -> int:
    """The server's resident size."""
    return int(await get(port, "/size"))


async def memory(url: str, path: str, cookies: list[bytes]) -> float:
    """Kilobytes for each that is open."""
    async with served(url) as port:
        for one in await open_all(port, path, cookies[:_AT_ONCE]):  # what is made once
            await one.leave()
        before = await size(port)
        opened = await open_all(port, path, cookies)
        grown = await size(port) - before
        for one in opened:
            await one.leave()
    return grown / len(cookies) / 1000


async def until_all_ended(
    port: int, path: str, cookies: list[bytes], end: Callable[[], Awaitable[object]]
) -> tuple[float, float]:
    """Seconds until the last was closed, and until the end was answered."""
    opened = await open_all(port, path, cookies)
    await asyncio.sleep(1)  # a first check, a listener
    start = perf_counter()
    await end()
    answered = perf_counter() - start
    closed = [await one.ended() for one in opened]
    return max(closed) - start, answered


class Bench:
    """What is measured at one database.

    Args:
        place: the database.
        sessions: another process of the app: this one.
        count: how many are open.
    """

    def __init__(self, place: Place, sessions: Sessions, count: int) -> None:
        self._place = place
        self._sessions = sessions
        self._count = count
        self._app = ours(sessions)
        self._notify = place.kind == "postgresql"

    async def cookies(self, person: str, count: int) -> list[bytes]:
        """Sessions of a person, each of its own."""
        found: list[bytes] = []
        for _ in range(0, count, _AT_ONCE):
            found += await asyncio.gather(*(log_in(self._app, person) for _ in range(_AT_ONCE)))
        if self._notify:  # else it keeps the plans that it made while the table was empty
            await self._sessions.database.execute(f"ANALYZE {self._sessions.table.name}")
        return found[:count]

    async def memory(self) -> AsyncIterator[Line]:
        """What each holds."""
        cookies = await self.cookies("memory", self._count)
        for path in ("/socket", "/events"):
            bare = await memory("", path, cookies)
            with_us = await memory(self._place.url, path, cookies)
            text = f"{with_us:.1f} kB, {bare:.1f} kB of it without the middleware"
            yield f"memory for each of {self._count:,} at {path}", text

    async def ends(self) -> AsyncIterator[Line]:
        """How soon all are closed."""
        for notify in (False, True) if self._notify else (False,):
            async with served(self._place.url, notify=notify) as port:
                for path in ("/socket", "/events"):
                    for where in ("the same process", "another process"):
                        person = f"{path} {where} {notify}"
                        cookies = await self.cookies(person, self._count)

                        async def there(person: str = person) -> object:
                            return await self._sessions.end_all_sessions(person)

                        async def here(person: str = person) -> object:
                            return await get(port, f"/end-all?person={person.replace(' ', '+')}")

                        end = here if where == "the same process" else there
                        last, answered = await until_all_ended(port, path, cookies, end)
                        how = "NOTIFY" if notify else f"checked every {live_app.CHECK} s"
                        what = f"all {self._count:,} at {path} closed, ended in {where}, {how}"
                        yield what, f"{last * 1000:,.0f} ms (answered in {answered * 1000:,.0f} ms)"

    async def latency(self) -> AsyncIterator[Line]:
        """How soon one of many is closed."""
        if not self._notify:
            return
        async with served(self._place.url, notify=True) as port:
            others = await open_all(port, "/socket", await self.cookies("other", self._count))
            cookies = await self.cookies("one", ENDS)
            taken = []
            opened = await open_all(port, "/socket", cookies)
            await asyncio.sleep(1)
            for one, cookie in zip(opened, cookies, strict=True):
                sid = cookie.partition(b"=")[2].partition(b".")[0].decode()
                start = perf_counter()
                await self._sessions.end_session_by_id(sid)
                taken.append((await one.ended() - start) * 1000)
            for one in others:
                await one.leave()
        text = f"median {median(taken):.1f} ms, 99 of 100 below {percentile(taken, 99):.1f} ms"
        yield f"one socket closed, ended in another process, beside {self._count:,}, NOTIFY", text

    async def check(self) -> AsyncIterator[Line]:
        """What the check of all that is open costs."""
        live_connections = self._sessions._core.live_connections
        people = await self._sessions.list_sessions("memory", limit=self._count)
        leaves = [live_connections.add(session.id, lambda: None) for session in people]
        await live_connections.check()  # the statement is made once
        wall, busy = [], []
        for _ in range(20):
            start, spent = perf_counter(), process_time()
            await live_connections.check()
            wall.append((perf_counter() - start) * 1000)
            busy.append((process_time() - spent) * 1000)
        for leave in leaves:
            leave()
        text = f"{median(wall):.1f} ms, {median(busy):.1f} ms of it on this process's CPU"
        yield f"a check of {len(people):,} sessions: one SELECT", text

    async def short(self) -> AsyncIterator[Line]:
        """What a short response costs more."""
        cookies = await self.cookies("short", 200)
        async with Sessions(self._place.url, secret_key=KEY, end_streams=True) as ending:
            pair = [("with", ours(ending)), ("without", self._app)]
            rounds = await contest(
                [Contender(name, requests(app, "/me", cookies), 64) for name, app in pair],
                rounds=11,
                seconds=0.5,
            )
        ratio = median(ratios(rounds["with"], rounds["without"]))
        least = min(rounds["with"]) / min(rounds["without"])
        text = f"{ratio:.3f} × (the fastest rounds: {least:.3f} ×)"
        yield "a short response with end_streams=True against one without", text

    async def all(self) -> AsyncIterator[Line]:
        """Everything."""
        for part in (self.memory, self.ends, self.latency, self.check, self.short):
            async for line in part():
                yield line


async def measure(place: Place, count: int) -> list[Line]:
    """Measure at one database, and say so meanwhile."""
    lines = []
    async with Sessions(place.url, secret_key=KEY, notify=place.kind == "postgresql") as sessions:
        await sessions.create_tables()
        async for what, text in Bench(place, sessions, count).all():
            lines.append((what, text))
            sys.stdout.write(f"| {place.name} | {what} | {text} |\n")
            sys.stdout.flush()
    return lines


async def run(count: int, urls: list[str], directory: Path) -> None:
    """Measure at each database, and write."""
    sys.stdout.write("| | | |\n|---|---|---|\n")
    told = {}
    with places(urls, directory) as found:
        for place in found:
            async with asyncio.timeout(PATIENCE):
                told[place.name] = await measure(place, count)
    out = ROOT / "benchmarks" / "out"
    out.mkdir(exist_ok=True)
    (out / "live.json").write_text(json.dumps(told, indent=1))


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live")
    parser.add_argument("--connections", type=int, default=1000, help="open at once; 1000")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # a login is logged, too
    urls = os.environ.get("TEST_DATABASE_URLS", "").split()
    with TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as directory:
        asyncio.run(run(options.connections, urls, Path(directory)))


if __name__ == "__main__":
    main()
