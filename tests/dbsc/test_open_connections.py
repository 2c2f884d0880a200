"""What is open on a bound session ends when its device has not proved itself for too long.

What a socket has proved is kept in its private context.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest

from asgi_sessions import SessionMiddleware
from asgi_sessions._connection.context import RequestContext
from asgi_sessions.dbsc import DBSC
from tests.conftest import MakeSessions
from tests.support import Clock
from tests.support.dbsc import LIFE, SID, MakeWorld, World
from tests.support.inside import check_what_is_open


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
    await check_what_is_open(world.sessions)
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
