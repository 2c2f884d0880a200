"""`Sessions`: start, renew, end, list, limit, purge; and no floods."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import (
    ALL_APPS,
    ConfigurationError,
    InvalidSession,
    Lifetimes,
    Session,
    SessionEvent,
    SessionMiddleware,
    Sessions,
    SessionsUnavailable,
)
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app, set_cookies, vouched
from tests.support.inside import store_of

SECOND = timedelta(seconds=1)


async def live_sids(sessions: Sessions, person: str = "ann") -> set[str]:
    return {session.sid for session in await sessions.list_sessions(person)}


async def get(sessions: Sessions, sid: str) -> Session:
    session = await sessions.get_by_id(sid)
    assert session is not None
    return session


# --- starting ------------------------------------------------------------------------------------


async def test_a_login_ends_the_session_that_the_browser_had(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    first = await browser.login("ann")
    second = await browser.login("ann")
    assert await live_sids(sessions) == {second}
    assert (await get(sessions, first)).end_reason == "replaced"


async def test_a_login_as_somebody_else_ends_the_session_that_the_browser_had(
    sessions: Sessions,
) -> None:
    browser = Browser(make_app(sessions))
    first = await browser.login("ann")
    second = await browser.login("bob")
    assert (await browser.see())["person_id"] == "bob"
    assert (await get(sessions, first)).end_reason == "replaced"
    assert await live_sids(sessions, "bob") == {second}


async def test_a_login_replaces_a_session_that_nobody_vouches_for_just_now(
    sessions: Sessions,
) -> None:
    browser = Browser(make_app(sessions))
    scope_sid = (await browser.see_as("ann"))["sid"]
    await browser.login("ann")
    assert (await get(sessions, scope_sid)).end_reason == "replaced"


async def test_two_logins_in_one_request_leave_one_session_and_one_cookie(
    sessions: Sessions,
) -> None:
    async def twice(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        await sessions.start_session(request, {"id": "ann"})
        return JSONResponse({"sid": request.state.sid})

    browser = Browser(make_app(sessions, Route("/twice", twice)))
    response = await browser.get("/twice")
    assert len(set_cookies(response)) == 1
    assert await live_sids(sessions) == {response.json()["sid"]}
    assert (await browser.see())["sid"] == response.json()["sid"]


async def test_logging_in_and_out_in_one_request_only_clears_the_cookie(
    sessions: Sessions,
) -> None:
    async def in_and_out(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        await sessions.end_session(request)
        return JSONResponse({"sid": request.state.sid})

    browser = Browser(make_app(sessions, Route("/in-and-out", in_and_out)))
    response = await browser.get("/in-and-out")
    (cookie,) = set_cookies(response)
    assert "Max-Age=0" in cookie
    assert await live_sids(sessions) == set()


async def test_a_scope_that_did_not_pass_the_middleware_is_told_to(sessions: Sessions) -> None:
    with pytest.raises(ConfigurationError, match="add the middleware"):
        await sessions.start_session({"type": "http", "headers": []}, {"id": "ann"})


@pytest.mark.parametrize("person_id", ["", "   ", "x" * 256, "a\0b", "\ud800", True, 1.5, b"ann"])
async def test_an_id_that_cannot_be_stored_is_named(sessions: Sessions, person_id: object) -> None:
    async def login(request: Request) -> Response:
        with pytest.raises(InvalidSession, match="person_id") as caught:
            await sessions.start_session(request, {"id": person_id})
        return JSONResponse(caught.value.errors)

    response = await Browser(make_app(sessions, Route("/bad", login))).get("/bad")
    assert list(response.json()) == ["person_id"]
    assert not set_cookies(response)


# --- floods --------------------------------------------------------------------------------------


async def test_parallel_first_requests_of_a_device_make_one_row_in_two_processes(
    make_sessions: MakeSessions,
) -> None:
    apps = [make_app(await make_sessions()) for _ in range(2)]
    sessions = await make_sessions()
    seen = await asyncio.gather(
        *(Browser(apps[i % 2]).get("/", headers=vouched("ann")) for i in range(40))
    )
    (sid,) = await live_sids(sessions)
    assert {response.json()["sid"] for response in seen} == {sid}
    assert sum(len(set_cookies(response)) for response in seen) == 1
    assert len(await sessions.list_sessions("ann", include_ended=True)) == 1


async def test_a_client_without_a_cookie_jar_makes_one_row_over_1000_requests(
    sessions: Sessions,
) -> None:
    app = make_app(sessions)
    for _ in range(20):
        seen = await asyncio.gather(*(Browser(app).see_as("ann") for _ in range(50)))
        assert len({one["sid"] for one in seen}) == 1
    assert len(await sessions.list_sessions("ann", include_ended=True)) == 1


async def test_a_device_starts_anew_when_its_session_has_run_out(
    sessions: Sessions, clock: Clock
) -> None:
    app = make_app(sessions)
    first = (await Browser(app).see_as("ann"))["sid"]
    started_at = clock.now
    clock.turn(timedelta(days=14))
    seen = await asyncio.gather(*(Browser(app).see_as("ann") for _ in range(10)))
    (second,) = {one["sid"] for one in seen}
    assert second != first
    old = await get(sessions, first)
    assert (old.end_reason, old.ended_at) == ("expired", started_at + timedelta(days=14))


async def test_devices_and_people_have_sessions_of_their_own(sessions: Sessions) -> None:
    app = make_app(sessions)
    sids = [
        (await Browser(app, agent=agent, address=address).see_as(person))["sid"]
        for agent in ("Firefox", "curl")
        for address in ("192.0.2.1", "2001:db8::1")
        for person in ("ann", "bob", "Ann", "ann ")
    ]
    assert len(set(sids)) == 16


async def test_a_login_and_a_vouched_for_session_of_one_device_live_side_by_side(
    sessions: Sessions,
) -> None:
    app = make_app(sessions)
    login = await Browser(app).login("ann")
    scope = (await Browser(app).see_as("ann"))["sid"]
    assert await live_sids(sessions) == {login, scope}


# --- renewing ------------------------------------------------------------------------------------


async def test_a_renewed_session_keeps_its_sid_and_gets_a_new_secret(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    before = browser.cookies[sessions.cookie_name]
    clock.turn(timedelta(hours=1))
    response = await browser.post("/renew")
    assert response.json()["sid"] == sid
    assert browser.cookies[sessions.cookie_name] != before
    session = await get(sessions, sid)
    assert session.authenticated_at == clock.now
    assert session.started_at == clock.now - timedelta(hours=1)
    assert (await browser.see())["sid"] == sid


async def test_the_old_secret_is_good_until_60_seconds_after_the_new_one_is_seen(
    sessions: Sessions, clock: Clock
) -> None:
    app = make_app(sessions)
    browser, slow = Browser(app), Browser(app)
    sid = await browser.login("ann")
    slow.cookies.update(browser.cookies)
    await browser.post("/renew")
    clock.turn(timedelta(minutes=10))
    assert (await slow.see())["sid"] == sid  # the answer may have been lost
    await browser.see()
    clock.turn(timedelta(seconds=60))
    assert (await slow.see())["sid"] == sid
    clock.turn(timedelta(microseconds=1))
    seen = await slow.see()
    assert (seen["sid"], seen["reason"]) == (None, "reuse")
    # Two parties hold the cookie; nobody can tell which is the thief.
    assert (await browser.see())["sid"] is None


async def test_a_lost_answer_to_a_renewal_leaves_ten_minutes(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    cookie = browser.cookies[sessions.cookie_name]
    for _ in range(3):
        await browser.post("/renew")  # the second and the third time it renews nothing
        browser.cookies.clear()
        browser.cookies.set(sessions.cookie_name, cookie)
    clock.turn(timedelta(minutes=10))
    assert (await browser.see())["sid"] == sid
    clock.turn(timedelta(microseconds=1))
    seen = await browser.see()
    assert (seen["sid"], seen["reason"]) == (None, "superseded")
    session = await sessions.get_by_id(sid)
    assert session is not None
    assert session.ended_at is None


async def test_a_secret_two_renewals_old_is_a_stolen_one(sessions: Sessions, clock: Clock) -> None:
    app = make_app(sessions)
    browser, thief = Browser(app), Browser(app)
    sid = await browser.login("ann")
    thief.cookies.update(browser.cookies)
    for _ in range(2):
        await browser.post("/renew")
        await browser.see()
    assert (await thief.see())["reason"] == "reuse"
    assert (await get(sessions, sid)).end_reason == "reuse"


async def test_two_renewals_at_once_make_one_new_secret_and_both_go_on(
    sessions: Sessions,
) -> None:
    everybody_is_in = asyncio.Barrier(2)

    async def renew(request: Request) -> Response:
        await everybody_is_in.wait()
        session = await sessions.renew_session(request)
        assert session is not None
        return JSONResponse({"sid": session.sid})

    app = make_app(sessions, Route("/both", renew))
    browser = Browser(app)
    sid = await browser.login("ann")
    answers = await asyncio.gather(browser.get("/both"), browser.get("/both"))
    assert [answer.json()["sid"] for answer in answers] == [sid, sid]
    assert sum(len(set_cookies(answer)) for answer in answers) == 1
    assert (await browser.see())["sid"] == sid


async def test_a_session_that_ended_meanwhile_is_not_renewed(sessions: Sessions) -> None:
    async def renew(request: Request) -> Response:
        await sessions.end_session_by_id(request.state.sid)
        renewed = await sessions.renew_session(request)
        return JSONResponse({"renewed": renewed is not None, "sid": request.state.sid})

    browser = Browser(make_app(sessions, Route("/renew-late", renew)))
    await browser.login("ann")
    response = await browser.get("/renew-late")
    assert response.json() == {"renewed": False, "sid": None}
    assert not set_cookies(response)


async def test_without_a_session_there_is_nothing_to_renew(sessions: Sessions) -> None:
    response = await Browser(make_app(sessions)).post("/renew")
    assert response.json()["sid"] is None
    assert not set_cookies(response)


async def test_freshness_counts_from_the_last_authentication(
    sessions: Sessions, clock: Clock
) -> None:
    async def fresh(request: Request) -> Response:
        return JSONResponse(sessions.is_fresh(request, timedelta(minutes=5)))

    app = make_app(sessions, Route("/fresh", fresh))
    browser = Browser(app)
    assert (await browser.get("/fresh")).json() is False
    await browser.login("ann")
    clock.turn(timedelta(minutes=5))
    assert (await browser.get("/fresh")).json() is True
    clock.turn(timedelta(microseconds=1))
    assert (await browser.get("/fresh")).json() is False
    await browser.post("/renew")
    assert (await browser.get("/fresh")).json() is True
    # Somebody vouched for, of whom nobody says when they authenticated.
    assert (await Browser(app).get("/fresh", headers=vouched("bob"))).json() is False


# --- ending --------------------------------------------------------------------------------------


async def test_the_first_end_wins(sessions: Sessions, clock: Clock) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    first = await sessions.end_session_by_id(sid, reason="lost phone")
    clock.turn(SECOND)
    assert await sessions.end_session_by_id(sid) == first
    assert first is not None
    assert (first.end_reason, first.ended_at) == ("lost phone", clock.now - SECOND)


async def test_a_session_whose_time_was_up_has_ended_by_that(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    up = clock.now + timedelta(days=14)
    clock.turn(timedelta(days=20))
    session = await sessions.end_session_by_id(sid)
    assert session is not None
    assert (session.end_reason, session.ended_at) == ("expired", up)


async def test_people_end_only_their_own_sessions(sessions: Sessions) -> None:
    app = make_app(sessions)
    sid = await Browser(app).login("ann")
    unknown = "01a20eba-8a57-7c3b-b1ae-d92c17869afd"
    for foreign in (sid, unknown, "nonsense", ""):
        assert await sessions.end_session_by_id(foreign, person_id="bob") is None
    assert await live_sids(sessions) == {sid}
    session = await sessions.end_session_by_id(sid, person_id="ann")
    assert session is not None
    assert session.end_reason == "revoked"


async def test_a_reason_that_cannot_be_stored_is_named(sessions: Sessions) -> None:
    sid = await Browser(make_app(sessions)).login("ann")
    for any_sid in (sid, "nonsense"):
        with pytest.raises(InvalidSession, match="end_reason"):
            await sessions.end_session_by_id(any_sid, reason="x" * 51)
    assert await live_sids(sessions) == {sid}


async def test_the_others_end_and_this_one_stays(sessions: Sessions) -> None:
    app = make_app(sessions)
    browsers = [Browser(app) for _ in range(3)]
    sids = [await browser.login("ann") for browser in browsers]
    await Browser(app).login("bob")
    assert (await browsers[0].post("/end-others")).json() == 2
    assert await live_sids(sessions) == {sids[0]}
    assert len(await live_sids(sessions, "bob")) == 1
    assert [(await browser.see())["sid"] for browser in browsers] == [sids[0], None, None]
    assert (await Browser(app).post("/end-others")).json() == 0


async def test_all_end_or_all_but_one_or_all_of_an_app(sessions: Sessions) -> None:
    app = make_app(sessions)
    sids = [await Browser(app).login("ann") for _ in range(3)]
    shop = (await Browser(app).see_as("ann", app_id="shop"))["sid"]
    assert await sessions.end_all_sessions("ann", app_id="shop") == 1
    assert (await get(sessions, shop)).end_reason == "revoked"
    assert await sessions.end_all_sessions("ann", except_sid=sids[0]) == 2
    assert await sessions.end_all_sessions("ann") == 1
    assert await sessions.end_all_sessions("ann") == 0
    assert await live_sids(sessions) == set()


async def test_logging_out_ends_a_session_that_nobody_vouches_for_just_now(
    sessions: Sessions,
) -> None:
    browser = Browser(make_app(sessions))
    sid = (await browser.see_as("ann"))["sid"]
    response = await browser.post("/end-session")
    assert response.json() == {"message": "session ended"}
    assert (await get(sessions, sid)).end_reason == "logout"
    assert sessions.cookie_name not in browser.cookies


# --- listing -------------------------------------------------------------------------------------


async def test_the_list_is_newest_first_page_by_page(sessions: Sessions, clock: Clock) -> None:
    app = make_app(sessions)
    sids = []
    for _ in range(5):
        sids.append(await Browser(app).login("ann"))
        clock.turn(SECOND)
    await sessions.end_session_by_id(sids[0])
    newest_first = sids[:0:-1]
    page = await sessions.list_sessions("ann", limit=3)
    assert [session.sid for session in page] == newest_first[:3]
    page = await sessions.list_sessions("ann", limit=3, before=page[-1].sid)
    assert [session.sid for session in page] == newest_first[3:]
    everything = await sessions.list_sessions("ann", include_ended=True)
    assert [session.sid for session in everything] == sids[::-1]
    assert everything[-1].end_reason == "revoked"


async def test_the_list_keeps_people_and_apps_apart(sessions: Sessions) -> None:
    app = make_app(sessions)
    mine = (await Browser(app).see_as("ann"))["sid"]
    shop = (await Browser(app).see_as("ann", app_id="shop"))["sid"]
    await Browser(app).see_as("Ann")
    everywhere = await sessions.list_sessions("ann", app_id=ALL_APPS)
    assert {session.sid for session in everywhere} == {mine, shop}
    assert await live_sids(sessions) == {mine}
    (session,) = await sessions.list_sessions("ann", app_id="shop")
    assert session.sid == shop
    assert await sessions.list_sessions("nobody") == []


async def test_questions_that_make_no_sense_are_refused(sessions: Sessions) -> None:
    with pytest.raises(InvalidSession, match="before"):
        await sessions.list_sessions("ann", before="nonsense")
    with pytest.raises(InvalidSession, match="person_id"):
        await sessions.list_sessions(None)
    with pytest.raises(ConfigurationError, match="limit"):
        await sessions.list_sessions("ann", limit=0)
    with pytest.raises(ConfigurationError, match="batch_size"):
        await sessions.purge(batch_size=0)


# --- limits and purging --------------------------------------------------------------------------


async def test_the_least_recently_seen_makes_room_for_a_new_session(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(max_sessions_per_person=2)
    app = make_app(sessions)
    first, second, third = Browser(app), Browser(app), Browser(app)
    kept = await first.login("ann")
    clock.turn(SECOND)
    dropped = await second.login("ann")
    clock.turn(timedelta(minutes=2))
    await first.see()
    new = await third.login("ann")
    assert await live_sids(sessions) == {kept, new}
    assert (await get(sessions, dropped)).end_reason == "limit"
    vouched_for = (await Browser(app).see_as("ann"))["sid"]  # logins alone are counted
    assert await live_sids(sessions) == {kept, new, vouched_for}
    newest = await Browser(app).login("ann")
    assert await live_sids(sessions) == {new, vouched_for, newest}
    await Browser(app).login("bob")
    assert len(await live_sids(sessions)) == 3


async def test_purge_keeps_what_ended_lately_and_marks_what_has_run_out(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(
        keep_ended=timedelta(days=10),
        lifetimes=Lifetimes(idle=timedelta(days=1), absolute=timedelta(days=5)),
    )
    app = make_app(sessions)
    ended = [await Browser(app).login("ann") for _ in range(3)]
    for sid in ended:
        await sessions.end_session_by_id(sid)
    idle = await Browser(app).login("ann")
    run_out = clock.now + timedelta(days=1)
    clock.turn(timedelta(days=6))
    assert await sessions.purge() == 0
    expired = await get(sessions, idle)
    assert (expired.end_reason, expired.ended_at) == ("expired", run_out)
    live = await Browser(app).login("ann")
    clock.turn(timedelta(days=4, seconds=1))
    assert await sessions.purge(batch_size=2) == 3
    left = await sessions.list_sessions("ann", include_ended=True)
    assert {session.sid for session in left} == {idle, live}


# --- events --------------------------------------------------------------------------------------


async def test_each_step_is_told_once_it_is_in_the_database(make_sessions: MakeSessions) -> None:
    told: list[tuple[str, str, str, str | None]] = []

    def on_event(event: SessionEvent) -> None:
        session = event.session
        told.append((event.kind, session.sid, session.person_id, session.end_reason))

    sessions = await make_sessions(on_event=on_event)
    browser = Browser(make_app(sessions))
    first = await browser.login("ann")
    await browser.see()
    await browser.post("/renew")
    second = await browser.login("ann")
    third = await browser.login("bob")
    for _ in range(2):
        await browser.post("/logout")
    await sessions.end_session_by_id(third)
    assert told == [
        ("started", first, "ann", None),
        ("renewed", first, "ann", None),
        ("ended", first, "ann", "replaced"),
        ("started", second, "ann", None),
        ("ended", second, "ann", "replaced"),
        ("started", third, "bob", None),
        ("ended", third, "bob", "logout"),
    ]


# --- late answers -----------------------------------------------------------------------------


async def test_a_late_answer_does_not_bring_back_the_cookie_of_an_ended_session(
    sessions: Sessions,
) -> None:
    renewed, go_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        await sessions.renew_session(request)
        renewed.set()
        await go_on.wait()
        return JSONResponse({})

    app = make_app(sessions, Route("/slow", slow, methods=["POST"]))
    browser, tab = Browser(app), Browser(app)
    await browser.login("ann")
    tab.cookies.update(browser.cookies)
    answer = asyncio.create_task(tab.post("/slow"))
    await renewed.wait()
    await browser.login("ann")
    go_on.set()
    assert not set_cookies(await answer)


async def test_a_login_that_is_revoked_before_its_answer_sets_no_cookie(
    sessions: Sessions,
) -> None:
    async def login(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        await sessions.end_all_sessions("ann")
        return JSONResponse({})

    browser = Browser(make_app(sessions, Route("/both", login)))
    assert not set_cookies(await browser.get("/both"))


async def test_a_second_renewal_of_an_ended_session_finds_it_dead(sessions: Sessions) -> None:
    app_is_in, go_on = asyncio.Event(), asyncio.Event()

    async def late(request: Request) -> Response:
        app_is_in.set()
        await go_on.wait()
        return JSONResponse((await sessions.renew_session(request)) is None)

    app = make_app(sessions, Route("/late", late))
    browser, tab = Browser(app), Browser(app)
    sid = await browser.login("ann")
    tab.cookies.update(browser.cookies)
    await browser.post("/renew")
    answer = asyncio.create_task(tab.get("/late"))
    await app_is_in.wait()
    await sessions.end_session_by_id(UUID(sid))
    go_on.set()
    assert (await answer).json() is True
    assert await sessions.get_by_id(UUID(sid)) == await sessions.get_by_id(sid)


async def test_get_asks_for_the_person_of_the_middleware_or_of_the_session(
    sessions: Sessions,
) -> None:
    async def mine(request: Request) -> Response:
        session = await sessions.get(request)
        return JSONResponse(session and session.sid)

    app = make_app(sessions, Route("/mine", mine))
    named = SessionMiddleware(
        Starlette(routes=[Route("/", mine)]), sessions=sessions, person=lambda _: "bob"
    )
    assert (await Browser(app).get("/mine")).json() is None
    browser = Browser(app)
    assert (await browser.get("/mine")).json() is None
    sid = await browser.login("ann")
    assert (await browser.get("/mine")).json() == sid
    (bob,) = [(await Browser(named).get("/")).json()]
    assert (await get(sessions, bob)).person_id == "bob"


async def test_a_login_waits_until_the_old_session_of_the_browser_is_known(
    make_sessions: MakeSessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    sessions = await make_sessions(on_unavailable="anonymous")
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")

    def fail(_: str) -> None:
        raise SessionsUnavailable("gone")

    with monkeypatch.context() as outage:
        outage.setattr(store_of(sessions), "by_sid", fail)
        assert (await browser.post("/login?person=ann")).status_code == 503
    assert (await browser.see())["sid"] == sid


async def test_an_outage_between_login_and_answer_does_not_lose_the_cookie(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: str) -> None:
        raise SessionsUnavailable("gone")

    browser = Browser(make_app(sessions))
    with monkeypatch.context() as outage:
        outage.setattr(store_of(sessions), "by_sid", fail)
        sid = await browser.login("ann")
    assert (await browser.see())["sid"] == sid


async def test_a_batch_of_purge_never_exceeds_the_parameters_of_a_statement(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    async def purge(*, batch_size: int, **_: object) -> int:
        asked.append(batch_size)
        return 0

    monkeypatch.setattr(store_of(sessions), "purge", purge)
    await sessions.purge(batch_size=10**9)
    await sessions.purge(batch_size=7)
    assert asked == [4096, 7]
