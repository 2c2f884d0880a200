"""A replicated database is hurt again and again while an app is under load.

python -m tests.cluster.hold galera 10       for ten minutes; or postgresql
"""

from __future__ import annotations

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

from asgi_sessions import Sessions
from tests.cluster.galera import GaleraCluster
from tests.cluster.load import App, Load
from tests.cluster.postgres import PostgresPair
from tests.support import KEY

TABLE = "sessions"

Strikes = Callable[[Load], Awaitable[None]]


async def under_load(
    urls: Sequence[str], nodes: Callable[[], Sequence[str]], strikes: Strikes, *, seed: int
) -> Load:
    """Strike while clients are at work on a process of the app for each URL, then compare what
    the nodes have with what the clients were told.
    """
    async with Sessions(urls[0], secret_key=KEY, table_name=TABLE) as sessions:
        await sessions.create_tables()
    with tempfile.TemporaryDirectory(prefix="asgi-sessions-") as logs:
        async with App(urls, TABLE, Path(logs)) as app:
            load = Load(app.ports, seed=seed)
            async with load.running():
                await load.progress()
                await strikes(load)
                await load.progress()
        if load.model.faults:
            load.log = "\n".join(log.read_text()[-20_000:] for log in Path(logs).iterdir())
    await load.check_rows(nodes(), TABLE)
    return load


# --- Galera ---------------------------------------------------------------------------------------


async def kill_a_node(cluster: GaleraCluster, load: Load, number: int) -> None:
    """A node dies, the others go on, and it comes back."""
    await cluster.kill(number)
    load.report.struck["nodes killed"] += 1
    await cluster.wait_down(number)
    await load.progress()
    await cluster.rejoin(number)
    await cluster.wait_in_step()
    await load.progress()


async def pause_a_node(cluster: GaleraCluster, load: Load, number: int) -> None:
    """A node stands still and goes on, and finds out what it has missed."""
    cluster.pause(number)
    load.report.struck["nodes stopped and resumed"] += 1
    await cluster.wait_down(number)
    await load.progress()
    cluster.unpause(number)
    await cluster.wait_in_step()
    await cluster.wait_up(number)
    await load.progress()


def galera_urls(cluster: GaleraCluster) -> list[str]:
    """For three processes: one node at a time, and all in turn with each driver."""
    return [
        cluster.url,
        cluster.balanced_url,
        cluster.url_at(cluster.balanced_port, "mysql+asyncmy"),
    ]


async def hold_galera(cluster: GaleraCluster, strikes: Strikes, *, seed: int) -> Load:
    """The cluster under load."""
    return await under_load(
        galera_urls(cluster),
        lambda: [node.url for node in cluster.nodes],
        strikes,
        seed=seed,
    )


# --- PostgreSQL -----------------------------------------------------------------------------------


async def kill_the_primary(pair: PostgresPair, load: Load) -> None:
    """The primary dies, the replica takes over, and a new replica comes in."""
    await pair.kill_primary()
    load.report.struck["primaries killed"] += 1
    await _promote(pair, load)


async def stop_the_primary(pair: PostgresPair, load: Load) -> None:
    """The primary says nothing any more; it is killed, so that there is but one."""
    pair.primary.pause()
    load.report.struck["primaries stopped"] += 1
    await load.refusals()
    await _promote(pair, load)


async def _promote(pair: PostgresPair, load: Load) -> None:
    await pair.promote()
    load.report.struck["replicas promoted"] += 1
    await load.progress()
    await pair.rejoin()
    await load.progress()


async def pause_the_replica(pair: PostgresPair, load: Load) -> None:
    """The replica stands still: nothing can be confirmed until it goes on."""
    pair.replica.pause()
    load.report.struck["replicas stopped and resumed"] += 1
    await load.refusals()
    pair.replica.unpause()
    await load.progress()


async def hold_postgres(pair: PostgresPair, strikes: Strikes, *, seed: int) -> Load:
    """The pair under load."""
    return await under_load([pair.url, pair.url], lambda: [pair.primary.url], strikes, seed=seed)


# --- for long -------------------------------------------------------------------------------------


async def _main(engine: str, minutes: float, seed: int) -> None:
    choice = random.Random(seed)  # noqa: S311 -- no secret

    if engine == "galera":
        async with GaleraCluster() as cluster:

            async def galera(load: Load) -> None:
                until = time.monotonic() + 60 * minutes
                while time.monotonic() < until:
                    strike = choice.choice([kill_a_node, pause_a_node])
                    await strike(cluster, load, choice.randrange(len(cluster.nodes)))

            load = await hold_galera(cluster, galera, seed=seed)
    else:
        async with PostgresPair() as pair:

            async def postgresql(load: Load) -> None:
                until = time.monotonic() + 60 * minutes
                while time.monotonic() < until:
                    strike = choice.choice([kill_the_primary, stop_the_primary, pause_the_replica])
                    await strike(pair, load)

            load = await hold_postgres(pair, postgresql, seed=seed)
    for line in [f"seed {seed}", *load.report.lines(load.model), *load.model.faults[:20], load.log]:
        sys.stdout.write(f"{line}\n")
    sys.exit(bool(load.model.faults))


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1], float(sys.argv[2]), random.randrange(1 << 32)))  # noqa: S311 -- as above
