"""A process that serves many requests and tells its resident size meanwhile.

``python -m benchmarks.memory URL TABLE COOKIES REQUESTS`` prints a JSON list of bytes.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from random import Random

import psutil

from asgi_sessions import Sessions

from .apps import KEY, ours
from .load import App, RequestContext, ask, cost, log_in, requests

#: Sizes that are told, after as many requests each.
SAMPLES = 10
#: Of so many requests one is a login, followed by its logout.
LOGIN = 200


async def watch(url: str, table: str, cookies: list[bytes], total: int) -> list[int]:
    """Serve, and tell the resident size after each tenth."""
    async with Sessions(url, secret_key=KEY, table_name=table) as sessions:
        app = ours(sessions)
        # Mostly resumes; every tenth request has no cookie, or one that does not verify.
        forged = [cookie[:-6] + b"AAAAAA" for cookie in cookies[: len(cookies) // 9]]
        random = Random(6)
        resume = requests(app, "/me", [*cookies, *forged, None])

        async def call() -> None:
            if random.randrange(LOGIN):
                await resume()
            else:
                await _in_and_out(app, f"person-{random.randrange(20_000)}")

        return [await _size_after(call, total // SAMPLES) for _ in range(SAMPLES)]


async def _size_after(call: RequestContext, total: int) -> int:
    await cost(call, total, 64)
    return int(psutil.Process().memory_info().rss)


async def _in_and_out(app: App, person: str) -> None:
    cookie = await log_in(app, person)
    await ask(app, "/logout", cookie, method="POST")


def main() -> None:
    """Read the arguments."""
    url, table, cookies, total = sys.argv[1:]
    lines = Path(cookies).read_bytes().splitlines()
    sys.stdout.write(json.dumps(asyncio.run(watch(url, table, lines, int(total)))))


if __name__ == "__main__":
    main()
