"""The schema as an app's Alembic sees it, on each database; the DDL that the docs show."""

from __future__ import annotations

import asyncio
import io
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alembic
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import Script
from sqlalchemy import (
    Column,
    Connection,
    Engine,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    create_engine,
    event,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from asgi_sessions import ConfigurationError, Sessions
from tests.apps.fullstack import Account
from tests.conftest import ENGINES, URLS, name_of
from tests.support import KEY, Browser, make_app
from tests.support.engines import EngineURL, app_engine, own_database, sync_engine
from tests.support.repository import DOCS

PAGE = DOCS / "databases.md"
TEMPLATES = Path(alembic.__file__).parent / "templates"
#: What Alembic's autogenerate can compare.
COMPARE: dict[str, Any] = {"compare_type": True, "compare_server_default": True}

ENVIRONMENT = """
from alembic import context

attributes = context.config.attributes
with attributes["engine"].connect() as connection:
    context.configure(connection=connection, target_metadata=attributes["metadata"], **{options})
    with context.begin_transaction():
        context.run_migrations()
"""


@dataclass
class App:
    """An app with a database and an Alembic of its own."""

    url: str
    engine: Engine
    directory: Path

    @property
    def dialect(self) -> Any:
        """The name that `Sessions.ddl` has for the database."""
        return self.engine.dialect.name

    def sessions(self, **options: Any) -> Sessions:
        """With all tables that there may be."""
        return Sessions(self.url, secret_key=KEY, data=True, **options)

    def run(self, statement: str) -> None:
        with self.engine.connect() as connection:
            connection.exec_driver_sql(statement)

    def run_script(self, script: str) -> None:
        for statement in script.split(";\n"):
            if statement:
                self.run(statement)

    def differences(self, metadata: MetaData, **options: Any) -> list[Any]:
        with self.engine.connect() as connection:
            return differences(connection, metadata, **options)

    def alembic(self, metadata: MetaData) -> Config:
        config = alembic_in(self.directory, ENVIRONMENT.format(options=COMPARE), metadata)
        config.attributes["engine"] = self.engine
        return config


def differences(connection: Connection, /, metadata: MetaData, **options: Any) -> list[Any]:
    """What autogenerate would change."""
    context = MigrationContext.configure(connection, opts=COMPARE | options)
    return list(compare_metadata(context, metadata))


def alembic_in(
    directory: Path, environment: str, metadata: MetaData | list[MetaData], *imports: str
) -> Config:
    """Set up as ``alembic init`` does, with this env.py and what the scripts import besides."""
    scripts = directory / "migrations"
    (scripts / "versions").mkdir(parents=True)
    (scripts / "env.py").write_text(environment)
    template = (TEMPLATES / "generic" / "script.py.mako").read_text()
    more = "\n".join(["import sqlalchemy as sa", *imports])
    (scripts / "script.py.mako").write_text(template.replace("import sqlalchemy as sa", more))
    config = Config(stdout=io.StringIO(), attributes={"metadata": metadata})
    config.set_main_option("script_location", str(scripts))
    config.set_main_option("path_separator", "os")
    return config


def migrate(config: Config) -> str:
    """Let Alembic write a migration, and run it; its source."""
    script = command.revision(config, autogenerate=True, message="what is missing")
    assert isinstance(script, Script)
    command.upgrade(config, "head")
    return Path(script.path).read_text()


@pytest.fixture(params=URLS, ids=name_of)
def app(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[App]:
    """An app with an empty database."""
    with own_database(request.param, tmp_path) as url:
        engine = sync_engine(url)
        yield App(url, engine, tmp_path)


async def logs_in_and_out(sessions: Sessions) -> None:
    async with Browser(make_app(sessions)) as browser:
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
        await browser.post("/logout")
        assert (await browser.see())["sid"] is None


# --- Alembic --------------------------------------------------------------------------------------


async def test_autogenerate_finds_nothing_to_change_in_what_create_tables_has_made(
    app: App,
) -> None:
    async with app.sessions() as sessions:
        assert {change[0] for change in app.differences(sessions.metadata)} == {
            "add_table",
            "add_index",
        }
        await sessions.create_tables()
        assert app.differences(sessions.metadata) == []


async def test_the_table_stands_in_the_metadata_of_the_app(app: App) -> None:
    metadata = MetaData()
    async with app.sessions(table_name="logins") as sessions:
        for table in sessions.metadata.sorted_tables:
            table.to_metadata(metadata)
        mine = metadata.tables["logins"]
        baskets = Table(
            "baskets",
            metadata,
            Column("number", Integer, primary_key=True),
            Column("sid", mine.c.id.type, ForeignKey("logins.id", ondelete="CASCADE")),
        )
        migrate(app.alembic(metadata))
        assert app.differences(metadata) == []
        await sessions.create_tables()  # finds nothing to do
        assert app.differences(metadata) == []
        async with Browser(make_app(sessions)) as browser:
            sid = await browser.login("ann")
        with app.engine.connect() as connection:
            connection.execute(baskets.insert().values(number=1, sid=sid))


async def test_a_migration_that_alembic_wrote_makes_a_table_that_works(app: App) -> None:
    async with app.sessions() as sessions:
        config = app.alembic(sessions.metadata)
        assert "op.create_table('sessions'" in migrate(config)
        command.check(config)  # raises if anything is left to do
        await logs_in_and_out(sessions)
    command.downgrade(config, "base")
    command.upgrade(config, "head")
    command.check(config)


async def test_a_migration_written_on_sqlite_holds_on_every_database(app: App) -> None:
    async with app.sessions() as sessions:
        config = app.alembic(sessions.metadata)
        config.attributes["engine"] = create_engine("sqlite://")
        script = command.revision(config, autogenerate=True, message="written elsewhere")
        assert isinstance(script, Script)
        config.attributes["engine"].dispose()
        config.attributes["engine"] = app.engine
        command.upgrade(config, "head")
        command.check(config)
        await logs_in_and_out(sessions)


async def test_a_table_of_an_older_version_is_brought_up_to_date_and_keeps_its_rows(
    app: App,
) -> None:
    async with app.sessions() as sessions:
        await sessions.create_tables()
        async with Browser(make_app(sessions)) as browser:
            sid = await browser.login("ann")
    index = "DROP INDEX ix_sessions_over"
    app.run(f"{index} ON sessions" if app.dialect in {"mariadb", "mysql"} else index)
    app.run("ALTER TABLE sessions DROP COLUMN auth_provider")
    async with app.sessions() as sessions:
        source = migrate(app.alembic(sessions.metadata))
        assert re.findall(r"^    op\.(\w+)", source, re.MULTILINE)[:2] == [
            "add_column",
            "create_index",
        ]
        assert app.differences(sessions.metadata) == []
        (session,) = await sessions.list_sessions("ann")
        assert (session.sid, session.auth_provider) == (sid, None)
        await logs_in_and_out(sessions)


def declarative(sessions: Sessions) -> tuple[MetaData, str]:
    """Models of SQLAlchemy's ORM, one of which refers to sessions; what their types need."""

    class Base(DeclarativeBase):
        """The app's."""

    for table in sessions.metadata.sorted_tables:
        table.to_metadata(Base.metadata)

    class Basket(Base):
        """A row of the app's own."""

        __tablename__ = "baskets"
        number: Mapped[int] = mapped_column(primary_key=True)
        sid: Mapped[str] = mapped_column(ForeignKey("sessions.id", ondelete="CASCADE"))

    return Base.metadata, ""


def sqlmodel(sessions: Sessions) -> tuple[list[MetaData], str]:
    """Models of SQLModel beside the tables of sessions."""
    return [Account.metadata, sessions.metadata], "import sqlmodel.sql.sqltypes"


@pytest.mark.parametrize("models", [declarative, sqlmodel])
@pytest.mark.parametrize(
    "database",
    # Migrations go around a pooler.
    [url for url in ENGINES if "statement_cache_size" not in url],
    ids=name_of,
)
async def test_the_async_env_py_of_alembic_migrates_by_the_driver_of_an_engine(
    database: EngineURL, models: Any, tmp_path: Path
) -> None:
    with own_database(database, tmp_path) as url:
        engine = app_engine(url, database.driver)
        async with Sessions(engine, secret_key=KEY) as sessions:
            metadata, imports = models(sessions)
            environment = (TEMPLATES / "async" / "env.py").read_text()
            mine = 'target_metadata = config.attributes["metadata"]'
            environment = environment.replace("target_metadata = None", mine)
            config = alembic_in(tmp_path, environment, metadata, imports)
            place = engine.url.render_as_string(hide_password=False)
            config.set_main_option("sqlalchemy.url", place)
            # In a thread, as env.py brings an event loop of its own.
            source = await asyncio.to_thread(migrate, config)
            made = set(re.findall(r"op.create_table\('(\w+)'", source))
            assert made > {"sessions", "sessions_cutoffs"}  # and the app's
            await asyncio.to_thread(command.check, config)  # raises if anything is left to do
            await sessions.create_tables()  # finds nothing to do
            await asyncio.to_thread(command.check, config)
            await logs_in_and_out(sessions)
            await asyncio.to_thread(command.downgrade, config, "base")
            await asyncio.to_thread(command.upgrade, config, "head")
            await logs_in_and_out(sessions)

            await asyncio.to_thread(command.downgrade, config, "base")
            await sessions.create_tables()
            async with engine.connect() as connection:
                left = await connection.run_sync(differences, sessions.metadata)
            assert left == []
        await engine.dispose()


async def test_autogenerate_is_clean_in_another_schema(app: App, tmp_path: Path) -> None:
    if app.dialect == "sqlite":

        @event.listens_for(app.engine, "connect")
        def attach(connection: Any, record: object) -> None:
            connection.execute(f"ATTACH DATABASE '{tmp_path}/auth.db' AS auth")

        schema = "auth"
    else:
        schema = f"auth_{uuid.uuid4().hex[:12]}"
        app.run(f"CREATE SCHEMA {schema}")
    sessions = app.sessions(table_name=f"{schema}.sessions")
    app.run_script(sessions.ddl(app.dialect))

    def include_name(name: str | None, kind: str, parents: object) -> bool:
        return kind != "schema" or name == schema

    assert app.differences(sessions.metadata, include_schemas=True, include_name=include_name) == []
    sessions.metadata.drop_all(app.engine)
    if app.dialect != "sqlite":
        app.run(f"DROP SCHEMA {schema}")


# --- DDL ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql", "mariadb", "mysql"])
def test_the_page_shows_what_ddl_prints(dialect: Any) -> None:
    sessions = Sessions("sqlite:///sessions.db", secret_key=KEY)
    shown = re.findall(r"```sql\n-- (\w+)\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert dict(shown)[dialect] == sessions.ddl(dialect)


@pytest.mark.parametrize("dialect", ["oracle", "MySQL", "", None])
def test_ddl_is_printed_in_no_other_dialect(dialect: Any) -> None:
    sessions = Sessions("sqlite:///sessions.db", secret_key=KEY)
    with pytest.raises(ConfigurationError, match="use one of sqlite, postgresql, mariadb, mysql"):
        sessions.ddl(dialect)


async def test_what_ddl_prints_makes_what_create_tables_makes(app: App) -> None:
    async with app.sessions() as sessions:
        app.run_script(sessions.ddl(app.dialect))
        assert app.differences(sessions.metadata) == []
        await sessions.create_tables()
        await logs_in_and_out(sessions)
        with app.engine.connect() as connection:
            assert len(connection.execute(select(sessions.table.c.id)).all()) == 1
