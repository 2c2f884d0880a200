"""Event loops: one for a server, one per request, one per test, several at once; and the end.

Statements are held up in the private driver, which is the only place between a session and SQLite.
"""

from __future__ import annotations

import asyncio
import gc
import sqlite3
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol

import fastapi
import litestar
import litestar.middleware
import litestar.testing
import pytest
from databases import Database
from fastapi.testclient import TestClient as FastAPITestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket

from asgi_sessions import ConfigurationError, SessionMiddleware, Sessions, SessionsUnavailable
from asgi_sessions._database.drivers.aiosqlite import AiosqliteDriver
from tests.support import KEY, Browser, Clock, make_app
from tests.support.asgi import until
from tests.support.engines import connection_threads
from tests.support.repository import ROOT

#: Nothing here takes longer; what does, hangs.
SECONDS = 30


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with the table in it, made in a loop that is gone."""
    url = f"sqlite:///{tmp_path}/sessions.db"

    async def create() -> None:
        async with Sessions(url, secret_key=KEY) as sessions:
            await sessions.create_tables()

    asyncio.run(create())
    return url


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Each test leaves no connection behind, nor a warning that one was dropped."""
    before = connection_threads()
    yield
    gc.collect()
    for thread in connection_threads() - before:
        thread.join(SECONDS)
        assert not thread.is_alive()


# --- three frameworks, as small as can be ---------------------------------------------------------


class Loops:
    """The event loops that the handlers ran in."""

    def __init__(self) -> None:
        self.seen: list[asyncio.AbstractEventLoop] = []

    def note(self) -> None:
        """The loop of this handler."""
        self.seen.append(asyncio.get_running_loop())


def starlette_app(sessions: Sessions, loops: Loops) -> ASGIApp:
    async def home(request: Request) -> Response:
        loops.note()
        return JSONResponse({"sid": request.state.sid})

    async def login(request: Request) -> Response:
        loops.note()
        session = await sessions.start_session(request, {"id": "ann"})
        return JSONResponse({"sid": session.id})

    async def socket(websocket: WebSocket) -> None:
        loops.note()
        await websocket.accept()
        await websocket.send_text(str(websocket.state.sid))
        assert (await websocket.receive())["type"] == "websocket.disconnect"

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/login", login, methods=["POST"]),
            Route("/logout", sessions.end_session_endpoint()),
            WebSocketRoute("/socket", socket),
        ],
        lifespan=sessions.lifespan,
    )
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


def fastapi_app(sessions: Sessions, loops: Loops) -> ASGIApp:
    app = fastapi.FastAPI(lifespan=sessions.lifespan)
    app.add_middleware(SessionMiddleware, sessions=sessions)

    @app.get("/")
    async def home(request: fastapi.Request) -> dict[str, Any]:
        loops.note()
        return {"sid": request.state.sid}

    @app.post("/login")
    async def login(request: fastapi.Request) -> dict[str, Any]:
        loops.note()
        return {"sid": (await sessions.start_session(request, {"id": "ann"})).id}

    app.mount("/logout", sessions.end_session_endpoint())
    return app


def litestar_app(sessions: Sessions, loops: Loops) -> ASGIApp:
    @litestar.get("/")
    async def home(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        loops.note()
        return {"sid": request.state.sid}

    @litestar.post("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        loops.note()
        return {"sid": (await sessions.start_session(request, {"id": "ann"})).id}

    logout = litestar.asgi("/logout", copy_scope=False)(sessions.end_session_endpoint())
    app: Any = litestar.Litestar(
        [home, login, logout],
        lifespan=[sessions.lifespan],
        middleware=[litestar.middleware.DefineMiddleware(SessionMiddleware, sessions=sessions)],
        openapi_config=None,
    )
    return app  # type: ignore[no-any-return]


class Quiet:
    """A client that sends nothing and listens to nothing."""

    @staticmethod
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    @staticmethod
    async def send(message: Message) -> None:
        pass


class Client(Protocol):
    """What the three test clients have in common."""

    def get(self, url: str) -> Any: ...
    def post(self, url: str) -> Any: ...
    def __enter__(self) -> Any: ...
    def __exit__(self, *fault: object) -> Any: ...


def starlette_client(app: Any) -> Client:
    return TestClient(app, base_url="https://test")


def fastapi_client(app: Any) -> Client:
    return FastAPITestClient(app, base_url="https://test")


def litestar_client(app: Any) -> Client:
    return litestar.testing.TestClient(app, base_url="https://test.local")


Make = tuple[Callable[[Sessions, Loops], ASGIApp], Callable[[Any], Client]]
FRAMEWORKS: dict[str, Make] = {
    "starlette": (starlette_app, starlette_client),
    "fastapi": (fastapi_app, fastapi_client),
    "litestar": (litestar_app, litestar_client),
}
each_framework = pytest.mark.parametrize("make", FRAMEWORKS.values(), ids=FRAMEWORKS.keys())


def whole_story(client: Client) -> None:
    """Log in, be known, log out, be out."""
    assert client.get("/").json() == {"sid": None}
    sid = client.post("/login").json()["sid"]
    assert client.get("/").json() == {"sid": sid}
    assert client.get("/").json() == {"sid": sid}
    assert client.post("/logout").json() == {"message": "session ended"}
    assert client.get("/").json() == {"sid": None}


# --- test clients ---------------------------------------------------------------------------------


@each_framework
def test_a_test_client_in_a_with_block_uses_one_loop(url: str, make: Make) -> None:
    make_app, make_client = make
    loops, before = Loops(), connection_threads()
    with make_client(make_app(Sessions(url, secret_key=KEY), loops)) as client:
        whole_story(client)
        assert connection_threads() - before  # held
    assert len(set(loops.seen)) == 1
    for thread in connection_threads() - before:  # let go by the lifespan
        thread.join(SECONDS)
        assert not thread.is_alive()


@each_framework
def test_a_test_client_without_with_uses_a_loop_for_each_request(url: str, make: Make) -> None:
    make_app, make_client = make
    loops = Loops()
    whole_story(make_client(make_app(Sessions(url, secret_key=KEY), loops)))
    assert len(set(loops.seen)) == len(loops.seen) == 5


@each_framework
def test_a_test_client_can_be_entered_again_and_again(url: str, make: Make) -> None:
    make_app, make_client = make
    loops = Loops()
    app = make_app(Sessions(url, secret_key=KEY), loops)
    for _ in range(3):
        with make_client(app) as client:
            whole_story(client)
        whole_story(make_client(app))
    assert len(set(loops.seen)) == 3 * (1 + 5)


def test_two_test_clients_at_once_share_the_sessions(url: str) -> None:
    app = starlette_app(Sessions(url, secret_key=KEY), Loops())
    with starlette_client(app) as laptop, starlette_client(app) as phone:
        sids = [client.post("/login").json()["sid"] for client in (laptop, phone)]
        laptop.post("/logout")
        assert [client.get("/").json()["sid"] for client in (laptop, phone)] == [None, sids[1]]


def test_a_touch_is_written_before_the_loop_of_its_request_ends(url: str, clock: Clock) -> None:
    sessions = Sessions(url, secret_key=KEY, clock=clock)
    client = starlette_client(starlette_app(sessions, Loops()))
    sid = client.post("/login").json()["sid"]
    clock.turn(timedelta(minutes=5))
    client.get("/")
    session = asyncio.run(sessions.get_by_id(sid))
    assert session is not None
    assert session.last_seen_at == clock.now


def test_a_touch_that_the_end_of_its_loop_cuts_in_half_is_written_all_the_same(
    url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = Sessions(url, secret_key=KEY, clock=clock)
    app = make_app(sessions)
    execute, begun = AiosqliteDriver.execute, asyncio.Event()

    async def execute_when_asked_again(*args: Any) -> int:
        if not begun.is_set():
            begun.set()
            await asyncio.Event().wait()
        return await execute(*args)

    async def login() -> str:
        await sessions.create_tables()
        async with Browser(app) as browser:
            return (await browser.post("/login?person=ann")).headers["set-cookie"]

    async def use(cookie: str) -> None:
        headers = [(b"cookie", cookie.partition(";")[0].encode())]
        scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
        monkeypatch.setattr(AiosqliteDriver, "execute", execute_when_asked_again)
        await app(scope, Quiet.receive, Quiet.send)
        await begun.wait()

    cookie = asyncio.run(login())
    clock.turn(timedelta(minutes=5))
    asyncio.run(use(cookie))
    (session,) = asyncio.run(sessions.list_sessions("ann"))
    assert session.last_seen_at == clock.now


# The thread of aiosqlite reports that it has stopped to the loop, which may be gone by then.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_file_that_is_being_opened_when_the_loop_ends_is_closed(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """aiosqlite forgets it."""
    made: list[sqlite3.Connection] = []
    connect, begun, go_on = sqlite3.connect, threading.Event(), threading.Event()

    def slowly(*args: Any, **options: Any) -> sqlite3.Connection:
        begun.set()
        go_on.wait()
        made.append(connect(*args, **options))
        return made[-1]

    async def use() -> None:
        asking = asyncio.ensure_future(sessions.list_sessions("ann"))
        await asyncio.to_thread(begun.wait)
        asyncio.get_running_loop().call_later(0.05, go_on.set)
        asking.cancel()

    sessions = Sessions(url, secret_key=KEY)
    monkeypatch.setattr(AiosqliteDriver, "patience", 10)  # the machine may be busy
    monkeypatch.setattr(sqlite3, "connect", slowly)
    asyncio.run(use())
    asyncio.run(until(lambda: all(map(is_closed, made))))  # a thread closes it
    assert [is_closed(connection) for connection in made] == [True]


async def test_a_file_that_takes_too_long_to_open_is_closed_when_it_is_there(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[sqlite3.Connection] = []
    connect, go_on = sqlite3.connect, threading.Event()

    def slowly(*args: Any, **options: Any) -> sqlite3.Connection:
        go_on.wait()
        made.append(connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(AiosqliteDriver, "patience", 0)
    monkeypatch.setattr(sqlite3, "connect", slowly)
    async with Sessions(url, secret_key=KEY, timeout=timedelta(milliseconds=50)) as sessions:
        with pytest.raises(SessionsUnavailable):
            await sessions.list_sessions("ann")
        go_on.set()
        async with asyncio.timeout(10):
            while not made or not is_closed(made[0]):  # noqa: ASYNC110 -- a thread closes it
                await asyncio.sleep(0.01)


def is_closed(connection: sqlite3.Connection) -> bool:
    try:
        connection.total_changes  # noqa: B018 -- it raises
    except sqlite3.ProgrammingError as fault:
        return "closed" in str(fault)
    return False


def test_an_expiry_is_written_before_the_loop_of_its_request_ends(url: str, clock: Clock) -> None:
    sessions = Sessions(url, secret_key=KEY, clock=clock)
    client = starlette_client(starlette_app(sessions, Loops()))
    for _ in range(10):  # a loop that ends too early does not always hit it
        sid = client.post("/login").json()["sid"]
        clock.turn(timedelta(days=15))
        assert client.get("/").json() == {"sid": None}
        session = asyncio.run(sessions.get_by_id(sid))
        assert session is not None
        assert session.end_reason == "expired"
        assert session.ended_at == session.started_at + timedelta(days=14)


def test_a_websocket_closes_when_its_session_ends_in_another_loop(url: str) -> None:
    loops = Loops()
    client = TestClient(
        starlette_app(Sessions(url, secret_key=KEY), loops), base_url="https://test"
    )
    sid = client.post("/login").json()["sid"]
    with client.websocket_connect("wss://test/socket") as socket:
        assert socket.receive_text() == sid
        client.post("/logout")
        assert socket.receive() == {
            "type": "websocket.close",
            "code": 1008,
            "reason": "session ended",
        }
    assert len(set(loops.seen)) == 2


# --- loops of one's own ---------------------------------------------------------------------------


async def story(sessions: Sessions) -> None:
    """As `whole_story`, in the running loop."""
    async with Browser(make_app(sessions)) as browser:
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
        await browser.post("/logout")
        assert (await browser.see())["sid"] is None


def test_asyncio_run_may_be_called_again_and_again(url: str) -> None:
    sessions = Sessions(url, secret_key=KEY)
    for _ in range(3):
        asyncio.run(story(sessions))
    listed = asyncio.run(sessions.list_sessions("ann", include_ended=True))
    assert [session.end_reason for session in listed] == ["logout"] * 3


def test_a_loop_that_was_left_properly_can_be_followed_by_another(url: str) -> None:
    sessions = Sessions(url, secret_key=KEY)

    async def proper() -> None:
        async with sessions:
            await story(sessions)
        await story(sessions)  # connects again by itself
        await sessions.disconnect()
        await sessions.disconnect()  # nothing to do

    for _ in range(3):
        asyncio.run(proper())


@pytest.mark.parametrize("cancelling", [True, False])
def test_a_loop_for_each_test_works_however_it_is_closed(url: str, *, cancelling: bool) -> None:
    sessions = Sessions(url, secret_key=KEY)
    for _ in range(4):
        loop = asyncio.new_event_loop()
        loop.run_until_complete(story(sessions))
        if cancelling:  # as asyncio.run does, and pytest's plugins do
            tasks = asyncio.all_tasks(loop)
            for task in tasks:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.close()
        del loop
        gc.collect()
    asyncio.run(sessions.list_sessions("ann"))  # finds the last loop closed
    gc.collect()


def test_a_fixture_in_one_loop_and_its_test_in_another(url: str) -> None:
    sessions = Sessions(url, secret_key=KEY)
    with asyncio.Runner() as of_the_fixture, asyncio.Runner() as of_the_test:
        of_the_fixture.run(sessions.connect())
        of_the_test.run(story(sessions))
        of_the_fixture.run(story(sessions))
        of_the_fixture.run(sessions.disconnect())
        of_the_test.run(story(sessions))


def test_two_loops_in_two_threads_work_at_once(url: str) -> None:
    sessions = Sessions(url, secret_key=KEY)
    together = threading.Barrier(2, timeout=SECONDS)

    async def busy(person: str) -> list[str]:
        async with sessions, Browser(make_app(sessions)) as browser:
            together.wait()
            sids = []
            for _ in range(20):
                sids.append(await browser.login(person))
                assert (await browser.see())["sid"] == sids[-1]
            together.wait()
            return sids

    with ThreadPoolExecutor(2) as threads:
        ann, bob = threads.map(lambda person: asyncio.run(busy(person)), ["ann", "bob"])
    for person, sids in (("ann", ann), ("bob", bob)):
        listed = asyncio.run(sessions.list_sessions(person, include_ended=True))
        assert {session.id for session in listed} == set(sids)
        assert sorted(session.end_reason or "" for session in listed) == ["", *["replaced"] * 19]


def test_what_ends_in_one_thread_is_dead_in_the_other(url: str) -> None:
    sessions = Sessions(url, secret_key=KEY)
    logged_in, ended = threading.Event(), threading.Event()
    sids: list[str] = []

    async def person() -> None:
        async with sessions, Browser(make_app(sessions)) as browser:
            sids.append(await browser.login("ann"))
            logged_in.set()
            await asyncio.to_thread(ended.wait, SECONDS)
            assert (await browser.see())["sid"] is None

    async def administrator() -> None:
        async with sessions:
            await asyncio.to_thread(logged_in.wait, SECONDS)
            assert await sessions.end_all_sessions("ann") == 1
            ended.set()

    with ThreadPoolExecutor(2) as threads:
        for done in [threads.submit(asyncio.run, work()) for work in (person, administrator)]:
            done.result(SECONDS)


# --- whose database -------------------------------------------------------------------------------


def test_each_loop_has_its_own_database_behind_a_url(url: str) -> None:
    sessions = Sessions(url, secret_key=KEY)
    used: list[Database] = []

    async def use() -> None:
        async with sessions:
            used.append(sessions.database)
            assert sessions.database is used[-1]
            assert sessions.database.is_connected

    outside = sessions.database
    for _ in range(2):
        asyncio.run(use())
    assert used[0] is outside
    assert used[0] is not used[1]
    assert not any(database.is_connected for database in used)


def test_an_open_database_of_the_apps_own_is_used_and_stays_open(url: str) -> None:
    async def own() -> None:
        async with Database(url) as database:
            sessions = Sessions(database, secret_key=KEY)
            async with sessions:
                assert sessions.database is database
                await story(sessions)
                assert await database.fetch_val("SELECT COUNT(*) FROM sessions") == 1
            assert database.is_connected
            assert await database.fetch_val("SELECT COUNT(*) FROM sessions") == 1
            await story(sessions)  # and ours comes back
            await sessions.disconnect()
            assert database.is_connected

    asyncio.run(own())


def test_a_closed_database_of_the_apps_own_is_opened_and_closed_again(url: str) -> None:
    async def own() -> None:
        database = Database(url)
        sessions = Sessions(database, secret_key=KEY)
        await story(sessions)
        assert database.is_connected
        await sessions.disconnect()
        assert not database.is_connected

    asyncio.run(own())


def test_a_transaction_of_the_apps_own_is_not_ours(url: str) -> None:
    async def own() -> None:
        async with Database(url) as database:
            sessions = Sessions(database, secret_key=KEY)
            sid = None
            async with Browser(make_app(sessions)) as browser:
                sid = await browser.login("ann")
                transaction = await database.transaction()
                await browser.post("/renew")
                await transaction.rollback()
                assert (await browser.see())["sid"] == sid
                (session,) = await sessions.list_sessions("ann")
                assert session.authenticated_at is not None
                assert session.authenticated_at > session.started_at
            await sessions.disconnect()

    asyncio.run(own())


def test_a_sqlite_database_of_the_apps_own_may_meet_several_loops(url: str) -> None:
    database = Database(url)
    sessions = Sessions(database, secret_key=KEY)
    for _ in range(3):
        asyncio.run(story(sessions))
    whole_story(starlette_client(starlette_app(sessions, Loops())))


def test_a_pool_of_the_apps_own_is_refused_in_another_loop() -> None:
    sessions = Sessions(Database("postgresql://nobody@127.0.0.1:1/none"), secret_key=KEY)

    async def use() -> None:
        await sessions.list_sessions("ann")

    with pytest.raises(SessionsUnavailable):
        asyncio.run(use())
    with pytest.raises(ConfigurationError, match="another event loop") as caught:
        asyncio.run(use())
    assert "a URL" in str(caught.value)  # the mend


def test_a_pool_of_the_apps_own_may_be_opened_again_in_its_loop() -> None:
    sessions = Sessions(Database("postgresql://nobody@127.0.0.1:1/none"), secret_key=KEY)

    async def use() -> None:
        for _ in range(2):
            with pytest.raises(SessionsUnavailable):
                await sessions.connect()
            await sessions.disconnect()

    asyncio.run(use())


# --- the end --------------------------------------------------------------------------------------

SETTING = """
import asyncio, logging, sys, threading
logging.getLogger("asyncio").setLevel("ERROR")  # not how slow this machine is
from asgi_sessions import SessionMiddleware, Sessions, SessionsUnavailable

async def app(scope, receive, send):
    if scope["path"] == "/login":
        await sessions.start_session(scope, {"id": "ann"})
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["method"].encode()})

sessions = Sessions(sys.argv[1], secret_key="abcdefgh" * 4, table_name=sys.argv[2])
app = SessionMiddleware(app, sessions=sessions)

async def story():
    await sessions.create_tables()
    sent = []
    scope = {"type": "http", "method": "POST", "path": "/login", "headers": []}
    await app(scope, None, lambda message: asyncio.sleep(0, sent.append(message)))
    assert len(await sessions.list_sessions("ann")) == 1
    return scope
"""

ENDINGS = {
    "asyncio.run, disconnected": """
        async def main():
            async with sessions:
                await story()
        asyncio.run(main())
    """,
    "asyncio.run, not disconnected": "asyncio.run(story())",
    "asyncio.run, twice": """
        asyncio.run(story())
        async def again():
            assert len(await sessions.list_sessions("ann")) == 1
        asyncio.run(again())
    """,
    "a fault": """
        async def main():
            await story()
            raise LookupError("on purpose")
        try:
            asyncio.run(main())
        except LookupError:
            pass
    """,
    "sys.exit": """
        async def main():
            await story()
            sys.exit(0)
        asyncio.run(main())
    """,
    "a database that cannot be opened": """
        sessions = Sessions("sqlite:////nowhere/at/all.db", secret_key="abcdefgh" * 4)
        async def main():
            try:
                await sessions.list_sessions("ann")
            except SessionsUnavailable:
                await asyncio.sleep(0.2)  # aiosqlite does not wait for its thread
        asyncio.run(main())
    """,
    "a file that is no database": """
        with open(sys.argv[1].removeprefix("sqlite:///"), "wb") as file:
            file.write(b"nothing of the kind" * 100)
        async def main():
            for _ in range(2):
                try:
                    await sessions.list_sessions("ann")
                except SessionsUnavailable:
                    pass
        asyncio.run(main())
    """,
    "a thread of its own": """
        thread = threading.Thread(target=asyncio.run, args=(story(),))
        thread.start()
    """,
    "a thread that outlives the main one": """
        ready = threading.Event()
        async def late():
            await story()
            ready.set()
            while threading.main_thread().is_alive():
                await asyncio.sleep(0.01)
            for _ in range(30):
                await sessions.insert({"type": "http", "headers": []}, "ann")
                await asyncio.sleep(0.01)
        thread = threading.Thread(target=asyncio.run, args=(late(),))
        thread.start()
        ready.wait()
    """,
    "a loop that was closed without a word": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(story())
        loop.close()
    """,
    "a loop that was set and closed without a word": """
        loop = asyncio.new_event_loop()
        asyncio.set_event_loop(loop)
        loop.run_until_complete(story())
        loop.close()
    """,
    "loops that were closed without a word": """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(story())
        loop.close()
        loop = asyncio.new_event_loop()
        loop.run_until_complete(sessions.list_sessions("ann"))
        loop.close()
    """,
    "loops that end as soon as they have found the last one closed": """
        for _ in range(20):
            loop = asyncio.new_event_loop()
            loop.run_until_complete(sessions.create_tables())
            loop.close()
            async def look():
                sessions.database
            loop = asyncio.new_event_loop()
            loop.run_until_complete(look())
            loop.close()
    """,
    "a test client without with": """
        from starlette.testclient import TestClient
        asyncio.run(sessions.create_tables())
        client = TestClient(app, base_url="https://test")
        assert client.post("/login").cookies
        assert client.get("/").text == "GET"
    """,
    "a test client": """
        from starlette.applications import Starlette
        from starlette.routing import Mount
        from starlette.testclient import TestClient
        asyncio.run(sessions.create_tables())
        site = Starlette(routes=[Mount("/", app)], lifespan=sessions.lifespan)
        for _ in range(2):
            with TestClient(site, base_url="https://test") as client:
                assert client.post("/login").cookies
    """,
}


def run(script: str, url: str, table: str = "sessions") -> subprocess.CompletedProcess[str]:
    """Run a script to its end in an interpreter that hides no warning."""
    script = SETTING + textwrap.dedent(script)
    return subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, url, table],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


#: Until 3.12.3, Python 3.12 started no thread once the main one had ended (gh-113964), and so
#: aiosqlite could not open a file any more.
needs_threads_at_the_end = pytest.mark.skipif(
    (3, 12) <= sys.version_info < (3, 12, 3),
    reason="Python 3.12.0 to 3.12.2 start no thread once the main one has ended",
)


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(
            script,
            id=name,
            marks=needs_threads_at_the_end if name.startswith("a thread") else (),
        )
        for name, script in ENDINGS.items()
    ],
)
def test_the_interpreter_ends_without_a_word(tmp_path: Path, script: str) -> None:
    ended = run(script, f"sqlite:///{tmp_path}/sessions.db")
    assert ended.stderr == ""
    assert ended.returncode == 0


def test_the_interpreter_ends_though_a_loop_was_never_closed(tmp_path: Path) -> None:
    script = """
        loop = asyncio.new_event_loop()
        loop.run_until_complete(story())
    """
    ended = run(script, f"sqlite:///{tmp_path}/sessions.db")
    assert ended.returncode == 0
    # Python complains of the loop, which is the script's; and of nothing of ours.
    for ours in ("asgi_sessions", "aiosqlite", "Task", "Thread"):
        assert ours not in ended.stderr


def test_a_pool_goes_with_its_loop(database_url: str, table_name: str) -> None:
    script = """
        from sqlalchemy.schema import DropTable
        asyncio.run(story())
        async def again():
            assert len(await sessions.list_sessions("ann")) == 1
            await sessions.database.execute(DropTable(sessions.table))
        asyncio.run(again())
        asyncio.run(sessions.connect())
    """
    ended = run(script, database_url, table_name)
    assert ended.stderr == ""
    assert ended.returncode == 0
