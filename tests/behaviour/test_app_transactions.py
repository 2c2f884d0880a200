"""`connection=`: what happens to sessions is part of the app's own transaction."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, event, make_url, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, create_async_engine
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import (
    ConfigurationError,
    Incident,
    IssuedToken,
    Person,
    SessionEvent,
    Sessions,
    SessionsUnavailable,
)
from asgi_sessions.oidc import BackChannelLogout
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Clock, make_app, set_cookies
from tests.support.data import data_of
from tests.support.engines import app_engine, own_database
from tests.support.inside import opened, settled, store_of
from tests.support.pages import Reader
from tests.support.repository import DOCS
from tests.support.sso import CLIENT, ISSUER, Provider, key, log_out, public

pytestmark = pytest.mark.anyio

Begin = Callable[[], Any]
Step = Callable[[Request, "Open"], Awaitable[object]]

_DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}


@asynccontextmanager
async def engine_beside(sessions: Sessions, url: str) -> AsyncIterator[AsyncEngine]:
    """The app's engine: the one that `Sessions` was given, or one on the same database."""
    if isinstance(sessions.database, AsyncEngine):
        yield sessions.database
        return
    scheme = url.partition(":")[0]
    engine = app_engine(url, {**_DRIVERS, "mysql": "mysql+aiomysql"}.get(scheme, scheme))
    yield engine
    await engine.dispose()


class Open:
    """A transaction that a handler has begun, as an `AsyncConnection` or an `AsyncSession`."""

    def __init__(self, connection: AsyncConnection | AsyncSession) -> None:
        self.connection = connection

    async def commit(self) -> None:
        await self.connection.commit()

    async def rollback(self) -> None:
        await self.connection.rollback()


class World:
    """An app with an engine, and what it was told."""

    def __init__(self, sessions: Sessions, engine: AsyncEngine, kind: str) -> None:
        self.sessions = sessions
        self.events: list[str] = []
        self.engine = engine
        self.kind = kind
        self.step: Step
        #: What a handler has left open.
        self.left: list[Open] = []
        self.app = make_app(sessions, Route("/step", self._step, methods=["POST"]))

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[Open]:
        if self.kind == "session":
            async with AsyncSession(self.engine) as session:
                yield Open(session)
        else:
            async with self.engine.connect() as connection:
                yield Open(connection)

    async def _step(self, request: Request) -> Response:
        async with self.begun() as transaction:
            await self.step(request, transaction)
        return JSONResponse(request.state.sid)

    async def take(self, browser: Browser, step: Step) -> Any:
        """Have a request of the browser do this; its response, when all has followed."""
        self.step = step
        response = await browser.post("/step")
        await self.followed()
        return response

    async def followed(self) -> None:
        await settled(self.sessions)

    async def live(self, person: str = "ann") -> list[str]:
        return [session.id for session in await self.sessions.list_sessions(person)]


@asynccontextmanager
async def opened_world(
    make_sessions: MakeSessions, url: str, kind: str, **options: Any
) -> AsyncIterator[World]:
    made: list[World] = []

    def hear(event: SessionEvent | Incident) -> None:
        assert isinstance(event, SessionEvent)
        made[0].events.append(event.session.end_reason or event.kind)

    sessions = await make_sessions(on_event=hear, **options)
    async with engine_beside(sessions, url) as engine:
        made.append(World(sessions, engine, kind))
        yield made[0]


@pytest.fixture(params=["connection", "session"])
async def world(
    request: pytest.FixtureRequest, make_sessions: MakeSessions, database_url: str
) -> AsyncIterator[World]:
    async with opened_world(make_sessions, database_url, request.param) as world:
        yield world


@pytest.fixture
async def shop(make_sessions: MakeSessions, database_url: str) -> AsyncIterator[World]:
    """A world with data."""
    async with opened_world(make_sessions, database_url, "connection", data=True) as world:
        yield world


def log_in(world: World, person: str = "ann") -> Step:
    async def step(request: Request, transaction: Open) -> None:
        await world.sessions.start_session(request, person, connection=transaction.connection)

    return step


def then(step: Step, *, commit: bool) -> Step:
    async def both(request: Request, transaction: Open) -> None:
        await step(request, transaction)
        await (transaction.commit() if commit else transaction.rollback())

    return both


async def test_a_login_that_commits_is_one(world: World) -> None:
    browser = Browser(world.app)
    response = await world.take(browser, then(log_in(world), commit=True))
    assert len(set_cookies(response)) == 1
    assert (await browser.see())["person_id"] == "ann"
    assert world.events == ["started"]


async def test_a_login_that_is_rolled_back_has_not_happened(world: World) -> None:
    browser = Browser(world.app)
    response = await world.take(browser, then(log_in(world), commit=False))
    assert set_cookies(response) == []
    assert (await browser.see())["sid"] is None
    assert await world.live() == []
    assert world.events == []


async def test_a_token_is_good_once_the_transaction_has_committed(
    make_sessions: MakeSessions, database_url: str
) -> None:
    async with opened_world(make_sessions, database_url, "connection", bearer=True) as world:
        issued: list[IssuedToken] = []

        async def issue(request: Request, transaction: Open) -> None:
            connection: Any = transaction.connection
            issued.append(await world.sessions.start_token(request, "ann", connection=connection))

        async def too_late(request: Request, transaction: Open) -> None:
            await issue(request, transaction)
            raise LookupError

        browser = Browser(world.app, raise_app_exceptions=False)
        for step in (then(issue, commit=False), too_late, then(issue, commit=True)):
            await world.take(browser, step)
        seen = [await browser.see(authorization=f"Bearer {one.token}") for one in issued]
        assert [one["person_id"] for one in seen] == [None, None, "ann"]
        assert world.events == ["started"]


async def test_a_token_whose_commit_comes_after_an_error_is_ended(
    make_sessions: MakeSessions, database_url: str
) -> None:
    async with opened_world(make_sessions, database_url, "connection", bearer=True) as world:
        connection = await world.engine.connect()

        async def step(request: Request, transaction: Open) -> None:
            await world.sessions.start_token(request, "ann", connection=connection)
            raise LookupError

        await world.take(Browser(world.app, raise_app_exceptions=False), step)
        await connection.commit()
        await connection.close()
        await world.followed()
        assert await world.live() == []


async def test_the_rollback_of_a_savepoint_undoes_what_was_done_in_it(world: World) -> None:
    async def step(request: Request, transaction: Open) -> None:
        savepoint = await transaction.connection.begin_nested()
        await log_in(world)(request, transaction)
        await savepoint.rollback()
        await transaction.commit()

    browser = Browser(world.app)
    assert set_cookies(await world.take(browser, step)) == []
    assert await world.live() == []
    assert world.events == []


async def test_a_second_transaction_right_after_the_first_is_not_ours(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("asgi_sessions._service.joining._PAUSE", 0.1)  # within which both commit

    async def step(request: Request, transaction: Open) -> None:
        await then(log_in(world), commit=True)(request, transaction)
        await transaction.connection.execute(text("SELECT 1"))
        await transaction.commit()

    await world.take(Browser(world.app), step)
    assert world.events == ["started"]
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_commit_that_fails_is_a_rollback(world: World) -> None:
    async def step(request: Request, transaction: Open) -> None:
        connection = transaction.connection
        await world.sessions.insert(request, "ann", connection=connection)
        if isinstance(connection, AsyncSession):
            connection = await connection.connection()

        def fail(_: object) -> None:
            raise RuntimeError("a constraint that is deferred")

        event.listen(connection.sync_connection, "commit", fail)
        with pytest.raises(RuntimeError):
            await transaction.commit()
        await transaction.rollback()

    response = await world.take(Browser(world.app), step)
    assert (response.status_code, set_cookies(response)) == (200, [])
    assert (await world.live(), world.events) == ([], [])


async def test_an_exception_in_the_handler_undoes_the_login(world: World) -> None:
    async def step(request: Request, transaction: Open) -> None:
        await log_in(world)(request, transaction)
        raise LookupError

    browser = Browser(world.app, raise_app_exceptions=False)
    response = await world.take(browser, step)
    assert response.status_code == 500
    assert set_cookies(response) == []
    assert await world.live() == []
    assert world.events == []


async def test_the_rows_of_the_app_and_the_session_are_there_together_or_not_at_all(
    world: World, table_name: str
) -> None:
    people = f"{table_name}_people"
    async with world.engine.begin() as connection:
        await connection.execute(text(f"CREATE TABLE {people} (id VARCHAR(9) PRIMARY KEY)"))

    def sign_up(*, commit: bool) -> Step:
        async def step(request: Request, transaction: Open) -> None:
            insert = text(f"INSERT INTO {people} VALUES ('ann')")  # noqa: S608 -- a test's
            await log_in(world)(request, transaction)  # before the app's own first statement
            await transaction.connection.execute(insert)

        return then(step, commit=commit)

    async def count() -> int:
        async with world.engine.connect() as connection:
            return int(await connection.scalar(text(f"SELECT count(*) FROM {people}")) or 0)  # noqa: S608 -- a test's

    await world.take(Browser(world.app), sign_up(commit=False))
    assert (await count(), len(await world.live())) == (0, 0)
    await world.take(Browser(world.app), sign_up(commit=True))
    assert (await count(), len(await world.live())) == (1, 1)
    async with world.engine.begin() as connection:
        await connection.execute(text(f"DROP TABLE {people}"))


async def test_a_commit_after_the_response_began_is_too_late_and_says_so(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """As FastAPI's dependencies with `yield` do it."""
    finish, begun = asyncio.Event(), asyncio.Event()

    async def late(request: Request) -> Response:
        transaction = world.begun()
        opened = await transaction.__aenter__()
        await log_in(world)(request, opened)

        async def after() -> None:
            begun.set()
            await finish.wait()
            await opened.commit()
            await transaction.__aexit__(None, None, None)

        world.left.append(opened)
        world.sessions._core.background.run(after())
        return JSONResponse({})

    app = make_app(world.sessions, Route("/late", late, methods=["POST"]))
    browser = Browser(app)
    with caplog.at_level(logging.WARNING, "asgi_sessions"):
        response = await browser.post("/late")
        assert set_cookies(response) == []
        assert await world.live() == []
        await begun.wait()
        finish.set()
        await world.followed()
        await world.followed()
    assert await world.live() == []
    assert [record.event for record in caplog.records] == ["committed_too_late"]  # type: ignore[attr-defined]
    assert "commit before the handler returns" in caplog.text
    assert world.events == ["started", "not_delivered"]


@pytest.mark.parametrize("commit", [True, False])
async def test_a_logout_clears_the_cookie_if_it_commits(world: World, commit: bool) -> None:
    async def step(request: Request, transaction: Open) -> None:
        await world.sessions.end_session(request, connection=transaction.connection)

    browser = Browser(world.app)
    await browser.login("ann")
    response = await world.take(browser, then(step, commit=commit))
    assert [cookie.startswith("__Host-sid=;") for cookie in set_cookies(response)] == [
        True
    ] * commit
    assert ((await browser.see())["sid"] is None) is commit
    assert world.events == ["started", *["logout"] * commit]


@pytest.mark.parametrize("commit", [True, False])
@pytest.mark.parametrize("way", ["renew_session", "rotate_session"])
async def test_a_new_secret_counts_if_it_commits(world: World, way: str, commit: bool) -> None:
    async def step(request: Request, transaction: Open) -> None:
        await getattr(world.sessions, way)(request, connection=transaction.connection)

    browser = Browser(world.app)
    await browser.login("ann")
    before = dict(browser.cookies)
    response = await world.take(browser, then(step, commit=commit))
    assert len(set_cookies(response)) == commit
    assert (dict(browser.cookies) != before) is commit
    assert (await browser.see())["person_id"] == "ann"
    assert world.events == ["started", *["renewed"] * commit]


@pytest.mark.parametrize("commit", [True, False])
async def test_staff_act_for_a_person_and_leave_if_it_commits(world: World, commit: bool) -> None:
    async def act(request: Request, transaction: Open) -> None:
        await world.sessions.impersonate(
            request, "ann", reason="ticket 7", connection=transaction.connection
        )

    async def leave(request: Request, transaction: Open) -> None:
        await world.sessions.end_session(request, connection=transaction.connection)

    browser = Browser(world.app)
    closed: list[bool] = []
    own = await browser.login("staff")
    leaves = opened(world.sessions, own, lambda: closed.append(True), lambda: b"their secret")
    response = await world.take(browser, then(act, commit=commit))
    await asyncio.sleep(0)
    assert closed == [True] * commit  # what was open on the one that waits now
    leaves()
    assert len(set_cookies(response)) == commit
    assert (await browser.see())["person_id"] == ("ann" if commit else "staff")
    assert len(await world.live()) == commit
    await world.take(browser, then(leave, commit=commit))
    assert ((await browser.see())["sid"] is None) is commit
    assert len(await world.live("staff")) == (not commit)
    assert world.events == ["started", *["started", "logout", "logout"] * commit]


@pytest.mark.parametrize("commit", [True, False])
async def test_other_devices_are_out_if_it_commits(world: World, commit: bool) -> None:
    async def step(request: Request, transaction: Open) -> None:
        ended = await world.sessions.end_other_sessions(request, connection=transaction.connection)
        assert ended == 2

    mine, phone, tablet = (Browser(world.app, agent=name) for name in ("mine", "phone", "tablet"))
    for browser in (mine, phone, tablet):
        await browser.login("ann")
    await world.take(mine, then(step, commit=commit))
    assert (await mine.see())["person_id"] == "ann"
    for browser in (phone, tablet):
        assert ((await browser.see())["sid"] is None) is commit
    assert world.events == [*["started"] * 3, *["revoked"] * (2 if commit else 0)]


@pytest.mark.parametrize("commit", [True, False])
async def test_one_or_all_end_if_it_commits(world: World, commit: bool) -> None:
    first, second, third = [(await world.sessions.insert({"headers": []}, "ann")).id for _ in "abc"]

    async def step(request: Request, transaction: Open) -> None:
        sessions, connection = world.sessions, transaction.connection
        (ended,) = [await sessions.end_session_by_id(first, person_id="ann", connection=connection)]
        assert ended is not None
        assert ended.end_reason == "revoked"
        fourth = await sessions.insert(request, "ann", connection=connection)
        assert await sessions.end_all_sessions("ann", connection=connection) == 3
        assert fourth.person_id == "ann"

    await world.take(Browser(world.app), then(step, commit=commit))
    assert {*await world.live()} == (set() if commit else {first, second, third})


async def test_what_is_open_is_closed_after_the_commit_and_not_before(world: World) -> None:
    closed: list[str] = []
    session = await world.sessions.insert({"headers": []}, "ann")
    leave = opened(world.sessions, session.id, lambda: closed.append("closed"))

    async def step(request: Request, transaction: Open) -> None:
        await world.sessions.end_session_by_id(session.id, connection=transaction.connection)
        await asyncio.sleep(0)
        assert closed == []
        await transaction.commit()

    await world.take(Browser(world.app), step)
    await asyncio.sleep(0)
    assert closed == ["closed"]
    leave()


async def test_what_is_no_connection_of_sqlalchemy_is_refused_by_name(sessions: Sessions) -> None:
    with pytest.raises(ConfigurationError, match="pass an AsyncConnection or an AsyncSession"):
        await sessions.insert({"headers": []}, "ann", connection="sqlite://")  # type: ignore[arg-type]


async def test_a_connection_in_autocommit_mode_is_refused(
    sessions: Sessions, database_url: str
) -> None:
    async with engine_beside(sessions, database_url) as engine, engine.connect() as connection:
        await connection.execution_options(isolation_level="AUTOCOMMIT")
        with pytest.raises(ConfigurationError, match="pass one that is not in autocommit"):
            await sessions.insert({"headers": []}, "ann", connection=connection)
    assert await sessions.list_sessions("ann") == []


async def test_what_the_database_cannot_do_is_an_outage(
    sessions: Sessions, database_url: str, table_name: str
) -> None:
    async with engine_beside(sessions, database_url) as engine, engine.connect() as connection:
        away = Sessions(engine, secret_key=KEY, table_name=f"{table_name}_away")
        with pytest.raises(SessionsUnavailable):  # there is no table
            await away.insert({"headers": []}, "ann", connection=connection)


async def test_a_connection_to_another_kind_of_database_is_refused(
    sessions: Sessions, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("it is one to SQLite")
    engine = create_async_engine("sqlite+aiosqlite://")
    async with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="pass a connection to the database of"):
            await sessions.insert({"headers": []}, "ann", connection=connection)
    await engine.dispose()


async def test_a_request_that_waits_for_its_own_transaction_is_told_so(
    make_sessions: MakeSessions, database_url: str, table_name: str
) -> None:
    if not database_url.startswith("sqlite"):
        pytest.skip("elsewhere many transactions write at a time")
    sessions = await make_sessions(timeout=timedelta(seconds=1))
    async with engine_beside(sessions, database_url) as engine, engine.begin() as connection:
        await connection.execute(text(f"DELETE FROM {table_name}"))  # noqa: S608 -- a test's
        with pytest.raises(SessionsUnavailable, match="pass connection="):
            await sessions.insert({"headers": []}, "ann")
        await sessions.insert({"headers": []}, "ann", connection=connection)
    assert len(await sessions.list_sessions("ann")) == 1


async def test_a_driver_that_is_not_supported_is_refused_by_name(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    monkeypatch.setattr(engine.dialect, "driver", "another")
    async with engine.connect() as connection:
        with pytest.raises(
            ConfigurationError, match=r"on sqlite\+another is not supported: use sqlite\+aio"
        ):
            await sessions.insert({"headers": []}, "ann", connection=connection)
    await engine.dispose()


async def test_the_page_on_transactions_is_true_on_each_database(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = getattr(database_url, "driver", "") or _DRIVERS.get(
        database_url.partition(":")[0], "mysql+asyncmy"
    )
    monkeypatch.setenv("SECRET_KEY", KEY)
    with own_database(database_url, tmp_path) as url:
        # Its engine, with what it needs behind PgBouncer.
        monkeypatch.setattr(
            "sqlalchemy.ext.asyncio.create_async_engine", lambda _: app_engine(url, scheme)
        )
        await Reader(DOCS / "transactions.md").run()


class Away:
    """A database that stops answering after the app's transaction."""

    def __init__(self, sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
        self._store, self._monkeypatch = store_of(sessions), monkeypatch

    def begin(self) -> None:
        async def none(_: str) -> None:
            raise SessionsUnavailable("it does not answer")

        self._monkeypatch.setattr(self._store, "by_sid", none)

    def end(self) -> None:
        self._monkeypatch.undo()


@pytest.mark.parametrize("commit", [True, False])
async def test_in_an_outage_no_secret_is_sent_that_may_have_been_rolled_back(
    world: World, monkeypatch: pytest.MonkeyPatch, commit: bool
) -> None:
    away = Away(world.sessions, monkeypatch)

    async def step(request: Request, transaction: Open) -> None:
        await world.sessions.renew_session(request, connection=transaction.connection)
        await (transaction.commit() if commit else transaction.rollback())
        away.begin()

    browser = Browser(world.app)
    await browser.login("ann")
    assert set_cookies(await world.take(browser, step)) == []
    away.end()
    # Neither is the old secret taken for a theft: it is the one that counts, or a bridge.
    assert (await browser.see())["person_id"] == "ann"


async def test_in_an_outage_a_logout_that_may_have_been_rolled_back_clears_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    away = Away(world.sessions, monkeypatch)

    async def step(request: Request, transaction: Open) -> None:
        await world.sessions.end_session(request, connection=transaction.connection)
        await transaction.rollback()
        away.begin()

    browser = Browser(world.app)
    await browser.login("ann")
    response = await world.take(browser, step)
    assert (response.status_code, set_cookies(response)) == (200, [])
    away.end()
    assert (await browser.see())["person_id"] == "ann"


async def test_a_connection_that_does_not_answer_is_not_waited_for(
    make_sessions: MakeSessions, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def silence(*_: object) -> None:
        await asyncio.get_running_loop().create_future()

    sessions = await make_sessions(timeout=timedelta(seconds=1))
    async with engine_beside(sessions, database_url) as engine, engine.connect() as connection:
        monkeypatch.setattr(AsyncConnection, "exec_driver_sql", silence)
        with pytest.raises(SessionsUnavailable):
            await sessions.insert({"headers": []}, "ann", connection=connection)


async def test_a_connection_that_would_bend_ids_is_refused(
    sessions: Sessions, database_url: str
) -> None:
    if not database_url.startswith("mysql"):
        pytest.skip("the others have one character set for all")
    driver = getattr(database_url, "driver", "mysql+aiomysql")
    engine = app_engine(database_url, driver, connect_args={"charset": "latin1"})
    async with engine.connect() as connection:
        for _ in range(2):  # it stays refused
            with pytest.raises(ConfigurationError, match="would bend ids"):
                await sessions.insert({"headers": []}, "ann", connection=connection)
    await engine.dispose()
    assert await sessions.list_sessions("ann") == []


async def test_a_connection_whose_statements_others_would_run_is_refused(
    sessions: Sessions, database_url: str
) -> None:
    if "statement_cache_size=0" not in database_url:
        pytest.skip("it is not behind a pooler")
    place = make_url(database_url).set(drivername="postgresql+asyncpg", query={})
    engine = create_async_engine(
        place,
        connect_args={"prepared_statement_name_func": lambda: f"app_{uuid.uuid4().hex}"},
        poolclass=NullPool,
    )
    async with engine.connect() as connection:
        with pytest.raises(ConfigurationError, match="behind PgBouncer"):
            await sessions.insert({"headers": []}, "ann", connection=connection)
    await engine.dispose()


async def test_many_sessions_that_end_in_a_transaction_hold_up_nobody(world: World) -> None:
    sids = {(await world.sessions.insert({"headers": []}, "ann")).id for _ in range(70)}
    turns = 0

    async def count() -> None:
        nonlocal turns
        while len(world.events) < 2 * len(sids):
            turns += len(world.events) > len(sids)
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())

    async def step(_: Request, transaction: Open) -> None:
        await world.sessions.end_all_sessions("ann", connection=transaction.connection)
        await transaction.commit()

    await world.take(Browser(world.app), step)
    await counting
    assert world.events[70:] == ["revoked"] * 70
    assert turns >= 2  # in between


# --- data -----------------------------------------------------------------------------------------


async def put(request: Request, transaction: Open) -> None:
    request.session["cart"] = ["a"]


async def cart_of(world: World, browser: Browser) -> Any:
    """The data that the browser has."""
    seen: list[Any] = []

    async def look(request: Request, transaction: Open) -> None:
        seen.append(dict(request.session))

    await world.take(browser, look)
    return seen[0]


async def kept(world: World) -> tuple[list[Any], list[Any]]:
    """The data of sessions, and those of visitors."""
    data = [await data_of(world.sessions, kind) for kind in ("data", "visitors")]
    return [*data[0].values()], [*data[1].values()]


async def test_a_login_in_the_transaction_takes_the_data_of_the_visitor_over(shop: World) -> None:
    async with Browser(shop.app) as browser:
        await shop.take(browser, put)
        planted = browser.cookies.get(shop.sessions.cookie_name)

        async def step(request: Request, transaction: Open) -> None:
            await log_in(shop)(request, transaction)
            assert request.session == {"cart": ["a"]}
            await transaction.commit()
            request.session["after"] = 1

        await shop.take(browser, step)
        assert await cart_of(shop, browser) == {"cart": ["a"], "after": 1}
        assert await kept(shop) == ([{"cart": ["a"], "after": 1}], [])
        assert browser.cookies.get(shop.sessions.cookie_name) != planted


async def test_a_rollback_leaves_the_data_with_the_visitor(shop: World) -> None:
    async with Browser(shop.app) as browser:
        await shop.take(browser, put)
        planted = browser.cookies.get(shop.sessions.cookie_name)

        async def step(request: Request, transaction: Open) -> None:
            await then(log_in(shop), commit=False)(request, transaction)
            request.session["error"] = "try again"

        response = await shop.take(browser, step)
        assert set_cookies(response) == []
        assert browser.cookies.get(shop.sessions.cookie_name) == planted
        assert await cart_of(shop, browser) == {"cart": ["a"], "error": "try again"}
        assert await kept(shop) == ([], [{"cart": ["a"], "error": "try again"}])
        assert await shop.live() == []


async def test_a_commit_that_comes_too_late_gives_the_data_back(shop: World) -> None:
    async with Browser(shop.app) as browser:
        await shop.take(browser, put)
        connection = await shop.engine.connect()

        async def step(request: Request, transaction: Open) -> None:
            await shop.sessions.start_session(request, "ann", connection=connection)

        response = await shop.take(browser, step)
        assert set_cookies(response) == []
        await connection.commit()
        await connection.close()
        await shop.followed()
        assert await shop.live() == []
        assert await cart_of(shop, browser) == {"cart": ["a"]}
        assert await kept(shop) == ([], [{"cart": ["a"]}])


@pytest.mark.parametrize("commit", [True, False])
async def test_a_logout_in_the_transaction_takes_the_data_along(
    shop: World, *, commit: bool
) -> None:
    for person in (None, "ann"):
        async with Browser(shop.app) as browser:
            if person is not None:
                await browser.login(person)
            await shop.take(browser, put)

            async def log_out(request: Request, transaction: Open) -> None:
                await shop.sessions.end_session(request, connection=transaction.connection)

            await shop.take(browser, then(log_out, commit=commit))
            # A visitor's cookie goes in any case: there is no session to ask about.
            left = {} if commit or person is None else {"cart": ["a"]}
            assert await cart_of(shop, browser) == left
    visitors = [] if commit else [{"cart": ["a"]}]
    assert await kept(shop) == ([] if commit else [{"cart": ["a"]}], visitors)


async def test_an_end_in_the_transaction_takes_the_data_along(shop: World) -> None:
    async with Browser(shop.app) as browser:
        sid = await browser.login("ann")
        await shop.take(browser, put)
        for end in (AsyncConnection.rollback, AsyncConnection.commit):
            async with shop.engine.connect() as connection:
                await shop.sessions.end_session_by_id(sid, connection=connection)
                await end(connection)
            await shop.followed()
            left = [{"cart": ["a"]}] if end is AsyncConnection.rollback else []
            assert await kept(shop) == (left, [])


async def test_a_logout_at_the_provider_that_comes_before_the_commit_is_not_missed(
    sessions: Sessions, database_url: str, clock: Clock
) -> None:
    """It has found no row, and the login has found no logout."""
    person = Person("ann", issuer=ISSUER, subject="ann", provider_sid="phone")
    logout = BackChannelLogout(sessions, issuer=ISSUER, client_id=CLIENT, keys=public(key()))
    async with engine_beside(sessions, database_url) as engine, engine.connect() as connection:
        session = await sessions.insert(
            {"type": "http", "headers": []}, person, connection=connection
        )
        token = Provider(clock).logout_token(sid="phone")
        ended = asyncio.create_task(log_out(logout, token))
        if not database_url.startswith("sqlite"):  # which lets it wait until the commit
            await ended
        await connection.commit()
        assert (await ended).status_code == 200
    await settled(sessions)
    (found,) = await sessions.list_sessions("ann", include_ended=True)
    assert (found.sid, found.end_reason) == (session.sid, "revoked")
