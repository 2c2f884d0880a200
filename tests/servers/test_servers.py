"""The servers do what the outage tests need of them: start, die, come back, and leave nothing."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.galera import GaleraCluster
from tests.cluster.postgres import PostgresPair
from tests.servers.mariadb import MariaDBServer
from tests.servers.mysql import MySQLServer
from tests.servers.pgbouncer import PgBouncer
from tests.servers.postgres import PostgresServer
from tests.servers.process import LOOPBACK, Server, ServerError, is_running, wait_until
from tests.servers.proxy import TcpProxy
from tests.support.repository import ROOT

pytestmark = pytest.mark.servers


def driver(name: str) -> Any:
    """A driver: without types, and perhaps not there where these tests do not run."""
    return importlib.import_module(name)


def dead() -> tuple[type[Exception], ...]:
    """What a client gets to see when a server goes, and until it is back."""
    return (
        OSError,  # ConnectionError, TimeoutError
        driver("asyncpg").PostgresError,
        driver("asyncpg").InterfaceError,
        driver("asyncpg").InternalClientError,  # "cannot switch to state 12; another operation ..."
        driver("aiomysql").MySQLError,
    )


async def postgres(url: str, *statements: str, **options: Any) -> Any:
    """The last statement's first value."""
    connection = await driver("asyncpg").connect(url, timeout=5, command_timeout=5, **options)
    try:
        value = None
        for statement in statements:
            value = await connection.fetchval(statement)
        return value
    finally:
        connection.terminate()


async def mysql(port: int, *statements: str) -> Any:
    """The last statement's first value."""
    async with asyncio.timeout(5):
        connection = await driver("aiomysql").connect(
            host=LOOPBACK, port=port, user="root", db="test", autocommit=True
        )
    try:
        row = None
        async with asyncio.timeout(5), connection.cursor() as cursor:
            for statement in statements:
                await cursor.execute(statement)
                row = await cursor.fetchone()
        return row and row[0]
    finally:
        connection.close()


async def until_done(action: Callable[[], Awaitable[object]], within: float = 10) -> float:
    """Try until it works, as an app would; the seconds that took."""
    begun = time.monotonic()
    while True:
        try:
            await action()
        except dead():
            if time.monotonic() - begun > within:
                raise
            await asyncio.sleep(0.05)
        else:
            return time.monotonic() - begun


@contextlib.asynccontextmanager
async def nothing_left(*servers: Server) -> AsyncIterator[list[int]]:
    """Their pids are gathered in the list; they and their directories are gone at the end."""
    pids: list[int] = []
    directories: list[Path] = []
    try:
        async with contextlib.AsyncExitStack() as stack:
            for server in servers:
                await stack.enter_async_context(server)
                pids.append(server.pid)
                directories.append(server.directory)
            yield pids
    finally:
        assert not [pid for pid in pids if is_running(pid)]
        assert not [directory for directory in directories if directory.exists()]


async def test_postgres_is_killed_and_recovers() -> None:
    server = PostgresServer()
    async with nothing_left(server) as pids:
        await postgres(server.url, "CREATE TABLE t (i int)", "INSERT INTO t VALUES (1)")
        open_connection = await driver("asyncpg").connect(server.url)
        await server.kill9()
        with pytest.raises(dead()):
            await open_connection.fetchval("SELECT 1")
        with pytest.raises(ConnectionRefusedError):
            await postgres(server.url, "SELECT 1")
        await server.start()
        pids.append(server.pid)
        assert await postgres(server.url, "SELECT i FROM t") == 1
        await server.restart()
        pids.append(server.pid)
        assert await postgres(server.url, "SELECT i FROM t") == 1
        server.pause()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(postgres(server.url, "SELECT 1"), 0.2)
        server.unpause()
        assert await postgres(server.url, "SELECT 1") == 1
        await server.stop()
        assert not server.running


async def test_mariadb_is_killed_and_recovers() -> None:
    server = MariaDBServer()
    async with nothing_left(server) as pids:
        await mysql(server.port, "CREATE TABLE t (i int)", "INSERT INTO t VALUES (1)")
        await server.kill9()
        with pytest.raises(dead(), match="Can't connect"):
            await mysql(server.port, "SELECT 1")
        await server.start()
        pids.append(server.pid)
        assert await mysql(server.port, "SELECT i FROM t") == 1
        await server.restart()
        pids.append(server.pid)
        assert await mysql(server.port, "SELECT i FROM t") == 1


async def test_a_server_behind_the_proxy() -> None:
    async with PostgresServer() as server, TcpProxy(LOOPBACK, server.port) as proxy:
        url = server.url_at(proxy.port)
        connection = await driver("asyncpg").connect(url)
        assert await connection.fetchval("SELECT 1") == 1
        asleep = asyncio.ensure_future(connection.fetchval("SELECT pg_sleep(5)"))
        await asyncio.sleep(0.1)
        proxy.cut()
        with pytest.raises(dead()):
            await asleep
        proxy.mute()  # what is committed and never answered
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(postgres(url, "SELECT 1"), 0.2)
        proxy.resume()
        assert await postgres(url, "SELECT 1") == 1
        assert await server.sql("SELECT 1") == "1"


async def test_pgbouncer_shares_two_connections_among_twenty_clients() -> None:
    server = PostgresServer()
    async with server, PgBouncer(server.url, settings={"default_pool_size": "2"}) as bouncer:
        pool = await driver("asyncpg").create_pool(
            bouncer.url, min_size=20, max_size=20, statement_cache_size=0
        )

        async def ask(number: int) -> None:
            for turn in range(20):
                text = f"SELECT $1::int + {number} + {turn}"
                assert await pool.fetchval(text, 1) == 1 + number + turn

        await asyncio.gather(*(ask(number) for number in range(20)))
        backends = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
        assert int(await server.sql(backends)) <= 2 + 1  # and the one that asks

        await server.restart()
        assert await until_done(lambda: pool.fetchval("SELECT 1")) < 2
        pool.terminate()


async def test_a_server_that_does_not_start_says_why() -> None:
    server = PostgresServer(settings={"shared_buffers": "much"})
    with pytest.raises(ServerError, match='invalid value for parameter "shared_buffers"'):
        async with server:
            pass
    assert not server.running


@pytest.mark.parametrize(
    ("variable", "kind"),
    [
        ("TEST_POSTGRESQL", PostgresServer),
        ("TEST_MARIADB", MariaDBServer),
        ("TEST_MYSQL", MySQLServer),
    ],
)
def test_a_folder_without_the_server_is_not_made_up_for_by_another_version(
    variable: str, kind: type[Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    server = kind(directory=tmp_path)
    server.make_directory()
    with pytest.raises(ServerError, match=f"{variable}={tmp_path} has no"):
        server.command()
    server.destroy()


async def test_an_exception_ends_the_servers() -> None:
    server = PostgresServer()
    with pytest.raises(ZeroDivisionError):
        async with nothing_left(server):
            raise ZeroDivisionError


def test_a_killed_script_takes_its_servers_along(tmp_path: Path) -> None:
    code = (
        "import asyncio\n"
        "from pathlib import Path\n"
        "from tests.servers.mariadb import MariaDBServer\n"
        "async def main():\n"
        "    async with MariaDBServer() as server:\n"
        "        print(server.pid, server.directory, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    for number in (signal.SIGINT, signal.SIGKILL):
        with subprocess.Popen(
            [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as script:
            assert script.stdout is not None
            pid, directory = script.stdout.readline().decode().split()
            assert is_running(int(pid))
            script.send_signal(number)
            script.wait(10)
            deadline = time.monotonic() + 5
            while is_running(int(pid)) and time.monotonic() < deadline:
                time.sleep(0.01)
        assert not is_running(int(pid))
        if number == signal.SIGINT:
            assert not Path(directory).exists()
        else:  # nobody was left to remove it
            subprocess.run(["rm", "-r", directory], check=True)


@pytest.mark.parametrize("front", ["haproxy", "proxy"])
async def test_the_replica_takes_over(front: Any) -> None:
    async with PostgresPair(front=front) as pair:
        await postgres(pair.url, "CREATE TABLE t (i int PRIMARY KEY)")
        for number in range(30):
            await postgres(pair.url, f"INSERT INTO t VALUES ({number})")  # noqa: S608 -- a number
        await pair.kill_primary()
        assert await pair.promote() < 5
        assert await until_done(lambda: postgres(pair.url, "INSERT INTO t VALUES (1000)")) < 2
        assert await postgres(pair.url, "SELECT count(*) FROM t WHERE i < 1000") == 30

        await pair.rejoin()
        await postgres(pair.url, "INSERT INTO t VALUES (1001)")
        await pair.replica.kill9()  # nobody is there to confirm
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(postgres(pair.url, "INSERT INTO t VALUES (1002)"), 0.5)
        await pair.replica.start()
        await postgres(pair.url, "INSERT INTO t VALUES (1003)")

        pair.primary.pause()  # alive, and must not come back
        await pair.promote()
        await until_done(lambda: postgres(pair.url, "INSERT INTO t VALUES (1004)"))
        assert await postgres(pair.url, "SELECT count(*) FROM t WHERE i IN (1000, 1001, 1003)") == 3


async def test_galera_loses_a_node_and_takes_it_back() -> None:
    begun = time.monotonic()
    async with GaleraCluster() as cluster:
        assert time.monotonic() - begun < 30
        writer, balanced = cluster.haproxy.port, cluster.balanced_port
        await mysql(writer, "CREATE TABLE t (i int PRIMARY KEY)")
        names = {await mysql(balanced, "SELECT @@wsrep_node_name") for _ in range(6)}
        assert names == {"node1", "node2", "node3"}
        assert await mysql(writer, "SELECT @@wsrep_node_name") == "node1"

        async def insert(number: int) -> None:
            statement = f"INSERT IGNORE INTO t VALUES ({number})"  # noqa: S608 -- a number
            await until_done(lambda: mysql(writer, statement))

        async def count() -> list[object]:
            return [await mysql(node.port, "SELECT count(*) FROM t") for node in cluster.nodes]

        await insert(1)
        await cluster.kill(0)
        await insert(2)
        assert await mysql(writer, "SELECT @@wsrep_node_name") == "node2"
        await cluster.rejoin(0)
        assert await count() == [2, 2, 2]

        cluster.pause(0)
        await insert(3)
        await cluster.wait_down(0)
        cluster.unpause(0)
        await cluster.wait_in_step()
        await cluster.wait_up()
        assert await count() == [3, 3, 3]

        for number in range(3):  # the lights go out
            await cluster.kill(number)
        await cluster.start_all()
        await insert(4)
        assert await count() == [4, 4, 4]


async def test_galera_a_node_without_its_cluster_gets_no_traffic() -> None:
    async with GaleraCluster(failback=False) as cluster:
        cluster.pause(1)
        await cluster.wait_down(1)
        await cluster.wait_in_step(2)
        await cluster.kill(2)  # one of two is no majority: it must neither read nor write
        await wait_until(cluster.is_down, "nobody serves", timeout=10)
        # Whether it still waits for the group or knows already that there is none:
        with pytest.raises(dead(), match=r"1205|1047"):
            await mysql(cluster.nodes[0].port, "SELECT 1")
        cluster.unpause(1)  # it was not there at the end, so it is no help
        await cluster.rejoin(2)
        await cluster.wait_in_step()
        await until_done(lambda: mysql(cluster.haproxy.port, "SELECT 1"))
