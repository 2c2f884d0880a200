"""The seven functions of dwyl's Auth.Session, and its faults, which are not carried over.

docs/evidence.md names the tests of this file; L1 to L29 are the numbers of docs/auth_session.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import (
    AAL1,
    BANKING,
    Changeset,
    ConfigurationError,
    InvalidSession,
    Lifetimes,
    Session,
    SessionEvent,
    Sessions,
    changeset,
)
from tests.conftest import MakeSessions
from tests.support import (
    Browser,
    Clock,
    cookie_of,
    entered,
    make_app,
    see_with,
    set_cookies,
    vouched,
)
from tests.support.inside import store_of
from tests.support.rows import outage, session_of, table_of

Step = Callable[[Request], Awaitable[Any]]
ANN = {"id": 42, "app_id": "shop", "auth_provider": "google"}


def scope_with(
    person: object, *, agent: bytes | None = b"Firefox", address: str = "192.0.2.1", **state: object
) -> dict[str, Any]:
    """The scope of a request of this person's."""
    headers = [] if agent is None else [(b"user-agent", agent)]
    state = {**state, "person": person} if person else state
    return {"type": "http", "headers": headers, "client": (address, 4711), "state": state}


class Client(Browser):
    """A browser in whose requests one can look around."""

    def __init__(self, sessions: Sessions, **device: str) -> None:
        async def run(request: Request) -> Response:
            self.results.append(await self.step(request))
            return JSONResponse({})

        super().__init__(make_app(sessions, Route("/run", run, methods=["POST"])), **device)  # type: ignore[arg-type]
        self.step: Step
        self.results: list[Any] = []

    async def run(self, step: Step, headers: dict[str, str] | None = None) -> Any:
        """What a step gives inside a request."""
        self.step = step
        response = await self.post("/run", headers=headers)
        assert response.status_code == 200, response.text
        return self.results.pop()


# --- the seven functions --------------------------------------------------------------------------


async def test_changeset_casts_and_validates_before_each_write(sessions: Sessions) -> None:
    good = changeset(None, {"app_id": "shop", "person_id": 42, "colour": "red"})
    assert isinstance(good, Changeset)
    assert good.valid
    assert good.changes == {"app_id": "shop", "person_id": "42"}
    assert good.errors == {}

    bad = changeset(None, {"auth_provider": "google"})
    assert not bad.valid
    assert bad.errors == {"app_id": ["is missing"], "person_id": ["is missing"]}

    session = await sessions.insert(scope_with(None), ANN)
    assert changeset(session, {"end_reason": "logout"}).valid  # the row has what is required
    with pytest.raises(InvalidSession, match="person_id must not be empty"):
        await sessions.insert(scope_with(None), {"id": ""})
    assert len(await table_of(sessions)) == 1


async def test_insert_always_makes_a_new_row(sessions: Sessions, clock: Clock) -> None:
    scope = scope_with(None)
    before = {**scope, "state": {**scope["state"]}}
    session = await sessions.insert(scope, ANN)
    assert isinstance(session, Session)
    assert (session.person_id, session.app_id, session.auth_provider) == ("42", "shop", "google")
    assert (session.started_at, session.ended_at, session.end_reason) == (clock(), None, None)
    assert scope == before
    assert (await sessions.insert(scope, ANN)).id != session.id
    assert len(await table_of(sessions)) == 2


async def test_start_session_sets_the_sid_and_the_cookie_follows(sessions: Sessions) -> None:
    async def start(request: Request) -> tuple[Session, Any, Any]:
        session = await sessions.start_session(request, ANN)
        return session, request.state.sid, request.state.session

    browser = Client(sessions)
    session, sid, in_state = await browser.run(start)
    assert (sid, in_state) == (session.id, session)
    assert session.sid == session.id
    assert cookie_of(browser, sessions).startswith(sid)
    assert (await browser.see())["sid"] == sid


async def test_get_gives_the_session_that_was_started(sessions: Sessions) -> None:
    browser = Client(sessions)

    async def start_and_get(request: Request) -> tuple[Session, Session | None]:
        return await sessions.start_session(request, {"id": "ann"}), await sessions.get(request)

    session, got = await browser.run(start_and_get, vouched("ann"))
    assert got == session


async def test_get_by_id_gives_ended_sessions_too(sessions: Sessions) -> None:
    scope, sid = await entered(sessions, {"id": 42})
    ended = await sessions.end_session_by_id(sid)
    assert ended is not None
    assert await sessions.get_by_id(sid) == ended
    assert await sessions.get_by_id(scope) == ended
    assert await sessions.get_by_id(Request(scope)) == ended
    assert await sessions.get_by_id(None) is None
    assert await sessions.get_by_id(scope_with(None)) is None
    # What another layer writes to the state names no session.
    assert await sessions.get_by_id(scope_with(None, sid=sid)) is None


async def test_update_session_end_sets_the_end_once(sessions: Sessions, clock: Clock) -> None:
    scope, sid = await entered(sessions, ANN)
    clock.turn(timedelta(minutes=5))
    ended = await sessions.update_session_end(scope, reason="logout")
    assert ended is not None
    assert (ended.ended_at, ended.end_reason) == (clock(), "logout")
    assert scope["state"]["sid"] == sid  # state and cookie are `end_session`'s affair
    clock.turn(timedelta(minutes=5))
    assert await sessions.update_session_end(scope, reason="other") == ended


async def test_end_session_drops_the_sid_and_clears_the_cookie(sessions: Sessions) -> None:
    browser = Client(sessions)
    sid = await browser.login("ann")

    async def end(request: Request) -> tuple[Session | None, Any, Any]:
        session = await sessions.end_session(request)
        return session, request.state.sid, request.state.session

    ended, *state = await browser.run(end)
    assert (ended.id, ended.end_reason) == (sid, "logout")
    assert state == [None, None]
    assert not browser.cookies


async def test_a_connection_is_a_request_or_its_scope(sessions: Sessions) -> None:
    browser = Client(sessions)
    sid = (await browser.run(lambda request: sessions.start_session(request.scope, ANN))).id
    assert (await browser.run(lambda request: sessions.get_by_id(request.scope))).id == sid
    assert (await browser.run(lambda request: sessions.end_session(request.scope))).id == sid


async def test_the_endpoint_answers_as_the_one_of_the_seed(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    for _ in range(2):  # twice does no harm
        response = await browser.post("/end-session")
        assert response.status_code == 200
        assert response.json() == {"message": "session ended"}
    assert (await session_of(sessions, sid)).end_reason == "logout"


# --- A. lookup and start --------------------------------------------------------------------------


async def test_l1_get_takes_the_most_recent_of_several(sessions: Sessions, clock: Clock) -> None:
    made = []
    for _ in range(3):
        clock.turn(timedelta(seconds=1))
        made.append(await sessions.insert(scope_with(ANN), ANN))
    while made:
        latest = made.pop()
        assert await sessions.get(scope_with(ANN)) == latest
        await sessions.end_session_by_id(latest.id)
    assert await sessions.get(scope_with(ANN)) is None


async def test_l2_a_tie_is_decided_by_the_id(sessions: Sessions) -> None:
    made = [(await sessions.insert(scope_with(ANN), ANN)).id for _ in range(5)]
    got = await sessions.get(scope_with(ANN))
    assert got is not None
    assert got.id == max(made)


@pytest.mark.parametrize("headers", [{}, vouched("ann")])
async def test_l3_a_visit_resumes_the_session(sessions: Sessions, headers: dict[str, str]) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    for _ in range(5):
        response = await browser.get("/", headers=headers)
        assert response.json()["sid"] == sid
        assert not set_cookies(response)
    assert len(await table_of(sessions)) == 1


async def test_l4_a_login_that_fails_later_leaves_no_live_session(sessions: Sessions) -> None:
    async def start_then_fail(request: Request) -> None:
        await sessions.start_session(request, ANN)
        raise PermissionError

    with pytest.raises(PermissionError):
        await Client(sessions).run(start_then_fail)
    assert await sessions.list_sessions(42) == []


async def test_l5_the_app_is_that_of_the_sessions_unless_the_person_says_another(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(app_id="shop")
    assert (await sessions.insert(scope_with(None), {"id": 1})).app_id == "shop"
    assert (await sessions.insert(scope_with(None), {"id": 1, "app_id": "blog"})).app_id == "blog"


async def test_l6_a_new_address_or_browser_version_keeps_the_session(sessions: Sessions) -> None:
    app = make_app(sessions)
    before = Browser(app, agent="Firefox 140", address="192.0.2.1")
    sid = await before.login("ann")
    after = Browser(app, agent="Firefox 141", address="2001:db8::7")
    after.cookies.update(before.cookies)
    assert (await after.see())["sid"] == sid
    assert (await after.see_as("ann"))["sid"] == sid
    assert len(await table_of(sessions)) == 1


async def test_l7_browsers_that_look_alike_have_sessions_of_their_own(sessions: Sessions) -> None:
    app = make_app(sessions)  # the same User-Agent, the same address
    one, two, somebody_else = Browser(app), Browser(app), Browser(app)
    sids = [await one.login("ann"), await two.login("ann"), await somebody_else.login("ben")]
    assert len(set(sids)) == 3
    await one.post("/end-session")
    assert [(await browser.see())["sid"] for browser in (one, two, somebody_else)] == [
        None,
        *sids[1:],
    ]


async def test_l8_get_without_a_person_gives_none(sessions: Sessions) -> None:
    await sessions.insert(scope_with(None), ANN)
    assert await sessions.get(scope_with(None)) is None
    assert await sessions.get({"type": "http"}) is None
    assert await sessions.get(scope_with({"id": "somebody else"})) is None
    with pytest.raises(ConfigurationError, match="has no id: looked for the keys id"):
        await sessions.get(scope_with({"name": "ann"}))


# --- B. User-Agent and address --------------------------------------------------------------------


async def test_l9_a_long_user_agent_breaks_no_login(sessions: Sessions) -> None:
    session = await sessions.insert(scope_with(ANN, agent=b"A" * 100_000), ANN)
    assert session.user_agent == "A" * 500


async def test_l10_parallel_first_requests_make_one_row(make_sessions: MakeSessions) -> None:
    apps = [make_app(await make_sessions()) for _ in range(2)]
    answers = await asyncio.gather(*(Browser(apps[n % 2]).see_as("ann") for n in range(20)))
    assert len({answer["sid"] for answer in answers}) == 1
    (row,) = await table_of(await make_sessions())
    assert row["id"] == answers[0]["sid"]


@pytest.mark.parametrize("agent", [None, b"", b"  "])
async def test_l11_no_user_agent_breaks_no_login(sessions: Sessions, agent: bytes | None) -> None:
    scope = scope_with(ANN, agent=agent)
    session = await sessions.insert(scope, ANN)
    assert session.user_agent is None
    assert await sessions.get(scope) == session


async def test_l11_of_two_user_agents_the_first_counts(sessions: Sessions) -> None:
    scope = scope_with(ANN)
    scope["headers"].append((b"user-agent", b"Chrome"))
    assert (await sessions.insert(scope, ANN)).user_agent == "Firefox"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:DB8:0:0:0:0:0:1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("999.1.1.1", None),
        ("testclient", None),
        ("", None),
    ],
)
async def test_l12_an_address_has_one_spelling(
    sessions: Sessions, given: str, kept: str | None
) -> None:
    assert (await sessions.insert(scope_with(ANN, address=given), ANN)).ip_address == kept


async def test_l13_the_address_is_the_one_that_the_server_vouches_for(sessions: Sessions) -> None:
    scope = scope_with(ANN, address="192.0.2.1")  # uvicorn --proxy-headers puts it here
    scope["headers"].append((b"x-forwarded-for", b"203.0.113.66"))  # anybody can send this
    assert (await sessions.insert(scope, ANN)).ip_address == "192.0.2.1"
    assert (await sessions.insert({**scope, "client": None}, ANN)).ip_address is None


async def test_l14_a_cookie_asks_for_no_device(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")

    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("the device was asked for")

    monkeypatch.setattr(store_of(sessions), "by_device", refuse)
    assert (await browser.see())["sid"] == sid
    assert (await browser.see_as("ann"))["sid"] == sid


# --- C. validity and expiry -----------------------------------------------------------------------


async def test_l15_an_ended_session_is_refused_at_the_next_request(sessions: Sessions) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    await browser.login("ann")
    replayed = cookie_of(browser, sessions)
    await browser.post("/end-session")
    assert (await see_with(app, sessions, replayed))["sid"] is None


@pytest.mark.parametrize("lifetimes", [AAL1, BANKING])
async def test_l16_sessions_end_by_themselves_and_rows_go(
    make_sessions: MakeSessions, clock: Clock, lifetimes: Lifetimes
) -> None:
    sessions = await make_sessions(lifetimes=lifetimes, keep_ended=timedelta(days=90))
    app = make_app(sessions)
    idle, busy = Browser(app), Browser(app)
    await idle.login("ann")
    sid = await busy.login("ann")
    while clock() < (await session_of(sessions, sid)).expires_at:
        seen = await busy.see()
        assert seen["sid"] == sid
        assert (await session_of(sessions, sid)).last_seen_at == clock()
        clock.turn(lifetimes.idle / 2)
    assert (await idle.see())["reason"] == "expired"
    assert (await busy.see())["reason"] == "expired"
    await sessions.purge()
    assert len(await sessions.list_sessions("ann", include_ended=True)) == 2
    clock.turn(timedelta(days=91))
    assert await sessions.purge() == 2


async def test_l17_a_sid_counts_nothing_and_opens_nothing(sessions: Sessions) -> None:
    sids = [(await sessions.insert(scope_with(ANN), ANN)).id for _ in range(20)]
    # What follows the time are 62 random bits, no counter.
    assert len({sid[19:] for sid in sids}) == 20
    assert sids != sorted(sids)
    assert (await see_with(make_app(sessions), sessions, *sids))["sid"] is None


async def test_l18_the_cookie_alone_carries_a_session(sessions: Sessions) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    sid = await browser.login("ann")
    value = cookie_of(browser, sessions)
    name = sessions.cookie_name
    for url in (f"/?{name}={value}", f"/?sid={value}", f"/?jwt={value}"):
        assert (await Browser(app).get(url)).json()["sid"] is None
        assert (await browser.get(url)).json()["sid"] == sid  # nor does it hide the cookie
    for header in (f"Bearer {value}", "Bearer", "\x7f"):
        assert (await Browser(app).see(authorization=header))["sid"] is None
        assert (await browser.see(authorization=header))["sid"] == sid


async def test_l19_the_cookie_is_locked_and_tells_nothing(sessions: Sessions) -> None:
    response = await Browser(make_app(sessions)).post("/login?person=ann-of-the-hills")
    (cookie,) = set_cookies(response)
    for attribute in ("Secure", "HttpOnly", "SameSite=Lax", "Max-Age=2592000", "Path=/"):
        assert f"; {attribute}" in cookie
    sid, secret, signature = cookie.partition(";")[0].partition("=")[2].split(".")
    assert sid == response.json()["sid"]
    assert len(secret) == len(signature) == 43  # 256 bits each, and nothing to read in them


async def test_l20_a_changed_password_ends_the_other_sessions(sessions: Sessions) -> None:
    app = make_app(sessions)
    here, phone, thief = Browser(app), Browser(app), Browser(app)
    for browser in (here, phone, thief):
        sid = await browser.login("ann")
    thief.cookies.update(phone.cookies)
    sid = (await here.see())["sid"]
    assert (await here.post("/end-others")).json() == 2
    assert (await phone.see())["reason"] == "revoked"
    assert (await thief.see())["reason"] == "revoked"
    assert (await here.see())["sid"] == sid
    # Roles and addresses cannot be out of date: no row and no cookie has any.
    names = {column.name for column in sessions.table.columns}
    assert names.isdisjoint({"roles", "email", "name", "givenName", "picture"})


# --- D. ending ------------------------------------------------------------------------------------


async def test_l21_nobody_ends_a_session_that_is_not_theirs(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    assert await sessions.end_session_by_id(sid, person_id="eve") is None
    assert (await browser.see())["sid"] == sid
    # The endpoint takes no sid: it ends the session of the cookie that comes with the request.
    eve = Browser(make_app(sessions))
    await eve.post(f"/end-session?sid={sid}", json={"sid": sid})
    assert (await browser.see())["sid"] == sid


@pytest.mark.parametrize("sid", ["", "1", "x" * 36, "a\0b", "0198c0de-0000-7000-8000-000000000000"])
async def test_l23_a_sid_that_names_nothing_is_none(sessions: Sessions, sid: str) -> None:
    assert await sessions.get_by_id(sid) is None
    assert await sessions.end_session_by_id(sid) is None
    assert await sessions.update_session_end(scope_with(ANN, sid=sid), reason="logout") is None


async def test_l24_the_first_end_wins(sessions: Sessions, clock: Clock) -> None:
    session = await sessions.insert(scope_with(ANN), ANN)
    first = await sessions.end_session_by_id(session.id, reason="logout")
    clock.turn(timedelta(hours=1))
    assert await sessions.end_session_by_id(session.id, reason="revoked") == first
    assert await sessions.end_all_sessions(42) == 0
    assert await sessions.get_by_id(session.id) == first


async def test_l25_logging_out_without_a_session_does_no_harm(sessions: Sessions) -> None:
    assert await Client(sessions).run(sessions.end_session) is None
    assert await sessions.update_session_end({"type": "http"}, reason="logout") is None
    response = await Browser(make_app(sessions)).post("/end-session")
    assert (response.status_code, response.json()) == (200, {"message": "session ended"})


async def test_l26_a_logout_that_could_not_be_written_is_not_claimed(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    async with outage(sessions):
        response = await browser.post("/end-session")
        assert response.status_code == 503
        assert not set_cookies(response)
    assert (await browser.see())["sid"] == sid
    assert (await browser.post("/end-session")).status_code == 200
    assert (await session_of(sessions, sid)).end_reason == "logout"


async def test_l27_a_link_logs_nobody_out(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    assert (await browser.get("/end-session")).status_code == 405
    cross_site = await browser.post("/end-session", headers={"sec-fetch-site": "cross-site"})
    assert cross_site.status_code == 403
    assert (await browser.see())["sid"] == sid


async def test_l28_sessions_are_listed_ended_in_bulk_and_told_of(
    make_sessions: MakeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "asgi_sessions")
    events: list[SessionEvent] = []
    sessions = await make_sessions(on_event=events.append)
    app = make_app(sessions)
    phone, laptop = Browser(app, agent="Phone"), Browser(app, agent="Laptop")
    sids = {await phone.login("ann"), await laptop.login("ann")}
    assert {s.user_agent for s in await sessions.list_sessions("ann")} == {"Phone", "Laptop"}
    await laptop.post("/end-others")
    await laptop.post("/end-session")
    assert await sessions.list_sessions("ann") == []
    ended = await sessions.list_sessions("ann", include_ended=True)
    assert {s.id for s in ended} == sids
    assert sorted(str(s.end_reason) for s in ended) == ["logout", "revoked"]
    told = [(event.kind, event.session.end_reason) for event in events]
    assert told[2:] == [("ended", "revoked"), ("ended", "logout")]
    assert [record.levelname for record in caplog.records] == ["INFO"] * 4


async def test_l29_the_history_outlives_the_person_until_it_is_purged(
    sessions: Sessions, clock: Clock
) -> None:
    assert not sessions.table.foreign_keys
    await Browser(make_app(sessions)).login("ann")
    await sessions.end_all_sessions("ann")  # what an app does that deletes a person
    clock.turn(timedelta(days=90))
    assert await sessions.purge() == 0
    (session,) = await sessions.list_sessions("ann", include_ended=True)
    assert session.end_reason == "revoked"
    clock.turn(timedelta(seconds=1))
    assert await sessions.purge() == 1
    assert await sessions.list_sessions("ann", include_ended=True) == []
