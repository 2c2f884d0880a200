"""Mixed traffic on two processes of an app over one database, every answer checked.

python -m tests.cluster.mixed URL 1000000    for a million requests; ends with the figures
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from pathlib import Path

from sqlalchemy.schema import DropTable

from asgi_sessions import Sessions
from tests.cluster.load import App, Load
from tests.support import KEY

#: Seconds for which ended sessions are kept: few, so that purges have something to do.
KEEP = 5.0
#: Seconds that the database may take: nothing goes wrong here, so that nobody is refused, however
#: busy the machine is.
PATIENCE = 15.0


async def mixed(url: str, table: str, requests: int, *, seed: int, people: int = 64) -> Load:
    """Logins, resumes, renewals, logouts, revocations from elsewhere, lists and purges, until so
    many requests have been answered.
    """
    async with Sessions(url, secret_key=KEY, table_name=table) as sessions:
        await sessions.create_tables()
        try:
            with tempfile.TemporaryDirectory(prefix="asgi-sessions-") as logs:
                async with App([url, url], table, Path(logs), KEEP, PATIENCE) as app:
                    load = Load(
                        app.ports,
                        seed=seed,
                        people=people,
                        administrators=max(people // 8, 2),
                        thinking=0,
                        keep=KEEP,
                    )
                    async with load.running():
                        await load.progress(requests, within=3600)
                if load.model.faults:
                    load.log = "\n".join(log.read_text()[-20_000:] for log in Path(logs).iterdir())
            await load.check_rows([url], table)
        finally:
            await sessions.database.execute(DropTable(sessions.table, if_exists=True))
    return load


async def _main(url: str, requests: int, seed: int) -> None:
    begun = time.monotonic()
    load = await mixed(url, f"mixed_{seed}", requests, seed=seed)
    took = time.monotonic() - begun
    lines = [f"seed {seed}, {took:.0f} s", *load.report.lines(load.model), *load.model.faults[:20]]
    sys.stdout.write("\n".join([*lines, load.log, ""]))
    sys.exit(bool(load.model.faults))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], int(sys.argv[2]), random.randrange(1 << 32)))  # noqa: S311 -- as in hold
