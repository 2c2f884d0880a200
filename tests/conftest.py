"""Fixtures: a database per test and URL, `Sessions` on it, a clock."""

from __future__ import annotations

import logging
import os
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
#: Where tests run on engines, too: whatever the way of a connection could spoil. The others ask how
#: requests are answered, which does not depend on it, and would only take twice the time.
_ON_ENGINES = {"database", "races"}
#: Of the races, those by drivers of their own: asyncpg has run them by its URL.
_RACING = {"sqlite+aiosqlite", "postgresql+psycopg"}
#: What a pooler in front of the server can spoil.
_ON_ENGINES_BEHIND_A_POOLER = {"test_engines"}

MakeSessions = Callable[..., Awaitable[Sessions]]

#: Files and directories whose tests wait for servers, browsers and processes of their own more than
#: they compute; and the files that measure how soon somebody is answered.
WAITS = {
    "clients",
    "cluster",
    "servers",
    "test_cross_origin_browser",
    "test_dbsc_browser",
    "test_providers",
    "test_sso_browser",
}
ALONE = {"test_outages", "test_pgbouncer", "test_proxy"}
#: Of the former, what runs one after the other, by group: load keeps all processors busy, the
#: browser's cookies run out in seconds, and the last three start for all of their tests what takes
#: longer than these.
GROUPS = {
    "cluster": "load",
    "test_crashes": "load",
    "test_dbsc_browser": "browser",
    "test_cross_origin_browser": "cross-origin",
    "test_deployments": "deployments",
    "test_providers": "providers",
}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark them. Tests with the mark `servers` run with TEST_SERVERS=1 alone."""
    for item in items:
        names = {item.path.stem, item.path.parent.name}
        if names & ALONE:
            item.add_marker("alone")
        elif names & WAITS:
            item.add_marker("waits")
            for name in names & GROUPS.keys():
                item.add_marker(pytest.mark.xdist_group(GROUPS[name]))
    left_out = {item for item in items if _is_left_out(item)}
    if left_out:
        config.hook.pytest_deselected(items=[*left_out])
        items[:] = [item for item in items if item not in left_out]


def _is_left_out(item: pytest.Item) -> bool:
    if item.get_closest_marker("servers") and os.environ.get("TEST_SERVERS") != "1":
        return True
    given = getattr(item, "callspec", None)
    url = None if given is None else given.params.get("database_url")
    if not isinstance(url, EngineURL) or item.path.stem in _ON_ENGINES_BEHIND_A_POOLER:
        return False
    if url in _NAMES:
        return True
    if item.path.stem == "test_app_transactions":
        return False
    room = item.path.parent.name
    if room == "races":
        return url.driver not in _RACING
    return room not in _ON_ENGINES or url.startswith("mysql")


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
