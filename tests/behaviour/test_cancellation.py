"""Cancelled at any await, or left by the browser: no row is live without its cookie."""

from __future__ import annotations

import asyncio
import threading
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from asgi_sessions import SessionMiddleware, Sessions
from tests.conftest import MakeSessions
from tests.support import Clock, make_app, vouched
from tests.support.asgi import SECONDS, cookies, http, log_in, websocket
from tests.support.engines import connection_threads
from tests.support.inside import open_sids, settled


@types.coroutine
def cancelled_at(n: int, work: Coroutine[Any, Any, None]) -> Generator[Any, Any, bool]:
    """Run a coroutine whose task is cancelled while it waits for the `n`th time; whether it was."""
    steps = work.__await__()
    waits, fault = 0, None
    while True:
        try:
            waited_for = steps.send(None) if fault is None else steps.throw(fault)
        except StopIteration:
            return waits >= n
        except asyncio.CancelledError:
            if waits < n:
                raise
            return True
        waits += 1
        if waits == n:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        try:
            yield waited_for
        except BaseException as thrown:  # noqa: BLE001 -- handed on
            fault = thrown
        else:
            fault = None


async def nothing_leaks(sessions: Sessions, before: set[threading.Thread]) -> None:
    """Disconnect; no connection may be left."""
    async with asyncio.timeout(SECONDS):
        await sessions.disconnect()
    for thread in connection_threads() - before:
        thread.join(SECONDS)
        assert not thread.is_alive()


async def anonymous(sessions: Sessions) -> dict[str, Any]:
    return {"method": "POST", "path": "/login?person=ann"}


async def over_a_live_session(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"method": "POST", "path": "/login?person=ann", "cookie": cookie}


async def as_somebody_else(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"cookie": cookie, **vouched("bob")}


async def renewing(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"method": "POST", "path": "/renew", "cookie": cookie}


async def logging_out(sessions: Sessions) -> dict[str, Any]:
    _, cookie = await log_in(sessions)
    return {"method": "POST", "path": "/end-session", "cookie": cookie}


async def vouched_for(sessions: Sessions) -> dict[str, Any]:
    return vouched("ann")


Arrange = Callable[[Sessions], Awaitable[dict[str, Any]]]
ARRANGES = [anonymous, over_a_live_session, as_somebody_else, renewing, logging_out, vouched_for]


async def delivered_or_dead(sessions: Sessions, handed_out: set[str]) -> None:
    """Each live session has a cookie somewhere; those by device are one per device."""
    for person in ("ann", "bob"):
        live = await sessions.list_sessions(person)
        by_device = [session for session in live if session.origin == "scope"]
        assert len(by_device) <= 1
        assert {session.id for session in live if session.origin == "login"} <= handed_out


@pytest.mark.parametrize("arrange", ARRANGES, ids=lambda arrange: str(arrange.__name__))
async def test_cancelled_at_any_await_no_row_is_live_without_its_cookie(
    make_sessions: MakeSessions, clock: Clock, arrange: Arrange
) -> None:
    before = connection_threads()
    sessions = await make_sessions()
    app = make_app(sessions)
    handed_out: set[str] = set()

    async def receive() -> Message:
        return await asyncio.Future()

    async def send(message: Message) -> None:
        await asyncio.sleep(0)  # the client reads slowly
        handed_out.update(c.partition("=")[2].partition(".")[0] for c in cookies([message]))

    cancelled, n = True, 0
    while cancelled:
        n += 1
        clock.turn(timedelta(seconds=61))  # a touch is due
        options = await arrange(sessions)
        handed_out.update(session.id for session in await sessions.list_sessions("ann"))
        scope = http(**options)

        async def request(scope: Scope = scope, n: int = n) -> bool:
            work = app(scope, receive, send)
            assert isinstance(work, Coroutine)
            return await cancelled_at(n, work)

        async with asyncio.timeout(SECONDS):
            cancelled = await asyncio.create_task(request())
            await settled(sessions)
        await delivered_or_dead(sessions, handed_out)
        for person in ("ann", "bob"):
            await sessions.end_all_sessions(person)
    assert n >= 4, "so few awaits?"
    await nothing_leaks(sessions, before)


@pytest.mark.parametrize("arrange", ARRANGES, ids=lambda arrange: str(arrange.__name__))
@pytest.mark.parametrize("lost", ["http.response.start", "http.response.body"])
async def test_a_client_that_has_gone_leaves_no_row_live_without_its_cookie(
    make_sessions: MakeSessions, arrange: Arrange, lost: str
) -> None:
    before = connection_threads()
    sessions = await make_sessions()
    handed_out: set[str] = set()

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == lost:
            raise OSError("connection lost")
        handed_out.update(c.partition("=")[2].partition(".")[0] for c in cookies([message]))

    options = await arrange(sessions)
    handed_out.update(session.id for session in await sessions.list_sessions("ann"))
    with pytest.raises(OSError, match="connection lost"):
        await make_app(sessions)(http(**options), receive, send)
    await settled(sessions)
    await delivered_or_dead(sessions, handed_out)
    await nothing_leaks(sessions, before)


async def test_a_handshake_cancelled_at_any_await_leaves_no_row_live_without_its_cookie(
    make_sessions: MakeSessions,
) -> None:
    before = connection_threads()
    sessions = await make_sessions()
    handed_out: set[str] = set()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await sessions.start_session(scope, {"id": "ann"})
        await send({"type": "websocket.accept"})
        await receive()

    middleware = SessionMiddleware(app, sessions=sessions)

    async def send(message: Message) -> None:
        await asyncio.sleep(0)
        handed_out.update(c.partition("=")[2].partition(".")[0] for c in cookies([message]))

    cancelled, n = True, 0
    while cancelled:
        n += 1
        incoming = iter(("websocket.connect", "websocket.disconnect"))

        async def receive(incoming: Iterator[str] = incoming) -> Message:
            await asyncio.sleep(0)
            return {"type": next(incoming)}

        async def handshake(receive: Receive = receive, n: int = n) -> bool:
            return await cancelled_at(n, middleware(websocket(), receive, send))

        async with asyncio.timeout(SECONDS):
            cancelled = await asyncio.create_task(handshake())
            await settled(sessions)
        await delivered_or_dead(sessions, handed_out)
        await sessions.end_all_sessions("ann")
    assert n >= 4, "so few awaits?"
    assert open_sids(sessions) == []
    await nothing_leaks(sessions, before)
