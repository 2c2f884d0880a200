"""Headers, and whatever else a stranger may send to the routes of DBSC."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import set_cookies
from tests.support.dbsc import World, asked
from tests.support.devices import BOUND, BY_ITSELF, PATH, challenged
from tests.support.inside import store_of

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


# --- what cannot be trusted -----------------------------------------------------------------------


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    name=st.sampled_from(
        [
            b"cookie",
            b"origin",
            b"sec-secure-session-id",
            b"sec-session-id",
            b"sec-session-response",
            b"sec-session-skipped",
            b"secure-session-response",
            b"secure-session-skipped",
        ]
    ),
    value=st.binary(max_size=200).filter(lambda value: b"\n" not in value and b"\r" not in value),
    route=st.sampled_from(["register", "refresh"]),
)
async def test_no_header_of_a_stranger_is_an_error(
    world: World, name: bytes, value: bytes, route: str
) -> None:
    response = await asked(world, route, [(name, value)])
    assert response in (401, 403)


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
    store = store_of(world.sessions)
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
    store = store_of(world.sessions)

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
