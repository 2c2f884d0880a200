"""LISTEN and NOTIFY: what ends in one process ends in the others at once.

The listener and the drivers that it listens through are private: `notify` shows neither.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from databases import Database
from sqlalchemy import text

from asgi_sessions import ConfigurationError, SessionMiddleware, Sessions
from asgi_sessions._cli.commands import run
from asgi_sessions._database.drivers.base import Driver
from asgi_sessions._database.drivers.postgresql import PostgreSQLDriver
from asgi_sessions._database.pools.base import Line, Pool
from asgi_sessions._database.pools.databases import DatabasesPool
from asgi_sessions._service.options import system_clock
from asgi_sessions._store.connection import RowConnection
from asgi_sessions._store.listener import Listener
from tests.conftest import ENGINES, URLS, MakeSessions, name_of
from tests.support import KEY, Clock
from tests.support.asgi import ENDED, SECONDS, Peer, echo, http, log_in, until, websocket
from tests.support.engines import Onlooker, app_database, kind
from tests.support.inside import check_what_is_open, opened
from tests.support.listening import Server, stopped
from tests.support.processes import Process

HOUR = timedelta(hours=1)
POSTGRESQL = [url for url in [*URLS, *ENGINES] if kind(url) == "postgresql"]

# --- the listener, and a connection that obeys ----------------------------------------------------


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Next to none."""
    monkeypatch.setattr("asgi_sessions._store.listener.FIRST_PAUSE", 0.001)
    monkeypatch.setattr("asgi_sessions._store.listener.LONGEST_PAUSE", 0.004)
    monkeypatch.setattr("asgi_sessions._store.listener.PULSE", 0.001)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged, and what goes with it."""
    return [
        f"{record.levelname} {record.__dict__['event']}"
        for record in caplog.records
        if record.name == "asgi_sessions.database"
    ]


async def test_it_hears_what_others_say_and_not_itself() -> None:
    server = Server()
    listener = server.listener()
    await until(lambda: server.ready)
    (connection,) = server.connections
    connection.says("a sid")
    assert server.heard == ["a sid"]
    await stopped(listener)
    assert connection.log == ["listen ended", "close"]


@pytest.mark.usefixtures("pauses")
async def test_a_lost_connection_is_opened_again(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    listener = server.listener()
    await until(lambda: server.ready)
    server.faults = [OSError("refused"), TimeoutError(), OSError("refused"), OSError("refused")]
    server.connections[0].dead = True
    server.connections[0].lose(server.connections[0])
    await until(lambda: server.ready == 2)
    server.connections[1].says("a sid")
    await stopped(listener)
    assert server.heard == ["a sid"]
    assert server.connections[0].log[-2:] == ["close", "terminate"]  # it does not close
    assert told(caplog) == ["WARNING not_notified", "WARNING notified"]


@pytest.mark.usefixtures("pauses")
async def test_a_connection_that_gives_no_sign_of_life_is_lost() -> None:
    server = Server()
    listener = server.listener()
    await until(lambda: server.ready and "SELECT 1" in server.connections[0].log)
    server.connections[0].dead = True  # as if a firewall had forgotten it
    await until(lambda: server.ready == 2)
    await stopped(listener)


@pytest.mark.usefixtures("pauses")
async def test_a_connection_that_is_lost_at_once_is_opened_again() -> None:
    server = Server()
    server.echoes = False
    listener = server.listener()
    await until(lambda: server.connections)
    await until(lambda: server.connections[0].log == ["listen ended"])
    server.echoes = True
    server.connections[0].lose(server.connections[0])
    await until(lambda: server.ready)
    await stopped(listener)


@pytest.mark.usefixtures("pauses")
async def test_a_channel_that_does_not_echo_is_left(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.echoes = False
    listener = server.listener(timeout=0.001)
    await until(lambda: len(server.connections) > 2)
    await stopped(listener)
    assert server.ready == 0
    assert server.connections[0].log == ["listen ended", "unlisten ended", "close"]
    assert told(caplog) == ["WARNING not_notified"]
    assert "PgBouncer in transaction mode" in caplog.text


@pytest.mark.parametrize("connected", [True, False])
def test_a_listener_lets_go_when_its_loop_was_closed_without_a_word(*, connected: bool) -> None:

    async def listen() -> list[str]:
        server = Server()
        if not connected:
            server.faults = [OSError("refused")]
        server.listener()
        await until(lambda: server.ready if connected else not server.faults)
        return server.connections[0].log if connected else []

    loop = asyncio.new_event_loop()
    log = loop.run_until_complete(listen())
    loop.close()
    del loop
    gc.collect()
    assert log == (["listen ended", "terminate"] if connected else [])


# --- whom it connects to --------------------------------------------------------------------------


async def test_it_connects_as_the_pool_does() -> None:
    given: dict[str, Any] = {}

    async def connect(**options: object) -> str:
        given.update(options)
        return "a connection"

    url = "postgresql://ann:pass%40word@example.com:5433/app?ssl=true&min_size=3"
    database = Database(
        url, connect=connect, max_size=9, init=connect, server_settings={"jit": "off"}
    )
    assert (await DatabasesPool(database, owned=False).connect()).raw == "a connection"
    assert given == {
        "host": "example.com",
        "port": 5433,
        "user": "ann",
        "password": "pass@word",
        "database": "app",
        "ssl": True,
        "server_settings": {"jit": "off"},
    }
    given.clear()
    database = Database("postgresql://example.com/app?ssl=verify-full", connect=connect)
    await DatabasesPool(database, owned=False).connect()
    assert given["ssl"] == "verify-full"
    database = Database("postgresql://example.com/app?ssl=true", connect=connect, ssl="require")
    await DatabasesPool(database, owned=False).connect()
    assert given["ssl"] == "require"


@pytest.mark.parametrize("url", ["sqlite:///sessions.db", "mysql://root@localhost/app"])
async def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="only PostgreSQL"):
        Sessions(url, secret_key=KEY, notify=True)
    pool = DatabasesPool(Database(url), owned=False)
    assert not pool.driver.notifies
    with pytest.raises(NotImplementedError):
        await Driver.connect(pool.driver)
    with pytest.raises(NotImplementedError):
        await Pool.connect(pool)
    with pytest.raises(NotImplementedError):
        await Driver.listen(pool.driver, None, "ended", print)


# --- PostgreSQL -----------------------------------------------------------------------------------


@pytest.fixture(params=POSTGRESQL or [""], ids=name_of)
def database_url(request: pytest.FixtureRequest) -> str:
    """Each PostgreSQL that there is."""
    if not request.param:
        pytest.skip("TEST_DATABASE_URLS names no PostgreSQL")
    url: str = request.param  # it may be of an engine
    return url


@pytest.fixture
async def other(
    anyio_backend: str, make_sessions: MakeSessions, database_url: str, table_name: str
) -> AsyncIterator[Process]:
    """Another process of the app, which tells."""
    process = Process()
    await process.do("open", url=database_url, table_name=table_name, notify=True)
    yield process
    await process.do("close")
    process.kill()


@pytest.fixture
async def here(make_sessions: MakeSessions, database_url: str) -> Sessions:
    """This process, which checks by itself once in an hour."""
    seconds = 1 if behind_pgbouncer(database_url) else 5  # in which an echo is waited for
    return await make_sessions(
        notify=True, socket_check_interval=HOUR, timeout=timedelta(seconds=seconds)
    )


def behind_pgbouncer(url: str) -> bool:
    return "pgbouncer" in name_of(url)


async def listener(sessions: Sessions) -> Listener:
    """The one of this process, once it hears."""
    (watch,) = sessions._core.live_connections._loops.values()
    assert isinstance(watch.ears, Listener)
    ears = watch.ears
    await until(lambda: ears.hears and watch.check is None)  # and has looked what it missed
    return ears


def line_of(listener: Listener) -> Line:
    assert listener._line is not None
    return listener._line


def pid(listener: Listener) -> int:
    """The server's number for its connection."""
    assert isinstance(listener._driver, PostgreSQLDriver)
    return listener._driver.pid(line_of(listener).raw)


def connected(onlooker: Onlooker, number: int) -> bool:
    """Whether a connection is there, by the server's number for it."""
    with onlooker.engine.connect() as connection:
        question = text("SELECT count(*) FROM pg_stat_activity WHERE pid = :number")
        return bool(connection.scalar(question, {"number": number}))


async def test_an_end_in_another_process_is_told(
    here: Sessions, other: Process, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    sid, cookie = await log_in(here)
    async with Peer(SessionMiddleware(echo, sessions=here), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        if behind_pgbouncer(database_url):  # there only the check goes on
            await until(lambda: "PgBouncer in transaction mode" in caplog.text)
            assert await other.do("end", sid=sid) == "revoked"
            await check_what_is_open(here)
        else:
            await listener(here)
            assert await other.do("end", sid=sid) == "revoked"
        assert await peer.gets() == ENDED


async def test_every_way_to_end_is_told(
    make_sessions: MakeSessions, here: Sessions, database_url: str
) -> None:
    if behind_pgbouncer(database_url):
        return
    there = await make_sessions(notify=True, max_sessions_per_person=1)
    ended: set[str] = set()

    async def open_one() -> str:
        session = await here.insert(http(), "ann")
        leaves.append(opened(here, session.id, partial(ended.add, session.id)))
        await listener(here)
        return session.id

    leaves: list[Callable[[], None]] = []
    one = await open_one()
    await there.end_session_by_id(one)
    two = await open_one()
    await there.end_all_sessions("ann")
    three = await open_one()
    await there.insert(http(), "ann")  # one too many
    await until(lambda: len(ended) == 3)
    assert ended == {one, two, three}
    for leave in leaves:
        leave()


async def test_an_end_by_the_command_line_is_told(
    here: Sessions,
    clock: Clock,
    database_url: str,
    table_name: str,
) -> None:
    if behind_pgbouncer(database_url):
        return
    clock.now = system_clock()
    ended = asyncio.Event()
    sid = (await here.insert(http(), "ann")).sid
    leave = opened(here, sid, ended.set)
    await listener(here)
    place = ["--database-url", database_url, "--table", table_name]
    assert await asyncio.to_thread(run, ["end", sid, *place]) == 0
    async with asyncio.timeout(SECONDS):
        await ended.wait()
    leave()


async def test_an_end_that_is_rolled_back_is_not_told(
    make_sessions: MakeSessions, here: Sessions, database_url: str
) -> None:
    if behind_pgbouncer(database_url):
        return
    there = await make_sessions(notify=True)
    store, now = there._core.store, there._core.settings.now()
    ended: list[str] = []
    sids = [(await here.insert(http(), "ann")).id for _ in range(2)]
    leaves = [opened(here, sid, partial(ended.append, sid)) for sid in sids]
    await listener(here)

    async def fails(access: RowConnection) -> None:
        async with access.transaction():
            rows = await store._ends.end_these(access, [sids[0]], reason="revoked", now=now)
            assert [row.id for row in rows] == [sids[0]]
            raise ConfigurationError("in the middle")

    with pytest.raises(ConfigurationError):
        await store._write(fails)
    await there.end_session_by_id(sids[1])
    await until(lambda: ended)
    assert ended == [sids[1]]
    for leave in leaves:
        leave()


async def test_what_ends_while_nobody_listens_is_noticed_when_it_does_again(
    make_sessions: MakeSessions,
    here: Sessions,
    onlooker: Onlooker,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if behind_pgbouncer(database_url):
        return
    monkeypatch.setattr("asgi_sessions._store.listener.FIRST_PAUSE", 0.01)
    there = await make_sessions(notify=True)
    sids = [(await here.insert(http(), "ann")).id for _ in range(2)]
    ended: set[str] = set()
    leaves = [opened(here, sid, partial(ended.add, sid)) for sid in sids]
    ears = await listener(here)
    connect, free = ears._connect, asyncio.Event()

    async def later() -> Line:
        await free.wait()
        return await connect()

    ears._connect = later
    number = pid(ears)
    onlooker.cut([number])
    await until(lambda: not ears.hears)
    await there.end_session_by_id(sids[0])
    free.set()
    await until(lambda: ended)
    assert ended == {sids[0]}
    assert ears.hears
    await there.end_session_by_id(sids[1])
    await until(lambda: len(ended) == 2)
    assert ended == set(sids)
    for leave in leaves:
        leave()


async def test_there_is_a_connection_while_something_is_open(
    here: Sessions, onlooker: Onlooker, database_url: str
) -> None:
    if behind_pgbouncer(database_url):
        return
    sid, _ = await log_in(here)
    live_connections = here._core.live_connections
    live_connections.add(sid, lambda: None)()
    (watch,) = live_connections._loops.values()
    ears = await listener(here)  # although nothing is open any more, for it may come back
    number = pid(ears)
    assert connected(onlooker, number)
    leave = live_connections.add(sid, lambda: None)
    assert watch.ears is ears
    leave()
    assert watch.timer is not None
    watch.timer.cancel()
    live_connections._wake(watch)  # as in an hour
    await ears.stopped()
    await until(lambda: not connected(onlooker, number))
    assert live_connections._loops == {}

    leave = live_connections.add(sid, lambda: None)
    number = pid(await listener(here))
    await here.disconnect()
    await until(lambda: not connected(onlooker, number))
    leave()


async def test_it_gives_signs_of_life(
    here: Sessions, onlooker: Onlooker, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if behind_pgbouncer(database_url):
        return
    monkeypatch.setattr("asgi_sessions._store.listener.PULSE", 0.01)
    leave = opened(here, (await here.insert(http(), "ann")).id, lambda: None)
    number = pid(await listener(here))
    last = text("SELECT query FROM pg_stat_activity WHERE pid = :number")  # at first the LISTEN
    with onlooker.engine.connect() as connection:
        await until(lambda: connection.scalar(last, {"number": number}) == "SELECT 1")
    leave()


async def test_who_stops_to_listen_hears_nothing_more(here: Sessions, database_url: str) -> None:
    """Behind PgBouncer the connection that has listened would serve others."""
    if behind_pgbouncer(database_url):
        return
    session = await here.insert(http(), "ann")
    leave = opened(here, session.id, lambda: None)
    ears = await listener(here)
    driver, raw = ears._driver, line_of(ears).raw
    listening = await driver.listen(raw, "news", print)
    channels = "SELECT count(*) FROM pg_listening_channels() AS name WHERE name = 'news'"
    assert [*map(tuple, await driver.fetch(raw, channels, ()))] == [(1,)]
    await listening.stop()
    assert [*map(tuple, await driver.fetch(raw, channels, ()))] == [(0,)]
    leave()


async def test_a_database_of_the_apps_own_lends_none_of_its_connections(
    make_sessions: MakeSessions, onlooker: Onlooker, database_url: str
) -> None:
    if behind_pgbouncer(database_url):
        return
    options = {"application_name": "of the app"}
    async with app_database(
        database_url, min_size=1, max_size=3, server_settings=options
    ) as database:
        here = await make_sessions(database=database, notify=True, socket_check_interval=HOUR)
        there = await make_sessions(notify=True)
        session = await here.insert(http(), "ann")
        ended = asyncio.Event()
        leave = opened(here, session.id, ended.set)
        ears = await listener(here)
        name = await line_of(ears).raw.fetchval("SHOW application_name")
        assert name == "of the app"
        await there.end_session_by_id(session.id)
        async with asyncio.timeout(SECONDS):
            await ended.wait()
        leave()
        await here.disconnect()
