"""Who a provider's people are here, and what of its words is on their rows."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from asgi_sessions import ConfigurationError, InvalidSession, Person, SessionMiddleware, Sessions
from tests.support import Browser, Clock, make_app
from tests.support.sso import ISSUER, Provider, key, log_out, public

SCOPE = {"type": "http", "headers": []}


async def words(sessions: Sessions, sid: str) -> tuple[Any, ...]:
    """What a row has of its provider's."""
    c = sessions.table.c
    asked = select(c.person_id, c.issuer, c.subject, c.provider_sid).where(c.id == sid)
    (row,) = await sessions.database.fetch_all(asked)
    return tuple(row._mapping.values())


async def test_a_login_keeps_the_providers_words(plain: Sessions, clock: Clock) -> None:
    claims = {
        "iss": ISSUER,
        "sub": "ada",
        "sid": "08a5019c-17e1-4977-8f42-65a12843ea02",
        "auth_time": clock.now.timestamp(),
    }
    mine = (ISSUER, "ada", claims["sid"])
    person = Person(7, issuer=ISSUER, subject="ada", provider_sid=str(claims["sid"]))
    for given in ({**claims, "id": 7}, SimpleNamespace(**claims, id=7), person):
        session = await plain.insert(SCOPE, given)
        assert await words(plain, session.sid) == ("7", *mine)
        assert session.authenticated_at == clock.now
    # A `Person` says which of the two it means; and without an issuer there is nobody to ask.
    for given in (Person(7, sid="x", issuer=ISSUER, subject="ada"), {"id": 7, "sid": "x"}):
        session = await plain.insert(SCOPE, given)
        assert (await words(plain, session.sid))[3] is None
    with pytest.raises(InvalidSession, match="provider_sid must have at most 255"):
        await plain.insert(SCOPE, {**claims, "id": 7, "sid": "x" * 256})


async def test_in_the_scope_a_sid_names_a_session_of_ours(plain: Sessions) -> None:
    """So that a provider's is on no row: an app that wants it there says so."""
    claims = {"iss": ISSUER, "sub": "ada", "sid": "phone"}
    seen = await Browser(make_app(plain)).see_as(7, **claims)
    assert await words(plain, seen["sid"]) == ("7", ISSUER, "ada", None)
    ours = {**claims, "sid": seen["sid"]}
    assert (await Browser(make_app(plain), agent="curl").see_as(7, **ours))["sid"] == seen["sid"]
    # not somebody else's, whoever says so
    stranger = await Browser(make_app(plain), agent="curl").see_as(8, **ours)
    assert stranger["sid"] != seen["sid"]


async def test_two_providers_never_share_a_person_by_accident(plain: Sessions) -> None:
    """In a login and in the scope alike (A7): what names its issuer needs an id of the app's."""
    for issuer in (ISSUER, "https://other.example"):
        claims = {"iss": issuer, "sub": "1"}
        with pytest.raises(ConfigurationError, match="sub alone"):
            await plain.insert(SCOPE, claims)
        with pytest.raises(ConfigurationError, match="sub alone"):
            await Browser(make_app(plain)).see(x_person=json.dumps(claims))
    assert await plain.list_sessions("1") == []


async def test_a_proxys_person_is_out_with_the_providers_word(
    plain: Sessions, clock: Clock
) -> None:
    """With what the app says of the session there, its cookie is worth nothing, too."""
    from asgi_sessions.oidc import BackChannelLogout

    def person(_: Any) -> Person:
        return Person(7, issuer=ISSUER, subject="ada", provider_sid="phone")

    app = SessionMiddleware(make_app(plain), sessions=plain, person=person)
    browser = Browser(app)
    assert (await browser.see())["sid"] is not None
    clock.turn(timedelta(seconds=1))
    logout = BackChannelLogout(plain, issuer=ISSUER, client_id="shop", keys=public(key()))
    assert (await log_out(logout, Provider(clock).logout_token(sid="phone"))).status_code == 200
    for one in (browser, Browser(app, agent="another")):
        assert (await one.get("/")).status_code == 401
    assert await plain.list_sessions(7) == []
