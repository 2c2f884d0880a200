"""Where servers and transactions do not agree: on who writes first, or on what is the present."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from databases import Database

from asgi_sessions import Session, Sessions, SessionsUnavailable
from tests.cluster.galera import GaleraCluster
from tests.cluster.postgres import PostgresPair
from tests.servers.mariadb import MariaDBServer
from tests.servers.process import LOOPBACK, wait_until
from tests.support import KEY, Browser, make_app

pytestmark = pytest.mark.servers

CAP = 2
SCHEMES = ("mysql", "mysql+asyncmy")
TURNS = 10
SHORT = timedelta(seconds=0.5)
#: Whoever is tried again is served in the end, however busy the machine is.
LONG = timedelta(seconds=30)


def driver(name: str) -> Any:
    """Without types, and perhaps not there where these tests do not run."""
    return importlib.import_module(name)


@asynccontextmanager
async def processes(
    table: str, *databases: str | Database, **options: Any
) -> AsyncIterator[list[Sessions]]:
    """`Sessions` on one table, each over its own URL."""
    made = [
        Sessions(database, secret_key=KEY, table_name=table, **options) for database in databases
    ]
    try:
        # In its own time: a cluster takes longer for tables than the `timeout` of a test may be.
        async with Sessions(databases[0], secret_key=KEY, table_name=table) as first:
            await first.create_tables()
        yield made
    finally:
        for sessions in made:
            await sessions.disconnect()


async def log_in(sessions: Sessions, person: str = "ann") -> Session:
    return await sessions.insert({"type": "http", "headers": []}, {"id": person})


async def storm(several: list[Sessions], person: str) -> list[Session]:
    """Logins over the cap and ends of one person's sessions, all at once. Who is refused raises."""
    made, _ = await asyncio.gather(
        asyncio.gather(*(log_in(sessions, person) for sessions in several for _ in range(CAP))),
        asyncio.gather(*(sessions.end_all_sessions(person) for sessions in several)),
    )
    first = made[0].sid
    await asyncio.gather(*(sessions.end_session_by_id(first) for sessions in several))
    return made


async def expect_order(several: list[Sessions], person: str, made: list[Session]) -> None:
    """All see the same, within the cap, and what was ended stays so."""
    lists = [await sessions.list_sessions(person) for sessions in several]
    live = {session.sid for session in lists[0]}
    assert all({session.sid for session in seen} == live for seen in lists)
    assert len(live) <= CAP
    assert live <= {session.sid for session in made[1:]}
    assert sum([await sessions.end_all_sessions(person) for sessions in several]) == len(live)


# --- who writes first -----------------------------------------------------------------------------


async def test_galera_what_several_nodes_write_to_the_same_rows_is_tried_again(
    galera: GaleraCluster,
) -> None:
    nodes = galera.nodes

    async def refused() -> int:
        """Transactions that gave way to another node's: the client got 1213."""
        counted = [await node.status() for node in nodes]
        return sum(
            int(status[name])
            for status in counted
            for name in ("wsrep_local_cert_failures", "wsrep_local_bf_aborts")
        )

    urls = [node.url_at(node.port, scheme) for node in nodes for scheme in SCHEMES]
    async with processes("conflicts", *urls, max_sessions_per_person=CAP, timeout=LONG) as several:
        before = await refused()
        for turn in range(TURNS):
            made = await storm(several, f"person {turn}")
            await expect_order(several, f"person {turn}", made)
        assert await refused() >= before + TURNS


async def test_postgresql_serialization_failures_are_tried_again(pair: PostgresPair) -> None:
    strict: dict[str, Any] = {
        "server_settings": {"default_transaction_isolation": "serializable"},
        "min_size": 1,
        "max_size": 5,
    }
    said = "could not serialize access"
    before = pair.primary.log(10**6).count(said)
    async with AsyncExitStack() as stack:
        databases = [
            await stack.enter_async_context(Database(pair.url, **strict)) for _ in range(6)
        ]
        several = await stack.enter_async_context(
            processes("strict", *databases, max_sessions_per_person=CAP, timeout=LONG)
        )
        for turn in range(TURNS):
            made = await storm(several, f"person {turn}")
            await expect_order(several, f"person {turn}", made)
    assert pair.primary.log(10**6).count(said) >= before + TURNS


async def test_postgresql_the_victim_of_a_deadlock_is_tried_again(pair: PostgresPair) -> None:
    async with processes("deadlocks", pair.url) as (sessions,):
        first, second = [await log_in(sessions) for _ in range(2)]
        said = "deadlock detected"
        before = pair.primary.log(10**6).count(said)
        outsider = await driver("asyncpg").connect(pair.url)
        await outsider.execute("SET deadlock_timeout = '1min'")  # we notice, and are the victim

        async def waiting() -> bool:
            question = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            return await pair.primary.sql(question) == "1"

        async with outsider.transaction():
            lock = "SELECT id FROM deadlocks WHERE id = $1 FOR UPDATE"
            await outsider.fetchval(lock, second.sid)
            ending = asyncio.create_task(sessions.end_all_sessions("ann"))
            for turn in (1, 2):  # a second time, as a fault of any kind is tried again once
                savepoint = outsider.transaction()
                await savepoint.start()
                await wait_until(waiting, "our statement has one row and waits for the other")
                assert await outsider.fetchval(lock, first.sid) == first.sid  # we gave it up
                assert pair.primary.log(10**6).count(said) == before + turn
                await savepoint.rollback()  # it is ours again
        assert await ending == 2
        await outsider.close()


async def test_mariadb_the_victim_of_a_deadlock_is_tried_again(galera: GaleraCluster) -> None:
    node = galera.nodes[0]

    async def status(question: str) -> int:
        return int(await node.sql(question))

    deadlocks = (
        "SELECT variable_value FROM information_schema.global_status "
        "WHERE variable_name = 'innodb_deadlocks'"
    )
    waits = "SELECT count(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
    async with processes("deadlocks", node.url) as (sessions,):
        first, second = [await log_in(sessions) for _ in range(2)]
        before = await status(deadlocks)
        await node.sql("CREATE TABLE weight (i int PRIMARY KEY AUTO_INCREMENT, t text)")
        outsider = await connect(node)

        async def waiting() -> bool:
            return await status(waits) == 1

        async with outsider.cursor() as cursor:
            lock = "SELECT id FROM deadlocks WHERE id = %s FOR UPDATE"
            await outsider.begin()
            # The lighter of two is the victim.
            await cursor.executemany("INSERT INTO weight (t) VALUES (%s)", [("x",)] * 100)
            await cursor.execute(lock, (second.sid,))
            ending = asyncio.create_task(sessions.end_all_sessions("ann"))
            await wait_until(
                waiting, "our statement has the first row and waits for the second", interval=0.11
            )
            await cursor.execute(lock, (first.sid,))
            await outsider.commit()
        outsider.close()
        assert await ending == 2
        assert await status(deadlocks) == before + 1


async def connect(node: MariaDBServer) -> Any:
    """Somebody else's connection to a node."""
    return await driver("aiomysql").connect(
        host=LOOPBACK, port=node.port, user="root", db="test", autocommit=True
    )


# --- what is the present --------------------------------------------------------------------------


async def test_galera_a_node_that_lags_does_not_answer_from_the_past(
    galera: GaleraCluster,
) -> None:
    """With wsrep_sync_wait = 0 it does: that is why docs/scale.md asks for 7."""
    here, there = galera.nodes[:2]
    async with (
        Database(there.url, init_command="SET SESSION wsrep_sync_wait = 0") as careless,
        processes("lags", here.url, there.url, careless, timeout=SHORT) as (
            writer,
            reader,
            past,
        ),
    ):
        session = await log_in(writer)
        assert await reader.get_by_id(session.sid) == session
        stop = await connect(there)
        async with stop.cursor() as cursor:
            await cursor.execute("FLUSH TABLES WITH READ LOCK")  # it applies nothing meanwhile
            await writer.end_session_by_id(session.sid)
            shown = await past.get_by_id(session.sid)
            assert shown is not None
            assert shown.ended_at is None
            with pytest.raises(SessionsUnavailable):
                await reader.get_by_id(session.sid)
            await cursor.execute("UNLOCK TABLES")
        stop.close()
        await galera.wait_in_step()
        await galera.wait_up()
        shown = await reader.get_by_id(session.sid)
        assert shown is not None
        assert shown.end_reason == "revoked"


async def test_postgresql_a_replica_shows_the_past(pair: PostgresPair) -> None:
    """So look-ups never go there. A commit is confirmed when the replica has it, not shows it."""
    async with processes("lags", pair.url, pair.replica.url) as (sessions, replica):
        session = await log_in(sessions)

        async def shown() -> Session | None:
            return await replica.get_by_id(session.sid)

        async def arrived() -> bool:
            try:
                return await shown() is not None
            except SessionsUnavailable:  # the table is not there yet
                return False

        await wait_until(arrived, "the session is on the replica")
        await pair.replica.sql("SELECT pg_wal_replay_pause()")
        assert await sessions.end_session_by_id(session.sid) is not None
        past = await shown()
        assert past is not None
        assert past.ended_at is None
        await pair.replica.sql("SELECT pg_wal_replay_resume()")

        async def over() -> bool:
            now = await shown()
            return now is not None and now.ended_at is not None

        await wait_until(over, "the end is on the replica")


async def test_postgresql_what_no_replica_has_is_confirmed_to_nobody_however_often_they_ask(
    pair: PostgresPair,
) -> None:
    async with processes("unconfirmed", pair.url, pair.url, timeout=SHORT) as both:
        browser = Browser(make_app(both[0]))
        sid = await browser.login("ann")
        pair.replica.pause()
        for _ in range(3):
            assert (await browser.post("/logout")).status_code == 503
            with pytest.raises(SessionsUnavailable):
                await both[1].end_session_by_id(sid)
            assert (await browser.see())["sid"] == sid  # what is not confirmed is not shown
        pair.replica.unpause()

        async def confirmed() -> bool:
            return (await browser.post("/logout")).status_code == 200

        await wait_until(confirmed, "a logout is confirmed")
        session = await both[1].get_by_id(sid)
        assert session is not None
        assert session.ended_at is not None


async def test_postgresql_a_database_of_the_apps_own_finds_the_primary_by_itself(
    pair: PostgresPair,
) -> None:
    """Without HAProxy: asyncpg takes several hosts, of which it asks which one is the primary."""
    database = Database(
        pair.url,
        host=[LOOPBACK, LOOPBACK],
        port=[pair.replica.port, pair.primary.port],
        target_session_attrs="primary",
        min_size=1,
        max_size=5,
    )
    async with database, processes("hosts", database) as (sessions,):
        browser = Browser(make_app(sessions))
        sid = await browser.login("ann")
        await pair.kill_primary()
        await pair.promote()

        async def back() -> bool:
            response = await browser.get("/")
            assert response.status_code == 503 or response.json()["sid"] == sid
            return response.status_code == 200

        assert await wait_until(back, "the new primary answers") < 2
        await browser.post("/logout")
        assert (await browser.see())["sid"] is None
    await pair.rejoin()
