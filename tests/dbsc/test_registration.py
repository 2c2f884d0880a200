"""Registration: a device is bound by its proof, and by nothing that is wrong with one."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from asgi_sessions import SessionsUnavailable
from tests.support import set_cookies
from tests.support.dbsc import (
    LIFETIME,
    RSA,
    SECOND,
    SID,
    MakeWorld,
    World,
    changed,
    hs256,
    unsigned,
    without,
    zeros,
)
from tests.support.devices import BOUND, BY_ITSELF, PATH, Device, b64, challenged, number, offered
from tests.support.inside import store_of


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


P384 = Device(curve="P-384")
SMALL = Device("RS256", bits=1024)
LARGE = Device("RS256", bits=4608)


def swapped(device: Device, challenge: str) -> str:
    """The payload of one proof under the signature of another."""
    head, _, signature = device.proof("another", register=True).split(".")
    return f"{head}.{b64(json.dumps({'jti': challenge}).encode())}.{signature}"


#: What is wrong with a registration, by the reason that is told.
WRONG: list[tuple[str, str, Callable[[Device, str], str]]] = [
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


@pytest.mark.parametrize(
    ("reason", "make"), [pytest.param(r, make, id=f"{r}-{n}") for r, n, make in WRONG]
)
async def test_a_wrong_registration_binds_nothing_and_tells_nothing(
    world: World, reason: str, make: Callable[[Device, str], str]
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
    now = worlds[0].clock().timestamp()
    assert (await worlds[0].record(browser.sid)).enforced_at == now * 1_000_000


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
        patched.setattr(store_of(world.sessions), "bind", away)
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
