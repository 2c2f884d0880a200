"""The table, as SQLite and an app's Alembic see it; and how connections are held."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import alembic
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from databases import Database
from sqlalchemy import Column, Connection, Integer, MetaData, Table, create_engine, inspect

from asgi_sessions import Sessions
from tests.support import KEY, Browser, make_app


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the database will be."""
    return tmp_path / "sessions.db"


def make(file: Path, **options: Any) -> Sessions:
    return Sessions(f"sqlite:///{file}", secret_key=KEY, **options)


@contextmanager
def sync(file: Path) -> Iterator[Connection]:
    """The same file through SQLAlchemy's own driver, as Alembic uses it."""
    engine = create_engine(f"sqlite:///{file}")
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()


def differences(file: Path, metadata: MetaData) -> list[Any]:
    """What Alembic's autogenerate would write; with all that it can compare."""
    with sync(file) as connection:
        options = {"compare_type": True, "compare_server_default": True}
        context = MigrationContext.configure(connection, opts=options)
        return list(compare_metadata(context, metadata))


ENVIRONMENT = """
from alembic import context
from sqlalchemy import create_engine

engine = create_engine(context.config.get_main_option("sqlalchemy.url"))
with engine.connect() as connection:
    metadata = context.config.attributes["metadata"]
    context.configure(connection=connection, target_metadata=metadata)
    with context.begin_transaction():
        context.run_migrations()
engine.dispose()
"""


def alembic_for(file: Path, metadata: MetaData | list[MetaData]) -> Config:
    """An app's Alembic, set up beside the file."""
    scripts = file.parent / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(ENVIRONMENT)
    template = Path(alembic.__file__).parent / "templates" / "generic" / "script.py.mako"
    (scripts / "script.py.mako").write_text(template.read_text())
    config = Config(stdout=io.StringIO(), attributes={"metadata": metadata})
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    config.set_main_option("sqlalchemy.url", f"sqlite:///{file}")
    return config


def migrate(config: Config) -> str:
    """Let Alembic write a migration and run it; its source."""
    script = command.revision(config, autogenerate=True, message="what is missing")
    assert isinstance(script, Script)
    command.upgrade(config, "head")
    return Path(script.path).read_text()


def pragma(file: Path, name: str) -> object:
    """A pragma as another connection to the file sees it."""
    with closing(sqlite3.connect(file)) as connection:
        row = connection.execute(f"PRAGMA {name}").fetchone()
        return row and row[0]


# --- create_tables --------------------------------------------------------------------------------


async def test_tables_are_made_once_however_often_it_is_asked(file: Path) -> None:
    async with make(file) as sessions:
        for _ in range(3):
            await sessions.create_tables()
        async with Browser(make_app(sessions)) as browser:
            sid = await browser.login("ann")
            await sessions.create_tables()
            assert (await browser.see())["sid"] == sid


async def test_tables_are_made_by_several_at_once(file: Path) -> None:
    several = [make(file) for _ in range(4)]
    await asyncio.gather(*[sessions.create_tables() for sessions in several])
    for sessions in several:
        await sessions.disconnect()
    assert differences(file, several[0].metadata) == []


async def test_an_index_that_is_missing_is_added(file: Path) -> None:
    async with make(file) as sessions:
        await sessions.create_tables()
        with closing(sqlite3.connect(file)) as connection:
            connection.execute("DROP INDEX ux_sessions_live_device")
        assert differences(file, sessions.metadata) != []
        await sessions.create_tables()
        assert differences(file, sessions.metadata) == []


async def test_a_table_may_have_another_name(file: Path) -> None:
    async with make(file, table_name="logins") as sessions:
        await sessions.create_tables()
        assert sessions.table.name == "logins"
        async with Browser(make_app(sessions)) as browser:
            await browser.login("ann")
    with sync(file) as connection:
        assert inspect(connection).get_table_names() == ["logins", "logins_cutoffs"]
        names = {index["name"] or "" for index in inspect(connection).get_indexes("logins")}
    assert names
    assert all("logins" in name for name in names)


# --- Alembic --------------------------------------------------------------------------------------


async def test_alembic_sees_the_table_while_it_is_missing_and_nothing_after(file: Path) -> None:
    async with make(file) as sessions:
        missing = differences(file, sessions.metadata)
        assert ("add_table", "sessions") in [(kind, what.name) for kind, what in missing]
        assert {kind for kind, _ in missing} == {"add_table", "add_index"}
        await sessions.create_tables()
        assert differences(file, sessions.metadata) == []


@pytest.mark.parametrize("table_name", ["sessions", "logins"])
async def test_a_migration_that_alembic_wrote_makes_a_table_that_works(
    file: Path, table_name: str
) -> None:
    sessions = make(file, table_name=table_name)
    config = alembic_for(file, sessions.metadata)
    assert f"op.create_table('{table_name}'" in migrate(config)
    command.check(config)  # raises if anything is left to do
    async with sessions, Browser(make_app(sessions)) as browser:
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
        await sessions.create_tables()  # finds nothing to do
    command.check(config)
    command.downgrade(config, "base")
    assert pragma(file, f"table_info({table_name})") is None


@pytest.mark.parametrize("table_name", ["sessions", "logins"])
async def test_the_table_fits_into_the_apps_own_metadata(file: Path, table_name: str) -> None:
    app_metadata = MetaData()
    Table("notes", app_metadata, Column("id", Integer, primary_key=True))
    async with make(file, table_name=table_name) as sessions:
        for table in sessions.metadata.sorted_tables:
            table.to_metadata(app_metadata)
        missing = [what.name for kind, what in differences(file, app_metadata) if "table" in kind]
        assert sorted(missing) == sorted(["notes", table_name, f"{table_name}_cutoffs"])
        await sessions.create_tables()
        ((_, still_missing),) = differences(file, app_metadata)
        assert still_missing.name == "notes"
        config = alembic_for(file, app_metadata)
        assert table_name not in migrate(config)
        command.check(config)


async def test_the_table_stands_beside_the_apps_own_metadata(file: Path) -> None:
    notes = MetaData()
    Table("notes", notes, Column("id", Integer, primary_key=True))
    async with make(file) as sessions:
        await sessions.create_tables()
        config = alembic_for(file, [notes, sessions.metadata])
        assert "op.create_table('notes'" in migrate(config)
        command.check(config)


# --- connections ----------------------------------------------------------------------------------


async def test_readers_and_writers_do_not_wait_for_one_another(file: Path) -> None:
    async with make(file) as sessions:
        await sessions.create_tables()
        assert pragma(file, "journal_mode") == "wal"
        async with Browser(make_app(sessions)) as browser:
            sid = await browser.login("ann")
            with closing(sqlite3.connect(file, isolation_level=None)) as writer:
                writer.execute("BEGIN IMMEDIATE")
                assert (await browser.see())["sid"] == sid


async def test_a_write_waits_for_another_process_rather_than_fail(file: Path) -> None:
    async with make(file) as sessions:
        await sessions.create_tables()
        writer = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
        with closing(writer):
            writer.execute("BEGIN IMMEDIATE")
            async with Browser(make_app(sessions)) as browser:
                login = asyncio.create_task(browser.login("ann"))
                done, _ = await asyncio.wait([login], timeout=0.1)
                assert not done
                writer.execute("COMMIT")
                assert await login


async def test_each_connection_of_ours_waits_for_locks(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await connections_opened(monkeypatch)
    async with make(file) as sessions:
        await sessions.create_tables()
        await sessions.list_sessions("ann")
        async with Browser(make_app(sessions)) as browser:
            await browser.login("ann")
            await browser.see()
        assert len(opened) == 3
        for connection in opened:
            ((milliseconds,),) = await connection.execute_fetchall("PRAGMA busy_timeout")
            assert milliseconds >= 1000


async def test_the_journal_of_an_apps_own_database_is_left_as_it_is(file: Path) -> None:
    async with Database(f"sqlite:///{file}") as database:
        sessions = Sessions(database, secret_key=KEY)
        await sessions.create_tables()
        await sessions.disconnect()
    assert pragma(file, "journal_mode") == "delete"


async def connections_opened(monkeypatch: pytest.MonkeyPatch) -> list[aiosqlite.Connection]:
    """A list that every connection of aiosqlite is added to."""
    opened: list[aiosqlite.Connection] = []
    connect = aiosqlite.connect

    def counting(*arguments: Any, **options: Any) -> aiosqlite.Connection:
        opened.append(connect(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(aiosqlite, "connect", counting)
    return opened


async def test_a_hundred_requests_open_no_connection_of_their_own(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await connections_opened(monkeypatch)
    async with make(file) as sessions:
        await sessions.create_tables()
        app = make_app(sessions)
        async with Browser(app) as browser:
            sid = await browser.login("ann")
            for _ in range(50):
                assert (await browser.see())["sid"] == sid
            seen = await asyncio.gather(*[browser.see() for _ in range(50)])
            assert {one["sid"] for one in seen} == {sid}
            await sessions.list_sessions("ann")
        assert len(opened) <= 3


async def test_requests_without_a_session_open_no_connection_at_all(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = await connections_opened(monkeypatch)
    sessions = make(file)
    async with Browser(make_app(sessions)) as browser:
        browser.cookies.set(sessions.cookie_name, "not one of ours")
        for _ in range(10):
            assert (await browser.see())["sid"] is None
    assert opened == []
    await sessions.disconnect()
    assert not file.exists()


@pytest.mark.parametrize("step", ["see", "login", "logout", "end"])
async def test_a_connection_that_broke_is_opened_anew(
    file: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    opened = await connections_opened(monkeypatch)
    async with make(file) as sessions:
        await sessions.create_tables()
        async with Browser(make_app(sessions)) as browser:
            sid = await browser.login("ann")
            await browser.see()
            await sessions.list_sessions("ann")
            for _ in range(2):
                for connection in opened:
                    await connection.close()
                match step:
                    case "see":
                        assert (await browser.see())["sid"] == sid
                    case "login":
                        sid = await browser.login("ann")
                    case "logout":
                        await browser.post("/logout")
                    case "end":
                        await sessions.end_all_sessions("ann")
            expected = sid if step in ("see", "login") else None
            assert (await browser.see())["sid"] == expected
            assert len(await sessions.list_sessions("ann")) == (expected is not None)


# --- no file at all -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["memory.db", "my:memory.db", "file of mine.db"])
async def test_a_file_may_be_called_what_you_like(tmp_path: Path, name: str) -> None:
    async with make(tmp_path / name) as sessions:
        await sessions.create_tables()
        assert await sessions.list_sessions("ann") == []
    assert (tmp_path / name).exists()


async def test_a_path_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with Sessions("sqlite:///here.db", secret_key=KEY) as sessions:
        await sessions.create_tables()
    assert (tmp_path / "here.db").exists()
