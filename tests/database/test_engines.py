"""An app's own `AsyncEngine`: what is held of its pool, what is given back, and what is refused."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import create_engine, event, func, make_url, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.pool import AssertionPool, AsyncAdaptedQueuePool, NullPool, QueuePool, StaticPool
from sqlalchemy.schema import DropTable
from starlette.testclient import TestClient

from asgi_sessions import ConfigurationError, Sessions, SessionsUnavailable
from asgi_sessions._database.pools.sqlalchemy import EngineLease, EnginePool
from asgi_sessions._service.core import TOUCH
from tests.conftest import ENGINES, name_of
from tests.support import KEY, Browser, Clock, make_app
from tests.support.engines import EngineURL, Onlooker, app_engine, kind

SHORT = timedelta(milliseconds=300)
SECONDS = 10


@pytest.fixture(params=ENGINES, ids=name_of)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> EngineURL:
    url: EngineURL = request.param
    return url if url != "sqlite" else EngineURL.of(f"sqlite:///{tmp_path}/app.db", url.driver)


class App:
    """An app with an engine and `Sessions` on it.

    Args:
        url: of the database.
        table: the table's name.
        options: of the engine.
    """

    def __init__(self, url: EngineURL, table: str, **options: Any) -> None:
        self.engine = app_engine(url, url.driver, **options)
        self.sessions = Sessions(self.engine, secret_key=KEY, table_name=table)

    @property
    def out(self) -> int:
        """How many connections its pool has lent."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout()

    @property
    def held(self) -> list[Any]:
        """The driver's connections that are held."""
        batchers = self.sessions._core.store.engines.here._batchers
        return [batcher._held.raw for batcher in batchers if batcher._held is not None]

    async def use(self) -> None:
        """Have each held connection opened."""
        async with Browser(make_app(self.sessions)) as browser:
            await browser.login("ann")
            await browser.see()
            assert await self.sessions.list_sessions("ann")
        await self.settled()

    async def settled(self) -> None:
        """Wait until what is borrowed for a moment has been given back."""
        await until(lambda: self.out <= 3)

    async def ask(self, statement: str) -> Any:
        """A query of its own."""
        async with self.engine.connect() as connection:
            return await connection.scalar(text(statement))


def is_closed(raw: Any) -> bool:
    if isinstance(raw, aiosqlite.Connection):
        return raw._connection is None
    if hasattr(raw, "connected"):  # asyncmy
        return not raw.connected
    return bool(raw.is_closed() if hasattr(raw, "is_closed") else raw.closed)


async def until(what: Any) -> None:
    async with asyncio.timeout(SECONDS):
        while not what():  # noqa: ASYNC110 -- nobody tells
            await asyncio.sleep(0.01)


@pytest.fixture
async def apps(anyio_backend: str, database_url: EngineURL, table_name: str) -> AsyncIterator[Any]:
    """Makes apps on one table."""
    made: list[App] = []

    async def make(**options: Any) -> App:
        app = App(database_url, table_name, **options)
        made.append(app)
        await app.sessions.create_tables()
        return app

    yield make
    for app in made:
        await app.sessions.disconnect()
        await app.engine.dispose()
    last = app_engine(database_url, database_url.driver)
    async with last.begin() as connection:
        for table in made[0].sessions.metadata.sorted_tables if made else ():
            await connection.execute(DropTable(table, if_exists=True))
    await last.dispose()


# --- what is held ---------------------------------------------------------------------------------


async def test_three_connections_are_held_and_given_back(apps: Any) -> None:
    app = await apps()
    await app.use()
    assert app.out == 3
    await app.sessions.end_all_sessions("ann")
    await app.settled()
    assert app.out == 3
    await app.sessions.disconnect()
    assert app.out == 0
    await app.use()  # and it comes back
    assert app.out == 3


async def test_the_database_is_what_was_passed(apps: Any) -> None:
    app = await apps()
    assert app.sessions.database is app.engine


def test_the_database_is_what_was_passed_where_no_loop_runs(database_url: EngineURL) -> None:
    engine = app_engine(database_url, database_url.driver)
    assert Sessions(engine, secret_key=KEY).database is engine


async def test_each_connection_is_opened_with_what_the_app_says_then(
    apps: Any, database_url: EngineURL, table_name: str
) -> None:
    """As docs/recipes.md has it for passwords: here the rest of the URL is of no use."""
    await apps()
    right = make_url(database_url)
    wrong = right.set(database="/nowhere/app.db" if kind(database_url) == "sqlite" else "nowhere")
    app = App(
        EngineURL.of(wrong.render_as_string(hide_password=False), database_url.driver), table_name
    )
    opened = []

    @event.listens_for(app.engine.sync_engine, "do_connect")
    def say(dialect: Any, record: Any, positional: list[Any], options: dict[str, Any]) -> None:
        opened.append(record)
        if positional:
            positional[0] = right.database
        else:
            name = next(name for name in ("database", "dbname", "db") if name in options)
            options[name] = right.database

    try:
        await app.use()
        assert len(opened) >= app.out == 3
    finally:
        await app.sessions.disconnect()
        await app.engine.dispose()


async def test_connections_come_back_as_they_went(apps: Any, database_url: EngineURL) -> None:
    # MariaDB has MySQL's name for it since 11.1.
    level = "tx_isolation" if database_url.driver.startswith("mariadb") else "transaction_isolation"
    settings = {
        "sqlite": ("PRAGMA busy_timeout",),
        "postgresql": (
            "SHOW enable_seqscan",
            "SHOW enable_bitmapscan",
            "SHOW transaction_isolation",
        ),
        "mysql": ("SELECT @@autocommit", "SELECT @@sql_mode", f"SELECT @@{level}"),
    }[kind(database_url)]
    app = await apps(pool_size=5, max_overflow=0)
    before = [await app.ask(setting) for setting in settings]
    await app.use()
    await app.sessions.end_all_sessions("ann")
    await app.sessions.disconnect()
    every = [await app.engine.connect() for _ in range(5)]  # those that were held among them
    for connection in every:
        assert [await connection.scalar(text(setting)) for setting in settings] == before
        await connection.rollback()
    table = app.sessions.table
    for connection in every:  # and each in a transaction, not in autocommit mode
        deleted = await connection.execute(table.delete())
        assert deleted.rowcount == 1
        await connection.rollback()
        await connection.close()
    assert await app.ask(f"SELECT count(*) FROM {table.name}") == 1  # noqa: S608 -- a test's


async def test_an_app_uses_its_engine_beside_us(apps: Any) -> None:
    app = await apps()
    table = app.sessions.table

    async def query(number: int) -> None:
        async with AsyncSession(app.engine) as session, session.begin():
            await session.execute(table.update().values(acr=str(number)))

    async def log_in(number: int) -> None:
        async with Browser(make_app(app.sessions)) as browser:
            sid = await browser.login(f"person-{number}")
            assert (await browser.see())["sid"] == sid

    await asyncio.gather(*(work(n) for n in range(8) for work in (query, log_in)))
    assert await app.ask(f"SELECT count(*) FROM {table.name}") == 8  # noqa: S608 -- a test's


async def test_what_an_app_rolls_back_is_not_ours(apps: Any, database_url: EngineURL) -> None:
    """Ours is committed by itself, on another connection."""
    if kind(database_url) == "sqlite":
        return  # its writer waits for the other
    app = await apps()
    table = app.sessions.table
    async with AsyncSession(app.engine) as session, Browser(make_app(app.sessions)) as browser:
        await browser.login("ann")
        assert await session.scalar(select(func.count()).select_from(table)) == 1
        sid = await browser.login("bob")
        await session.rollback()
        assert (await browser.see())["sid"] == sid


# --- small pools ----------------------------------------------------------------------------------


async def test_a_pool_of_one_is_shared_in_turns(apps: Any) -> None:
    app = await apps(pool_size=1, max_overflow=0)

    async def live(number: int) -> None:
        async with Browser(make_app(app.sessions)) as browser:
            sid = await browser.login(f"person-{number}")
            assert (await browser.see())["sid"] == sid
            assert await app.ask("SELECT 1") == 1
            assert await app.sessions.end_all_sessions(f"person-{number}") == 1

    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*(live(number) for number in range(4)))
    await until(lambda: app.out == 0)


async def test_a_pool_whose_connections_the_app_holds_is_named(
    database_url: EngineURL, table_name: str, apps: Any
) -> None:
    app = await apps(pool_size=1, max_overflow=0)
    sessions = Sessions(app.engine, secret_key=KEY, table_name=table_name, timeout=SHORT)
    async with app.engine.connect():
        with pytest.raises(SessionsUnavailable, match=r"no free connection.*pool_size"):
            await sessions.list_sessions("ann")
    found = None
    async with asyncio.timeout(SECONDS):
        while found is None:
            with suppress(SessionsUnavailable):  # a busy machine may take longer than SHORT
                found = await sessions.list_sessions("ann")
    assert found == []
    await sessions.disconnect()


@pytest.mark.parametrize("pool", [NullPool, AsyncAdaptedQueuePool])
async def test_kinds_of_pools(apps: Any, pool: Any) -> None:
    app = await apps(poolclass=pool)
    async with Browser(make_app(app.sessions)) as browser:
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
    assert 2 <= len(app.held) <= 3  # no pool waits for those of a NullPool


async def test_a_pool_may_ask_before_it_lends(apps: Any) -> None:
    app = await apps(pool_pre_ping=True, pool_recycle=1800)
    await app.use()
    assert app.sessions._core.store.engines.here.lookups._max_idle in {None, 240}


async def test_a_pool_may_say_how_long_connections_rest(
    database_url: EngineURL, table_name: str
) -> None:
    engine = app_engine(database_url, database_url.driver, pool_recycle=60)
    assert Sessions(engine, secret_key=KEY)._source.max_idle == 60


# --- an engine that is disposed of ----------------------------------------------------------------


async def test_connections_are_replaced_after_dispose(apps: Any) -> None:
    app = await apps()
    await app.use()
    before = app.held
    await app.engine.dispose()
    await until(lambda: all(map(is_closed, before)))  # at once, not with the next request
    await app.use()
    assert not set(app.held) & set(before)
    assert app.out == 3


async def test_dispose_under_way_disturbs_nobody(apps: Any) -> None:
    app = await apps()
    await app.use()
    over = False

    async def live(number: int) -> int:
        done = 0
        async with Browser(make_app(app.sessions)) as browser:
            while not over:
                sid = await browser.login(f"person-{number}")
                assert (await browser.see())["sid"] == sid
                done += 1
        return done

    lives = [asyncio.create_task(live(number)) for number in range(4)]
    before: list[Any] = []
    for _ in range(5):
        await asyncio.sleep(0.1)
        before += app.held
        await app.engine.dispose()
    over = True
    assert all(await asyncio.gather(*lives))
    await until(lambda: all(map(is_closed, before)))


async def test_connections_that_broke_in_the_pool_are_replaced(
    apps: Any, database_url: EngineURL, table_name: str
) -> None:
    """All of them, not only the first that fails."""
    if kind(database_url) == "sqlite":
        return
    number = {
        "postgresql": "SELECT pg_backend_pid()",
        "mysql": "SELECT connection_id()",
    }[kind(database_url)]
    app = await apps(pool_size=5)
    every = [await app.engine.connect() for _ in range(5)]
    numbers = [await connection.scalar(text(number)) for connection in every]
    for connection in every:
        await connection.close()
    onlooker = Onlooker(database_url, table_name)
    onlooker.cut(int(one) for one in numbers)
    onlooker.close()
    await app.use()


async def test_a_connection_that_fails_goes_to_nobody_else(apps: Any) -> None:
    app = await apps()
    await app.use()
    store = app.sessions._core.store

    async def fail(_: object) -> None:
        raise RuntimeError("in the middle")

    before = store.engines.here.queries._held.raw
    with pytest.raises(SessionsUnavailable):
        await store._query(fail)
    every = [await app.engine.connect() for _ in range(3)]
    raws = [(await connection.get_raw_connection()).driver_connection for connection in every]
    assert before not in raws
    for connection in every:
        await connection.close()


# --- a URL of psycopg -----------------------------------------------------------------------------


def test_a_url_of_psycopg_works_in_any_loop(database_url: EngineURL, table_name: str) -> None:
    if not database_url.driver.endswith("psycopg"):
        return  # `databases` has the others
    url = f"postgresql+psycopg{database_url.removeprefix('postgresql')}"
    url = url.replace("statement_cache_size=0", "prepare_threshold=none")
    sessions = Sessions(url, secret_key=KEY, table_name=table_name)
    used = []

    async def live(*, drop: bool = False) -> None:
        async with sessions, Browser(make_app(sessions)) as browser:
            await sessions.create_tables()
            sid = await browser.login("ann")
            assert (await browser.see())["sid"] == sid
            assert await sessions.list_sessions("ann")
            used.append(sessions.database)
            assert used[-1].pool.checkedout() == 3  # no use was noted: four are held
            if drop:
                async with sessions.database.begin() as connection:
                    for table in sessions.metadata.sorted_tables:
                        await connection.execute(DropTable(table))
        assert used[-1].pool.checkedin() == 0

    outside = sessions.database
    asyncio.run(live())
    asyncio.run(live(drop=True))
    assert used[0] is outside
    assert used[1] is not outside


# --- event loops ----------------------------------------------------------------------------------


def test_a_pool_is_refused_in_another_loop(database_url: EngineURL, tmp_path: Path) -> None:
    engine = app_engine(database_url, database_url.driver)
    sessions = Sessions(engine, secret_key=KEY)

    async def use() -> None:
        await sessions.list_sessions("ann")

    with asyncio.Runner() as one, asyncio.Runner() as another:
        with pytest.raises(SessionsUnavailable):  # there is no table
            one.run(use())
        with pytest.raises(ConfigurationError, match="another event loop") as caught:
            another.run(use())
        for fix in ("engine.dispose()", "poolclass=NullPool", "a URL"):
            assert fix in str(caught.value)
        one.run(sessions.disconnect())
        one.run(engine.dispose())
        with pytest.raises(SessionsUnavailable):
            another.run(use())
        another.run(sessions.disconnect())
        another.run(engine.dispose())


def test_a_connection_that_the_app_has_opened_in_another_loop_is_refused(
    database_url: EngineURL,
) -> None:
    if database_url.driver.endswith(("aiosqlite", "psycopg")):
        return  # these belong to no loop
    engine = app_engine(database_url, database_url.driver, pool_size=5)

    async def ask() -> None:
        async with engine.connect() as connection:
            await connection.scalar(text("SELECT 1"))

    async def use() -> None:
        await Sessions(engine, secret_key=KEY).list_sessions("ann")

    with asyncio.Runner() as one, asyncio.Runner() as another:
        one.run(ask())
        with pytest.raises(ConfigurationError, match="in another event loop"):
            another.run(use())
        one.run(engine.dispose())


@pytest.mark.parametrize("pool", [NullPool, StaticPool, AsyncAdaptedQueuePool])
def test_a_test_client_takes_a_loop_for_each_request(tmp_path: Path, pool: Any) -> None:
    """On SQLite, where tests run."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db", poolclass=pool)
    sessions = Sessions(engine, secret_key=KEY)
    asyncio.run(sessions.create_tables())
    client = TestClient(make_app(sessions), base_url="https://test")
    sid = client.post("/login?person=ann").json()["sid"]
    assert client.get("/").json()["sid"] == sid
    client.post("/logout")
    assert client.get("/").json()["sid"] is None

    async def end() -> None:
        await engine.dispose()

    asyncio.run(end())


# --- one connection for all -----------------------------------------------------------------------


@pytest.fixture
async def memory(anyio_backend: str) -> AsyncIterator[App]:
    app = App(EngineURL.of("sqlite://", "sqlite+aiosqlite"), "sessions")
    assert isinstance(app.engine.pool, StaticPool)
    await app.sessions.create_tables()
    yield app
    await app.sessions.disconnect()
    await app.engine.dispose()


async def test_a_database_in_memory_is_kept_by_a_static_pool(memory: App, clock: Clock) -> None:
    async with Browser(make_app(memory.sessions)) as browser:
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
        assert await memory.ask("SELECT count(*) FROM sessions") == 1
        await memory.sessions.disconnect()
        assert (await browser.see())["sid"] == sid
        await browser.post("/logout")
        assert (await browser.see())["sid"] is None
    with pytest.raises(SessionsUnavailable):
        await memory.sessions._core.store._write(_fail_in_a_transaction)
    (session,) = await memory.sessions.list_sessions("ann", include_ended=True)
    assert session.end_reason == "logout"


async def _fail_in_a_transaction(connection: Any) -> None:
    async with connection.transaction():
        await connection.driver.execute(connection.raw, "DELETE FROM sessions", ())
        raise RuntimeError("in the middle")


async def test_what_we_write_beside_a_transaction_of_the_only_connection_is_part_of_it(
    memory: App,
) -> None:
    """It is the app's, whose own statements must not be committed by us."""
    async with memory.engine.connect() as connection:
        await connection.execute(text("CREATE TABLE users (name TEXT)"))
        await connection.commit()
        await connection.execute(text("INSERT INTO users VALUES ('ann')"))
        with pytest.raises(SessionsUnavailable):
            await memory.sessions._core.store._write(_fail_in_a_transaction)
        await memory.sessions.insert({"type": "http", "headers": []}, "ann")
        assert len(await memory.sessions.list_sessions("ann")) == 1
        await connection.rollback()
    assert await memory.ask("SELECT count(*) FROM users") == 0
    assert await memory.sessions.list_sessions("ann") == []
    await memory.sessions.insert({"type": "http", "headers": []}, "ann")
    assert len(await memory.sessions.list_sessions("ann")) == 1


async def test_a_cancelled_transaction_of_the_only_connection_is_undone(memory: App) -> None:
    begun = asyncio.Event()

    async def work(connection: Any) -> None:
        async with connection.transaction():
            await connection.driver.execute(connection.raw, "DELETE FROM sessions", ())
            begun.set()
            await asyncio.Event().wait()

    await memory.sessions.insert({"type": "http", "headers": []}, "ann")
    sessions = Sessions(memory.engine, secret_key=KEY, timeout=SHORT)
    with pytest.raises(SessionsUnavailable):
        await sessions._core.store._write(work)
    assert begun.is_set()
    await sessions.disconnect()
    assert len(await memory.sessions.list_sessions("ann")) == 1


# --- what is refused ------------------------------------------------------------------------------


def refusal(database: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Sessions(database, secret_key=KEY)
    return str(caught.value)


def on_sqlite(**options: Any) -> AsyncEngine:
    return create_async_engine("sqlite+aiosqlite:///app.db", **options)


def test_what_is_no_engine_is_refused_with_what_to_give() -> None:
    assert "create_async_engine" in refusal(create_engine("sqlite:///app.db"))
    assert "an AsyncEngine of SQLAlchemy" in refusal(AsyncSession(on_sqlite()))
    assert "an AsyncEngine of SQLAlchemy" in refusal(None)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite://",
        "sqlite+aiosqlite:///:memory:",
        "sqlite+aiosqlite:///file:x?mode=memory&cache=shared&uri=true",
    ],
)
def test_a_database_in_memory_is_refused_without_a_static_pool(url: str) -> None:
    assert "poolclass=StaticPool" in refusal(create_async_engine(url, poolclass=NullPool))


@pytest.mark.parametrize(
    "url",
    [
        "sqlite+aiosqlite:///file:app.db?mode=ro&uri=true",
        "sqlite+aiosqlite:///file:app.db?immutable=1&uri=true",
    ],
)
def test_an_engine_that_only_reads_is_refused(url: str) -> None:
    assert "the engine that writes" in refusal(create_async_engine(url))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"postgresql_readonly": True}, "the engine that writes"),
        ({"schema_translate_map": {None: "auth"}}, "table_name='schema.sessions'"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options: dict[str, Any], said: str) -> None:
    assert said in refusal(on_sqlite().execution_options(**options))


def test_pools_that_cannot_serve_requests_are_refused() -> None:
    assert "one connection at a time" in refusal(on_sqlite(poolclass=AssertionPool))
    engine = create_async_engine("mysql+aiomysql://root@localhost/app", poolclass=StaticPool)
    assert "NullPool" in refusal(engine)


def test_a_driver_that_is_not_supported_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = on_sqlite()
    monkeypatch.setattr(engine.dialect, "driver", "pysqlcipher")
    assert "sqlite+pysqlcipher is not supported: use sqlite+aiosqlite" in refusal(engine)


def test_only_postgresql_notifies() -> None:
    with pytest.raises(ConfigurationError, match=r"only PostgreSQL.*not SQLite"):
        Sessions(on_sqlite(), secret_key=KEY, notify=True)


async def test_a_connection_that_is_always_in_a_transaction_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those of Python 3.12 and newer with autocommit=False."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    monkeypatch.setattr(aiosqlite.Connection, "in_transaction", True)
    with pytest.raises(ConfigurationError, match="always in a transaction"):
        await Sessions(engine, secret_key=KEY).create_tables()
    await engine.dispose()


def test_an_engine_is_shown_without_its_password() -> None:
    engine = create_async_engine("mysql+aiomysql://root:hush@localhost/app")
    assert "hush" not in repr(Sessions(engine, secret_key=KEY))
    shown = repr(Sessions("postgresql+psycopg://root:hush@localhost/app", secret_key=KEY))
    assert "postgresql+psycopg://root:***@localhost/app" in shown


# --- the edges ------------------------------------------------------------------------------------


async def test_a_loop_that_is_gone_hears_of_no_dispose(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/app.db")
    loop = asyncio.new_event_loop()
    pool = EnginePool(engine, Sessions(engine, secret_key=KEY)._source.driver(), loop)
    pool._disposed(None)  # nobody has asked to hear of it
    pool.on_replaced(lambda: None)
    loop.close()
    pool._disposed(None)


async def test_touches_borrow_for_a_moment(apps: Any, clock: Clock) -> None:
    app = await apps()
    await app.sessions.disconnect()
    app.sessions = Sessions(
        app.engine, secret_key=KEY, table_name=app.sessions.table.name, clock=clock
    )
    async with Browser(make_app(app.sessions)) as browser:
        sid = await browser.login("ann")
        clock.turn(timedelta(minutes=5))
        await browser.see()
        touches = [task for task in asyncio.all_tasks() if task.get_name() == TOUCH]
        await asyncio.gather(*touches)
        session = await app.sessions.get_by_id(sid)
    assert session is not None
    assert session.last_seen_at == clock.now
    await app.settled()
    await app.sessions.disconnect()


async def test_a_lease_whose_connection_broke_while_it_was_given_back(apps: Any) -> None:
    app = await apps()
    await app.use()
    connection = app.sessions._core.store.engines.here.queries._held
    lease = connection.lease
    assert isinstance(lease, EngineLease)
    lease.by_index = True
    driver = connection.driver
    driver.abandon(connection.raw)
    await driver.discard(connection.raw)
    await app.sessions.disconnect()
    assert app.out == 0


def test_the_package_can_be_imported_without_greenlet() -> None:
    script = """
        import sys
        sys.modules["greenlet"] = None
        import asgi_sessions
        sessions = asgi_sessions.Sessions("sqlite:///app.db", secret_key="abcdefgh" * 4)
        try:
            asgi_sessions.Sessions("postgresql+psycopg://host/name", secret_key="abcdefgh" * 4)
        except asgi_sessions.ConfigurationError as error:
            print(error)
    """
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == ""
    assert "asgi-login-sessions[psycopg]" in ended.stdout
