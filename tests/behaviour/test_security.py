"""What must never happen, and one test per attack: the tests that docs/evidence.md names.

Cookies are forged by whoever has the key as the private tokens make them, and a store that nobody
may ask stands in for the private one.
"""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, get_args
from uuid import uuid4

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message
from starlette.websockets import WebSocket

from asgi_sessions import (
    AAL1,
    ConfigurationError,
    Incident,
    InvalidSession,
    Lifetimes,
    SessionEvent,
    Sessions,
    SessionsUnavailable,
)
from asgi_sessions._model.device import StoreIP
from asgi_sessions._model.tokens import Keys, Token, new_secret, new_sid
from tests.conftest import MakeSessions
from tests.support import (
    KEY,
    OLD_KEY,
    Browser,
    Clock,
    cookie_of,
    make_app,
    see_with,
    set_cookies,
    vouched,
)
from tests.support.inside import check_what_is_open, settled, touched
from tests.support.rows import outage, session_of, table_of

Step = Callable[[Request], Awaitable[object]]

# --- tools ----------------------------------------------------------------------------------------


class Gate:
    """Where a request waits inside the app until it is let go."""

    def __init__(self) -> None:
        self._entered = asyncio.Event()
        self._opened = asyncio.Event()

    async def wait(self) -> None:
        self._entered.set()
        await self._opened.wait()

    async def reached(self) -> None:
        async with asyncio.timeout(10):
            await self._entered.wait()

    def open(self) -> None:
        self._opened.set()


def held(gate: Gate, then: Step | None = None) -> Route:
    """A route that waits at a gate, and then takes a step."""

    async def endpoint(request: Request) -> Response:
        await gate.wait()
        if then is not None:
            await then(request)
        return JSONResponse({"sid": request.state.sid})

    return Route("/held", endpoint, methods=["GET", "POST"])


def doing(step: Step) -> Route:
    """A route that takes a step."""

    async def endpoint(request: Request) -> Response:
        await step(request)
        return JSONResponse({"sid": request.state.sid})

    return Route("/doing", endpoint, methods=["POST"])


def cookie_value(line: str) -> str:
    """What a Set-Cookie sets the cookie to; empty if it clears it."""
    return line.partition(";")[0].partition("=")[2]


class NoStore:
    """Whatever asks for rows fails the test."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the database was asked: {name}")


def no_database(sessions: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, no row is read or written."""
    monkeypatch.setattr(sessions._core, "store", NoStore())


# --- what must never happen -----------------------------------------------------------------------


@pytest.mark.parametrize("step", ["touch", "renew", "log out"])
async def test_a_request_in_flight_never_brings_an_ended_session_back(
    make_sessions: MakeSessions, clock: Clock, step: str
) -> None:
    here, there = await make_sessions(), await make_sessions()
    steps: dict[str, Step | None] = {
        "touch": None,
        "renew": here.renew_session,
        "log out": here.end_session,
    }
    gate = Gate()
    browser = Browser(make_app(here, held(gate, steps[step])))
    sid = await browser.login("ann")
    cookie = cookie_of(browser, here)
    clock.turn(timedelta(minutes=2))  # so that a touch is due

    in_flight = asyncio.create_task(browser.get("/held"))
    await gate.reached()
    ended = await there.end_session_by_id(sid)
    clock.turn(timedelta(seconds=1))
    gate.open()
    response = await in_flight

    assert response.status_code == 200
    assert not any(cookie_value(line) for line in set_cookies(response))
    assert ended is not None
    assert await here.get_by_id(sid) == ended  # nothing of it has changed, not even the last use
    for sessions in (here, there):
        assert (await see_with(make_app(sessions), sessions, cookie))["sid"] is None


@pytest.mark.parametrize("policy", ["error", "anonymous"])
async def test_a_database_error_never_logs_anyone_out(
    make_sessions: MakeSessions, policy: str
) -> None:
    sessions = await make_sessions(on_unavailable=policy)
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    async with outage(sessions):
        response = await browser.get("/", headers=vouched("ann"))
    assert not set_cookies(response)
    if policy == "error":
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.headers["cache-control"] == "no-store"
    else:  # nobody knows whether ann has been revoked
        assert response.json() == {"sid": None, "person_id": None, "reason": None, "user": False}
    assert (await browser.see())["sid"] == sid


@pytest.mark.parametrize("policy", ["error", "anonymous"])
async def test_a_logout_that_cannot_be_written_is_not_claimed(
    make_sessions: MakeSessions, policy: str
) -> None:
    sessions = await make_sessions(on_unavailable=policy)
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    async with outage(sessions):
        response = await browser.post("/end-session")
    assert response.status_code == 503
    assert not set_cookies(response)
    assert (await browser.see())["sid"] == sid
    assert (await session_of(sessions, sid)).ended_at is None


async def test_a_touch_that_fails_never_logs_anyone_out(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: list[SessionEvent | Incident] = []
    sessions = await make_sessions(on_event=told.append)
    gate = Gate()
    browser = Browser(make_app(sessions, held(gate)))
    sid = await browser.login("ann")
    clock.turn(timedelta(minutes=2))
    in_flight = asyncio.create_task(browser.get("/held"))
    await gate.reached()
    async with outage(sessions):
        gate.open()
        assert (await in_flight).json() == {"sid": sid}
        await settled(sessions)
    assert [one.count for one in told if one.kind == "touch_failed"] == [1]
    assert (await browser.see())["sid"] == sid


async def test_a_late_answer_never_clears_the_cookie_of_a_newer_login(sessions: Sessions) -> None:
    gate = Gate()
    app = make_app(sessions, held(gate))
    browser = Browser(app)
    await browser.login("ann")
    late = Browser(app)
    late.cookies.update(browser.cookies)
    in_flight = asyncio.create_task(late.get("/held"))
    await gate.reached()
    sid = await browser.login("ann")  # ends the session of the request that still runs
    gate.open()
    assert not set_cookies(await in_flight)
    assert not set_cookies(await late.get("/"))  # nor does one that comes with a dead cookie
    assert (await browser.see())["sid"] == sid


async def test_the_loser_of_a_race_never_clears_the_cookie_of_the_winner(
    make_sessions: MakeSessions,
) -> None:
    processes = [await make_sessions(), await make_sessions()]
    gates = [Gate(), Gate()]
    apps = [
        make_app(sessions, held(gate, sessions.renew_session))
        for sessions, gate in zip(processes, gates, strict=True)
    ]
    browser = Browser(apps[0])
    sid = await browser.login("ann")
    tabs = [Browser(app) for app in apps]
    for tab in tabs:
        tab.cookies.update(browser.cookies)
    in_flight = [asyncio.create_task(tab.post("/held")) for tab in tabs]
    for gate in gates:
        await gate.reached()
    for gate in gates:
        gate.open()
    answers = await asyncio.gather(*in_flight)

    assert [answer.json() for answer in answers] == [{"sid": sid}, {"sid": sid}]
    (cookie,) = [line for answer in answers for line in set_cookies(answer)]
    assert cookie_value(cookie)
    for tab in tabs:
        assert (await tab.see())["sid"] == sid


async def test_a_second_click_on_a_renewal_is_no_theft(sessions: Sessions) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    sid = await browser.login("ann")
    clicks = [Browser(app), Browser(app)]  # sent before either answer has arrived
    for click in clicks:
        click.cookies.update(browser.cookies)
    answers = [await click.post("/renew") for click in clicks]
    for cookie in [cookie_value(line) for answer in answers for line in set_cookies(answer)]:
        assert (await see_with(app, sessions, cookie))["sid"] == sid


@pytest.mark.parametrize("way", ["bare", "unsigned", "foreign key", "our key", "token's claim"])
async def test_a_client_never_chooses_its_own_sid(
    sessions: Sessions, clock: Clock, way: str
) -> None:
    chosen = Token(new_sid(clock(), lambda n: b"\1" * n), new_secret(lambda n: b"\2" * n))
    values = {
        "bare": chosen.sid,
        "unsigned": f"{chosen.sid}.{chosen.secret}.{'A' * 43}",
        "foreign key": Keys("another key of 32 characters....", (), purpose="default").sign(chosen),
        # Signed by us once, but its row has long been purged.
        "our key": Keys(KEY, (), purpose="default").sign(chosen),
        "token's claim": "",
    }
    browser = Browser(make_app(sessions))
    browser.cookies.set(sessions.cookie_name, values[way])
    assert (await browser.see())["sid"] is None
    claim = {"sid": chosen.sid} if way == "token's claim" else {}
    vouched_for = await browser.see_as("ann", **claim)
    logged_in = await browser.login("ann")
    assert None not in (vouched_for["sid"], logged_in)
    assert chosen.sid not in (vouched_for["sid"], logged_in)
    assert await sessions.get_by_id(chosen.sid) is None


async def test_a_secret_never_appears_outside_of_the_cookie(
    make_sessions: MakeSessions, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    told: list[object] = []
    sessions = await make_sessions(on_event=told.append, old_secret_keys=[OLD_KEY])

    async def show(request: Request) -> None:
        await sessions.start_session(request, {"id": "ann"})
        call = request.scope[sessions._key]
        told.extend([call.row, call.token, request.state.session, request.state.sid])
        assert repr(call.row.secret_hash) not in repr(call.row)

    browser = Browser(make_app(sessions, doing(show)))
    cookies: set[str] = set()

    async def ask(method: str, url: str, **headers: str) -> None:
        response = await browser.request(method, url, headers=headers)
        told.extend([response.text, str(response.url)])
        for line in set_cookies(response):
            cookies.add(cookie_value(line))
            response.headers.pop("set-cookie")
        told.append(response.headers.multi_items())

    await ask("GET", "/", **vouched("ann"))
    await ask("POST", "/login?person=ann")
    stolen = cookie_of(browser, sessions)
    await ask("POST", "/renew")
    await ask("GET", "/")
    clock.turn(timedelta(minutes=2))
    told.append(await see_with(make_app(sessions), sessions, stolen))
    await ask("POST", "/doing")
    async with outage(sessions):
        await ask("GET", "/")
        with pytest.raises(SessionsUnavailable) as unavailable:
            await sessions.list_sessions("ann")
    told.extend([unavailable.value, unavailable.value.__cause__])
    with pytest.raises(ConfigurationError) as short:
        Sessions("sqlite:///x.db", secret_key=KEY[:31])
    told.append(short.value)
    told.extend(await sessions.list_sessions("ann", include_ended=True))
    told.extend(await table_of(sessions))
    told.extend([sessions, sessions._core.settings, sessions._core.settings.keys])
    told.extend(vars(record) for record in caplog.records)

    cookies.discard("")
    assert len(cookies) == 4  # vouched for, logged in, renewed, logged in again
    kinds = {event.kind for event in told if isinstance(event, SessionEvent)}
    assert kinds == {"started", "ended", "renewed", "reuse_detected"}
    everything = "\n".join(f"{thing!r} {thing}" for thing in told)
    for cookie in cookies:
        sid, secret, signature = cookie.split(".")
        assert sid in everything  # the test looks in the right places
        assert secret not in everything
        assert signature not in everything
    for key in (KEY[:31], OLD_KEY):
        assert key not in everything


async def test_a_person_never_sees_or_ends_the_session_of_another(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions()
    other_app = await make_sessions(app_id="other")
    ann, eve = Browser(make_app(sessions)), Browser(make_app(sessions))
    anns, eves = await ann.login("ann"), await eve.login("eve")
    clock.turn(timedelta(seconds=1))
    in_other_app = await Browser(make_app(other_app)).login("eve")

    assert [session.id for session in await sessions.list_sessions("ann")] == [anns]
    page = await sessions.list_sessions("eve", app_id="default", before=in_other_app)
    assert [session.id for session in page] == [eves]
    unknown = str(uuid4())
    for sid in (anns, unknown):  # the answer does not tell which of them there is
        assert await sessions.end_session_by_id(sid, person_id="eve") is None
    assert (await eve.post("/end-others")).json() == 0  # neither ann's nor those of another app
    assert await sessions.end_all_sessions("eve", app_id="other") == 1
    assert await sessions.end_all_sessions("eve") == 1
    assert (await ann.see())["sid"] == anns
    assert (await eve.see())["sid"] is None


async def test_a_row_is_never_made_per_request(make_sessions: MakeSessions) -> None:
    processes = [await make_sessions(), await make_sessions()]
    apps = [make_app(sessions) for sessions in processes]

    async def one(number: int) -> str | None:  # an API client that keeps no cookie
        sid: str | None = (await Browser(apps[number % 2]).see_as("ann"))["sid"]
        return sid

    sids = {*await asyncio.gather(*map(one, range(40)))}
    sids |= {await one(number) for number in range(20)}
    assert len(sids) == 1
    for app in apps:
        for _ in range(10):
            assert (await Browser(app).see())["sid"] is None  # nobody is there
            response = await Browser(app).options("/", headers=vouched("ben"))
            assert response.json()["sid"] is None
    assert len(await table_of(processes[0])) == 1


async def test_a_session_never_lasts_without_end(make_sessions: MakeSessions, clock: Clock) -> None:
    for endless in ({"idle": timedelta.max, "absolute": timedelta.max}, {"absolute": None}):
        with pytest.raises(ConfigurationError):
            Lifetimes(**{"idle": timedelta(days=1), **endless})  # type: ignore[arg-type]
    sessions = await make_sessions()
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    scope_sid = (await Browser(make_app(sessions)).see_as("ben"))["sid"]
    (end,) = {(await session_of(sessions, s)).expires_at for s in (sid, scope_sid)}
    assert end == clock() + AAL1.absolute
    while clock() + timedelta(days=7) < end:  # however busy it is, and however often renewed
        clock.turn(timedelta(days=7))
        assert (await browser.post("/renew")).json()["sid"] == sid
        assert (await browser.see())["sid"] == sid
        assert (await session_of(sessions, sid)).expires_at == end
    clock.now = end
    assert await browser.see() == {
        "sid": None,
        "person_id": None,
        "reason": "expired",
        "user": False,
    }
    await sessions.purge()
    assert all(row["ended_at"] is not None for row in await table_of(sessions))


# --- the cookie: stolen, planted, forged ----------------------------------------------------------


async def test_fixation_a_login_keeps_nothing_of_a_planted_session(sessions: Sessions) -> None:
    app = make_app(sessions)
    attacker, victim = Browser(app), Browser(app)
    planted = await attacker.login("eve")
    victim.cookies.update(attacker.cookies)
    sid = await victim.login("ann")
    assert sid != planted
    assert cookie_of(victim, sessions) != cookie_of(attacker, sessions)
    assert (await attacker.see()) == {
        "sid": None,
        "person_id": None,
        "reason": "replaced",
        "user": False,
    }


@pytest.mark.parametrize("end", ["logout", "revoked", "idle", "too old"])
async def test_replay_a_cookie_is_worth_nothing_after_its_session(
    make_sessions: MakeSessions, clock: Clock, end: str
) -> None:
    sessions, restarted = await make_sessions(), await make_sessions()
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    cookie = cookie_of(browser, sessions)
    if end == "logout":
        await browser.post("/end-session")
    elif end == "revoked":
        await sessions.end_session_by_id(sid)
    else:
        clock.turn(AAL1.idle if end == "idle" else AAL1.absolute)
    assert await sessions.list_sessions("ann") == []
    for process in (sessions, restarted, sessions):
        seen = await see_with(make_app(process), process, cookie)
        assert (seen["sid"], seen["person_id"]) == (None, None)


async def test_forgery_a_changed_cookie_costs_no_database_access(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(sessions)
    ann, ben = Browser(app), Browser(app)
    await ann.login("ann")
    await ben.login("ben")
    good, other = cookie_of(ann, sessions), cookie_of(ben, sessions)
    forged = [good[:i] + ("B" if c == "A" else "A") + good[i + 1 :] for i, c in enumerate(good)]
    forged += [good[:-1], good + "A", good[1:], good + "=", good.upper(), f'"{good}"', " ", "."]
    mine, theirs = good.split("."), other.split(".")
    forged += [".".join([*mine[:i], theirs[i], *mine[i + 1 :]]) for i in range(3)]
    forged += ["A" * 100_000, good + "." * 400]
    no_database(sessions, monkeypatch)
    for value in forged:
        assert (await see_with(app, sessions, value))["sid"] is None, value


async def test_knowing_a_sid_gives_no_access(sessions: Sessions) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    sid = await browser.login("ann")
    stranger = Browser(app, address="203.0.113.66")
    assert (await see_with(app, sessions, sid))["sid"] is None
    assert (await stranger.see(authorization=f"Bearer {sid}"))["sid"] is None
    response = await stranger.get("/", params={"sid": sid, sessions.cookie_name: sid})
    assert response.json()["sid"] is None
    # A token of somebody else that claims it:
    assert (await stranger.see_as("eve", sid=sid))["person_id"] == "eve"
    assert (await session_of(sessions, sid)).ended_at is None


async def test_tossing_a_cookie_from_a_sub_domain_takes_nobody_over(sessions: Sessions) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    sid = await browser.login("ann")
    good = cookie_of(browser, sessions)
    gone = Browser(app)
    await gone.login("eve")
    dead = cookie_of(gone, sessions)
    await gone.post("/end-session")
    for tossed in ("x" * 124, good[:-1] + "_", "", dead):
        for values in ((tossed, good), (good, tossed)):
            assert (await see_with(app, sessions, *values))["sid"] == sid
    # And browsers refuse one of this name that a sub-domain sets.
    assert sessions.cookie_name.startswith("__Host-")


async def test_a_cookie_of_another_app_is_worth_nothing(make_sessions: MakeSessions) -> None:
    sessions, other = await make_sessions(), await make_sessions(app_id="other")
    browser = Browser(make_app(other))
    await browser.login("ann")
    cookie = cookie_of(browser, other)
    assert (await see_with(make_app(sessions), sessions, cookie))["sid"] is None
    assert (await see_with(make_app(other), other, cookie))["person_id"] == "ann"


async def test_theft_a_superseded_secret_ends_the_session_for_both(
    sessions: Sessions, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    sid = await browser.login("ann")
    stolen = cookie_of(browser, sessions)
    await browser.post("/renew")
    assert (await browser.see())["sid"] == sid
    clock.turn(timedelta(seconds=61))
    assert (await see_with(app, sessions, stolen))["reason"] == "reuse"
    assert (await browser.see())["reason"] == "reuse"
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert warning.getMessage() == f"session reuse detected: {sid}"


async def test_a_retired_key_is_good_until_it_is_dropped(make_sessions: MakeSessions) -> None:
    old = await make_sessions(secret_key=OLD_KEY)
    browser = Browser(make_app(old))
    sid = await browser.login("ann")
    cookie = cookie_of(browser, old)
    rotated = await make_sessions(old_secret_keys=[OLD_KEY])
    assert (await see_with(make_app(rotated), rotated, cookie))["sid"] == sid
    fresh = Browser(make_app(rotated))
    await fresh.login("ann")
    assert (await see_with(make_app(old), old, cookie_of(fresh, rotated)))["sid"] is None
    dropped = await make_sessions()
    assert (await see_with(make_app(dropped), dropped, cookie))["sid"] is None


async def test_the_cookie_is_out_of_reach_for_scripts_networks_and_other_hosts(
    sessions: Sessions,
) -> None:
    response = await Browser(make_app(sessions)).post("/login?person=ann")
    (cookie,) = set_cookies(response)
    pair, *attributes = cookie.split("; ")
    assert pair.startswith("__Host-sid=")
    assert len(pair) < 200
    assert set(attributes) == {"HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=2592000"}
    refused: list[dict[str, Any]] = [{"cookie_samesite": "none"}, {"cookie_partitioned": True}]
    for impossible in refused:
        with pytest.raises(ConfigurationError):
            Sessions("sqlite:///x.db", secret_key=KEY, cookie_secure=False, **impossible)


# --- where things leak ----------------------------------------------------------------------------


async def test_a_cache_never_hands_one_persons_answer_to_another(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    for path in ("/login?person=ann", "/renew", "/end-session"):
        response = await browser.post(path)
        assert set_cookies(response)
        assert response.headers.get_list("cache-control") == ["no-store"]
        assert "Cookie" in response.headers["vary"]
    await browser.login("ann")
    response = await browser.get("/")
    assert not set_cookies(response)
    assert response.headers["vary"] == "Cookie"
    assert response.headers.get_list("cache-control") == ["private"]
    stranger = await Browser(make_app(sessions)).get("/")
    assert stranger.headers["vary"] == "Cookie"
    assert "cache-control" not in stranger.headers


async def test_a_stolen_table_opens_no_session(sessions: Sessions) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    sid = await browser.login("ann")
    (row,) = await table_of(sessions)
    digests = [value for value in row.values() if isinstance(value, bytes)]
    assert len(digests) == 2  # of the secret and of the device
    # Even together with the key that signs:
    keys = Keys(KEY, (), purpose="default")
    for value in digests:
        secret = urlsafe_b64encode(value).rstrip(b"=").decode()
        forged = keys.sign(Token(sid, secret))
        assert (await see_with(app, sessions, forged))["sid"] is None


async def test_addresses_are_kept_as_far_as_allowed(make_sessions: MakeSessions) -> None:
    kept = {"full": "192.0.2.77", "truncated": "192.0.2.0", "none": None}
    assert set(kept) == set(get_args(StoreIP))
    for store_ip, address in kept.items():
        sessions = await make_sessions(store_ip=store_ip)
        sid = await Browser(make_app(sessions), address="192.0.2.77").login("ann")
        assert (await session_of(sessions, sid)).ip_address == address


# --- other sites ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},  # a sister host, which the cookie is not shared with
        {"sec-fetch-site": ""},
        {"origin": "https://evil.example"},
        {"origin": "https://test.evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site", "origin": "https://test"},
    ],
)
async def test_csrf_another_site_logs_nobody_out(
    sessions: Sessions, headers: dict[str, str]
) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    response = await browser.post("/end-session", headers=headers)
    assert response.status_code == 403
    assert not set_cookies(response)
    assert (await browser.see())["sid"] == sid


async def test_csrf_a_link_or_an_image_logs_nobody_out(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    for method in ("GET", "HEAD", "PUT", "DELETE", "OPTIONS"):
        response = await browser.request(method, "/end-session")
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
    assert (await browser.see())["sid"] == sid


async def test_open_redirect_no_request_decides_where_a_logout_leads(sessions: Sessions) -> None:
    for elsewhere in (
        "//evil.example",
        "/\\evil.example",
        "evil",
        "javascript:alert(1)",
        "",
        "\t/",
    ):
        with pytest.raises(ConfigurationError, match="redirect_to"):
            sessions.end_session_endpoint(redirect_to=elsewhere)
    logout = Route("/bye", sessions.end_session_endpoint(redirect_to="/welcome"))
    browser = Browser(make_app(sessions, logout))
    for query in ("", "?redirect_to=//evil.example", "?next=//evil.example"):
        response = await browser.post(f"/bye{query}", headers={"referer": "https://evil.example"})
        assert response.status_code == 303
        assert response.headers["location"] == "/welcome"


# --- WebSockets -----------------------------------------------------------------------------------


class Wire:
    """The server's side of one WebSocket."""

    def __init__(self, app: ASGIApp, cookie: str) -> None:
        self.sent: list[Message] = []
        self.to_app: asyncio.Queue[Message] = asyncio.Queue()
        self.changed = asyncio.Event()
        self.to_app.put_nowait({"type": "websocket.connect"})
        scope = {
            "type": "websocket",
            "path": "/ws",
            "headers": [(b"cookie", cookie.encode())],
            "client": ("192.0.2.1", 1),
        }
        self.task = asyncio.create_task(self._run(app, scope))

    async def _run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        await app(scope, self.to_app.get, self._send)
        await touched()

    async def _send(self, message: Message) -> None:
        self.sent.append(message)
        self.changed.set()

    async def until(self, kind: str) -> Message:
        async with asyncio.timeout(10):
            while True:
                for message in self.sent:
                    if message["type"] == kind:
                        return message
                self.changed.clear()
                await self.changed.wait()


def chat() -> WebSocketRoute:
    async def endpoint(socket: WebSocket) -> None:
        await socket.accept()
        await socket.send_json({"sid": socket.state.sid})
        async for _ in socket.iter_text():
            pass

    return WebSocketRoute("/ws", endpoint)


@pytest.mark.parametrize("how", ["here", "in another process", "by its age"])
async def test_riding_on_a_socket_ends_with_the_session(
    make_sessions: MakeSessions, clock: Clock, how: str
) -> None:
    here = await make_sessions(socket_check_interval=timedelta(hours=1))
    there = await make_sessions()
    app = make_app(here)
    app.router.routes.append(chat())
    browser = Browser(app)
    sid = await browser.login("ann")
    wire = Wire(app, f"{here.cookie_name}={cookie_of(browser, here)}")
    assert sid in (await wire.until("websocket.send"))["text"]
    if how == "here":
        await here.end_session_by_id(sid)
    else:
        if how == "by its age":
            clock.turn(AAL1.absolute)
        else:
            await there.end_session_by_id(sid)
        await check_what_is_open(here)  # which runs every `socket_check_interval`
    assert (await wire.until("websocket.close"))["code"] == 1008
    await wire.task


# --- people ---------------------------------------------------------------------------------------


async def test_a_revoked_person_stays_out_though_another_layer_vouches(
    sessions: Sessions, clock: Clock
) -> None:
    app = make_app(sessions)
    with_jar, without = Browser(app), Browser(app, agent="curl")
    signed_out = {"sid": None, "person_id": None, "reason": "revoked", "user": False}
    await with_jar.see_as("ann")
    await without.see_as("ann")
    without.cookies.clear()
    assert await sessions.end_all_sessions("ann") == 2
    for _ in range(2):
        assert await with_jar.see_as("ann") == signed_out
        assert await without.see_as("ann") == signed_out
    before = clock().timestamp()
    assert await with_jar.see_as("ann", auth_time=before) == signed_out
    clock.turn(timedelta(minutes=1))
    again = await with_jar.see_as("ann", auth_time=clock().timestamp())
    assert again["person_id"] == "ann"


async def test_a_change_of_person_ends_the_session_of_the_first(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    first = await browser.login("ann")
    seen = await browser.see_as("ben")
    assert seen["person_id"] == "ben"
    assert seen["sid"] != first
    assert (await session_of(sessions, first)).end_reason == "person_changed"


@pytest.mark.parametrize("person_id", ["", " ", "a\0b", "x" * 256, "\ud800"])
async def test_a_person_whom_no_row_can_hold_is_not_let_in(
    sessions: Sessions, person_id: str
) -> None:
    seen = await Browser(make_app(sessions)).see_as(person_id)
    assert seen == {"sid": None, "person_id": None, "reason": None, "user": False}


@pytest.mark.parametrize("fault", ["exception", "500"])
async def test_a_login_that_was_not_delivered_leaves_no_session(
    sessions: Sessions, fault: str
) -> None:
    async def fail(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        if fault == "exception":
            raise RuntimeError
        return Response(status_code=500)

    app = make_app(sessions, Route("/fail", fail, methods=["POST"]))
    response = await Browser(app, raise_app_exceptions=False).post("/fail")
    assert response.status_code == 500
    assert not set_cookies(response)
    (row,) = await sessions.list_sessions("ann", include_ended=True)
    assert row.end_reason == "not_delivered"


# --- floods and garbage ---------------------------------------------------------------------------


async def test_a_flood_of_logins_stops_at_the_cap(make_sessions: MakeSessions) -> None:
    processes = [await make_sessions(max_sessions_per_person=3) for _ in range(2)]
    apps = [make_app(sessions) for sessions in processes]
    browsers = [Browser(apps[n % 2], agent=f"bot {n}") for n in range(12)]
    sids = await asyncio.gather(*(browser.login("ann") for browser in browsers))
    rows = await processes[0].list_sessions("ann", include_ended=True)
    assert {row.id for row in rows} == set(sids)
    assert [row.end_reason for row in rows].count(None) == 3
    assert {row.end_reason for row in rows} == {None, "limit"}


async def test_strangers_cost_no_database_access(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(sessions)
    no_database(sessions, monkeypatch)
    stranger = Browser(app)
    assert (await stranger.see())["sid"] is None
    crowd = "; ".join(f"{sessions.cookie_name}={'x' * 124}{n}" for n in range(500))
    assert (await stranger.see(cookie=crowd))["sid"] is None
    assert (await stranger.see(cookie="theme=dark; other=1"))["sid"] is None


async def test_a_hostile_user_agent_is_kept_harmless(sessions: Sessions) -> None:
    app = make_app(sessions)
    for agent in ("A" * 60_000, "\x1b[2J\x07", "a\x00b", "\xff\xfe", "'; DROP TABLE sessions; --"):
        browser = Browser(app)
        browser.headers = httpx.Headers([(b"user-agent", agent.encode("latin-1"))])
        kept = (await session_of(sessions, await browser.login("ann"))).user_agent
        assert kept is not None
        assert len(kept) <= 500
        assert kept.isprintable()


async def test_injection_an_argument_is_never_sql(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    evil = "' OR '1'='1"
    assert await sessions.get_by_id(evil) is None
    assert await sessions.end_session_by_id(evil) is None
    assert await sessions.end_session_by_id(sid, person_id=evil) is None
    assert await sessions.list_sessions(evil) == []
    assert await sessions.end_all_sessions(evil, app_id=evil, except_sid=evil) == 0
    with pytest.raises(InvalidSession, match="before"):
        await sessions.list_sessions("ann", before=evil)
    with pytest.raises(ConfigurationError, match="table_name"):
        Sessions("sqlite:///x.db", secret_key=KEY, table_name=f"sessions {evil}")
    assert (await browser.see())["sid"] == sid
