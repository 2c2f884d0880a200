"""`asgi_sessions.testing`: a clock to turn, people who are logged in without a form."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from asgi_sessions import ConfigurationError, InvalidSession, Person, SessionEvent, Sessions
from asgi_sessions.testing import Clock, logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, make_app


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite's is enough: no statement of its own."""
    return f"sqlite:///{tmp_path}/sessions.db"


def test_a_clock_stands_still_until_it_is_turned() -> None:
    clock = Clock()
    start = clock()
    assert start.tzinfo is UTC
    assert clock() == clock.now == start
    clock.turn(timedelta(hours=1))
    assert clock() - start == timedelta(hours=1)
    clock.turn(timedelta(hours=-2))
    assert clock() - start == timedelta(hours=-1)
    clock.now = start
    assert clock() == start


def test_a_clock_starts_where_it_is_told() -> None:
    start = datetime(2030, 2, 28, 23, 59, tzinfo=UTC)
    assert Clock(start)() == start


async def test_a_cookie_makes_a_client_somebody(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    cookie = await logged_in_cookie(sessions, "ann")
    assert cookie.keys() == {sessions.cookie_name}
    browser.cookies.update(cookie)
    seen = await browser.see()
    (session,) = await sessions.list_sessions("ann")
    assert (seen["sid"], seen["person_id"]) == (session.sid, "ann")
    assert session.origin == "login"
    await browser.post("/logout")
    assert (await browser.see())["sid"] is None


def test_it_fits_a_client_that_is_not_async(tmp_path: Path) -> None:
    sessions = Sessions(f"sqlite:///{tmp_path}/plain.db", secret_key=KEY, cookie_secure=False)
    with TestClient(make_app(sessions)) as client:
        assert client.portal is not None
        client.portal.call(sessions.create_tables)
        client.cookies.update(client.portal.call(logged_in_cookie, sessions, {"id": 7}))
        assert client.get("/").json()["person_id"] == "7"
        client.portal.call(sessions.disconnect)


async def test_the_device_and_the_person_are_those_that_were_given(sessions: Sessions) -> None:
    person = Person("ann", auth_provider="google", amr=("otp",))
    await logged_in_cookie(
        sessions, person, user_agent="Fuchs 🦊", ip_address="192.0.2.9", remember=False
    )
    (session,) = await sessions.list_sessions("ann")
    assert (session.user_agent, session.ip_address) == ("Fuchs 🦊", "192.0.2.9")
    assert (session.auth_provider, session.amr, session.remember) == ("google", ("otp",), False)
    await logged_in_cookie(sessions, "bob")
    (session,) = await sessions.list_sessions("bob")
    assert (session.user_agent, session.ip_address) == ("testclient", None)


async def test_it_is_a_login_like_every_other(make_sessions: MakeSessions, clock: Clock) -> None:
    told: list[str] = []

    def tell(event: Any) -> None:
        assert isinstance(event, SessionEvent)
        told.append(f"{event.kind} {event.session.end_reason}")

    sessions = await make_sessions(on_event=tell, max_sessions_per_person=1)
    first = await logged_in_cookie(sessions, "ann")
    clock.turn(timedelta(hours=1))
    second = await logged_in_cookie(sessions, "ann")
    assert told == ["started None", "ended limit", "started None"]
    app = make_app(sessions)
    for cookie, reason in ((first, "limit"), (second, None)):
        browser = Browser(app)
        browser.cookies.update(cookie)
        assert (await browser.see())["reason"] == reason


@pytest.mark.parametrize(
    ("person", "error"), [({"name": "ann"}, ConfigurationError), ("", InvalidSession)]
)
async def test_nobody_is_refused(sessions: Sessions, person: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        await logged_in_cookie(sessions, person)
