"""Start a server, print its URL, and end it at Ctrl-C.

python -m tests.servers postgresql|mariadb|mysql
python -m tests.servers pgbouncer URL
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from tests.servers.mariadb import MariaDBServer
from tests.servers.mysql import MySQLServer
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.process import until_interrupted

Started = PostgresServer | MariaDBServer | PgBouncer

_KINDS: dict[str, Callable[..., Started]] = {
    "postgresql": PostgresServer,
    "mariadb": MariaDBServer,
    "mysql": MySQLServer,
    "pgbouncer": PgBouncer,
}


async def _main(kind: str, *server_url: str) -> None:
    async with _KINDS[kind](*server_url) as server:
        sys.stdout.write(f"{server.url}\n")
        sys.stdout.flush()
        await until_interrupted()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
