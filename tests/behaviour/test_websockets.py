"""WebSockets: the handshake carries the cookie, and what is open closes with its session."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from starlette.types import Message, Receive, Scope, Send

from asgi_sessions import ConfigurationError, SessionMiddleware, Sessions
from tests.conftest import MakeSessions
from tests.support import Clock, rows
from tests.support.asgi import ENDED, Peer, call, cookies, echo, field, log_in, reasons, websocket
from tests.support.inside import check_what_is_open, open_sids, settled


async def test_a_websocket_resumes_like_a_request(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with Peer(app, websocket(cookie=cookie)) as peer:
        accept = await peer.gets()
        assert field(accept, "set-cookie") == []
        assert (await peer.gets())["text"] == sid
        peer.says({"type": "websocket.receive", "text": "hello"})
        assert (await peer.gets())["text"] == "hello"
        peer.says({"type": "websocket.disconnect", "code": 1001})
    assert await reasons(sessions) == [None]
    assert open_sids(sessions) == []


async def test_a_websocket_without_a_session_is_left_alone(sessions: Sessions) -> None:
    app = SessionMiddleware(echo, sessions=sessions)
    async with Peer(app, websocket()) as peer:
        assert await peer.gets() == {"type": "websocket.accept"}
        assert (await peer.gets())["text"] == "None"
        assert open_sids(sessions) == []
        peer.says({"type": "websocket.disconnect", "code": 1001})


async def test_a_login_before_accept_puts_the_cookie_on_the_handshake(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await echo(scope, receive, send)

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket()) as peer:
        accept = await peer.gets()
        sid = (await peer.gets())["text"]
        (cookie,) = cookies([accept])
        assert cookie.startswith(f"__Host-sid={sid}.")
        # It is watched from then on.
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED


async def test_a_login_over_a_live_session_keeps_the_socket(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await echo(scope, receive, send)

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        accept = await peer.gets()
        assert accept["type"] == "websocket.accept"
        assert len(cookies([accept])) == 1
        sid = (await peer.gets())["text"]
        assert await reasons(sessions) == [None, "replaced"]
        peer.says({"type": "websocket.receive", "text": "still here"})
        assert (await peer.gets())["text"] == "still here"
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED
    assert open_sids(sessions) == []


async def test_a_login_after_accept_is_refused(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "websocket.accept"})
        with pytest.raises(ConfigurationError, match="before the response"):
            await sessions.start_session(scope, {"id": "ann"})
        await send({"type": "websocket.close", "code": 1000})

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket()) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        assert (await peer.gets())["type"] == "websocket.close"
    assert await reasons(sessions) == []


@pytest.mark.parametrize("answer", ["close", "denial", "raise"])
async def test_a_handshake_that_fails_after_a_login_delivers_nothing(
    sessions: Sessions, answer: str
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        if answer == "raise":
            raise LookupError("no such room")
        if answer == "close":
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "websocket.http.response.start", "status": 500, "headers": []})
            await send({"type": "websocket.http.response.body", "body": b""})

    async def run() -> list[Message]:
        return await call(SessionMiddleware(app, sessions=sessions), websocket(denial=True))

    if answer == "raise":
        with pytest.raises(LookupError, match="no such room"):
            await run()
    else:
        assert cookies(await run()) == []
    assert await reasons(sessions) == ["not_delivered"]


async def test_a_denial_can_carry_the_cookie(sessions: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, {"id": "ann"})
        await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b""})

    sent = await call(SessionMiddleware(app, sessions=sessions), websocket(denial=True))
    assert len(cookies(sent)) == 1
    assert await reasons(sessions) == [None]


async def test_ended_here_a_socket_closes_at_once_and_the_app_is_told(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with Peer(app, scope := websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED
    assert scope["state"]["left"]["type"] == "websocket.disconnect"
    assert scope["state"]["left"]["code"] == 1008


async def test_ended_here_every_socket_of_the_session_closes_and_no_other(
    sessions: Sessions,
) -> None:
    sid, cookie = await log_in(sessions)
    _, other_cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with (
        Peer(app, websocket(cookie=cookie)) as one,
        Peer(app, websocket(cookie=cookie)) as two,
        Peer(app, websocket(cookie=other_cookie)) as other,
    ):
        for peer in (one, two, other):
            await peer.gets()
            await peer.gets()
        await sessions.end_session_by_id(sid)
        assert await one.gets() == ENDED
        assert await two.gets() == ENDED
        other.says({"type": "websocket.receive", "text": "still here"})
        assert (await other.gets())["text"] == "still here"
        other.says({"type": "websocket.disconnect", "code": 1000})


async def test_a_logout_from_the_socket_closes_it(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await sessions.end_session(scope)
        assert scope["state"]["sid"] is None
        assert (await receive())["type"] == "websocket.disconnect"

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        assert await peer.gets() == ENDED
    assert await reasons(sessions) == ["logout"]


async def test_a_session_that_ends_before_accept_opens_no_socket(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    inside, ended = asyncio.Event(), asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "websocket.connect"
        inside.set()
        await ended.wait()
        await send({"type": "websocket.accept"})
        raise AssertionError("accepted")

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await inside.wait()
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED  # a server makes 403 of it
        ended.set()


async def test_an_app_that_only_sends_is_stopped_too(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    faults: list[BaseException] = []
    more = asyncio.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        try:
            while True:
                await more.acquire()
                await send({"type": "websocket.send", "text": "tick"})
        except OSError as fault:  # as on a connection that was lost
            faults.append(fault)
            raise

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        more.release()
        assert (await peer.gets())["text"] == "tick"
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED
        more.release()
    assert [str(fault) for fault in faults] == ["session ended"]


async def test_what_the_app_closes_itself_is_closed_once(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    closed = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close", "code": 4000})
        await sessions.end_session_by_id(sid)
        await closed.wait()

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        assert await peer.gets() == {"type": "websocket.close", "code": 4000}
        closed.set()


async def test_an_app_may_close_after_the_session_has(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert (await receive())["type"] == "websocket.disconnect"
        await send({"type": "websocket.close", "code": 1000})

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await sessions.end_session_by_id(sid)
        assert await peer.gets() == ENDED


async def test_after_the_browser_has_gone_nothing_is_sent(sessions: Sessions) -> None:
    sid, cookie = await log_in(sessions)
    gone = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        assert await receive() == {"type": "websocket.disconnect", "code": 1001}
        await sessions.end_session_by_id(sid)
        await gone.wait()

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        peer.says({"type": "websocket.disconnect", "code": 1001})
        gone.set()


async def test_a_message_that_was_waited_for_in_vain_is_not_lost(sessions: Sessions) -> None:
    _, cookie = await log_in(sessions)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        waiting = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        waiting.cancel()  # as a timeout does
        await asyncio.wait([waiting])
        await send({"type": "websocket.send", "text": "now"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await receive()

    async with Peer(SessionMiddleware(app, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        assert (await peer.gets())["text"] == "now"
        peer.says({"type": "websocket.receive", "text": "hello"})
        assert (await peer.gets())["text"] == "hello"
        peer.says({"type": "websocket.disconnect", "code": 1000})


async def test_ended_in_another_process_a_socket_closes_with_the_next_check(
    make_sessions: MakeSessions,
) -> None:
    sessions, elsewhere = await make_sessions(), await make_sessions()
    sid, cookie = await log_in(sessions)
    _, other_cookie = await log_in(sessions)
    app = SessionMiddleware(echo, sessions=sessions)
    async with (
        Peer(app, websocket(cookie=cookie)) as peer,
        Peer(app, websocket(cookie=other_cookie)) as other,
    ):
        for one in (peer, other):
            await one.gets()
            await one.gets()
        await check_what_is_open(sessions)
        await elsewhere.end_session_by_id(sid)
        await check_what_is_open(sessions)
        assert await peer.gets() == ENDED
        other.says({"type": "websocket.receive", "text": "still here"})
        assert (await other.gets())["text"] == "still here"
        other.says({"type": "websocket.disconnect", "code": 1000})


async def test_sockets_are_checked_again_and_again(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(socket_check_interval=timedelta(milliseconds=5))
    elsewhere = await make_sessions()
    sid, cookie = await log_in(sessions)
    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        await elsewhere.end_session_by_id(sid)
        assert await peer.gets() == ENDED
    assert open_sids(sessions) == []


async def test_a_session_that_runs_out_closes_its_sockets(sessions: Sessions, clock: Clock) -> None:
    _, cookie = await log_in(sessions)
    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        clock.turn(timedelta(days=14))
        await check_what_is_open(sessions)
        assert await peer.gets() == ENDED


async def test_what_the_browser_says_keeps_the_session_alive(
    sessions: Sessions, clock: Clock
) -> None:
    sid, cookie = await log_in(sessions)
    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        for _ in range(3):
            clock.turn(timedelta(days=9))
            peer.says({"type": "websocket.receive", "text": "hello"})
            await peer.gets()
            await settled(sessions)
            await check_what_is_open(sessions)
        peer.says({"type": "websocket.disconnect", "code": 1000})
    session = await sessions.get_by_id(sid)
    assert session is not None
    assert session.last_seen_at == clock.now


async def test_an_outage_closes_no_socket(
    sessions: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    _, cookie = await log_in(sessions)
    async with Peer(SessionMiddleware(echo, sessions=sessions), websocket(cookie=cookie)) as peer:
        await peer.gets()
        await peer.gets()
        async with rows.outage(sessions):
            await check_what_is_open(sessions)
        assert "could not be checked" in caplog.text
        peer.says({"type": "websocket.receive", "text": "still here"})
        assert (await peer.gets())["text"] == "still here"
        peer.says({"type": "websocket.disconnect", "code": 1000})
