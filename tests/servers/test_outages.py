"""Outages: nobody is logged out, everybody is answered in time, and service resumes by itself.

Databases are cut off by a proxy, locked, filled, taken away; servers of the tests' own are
restarted, killed and stopped under load.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import resource
import shutil
import sqlite3
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from databases import Database, DatabaseURL
from sqlalchemy import select
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import Sessions
from tests.conftest import URLS, MakeSessions, name_of
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.servers.proxy import TcpProxy
from tests.support import KEY, Browser, Clock, make_app, set_cookies, vouched
from tests.support.engines import Onlooker, app_database
from tests.support.engines import kind as kind_of

TIMEOUT = timedelta(seconds=0.4)
#: Seconds within which everybody has an answer: a login may wait twice, for its row and for the
#: row's end; and some for a busy machine.
ANSWERED = 2 * TIMEOUT.total_seconds() + 0.8
#: Seconds within which service resumes once the database is back.
RESUMED = 2.0
#: Seconds in which whoever has nothing to do with the database is answered.
UNDISTURBED = 0.3
#: Nothing here takes longer; what does, hangs.
PATIENCE = 20
POLICIES = ("error", "anonymous")


def own_database(url: str) -> Database:
    """A `databases.Database` as an app has it: on a server, a pool of three."""
    if url.startswith("sqlite"):
        return Database(url, factory=Limited)
    return app_database(url, min_size=1, max_size=3)


class Limited(sqlite3.Connection):
    """A connection to SQLite, to which the file may not grow while `full` is set."""

    full = False

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if self.full:
            self.execute("PRAGMA max_page_count = 1")  # it stays at what it has


@dataclass
class Scene:
    """A database that can fail, and what was opened on it."""

    url: str
    #: Past the proxy.
    direct_url: str
    table: str
    directory: Path
    clock: Clock
    #: Of another process, past the proxy: it never suffers.
    witness: Sessions
    proxy: TcpProxy | None = None
    opened: list[Sessions] = field(default_factory=list)
    database: Database | None = None

    @property
    def tcp(self) -> TcpProxy:
        assert self.proxy is not None
        return self.proxy

    @property
    def own(self) -> Database:
        assert self.database is not None
        return self.database

    async def use_own(self) -> None:
        """From now on, `Sessions` are given a database of the app's own."""
        if self.proxy is None:  # what an app's file has, unless it was changed
            self.run("PRAGMA journal_mode = DELETE")
        self.database = own_database(self.url)
        await self.database.connect()

    def sessions(self, **options: Any) -> Sessions:
        """`Sessions` that suffer."""
        options = {"clock": self.clock, "table_name": self.table, "timeout": TIMEOUT, **options}
        sessions = Sessions(self.database or self.url, secret_key=KEY, **options)
        self.opened.append(sessions)
        return sessions

    async def close(self) -> None:
        """Disconnect everything."""
        for sessions in self.opened:
            async with asyncio.timeout(PATIENCE):
                await sessions.disconnect()
        if self.database is not None:
            async with asyncio.timeout(PATIENCE):  # it has all its connections back
                await self.database.disconnect()

    async def log_in(self, *people: str) -> list[tuple[str, str]]:
        """Sids and cookies of people who have logged in elsewhere."""
        logins = []
        for person in people:
            async with browser_of(self.witness) as browser:
                sid = await browser.login(person)
                logins.append((sid, browser.cookies[self.witness.cookie_name]))
        await self.witness.disconnect()  # so that SQLite's file is nobody's
        return logins

    def run(self, *statements: str) -> None:
        """What somebody else does; {} is the table."""
        with closing(Onlooker(self.direct_url, self.table)) as onlooker:
            onlooker.run(*statements)

    def rows(self) -> dict[str, list[tuple[str, str | None]]]:
        """By person: sid and end of each row that there is."""
        c = self.witness.table.c
        query = select(c.person_id, c.id, c.end_reason).order_by(c.id)
        rows: dict[str, list[tuple[str, str | None]]] = {}
        onlooker = Onlooker(self.direct_url, self.table)
        with closing(onlooker), onlooker.engine.connect() as connection:
            for person, sid, reason in connection.execute(query):
                rows.setdefault(person, []).append((sid, reason))
        return rows


@pytest.fixture
async def scene(
    anyio_backend: str,
    make_sessions: MakeSessions,
    database_url: str,
    table_name: str,
    clock: Clock,
) -> AsyncIterator[Scene]:
    if kind_of(database_url) == "sqlite":
        # Not pytest's directory: another account has to get there.
        directory = Path(tempfile.mkdtemp(prefix="asgi-sessions-"))
        place = directory / "data"
        try:
            place.mkdir(mode=0o755)
            directory.chmod(0o755)
            url = f"sqlite:///{place}/sessions.db"
            witness = await make_sessions(database=url)
            yield Scene(url, url, table_name, place, clock, witness)
            await witness.disconnect()
        finally:
            shutil.rmtree(directory)
        return
    witness = await make_sessions()
    there = DatabaseURL(database_url)
    port = there.port or {"postgresql": 5432, "mysql": 3306}[kind_of(database_url)]
    async with TcpProxy(there.hostname or "127.0.0.1", port) as proxy:
        url = str(there.replace(hostname=proxy.host, port=proxy.port))
        yield Scene(url, database_url, table_name, Path(), clock, witness, proxy)


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
async def slow(scene: Scene) -> AsyncIterator[None]:
    """Answers come when nobody waits for them any more."""
    scene.tcp.delay(0.6 * TIMEOUT.total_seconds())  # there, and back
    yield
    scene.tcp.resume()


@asynccontextmanager
async def exhausted(scene: Scene) -> AsyncIterator[None]:
    """The app itself holds all connections of its pool."""
    over, taken = asyncio.Event(), asyncio.Semaphore(0)

    async def hold() -> None:
        async with scene.own.connection():
            taken.release()
            await over.wait()

    async with asyncio.TaskGroup() as holders:
        for _ in range(3):
            holders.create_task(hold())
        for _ in range(3):
            await taken.acquire()
        try:
            yield
        finally:
            over.set()


@asynccontextmanager
async def without_table(scene: Scene) -> AsyncIterator[None]:
    """The migration has not been run yet."""
    scene.run("ALTER TABLE {0} RENAME TO {0}_away")
    yield
    scene.run("ALTER TABLE {0}_away RENAME TO {0}")


@asynccontextmanager
async def locked(scene: Scene) -> AsyncIterator[None]:
    """A migration holds the table; in SQLite another writer holds the file."""
    begin, end = {
        "sqlite": (["BEGIN EXCLUSIVE"], "ROLLBACK"),
        "postgresql": (["BEGIN", f"LOCK TABLE {scene.table} IN ACCESS EXCLUSIVE MODE"], "ROLLBACK"),
        "mysql": ([f"LOCK TABLES {scene.table} WRITE"], "UNLOCK TABLES"),
    }[kind_of(scene.url)]
    onlooker = Onlooker(scene.direct_url, scene.table)
    with closing(onlooker), onlooker.engine.connect() as connection:
        for statement in begin:
            connection.exec_driver_sql(statement)
        yield
        connection.exec_driver_sql(end)


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
async def no_space(scene: Scene) -> AsyncIterator[None]:
    """The kernel lets no file of this process grow; reading goes on, from the log, too."""
    log = scene.directory / "sessions.db-wal"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (log.stat().st_size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@asynccontextmanager
async def full(scene: Scene) -> AsyncIterator[None]:
    """SQLite gets no further page for the file."""
    # Pages so small that no row finds room in those that there are.
    scene.run("PRAGMA page_size = 512", "VACUUM")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Limited, "full", True)
        yield


@dataclass(frozen=True)
class Kind:
    """An outage, and what it strikes."""

    outage: Callable[[Scene], AbstractAsyncContextManager[None]]
    #: Whether look-ups fail, too.
    reads: bool = True
    #: Whether it strikes connections that are open.
    warm: bool = True
    #: Whether the app has a `databases.Database` of its own.
    own: bool = False
    #: Whether what is answered by 503 may be done all the same: nobody can know.
    unheard: bool = False
    #: Whether ending a session fails, too: it takes no room.
    ends: bool = True


KINDS: Mapping[str, Mapping[str, Kind]] = {
    "server": {
        "gone": Kind(gone),
        "resetting": Kind(resetting),
        "stalled": Kind(stalled),
        "muted": Kind(muted, unheard=True),
        "slow": Kind(slow, unheard=True),
        "locked": Kind(locked, unheard=True),
        "without-table": Kind(without_table),
        "own-gone": Kind(gone, own=True),
        "own-stalled": Kind(stalled, own=True),
        "own-exhausted": Kind(exhausted, own=True),
    },
    "sqlite": {
        "missing": Kind(missing, warm=False),
        "read-only": Kind(read_only, warm=False),
        "locked": Kind(locked, reads=False),
        "no-space": Kind(no_space, reads=False),
        "without-table": Kind(without_table),
        "own-locked": Kind(locked, own=True),
        "own-full": Kind(full, own=True, reads=False, warm=False, ends=False),
    },
}

CASES = [
    pytest.param(url, kind, id=f"{name_of(url)}-{name}")
    for url in URLS
    for name, kind in KINDS["sqlite" if url == "sqlite" else "server"].items()
]


# --- what is measured -----------------------------------------------------------------------------


@dataclass
class Answer:
    response: httpx.Response
    seconds: float

    @property
    def status(self) -> int:
        return self.response.status_code

    def __getitem__(self, name: str) -> Any:
        return self.response.json()[name]

    def judge(self, how: str, sid: str | None) -> None:
        """Was it right in an outage: as the policy has it, or not affected (``works``)?"""
        assert set_cookies(self.response) == []
        assert self.seconds < ANSWERED
        if how == "error":
            assert self.status == 503
            assert int(self.response.headers["retry-after"]) > 0
            return
        assert self.status == 200
        assert self["sid"] == (sid if how == "works" else None)
        assert self["reason"] is None  # nobody says that it has ended
        assert self["user"] is False


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


def browser_of(sessions: Sessions, cookie: str | None = None) -> Browser:
    # A row of it fills a page of SQLite's.
    browser = Browser(Timed(make_app(sessions)), agent="x" * 500)
    if cookie is not None:
        browser.cookies.set(sessions.cookie_name, cookie, domain="test.local")
    return browser


async def ask(browser: Browser, method: str = "GET", path: str = "/", **options: Any) -> Answer:
    async with asyncio.timeout(PATIENCE):
        response = await browser.request(method, path, **options)
    return Answer(response, float(response.headers["x-seconds"]))


async def until(so: Callable[[], bool], what: str, within: float = PATIENCE) -> float:
    """Wait until it is so; the seconds that took."""
    begun = time.monotonic()
    while not so():
        assert time.monotonic() - begun < within, what
        await asyncio.sleep(0.01)
    return time.monotonic() - begun


async def resumed(action: Callable[[], Awaitable[Answer]]) -> Answer:
    """The first good answer."""
    begun = time.monotonic()
    while (answer := await action()).status != 200 or answer["sid"] is None:
        assert time.monotonic() - begun < RESUMED, answer.response.text
        await asyncio.sleep(0.01)
    return answer


def threads() -> int:
    """aiosqlite has one for each connection; those of the background end with Python."""
    return sum(not thread.daemon for thread in threading.enumerate())


def files() -> int:
    """Files and sockets of this process that are in use."""
    gc.collect()  # a cursor in a cycle keeps the file of a connection that is closed
    return sum(1 for _ in Path("/dev/fd").iterdir())


@contextmanager
def nothing_unheard() -> Iterator[None]:
    """No exception of a future or task may go unheard."""
    unheard: list[dict[str, Any]] = []

    def hear(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        # asyncpg's own, when it is told to stop at the moment at which it has connected.
        if "unexpected connection_lost() call" not in str(context.get("exception")):
            unheard.append(context)

    loop = asyncio.get_running_loop()
    loop.set_exception_handler(hear)
    try:
        yield
        gc.collect()
        assert unheard == []
    finally:
        loop.set_exception_handler(None)


@asynccontextmanager
async def leaving_nothing(scene: Scene) -> AsyncIterator[None]:
    """What ran and was open before is all that runs and is open after."""
    tasks, before, opened = asyncio.all_tasks(), threads(), files()
    with nothing_unheard():
        yield
        await scene.close()
        if scene.proxy is not None:
            proxy = scene.proxy
            await until(lambda: proxy.open == 0, "connections are left open")
        await until(lambda: threads() <= before, "threads are left running")
        await until(lambda: asyncio.all_tasks() <= tasks, "tasks are left running")
        await until(lambda: files() <= opened, "files or sockets are left open")


@pytest.fixture(autouse=True)
def tell_in_words() -> Iterator[None]:
    """pytest keeps what is logged: no exceptions, whose frames keep cursors and connections."""
    make = logging.getLogRecordFactory()

    def in_words(*args: Any, **options: Any) -> logging.LogRecord:
        record = make(*args, **options)
        record.msg, record.args, record.exc_info = record.getMessage(), (), None
        return record

    logging.setLogRecordFactory(in_words)
    yield
    logging.setLogRecordFactory(make)


def outages_told(caplog: pytest.LogCaptureFixture) -> int:
    """How many outages were told: once each, not once a request."""
    return sum(
        record.levelno >= logging.ERROR and record.name.startswith("asgi_sessions")
        for record in caplog.records
    )


# --- outages of each kind -------------------------------------------------------------------------


class Side:
    """A process of the app with its people, under one policy."""

    def __init__(
        self, scene: Scene, kind: Kind, policy: str, logins: list[tuple[str, str]]
    ) -> None:
        self._kind = kind
        self._policy = policy
        sessions = scene.sessions(on_unavailable=policy)
        self._sids = {browser_of(sessions, cookie): sid for sid, cookie in logins}
        self._ann, self._ben, self._gus = self._sids
        self._eve, self._stranger, self._zoe = (browser_of(sessions) for _ in range(3))

    def name(self, name: str) -> str:
        return f"{name}-{self._policy}"

    async def warm_up(self) -> None:
        """Have all connections opened."""
        self._sids[self._zoe] = await self._zoe.login(self.name("zoe"))
        for browser, sid in self._sids.items():
            assert (await ask(browser))["sid"] == sid

    async def suffer(self) -> None:
        """Ask for everything while the database does not answer."""
        flo = vouched(self.name("flo"))
        reads = asyncio.gather(*(ask(who) for who in [self._ann, *[self._ben] * 9]))
        started = asyncio.gather(ask(self._eve, headers=flo))
        login = f"/login?person={self.name('eve')}"
        writes = asyncio.gather(
            *(ask(self._eve, "POST", login) for _ in range(3)),
            *(ask(self._gus, "POST", "/logout") for _ in range(self._kind.ends)),
        )
        await self._others_go_on(until=asyncio.gather(reads, started, writes))
        for number, answer in enumerate(reads.result()):
            sid = self._sids[self._ben if number else self._ann]
            answer.judge(self._policy if self._kind.reads else "works", sid)
        for answer in started.result():
            answer.judge(self._policy, None)
        for answer in writes.result():
            answer.judge("error", None)

    async def _others_go_on(self, until: asyncio.Future[Any]) -> None:
        """Who has neither cookie nor person is answered as ever."""
        number = 0
        while number < 5 or not until.done():
            answer = await ask(self._stranger)
            assert answer.status == 200
            assert answer.seconds < UNDISTURBED
            number += 1
            await asyncio.sleep(0.01)
        await until

    async def recover(self) -> None:
        """All is well again, soon."""
        await resumed(lambda: ask(self._ann))
        login = f"/login?person={self.name('eve')}"
        answer = await resumed(lambda: ask(self._eve, "POST", login))
        assert len(set_cookies(answer.response)) == 1
        self._sids[self._eve] = answer["sid"]
        stay = [browser for browser in self._sids if browser is not self._gus] * 5
        for browser, answer in zip(stay, await asyncio.gather(*map(ask, stay)), strict=True):
            answer.judge("works", self._sids[browser])
        answer = await ask(self._gus, "POST", "/logout")
        assert answer.status == 200
        assert (await ask(self._gus))["sid"] is None

    def check(self, rows: dict[str, list[tuple[str, str | None]]]) -> None:
        """Is what is in the table what the people were told?"""
        eve, flo, gus = (rows.pop(self.name(name), []) for name in ("eve", "flo", "gus"))
        assert [end for _, end in gus] == ["logout"]
        assert (self._sids[self._eve], None) in eve
        if not self._kind.unheard:
            assert len(eve) == 1
            assert flo == []
        for name in ("ann", "ben", *["zoe"] * self._kind.warm):
            assert [end for _, end in rows.pop(self.name(name))] == [None], name


@pytest.mark.parametrize(("database_url", "kind"), CASES, indirect=["database_url"])
async def test_an_outage_harms_nobody(
    scene: Scene, kind: Kind, caplog: pytest.LogCaptureFixture
) -> None:
    logins = {
        policy: await scene.log_in(*(f"{name}-{policy}" for name in ("ann", "ben", "gus")))
        for policy in POLICIES
    }
    async with leaving_nothing(scene):
        if kind.own:
            await scene.use_own()
        sides = [Side(scene, kind, policy, logins[policy]) for policy in POLICIES]
        if kind.warm:
            await asyncio.gather(*(side.warm_up() for side in sides))
        async with kind.outage(scene):
            await asyncio.gather(*(side.suffer() for side in sides))
        await asyncio.gather(*(side.recover() for side in sides))
        if kind.reads:
            assert outages_told(caplog) == len(sides)
    rows = scene.rows()
    for side in sides:
        side.check(rows)
    assert rows == {}


# --- cut connections ------------------------------------------------------------------------------

SERVERS = [pytest.param(url, id=name_of(url)) for url in URLS if kind_of(url) != "sqlite"]
#: Where there is none, a test of servers has no case, and says so by itself.
each_server = pytest.mark.parametrize("database_url", SERVERS, indirect=True)


@pytest.mark.parametrize("lost", ["nothing", "questions", "answers"])
@each_server
async def test_whoever_waits_when_connections_are_reset_is_answered_all_the_same(
    scene: Scene, lost: str
) -> None:
    """Everything is tried again on fresh connections, and nothing is done twice."""
    logins = await scene.log_in("ann", "gus")
    async with leaving_nothing(scene):
        sessions = scene.sessions(timeout=timedelta(seconds=PATIENCE))
        ann, gus = (browser_of(sessions, cookie) for _, cookie in logins)
        eves = [browser_of(sessions) for _ in range(3)]
        zoe = browser_of(sessions)
        await ann.see()
        await zoe.login("zoe")  # the connections for reading and writing are open
        await zoe.see_as("zoe")

        if lost == "nothing":
            scene.tcp.cut()  # while nobody asks
        elif lost == "questions":
            scene.tcp.stall()
        else:
            scene.tcp.mute()
        asked = asyncio.gather(
            *(ask(ann) for _ in range(5)),
            *(ask(eve, "POST", "/login?person=eve") for eve in eves),
            ask(gus, "POST", "/logout"),
            ask(zoe, headers=vouched("flo")),
        )
        if lost != "nothing":
            await until(lambda: scene.tcp.silent >= 2, "nothing has been lost")
            scene.tcp.resume()
            scene.tcp.cut()
        answers = await asyncio.wait_for(asked, PATIENCE)

        assert {answer.status for answer in answers} == {200}
        assert {answer["sid"] for answer in answers[:5]} == {logins[0][0]}
        assert (await ask(gus))["sid"] is None
        for eve, answer in zip(eves, answers[5:8], strict=True):
            assert (await ask(eve))["sid"] == answer["sid"]
    rows = scene.rows()
    assert sorted(rows["eve"]) == sorted((answer["sid"], None) for answer in answers[5:8])
    assert rows["gus"] == [(logins[1][0], "logout")]
    assert len(rows["flo"]) == 1


# --- again and again ------------------------------------------------------------------------------

#: Outages that take no time, so that many of them can be had.
QUICK = {"sqlite": [without_table, no_space], "server": [gone, resetting, without_table]}
#: Outages until everything has been done once, those that are measured, and requests in each.
FIRST, MEASURED, ASKED = 4, 8, 32
#: Blocks of memory: less than what would be left of each request if any of it were, a future with
#: an exception and its frames.
GROWN = MEASURED * ASKED * 5


@pytest.fixture
def nobody_keeps_anything() -> Iterator[None]:
    """Neither pytest every record, nor what measures coverage a tracer for every thread."""
    tracer = threading.gettrace()
    logging.disable(logging.CRITICAL)
    threading.settrace(None)
    gc.collect()
    gc.freeze()  # collecting again and again what the tests before have left takes long
    yield
    threading.settrace(tracer)
    logging.disable(logging.NOTSET)


@pytest.mark.usefixtures("nobody_keeps_anything")
@pytest.mark.parametrize("own", [False, True], ids=["", "own"])
async def test_outages_again_and_again_cost_nothing(scene: Scene, own: bool) -> None:
    ((sid, cookie),) = await scene.log_in("ann")
    kinds = QUICK["sqlite" if scene.proxy is None else "server"]
    if own and scene.proxy is None:
        kinds = [without_table]  # its file has no log
    async with leaving_nothing(scene):
        if own:
            await scene.use_own()
        sessions = scene.sessions()
        ann, eve = browser_of(sessions, cookie), browser_of(sessions)
        memory, opened = [], []

        async def all_is_well() -> None:
            assert (await resumed(lambda: ask(ann)))["sid"] == sid
            await resumed(lambda: ask(eve, "POST", "/login?person=eve"))

        async def nothing_works() -> None:
            answers = await asyncio.gather(
                *(ask(ann) for _ in range(ASKED // 2)),
                *(ask(eve, "POST", "/login?person=eve") for _ in range(ASKED // 4)),
                *(ask(eve, headers=vouched("flo")) for _ in range(ASKED // 4)),
            )
            assert {answer.status for answer in answers[ASKED // 2 :]} == {503}  # what writes

        for number in range(FIRST + MEASURED):
            await all_is_well()
            async with kinds[number % len(kinds)](scene):
                await nothing_works()
            await all_is_well()
            opened.append(files())  # after collecting garbage
            memory.append(sys.getallocatedblocks())
        enough = opened[FIRST - 1] + MEASURED
        await until(lambda: files() < enough, "each outage has left something open")
        assert memory[-1] - memory[FIRST - 1] < GROWN, memory
    ends = [end for _, end in scene.rows()["eve"]]
    assert ends.count(None) == 1
    assert len(ends) == 2 * (FIRST + MEASURED)


# --- servers of our own, under load ---------------------------------------------------------------


def own_server(url: str) -> PostgresServer | MariaDBServer:
    """A server of this kind; one that is not installed is a failure."""
    return PostgresServer() if kind_of(url) == "postgresql" else MariaDBServer()


class Load:
    """People who log in, look around and log out all the time, each checked against a model.

    Args:
        sessions: one for each policy.
        people: how many on each of them.
    """

    def __init__(self, sessions: Mapping[str, Sessions], people: int) -> None:
        self.customers = [
            Customer(policy, browser_of(one), f"{policy}-{number}", random.Random(number))  # noqa: S311 -- whatever
            for policy, one in sessions.items()
            for number in range(people)
        ]
        self._stranger = browser_of(sessions["error"])
        self._over = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as tasks:
            for customer in self.customers:
                tasks.create_task(self._keep_going(customer))
            tasks.create_task(self._stroll())
            yield
            self._over = True

    async def _keep_going(self, customer: Customer) -> None:
        while not self._over:
            await customer.step()
            await asyncio.sleep(0.005)

    async def _stroll(self) -> None:
        """Somebody without a session never notices anything."""
        while not self._over:
            answer = await ask(self._stranger)
            assert answer.status == 200
            assert answer.seconds < UNDISTURBED
            await asyncio.sleep(0.01)

    async def all_served(self) -> float:
        """Wait until everybody has been served from now on; the seconds that took."""
        now = time.monotonic()
        return await until(
            lambda: all(customer.served > now for customer in self.customers),
            "service has not resumed",
            RESUMED,
        )

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        """Some have to be refused meanwhile, and all have to be served soon after."""
        refused = self.refused
        yield
        assert self.refused > refused
        await self.all_served()

    @property
    def refused(self) -> int:
        return sum(customer.refused for customer in self.customers)


class Customer:
    """A browser, and what it has been told.

    Attributes:
        served: when it last got what it asked for.
        refused: how often it got 503.
        sids: its sessions, and whether they have ended, as far as it knows; None: not sure.
        unsure: how many logins were refused: each may have left a row.
    """

    def __init__(self, policy: str, browser: Browser, person: str, chance: random.Random) -> None:
        self.person = person
        self.served = 0.0
        self.refused = self.unsure = 0
        self.sids: dict[str, bool | None] = {}
        self._policy = policy
        self._browser = browser
        self._chance = chance
        self._sid: str | None = None

    async def step(self) -> None:
        """Do something."""
        if self._sid is None:
            await self._log_in()
        elif self.sids[self._sid] is None or self._chance.random() < 0.1:
            await self._log_out(self._sid)
        else:
            await self._look(self._sid)

    async def _ask(self, method: str, path: str) -> Answer | None:
        answer = await ask(self._browser, method, path)
        assert answer.seconds < ANSWERED
        if answer.status == 200:
            return answer
        answer.judge("error", None)
        self.refused += 1
        return None

    async def _look(self, sid: str) -> None:
        answer = await self._ask("GET", "/")
        if answer is None:
            assert self._policy == "error"
            return
        assert set_cookies(answer.response) == []
        assert answer["reason"] is None
        if answer["sid"] is None and self._policy == "anonymous":
            return  # it has to be served in the end
        assert answer["sid"] == sid
        self.served = time.monotonic()

    async def _log_in(self) -> None:
        answer = await self._ask("POST", f"/login?person={self.person}")
        if answer is None:
            self.unsure += 1
            return
        assert len(set_cookies(answer.response)) == 1
        sid: str = answer["sid"]
        self.sids[sid], self._sid = False, sid
        self.served = time.monotonic()

    async def _log_out(self, sid: str) -> None:
        answer = await self._ask("POST", "/logout")
        if answer is None:
            self.sids[sid] = None
            return
        assert len(set_cookies(answer.response)) == 1
        self.sids[sid], self._sid = True, None
        self.served = time.monotonic()

    async def check(self, rows: list[tuple[str, str | None]]) -> None:
        """Does the table hold what the customer was told?"""
        if self._sid is not None and self.sids[self._sid] is False:
            assert (await ask(self._browser))["sid"] == self._sid
        ends = dict(rows)
        for sid, ended in self.sids.items():
            if ended is None:
                assert ends.pop(sid) in {"logout", None}
            else:
                assert ends.pop(sid) == ("logout" if ended else None)
        assert len(ends) <= self.unsure


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[str, PostgresServer | MariaDBServer]]:
    """Those that run already, by kind: starting one takes seconds."""
    started: dict[str, PostgresServer | MariaDBServer] = {}
    yield started
    for server in started.values():
        server.destroy()


@pytest.mark.servers
@pytest.mark.parametrize("database_url", SERVERS)
async def test_a_server_is_restarted_killed_and_stopped_under_load(
    database_url: str, servers: dict[str, PostgresServer | MariaDBServer], table_name: str
) -> None:
    kind = kind_of(database_url)
    if kind not in servers:
        servers[kind] = own_server(database_url)
        await servers[kind].__aenter__()
    server = servers[kind]
    url = server.url_at(server.port, database_url.partition(":")[0])
    clock = Clock()
    witness = Sessions(url, secret_key=KEY, table_name=table_name, clock=clock)
    await witness.create_tables()
    await witness.disconnect()
    scene = Scene(url, url, table_name, Path(), clock, witness)
    async with leaving_nothing(scene):
        load = Load({policy: scene.sessions(on_unavailable=policy) for policy in POLICIES}, 6)
        async with load.running():
            await load.all_served()
            async with load.outage():
                await server.restart()
            async with load.outage():
                await server.kill9()
                refused = load.refused
                await until(lambda: load.refused > refused, "nobody is refused")
                await server.start()
            async with load.outage():
                server.pause()  # it accepts connections, and never answers
                await asyncio.sleep(2 * TIMEOUT.total_seconds())
                server.unpause()
        rows = scene.rows()
        for customer in load.customers:
            await customer.check(rows.pop(customer.person))
        assert rows == {}
