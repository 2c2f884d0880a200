"""A connection may die without a word: a firewall or a load balancer forgets it, and neither end
hears of it. Nobody waits for it longer than they must.

What the kernel is told of a connection is asked of the connection itself, which is private.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from databases import DatabaseURL

from asgi_sessions import Sessions
from asgi_sessions._database.engine import _keep_alive
from asgi_sessions._database.pools.base import Source
from asgi_sessions._database.pools.databases import DatabasesSource
from asgi_sessions._database.source import source_of
from tests.conftest import URLS, MakeSessions, drivers_of, name_of
from tests.servers.proxy import TcpProxy
from tests.support import Browser, make_app
from tests.support.engines import app_database, app_engine
from tests.support.engines import kind as kind_of

SERVERS = [pytest.param(url, id=name_of(url)) for url in URLS if kind_of(url) != "sqlite"]
each_server = pytest.mark.parametrize("database_url", SERVERS, indirect=True)

#: Longer than the patience of these tests: whoever waits for a dead connection is noticed.
FOR_EVER = timedelta(minutes=2)
PATIENCE = 20
SHORT = timedelta(milliseconds=50)

Make = Callable[..., Awaitable[Sessions]]


@pytest.fixture
async def proxy(anyio_backend: str, database_url: str) -> AsyncIterator[TcpProxy]:
    there = DatabaseURL(database_url)
    port = there.port or {"postgresql": 5432, "mysql": 3306}[kind_of(database_url)]
    async with TcpProxy(there.hostname or "127.0.0.1", port) as proxy:
        yield proxy


@pytest.fixture
def make(make_sessions: MakeSessions, database_url: str, proxy: TcpProxy) -> Make:
    """`Sessions` behind the proxy; the first is not, and stays: it removes the table."""

    async def make(*, query: str = "", **options: Any) -> Sessions:
        await make_sessions()
        return await make_sessions(database=url_of(database_url, proxy, query), **options)

    return make


def url_of(database_url: str, proxy: TcpProxy, query: str = "") -> str:
    there = DatabaseURL(database_url).replace(hostname=proxy.host, port=proxy.port)
    url = str(there)
    return f"{url}{'&' if '?' in url else '?'}{query}" if query else url


async def used(sessions: Sessions) -> Browser:
    """A browser that has logged in, and looked around: all connections have been used."""
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    await browser.see()
    await sessions.list_sessions("ann")
    return browser


@each_server
@pytest.mark.parametrize("most", [1, 3, 5])
async def test_a_small_pool_is_enough_for_everything(make: Make, most: int) -> None:
    """They take turns where there are too few for each kind of work to hold one."""
    sessions = await make(query=f"max_size={most}", timeout=timedelta(seconds=2), data=True)
    browser = await used(sessions)
    await browser.login("ann")
    for _ in range(2):
        assert len(await sessions.list_sessions("ann", include_ended=True)) > 1
        assert (await browser.see())["person_id"] == "ann"
    assert await sessions.end_all_sessions("ann") == 1
    assert await sessions.purge() == 0


@each_server
async def test_one_that_was_idle_for_long_is_replaced_before_it_is_used(
    make: Make, proxy: TcpProxy
) -> None:
    sessions = await make(timeout=FOR_EVER, connection_max_idle=SHORT)
    browser = await used(sessions)
    await asyncio.sleep(2 * SHORT.total_seconds())
    proxy.forget()
    async with asyncio.timeout(PATIENCE):
        assert (await browser.see())["person_id"] == "ann"
        assert len(await sessions.list_sessions("ann")) == 1
        assert (await browser.post("/logout")).status_code == 200


@each_server
async def test_a_url_may_say_after_how_long(make: Make, proxy: TcpProxy) -> None:
    sessions = await make(query="pool_recycle=0", timeout=FOR_EVER)
    browser = await used(sessions)
    proxy.forget()
    async with asyncio.timeout(PATIENCE):
        assert (await browser.see())["person_id"] == "ann"


@each_server
async def test_one_that_is_used_is_kept(make: Make, proxy: TcpProxy) -> None:
    sessions = await make()
    browser = await used(sessions)
    accepted = proxy.accepted
    await used(sessions)
    await browser.see()
    assert proxy.accepted == accepted


@each_server
@pytest.mark.parametrize("own", ["", "own", "engine"])
async def test_one_that_does_not_answer_leaves_time_for_another(
    make: Make, make_sessions: MakeSessions, database_url: str, proxy: TcpProxy, own: str
) -> None:
    """Though it has been idle for a moment only."""
    timeout = timedelta(seconds=3)
    if own == "engine":
        await make_sessions()
        for driver in drivers_of(database_url):
            engine = app_engine(url_of(database_url, proxy), driver)
            every = [await engine.connect() for _ in range(3)]
            for connection in every:  # these rest in the pool, and are forgotten, too
                await connection.close()
            sessions = await make_sessions(database=engine, timeout=timeout)
            await answers_all_the_same(sessions, proxy)
            await sessions.disconnect()
            await engine.dispose()
    elif own:
        await make_sessions()
        async with app_database(url_of(database_url, proxy), min_size=1, max_size=3) as database:
            await answers_all_the_same(
                await make_sessions(database=database, timeout=timeout), proxy
            )
    else:
        await answers_all_the_same(await make(timeout=timeout), proxy)


async def answers_all_the_same(sessions: Sessions, proxy: TcpProxy) -> None:
    browser = await used(sessions)
    proxy.forget()
    async with asyncio.timeout(PATIENCE):
        assert (await browser.see())["person_id"] == "ann"
        proxy.forget()
        assert (await browser.post("/logout")).status_code == 200
    assert await sessions.list_sessions("ann") == []


@each_server
async def test_nothing_waits_for_the_dead_when_all_is_over(make: Make, proxy: TcpProxy) -> None:
    sessions = await make(timeout=FOR_EVER)
    await used(sessions)
    proxy.forget()
    async with asyncio.timeout(PATIENCE):
        await sessions.disconnect()


@each_server
async def test_the_kernel_sends_signs_of_life(make: Make) -> None:
    sessions = await make()
    await used(sessions)
    batchers = sessions._core.store.engines.here._batchers
    held = [batcher._held for batcher in batchers if batcher._held is not None]
    assert len(held) >= 3  # the others have had nothing to do
    for access in held:
        its = access.driver.socket(access.raw)
        assert its.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        if hasattr(socket, "TCP_KEEPIDLE"):
            assert its.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60


def test_where_the_kernel_knows_no_signs_of_life_there_are_none() -> None:
    ours, theirs = socket.socketpair()
    _keep_alive(None)
    _keep_alive(ours)  # no network
    assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 0
    ours.close()
    theirs.close()
    gone = socket.socket()
    gone.close()
    _keep_alive(gone)


def test_a_platform_need_not_know_each_option(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asgi_sessions._database.engine._KEEP_ALIVE", {"TCP_NO_SUCH_OPTION": 60})
    with socket.socket() as ours:
        _keep_alive(ours)
        assert ours.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ("", 240),
        ("?pool_recycle=60", 60),
        ("?pool_recycle=3600", 240),
        ("?pool_recycle=-1", 240),
    ],
)
def test_pools_of_our_own_let_go_as_early(given: str, seconds: int) -> None:
    source = source_of(f"postgresql://host/name{given}")
    assert source.max_idle == seconds
    assert options_of(source)["max_inactive_connection_lifetime"] == seconds
    assert options_of(source_of(f"mysql://host/name{given}"))["pool_recycle"] == seconds
    assert "pool_recycle" not in options_of(source_of("sqlite:///sessions.db"))


def options_of(source: Source) -> Mapping[str, Any]:
    assert isinstance(source, DatabasesSource)
    return source.database.options
