"""Tables that have the name of ours and are not: somebody else's, or another version's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, NoReturn

import pytest
from sqlalchemy import Column, Integer, String, Table, inspect, text

from asgi_sessions import ConfigurationError, Sessions, SessionsUnavailable
from tests.support import KEY, Browser, entered, make_app
from tests.support.engines import Onlooker, kind
from tests.support.inside import driver_of

DJANGO = "CREATE TABLE {} (session_key VARCHAR(40) PRIMARY KEY, session_data VARCHAR(99) NOT NULL)"
#: What creates a column that cannot hold ours, by the kind of database.
OTHER_KINDS: dict[str, dict[str, str]] = {
    "sqlite": {"person_id": "INTEGER NOT NULL", "remember": "TEXT NOT NULL"},
    "postgresql": {
        "id": "UUID NOT NULL",
        "person_id": "INTEGER NOT NULL",
        "started_at": "TIMESTAMP NOT NULL",
        "secret_hash": "TEXT NOT NULL",
        "user_agent": "VARCHAR(20)",
    },
    "mysql": {
        "id": "INTEGER NOT NULL",
        "person_id": "VARCHAR(255) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci NOT NULL",
        "started_at": "DATETIME NOT NULL",
        "secret_hash": "VARCHAR(64) NOT NULL",
        "binding": "VARBINARY(64)",
    },
}


@pytest.fixture
def onlooker(onlooker: Onlooker) -> Iterator[Onlooker]:
    """Somebody who makes tables of the name that `Sessions` has."""
    yield onlooker
    onlooker.run("DROP TABLE IF EXISTS {}")


@pytest.fixture
async def sessions(
    anyio_backend: str, onlooker: Onlooker, database_url: str, table_name: str
) -> AsyncIterator[Sessions]:
    """`Sessions` whose tables nobody has made."""
    async with Sessions(database_url, secret_key=KEY, table_name=table_name) as sessions:
        yield sessions


def make_altered(onlooker: Onlooker, sessions: Sessions, **columns: str | None) -> None:
    """Make the table with other columns than ours: none, or what stands there."""
    lines = []
    statement, *_ = sessions.ddl(onlooker.engine.dialect.name).split(";\n")  # type: ignore[arg-type]
    for line in statement.splitlines():
        name = line.strip().partition(" ")[0]
        if name == "PRIMARY":
            lines += [f"{n} {t}," for n, t in columns.items() if n not in sessions.table.c and t]
        if name not in columns:
            lines.append(line)
        elif columns[name] is not None:
            lines.append(f"{name} {columns[name]},")
    onlooker.run("\n".join(lines))


async def refused(sessions: Sessions) -> str:
    """What `create_tables` says when it refuses."""
    with pytest.raises(ConfigurationError) as caught:
        await sessions.create_tables()
    return str(caught.value)


# --- create_tables --------------------------------------------------------------------------------


async def test_the_table_of_somebody_else_is_refused_and_left_alone(
    sessions: Sessions, onlooker: Onlooker
) -> None:
    onlooker.run(DJANGO)
    said = await refused(sessions)
    assert f"the table {sessions.table.name} in the database is not ours" in said
    assert "columns missing: id, person_id, app_id, " in said
    assert "columns that are not ours: session_key, session_data" in said
    assert "table_name=" in said
    assert "a migration (docs/databases.md, Migrations)" in said
    inspector = inspect(onlooker.engine)
    assert len(inspector.get_columns(onlooker.table)) == 2
    assert inspector.get_indexes(onlooker.table) == []


async def test_the_table_of_an_older_version_is_refused_by_what_it_lacks(
    sessions: Sessions, onlooker: Onlooker
) -> None:
    make_altered(onlooker, sessions, binding=None, renewed_at=None)
    said = await refused(sessions)
    assert "is not ours: columns missing: binding, renewed_at. If" in said
    onlooker.run("DROP TABLE {}")
    await sessions.create_tables()


async def test_columns_of_another_kind_are_named_with_what_they_should_be(
    sessions: Sessions, onlooker: Onlooker, database_url: str
) -> None:
    other = OTHER_KINDS[kind(database_url)]
    for name, column in other.items():
        make_altered(onlooker, sessions, **{name: column})
        said = await refused(sessions)
        assert f"is not ours: columns of another kind: {name} " in said
        assert f" instead of {sessions.table.c[name].type.compile(onlooker.engine.dialect)}" in said
        assert "columns missing" not in said
        onlooker.run("DROP TABLE {}")
    make_altered(onlooker, sessions, **other)
    said = await refused(sessions)
    assert all(f"{name} " in said for name in other)


async def test_a_column_of_ours_that_must_not_be_empty_there_is_refused(
    sessions: Sessions, onlooker: Onlooker
) -> None:
    make_altered(onlooker, sessions, acr="VARCHAR(255) NOT NULL")
    said = await refused(sessions)
    assert "columns of another kind: acr " in said
    assert "NOT NULL instead of VARCHAR(255)" in said


@pytest.mark.parametrize("column", ["VARCHAR(9)", "VARCHAR(9) NOT NULL DEFAULT 'x'"])
async def test_columns_that_others_have_added_do_no_harm_unless_rows_need_them(
    sessions: Sessions, onlooker: Onlooker, column: str
) -> None:
    make_altered(onlooker, sessions, note=column)
    await sessions.create_tables()
    await entered(sessions, "ann")
    assert len(await sessions.list_sessions("ann")) == 1
    onlooker.run("DROP TABLE {}")
    make_altered(onlooker, sessions, note="VARCHAR(9) NOT NULL")
    assert "is not ours: columns that are not ours: note. If" in await refused(sessions)


async def test_wider_columns_and_texts_of_any_length_are_taken(
    sessions: Sessions, onlooker: Onlooker, database_url: str
) -> None:
    wide = {
        "sqlite": {"user_agent": "TEXT", "binding": ""},
        "postgresql": {"user_agent": "TEXT", "acr": "VARCHAR(300)", "amr": "VARCHAR"},
        "mysql": {"binding": "BLOB"},
    }
    make_altered(onlooker, sessions, **wide[kind(database_url)])
    await sessions.create_tables()
    await entered(sessions, "ann")
    assert len(await sessions.list_sessions("ann")) == 1


async def test_every_table_of_the_metadata_is_made_and_compared(
    sessions: Sessions, onlooker: Onlooker
) -> None:
    second = f"{sessions.table.name}_2"
    Table(second, sessions.metadata, Column("id", String(36)), Column("number", Integer))
    try:
        await sessions.create_tables()
        assert onlooker.count() == 0
        onlooker.run("DROP TABLE {}")
        onlooker.run(DJANGO)
        onlooker.run("ALTER TABLE {}_2 DROP COLUMN number")
        said = await refused(sessions)
        assert f"the table {sessions.table.name} in the database is not ours: columns" in said
        assert f"the table {second} in the database is not ours: columns missing: number." in said
    finally:
        onlooker.run("DROP TABLE {}_2")


# --- at first use ---------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["foreign", "older", "kinds"])
async def test_a_login_into_a_table_that_is_not_ours_says_so(
    sessions: Sessions, onlooker: Onlooker, database_url: str, broken: str
) -> None:
    differs = {"foreign": "session_key", "older": "renewed_at", "kinds": "id "}[broken]
    if broken == "foreign":
        onlooker.run(DJANGO)
    elif broken == "older":
        make_altered(onlooker, sessions, renewed_at=None)
    else:
        # SQLite takes anything for any other kind.
        make_altered(onlooker, sessions, id="INTEGER NOT NULL")
    with pytest.raises(ConfigurationError, match="is not ours") as caught:
        await Browser(make_app(sessions)).login("ann")
    assert differs in str(caught.value)
    assert caught.value.__cause__ is not None


async def test_whatever_asks_a_table_that_is_not_ours_says_so(
    sessions: Sessions, onlooker: Onlooker
) -> None:
    await sessions.create_tables()
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    onlooker.run("ALTER TABLE {} DROP COLUMN auth_provider")
    with pytest.raises(ConfigurationError, match="columns missing: auth_provider"):
        await browser.see()
    for asked in (
        sessions.get_by_id(sid),
        sessions.list_sessions("ann"),
        sessions.end_session_by_id(sid),
    ):
        with pytest.raises(ConfigurationError, match="columns missing: auth_provider"):
            await asked


async def test_a_table_that_is_missing_is_an_outage_that_tells_what_makes_it(
    sessions: Sessions, onlooker: Onlooker
) -> None:
    with pytest.raises(SessionsUnavailable) as caught:
        await sessions.list_sessions("ann")
    both = f"{sessions.table.name}, {sessions.table.name}_cutoffs"
    assert f"missing in it: table {both}; `await sessions.create_tables()`" in str(caught.value)
    await sessions.create_tables()
    assert await sessions.list_sessions("ann") == []


async def test_a_fault_of_something_else_says_nothing_of_tables(
    sessions: Sessions, onlooker: Onlooker
) -> None:
    make_altered(onlooker, sessions, note="VARCHAR(9), CHECK (person_id <> 'bob')")
    await sessions.create_tables()
    with pytest.raises(SessionsUnavailable) as caught:
        await entered(sessions, "bob")
    assert "table" not in str(caught.value)
    await entered(sessions, "ann")
    with onlooker.engine.connect() as connection:
        people = connection.scalars(text(f"SELECT person_id FROM {onlooker.table}")).all()  # noqa: S608
    assert people == ["ann"]


async def test_a_fault_whose_reason_cannot_be_asked_for_is_told_as_it_is(
    sessions: Sessions,
    onlooker: Onlooker,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    driver = type(driver_of(sessions))

    async def broken(*_: Any) -> NoReturn:
        raise OSError

    monkeypatch.setattr(driver, "columns", broken)
    with pytest.raises(SessionsUnavailable) as caught:
        await sessions.list_sessions("ann")
    assert caught.value.__cause__ is not None
    assert not isinstance(caught.value.__cause__, OSError)
    if kind(database_url) == "sqlite":
        assert str(caught.value.__cause__).startswith("no such table")
