"""Clients that have not come through the middleware: `authenticate`, and `watch`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import pytest

from asgi_sessions import ConfigurationError, Session, Sessions, SessionsUnavailable
from asgi_sessions.testing import logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, cookie_of, make_app
from tests.support import entered as entered_scope
from tests.support.asgi import reasons, until
from tests.support.engines import run
from tests.support.inside import check_what_is_open, open_sids, settled, touched

Given = Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]


async def cookie_header(sessions: Sessions, person: str = "ann") -> str:
    ((name, value),) = (await logged_in_cookie(sessions, person)).items()
    return f"{name}={value}"


async def test_headers_are_taken_as_frameworks_have_them(sessions: Sessions) -> None:
    cookie = await cookie_header(sessions)
    forms: list[Given] = [
        {"Cookie": cookie},
        [("cookie", cookie)],  # gRPC's metadata
        [(b"host", b"test"), (b"cookie", cookie.encode())],  # ASGI's
    ]
    for headers in forms:
        session = await sessions.authenticate(headers)
        assert session is not None
        assert session.person_id == "ann"
        assert session == (await sessions.list_sessions("ann"))[0]
    for none in ({}, {"Cookie": "sid=x"}, {"Cookie": cookie[:-1] + "☃"}):
        assert await sessions.authenticate(none) is None


async def test_it_decides_as_the_middleware_does(sessions: Sessions, clock: Clock) -> None:
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    name = sessions.cookie_name
    old = {"cookie": f"{name}={cookie_of(browser, sessions)}"}
    await browser.post("/renew")
    bridged = await sessions.authenticate(old)
    assert bridged is not None
    assert bridged.authenticated_at is None  # nothing was proved for who has the old secret
    new = {"cookie": f"{name}={cookie_of(browser, sessions)}"}
    fresh = await sessions.authenticate(new)  # it has been seen
    assert fresh is not None
    assert fresh.authenticated_at is not None
    await touched()
    clock.turn(timedelta(seconds=61))
    assert await sessions.authenticate(old) is None
    assert await reasons(sessions) == ["reuse"]
    assert await sessions.authenticate(new) is None


async def test_it_counts_as_use(sessions: Sessions, clock: Clock) -> None:
    headers = {"cookie": await cookie_header(sessions)}
    for _ in range(2):
        clock.turn(timedelta(days=10))  # the idle timeout is 14 days
        assert await sessions.authenticate(headers) is not None
        await settled(sessions)
    assert [one.last_seen_at for one in await sessions.list_sessions("ann")] == [clock.now]


async def test_a_token_counts_whatever_the_cookie_and_the_origin_say(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(bearer=True)
    cookie = await cookie_header(sessions, "bob")
    foreign = {"host": "test", "origin": "https://evil.example", "cookie": cookie}
    assert await sessions.authenticate(foreign) is None
    own = await sessions.authenticate({**foreign, "origin": "https://test"})
    assert own is not None
    scope, _ = await entered_scope(sessions)
    issued = await sessions.start_token(scope, {"id": "ann"})
    session = await sessions.authenticate({**foreign, "authorization": f"Bearer {issued.token}"})
    assert session is not None
    assert session.person_id == "ann"


async def test_an_outage_is_told(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"cookie": await cookie_header(sessions)}

    async def down(_: str) -> Any:
        raise SessionsUnavailable("gone")

    monkeypatch.setattr(sessions._core.store, "by_sid", down)
    with pytest.raises(SessionsUnavailable):
        await sessions.authenticate(headers)
    assert "sessions unavailable: gone" in caplog.text


@pytest.mark.parametrize("headers", [5, [5], [("cookie",)], {"cookie": 5}, {b"a": None}])
async def test_headers_that_are_none_are_refused(plain: Sessions, headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="use a mapping of names to values"):
        await plain.authenticate(headers)


class Socket:
    """Something open that the middleware does not know of."""

    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1

    async def hang_up(self) -> None:
        self.close()


async def entered(sessions: Sessions, headers: Given) -> Session:
    session = await sessions.authenticate(headers)
    assert session is not None
    return session


async def test_what_is_watched_is_closed_with_its_session(sessions: Sessions) -> None:
    session = await entered(sessions, {"cookie": await cookie_header(sessions)})
    one, two, stopped, left = (Socket() for _ in range(4))
    sessions.watch(session, one.close)
    sessions.watch(session, two.hang_up)
    sessions.watch(session, stopped.close).stop()
    with sessions.watch(session, left.close):
        assert open_sids(sessions) == [session.sid]
    await sessions.end_session_by_id(session.sid)
    await until(lambda: one.closed and two.closed)
    assert [one.closed, two.closed, stopped.closed, left.closed] == [1, 1, 0, 0]
    assert open_sids(sessions) == []


async def test_a_close_that_fails_holds_up_no_other_end(
    plain: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise RuntimeError("the pipe is broken")

    watched = [await entered(plain, {"cookie": await cookie_header(plain)}) for _ in range(2)]
    socket = Socket()
    plain.watch(watched[0], fail)
    plain.watch(watched[1], socket.close)
    await run(plain, plain.end_all_statement("ann"))
    await check_what_is_open(plain)  # what raises here would have no later one begin
    assert socket.closed == 1
    again = await entered(plain, {"cookie": await cookie_header(plain)})
    plain.watch(again, fail)
    await plain.end_session_by_id(again.sid)

    def warned() -> list[str]:
        return [one.getMessage() for one in caplog.records if one.levelname == "ERROR"]

    await until(lambda: len(warned()) == 2)
    assert set(warned()) == {"what was open on a session that has ended could not be closed"}


async def test_what_is_watched_is_closed_by_an_end_in_another_process(
    sessions: Sessions, make_sessions: MakeSessions
) -> None:
    session = await entered(sessions, {"cookie": await cookie_header(sessions)})
    socket = Socket()
    sessions.watch(session, socket.close)
    await check_what_is_open(sessions)
    assert socket.closed == 0
    await (await make_sessions()).end_all_sessions("ann")
    await check_what_is_open(sessions)
    assert socket.closed == 1


async def test_a_renewal_by_somebody_else_closes_what_was_opened_with_the_old_secret(
    plain: Sessions,
) -> None:
    browser = Browser(make_app(plain))
    await browser.login("ann")
    headers = {"cookie": f"{plain.cookie_name}={cookie_of(browser, plain)}"}
    old, unmarked, new = Socket(), Socket(), Socket()
    plain.watch(await entered(plain, headers), old.close)
    (listed,) = await plain.list_sessions("ann")
    plain.watch(listed, unmarked.close)  # of this one only its end is noticed
    await browser.post("/renew")
    headers = {"cookie": f"{plain.cookie_name}={cookie_of(browser, plain)}"}
    watch = plain.watch(await entered(plain, headers), new.close)
    await until(lambda: old.closed)
    await check_what_is_open(plain)
    assert [old.closed, unmarked.closed, new.closed] == [1, 0, 0]
    watch.stop()
    watch.stop()
    await plain.end_all_sessions("ann")
    await until(lambda: unmarked.closed)
    assert new.closed == 0


async def test_an_end_that_is_told_twice_closes_once(plain: Sessions) -> None:
    session = await entered(plain, {"cookie": await cookie_header(plain)})
    socket = Socket()
    plain.watch(session, socket.close)
    plain._core.live_connections.end(session.sid)  # as by two threads at once
    plain._core.live_connections.end(session.sid)
    await until(lambda: socket.closed)
    await asyncio.sleep(0)
    assert socket.closed == 1
