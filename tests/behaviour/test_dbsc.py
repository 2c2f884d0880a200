"""Device-bound sessions, without a browser: what is granted, and what is refused and why."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import fastapi
import httpx
import litestar
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from joserfc.jwk import OctKey
from joserfc.jws import serialize_compact
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from asgi_sessions import (
    ConfigurationError,
    Incident,
    SessionEvent,
    SessionMiddleware,
    Sessions,
    SessionsUnavailable,
)
from asgi_sessions._connection.context import RequestContext
from asgi_sessions._dbsc import headers
from asgi_sessions._dbsc.challenge import LIFETIME
from asgi_sessions._dbsc.offers import LEAST_TIME, MOST_OFFERS
from asgi_sessions._dbsc.record import REMEMBERED, DeviceRecord
from asgi_sessions._dbsc.refusal import Reason
from asgi_sessions._model.tokens import microseconds
from asgi_sessions._service.rate_limit import APART, EVERY
from asgi_sessions.dbsc import DBSC, SkipReason
from tests.conftest import MakeSessions
from tests.project.test_docs import DOCS, table
from tests.support import KEY, OLD_KEY, Browser, Clock, make_app, set_cookies, vouched
from tests.support.devices import (
    BOUND,
    BY_ITSELF,
    PATH,
    Device,
    DeviceBrowser,
    b64,
    challenged,
    number,
    offered,
)

PAGE = DOCS / "dbsc.md"
SECOND = timedelta(seconds=1)
LIFE = timedelta(minutes=10)
SID = "__Host-sid"
RSA = Device("RS256")


@dataclass
class World:
    """An app whose sessions may be bound, and what was told of them."""

    sessions: Sessions
    clock: Clock
    caplog: pytest.LogCaptureFixture
    told: list[SessionEvent | Incident] = field(default_factory=list)

    def browser(self, **options: Any) -> DeviceBrowser:
        return DeviceBrowser(make_app(self.sessions), **options)

    def reasons(self) -> list[str]:
        """Why devices were refused so far, as the log has it."""
        return [
            vars(record)["reason"]
            for record in self.caplog.records
            if vars(record).get("event") == "device_refused"
        ]

    async def record(self, sid: str) -> DeviceRecord:
        row = await self.sessions._core.store.by_sid(sid)
        assert row is not None
        assert row.binding is not None
        return DeviceRecord.read(row.binding)

    async def is_bound(self, sid: str) -> bool:
        session = await self.sessions.get_by_id(sid)
        assert session is not None
        return session.bound


MakeWorld = Callable[..., Awaitable[World]]


@pytest.fixture
async def make_world(
    anyio_backend: str, tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> AsyncIterator[MakeWorld]:
    caplog.set_level(logging.INFO, "asgi_sessions.security")
    made: list[Sessions] = []

    async def make(dbsc: DBSC | None = DBSC(), **options: Any) -> World:  # noqa: B008 -- frozen
        told: list[SessionEvent | Incident] = []
        sessions = Sessions(
            f"sqlite:///{tmp_path}/sessions.db",
            dbsc=dbsc,
            **{"secret_key": KEY, "clock": clock, "on_event": told.append, **options},
        )
        made.append(sessions)
        await sessions.create_tables()
        return World(sessions, clock, caplog, told)

    yield make
    for sessions in made:
        await sessions.disconnect()


@pytest.fixture
async def world(make_world: MakeWorld) -> World:
    return await make_world()


# --- the offer ------------------------------------------------------------------------------------


async def test_a_login_and_a_renewal_offer_to_bind_and_nothing_else_does(world: World) -> None:
    browser = world.browser()
    login = await browser.post("/login?person=ann")
    first = offered(login)
    assert first is not None
    assert set_cookies(login, BOUND) == []
    assert offered(await browser.get("/")) is None
    second = offered(await browser.post("/renew"))
    assert second not in (None, first)
    browser.offer = second
    assert (await browser.register()).status_code == 200
    assert offered(await browser.post("/renew")) is None  # it is bound
    assert offered(await browser.post("/logout")) is None


async def test_a_login_that_fails_offers_nothing(world: World) -> None:
    async def fail(request: Request) -> Response:
        await world.sessions.start_session(request, "ann")
        return Response(status_code=500)

    browser = Browser(make_app(world.sessions, Route("/fail", fail)))
    assert offered(await browser.get("/fail")) is None


async def test_a_session_that_another_layer_vouches_for_is_not_worth_binding(world: World) -> None:
    browser = world.browser()
    response = await browser.get("/", headers=vouched("ann"))
    assert set_cookies(response)
    assert offered(response) is None


async def test_a_login_over_a_websocket_offers_it_too(world: World) -> None:
    async def enter(websocket: WebSocket) -> None:
        await world.sessions.start_session(websocket, "ann")
        await websocket.accept()
        await websocket.close()

    app = make_app(world.sessions, WebSocketRoute("/enter", enter))
    with TestClient(app, base_url="https://test").websocket_connect("/enter") as socket:
        sent: Any = socket.extra_headers
        names = [name for name, _ in sent]
    assert b"set-cookie" in names
    assert b"secure-session-registration" in names


async def test_without_the_option_nothing_is_offered_and_nothing_answered(
    make_world: MakeWorld,
) -> None:
    world = await make_world(None)
    browser = world.browser()
    await browser.log_in()
    assert browser.offer is None
    assert (await browser.post(f"{PATH}/register")).status_code == 404
    assert not await world.is_bound(browser.sid)


async def test_the_routes_are_where_the_app_is_mounted(world: World) -> None:
    inner = make_app(world.sessions)
    app = Starlette(routes=[Mount("/shop", inner)])
    browser = Browser(app)
    login = await browser.post("/shop/login?person=ann")
    path = f"/shop{PATH}/register"
    assert f'path="{path}"' in login.headers["secure-session-registration"]
    challenge = offered(login)
    assert challenge is not None
    proof = Device().proof(challenge, register=True)
    response = await browser.post(path, headers={**BY_ITSELF, "secure-session-response": proof})
    assert response.json()["refresh_url"] == f"/shop{PATH}/refresh"
    assert (await browser.post(f"{PATH}/register")).status_code == 404
    assert (await browser.post(f"/shop/deeper{PATH}/register")).status_code == 404


def starlette_app(sessions: Sessions) -> ASGIApp:
    return make_app(sessions)


def fastapi_app(sessions: Sessions) -> ASGIApp:
    app = fastapi.FastAPI()

    @app.post("/login")
    async def login(request: Request) -> dict[str, str]:
        return {"sid": (await sessions.start_session(request, "ann")).sid}

    @app.get("/")
    async def home(request: Request) -> dict[str, str | None]:
        return {"sid": request.state.sid}

    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


def litestar_app(sessions: Sessions) -> ASGIApp:
    @litestar.post("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> dict[str, str]:
        return {"sid": (await sessions.start_session(request, "ann")).sid}

    @litestar.get("/")
    async def home(request: litestar.Request[Any, Any, Any]) -> dict[str, str | None]:
        return {"sid": request.state.sid}

    app: Any = litestar.Litestar([login, home])
    return SessionMiddleware(app, sessions=sessions)


@pytest.mark.parametrize("make", [starlette_app, fastapi_app, litestar_app])
async def test_each_framework_binds(world: World, make: Callable[[Sessions], ASGIApp]) -> None:
    browser = DeviceBrowser(make(world.sessions))
    sid = await browser.bound()
    assert (await browser.see())["sid"] == sid
    assert (await browser.refresh()).status_code == 200
    browser.forget()
    assert (await browser.see())["sid"] is None


async def test_the_path_is_the_apps_to_choose(make_world: MakeWorld) -> None:
    world = await make_world(DBSC(path="/device"))
    browser = world.browser()
    login = await browser.post("/login?person=ann")
    assert 'path="/device/register"' in login.headers["secure-session-registration"]
    assert (await browser.get("/device/refresh")).status_code == 405
    assert (await browser.get("/device/other")).status_code == 404


# --- registration ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [Device(), RSA, Device("RS256", bits=4096)])
async def test_a_device_is_bound_by_its_proof(world: World, device: Device) -> None:
    browser = world.browser(device=device)
    await browser.log_in()
    response = await browser.register()
    assert response.status_code == 200
    identifier = response.json()["session_identifier"]
    assert re.fullmatch(rf"{browser.sid}\.[\w-]{{43}}", identifier)
    assert response.json() == {
        "session_identifier": identifier,
        "refresh_url": f"{PATH}/refresh",
        "scope": {"include_site": False},
        "credentials": [
            {
                "type": "cookie",
                "name": BOUND,
                "attributes": "Path=/; Secure; HttpOnly; SameSite=Lax",
            }
        ],
        "allowed_refresh_initiators": ["*"],
    }
    (cookie,) = set_cookies(response, BOUND)
    value, *attributes = cookie.split("; ")
    # As declared, but for how long; a little less than the server holds it to be good.
    declared = {"Path=/", "Secure", "HttpOnly", "SameSite=Lax"}
    assert set(attributes) == declared | {"Max-Age=590"}
    assert len(value) < 512
    assert challenged(response) is not None
    assert (await browser.see())["sid"] == browser.sid
    assert await world.is_bound(browser.sid)
    assert (await browser.refresh()).status_code == 200
    kinds = [one.kind for one in world.told]
    assert kinds == ["started", "bound"]


async def test_the_cookie_is_declared_with_the_samesite_that_it_has(make_world: MakeWorld) -> None:
    for samesite, initiators in (("strict", ["*"]), ("none", [])):
        world = await make_world(cookie_samesite=samesite, table_name=f"s_{samesite}")
        browser = world.browser()
        await browser.log_in()
        response = await browser.register()
        (credential,) = response.json()["credentials"]
        assert credential["attributes"].endswith(f"SameSite={samesite.title()}")
        assert credential["attributes"].split("; ")[-1] in set_cookies(response, BOUND)[0]
        assert response.json()["allowed_refresh_initiators"] == initiators


def without(*parts: int) -> Callable[[str], str]:
    return lambda jwt: ".".join("" if i in parts else p for i, p in enumerate(jwt.split(".")))


P384 = Device(curve="P-384")
SMALL = Device("RS256", bits=1024)
LARGE = Device("RS256", bits=4608)


def hs256(device: Device, challenge: str) -> str:
    """Signed with the public key as if it were a secret: what careless verifiers take."""
    header = {"alg": "HS256", "typ": "dbsc+jwt", "jwk": device.jwk}
    key = OctKey.import_key(json.dumps(device.jwk))
    return serialize_compact(
        header, json.dumps({"jti": challenge}), key, algorithms=["HS256"], registry=None
    )


def unsigned(device: Device, challenge: str) -> str:
    header = {"alg": "none", "typ": "dbsc+jwt", "jwk": device.jwk}
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps({'jti': challenge}).encode())}.AA"


def swapped(device: Device, challenge: str) -> str:
    """The payload of one proof under the signature of another."""
    head, _, signature = device.proof("another", register=True).split(".")
    return f"{head}.{b64(json.dumps({'jti': challenge}).encode())}.{signature}"


#: What is wrong with a registration, by the reason that is told.
WRONG: list[tuple[Reason, str, Callable[[Device, str], str]]] = [
    ("malformed", "empty", lambda d, c: ""),
    ("malformed", "words", lambda d, c: "no proof at all"),
    ("malformed", "two parts", lambda d, c: d.proof(c, register=True).rpartition(".")[0]),
    ("malformed", "four parts", lambda d, c: d.proof(c, register=True) + ".AAAA"),
    ("malformed", "no header", lambda d, c: without(0)(d.proof(c, register=True))),
    ("malformed", "no signature", lambda d, c: without(2)(d.proof(c, register=True))),
    ("malformed", "padded", lambda d, c: d.proof(c, register=True) + "=="),
    ("malformed", "header no JSON", lambda d, c: d.jwt(b"{", {"jti": c})),
    ("malformed", "header no object", lambda d, c: d.jwt(["ES256"], {"jti": c})),
    ("malformed", "header nested", lambda d, c: d.jwt(b"[" * 800, {"jti": c})),
    ("malformed", "crit", lambda d, c: d.proof(c, register=True, crit=["exp"], exp=1)),
    ("malformed", "b64", lambda d, c: d.proof(c, register=True, crit=["b64"], b64=False)),
    ("malformed", "payload no JSON", lambda d, c: signed(d, b"{")),
    ("malformed", "payload nested", lambda d, c: signed(d, b"[" * 700)),
    ("malformed", "payload no object", lambda d, c: signed(d, [c])),
    ("malformed", "no jti", lambda d, c: signed(d, {})),
    ("malformed", "jti no text", lambda d, c: signed(d, {"jti": 7})),
    ("malformed", "long header", lambda d, c: d.proof(c, register=True, kid="x" * 2000)),
    ("too_long", "too long", lambda d, c: d.proof(c, register=True) + "A" * 4096),
    ("wrong_type", "no typ", lambda d, c: d.jwt({"alg": "ES256", "jwk": d.jwk}, {"jti": c})),
    ("wrong_type", "jwt", lambda d, c: d.proof(c, register=True, typ="JWT")),
    ("wrong_type", "typ no text", lambda d, c: d.proof(c, register=True, typ=["dbsc+jwt"])),
    ("wrong_algorithm", "none", unsigned),
    ("wrong_algorithm", "HS256", hs256),
    ("wrong_algorithm", "ES384", lambda d, c: P384.proof(c, register=True, alg="ES384")),
    ("wrong_algorithm", "PS256", lambda d, c: d.proof(c, register=True, alg="PS256")),
    ("wrong_algorithm", "case", lambda d, c: d.proof(c, register=True, alg="es256")),
    ("wrong_algorithm", "alg no text", lambda d, c: d.proof(c, register=True, alg=["ES256"])),
    ("wrong_key", "no key", lambda d, c: d.proof(c)),
    ("wrong_key", "key no object", lambda d, c: d.proof(c, jwk="key")),
    ("wrong_key", "key empty", lambda d, c: d.proof(c, jwk={})),
    ("wrong_key", "key of the other kind", lambda d, c: d.proof(c, jwk=RSA.jwk)),
    ("wrong_key", "key of no kind", lambda d, c: d.proof(c, jwk={**d.jwk, "kty": "oct"})),
    ("wrong_key", "RSA of no kind", lambda d, c: RSA.proof(c, jwk={**RSA.jwk, "kty": "EC"})),
    ("wrong_key", "another curve", lambda d, c: P384.proof(c, register=True)),
    ("wrong_key", "off the curve", lambda d, c: d.proof(c, jwk={**d.jwk, "x": d.jwk["y"]})),
    ("wrong_key", "x no text", lambda d, c: d.proof(c, jwk={**d.jwk, "x": 1})),
    ("wrong_key", "x no base64", lambda d, c: d.proof(c, jwk={**d.jwk, "x": "\u00e9 !"})),
    ("weak_key", "1024 bits", lambda d, c: SMALL.proof(c, register=True)),
    ("weak_key", "4608 bits", lambda d, c: LARGE.proof(c, register=True)),
    ("weak_key", "e 3", lambda d, c: RSA.proof(c, jwk={**RSA.jwk, "e": number(3, 1)})),
    ("bad_signature", "another key", lambda d, c: d.proof(c, jwk=Device().jwk)),
    ("bad_signature", "swapped", swapped),
    ("bad_signature", "RSA", lambda d, c: RSA.proof(c, jwk=Device("RS256").jwk)),
    ("bad_signature", "short", lambda d, c: d.proof(c, register=True)[:-8]),
    ("bad_signature", "zeros", lambda d, c: zeros(d.proof(c, register=True))),
    ("unknown_challenge", "made up", lambda d, c: d.proof("made up", register=True)),
    ("unknown_challenge", "empty", lambda d, c: d.proof("", register=True)),
    ("unknown_challenge", "changed", lambda d, c: d.proof(changed(c), register=True)),
    ("unknown_challenge", "no text", lambda d, c: d.proof("\ud800" + c[1:], register=True)),
    ("unknown_challenge", "no signature", lambda d, c: d.proof(c[:-1] + "\ud800", register=True)),
    ("unknown_challenge", "no ascii", lambda d, c: d.proof(c[:-1] + "\u00e9", register=True)),
]


def signed(device: Device, payload: object) -> str:
    """A right proof but for what it says."""
    return device.jwt({"alg": "ES256", "typ": "dbsc+jwt", "jwk": device.jwk}, payload)


def zeros(jwt: str) -> str:
    return f"{jwt.rpartition('.')[0]}.{b64(bytes(64))}"


def changed(challenge: str) -> str:
    """With another time."""
    return ("B" if challenge[3] == "A" else "A").join((challenge[:3], challenge[4:]))


@pytest.mark.parametrize(
    ("reason", "make"), [pytest.param(r, make, id=f"{r}-{n}") for r, n, make in WRONG]
)
async def test_a_wrong_registration_binds_nothing_and_tells_nothing(
    world: World, reason: Reason, make: Callable[[Device, str], str]
) -> None:
    browser = world.browser()
    await browser.log_in()
    assert browser.offer is not None
    response = await browser.register(make(browser.device, browser.offer))
    assert (response.status_code, response.json()) == (403, {"detail": "refused"})
    assert set_cookies(response, BOUND) == []
    assert challenged(response) is None
    assert world.reasons() == [reason]
    assert not await world.is_bound(browser.sid)
    assert (await browser.see())["sid"] == browser.sid
    assert (await browser.register()).status_code == 200  # the right one is still welcome


async def test_a_registration_needs_its_cookie_and_a_proof(world: World) -> None:
    browser, other = world.browser(), world.browser()
    await browser.log_in()
    await other.log_in("bob")
    assert browser.offer is not None
    proof = browser.device.proof(browser.offer, register=True)
    assert (await other.register(proof)).status_code == 403  # a challenge of another session
    stranger = world.browser()
    assert (await stranger.register(proof)).status_code == 403
    stranger.cookies.set(SID, "x" * 124)
    assert (await stranger.register(proof)).status_code == 403
    assert (await browser.post(f"{PATH}/register", headers=BY_ITSELF)).status_code == 403
    assert world.reasons() == ["unknown_challenge", "no_session", "no_proof"]
    assert not await world.is_bound(browser.sid)
    assert not await world.is_bound(other.sid)


async def test_a_registration_for_a_session_that_is_gone_is_refused(world: World) -> None:
    ended, superseded = world.browser(), world.browser()
    await ended.log_in()
    await world.sessions.end_session_by_id(ended.sid)
    assert (await ended.register()).status_code == 403
    await superseded.log_in()
    old = superseded.cookies[SID]
    superseded.offer = offered(await superseded.post("/renew"))
    await superseded.see()
    world.clock.turn(timedelta(seconds=61))
    superseded.cookies.clear()
    superseded.cookies.set(SID, old)
    assert (await superseded.register()).status_code == 403
    assert world.reasons() == ["no_session", "no_session"]


async def test_a_bound_session_takes_no_second_device(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    before = await world.record(browser.sid)
    for device in (browser.device, Device()):
        again = await browser.register(device.proof(str(browser.offer), register=True))
        assert (again.status_code, set_cookies(again, BOUND)) == (403, [])
    assert world.reasons() == ["used_challenge", "bound_already"]
    assert await world.record(browser.sid) == before


async def test_a_registration_whose_answer_is_lost_locks_nobody_out_and_may_come_again(
    world: World,
) -> None:
    browser = world.browser()
    await browser.log_in()
    proof = browser.device.proof(str(browser.offer), register=True)
    first = await browser.register(proof)
    browser.forget()
    world.clock.turn(LIFETIME - SECOND)
    for headers_of_a_browser in ({}, {"sec_fetch_site": "same-origin"}):
        assert (await browser.see(**headers_of_a_browser))["sid"] == browser.sid
    assert not await world.is_bound(browser.sid)
    again = await browser.register(proof)
    assert (again.status_code, again.json()) == (200, first.json())
    assert len(set_cookies(again, BOUND)) == 1
    assert [one.kind for one in world.told] == ["started"]
    assert (await browser.see())["sid"] == browser.sid
    assert await world.is_bound(browser.sid)
    assert [one.kind for one in world.told] == ["started", "bound"]
    browser.forget()
    assert (await browser.see())["reason"] == "not_bound"
    assert (await browser.register(proof)).status_code == 403  # what is in force takes no replay
    assert world.reasons() == ["no_cookie", "used_challenge"]


async def test_the_first_bound_cookie_puts_the_binding_in_force_for_all(
    make_world: MakeWorld,
) -> None:
    worlds = [await make_world(), await make_world(), await make_world(None)]
    browser, *thieves = (world.browser() for world in (worlds[0], *worlds))
    await browser.log_in()
    await browser.register()
    for thief in thieves:
        thief.cookies.set(SID, browser.cookies[SID])
        assert (await thief.see())["sid"] == browser.sid
    session = await worlds[0].sessions.get_by_id(browser.sid)
    assert session is not None
    assert not session.bound
    both = await asyncio.gather(browser.see(), browser.see())
    assert [one["sid"] for one in both] == [browser.sid] * 2
    for thief in thieves:
        assert (await thief.see())["reason"] == "not_bound"
    assert [one.kind for one in worlds[0].told if one.kind == "bound"] == ["bound"]
    assert (await worlds[0].record(browser.sid)).enforced_at == microseconds(worlds[0].clock())


async def test_a_proof_puts_the_binding_in_force_too(world: World) -> None:
    browser = world.browser()
    await browser.log_in()
    await browser.register()
    assert (await browser.refresh()).status_code == 200
    assert await world.is_bound(browser.sid)
    assert (await browser.refresh()).status_code == 200
    assert [one.kind for one in world.told] == ["started", "bound"]
    browser.forget()
    assert (await browser.see())["sid"] is None


async def test_another_device_takes_the_place_of_one_that_never_came_after_a_renewal_alone(
    world: World,
) -> None:
    browser, second = world.browser(), Device()
    await browser.log_in()
    assert (await browser.register()).status_code == 200
    browser.forget()
    same_offer = await browser.register(second.proof(str(browser.offer), register=True))
    assert (same_offer.status_code, set_cookies(same_offer, BOUND)) == (403, [])
    assert world.reasons() == ["used_challenge"]
    browser.offer = offered(await browser.post("/renew"))
    first, browser.device = browser.device, second
    assert (await browser.register()).status_code == 200
    assert (await browser.see())["sid"] == browser.sid
    assert await world.is_bound(browser.sid)
    assert (await browser.ask(first.proof(str(browser.challenge)))).status_code == 403
    assert (await browser.refresh()).status_code == 200


async def test_a_device_whose_binding_is_in_force_may_register_once_more(world: World) -> None:
    browser = world.browser()
    await browser.log_in()
    await browser.register()
    cookie = browser.forget()
    offer = offered(await browser.post("/renew"))  # which was under way meanwhile
    browser.cookies.set(BOUND, cookie)
    assert (await browser.see())["sid"] == browser.sid
    since = (await world.record(browser.sid)).enforced_at
    proof = browser.device.proof(str(offer), register=True)
    other = await browser.register(Device().proof(str(offer), register=True))
    assert (other.status_code, set_cookies(other, BOUND)) == (403, [])
    assert [(await browser.register(proof)).status_code for _ in range(2)] == [200, 403]
    assert (await world.record(browser.sid)).enforced_at == since
    assert world.reasons() == ["bound_already", "used_challenge"]


async def test_a_first_bound_cookie_that_cannot_be_noted_is_an_outage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = world.browser()
    await browser.log_in()
    await browser.register()

    async def away(*arguments: Any, **options: Any) -> bool:
        raise SessionsUnavailable("away", retry_after=1)

    with monkeypatch.context() as patched:
        patched.setattr(world.sessions._core.store, "bind", away)
        assert (await browser.get("/")).status_code == 503
    assert (await browser.see())["sid"] == browser.sid
    assert await world.is_bound(browser.sid)


async def test_a_challenge_of_a_registration_runs_out_and_dies_with_a_renewal(
    world: World,
) -> None:
    late, renewed = world.browser(), world.browser()
    await late.log_in()
    await renewed.log_in("bob")
    await renewed.post("/renew")
    assert (await renewed.register()).status_code == 403
    world.clock.turn(LIFETIME)
    assert (await late.register()).status_code == 403
    assert world.reasons() == ["unknown_challenge", "expired_challenge"]
    await late.log_in()
    world.clock.turn(LIFETIME - timedelta(microseconds=1))
    assert (await late.register()).status_code == 200


async def test_a_challenge_to_register_is_none_to_refresh_and_the_other_way_round(
    world: World,
) -> None:
    first, second = world.browser(), world.browser()
    await first.bound()
    assert first.offer is not None
    assert (await first.ask(first.device.proof(first.offer))).status_code == 403
    await second.log_in()
    assert first.challenge is not None
    response = await second.register(second.device.proof(first.challenge, register=True))
    assert response.status_code == 403
    assert world.reasons() == ["unknown_challenge"] * 2


# --- a bound session ------------------------------------------------------------------------------


async def test_without_a_live_bound_cookie_there_is_no_session_and_nothing_is_cleared(
    world: World,
) -> None:
    browser = world.browser()
    sid = await browser.bound()
    world.clock.turn(LIFE - timedelta(microseconds=1))
    assert (await browser.see())["sid"] == sid
    world.clock.turn(timedelta(microseconds=1))
    response = await browser.get("/")
    assert response.json() == {
        "sid": None,
        "person_id": None,
        "reason": "not_bound",
        "user": False,
    }
    assert "set-cookie" not in response.headers
    assert response.headers["vary"] == "Cookie"
    browser.forget()
    assert (await browser.see())["reason"] == "not_bound"
    assert (await browser.refresh()).status_code == 200
    assert (await browser.see())["sid"] == sid
    assert world.reasons() == ["no_cookie", "expired_challenge"]


async def test_a_stolen_sid_alone_never_works(world: World) -> None:
    browser, thief = world.browser(), world.browser()
    await browser.bound()
    thief.cookies.set(SID, browser.cookies[SID])
    for _ in range(3):
        assert (await thief.see())["reason"] == "not_bound"
        assert (await thief.see_as("ann"))["user"] is False
        world.clock.turn(LIFE / 2)
        await browser.refresh()


async def test_the_bound_cookie_of_another_session_or_key_is_worth_nothing(world: World) -> None:
    browser, other = world.browser(), world.browser()
    await browser.bound()
    await other.bound()
    mine, theirs = browser.forget(), other.cookies[BOUND]
    sid, tag, thumbprint, until, signature = mine.split(".")
    longer = str(int(until) + 10**9)
    for value in (
        theirs,
        "",
        "x",
        mine[:-1],
        mine + "x",
        f"{sid}.{tag}.{thumbprint}.{longer}.{signature}",
        f"{sid}.{tag}.{theirs.split('.')[2]}.{until}.{signature}",
        f"{sid}.{theirs.split('.')[1]}.{thumbprint}.{until}.{signature}",
        ".".join(theirs.split(".")[:4]) + f".{signature}",
        f"{sid}.{tag}.{thumbprint}",
        f"{sid}.{tag}.{thumbprint}.",
    ):
        response = await browser.get(
            "/", headers={"cookie": f"{SID}={browser.cookies[SID]}; {BOUND}={value}"}
        )
        assert response.json()["reason"] == "not_bound", value
    both = f"{SID}={browser.cookies[SID]}; {BOUND}={theirs}; {BOUND}={mine}"
    assert (await browser.get("/", headers={"cookie": both})).json()["sid"] == browser.sid


async def test_a_cookie_of_another_app_or_key_proves_nothing(make_world: MakeWorld) -> None:
    shop = await make_world(app_id="shop")
    browser = shop.browser()
    sid = await browser.bound()
    cookies = dict(browser.cookies)
    newer = await make_world(app_id="shop", secret_key="abcdefgh" * 4, old_secret_keys=[KEY])
    assert (await signed_in(newer, cookies)) == sid
    refreshed = DeviceBrowser(make_app(newer.sessions), device=browser.device)
    refreshed.cookies.update(cookies)
    refreshed.identifier, refreshed.challenge = browser.identifier, browser.challenge
    answer = await refreshed.ask(browser.device.proof(str(browser.challenge)))
    # By the name that the browser knows it by, though another key signs by now.
    assert answer.json()["session_identifier"] == browser.identifier
    assert browser.identifier in answer.headers["secure-session-challenge"]
    assert newer.sessions._core.settings.keys.signer("dbsc.session").sign(sid or "") != (
        browser.identifier.encode()
    )
    shop.clock.turn(LIFE - SECOND)
    early = await refreshed.get("/")
    assert browser.identifier in early.headers["secure-session-challenge"]
    shop.clock.turn(-(LIFE - SECOND))
    dropped = await make_world(app_id="shop", secret_key=OLD_KEY)
    assert (await signed_in(dropped, cookies)) is None


async def signed_in(world: World, cookies: dict[str, str]) -> str | None:
    browser = world.browser()
    browser.cookies.update(cookies)
    sid: str | None = (await browser.see())["sid"]
    return sid


async def test_a_renewal_of_a_bound_session_keeps_it_bound(world: World) -> None:
    browser = world.browser()
    sid = await browser.bound()
    assert (await browser.post("/renew")).json()["sid"] == sid
    assert (await browser.see())["sid"] == sid
    # What was asked before is not answered after; the browser is asked again.
    assert browser.challenge is not None
    assert (await browser.ask(browser.device.proof(browser.challenge))).status_code == 403
    assert (await browser.refresh()).status_code == 200
    assert await world.is_bound(sid)


async def test_a_new_login_replaces_a_bound_session_whose_device_is_lost(world: World) -> None:
    browser = world.browser()
    old = await browser.bound()
    browser.forget()
    await browser.log_in()
    assert browser.sid != old
    session = await world.sessions.get_by_id(old)
    assert session is not None
    assert session.end_reason == "replaced"
    assert (await browser.see())["sid"] == browser.sid
    assert (await browser.register()).status_code == 200


async def test_a_logout_works_without_the_device_and_takes_both_cookies(world: World) -> None:
    browser = world.browser()
    sid = await browser.bound()
    browser.forget()
    response = await browser.post("/end-session")
    assert [line.partition(";")[0] for line in set_cookies(response, BOUND)] == [f"{BOUND}="]
    assert "Max-Age=0" in set_cookies(response, BOUND)[0]
    assert len(set_cookies(response)) == 1
    session = await world.sessions.get_by_id(sid)
    assert session is not None
    assert session.end_reason == "logout"


async def test_requests_that_left_before_the_bound_cookie_was_there_are_let_in(
    world: World,
) -> None:
    browser = world.browser()
    sid = await browser.bound()
    browser.forget()
    under_way = {"sec_fetch_site": "same-origin"}
    assert (await browser.see(**under_way))["sid"] == sid
    assert (await browser.see())["sid"] is None  # no browser that binds sessions sends this
    world.clock.turn(timedelta(seconds=10))
    assert (await browser.see(**under_way))["reason"] == "not_bound"
    assert (await browser.refresh()).status_code == 200
    browser.forget()
    assert (await browser.see(**under_way))["reason"] == "not_bound"


async def test_a_process_without_the_option_lets_no_bound_session_in(
    make_world: MakeWorld,
) -> None:
    world, without_it = await make_world(), await make_world(None)
    browser = world.browser()
    await browser.bound()
    other = Browser(make_app(without_it.sessions))
    other.cookies.update(browser.cookies)
    assert (await other.see())["reason"] == "not_bound"


async def test_a_websocket_needs_the_device_too(world: World) -> None:
    async def who(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json([websocket.state.sid, websocket.state.session_end_reason])
        await websocket.close()

    browser = world.browser()
    sid = await browser.bound()
    app = make_app(world.sessions, WebSocketRoute("/who", who))

    def ask(cookies: dict[str, str]) -> object:
        client = TestClient(app, base_url="https://test", cookies=cookies)
        with client.websocket_connect("/who") as socket:
            return socket.receive_json()

    cookies = dict(browser.cookies)
    assert await asyncio.to_thread(ask, cookies) == [sid, None]
    del cookies[BOUND]
    assert await asyncio.to_thread(ask, cookies) == [None, "not_bound"]


def statements(world: World) -> list[str]:
    """What the database is asked from now on."""
    driver: Any = world.sessions._core.store.engines.here.driver
    asked: list[str] = []

    def counting(do: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(raw: object, sql: str, params: Sequence[Any]) -> Any:
            asked.append(sql)
            return await do(raw, sql, params)

        return counted

    driver.fetch, driver.execute = counting(driver.fetch), counting(driver.execute)
    return asked


async def test_a_bound_session_costs_no_further_query(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    asked = statements(world)
    assert (await browser.see())["sid"] == browser.sid
    assert len(asked) == 1
    browser.forget()
    assert (await browser.see())["sid"] is None
    assert len(asked) == 2


# --- refreshes ------------------------------------------------------------------------------------


async def test_a_refresh_takes_one_round_trip_and_may_come_early_and_often(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    for _ in range(2 * REMEMBERED):
        assert browser.challenge is not None
        response = await browser.ask(browser.device.proof(browser.challenge))
        assert response.status_code == 200
        assert response.json()["session_identifier"] == browser.identifier
        assert len(set_cookies(response, BOUND)) == 1
        world.clock.turn(timedelta(minutes=2))
    assert (await browser.see())["sid"] == browser.sid
    assert world.reasons() == []


async def test_a_refresh_without_a_live_challenge_takes_two_and_is_no_fault(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    world.clock.turn(LIFE)
    assert browser.challenge is not None
    asked = await browser.ask()
    assert (asked.status_code, set_cookies(asked, BOUND)) == (403, [])
    world.clock.turn(LIFETIME)
    expired = await browser.ask(browser.device.proof(browser.challenge))
    assert (expired.status_code, set_cookies(expired, BOUND)) == (403, [])
    assert (await browser.ask(browser.device.proof(browser.challenge))).status_code == 200
    assert world.reasons() == ["expired_challenge"]
    assert [one.kind for one in world.told] == ["started", "bound"]  # nothing is amiss


async def test_a_proof_is_good_once(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    assert browser.challenge is not None
    proof = browser.device.proof(browser.challenge)
    assert (await browser.ask(proof)).status_code == 200
    for _ in range(REMEMBERED + 1):  # also when it is no longer remembered
        replayed = await browser.ask(proof)
        assert (replayed.status_code, set_cookies(replayed, BOUND)) == (403, [])
        assert (await browser.refresh()).status_code == 200
    assert world.reasons() == ["used_challenge"]


async def test_challenges_of_parallel_tabs_are_good_in_any_order(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    challenges = []
    for _ in range(REMEMBERED):
        challenges.append(challenged(await browser.ask()))
        world.clock.turn(SECOND)
    for challenge in reversed(challenges):
        assert (await browser.ask(browser.device.proof(str(challenge)))).status_code == 200
    for challenge in challenges:
        assert (await browser.ask(browser.device.proof(str(challenge)))).status_code == 403


async def test_a_storm_of_refreshes_is_answered_and_each_proof_counted_once(
    make_world: MakeWorld,
) -> None:
    worlds = [await make_world(), await make_world()]  # two processes
    browser = worlds[0].browser()
    await browser.bound()
    challenges = [str(challenged(await browser.ask())) for _ in range(6)]
    proofs = [browser.device.proof(challenge) for challenge in challenges * 2]
    others = [world.browser() for world in worlds]
    for other in others:
        other.identifier = browser.identifier
    answers = await asyncio.gather(
        *(others[i % 2].ask(proof) for i, proof in enumerate(proofs)),
        *(others[0].get("/") for _ in range(4)),
    )
    granted = [one for one in answers[: len(proofs)] if set_cookies(one, BOUND)]
    assert {one.status_code for one in answers} <= {200, 403}
    assert 1 <= len(granted) <= len(challenges)


async def test_a_refresh_that_others_are_always_faster_than_may_try_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = world.browser()
    await browser.bound()

    async def too_late(*arguments: Any, **options: Any) -> bool:
        return False

    with monkeypatch.context() as patched:
        patched.setattr(world.sessions._core.store, "bind", too_late)
        response = await browser.ask(browser.device.proof(str(browser.challenge)))
    assert (response.status_code, set_cookies(response, BOUND)) == (403, [])
    assert (await browser.refresh()).status_code == 200


async def test_a_server_whose_clock_is_behind_asks_what_can_be_answered(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    world.clock.turn(timedelta(seconds=30))  # the other server, ahead
    for _ in range(REMEMBERED):
        assert (await browser.refresh()).status_code == 200
    world.clock.turn(timedelta(seconds=-30))
    browser.challenge = None
    assert (await browser.ask()).status_code == 403
    assert (await browser.ask(browser.device.proof(str(browser.challenge)))).status_code == 200


WRONG_REFRESH: list[tuple[Reason, str, Callable[[Device, str], str]]] = [
    ("malformed", "empty", lambda d, c: ""),
    ("malformed", "no signature", lambda d, c: without(2)(d.proof(c))),
    ("too_long", "too long", lambda d, c: d.proof(c) + "A" * 4096),
    ("wrong_type", "jwt", lambda d, c: d.proof(c, typ="JWT")),
    ("wrong_algorithm", "none", unsigned),
    ("wrong_algorithm", "HS256", hs256),
    ("wrong_algorithm", "RS256", lambda d, c: RSA.proof(c)),
    ("key_in_refresh", "key", lambda d, c: d.proof(c, register=True)),
    ("key_in_refresh", "no key in it", lambda d, c: d.proof(c, jwk=None)),
    ("bad_signature", "another device", lambda d, c: Device().proof(c)),
    ("bad_signature", "zeros", lambda d, c: zeros(d.proof(c))),
    ("unknown_challenge", "made up", lambda d, c: d.proof("made up")),
    ("unknown_challenge", "changed", lambda d, c: d.proof(changed(c))),
]


@pytest.mark.parametrize(
    ("reason", "make"), [pytest.param(r, make, id=f"{r}-{n}") for r, n, make in WRONG_REFRESH]
)
async def test_a_wrong_proof_renews_nothing(
    world: World, reason: Reason, make: Callable[[Device, str], str]
) -> None:
    browser = world.browser()
    await browser.bound()
    before = await world.record(browser.sid)
    assert browser.challenge is not None
    response = await browser.ask(make(browser.device, browser.challenge))
    assert (response.status_code, response.json()) == (403, {"detail": "refused"})
    assert set_cookies(response, BOUND) == []
    assert world.reasons() == [reason]
    assert await world.record(browser.sid) == before
    assert (await browser.refresh()).status_code == 200  # the browser may try again


async def test_a_proof_for_another_session_of_the_same_device_renews_nothing(world: World) -> None:
    device = Device()
    first, second = world.browser(device=device), world.browser(device=device)
    await first.bound()
    await second.bound("bob")
    assert (await first.ask(device.proof(str(second.challenge)))).status_code == 403
    assert world.reasons() == ["unknown_challenge"]


async def test_a_refresh_may_come_without_the_cookie_but_not_with_anothers(world: World) -> None:
    browser, other = world.browser(), world.browser()
    await browser.bound()
    await other.bound("bob")
    proof = browser.device.proof(str(browser.challenge))
    other.identifier = browser.identifier
    refused = await other.ask(proof)
    assert (refused.status_code, refused.json()) == (401, {"continue": False})
    stranger = world.browser()
    stranger.identifier = browser.identifier
    assert (await stranger.ask(proof)).status_code == 200  # a link from another site had it sent
    assert (await stranger.see())["sid"] is None
    assert world.reasons() == ["another_session"]


async def test_the_end_of_a_session_ends_its_binding(world: World) -> None:
    browser = world.browser()
    sid = await browser.bound()
    cookie = browser.cookies[SID]
    proof = browser.device.proof(str(browser.challenge))
    await browser.post("/logout")
    for value in (cookie, None):
        browser.cookies.clear()
        if value is not None:
            browser.cookies.set(SID, value)
        for shown in (proof, None):
            response = await browser.ask(shown)
            assert (response.status_code, response.json()) == (401, {"continue": False})
            assert set_cookies(response, BOUND) == []
    assert world.reasons() == ["ended"]
    (record,) = [one for one in world.caplog.records if "turned away" in one.getMessage()]
    assert vars(record)["sid"] == sid
    assert world.told[-1].kind == "ended"  # and nothing is amiss


async def test_a_session_that_has_run_out_is_not_refreshed_and_caps_its_cookie(
    world: World,
) -> None:
    browser = world.browser()
    await browser.bound()
    for _ in range(29):
        world.clock.turn(timedelta(days=1))
        assert (await browser.refresh()).status_code == 200
        assert (await browser.see())["sid"] == browser.sid
    world.clock.turn(timedelta(days=1, minutes=-1))
    last = await browser.refresh()
    assert "Max-Age=50;" in set_cookies(last, BOUND)[0]
    world.clock.turn(timedelta(minutes=1))
    assert (await browser.refresh()).status_code == 401
    assert (await browser.see())["reason"] == "expired"


async def test_a_refresh_names_a_bound_session_or_is_refused(world: World) -> None:
    browser = world.browser()
    await browser.log_in()
    proof = browser.device.proof(str(browser.offer))
    signer = world.sessions._core.settings.keys.signer("dbsc.session")
    browser.identifier = signer.sign(browser.sid).decode()
    unbound = await browser.ask(proof)
    browser.cookies.clear()
    browser.identifier = signer.sign("019b796d-d600-7000-b4b9-f15a80fbe32e").decode()
    unknown = await browser.ask(proof)
    assert unbound.status_code == unknown.status_code == 401
    assert unbound.content == unknown.content
    assert world.reasons() == ["not_bound", "no_session"]


async def test_strangers_cost_no_look_up_at_a_refresh_and_learn_nothing(
    make_world: MakeWorld,
) -> None:
    world = await make_world(old_secret_keys=[OLD_KEY])
    foreign = await make_world(secret_key="abcdefgh" * 4)
    live, ended, theirs = world.browser(), world.browser(), foreign.browser()
    await live.bound()
    await ended.bound("bob")
    await world.sessions.end_session_by_id(ended.sid)
    await theirs.bound("carol")
    tag = live.identifier.partition(".")[2]
    unsigned = [
        live.sid,
        ended.sid,
        "019b796d-d600-7000-b4b9-f15a80fbe32e",
        theirs.identifier,
        f"{live.sid}.{theirs.identifier.partition('.')[2]}",
        f"{ended.sid}.{tag}",
        f"{live.sid}.{tag[:-1]}",
        f"{live.sid}.{tag}.{tag}",
        f"{live.sid}.",
        f".{tag}",
        live.cookies[SID],
        live.cookies[BOUND],
        "",
        "no sid",
        "x" * 5000,
    ]
    asked = statements(world)
    stranger, thief = world.browser(), world.browser()
    thief.cookies.set(SID, live.cookies[SID])
    answers = [await stranger.post(f"{PATH}/refresh", headers=BY_ITSELF)]
    for who in (stranger, thief):
        for who.identifier in unsigned:
            answers += [
                await who.ask(),
                await who.ask(live.device.proof(str(live.challenge))),
            ]
    assert {(one.status_code, one.text, str(one.headers)) for one in answers} == {
        (401, '{"continue":false}', str(answers[0].headers))
    }
    assert asked == []
    # None of them raises an alarm in the name of a session, and all together one.
    refused = [one for one in world.told if isinstance(one, Incident)]
    assert [(one.reason, one.sid) for one in refused] == [("no_session", None)]
    assert (await live.ask()).status_code == 403  # it has the name of its session
    assert len(asked) == 1


async def test_an_identifier_that_a_former_key_has_signed_is_one(make_world: MakeWorld) -> None:
    before = await make_world(secret_key=OLD_KEY)
    browser = before.browser()
    await browser.bound()
    after = await make_world(old_secret_keys=[OLD_KEY])
    later = DeviceBrowser(make_app(after.sessions), device=browser.device)
    later.identifier = browser.identifier
    assert (await later.refresh()).json()["session_identifier"] == browser.identifier
    skips = await make_world(DBSC(on_skipped={"server_error"}), old_secret_keys=[OLD_KEY])
    later = DeviceBrowser(make_app(skips.sessions))
    later.cookies.set(SID, browser.cookies[SID])
    skipped = f'server_error;session_identifier="{browser.identifier}"'
    assert (await later.see(secure_session_skipped=skipped))["sid"] == browser.sid


async def test_a_refresh_tells_nothing_of_activity(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    world.clock.turn(timedelta(days=1))
    before = await world.sessions.get_by_id(browser.sid)
    assert (await browser.refresh()).status_code == 200
    assert await world.sessions.get_by_id(browser.sid) == before


async def test_shortly_before_its_end_the_next_challenge_comes_along(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    assert challenged(await browser.get("/")) is None
    world.clock.turn(timedelta(minutes=7))
    response = await browser.get("/")
    challenge = challenged(response)
    assert challenge is not None
    assert response.headers["vary"] == "Cookie"
    assert (await browser.ask(browser.device.proof(challenge))).status_code == 200
    assert challenged(await browser.get("/")) is None


# --- headers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("quoted", [False, True])
@pytest.mark.parametrize(
    ("proof_name", "id_name"),
    [
        ("secure-session-response", "sec-secure-session-id"),
        ("sec-session-response", "sec-session-id"),
        ("Sec-Session-Response", "Sec-Secure-Session-Id"),
    ],
)
async def test_both_forms_and_the_old_names_are_read(
    world: World, proof_name: str, id_name: str, *, quoted: bool
) -> None:
    def form(value: str) -> str:
        return f'"{value}";v=1' if quoted else value

    browser = world.browser()
    await browser.log_in()
    proof = browser.device.proof(str(browser.offer), register=True)
    registered = await browser.post(
        f"{PATH}/register", headers={**BY_ITSELF, proof_name: form(proof)}
    )
    assert registered.status_code == 200
    proof = browser.device.proof(str(challenged(registered)))
    response = await browser.post(
        f"{PATH}/refresh",
        headers={
            **BY_ITSELF,
            id_name: form(registered.json()["session_identifier"]),
            proof_name: form(proof),
        },
    )
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("sec-session")]


async def test_a_header_that_is_there_twice_is_none(world: World) -> None:
    browser = world.browser()
    await browser.bound()
    proof = browser.device.proof(str(browser.challenge))
    for twice in ("secure-session-response", "sec-session-response"):
        raw = [
            *BY_ITSELF.items(),
            ("sec-secure-session-id", browser.identifier),
            ("secure-session-response", proof),
            (twice, proof),
        ]
        response = await browser.post(f"{PATH}/refresh", headers=raw)
        assert response.status_code == 403
    assert world.reasons() == ["malformed"]


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"abc", "abc"),
        (b"  abc\t", "abc"),
        (b"abc;v=1", "abc"),
        (b'"abc"', "abc"),
        (b'"a\\"b\\\\c" ; v="1"', 'a"b\\c'),
        (b'""', ""),
        (b"", None),
        (b'"abc', None),
        (b'abc"', None),
        (b'"a"b"', None),
        (b'"a\\b"', None),
        (b"a, b", None),
        (b"a b", None),
        (b'"a\x7f"', None),
        ("\u00e9".encode(), None),
    ],
)
def test_a_text_is_read_quoted_or_bare(value: bytes, read: str | None) -> None:
    assert headers.text([(b"sec-secure-session-id", value)], headers.SESSION_ID) == read


@pytest.mark.parametrize("route", ["register", "refresh"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "POST"])
async def test_no_answer_can_be_framed_stored_or_read_by_others(
    world: World, route: str, method: str
) -> None:
    browser = world.browser()
    await browser.log_in()
    cross = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    response = await browser.request(method, f"{PATH}/{route}", headers=cross)
    assert response.status_code in ((401, 403) if method == "POST" else (405,))
    assert response.headers["x-frame-options"] == "DENY"
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers["cache-control"] == "no-store"
    assert not [name for name in response.headers if name.startswith("access-control")]


async def test_only_the_browser_itself_may_ask(world: World) -> None:
    browser = world.browser()
    await browser.log_in()
    proof = browser.device.proof(str(browser.offer), register=True)
    for site in ("cross-site", "same-site", "none", "anything"):
        assert (await browser.register(proof, {"sec-fetch-site": site})).status_code == 403
    assert world.reasons() == ["cross_site"]
    await browser.register(proof)
    for site in ("cross-site", "same-site"):
        refused = await browser.ask(
            browser.device.proof(str(browser.challenge)), sec_fetch_site=site
        )
        assert refused.status_code == 401
    old = {"sec-secure-session-id": browser.identifier, "origin": "https://evil.example"}
    assert (await browser.post(f"{PATH}/refresh", headers=old)).status_code == 401
    old["origin"] = "https://test"
    assert (await browser.post(f"{PATH}/refresh", headers=old)).status_code == 403
    assert (await browser.refresh()).status_code == 200


# --- what a browser has skipped -------------------------------------------------------------------


async def test_a_browser_that_has_skipped_its_proof_is_refused_unless_allowed(
    make_world: MakeWorld,
) -> None:
    strict = await make_world()
    lenient = await make_world(DBSC(on_skipped={"server_error", "unreachable"}))
    browser = strict.browser()
    sid, name = await browser.bound(), browser.identifier
    browser.forget()
    other = Browser(make_app(lenient.sessions))
    other.cookies.update(browser.cookies)

    async def seen(by: Browser, skipped: str) -> str | None:
        return str((await by.see(secure_session_skipped=skipped))["sid"])

    for skipped in (
        "server_error",
        f'unreachable;session_identifier="{name}"',
        f"unreachable; session_identifier={name}",
        f'quota_exceeded;session_identifier="x", server_error;session_identifier="{name}"',
    ):
        assert await seen(browser, skipped) == "None"
        assert await seen(other, skipped) == sid
    for skipped in (
        "quota_exceeded",
        'server_error;session_identifier="another"',
        f'server_error;session_identifier="{sid}"',
        f'server_error;session_identifier="{name[:-1]}"',
        "server_error" + ";x" * 600,
        "server error",
        "",
    ):
        assert await seen(other, skipped) == "None", skipped
    assert (await other.see(sec_session_skipped="server_error"))["sid"] == sid
    assert [record for record in strict.caplog.records if "let in without" in record.getMessage()]
    skips = [
        one for one in lenient.told if isinstance(one, Incident) and one.kind == "device_skipped"
    ]
    assert [(one.reason, one.sid) for one in skips] == [
        ("server_error", sid),
        ("unreachable", sid),
    ]


# --- what cannot be trusted -----------------------------------------------------------------------


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(
        sorted(headers.PROOF | headers.SESSION_ID | headers.SKIPPED | {b"cookie", b"origin"})
    ),
    value=st.binary(max_size=200).filter(lambda value: b"\n" not in value and b"\r" not in value),
    route=st.sampled_from(["register", "refresh"]),
)
async def test_no_header_of_a_stranger_is_an_error(
    world: World, name: bytes, value: bytes, route: str
) -> None:
    response = await asked(world, route, [(name, value)])
    assert response in (401, 403)


async def asked(world: World, route: str, given: list[tuple[bytes, bytes]]) -> int:
    """The status of a raw request: httpx would refuse what a stranger may send."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the app is not asked")

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{PATH}/{route}",
        "headers": given,
        "client": ("192.0.2.1", 1),
    }
    await SessionMiddleware(app, sessions=world.sessions)(scope, receive, send)
    status: int = sent[0]["status"]
    return status


@settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
async def test_no_mutation_of_a_proof_is_one(world: World, data: st.DataObject) -> None:
    browser = world.browser()
    await browser.bound()
    before = await world.record(browser.sid)
    proof = browser.device.proof(str(browser.challenge))
    place = data.draw(st.integers(0, len(proof) - 1))
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."
    how = data.draw(st.sampled_from(["replace", "drop", "insert", "cut", "repeat"]))
    letter = data.draw(st.sampled_from(letters))
    mutated = {
        "replace": proof[:place] + letter + proof[place + 1 :],
        "drop": proof[:place] + proof[place + 1 :],
        "insert": proof[:place] + letter + proof[place:],
        "cut": proof[:place],
        "repeat": proof + proof[place:],
    }[how]
    response = await browser.ask(mutated)
    if mutated == proof or same_signature(mutated, proof):
        return
    assert (response.status_code, set_cookies(response, BOUND)) == (403, [])
    assert await world.record(browser.sid) == before


def same_signature(one: str, other: str) -> bool:
    """Whether they differ in bits alone that base64 does not decode."""
    return one[:-1] == other[:-1]


@settings(max_examples=50, deadline=None)
@given(
    enforced_at=st.integers(0, 2**63),
    used=st.lists(st.binary(min_size=16, max_size=16), min_size=4, max_size=4),
    key=st.binary(min_size=1, max_size=550),
)
def test_a_record_is_read_as_it_was_written(
    enforced_at: int, used: list[bytes], key: bytes
) -> None:
    record = DeviceRecord(enforced_at, tuple(sorted(used)), key)
    assert DeviceRecord.read(record.write()) == record
    assert len(record.write()) <= 640


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=12))
def test_no_challenge_is_fresh_twice_in_whatever_order(serials: list[bytes]) -> None:
    record = DeviceRecord(0, (bytes(16),) * REMEMBERED, b"")
    accepted: list[bytes] = []
    for serial in serials * 2:
        if record.fresh(serial):
            accepted.append(serial)
            record = record.using(serial)
    assert len(set(accepted)) == len(accepted)
    assert set(accepted) >= set(sorted(serials)[-1:]) - {bytes(16)}


async def test_an_outage_is_a_503_and_no_refusal(world: World, tmp_path: Path) -> None:
    browser = world.browser()
    await browser.bound()
    proof = browser.device.proof(str(browser.challenge))
    await world.sessions.database.execute("ALTER TABLE sessions RENAME TO away")
    response = await browser.ask(proof)
    assert response.status_code == 503
    assert response.headers["retry-after"]
    await world.sessions.database.execute("ALTER TABLE away RENAME TO sessions")
    assert (await browser.ask(proof)).status_code == 200


async def test_a_registration_whose_answer_was_lost_counts_as_what_it_is(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = world.browser()
    await browser.log_in()
    store = world.sessions._core.store
    bind = store.bind

    async def tried_again(*arguments: Any, **options: Any) -> bool:
        assert await bind(*arguments, **options)
        return await bind(*arguments, **options)

    monkeypatch.setattr(store, "bind", tried_again)
    assert (await browser.register()).status_code == 200
    assert (await browser.see())["sid"] == browser.sid


async def test_a_registration_that_comes_second_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = world.browser()
    await browser.log_in()
    store = world.sessions._core.store

    async def too_late(*arguments: Any, **options: Any) -> bool:
        return False

    monkeypatch.setattr(store, "bind", too_late)
    response = await browser.register()
    assert (response.status_code, set_cookies(response, BOUND)) == (403, [])
    assert world.reasons() == ["lost_race"]


async def test_no_secret_of_a_device_is_in_a_log(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    browser = world.browser()
    await browser.bound()
    await browser.ask(browser.device.proof("none of ours"))
    await browser.refresh()
    cookie = browser.forget()
    await browser.see()
    written = caplog.text + repr(world.told) + repr(world.sessions)
    assert "device_refused" in written
    assert cookie not in written
    assert cookie.rpartition(".")[2] not in written
    for challenge in (browser.offer, browser.challenge):
        assert str(challenge) not in written


# --- options --------------------------------------------------------------------------------------


def test_the_defaults_are_those_of_the_page() -> None:
    dbsc = DBSC()
    assert (dbsc.cookie_lifetime, dbsc.path, dbsc.on_skipped) == (LIFE, PATH, "refuse")


@pytest.mark.parametrize(
    "options",
    [
        {"cookie_lifetime": 600},
        {"cookie_lifetime": timedelta(seconds=3)},
        {"cookie_lifetime": timedelta(days=2)},
        {"path": None},
        {"path": ""},
        {"path": "dbsc"},
        {"path": "/dbsc/"},
        {"path": '/a"b'},
        {"path": "/a b"},
        {"on_skipped": "allow"},
        {"on_skipped": {"whatever"}},
        {"on_skipped": 7},
        {"on_skipped": "unreachable"},
    ],
)
def test_a_wrong_option_is_refused_with_its_mend(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError) as caught:
        DBSC(**options)
    assert f"{name}={value!r}: use " in str(caught.value)


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        DBSC(cookie_lifetime=SECOND, path="", on_skipped="never")  # type: ignore[arg-type]
    assert all(
        f"{name}=" in str(caught.value) for name in ("cookie_lifetime", "path", "on_skipped")
    )


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"cookie_secure": False}, "dbsc needs cookie_secure=True"),
        ({"cookie_domain": "example.com"}, "dbsc needs cookie_domain=None"),
        ({"cookie_path": "/app"}, "dbsc needs cookie_path='/'"),
        ({"cookie_partitioned": True}, "dbsc needs cookie_partitioned=False"),
        ({"dbsc": True}, "dbsc=True: use asgi_sessions.dbsc.DBSC(), or None"),
    ],
)
def test_options_that_leave_no_bound_cookie_are_refused(
    options: dict[str, Any], needed: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sessions("sqlite:///s.db", **{"secret_key": KEY, "dbsc": DBSC(), **options})
    assert needed in str(caught.value)


def test_without_its_libraries_the_module_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("asgi_sessions")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("joserfc", "joserfc.errors", "cryptography"):
        monkeypatch.setitem(sys.modules, name, None)
    import_module("asgi_sessions")  # which needs none of them
    with pytest.raises(ImportError, match=r"install asgi-login-sessions\[dbsc\]"):
        import_module("asgi_sessions.dbsc")


def test_the_page_explains_each_reason() -> None:
    reasons = [row[0].strip("`") for row in table(PAGE, "What is logged")]
    assert reasons == sorted(get_args(Reason))


def test_each_reason_of_a_browser_is_known() -> None:
    assert DBSC(on_skipped=get_args(SkipReason)).on_skipped == get_args(SkipReason)


async def test_another_app_in_the_same_process_is_left_alone(world: World) -> None:
    async def other(request: Request) -> Response:
        return JSONResponse({"path": request.url.path})

    app = make_app(world.sessions, Route("/other{rest:path}", other))
    browser = Browser(app)
    response: httpx.Response = await browser.get(f"/other{PATH}/register")
    assert response.json() == {"path": f"/other{PATH}/register"}


# --- what is open ---------------------------------------------------------------------------------


@dataclass
class Open:
    """A connection that stays open until its session ends."""

    ended: asyncio.Event
    task: asyncio.Task[None]


async def opened(world: World, kind: str, cookies: httpx.Cookies, **headers: str) -> Open:
    """A WebSocket or a stream of a browser with these cookies; its app waits for its end."""
    ended, begun = asyncio.Event(), asyncio.get_running_loop().create_future()
    inbox: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
    given = [(b"cookie", "; ".join(f"{n}={v}" for n, v in cookies.items()).encode())]
    given += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if kind == "websocket":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        begun.set_result(scope["state"]["sid"])
        while not (await receive())["type"].endswith(".disconnect"):
            pass
        ended.set()

    async def send(message: Any) -> None: ...

    scope = {"type": kind, "method": "GET", "path": "/", "headers": given}
    serve = SessionMiddleware(app, sessions=world.sessions)(scope, inbox.get, send)
    task = asyncio.create_task(serve)
    assert await begun is not None
    return Open(ended, task)


async def checked(world: World) -> None:
    """As every `socket_check_interval`."""
    await world.sessions._core.live_connections.check()
    await asyncio.sleep(0)
    await asyncio.sleep(0)


OpenOne = Callable[..., Awaitable[Open]]


@pytest.fixture
async def open_one() -> AsyncIterator[OpenOne]:
    made: list[Open] = []

    async def open_(world: World, kind: str, cookies: httpx.Cookies, **headers: str) -> Open:
        made.append(await opened(world, kind, cookies, **headers))
        return made[-1]

    yield open_
    for one in made:
        one.task.cancel()
    await asyncio.gather(*(one.task for one in made), return_exceptions=True)


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_what_was_opened_by_the_cookie_alone_ends_when_a_proof_would_have(
    make_world: MakeWorld, open_one: OpenOne, kind: str
) -> None:
    world = await make_world(end_streams=True)
    browser = world.browser()
    await browser.log_in()
    alone = httpx.Cookies({SID: browser.cookies[SID]})
    before = await open_one(world, kind, alone)
    await browser.register()
    world.clock.turn(timedelta(hours=1))
    await checked(world)
    assert not before.ended.is_set()  # the browser may not even know that it is to prove anything
    await browser.refresh()
    registered = await open_one(world, kind, browser.cookies)
    under_way = await open_one(world, kind, alone, sec_fetch_site="same-origin")
    world.clock.turn(LIFE - timedelta(microseconds=1))
    await checked(world)
    for one in (before, registered, under_way):
        assert not one.ended.is_set()
    world.clock.turn(timedelta(microseconds=1))
    await checked(world)
    for one in (before, under_way):
        await asyncio.wait_for(one.ended.wait(), 5)
    # What was opened with the bound cookie stays open as long as the session lives.
    assert not registered.ended.is_set()
    await world.sessions.end_session_by_id(browser.sid)
    await asyncio.wait_for(registered.ended.wait(), 5)


async def test_each_database_tells_since_when_a_proof_is_needed(
    make_sessions: MakeSessions,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    open_one: OpenOne,
) -> None:
    world = World(await make_sessions(dbsc=DBSC()), clock, caplog)
    browser, other = world.browser(), world.browser()
    await browser.log_in()
    await other.log_in("bob")
    alone = await open_one(world, "websocket", browser.cookies)
    unbound = await open_one(world, "websocket", other.cookies)
    await browser.register()
    await browser.see()
    proved = await open_one(world, "websocket", browser.cookies)
    clock.turn(LIFE)
    await checked(world)
    await asyncio.wait_for(alone.ended.wait(), 5)
    assert not proved.ended.is_set()
    assert not unbound.ended.is_set()


async def test_what_was_let_in_without_a_proof_stays_open_for_the_life_of_one(
    make_world: MakeWorld, open_one: OpenOne
) -> None:
    world = await make_world(DBSC(on_skipped={"server_error"}))
    browser = world.browser()
    await browser.bound()
    alone = httpx.Cookies({SID: browser.cookies[SID]})
    world.clock.turn(timedelta(hours=1))
    skipped = await open_one(world, "websocket", alone, secure_session_skipped="server_error")
    world.clock.turn(LIFE - timedelta(microseconds=1))
    await checked(world)
    assert not skipped.ended.is_set()
    world.clock.turn(timedelta(microseconds=1))
    await checked(world)
    await asyncio.wait_for(skipped.ended.wait(), 5)


async def test_what_is_open_in_a_process_without_the_option_ends_once_a_binding_is_in_force(
    make_world: MakeWorld, open_one: OpenOne
) -> None:
    world, without_it = await make_world(), await make_world(None)
    browser = world.browser()
    await browser.log_in()
    await browser.register()
    before = await open_one(without_it, "websocket", browser.cookies)
    await checked(without_it)
    assert not before.ended.is_set()
    await browser.see()
    await checked(without_it)
    await asyncio.wait_for(before.ended.wait(), 5)


async def test_a_login_over_a_bound_session_on_a_socket_has_proved_nothing(
    make_world: MakeWorld,
) -> None:
    world = await make_world()
    browser = world.browser()
    await browser.bound()
    seen: list[tuple[str, bool]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        call: RequestContext = scope[world.sessions._key]
        seen.append((scope["state"]["sid"], call.unproved_since is None))
        await world.sessions.start_session(scope, "ann")
        seen.append((scope["state"]["sid"], call.unproved_since is None))

    given = [(b"cookie", "; ".join(f"{n}={v}" for n, v in browser.cookies.items()).encode())]
    scope = {"type": "websocket", "path": "/", "headers": given}

    async def nothing(*_: Any) -> Any: ...

    await SessionMiddleware(app, sessions=world.sessions)(scope, nothing, nothing)
    assert [proved for _, proved in seen] == [True, False]
    assert [sid == browser.sid for sid, _ in seen] == [True, False]


# --- alarms ---------------------------------------------------------------------------------------


async def test_nobody_hides_the_alarm_of_another(world: World) -> None:
    thief, victim = world.browser(), world.browser()
    await thief.bound("thief")
    await victim.bound("ann")
    for browser in (thief, victim):
        browser.forget()
    for _ in range(3):
        await thief.see()
        await thief.ask("no proof")
    await victim.see()
    await victim.ask("no proof")
    assert alarms(world) == [
        ("no_cookie", thief.sid, 1),
        ("malformed", thief.sid, 1),
        ("no_cookie", victim.sid, 1),
        ("malformed", victim.sid, 1),
    ]
    world.clock.turn(EVERY)
    await thief.see()
    assert alarms(world)[4:] == [("no_cookie", thief.sid, 3)]


async def test_a_request_that_was_let_in_hides_no_other(make_world: MakeWorld) -> None:
    world = await make_world(DBSC(on_skipped={"server_error"}))
    thief, victim = world.browser(), world.browser()
    await thief.bound("thief")
    await victim.bound("ann")
    for browser in (thief, victim, thief):
        browser.forget()
        browser.cookies.set(BOUND, "none")
        await browser.see(secure_session_skipped="server_error")
    assert alarms(world) == [("server_error", thief.sid, 1), ("server_error", victim.sid, 1)]


async def test_alarms_are_remembered_for_so_many_sessions_and_no_more(world: World) -> None:
    events = world.sessions._core.events
    for one in range(APART + 1):
        for _ in range(2):
            events.device_refused("no_cookie", f"sid {one}", lambda: None)
    assert len(events._devices._kinds) == APART
    assert len(alarms(world)) == APART + 1
    events.device_refused("no_cookie", "sid 2", lambda: None)
    assert len(alarms(world)) == APART + 1
    events.device_refused("no_cookie", "sid 0", lambda: None)  # forgotten, and so told anew
    assert alarms(world)[-1] == ("no_cookie", "sid 0", 1)
    assert len(alarms(world)) == APART + 2
    assert ("no_cookie", "sid 1") not in events._devices._kinds  # quiet for the longest time
    assert ("no_cookie", "sid 2") in events._devices._kinds


def alarms(world: World) -> list[tuple[str | None, str | None, int]]:
    return [(one.reason, one.sid, one.count) for one in world.told if isinstance(one, Incident)]


# --- offers that lead nowhere ---------------------------------------------------------------------

CHROME = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/{}.0.0.0 Safari/537.36{}"
)


def not_taken_up(world: World) -> list[str]:
    return [
        record.getMessage()
        for record in world.caplog.records
        if vars(record).get("event") == "offers_not_taken_up"
    ]


async def test_offers_that_nobody_takes_up_are_told_once(world: World) -> None:
    browser = world.browser(agent=CHROME.format(150, ""))
    for _ in range(MOST_OFFERS):
        await browser.log_in()
    assert not_taken_up(world) == []  # so many at once may still be on their way
    world.clock.turn(LEAST_TIME)
    for _ in range(3):
        await browser.log_in()
    (message,) = not_taken_up(world)
    assert message.startswith(
        f"of {MOST_OFFERS + 1} browsers that bind sessions, none has come to {PATH}/register:"
    )


async def test_time_alone_is_no_reason_to_tell_of_offers(world: World) -> None:
    browser = world.browser(agent=CHROME.format(145, ""))
    for _ in range(MOST_OFFERS - 1):
        await browser.log_in()
        world.clock.turn(LEAST_TIME)
    assert not_taken_up(world) == []
    await browser.log_in()
    assert len(not_taken_up(world)) == 1


@pytest.mark.parametrize("route", ["register", "refresh"])
async def test_one_browser_that_comes_shows_that_the_way_is_right(world: World, route: str) -> None:
    await world.browser().post(f"{PATH}/{route}")
    await many_logins(world, CHROME.format(150, ""))
    assert not_taken_up(world) == []


async def test_a_browser_that_registered_at_another_process_shows_it_too(
    make_world: MakeWorld,
) -> None:
    world, other = await make_world(), await make_world()
    browser = world.browser()
    await browser.log_in()
    await browser.register()
    elsewhere = other.browser()
    elsewhere.cookies.update(browser.cookies)
    await elsewhere.see()
    await many_logins(other, CHROME.format(150, ""))
    assert not_taken_up(other) == []


@pytest.mark.parametrize(
    "agent",
    [
        "Firefox",
        "",
        CHROME.format(144, ""),
        CHROME.format(150, " Edg/150.0.0.0"),
        CHROME.format(150, "").replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64"),
    ],
)
async def test_browsers_that_may_not_bind_sessions_show_nothing(world: World, agent: str) -> None:
    await many_logins(world, agent)
    assert not_taken_up(world) == []


async def many_logins(world: World, agent: str) -> None:
    browser = world.browser(agent=agent)
    for _ in range(MOST_OFFERS + 1):
        await browser.log_in()
        world.clock.turn(LEAST_TIME)


@pytest.mark.parametrize(
    ("root_path", "below", "mounted"),
    [
        ("/shop/", "/shop", "/shop"),
        ("/shop/", "/shop/", "/shop"),  # as uvicorn --root-path /shop/ has it
        ("/shop", "/shop", "/shop"),
        ("/", "", ""),
        ("/shop/", "", "/shop"),  # servers that leave it out of the path
    ],
)
async def test_a_slash_at_the_end_of_the_root_path_is_none_of_the_path(
    world: World, root_path: str, below: str, mounted: str
) -> None:
    inner = make_app(world.sessions)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        # Starlette's router would not find its routes below a root path with a slash at its end.
        outer = dict(scope, root_path=root_path, path=below + scope["path"])

        async def with_its_own(scope: Any, receive: Any, send: Any) -> None:
            path = scope["path"].removeprefix(below)
            await inner.router(dict(scope, root_path="", path=path), receive, send)

        await SessionMiddleware(with_its_own, sessions=world.sessions)(outer, receive, send)

    browser = DeviceBrowser(app)
    login = await browser.post("/login?person=ann")
    assert f'path="{mounted}{PATH}/register"' in login.headers["secure-session-registration"]
    browser.offer, browser.sid = offered(login), login.json()["sid"]
    response = await browser.register()
    assert response.json()["refresh_url"] == f"{mounted}{PATH}/refresh"
    assert (await browser.refresh()).status_code == 200
    assert (await browser.get(f"/deeper{PATH}/refresh")).status_code == 404
