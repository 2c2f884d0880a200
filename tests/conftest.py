"""Fixtures: a database per test and URL, `Sessions` on it, a clock."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.schema import DropTable

from asgi_sessions import Sessions
from tests.support import KEY, Clock
from tests.support.engines import EngineURL, Onlooker, app_engine, is_mariadb, kind, run
from tests.support.pages import Reader

_GIVEN = [url.partition("#") for url in os.environ.get("TEST_DATABASE_URLS", "").split()]
#: SQLite always; further databases by URL, separated by spaces.
URLS = ["sqlite", *(url for url, _, _ in _GIVEN)]
_NAMES = {url: name for url, _, name in _GIVEN if name}


def name_of(url: str) -> str:
    """What the test ids call a database: what follows a # in its URL, or the scheme."""
    name = _NAMES.get(url, url.partition(":")[0])
    return f"engine-{name}-{url.driver.partition('+')[2]}" if isinstance(url, EngineURL) else name


_DRIVERS = {
    "sqlite": ("sqlite+aiosqlite",),
    "postgresql": ("postgresql+asyncpg", "postgresql+psycopg"),
    "mysql": ("mariadb+aiomysql",),
    "mysql+asyncmy": ("mariadb+asyncmy",),
}


def drivers_of(url: str) -> tuple[str, ...]:
    """The libraries by which an app's own engine reaches a database, as SQLAlchemy spells them."""
    drivers = _DRIVERS.get(url.partition(":")[0], ())
    if drivers and kind(url) == "mysql" and not is_mariadb(url):
        return tuple(driver.replace("mariadb", "mysql") for driver in drivers)
    return drivers


ENGINES = [EngineURL.of(url, driver) for url in URLS for driver in drivers_of(url)]
#: What is asked of SQLite alone: how cookies, scopes, frameworks and routes are served, where no
#: statement is another than those that the others ask of each database.
_ON_SQLITE_ALONE = {"frameworks", "routes", "test_asgi", "test_cookies", "test_websockets"}
#: What is asked of each URL, for it may depend on the library, on the pooler, or on the release of
#: the server: connections, transactions, what is sent and what comes back, faults. The others ask
#: how people are served, and a database answers that alike however it is reached: they run on the
#: first URL of each kind.
_ON_EACH_URL = {
    "apps",
    "cluster",
    "database",
    "races",
    "servers",
    "test_app_transactions",
    "test_cancellation",
    "test_changeset",
    "test_cli",
    "test_data",
    "test_device",
    "test_operator",
    "test_unavailable",
}
#: Those whose kind of database has another URL before them.
_SECOND = {url for n, url in enumerate(URLS) if kind(url) in {kind(one) for one in URLS[:n]}}
#: Where tests run on engines, too: whatever the way of a connection could spoil. The others ask how
#: requests are answered, which does not depend on it, and would only take twice the time.
_ON_ENGINES = {"database", "races"}
#: Of the races, those by drivers of their own: asyncpg has run them by its URL.
_RACING = {"sqlite+aiosqlite", "postgresql+psycopg"}
#: What a pooler in front of the server can spoil.
_ON_ENGINES_BEHIND_A_POOLER = {"test_engines"}

MakeSessions = Callable[..., Awaitable[Sessions]]

#: The files that measure how soon somebody is answered.
ALONE = {"test_outages", "test_pgbouncer", "test_proxy"}
#: Files and directories whose tests wait for servers, browsers and processes of their own more than
#: they compute. They begin before all others, which compute meanwhile.
FIRST = [
    "test_dbsc_browser",
    "test_providers",
    "clients",
    "cluster",
    "test_crashes",
    "servers",
    "browser",
]
#: Those of one group run one after the other: their load keeps all processors busy.
LOAD = {"cluster", "test_crashes"}

#: Where the coverage is measured on databases other than SQLite: what needs a server is run here.
#: To measure it takes as long again as most tests do.
_MEASURED_ON_SERVERS = {"database", "test_app_transactions", "test_data", "test_tls"}
#: Where it is never measured: many requests that reach nothing but what other tests reach, too.
_NEVER_MEASURED = {"test_benchmarks"}


def _names(path: Path) -> set[str]:
    return {path.stem, path.parent.name}


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One process more than there are processors, since one of them waits (`FIRST`)."""
    return 1 + (len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """What a process is given at once: a file, or all that makes load."""
    from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]  # it has no types

    class Scheduling(LoadFileScheduling):  # type: ignore[misc]  # as above
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return "load" if _names(Path(file)) & LOAD else file

    # In their order: files of few tests, some of which take longest, would come last.
    config.option.loadscopereorder = False
    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


#: A file system in memory, which Linux has, and the bytes that have to be free there: a container
#: may have few.
MEMORY = Path("/dev/shm")  # noqa: S108 -- pytest makes a directory in it that is this user's alone
ROOM = 256 << 20

#: A file with the names of tests that have passed in another run. They are left out, and those that
#: pass here are added.
PASSED = Path(os.environ["TEST_PASSED"]) if "TEST_PASSED" in os.environ else None
_BEFORE = frozenset(PASSED.read_text().splitlines() if PASSED and PASSED.exists() else ())
_now: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep the name of a test that has passed; one that was skipped may pass elsewhere."""
    if report.when == "call" and report.passed:
        _now.append(report.nodeid)


def pytest_sessionfinish() -> None:
    """Write these names down: the process that starts the others has the reports of all."""
    if PASSED and "PYTEST_XDIST_WORKER" not in os.environ:
        with PASSED.open("a") as file:
            file.writelines(f"{name}\n" for name in _now)


def pytest_configure() -> None:
    """Files of tests are in memory: SQLite waits for the disk at each commit, for nobody's good."""
    if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end. To look through it for garbage takes 0.2 s
    each time, and some tests look for garbage.
    """
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark and sort them. Tests with the mark `servers` run with TEST_SERVERS=1 alone."""
    for item in items:
        names = _names(item.path)
        if names & ALONE:
            item.add_marker("alone")
        url = _url_of(item)
        by_server = url is not None and kind(url) != "sqlite"
        if names & _NEVER_MEASURED or (by_server and not names & _MEASURED_ON_SERVERS):
            item.add_marker("no_cover")
    places = {name: place for place, name in enumerate(FIRST)}
    items.sort(key=lambda item: min(places.get(name, len(FIRST)) for name in _names(item.path)))
    left_out = {item for item in items if _is_left_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]


def _url_of(item: pytest.Item) -> str | None:
    given = getattr(item, "callspec", None)
    url = None if given is None else given.params.get("database_url")
    return url if isinstance(url, str) else None  # a list of URLs may be empty


def _is_left_out(item: pytest.Item) -> bool:
    if item.nodeid in _BEFORE:
        return True
    if item.get_closest_marker("servers") and os.environ.get("TEST_SERVERS") != "1":
        return True
    url, names = _url_of(item), _names(item.path)
    if url is None:
        return False
    if isinstance(url, EngineURL):
        return not _runs_on(url, item, names)
    if names & _ON_SQLITE_ALONE:
        return kind(url) != "sqlite"
    return url in _SECOND and not names & _ON_EACH_URL


def _runs_on(engine: EngineURL, item: pytest.Item, names: set[str]) -> bool:
    if names & _ON_ENGINES_BEHIND_A_POOLER:
        return True
    if engine in _NAMES:
        return False
    if "test_app_transactions" in names:
        return True
    if not names & _ON_ENGINES:
        return False
    if "races" in names:
        return engine.driver in _RACING
    # One that makes its own `Sessions` of the URL does on an engine what it has done without.
    fixtures = getattr(item, "fixturenames", ())
    return not engine.startswith("mysql") and "make_sessions" in fixtures


@pytest.fixture
def anyio_backend() -> str:
    """`databases` runs on asyncio alone."""
    return "asyncio"


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[None]:
    """As it was: each Litestar app sets its level, and gives it a handler."""
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = [handler for handler in root.handlers if handler in handlers]


@pytest.fixture
def clock() -> Clock:
    """A clock that the test turns."""
    return Clock()


@pytest.fixture(params=[*URLS, *ENGINES], ids=name_of)
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database for SQLite, a shared one with a table per test for the others."""
    url: str = request.param
    if url != "sqlite":
        return url
    file = f"sqlite:///{tmp_path}/sessions.db"
    return EngineURL.of(file, url.driver) if isinstance(url, EngineURL) else file


@pytest.fixture
def table_name() -> str:
    """A table that no other test uses."""
    return f"sessions_{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def make_sessions(
    anyio_backend: str,  # makes the fixture run in the test's event loop
    database_url: str,
    table_name: str,
    clock: Clock,
) -> AsyncIterator[MakeSessions]:
    """A factory of `Sessions` on this test's table; several of them are several processes."""
    made: list[Sessions] = []
    engines: list[AsyncEngine] = []

    async def make(**options: Any) -> Sessions:
        options = {"secret_key": KEY, "clock": clock, "table_name": table_name, **options}
        database: Any = database_url
        if isinstance(database_url, EngineURL) and "database" not in options:
            database = app_engine(database_url, database_url.driver)
            engines.append(database)
        sessions = Sessions(options.pop("database", database), **options)
        made.append(sessions)
        await sessions.create_tables()
        return sessions

    yield make
    if made and not database_url.startswith("sqlite"):
        await made[0].connect()  # the test may have disconnected it
        for table in made[0].metadata.sorted_tables:
            await run(made[0], DropTable(table, if_exists=True))
    for sessions in made:
        await sessions.disconnect()
    for engine in engines:
        await engine.dispose()


@pytest.fixture
async def sessions(make_sessions: MakeSessions) -> Sessions:
    """`Sessions` with the defaults."""
    return await make_sessions()


@pytest.fixture
async def reader(
    anyio_backend: str, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Reader]:
    """A reader of a page, in an empty directory, with a key in the environment."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SECRET_KEY", KEY)
    reader = Reader(page)
    monkeypatch.setitem(sys.modules, reader.module.__name__, reader.module)
    yield reader
    for sessions in reader.sessions:
        await sessions.disconnect()


@pytest.fixture
async def plain(anyio_backend: str, tmp_path: Path, clock: Clock) -> AsyncIterator[Sessions]:
    """On SQLite alone: for what no database does differently."""
    async with Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, clock=clock) as sessions:
        await sessions.create_tables()
        yield sessions


@pytest.fixture
def onlooker(database_url: str, table_name: str) -> Iterator[Onlooker]:
    """Somebody else's connection to the table of this test."""
    onlooker = Onlooker(database_url, table_name)
    yield onlooker
    onlooker.close()
