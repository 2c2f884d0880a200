"""Staff act for people: on a session that is marked, bounded, and tied to their own."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from asgi_sessions import (
    AAL3,
    ConfigurationError,
    ImpersonationRefused,
    Incident,
    InvalidSession,
    SessionData,
    SessionEvent,
    SessionMiddleware,
    Sessions,
    SessionsUnavailable,
)
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, cookie_of, make_app, see_with, set_cookies, vouched
from tests.support.acting import acting_routes
from tests.support.asgi import ENDED, Peer, echo, reasons, websocket
from tests.support.data import data_of
from tests.support.engines import run
from tests.support.inside import check_what_is_open, open_sids, settled, store_of

ANN, STAFF = "ann", "staff"
ANN_PERSON = {"id": ANN}
ACTOR = ("actor_id", "actor_reason")


def app_of(sessions: Sessions, *extra: Route | Mount) -> Any:
    return make_app(sessions, *acting_routes(sessions), *extra)


async def acting(sessions: Sessions, *extra: Route | Mount) -> tuple[Browser, str, str]:
    """A browser in which staff act for Ann: it, the sid in which they do, and that of their own."""
    browser = Browser(app_of(sessions, *extra))
    own = await browser.login(STAFF)
    answer = (await browser.post(f"/act?person={ANN}")).json()
    assert answer["person_id"] == ANN
    return browser, answer["sid"], own


async def ended_as(sessions: Sessions, sid: str) -> str | None:
    session = await sessions.get_by_id(sid)
    assert session is not None
    return session.end_reason


# --- into it, and back ----------------------------------------------------------------------------


async def test_staff_go_over_into_a_marked_session_and_come_back(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(app_of(sessions))
    own = await browser.login(STAFF)
    old_cookie = cookie_of(browser, sessions)

    response = await browser.post(f"/act?person={ANN}&minutes=30")

    session = await sessions.get_by_id(response.json()["sid"])
    assert session is not None
    assert (session.person_id, session.actor_id, session.actor_reason) == (ANN, STAFF, "ticket 7")
    assert (session.authenticated_at, session.acr, session.amr) == (None, None, ())
    assert session.expires_at == clock.now + timedelta(minutes=30)
    (cookie,) = set_cookies(response)
    assert "Max-Age=1800;" in cookie
    seen = await browser.see()
    assert (seen["sid"], seen["person_id"]) == (session.sid, ANN)
    acting_cookie = cookie_of(browser, sessions)
    clock.turn(timedelta(minutes=10))

    back = (await browser.post("/back")).json()

    assert back == {"sid": own, "person_id": STAFF, "actor_id": None}
    assert (await browser.see())["sid"] == own
    assert await ended_as(sessions, session.sid) == "actor_left"
    seen = await see_with(app_of(sessions), sessions, acting_cookie)
    assert (seen["sid"], seen["reason"]) == (None, "actor_left")
    # A copy of the cookie from before is a stolen one now, as after any renewal.
    seen = await see_with(app_of(sessions), sessions, old_cookie)
    assert (seen["sid"], seen["reason"]) == (None, "reuse")


async def test_while_they_act_their_own_cookie_is_worth_nothing_and_ends_nothing(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(app_of(sessions))
    own = await browser.login(STAFF)
    old_cookie = cookie_of(browser, sessions)
    await browser.post(f"/act?person={ANN}")
    for minutes in (0, 2, 20):
        clock.turn(timedelta(minutes=minutes))
        seen = await see_with(app_of(sessions), sessions, old_cookie)
        assert (seen["sid"], seen["reason"]) == (None, "waiting")
        assert (await browser.see())["person_id"] == ANN
    # Of several cookies, the one that opens a session counts.
    seen = await see_with(app_of(sessions), sessions, old_cookie, cookie_of(browser, sessions))
    assert seen["person_id"] == ANN
    assert await ended_as(sessions, own) is None


async def test_a_request_that_was_under_way_is_served_and_is_no_theft(sessions: Sessions) -> None:
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        begun.set()
        await go_on.wait()
        return JSONResponse(request.state.sid)

    browser = Browser(app_of(sessions, Route("/slow", slow)))
    own = await browser.login(STAFF)
    old_cookie = cookie_of(browser, sessions)
    slowly = asyncio.create_task(browser.get("/slow"))
    await begun.wait()
    acting_browser = Browser(app_of(sessions))
    acting_browser.cookies.set(sessions.cookie_name, old_cookie)
    await acting_browser.post(f"/act?person={ANN}")
    go_on.set()
    response = await slowly
    assert (response.json(), set_cookies(response)) == (own, [])
    # They are back within a minute; what was under way since before is a bridge.
    await acting_browser.post("/back")
    assert (await see_with(app_of(sessions), sessions, old_cookie))["sid"] == own
    assert (await acting_browser.see())["sid"] == own
    assert await reasons(sessions, STAFF) == [None]


async def test_acting_is_no_login_of_the_persons(make_sessions: MakeSessions) -> None:
    """It counts for no limit, ends nothing of theirs, and makes no device known."""
    told: list[SessionEvent] = []

    def tell(event: SessionEvent | Incident) -> None:
        assert isinstance(event, SessionEvent)
        told.append(event)

    sessions = await make_sessions(max_sessions_per_person=1, on_event=tell)
    phone = Browser(app_of(sessions), agent="Safari")
    first = await phone.login(ANN)
    _, sid, _ = await acting(sessions)
    assert (await phone.see())["sid"] == first
    # From the browser of the staff, which Ann has never used, and whose cookie is one of hers.
    browser = Browser(app_of(sessions))
    await browser.login(ANN)
    assert told[-1].new_device
    assert (await phone.see())["reason"] == "limit"
    assert await ended_as(sessions, sid) is None
    started = next(event for event in told if event.session.sid == sid)
    assert (started.kind, started.new_device) == ("started", False)
    assert (started.session.actor_id, started.session.actor_reason) == (STAFF, "ticket 7")


async def test_many_logins_over_the_limit_end_no_impersonation(
    make_sessions: MakeSessions,
) -> None:
    unlimited = await make_sessions()
    _, sid, _ = await acting(unlimited)
    scope = {"type": "http", "headers": []}
    for _ in range(130):  # more than a login ends by itself
        await unlimited.insert(scope, ANN_PERSON)
    limited = await make_sessions(max_sessions_per_person=1)
    await limited.insert(scope, ANN_PERSON)
    await settled(limited)
    live = await limited.list_sessions(ANN)
    assert len(live) == 2
    assert sid in {session.sid for session in live}


async def test_nothing_is_proved_and_nothing_is_renewed(plain: Sessions) -> None:
    async def fresh(request: Request) -> Response:
        for renew in (plain.renew_session, plain.rotate_session):
            with pytest.raises(ImpersonationRefused, match="not renewed") as caught:
                await renew(request)
            assert caught.value.reason == "not_renewable"
        return JSONResponse(plain.is_fresh(request, timedelta(days=400)))

    browser, sid, _ = await acting(plain, Route("/fresh", fresh))
    response = await browser.get("/fresh")
    assert response.json() is False
    assert set_cookies(response) == []
    assert (await browser.see())["sid"] == sid


async def test_without_an_impersonation_there_is_nothing_to_stop(plain: Sessions) -> None:
    browser = Browser(app_of(plain))
    assert (await browser.post("/back")).json() == {"sid": None}
    sid = await browser.login(STAFF)
    response = await browser.post("/back")
    assert (response.json()["sid"], set_cookies(response)) == (sid, [])


async def test_a_way_back_whose_answer_was_lost_is_gone_once_more(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, sid, own = await acting(sessions)
    # Private: nothing public has the database do what it has done and not been heard to have done.
    store = store_of(sessions).acting
    go_back = store.go_back

    async def go_back_again(*args: Any, **options: Any) -> Any:
        await go_back(*args, **options)
        return await go_back(*args, **options)

    monkeypatch.setattr(store, "go_back", go_back_again)
    assert (await browser.post("/back")).json()["sid"] == own
    assert (await browser.see())["person_id"] == STAFF
    assert await ended_as(sessions, sid) == "actor_left"


async def test_it_can_be_had_again_and_again(plain: Sessions) -> None:
    browser = Browser(app_of(plain))
    own = await browser.login(STAFF)
    for person in (ANN, "bob"):
        assert (await browser.post(f"/act?person={person}")).json()["person_id"] == person
        assert (await browser.post("/back")).json()["sid"] == own
    assert await reasons(plain, STAFF) == [None]


# --- who may not ----------------------------------------------------------------------------------


async def test_who_may_not_is_told_why(plain: Sessions, clock: Clock) -> None:
    async def refused(browser: Browser, **headers: str) -> str:
        response = await browser.post(f"/act?person={ANN}", headers=headers)
        assert response.status_code == 403
        reason: str = response.json()["refused"]
        return reason

    assert await refused(Browser(app_of(plain))) == "no_session"
    # Another layer vouches for them; or for somebody beside their own login.
    assert await refused(Browser(app_of(plain)), **vouched(STAFF)) == "not_a_login"
    browser = Browser(app_of(plain))
    sid = await browser.login(STAFF)
    assert await refused(browser, **vouched(STAFF)) == "not_a_login"
    # The cookie from before a renewal has proved nothing.
    old = cookie_of(browser, plain)
    await browser.post("/renew")
    late = Browser(app_of(plain))
    late.cookies.set(plain.cookie_name, old)
    assert await refused(late) == "not_fresh"
    clock.turn(timedelta(minutes=15, microseconds=1))
    assert await refused(browser) == "not_fresh"
    await browser.post("/renew")
    assert (await browser.post(f"/act?person={STAFF}")).json()["refused"] == "self"
    # Within the 15 minutes, to the last.
    clock.turn(timedelta(minutes=15))
    await browser.post("/act?person=bob")
    assert await refused(browser) == "acting"
    assert await ended_as(plain, sid) is None


async def test_a_login_of_the_same_request_is_not_yet_with_the_browser(plain: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await plain.start_session(scope, {"id": STAFF})
        with pytest.raises(ImpersonationRefused) as caught:
            await plain.impersonate(scope, ANN_PERSON, reason="ticket 7")
        assert caught.value.reason == "not_a_login"
        await JSONResponse(plain.current(scope) is not None)(scope, receive, send)

    response = await Browser(SessionMiddleware(app, sessions=plain)).get("/")
    assert response.json() is True
    assert len(set_cookies(response)) == 1


async def test_a_renewal_of_the_same_request_is_fresh_enough(plain: Sessions, clock: Clock) -> None:
    """The staff say their password on the page on which they choose the person."""

    async def confirm(request: Request) -> Response:
        await plain.renew_session(request)
        await plain.impersonate(request, ANN_PERSON, reason="ticket 7")
        return Response(status_code=int(request.query_params["status"]))

    browser = Browser(app_of(plain, Route("/confirm", confirm)))
    own = await browser.login(STAFF)
    clock.turn(timedelta(hours=1))
    # The answer fails: the browser has its old cookie, which is good again.
    assert (await browser.get("/confirm?status=500")).status_code == 500
    assert (await browser.see())["sid"] == own
    assert (await browser.get("/confirm?status=204")).status_code == 204
    assert (await browser.see())["person_id"] == ANN


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(hours=12, microseconds=1), 60, None])
async def test_a_lifetime_that_cannot_be_one_is_refused(plain: Sessions, lifetime: Any) -> None:
    scope: Any = await scope_of_staff(plain)
    with pytest.raises(ConfigurationError, match="at most 12 hours"):
        await plain.impersonate(scope, ANN_PERSON, reason="ticket 7", lifetime=lifetime)


@pytest.mark.parametrize("reason", ["", " ", "x" * 256, "a\nb", None, 7])
async def test_a_reason_that_says_nothing_or_too_much_is_refused(
    plain: Sessions, reason: Any
) -> None:
    scope: Any = await scope_of_staff(plain)
    with pytest.raises(InvalidSession) as caught:
        await plain.impersonate(scope, ANN_PERSON, reason=reason)
    assert [*caught.value.errors] == ["actor_reason"]
    assert len(await plain.list_sessions(STAFF)) == 1


async def scope_of_staff(sessions: Sessions) -> Scope:
    """The scope of a request of theirs, as a handler gets it."""
    scopes: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scopes.append(scope)
        await Response()(scope, receive, send)

    browser = Browser(app_of(sessions))
    await browser.login(STAFF)
    inner = Browser(SessionMiddleware(app, sessions=sessions))
    inner.cookies.set(sessions.cookie_name, cookie_of(browser, sessions))
    await inner.get("/")
    sessions._context(scopes[0]).responding = False  # as before its response
    return scopes[0]


# --- both end together ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["end", "end_all", "statement", "purged", "absolute"])
async def test_it_ends_with_the_session_of_whoever_acts(
    make_sessions: MakeSessions, clock: Clock, how: str
) -> None:
    """At the very next request, in every process, however theirs has ended."""
    sessions, elsewhere = await make_sessions(), await make_sessions()
    browser, sid, own = await acting(sessions)
    here = Browser(app_of(sessions))
    here.cookies = browser.cookies
    reason = "actor_left"
    match how:
        case "end":
            await elsewhere.end_session_by_id(own)
            assert await ended_as(sessions, sid) == reason  # already
        case "end_all":
            assert await elsewhere.end_all_sessions(STAFF) == 1
            assert await ended_as(sessions, sid) == reason
        case "statement":
            await run(elsewhere, elsewhere.end_all_statement(STAFF))
            assert await ended_as(sessions, sid) is None  # nobody has been told
        case "purged":
            await run(elsewhere, elsewhere.end_all_statement(STAFF))
            await run(elsewhere, elsewhere.table.delete().where(elsewhere.table.c.id == own))
        case "absolute":
            reason = "expired"
            clock.turn(timedelta(hours=1))

    seen = await here.see()

    assert (seen["sid"], seen["reason"]) == (None, reason)
    assert await ended_as(sessions, sid) == reason


async def test_it_lasts_no_longer_than_their_own_and_keeps_that_from_idling(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(lifetimes=AAL3)  # 12 hours, 15 minutes idle
    browser = Browser(app_of(sessions))
    own = await browser.login(STAFF)
    for _ in range(66):
        clock.turn(timedelta(minutes=10))
        assert (await browser.see())["sid"] == own
    await browser.post("/renew")
    sid = (await browser.post(f"/act?person={ANN}&minutes=120")).json()["sid"]
    for _ in range(5):
        clock.turn(timedelta(minutes=10))
        assert (await browser.see())["sid"] == sid
    session = await sessions.get_by_id(own)
    assert session is not None
    assert session.live(clock.now)
    clock.turn(timedelta(minutes=10))  # 12 hours since the login
    assert (await browser.see())["sid"] is None
    assert await ended_as(sessions, own) == "expired"


@pytest.mark.parametrize("how", ["logout", "revoked", "replaced", "expired", "purged"])
async def test_their_own_ends_with_it_unless_they_go_back(
    sessions: Sessions, clock: Clock, how: str
) -> None:
    browser, sid, own = await acting(sessions)
    match how:
        case "logout":
            response = await browser.post("/end-session")
            assert "Max-Age=0" in set_cookies(response)[0]
        case "revoked":
            await sessions.end_session_by_id(sid, person_id=ANN)
        case "replaced":
            await browser.login("bob")
        case "expired":
            clock.turn(timedelta(hours=1))
            assert (await browser.see())["reason"] == "expired"
        case "purged":  # the cookie has run out, too, so that nobody comes with it
            clock.turn(timedelta(hours=1))
            assert await sessions.purge() == 0
            how = "expired"
    assert await ended_as(sessions, sid) == how
    assert await ended_as(sessions, own) == how
    assert (await browser.post("/back")).json()["sid"] != own


async def test_a_browser_that_never_got_the_answer_logs_in_over_what_waits(
    plain: Sessions,
) -> None:
    browser = Browser(app_of(plain))
    await browser.login(STAFF)
    old_cookie = cookie_of(browser, plain)
    await browser.post(f"/act?person={ANN}")
    browser.cookies.clear()
    browser.cookies.set(plain.cookie_name, old_cookie)
    assert (await browser.post("/back")).json() == {"sid": None}
    await browser.login(STAFF)
    assert await reasons(plain, STAFF) == [None, "replaced"]
    assert await reasons(plain, ANN) == ["actor_left"]


async def test_an_answer_that_fails_leaves_everything_as_it_was(sessions: Sessions) -> None:
    browser = Browser(app_of(sessions))
    own = await browser.login(STAFF)
    response = await browser.post(f"/act?person={ANN}&status=500")
    assert set_cookies(response) == []
    assert (await browser.see())["sid"] == own
    assert await reasons(sessions, ANN) == ["not_delivered"]
    assert (await browser.post(f"/act?person={ANN}")).json()["person_id"] == ANN
    # The way back, which is a login: it has to reach somebody, too.
    response = await browser.post("/back?status=500")
    assert set_cookies(response) == []
    assert (await browser.see())["reason"] == "actor_left"
    assert await ended_as(sessions, own) == "not_delivered"


async def test_an_end_that_nobody_could_pass_on_is_found_at_the_next_request(
    plain: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser, sid, own = await acting(plain)
    store = store_of(plain)
    end = store.end

    async def once(some: str, **how: Any) -> Any:
        if some == sid:
            raise SessionsUnavailable("away")
        return await end(some, **how)

    with monkeypatch.context() as away:
        away.setattr(store, "end", once)
        await plain.end_session_by_id(own)
    assert await ended_as(plain, sid) is None
    assert (await browser.see())["reason"] == "actor_left"
    assert await ended_as(plain, sid) == "actor_left"


async def test_a_session_that_ended_while_it_was_asked_for_is_not_acted_from(
    plain: Sessions,
) -> None:
    async def late(request: Request) -> Response:
        await plain.end_session_by_id(request.state.sid)
        with pytest.raises(ImpersonationRefused) as caught:
            await plain.impersonate(request, ANN_PERSON, reason="ticket 7")
        assert caught.value.reason == "no_session"
        return JSONResponse(plain.current(request))

    browser = Browser(app_of(plain, Route("/late", late)))
    await browser.login(STAFF)
    response = await browser.get("/late")
    assert (response.json(), set_cookies(response)) == (None, [])
    assert await plain.list_sessions(ANN, include_ended=True) == []


@pytest.mark.parametrize("alone", [True, False])
async def test_there_is_no_way_back_into_what_has_ended_meanwhile(
    plain: Sessions, *, alone: bool
) -> None:
    async def late(request: Request) -> Response:
        if alone:
            await run(plain, plain.end_all_statement(STAFF))
        else:
            await plain.end_all_sessions(STAFF)
        assert await plain.stop_impersonating(request) is None
        return JSONResponse(plain.current(request))

    browser, sid, own = await acting(plain, Route("/late", late))
    response = await browser.get("/late")
    assert (response.json(), set_cookies(response)) == (None, [])
    assert await ended_as(plain, sid) == "actor_left"
    assert await ended_as(plain, own) == "revoked"


# --- attacks --------------------------------------------------------------------------------------


async def test_no_other_layer_and_no_other_cookie_gets_into_it(plain: Sessions) -> None:
    browser, sid, own = await acting(plain)
    cookie = cookie_of(browser, plain)
    # Another person in the scope ends it, as any session.
    seen = await browser.see_as("bob")
    assert seen["person_id"] == "bob"
    assert await ended_as(plain, sid) == await ended_as(plain, own) == "person_changed"
    for tampered in (f"{own}{cookie[36:]}", f"{cookie[:-1]}{'A' if cookie[-1] != 'A' else 'B'}"):
        assert (await see_with(app_of(plain), plain, tampered))["sid"] is None


async def test_a_row_that_claims_another_session_is_dead(plain: Sessions) -> None:
    """Whoever may write rows could mark one; a look-up believes the session that waits."""
    browser, sid, _ = await acting(plain)
    other = await Browser(app_of(plain)).login(STAFF)
    table = plain.table
    await run(plain, table.update().where(table.c.id == sid).values(actor_sid=other))
    assert (await browser.see())["reason"] == "actor_left"
    assert (await browser.post("/back")).json() == {"sid": None}
    assert await ended_as(plain, other) is None


async def test_the_cookie_after_the_way_back_gets_nothing(plain: Sessions) -> None:
    browser, _, own = await acting(plain)
    thief = Browser(app_of(plain), agent="curl")
    thief.cookies.set(plain.cookie_name, cookie_of(browser, plain))
    await browser.post("/back")
    response = await thief.post("/back")
    assert (response.json(), set_cookies(response)) == ({"sid": None}, [])
    assert (await browser.see())["sid"] == own


async def test_a_superseded_secret_of_theirs_is_a_theft_only_after_they_are_back(
    plain: Sessions, clock: Clock
) -> None:
    browser = Browser(app_of(plain))
    own = await browser.login(STAFF)
    stolen = cookie_of(browser, plain)
    await browser.post("/renew")
    await browser.see()
    await browser.post(f"/act?person={ANN}")
    clock.turn(timedelta(minutes=5))
    assert (await see_with(app_of(plain), plain, stolen))["reason"] == "waiting"
    await browser.post("/back")
    assert (await see_with(app_of(plain), plain, stolen))["reason"] == "reuse"
    assert await ended_as(plain, own) == "reuse"


# --- what is open in it ---------------------------------------------------------------------------


@pytest.mark.parametrize("told", [True, False])
async def test_what_is_open_in_it_ends_with_either(plain: Sessions, *, told: bool) -> None:
    browser, sid, own = await acting(plain)
    cookie = f"{plain.cookie_name}={cookie_of(browser, plain)}"
    async with Peer(SessionMiddleware(echo, sessions=plain), websocket(cookie=cookie)) as peer:
        await peer.gets()
        assert (await peer.gets())["text"] == sid
        assert {*open_sids(plain)} == {own, sid}
        await check_what_is_open(plain)
        if told:
            await plain.end_session_by_id(own)
        else:  # as by another process
            await run(plain, plain.end_all_statement(STAFF))
            await check_what_is_open(plain)
        assert await peer.gets() == ENDED
    assert open_sids(plain) == []


async def test_what_was_open_before_is_closed_and_what_is_opened_before_accept_stays(
    plain: Sessions,
) -> None:
    browser = Browser(app_of(plain))
    await browser.login(STAFF)
    cookie = f"{plain.cookie_name}={cookie_of(browser, plain)}"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await plain.impersonate(scope, ANN_PERSON, reason="ticket 7")
        await echo(scope, receive, send)

    before = Peer(SessionMiddleware(echo, sessions=plain), websocket(cookie=cookie))
    over = Peer(SessionMiddleware(app, sessions=plain), websocket(cookie=cookie))
    async with before, over:
        for _ in range(2):
            await before.gets()
        accept = await over.gets()
        assert accept["type"] == "websocket.accept"
        sid = (await over.gets())["text"]
        assert await before.gets() == ENDED
        await check_what_is_open(plain)
        over.says({"type": "websocket.receive", "text": "still here"})
        assert (await over.gets())["text"] == "still here"
        await plain.end_session_by_id(sid)
        assert await over.gets() == ENDED


@pytest.mark.parametrize("over", ["back", "login"])
async def test_what_goes_over_into_another_session_before_accept_stays_open(
    plain: Sessions, over: str
) -> None:
    browser, sid, own = await acting(plain)
    cookie = f"{plain.cookie_name}={cookie_of(browser, plain)}"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if over == "back":
            await plain.stop_impersonating(scope)
        else:
            await plain.start_session(scope, {"id": "eve"})
        await echo(scope, receive, send)

    async with Peer(SessionMiddleware(app, sessions=plain), websocket(cookie=cookie)) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        other = (await peer.gets())["text"]
        assert (other == own) is (over == "back")
        assert await ended_as(plain, sid) == ("actor_left" if over == "back" else "replaced")
        await check_what_is_open(plain)
        peer.says({"type": "websocket.receive", "text": "still here"})
        assert (await peer.gets())["text"] == "still here"
        await plain.end_session_by_id(other)
        assert await peer.gets() == ENDED
    assert open_sids(plain) == []


async def test_a_stream_in_it_ends_with_their_own(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(end_streams=True)

    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await sessions.end_session_by_id(own)
        while (await receive())["type"] != "http.disconnect":
            pass

    browser, _, own = await acting(sessions)
    inner = Browser(SessionMiddleware(stream, sessions=sessions))
    inner.cookies = browser.cookies
    async with asyncio.timeout(10):
        assert (await inner.get("/")).status_code == 200


async def test_what_is_open_outside_of_the_middleware_ends_with_their_own(plain: Sessions) -> None:
    browser, sid, _ = await acting(plain)
    cookie = f"{plain.cookie_name}={cookie_of(browser, plain)}"
    session = await plain.authenticate({"cookie": cookie})
    assert session is not None
    assert (session.sid, session.actor_id) == (sid, STAFF)
    closed = asyncio.Event()
    with plain.watch(session, closed.set):
        await run(plain, plain.end_all_statement(STAFF))
        await check_what_is_open(plain)
        await asyncio.wait_for(closed.wait(), 5)
    assert open_sids(plain) == []
    assert await plain.authenticate({"cookie": cookie}) is None
    assert await ended_as(plain, sid) == "actor_left"


# --- tokens ---------------------------------------------------------------------------------------


async def test_no_token_is_issued_in_it_and_nobody_acts_by_a_token(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(bearer=True)

    async def token(request: Request) -> Response:
        person = request.query_params["person"]
        try:
            issued = await sessions.start_token(request, {"id": person})
        except ImpersonationRefused as refused:
            return JSONResponse({"refused": refused.reason})
        return JSONResponse({"token": issued.token})

    browser, _, _ = await acting(sessions, Route("/token", token, methods=["POST"]))
    response = await browser.post(f"/token?person={ANN}")
    assert response.json() == {"refused": "acting"}
    await browser.post("/back")
    issued = (await browser.post(f"/token?person={STAFF}")).json()["token"]
    header = {"authorization": f"Bearer {issued}"}
    response = await Browser(app_of(sessions)).post(f"/act?person={ANN}", headers=header)
    assert response.json()["refused"] == "not_a_login"


# --- data -----------------------------------------------------------------------------------------


async def test_it_has_data_of_its_own_and_theirs_are_there_again(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(data=SessionData(max_bytes=1000))

    async def put(request: Request) -> Response:
        request.session["seen"] = request.query_params["value"]
        return JSONResponse(request.session)

    async def show(request: Request) -> Response:
        return JSONResponse(request.session)

    routes = (Route("/put", put), Route("/data", show))
    phone = Browser(app_of(sessions, *routes), agent="Safari")
    await phone.login(ANN)
    await phone.get("/put?value=hers")
    browser = Browser(app_of(sessions, *routes))
    await browser.login(STAFF)
    await browser.get("/put?value=theirs")
    await browser.post(f"/act?person={ANN}")
    assert (await browser.get("/data")).json() == {}
    await browser.get("/put?value=for%20her")
    assert (await browser.get("/data")).json() == {"seen": "for her"}
    await browser.post("/back")
    assert (await browser.get("/data")).json() == {"seen": "theirs"}
    assert (await phone.get("/data")).json() == {"seen": "hers"}
    assert len(await data_of(sessions)) == 2
    # A login of the person over it takes nothing of it over.
    await browser.post(f"/act?person={ANN}")
    await browser.get("/put?value=for%20her")
    await browser.login(ANN)
    assert (await browser.get("/data")).json() == {}
    assert [*(await data_of(sessions)).values()] == [{"seen": "hers"}]


# --- where it is seen -----------------------------------------------------------------------------


async def test_the_person_sees_it_and_ends_it(plain: Sessions) -> None:
    mount = Mount("/sessions", plain.routes())
    browser, sid, own = await acting(plain, mount)
    phone = Browser(app_of(plain, mount), agent="Safari")
    await phone.login(ANN)
    listed = (await phone.get("/sessions/")).json()["sessions"]
    assert [(one.get("actor_id"), one.get("actor_reason")) for one in listed] == [
        (None, None),
        (STAFF, "ticket 7"),
    ]
    page = (await phone.get("/sessions/", headers={"accept": "text/html"})).text
    assert "staff acts for you: ticket 7" in page
    assert (await phone.delete(f"/sessions/{sid}")).status_code == 204
    assert (await browser.see())["reason"] == "revoked"
    assert await ended_as(plain, own) == "revoked"
    # Whoever acts sees it, too, and has proved nothing there.
    browser, sid, _ = await acting(plain, Mount("/s", plain.routes(fresh_for=timedelta(days=9))))
    assert (await browser.get("/s/")).json()["sessions"][0]["actor_id"] == STAFF
    assert (await browser.post("/s/end-others")).status_code == 403


async def test_the_page_escapes_who_acts_and_why(plain: Sessions) -> None:
    browser = Browser(app_of(plain, Mount("/sessions", plain.routes())))
    await browser.login("<b>staff</b>")
    await browser.post(f"/act?person={ANN}&reason=<script>")
    page = (await browser.get("/sessions/", headers={"accept": "text/html"})).text
    assert "&lt;b&gt;staff&lt;/b&gt; acts for you: &lt;script&gt;" in page
    await browser.post("/back")
    phone = Browser(app_of(plain, Mount("/sessions", plain.routes())))
    await phone.login(ANN)
    page = (await phone.get("/sessions/?ended=1", headers={"accept": "text/html"})).text
    assert "ended when whoever acted for you left" in page


async def test_each_record_of_it_says_who_acts(
    plain: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_sessions")
    browser, sid, own = await acting(plain)
    await browser.post("/back")
    records = [vars(record) for record in caplog.records if "actor_id" in vars(record)]
    told = [tuple(record[name] for name in ("event", "sid", *ACTOR)) for record in records]
    assert told == [
        ("started", own, None, None),
        ("started", sid, STAFF, "ticket 7"),
        ("ended", sid, STAFF, "ticket 7"),
        ("renewed", own, None, None),
    ]
