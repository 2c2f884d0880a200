"""Requests over sockets: by wrk where it is installed, else by a client of our own."""

from __future__ import annotations

import asyncio
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from time import perf_counter

from .load import USER_AGENT

#: At all servers together.
CONNECTIONS = 64

_LUA = """
local cookies = {}
for line in io.lines("%s") do cookies[#cookies + 1] = line end
local prepared = {}
init = function(args)
  for i, cookie in ipairs(cookies) do
    prepared[i] = wrk.format("GET", "/me", {["User-Agent"] = "%s", ["Cookie"] = cookie})
  end
end
request = function() return prepared[math.random(#prepared)] end
"""


@dataclass(frozen=True)
class Load:
    """Keeps the connections busy."""

    cookies: Sequence[bytes]
    directory: Path
    name: str

    async def per_second(self, ports: Sequence[int], seconds: int) -> float:
        """Requests answered per second, by all together.

        Args:
            ports: where servers listen; each gets its share of the connections.
            seconds: how long.
        """
        each = CONNECTIONS // len(ports)
        wrk = shutil.which("wrk")
        work = (
            self._own(port, each, seconds) if wrk is None else self._wrk(wrk, port, each, seconds)
            for port in ports
        )
        return sum(await asyncio.gather(*work))

    async def _wrk(self, wrk: str, port: int, connections: int, seconds: int) -> float:
        lines, script = (self.directory / f"{self.name}.{end}" for end in ("txt", "lua"))
        if not script.exists():
            lines.write_bytes(b"\n".join(self.cookies) + b"\n")
            script.write_text(_LUA % (lines, USER_AGENT))
        process = await asyncio.create_subprocess_exec(
            wrk,
            *("-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script)),
            f"http://127.0.0.1:{port}/me",
            stdout=asyncio.subprocess.PIPE,
        )
        told = (await process.communicate())[0].decode()
        rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
        if rate is None or "Non-2xx" in told or "Socket errors" in told:
            raise RuntimeError(f"wrk: {told}")
        return float(rate[1])

    async def _own(self, port: int, connections: int, seconds: int) -> float:
        random = Random(7)
        prepared = [
            b"GET /me HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: %b\r\nCookie: %b\r\n\r\n"
            % (USER_AGENT.encode(), cookie)
            for cookie in self.cookies
        ]
        start = perf_counter()

        async def connection() -> int:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            count = 0
            while perf_counter() - start < seconds:
                writer.write(random.choice(prepared))
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head)
                if not head.startswith(b"HTTP/1.1 200") or length is None:
                    raise RuntimeError(head.decode())
                await reader.readexactly(int(length[1]))
                count += 1
            writer.close()
            return count

        counts = await asyncio.gather(*(connection() for _ in range(connections)))
        return sum(counts) / (perf_counter() - start)


def tool() -> str:
    """Which client it is."""
    return "wrk" if shutil.which("wrk") else "the bundled client"
