"""Outages: nobody is logged out, everybody is answered in time, and all is well again after."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import Database, DatabaseURL
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import Sessions
from asgi_sessions._driver import SQLite

from .conftest import URLS, MakeSessions
from .engines import Onlooker
from .servers.proxy import TcpProxy
from .support import KEY, Browser, Clock, make_app, set_cookies, vouched

TIMEOUT = timedelta(seconds=0.5)
#: Within which everybody has an answer while the database gives none.
ANSWERED = 1.5
#: Within which service resumes once the database is back.
RESUMED = 2.0
#: Nothing here takes longer; what does, hangs.
PATIENCE = 20

KIND = {"sqlite": "sqlite", "postgresql": "server", "mysql": "server"}


@dataclass
class Scene:
    """A database that can fail, and an app in front of it."""

    url: str
    table: str
    proxy: TcpProxy | None
    directory: Path
    clock: Clock
    make_sessions: MakeSessions
    #: Of another process, past the proxy: it never suffers, and tells what is in the table.
    witness: Sessions
    opened: list[Sessions] = field(default_factory=list)

    @property
    def tcp(self) -> TcpProxy:
        assert self.proxy is not None
        return self.proxy

    @property
    def file(self) -> Path:
        return self.directory / "sessions.db"

    @property
    def direct_url(self) -> str:
        return str(self.witness._links.first.url)

    async def sessions(self, **options: Any) -> Sessions:
        """`Sessions` that suffer."""
        options = {
            "secret_key": KEY,
            "clock": self.clock,
            "table_name": self.table,
            "timeout": TIMEOUT,
            **options,
        }
        sessions = Sessions(options.pop("database", self.url), **options)
        self.opened.append(sessions)
        return sessions

    async def log_in(self, person: str) -> Browser:
        """A browser with a session, started elsewhere."""
        async with Browser(make_app(self.witness)) as browser:
            await browser.login(person)
            cookies = dict(browser.cookies)
        await self.witness.disconnect()  # it connects again when it is asked
        other = Browser(make_app(self.witness))
        for name, value in cookies.items():
            other.cookies.set(name, value, domain="test.local")
        return other

    async def truth(self) -> list[tuple[str, str | None]]:
        """Person and end of all rows that there are."""
        table = self.witness.table
        query = table.select().order_by(table.c.id)
        await self.witness.connect()
        rows = await self.witness.database.fetch_all(query)
        await self.witness.disconnect()
        return [(row._mapping["person_id"], row._mapping["end_reason"]) for row in rows]


@pytest.fixture
async def scene(
    anyio_backend: str,
    make_sessions: MakeSessions,
    database_url: str,
    table_name: str,
    clock: Clock,
    tmp_path: Path,
) -> AsyncIterator[Scene]:
    witness = await make_sessions()
    await witness.disconnect()
    if database_url.startswith("sqlite"):
        # Not pytest's directory: another account has to get there.
        directory = Path(tempfile.mkdtemp(prefix="asgi-sessions-"))
        place = directory / "data"
        place.mkdir(mode=0o755)
        directory.chmod(0o755)
        url = f"sqlite:///{place}/sessions.db"
        try:
            witness = await make_sessions(database=url)
            await witness.disconnect()
            yield Scene(url, table_name, None, place, clock, make_sessions, witness)
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        return
    there = DatabaseURL(database_url)
    async with TcpProxy(
        there.hostname or "127.0.0.1",
        there.port or {"postgresql": 5432}.get(there.dialect, 3306),
    ) as proxy:
        url = str(there.replace(port=proxy.port))
        yield Scene(url, table_name, proxy, tmp_path, clock, make_sessions, witness)


# --- the kinds ------------------------------------------------------------------------------------


@asynccontextmanager
async def gone(scene: Scene) -> AsyncIterator[None]:
    """Nobody listens any more: the server has been stopped."""
    scene.tcp.refuse()
    scene.tcp.cut()
    yield
    scene.tcp.resume()


@asynccontextmanager
async def resetting(scene: Scene) -> AsyncIterator[None]:
    """Connections are taken and reset: a load balancer without servers."""
    target, scene.tcp.target = scene.tcp.target, ("127.0.0.1", 1)
    scene.tcp.cut()
    yield
    scene.tcp.target = target


@asynccontextmanager
async def stalled(scene: Scene) -> AsyncIterator[None]:
    """Everything is taken, and nothing answered; the old connections stay silent for good."""
    scene.tcp.stall()
    yield
    scene.tcp.resume()


@asynccontextmanager
async def muted(scene: Scene) -> AsyncIterator[None]:
    """What is asked is done, and nobody hears of it."""
    scene.tcp.mute()
    yield
    scene.tcp.resume()


@asynccontextmanager
async def without_table(scene: Scene) -> AsyncIterator[None]:
    onlooker = Onlooker(scene.direct_url, scene.table)
    try:
        onlooker.run("ALTER TABLE {0} RENAME TO {0}_away")
        yield
        onlooker.run("ALTER TABLE {0}_away RENAME TO {0}")
    finally:
        onlooker.close()


@asynccontextmanager
async def locked(scene: Scene) -> AsyncIterator[None]:
    """Another writer holds SQLite's file."""
    onlooker = Onlooker(scene.direct_url, scene.table)
    try:
        with onlooker.engine.connect() as connection:
            connection.exec_driver_sql("BEGIN EXCLUSIVE")
            yield
            connection.exec_driver_sql("ROLLBACK")
    finally:
        onlooker.close()


@asynccontextmanager
async def missing(scene: Scene) -> AsyncIterator[None]:
    """The directory is not mounted (yet)."""
    away = scene.directory.with_name("away")
    scene.directory.rename(away)
    yield
    away.rename(scene.directory)


@asynccontextmanager
async def read_only(scene: Scene) -> AsyncIterator[None]:
    """Nothing may be written in that directory; root would write all the same."""
    files = [scene.directory, *scene.directory.iterdir()]
    modes = [path.stat().st_mode for path in files]
    for path in reversed(files):
        path.chmod(0o555 if path.is_dir() else 0o444)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)  # nobody
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        for path, mode in zip(files, modes, strict=True):
            path.chmod(mode)


@asynccontextmanager
async def full(scene: Scene) -> AsyncIterator[None]:
    """SQLite gets no page more."""
    prepare = SQLite.prepare

    async def small(self: SQLite, raw: Any, **options: Any) -> None:
        await prepare(self, raw, **options)
        await raw.execute_fetchall("PRAGMA max_page_count = 1")  # it stays at what it has

    # Pages so small that no row finds room in those that there are.
    onlooker = Onlooker(scene.direct_url, scene.table)
    with onlooker.engine.connect() as connection:
        for statement in ("PRAGMA journal_mode = DELETE", "PRAGMA page_size = 512", "VACUUM"):
            connection.exec_driver_sql(statement)
    onlooker.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SQLite, "prepare", small)
        yield


@dataclass(frozen=True)
class Kind:
    outage: Callable[[Scene], AbstractAsyncContextManager[None]]
    #: Whether look-ups fail, too.
    reads: bool = True
    #: Whether it strikes connections that are open.
    warm: bool = True
    #: Whether the app has a `databases.Database` of its own.
    own: bool = False
    #: Whether what is written may arrive, unknown to the app.
    unheard: bool = False
    #: Whether ending a session fails, too: it takes no room.
    ends: bool = True


KINDS = {
    "server": {
        "gone": Kind(gone),
        "resetting": Kind(resetting),
        "stalled": Kind(stalled),
        "muted": Kind(muted, unheard=True),
        "own-gone": Kind(gone, own=True),
        "own-stalled": Kind(stalled, own=True),
        "without-table": Kind(without_table),
    },
    "sqlite": {
        "missing": Kind(missing, warm=False),
        "read-only": Kind(read_only, warm=False),
        "locked": Kind(locked, reads=False),
        "own-locked": Kind(locked, own=True),
        "full": Kind(full, reads=False, warm=False, ends=False),
        "without-table": Kind(without_table),
    },
}


def case(url: str, name: str, kind: Kind) -> Any:
    return pytest.param(url, kind, id=f"{url.partition(':')[0]}-{name}")


def is_server(url: str) -> bool:
    return url != "sqlite"


CASES = [
    case(url, name, kind)
    for url in URLS
    for name, kind in KINDS["server" if is_server(url) else "sqlite"].items()
]
SERVERS = [pytest.param(url, id=url.partition(":")[0]) for url in URLS if is_server(url)]

each_kind = pytest.mark.parametrize(("database_url", "kind"), CASES, indirect=["database_url"])


# --- what is measured -----------------------------------------------------------------------------


@dataclass
class Answer:
    response: httpx.Response
    seconds: float

    @property
    def status(self) -> int:
        return self.response.status_code


class Timed:
    """Tells in a header after how long a response began; the request itself may go on."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = time.monotonic()

        async def timed(message: Message) -> None:
            if message["type"] == "http.response.start":
                seconds = f"{time.monotonic() - begun:f}".encode()
                message["headers"] = [*message["headers"], (b"x-seconds", seconds)]
            await send(message)

        await self._app(scope, receive, timed)


def browser_of(sessions: Sessions) -> Browser:
    # A row of it fills a page of SQLite's.
    return Browser(Timed(make_app(sessions)), agent="x" * 500)


async def ask(browser: Browser, method: str = "GET", path: str = "/", **options: Any) -> Answer:
    async with asyncio.timeout(PATIENCE):
        response = await browser.request(method, path, **options)
    return Answer(response, float(response.headers["x-seconds"]))


def refused(answer: Answer) -> None:
    """503, soon, and the cookie is as it was."""
    assert answer.status == 503
    assert answer.response.headers["retry-after"].isdigit()
    untouched(answer)


def untouched(answer: Answer) -> None:
    assert set_cookies(answer.response) == []
    assert answer.seconds < ANSWERED


async def resumes(browser: Browser) -> float:
    """The seconds until a session is known again."""
    begun = time.monotonic()
    while True:
        answer = await ask(browser)
        seconds = time.monotonic() - begun
        if answer.status == 200 and answer.response.json()["sid"] is not None:
            return seconds
        assert seconds < RESUMED, answer.response.text


async def until(so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not so():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def threads() -> int:
    """aiosqlite has one for each connection."""
    return sum("_connection_worker" in thread.name for thread in threading.enumerate())


@contextmanager
def nothing_unheard() -> Iterator[None]:
    """No exception of a future or task may go unheard."""
    unheard: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: unheard.append(context))
    try:
        yield
        gc.collect()
        assert unheard == []
    finally:
        loop.set_exception_handler(None)


@asynccontextmanager
async def leaving_nothing(scene: Scene) -> AsyncIterator[None]:
    """What ran and was open before is all that runs and is open after."""
    tasks, connections = asyncio.all_tasks(), threads()
    with nothing_unheard():
        yield
        for sessions in scene.opened:
            async with asyncio.timeout(PATIENCE):
                await sessions.disconnect()
        if scene.proxy is not None:
            proxy = scene.proxy
            await until(lambda: proxy.open == 0, "connections are left open")
        await until(lambda: threads() <= connections, "SQLite connections are left open")
        await until(lambda: asyncio.all_tasks() <= tasks, "tasks are left running")


def about_outages(caplog: pytest.LogCaptureFixture) -> list[str]:
    ours = [record.getMessage() for record in caplog.records if record.name == "asgi_sessions"]
    return [line.partition(":")[0] for line in ours if "available" in line]


# --- the tests ------------------------------------------------------------------------------------


def app_of(browser: Browser, sessions: Sessions) -> Browser:
    """The same browser, at another process of the app."""
    other = browser_of(sessions)
    other.cookies = browser.cookies
    return other


async def suffering(scene: Scene, kind: Kind, **options: Any) -> tuple[Sessions, Database | None]:
    """`Sessions` that the kind can strike, and the app's database if it has its own."""
    database = None
    if kind.own:
        database = (
            Database(scene.url, min_size=1, max_size=5) if scene.proxy else Database(scene.url)
        )
        await database.connect()
        options["database"] = database
        if scene.proxy is None:  # what an app's own file has, unless it was changed
            onlooker = Onlooker(scene.direct_url, scene.table)
            with onlooker.engine.connect() as connection:
                mode = connection.exec_driver_sql("PRAGMA journal_mode = DELETE").scalar()
            onlooker.close()
            assert mode == "delete"
    return await scene.sessions(**options), database


@pytest.mark.parametrize("policy", ["error", "anonymous"])
@each_kind
async def test_an_outage_harms_nobody(
    scene: Scene, kind: Kind, policy: str, caplog: pytest.LogCaptureFixture
) -> None:
    ann, ben = await scene.log_in("ann"), await scene.log_in("ben")
    before = await scene.truth()
    async with leaving_nothing(scene):
        sessions, database = await suffering(scene, kind, on_unavailable=policy)
        ann, ben = app_of(ann, sessions), app_of(ben, sessions)
        sids = []
        if kind.warm:
            sids = [(await browser.see())["sid"] for browser in (ann, ben)]
            assert None not in sids
        cookies = dict(ann.cookies)
        stranger, eve = (browser_of(sessions) for _ in range(2))
        if kind.warm:
            await eve.see_as("zoe")  # now the connection for writes is open, too
            eve.cookies.clear()

        async with kind.outage(scene):
            reads = [ask(ann), ask(ben), *(ask(ann) for _ in range(10))]
            logins = [ask(eve, "POST", "/login?person=eve") for _ in range(3)]
            vouched_for = [ask(eve, headers=vouched("flo"))]
            logouts = [ask(ann, "POST", "/logout")] if kind.ends else []
            affected = asyncio.gather(
                asyncio.gather(*reads),
                asyncio.gather(*logins, *logouts),
                asyncio.gather(*vouched_for),
            )
            await undisturbed(stranger, affected)
            seen, written, trusted = await affected
            for answer in seen:
                judge(answer, policy if kind.reads else "works")
            for answer in written:
                refused(answer)
            for answer in trusted:
                judge(answer, policy)
        assert await resumes(ann) < RESUMED
        assert dict(ann.cookies) == cookies
        for number, browser in enumerate((ann, ben)):
            answer = await ask(browser)
            assert answer.status == 200
            untouched(answer)
            if sids:
                assert answer.response.json()["sid"] == sids[number]
        begun = time.monotonic()
        while (answer := await ask(eve, "POST", "/login?person=eve")).status != 200:
            assert time.monotonic() - begun < RESUMED, answer.response.text
        assert len(set_cookies(answer.response)) == 1
        if database is not None:
            await sessions.disconnect()
            async with asyncio.timeout(PATIENCE):  # it has all its connections back
                await database.disconnect()
    after = await scene.truth()
    if not kind.unheard:
        assert [row for row in after if row[0] not in {"eve", "flo", "zoe"}] == before
        assert [row for row in after if row[0] == "eve"] == [("eve", None)]
    assert about_outages(caplog) == ["sessions unavailable", "sessions available again"]


def judge(answer: Answer, how: str) -> None:
    if how == "error":
        refused(answer)
        return
    assert answer.status == 200
    untouched(answer)
    assert (answer.response.json()["sid"] is None) == (how == "anonymous")
    assert answer.response.json()["user"] is False


async def undisturbed(stranger: Browser, affected: asyncio.Future[Any]) -> None:
    """Who has neither cookie nor person is answered as ever."""
    slowest, number = 0.0, 0
    while number < 5 or not affected.done():
        answer = await ask(stranger)
        assert answer.status == 200
        slowest, number = max(slowest, answer.seconds), number + 1
        await asyncio.sleep(0.01)
    assert slowest < 0.5 + 0.5
