"""Whoever acts for a person from a bound session goes on proving the device of their own."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from asgi_sessions import SessionMiddleware
from tests.support import Browser, cookie_of, make_app
from tests.support.acting import acting_routes
from tests.support.asgi import ENDED, Peer, echo, websocket
from tests.support.dbsc import LIFE, MakeWorld, World
from tests.support.devices import BOUND, DeviceBrowser, offered
from tests.support.inside import check_what_is_open

ACT = "/act?person=ann"


def staff(world: World) -> DeviceBrowser:
    return DeviceBrowser(make_app(world.sessions, *acting_routes(world.sessions)))


async def test_a_bound_session_stays_bound_while_its_person_acts(world: World) -> None:
    browser = staff(world)
    own = await browser.bound("staff")
    response = await browser.post(ACT)
    assert offered(response) is None  # there is nothing of its own to be bound
    assert (await browser.see())["person_id"] == "ann"
    # A copy of the cookie opens nothing, and there is no way back by it.
    thief = Browser(make_app(world.sessions, *acting_routes(world.sessions)), agent="curl")
    thief.cookies.set(world.sessions.cookie_name, cookie_of(browser, world.sessions))
    world.clock.turn(timedelta(seconds=11))
    seen = await thief.see()
    assert (seen["sid"], seen["reason"]) == (None, "not_bound")
    assert (await thief.post("/back")).json() == {"sid": None}
    # The browser refreshes its bound cookie meanwhile, and cannot go on without.
    assert (await browser.refresh()).status_code == 200
    world.clock.turn(LIFE)
    assert (await browser.see())["sid"] is None
    assert (await browser.refresh()).status_code == 200
    assert (await browser.see())["person_id"] == "ann"
    assert (await browser.post("/back")).json()["sid"] == own
    assert await world.is_bound(own)
    browser.forget(BOUND)
    assert (await browser.see())["reason"] == "not_bound"


async def test_an_offer_that_is_taken_up_while_somebody_acts_binds_nothing(world: World) -> None:
    browser = staff(world)
    await browser.log_in("staff")
    answer = (await browser.post(ACT)).json()
    assert (await browser.register()).status_code == 403
    assert not await world.is_bound(answer["sid"])
    assert (await browser.see())["sid"] == answer["sid"]


async def test_an_acting_cookie_refreshes_no_session_but_its_own(world: World) -> None:
    browser, other = staff(world), staff(world)
    await browser.bound("staff")
    await other.bound("other")
    await browser.post(ACT)
    other.cookies.clear()
    other.cookies.set(world.sessions.cookie_name, cookie_of(browser, world.sessions))
    assert (await other.refresh()).status_code == 401
    assert world.reasons() == ["another_session"]


@pytest.mark.parametrize("proved", [True, False])
async def test_what_is_open_in_it_needs_the_proof_of_their_own(
    make_world: MakeWorld, *, proved: bool
) -> None:
    world = await make_world()
    browser = staff(world)
    await browser.log_in("staff")
    await browser.register()
    bound = browser.forget()  # it has not come yet
    await browser.post(ACT)
    alone = f"{world.sessions.cookie_name}={cookie_of(browser, world.sessions)}"
    both = f"{alone}; {BOUND}={bound}"
    header = both if proved else alone
    app = SessionMiddleware(echo, sessions=world.sessions)
    async with Peer(app, websocket(cookie=header)) as peer:
        for _ in range(2):
            await peer.gets()
        await browser.see(cookie=both)  # from now on it is in force
        world.clock.turn(LIFE)
        await check_what_is_open(world.sessions)
        await asyncio.sleep(0)
        if proved:
            peer.says({"type": "websocket.receive", "text": "still here"})
            assert (await peer.gets())["text"] == "still here"
            peer.says({"type": "websocket.disconnect", "code": 1001})
        else:
            assert await peer.gets() == ENDED
