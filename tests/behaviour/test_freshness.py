"""Step-up: when and how a person was authenticated, and what may say so."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import InvalidSession, Session, Sessions
from tests.support import Browser, Clock, make_app, vouched

HOUR = timedelta(hours=1)


async def only(sessions: Sessions, person: str = "ann") -> Session:
    (session,) = await sessions.list_sessions(person)
    return session


def step_up(sessions: Sessions) -> Route:
    """A route that renews with what it is told."""

    async def renew(request: Request) -> Response:
        session = await sessions.renew_session(request, **await request.json())
        return JSONResponse(session and [session.acr, session.amr])

    return Route("/step-up", renew, methods=["POST"])


# --- how: acr and amr -----------------------------------------------------------------------------


async def test_how_a_person_was_authenticated_is_kept_if_they_bring_it(sessions: Sessions) -> None:
    scope = {"type": "http", "headers": []}
    session = await sessions.insert(
        scope, {"sub": "ann", "acr": "urn:example:gold", "amr": ["pwd", "otp"]}
    )
    assert (session.acr, session.amr) == ("urn:example:gold", ("pwd", "otp"))
    assert await sessions.get_by_id(session.sid) == session
    plain = await sessions.insert(scope, "bob")
    assert (plain.acr, plain.amr) == (None, ())
    assert await sessions.get_by_id(plain.sid) == plain


async def test_how_is_read_from_whom_another_layer_vouches_for(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    first = await browser.see_as("ann", acr="1", amr=["pwd"])
    session = await only(sessions)
    assert (session.acr, session.amr) == ("1", ("pwd",))
    # The session is what it was when it started, whatever a later token says.
    assert (await browser.see_as("ann", acr="2", amr=["otp"]))["sid"] == first["sid"]
    assert await only(sessions) == session


async def test_a_person_whose_assurance_cannot_be_stored_is_not_let_in(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    assert await browser.see_as("ann", amr=["p" * 256]) == {
        **dict.fromkeys(["sid", "person_id", "reason"]),
        "user": False,
    }
    with pytest.raises(InvalidSession, match="acr must have at most 255 characters"):
        await sessions.insert({"type": "http", "headers": []}, {"id": "ann", "acr": "x" * 256})
    assert await sessions.list_sessions("ann") == []


async def test_a_second_factor_is_noted_by_the_renewal_that_follows(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(sessions, step_up(sessions)))
    await browser.login("ann")
    steps: list[tuple[dict[str, Any], list[Any]]] = [
        ({}, [None, []]),
        ({"acr": "1", "amr": ["pwd"]}, ["1", ["pwd"]]),
        ({"acr": "2", "amr": ["pwd", "otp"]}, ["2", ["pwd", "otp"]]),
        ({}, ["2", ["pwd", "otp"]]),  # what is not said stays
        ({"acr": "3"}, ["3", ["pwd", "otp"]]),
        ({"amr": ["hwk"]}, ["3", ["hwk"]]),
    ]
    for given, expected in steps:
        clock.turn(HOUR)
        assert (await browser.post("/step-up", json=given)).json() == expected
        session = await only(sessions)
        assert [session.acr, list(session.amr)] == expected
        assert session.authenticated_at == clock.now


async def test_a_renewal_with_what_cannot_be_stored_changes_nothing(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(sessions, step_up(sessions)))
    await browser.login("ann")
    before, cookie = await only(sessions), browser.cookies[sessions.cookie_name]
    clock.turn(timedelta(seconds=1))
    for given in ({"acr": "x" * 256}, {"amr": ["one time"]}):
        with pytest.raises(InvalidSession):
            await browser.post("/step-up", json=given)
    assert await only(sessions) == before
    assert browser.cookies[sessions.cookie_name] == cookie


# --- when: authenticated_at -----------------------------------------------------------------------


async def test_a_login_and_a_renewal_are_proofs(sessions: Sessions, clock: Clock) -> None:
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    assert (await only(sessions)).authenticated_at == clock.now
    clock.turn(HOUR)
    await browser.post("/renew")
    assert (await only(sessions)).authenticated_at == clock.now


def renew_at(sessions: Sessions) -> Route:
    """A route that renews with the moment that it is told."""

    async def renew(request: Request) -> Response:
        moment = datetime.fromisoformat((await request.json())["at"])
        await sessions.renew_session(request, acr="2", authenticated_at=moment)
        return Response(status_code=204)

    return Route("/proved", renew, methods=["POST"])


async def test_a_renewal_is_dated_by_whoever_saw_the_proof_but_never_later_than_now(
    plain: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(plain, renew_at(plain)))
    await browser.login("ann")
    started = clock.now
    clock.turn(HOUR)
    for proved, kept in (
        (clock.now - timedelta(minutes=1), clock.now - timedelta(minutes=1)),
        (clock.now + timedelta(minutes=5), clock.now),  # their clock is ahead
        (started - HOUR, started - HOUR),  # nothing was asked anew: no longer fresh
    ):
        await browser.post("/proved", json={"at": proved.isoformat()})
        session = await only(plain)
        assert (session.acr, session.authenticated_at) == ("2", kept)


@pytest.mark.parametrize("ahead", [timedelta(minutes=5, seconds=1), None], ids=["ahead", "naive"])
async def test_a_renewal_of_no_possible_moment_changes_nothing(
    plain: Sessions, clock: Clock, ahead: timedelta | None
) -> None:
    browser = Browser(make_app(plain, renew_at(plain)))
    await browser.login("ann")
    before, cookie = await only(plain), browser.cookies[plain.cookie_name]
    moment = clock.now.replace(tzinfo=None) if ahead is None else clock.now + ahead
    with pytest.raises(InvalidSession, match=r"authenticated_at must .*(ahead|aware)"):
        await browser.post("/proved", json={"at": moment.isoformat()})
    assert await only(plain) == before
    assert browser.cookies[plain.cookie_name] == cookie


Step = Callable[[Sessions, Browser], Awaitable[object]]


async def end_another(sessions: Sessions, browser: Browser) -> None:
    other = await sessions.insert({"type": "http", "headers": []}, "ann")
    await sessions.end_session_by_id(other.sid, person_id="ann")


#: Everything else that an app, a browser or another layer does to a session that lives.
STEPS: dict[str, Step] = {
    "a request": lambda _, browser: browser.see(),
    "HEAD": lambda _, browser: browser.head("/"),
    "OPTIONS": lambda _, browser: browser.options("/"),
    "another user agent": lambda _, browser: browser.see(user_agent="Chrome"),
    "another layer": lambda _, browser: browser.see_as("ann"),
    "a refreshed token": lambda _, browser: browser.see_as("ann", iat=1893456000),
    "a token of a later login": lambda _, browser: browser.see_as("ann", auth_time=1893456000),
    "a better token": lambda _, browser: browser.see_as("ann", acr="9", amr=["hwk"]),
    "end others": lambda _, browser: browser.post("/end-others"),
    "end one other": end_another,
    "a list": lambda sessions, _: sessions.list_sessions("ann"),
    "get_by_id": lambda sessions, browser: sessions.get_by_id(
        browser.cookies[sessions.cookie_name].partition(".")[0]
    ),
    "purge": lambda sessions, _: sessions.purge(),
    "create_tables": lambda sessions, _: sessions.create_tables(),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("origin", ["login", "scope"])
async def test_nothing_else_is_a_proof(
    sessions: Sessions, clock: Clock, origin: str, step: str
) -> None:
    browser = Browser(make_app(sessions))
    if origin == "login":
        await browser.login("ann")
    else:
        await browser.see_as("ann", auth_time=clock.now.timestamp())
    before = await only(sessions)
    assert before.authenticated_at == clock.now
    for _ in range(2):
        clock.turn(HOUR)  # so that each request is written down
        await STEPS[step](sessions, browser)
    after = await only(sessions)
    assert after.sid == before.sid
    assert after.authenticated_at == before.authenticated_at
    assert (after.acr, after.amr) == (before.acr, before.amr)


async def test_a_renewal_that_comes_second_moves_nothing(sessions: Sessions, clock: Clock) -> None:
    app = make_app(sessions)
    browser, twin = Browser(app), Browser(app)
    await browser.login("ann")
    twin.cookies.update(browser.cookies)
    await browser.post("/renew")
    proof = (await only(sessions)).authenticated_at
    clock.turn(timedelta(seconds=30))
    await twin.post("/renew")  # the second click of the same form
    assert (await only(sessions)).authenticated_at == proof


async def test_an_end_keeps_when_and_how(sessions: Sessions, clock: Clock) -> None:
    browser = Browser(make_app(sessions, step_up(sessions)))
    await browser.login("ann")
    await browser.post("/step-up", json={"acr": "2", "amr": ["otp"]})
    proof = clock.now
    clock.turn(HOUR)
    await browser.post("/logout")
    (ended,) = await sessions.list_sessions("ann", include_ended=True)
    assert ended.end_reason == "logout"
    assert (ended.authenticated_at, ended.acr, ended.amr) == (proof, "2", ("otp",))


async def test_a_person_of_whom_nobody_said_when_is_not_fresh(sessions: Sessions) -> None:
    async def fresh(request: Request) -> Response:
        return JSONResponse(sessions.is_fresh(request, timedelta(days=9999)))

    app = make_app(sessions, Route("/fresh", fresh))
    seconds = 1767225600
    for facts, expected in ({}, False), ({"auth_time": 0}, False), ({"auth_time": seconds}, True):
        browser = Browser(app, agent=str(facts))
        answer = await browser.get("/fresh", headers=vouched("ann", **facts))
        assert answer.json() is expected
    assert (await Browser(app).get("/fresh")).json() is False
