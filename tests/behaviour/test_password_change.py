"""A new password ends the other sessions, together with it or not at all: on each database."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, select
from sqlalchemy.schema import CreateTable, DropTable

from asgi_sessions import ALL_APPS, InvalidSession, Session, Sessions
from asgi_sessions.testing import logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Clock, make_app
from tests.support.engines import own_database, sync_engine


@pytest.fixture
async def people(sessions: Sessions, table_name: str) -> AsyncIterator[Table]:
    """The app's own table, in the same database, with Ann in it."""
    table = Table(
        table_name.replace("sessions", "people"),
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("password", String(50), nullable=False),
    )
    await sessions.connect()
    await sessions.database.execute(CreateTable(table))
    await sessions.database.execute(table.insert().values(id=7, password="old"))
    yield table
    await sessions.connect()
    await sessions.database.execute(DropTable(table))


async def live(sessions: Sessions, person: object = 7) -> set[str]:
    return {session.sid for session in await sessions.list_sessions(person)}


async def log_in(sessions: Sessions, *people: object) -> list[Session]:
    scope = {"type": "http", "headers": []}
    return [await sessions.insert(scope, person) for person in people]


async def change(sessions: Sessions, people: Table, keep: str, *, fails: bool = False) -> None:
    """What an app does, in a transaction of its own."""
    async with sessions.database.transaction():
        await sessions.database.execute(people.update().values(password="new"))
        await sessions.database.execute(sessions.end_all_statement(7, except_sid=keep))
        if fails:
            raise RuntimeError("the power is out")


async def password(sessions: Sessions, people: Table) -> Any:
    return await sessions.database.fetch_val(select(people.c.password))


async def test_the_others_end_with_the_old_password(
    sessions: Sessions, people: Table, clock: Clock
) -> None:
    mine, phone, laptop, bob = await log_in(sessions, 7, 7, 7, "bob")
    clock.turn(timedelta(minutes=1))
    await change(sessions, people, mine.sid)
    assert await password(sessions, people) == "new"
    assert await live(sessions) == {mine.sid}
    assert await live(sessions, "bob") == {bob.sid}
    for ended in (phone, laptop):
        now = await sessions.get_by_id(ended.sid)
        assert now is not None
        assert (now.ended_at, now.end_reason) == (clock.now, "revoked")


async def test_if_the_transaction_fails_nothing_has_happened(
    sessions: Sessions, people: Table
) -> None:
    mine, phone = await log_in(sessions, 7, 7)
    with suppress(RuntimeError):
        await change(sessions, people, mine.sid, fails=True)
    assert await password(sessions, people) == "old"
    assert await live(sessions) == {mine.sid, phone.sid}


async def test_a_browser_is_out_at_its_next_request(sessions: Sessions, people: Table) -> None:
    app = make_app(sessions)
    here, phone = Browser(app), Browser(app)
    here.cookies.update(await logged_in_cookie(sessions, 7))
    phone.cookies.update(await logged_in_cookie(sessions, 7))
    await change(sessions, people, (await here.see())["sid"])
    assert (await phone.see())["reason"] == "revoked"
    assert (await here.see())["person_id"] == "7"


async def test_a_device_without_a_cookie_makes_room_for_its_next_session(
    sessions: Sessions, clock: Clock
) -> None:
    app = make_app(sessions)
    first = await Browser(app).see_as(7)
    await sessions.database.execute(sessions.end_all_statement(7))
    assert (await Browser(app).see_as(7))["reason"] == "revoked"
    clock.turn(timedelta(minutes=1))
    again = await Browser(app).see_as(7, auth_time=clock.now.timestamp())
    assert again["sid"] not in (None, first["sid"])


async def test_what_has_ended_keeps_its_end_and_other_apps_their_sessions(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions()
    shop = await make_sessions(app_id="shop")
    ended, idle = await log_in(sessions, 7, 7)
    browser = Browser(make_app(shop))
    sid = await browser.login("7")
    await sessions.end_session_by_id(ended.sid, reason="left")
    clock.turn(timedelta(days=13))
    assert (await browser.see())["sid"] == sid
    clock.turn(timedelta(days=2))  # longer than the idle timeout
    (fresh,) = await log_in(sessions, 7)

    statement = sessions.end_all_statement(7, app_id="default", reason="new password")
    await sessions.database.execute(statement)
    known = await sessions.list_sessions(7, app_id=ALL_APPS, include_ended=True)
    reasons = {one.sid: one for one in known}
    assert {sid: one.end_reason for sid, one in reasons.items()} == {
        ended.sid: "left",
        idle.sid: "expired",
        fresh.sid: "new password",
        sid: None,
    }
    await sessions.database.execute(sessions.end_all_statement(7, app_id=ALL_APPS))
    assert await live(sessions) == set()


@pytest.mark.parametrize(
    ("arguments", "options"),
    [([""], {}), ([None], {}), ([7], {"reason": "x" * 51}), ([7], {"app_id": ""})],
)
def test_what_cannot_be_stored_is_refused(arguments: Sequence[Any], options: Any) -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY)
    with pytest.raises(InvalidSession):
        sessions.end_all_statement(*arguments, **options)


async def test_the_statement_runs_in_sqlalchemy_too(
    database_url: str, tmp_path: Path, clock: Clock
) -> None:
    with own_database(database_url, tmp_path) as url:
        engine = sync_engine(url).execution_options(isolation_level="SERIALIZABLE")
        async with Sessions(url, secret_key=KEY, clock=clock) as sessions:
            await sessions.create_tables()
            mine, _, _ = await log_in(sessions, 7, 7, 7)
            with engine.begin() as connection:
                statement = sessions.end_all_statement(7, except_sid=mine.sid)
                assert connection.execute(statement).rowcount == 2
                connection.rollback()
            assert len(await live(sessions)) == 3
            with engine.begin() as connection:
                connection.execute(statement)
            assert await live(sessions) == {mine.sid}
