"""What only PgBouncer shows: few connections for many, and a server that goes behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from databases import Database

from asgi_sessions import ConfigurationError, Sessions
from tests.servers.pgbouncer import SETTINGS, PgBouncer
from tests.servers.postgres import PostgresServer
from tests.support import KEY, Browser, make_app
from tests.support.repository import DOCS

PAGE = DOCS / "databases.md"
#: As docs/databases.md has it.
OPTION = "?statement_cache_size=0"


def test_the_page_shows_the_settings_that_are_tested() -> None:
    page = PAGE.read_text()
    assert "".join(f"{name} = {value}\n" for name, value in SETTINGS.items()) in page
    assert OPTION in page


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[PostgresServer]:
    async with PostgresServer() as server:
        yield server


@pytest.fixture
async def narrow(server: PostgresServer) -> AsyncIterator[PgBouncer]:
    """Two connections to the server, for all clients."""
    async with PgBouncer(server.url, settings={"default_pool_size": "2"}) as bouncer:
        yield bouncer


def several(database: str, number: int) -> list[Sessions]:
    return [Sessions(database, secret_key=KEY) for _ in range(number)]


@pytest.mark.servers
async def test_many_processes_share_two_connections(
    server: PostgresServer, narrow: PgBouncer
) -> None:
    processes = several(narrow.url + OPTION, 8)
    await processes[0].create_tables()

    async def live(sessions: Sessions, person: str) -> None:
        browser = Browser(make_app(sessions))
        for _ in range(5):
            sid = await browser.login(person)
            assert (await browser.see())["sid"] == sid
            assert [session.sid for session in await sessions.list_sessions(person)] == [sid]
            await browser.post("/renew")
            assert (await browser.see())["sid"] == sid
            await browser.post("/logout")
            assert (await browser.see())["sid"] is None

    await asyncio.gather(
        *(live(sessions, f"{i}.{j}") for i, sessions in enumerate(processes) for j in range(4))
    )
    backends = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"
    assert int(await server.sql(backends)) <= 2 + 1  # and the one that asks
    for sessions in processes:
        await sessions.disconnect()


@pytest.mark.servers
async def test_without_the_option_it_is_refused_before_a_statement_is_prepared(
    server: PostgresServer, narrow: PgBouncer
) -> None:
    for database in (narrow.url, Database(narrow.url)):
        sessions = Sessions(database, secret_key=KEY)
        with pytest.raises(ConfigurationError, match="statement_cache_size=0"):
            await sessions.create_tables()
        await sessions.disconnect()
    assert await server.sql("SELECT to_regclass('sessions') IS NULL") == "t"
    assert (await narrow.admin("SHOW POOLS")) != ""  # it was there


def test_an_option_that_databases_drops_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match=r"Database\(url, statement_cache_size="):
        Sessions(Database("postgresql://host/name" + OPTION), secret_key=KEY)


@pytest.mark.servers
async def test_a_database_of_the_apps_own_takes_the_option_beside_the_url(
    narrow: PgBouncer,
) -> None:
    async with Database(narrow.url, statement_cache_size=0) as database:
        sessions = Sessions(database, secret_key=KEY)
        await sessions.create_tables()
        browser = Browser(make_app(sessions))
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
        await sessions.disconnect()


@pytest.mark.servers
async def test_in_session_mode_statements_may_be_prepared(server: PostgresServer) -> None:
    async with PgBouncer(server.url, settings={"pool_mode": "session"}) as bouncer:
        both = several(f"{bouncer.url}?statement_cache_size=100", 2)
        await both[0].create_tables()
        browser = Browser(make_app(both[0]))
        sid = await browser.login("ann")
        browser_elsewhere = Browser(make_app(both[1]))
        browser_elsewhere.cookies = browser.cookies
        for _ in range(10):
            assert (await browser_elsewhere.see())["sid"] == sid
        for sessions in both:
            await sessions.disconnect()


@pytest.mark.servers
async def test_service_resumes_when_the_server_behind_it_is_back(server: PostgresServer) -> None:
    async with PgBouncer(server.url) as bouncer:
        sessions = Sessions(bouncer.url + OPTION, secret_key=KEY, timeout=timedelta(seconds=0.5))
        await sessions.create_tables()
        browser = Browser(make_app(sessions))
        sid = await browser.login("ann")
        await server.kill9()
        for _ in range(3):  # PgBouncer has tried to connect, and waits before it tries again
            assert (await browser.get("/")).status_code == 503
        await server.start()
        back = time.monotonic()
        while (response := await browser.get("/")).status_code == 503:
            assert time.monotonic() - back < 2
        assert response.json()["sid"] == sid
        await sessions.disconnect()
