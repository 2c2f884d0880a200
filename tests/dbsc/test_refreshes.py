"""Refreshes: each proof is good once, and a browser may skip one where that is allowed.

An identifier that nobody was given is signed with the private signer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from asgi_sessions import Incident
from asgi_sessions.dbsc import DBSC
from tests.support import OLD_KEY, Browser, make_app, set_cookies
from tests.support.dbsc import (
    LIFE,
    LIFETIME,
    REMEMBERED,
    RSA,
    SECOND,
    SID,
    MakeWorld,
    World,
    changed,
    hs256,
    statements,
    unsigned,
    without,
    zeros,
)
from tests.support.devices import BOUND, BY_ITSELF, PATH, Device, DeviceBrowser, challenged
from tests.support.inside import store_of

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
        patched.setattr(store_of(world.sessions), "bind", too_late)
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


WRONG_REFRESH: list[tuple[str, str, Callable[[Device, str], str]]] = [
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
    world: World, reason: str, make: Callable[[Device, str], str]
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
