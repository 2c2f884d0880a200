"""`request.session`: loaded before the app runs, saved before the first byte, gone with its end."""

from __future__ import annotations

import asyncio
import logging
import operator
from base64 import b64encode
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from json import dumps
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import TimestampSigner
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_sessions import (
    MISSING,
    ConfigurationError,
    InvalidSession,
    Lifetimes,
    SessionData,
    SessionDict,
    SessionMiddleware,
    Sessions,
    SessionsUnavailable,
    StarletteCookie,
    _metrics,
)
from asgi_sessions._cli.operator import Operator
from asgi_sessions._metrics import Metrics
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Clock, make_app
from tests.support.asgi import Peer, call, cookies, echo, field, http, respond, websocket
from tests.support.data import Step, Visit, broken, data_of, rows, statements, watched
from tests.support.engines import Onlooker, app_engine, kind, run
from tests.support.inside import driver_of, settled, touched

IDLE = timedelta(days=3)
ABSOLUTE = timedelta(days=14)

#: Keys and values that some database may read as something else.
KEYS = [
    *("a", "A", "é", "e\u0301", "a.b", "$", "$.a", "'", "''", "[0]", "a[0]", "*", "**", "{", "}"),
    *("%", "%s", "%(id)s", ":name", "?", "??", "-", "-1", "--", "a-b", " ", "  ", "#", "@", ";"),
    *("😀", "\u2028", "\u00a0", "\ufeff", "ß", "ss", "null", "0", "last", "x" * 128, "😀" * 128),
]
VALUES: list[Any] = [
    *(
        "",
        "x",
        'a"b',
        "a\\b",
        "\\u0000",
        "\\",
        "'",
        "%s",
        ":id",
        "?",
        "\n\t\x1f\x7f",
        "😀",
        "\u2028",
    ),
    *("null", "1", "{}", "x" * 5000, 0, 1, -1, 2**63 - 1, -(2**63), 1.0, 0.1, 1e-7, 1e15, 1e16),
    *(1e22, 1e300, 5e-324, 1.7976931348623157e308, 123456789.123456789, True, False, None),
    *([], {}, [[]], {"": 1}, {"b": 1, "a": {"$.a": [None, True, 1, 1.0]}}, {'"': 1, "\\": "\n"}),
]


@pytest.fixture
async def data(make_sessions: MakeSessions) -> Sessions:
    return await make_sessions(data=True)


async def somebody(kind: str, sessions: Sessions) -> Visit:
    """Who has logged in, a visitor with a cart, or somebody who is new."""
    visit = Visit(sessions)
    if kind == "ann":
        await visit.login()
    elif kind == "guest":
        await visit.has(lambda session: session.update(cart=["a"], theme="dark"))
        assert visit.cookie is not None
    return visit


@pytest.fixture
async def ann(data: Sessions) -> Visit:
    return await somebody("ann", data)


@pytest.fixture
async def guest(data: Sessions) -> Visit:
    return await somebody("guest", data)


def putting(values: dict[str, Any]) -> Callable[[dict[str, Any]], None]:
    return lambda session: session.update(values)


def put(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    return putting({key: value})


async def regenerate(request: Request) -> None:
    session = request.session
    assert isinstance(session, SessionDict)
    await session.regenerate_id()


# --- loading and saving ---------------------------------------------------------------------------


async def test_a_request_finds_what_an_earlier_one_has_left(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", [1, {"b": None}]))
    assert ann.set_cookies == []  # no cookie for a save
    assert isinstance(ann.session, dict)
    assert await ann.has() == {"a": [1, {"b": None}]}
    assert type(ann.session) is SessionDict
    assert (ann.session.accessed, ann.session.modified) == (True, False)
    assert await data_of(data) == {ann.cookie.partition("=")[2][:36]: {"a": [1, {"b": None}]}}  # type: ignore[union-attr]


async def test_it_is_saved_when_the_first_byte_arrives(
    make_sessions: MakeSessions, data: Sessions, ann: Visit
) -> None:
    other, seen = await make_sessions(data=True), []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        await respond(send)

    async def send(message: Message) -> None:
        seen.append((message["type"], await data_of(other)))

    await SessionMiddleware(app, sessions=data)(http(cookie=ann.cookie), asyncio.Future, send)
    assert [message for message, _ in seen] == ["http.response.start", "http.response.body"]
    assert [[*there.values()] for _, there in seen] == [[{"a": 1}]] * 2


async def test_nothing_is_written_when_nothing_has_changed(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", {"b": 1}))
    for change in (
        dict,
        put("a", {"b": 1}),
        lambda session: session.update(a={"b": 1}),
        lambda session: (session.pop("a"), session.setdefault("a", {"b": 1})),
        lambda session: session.mark_modified(),
        lambda session: session.pop("none", None),
    ):
        with statements(data) as seen:
            await ann.has(change)
        assert [sql.split(maxsplit=1)[0] for sql in seen] == ["SELECT"]  # the look-up
    with statements(data) as seen:
        await ann.has(put("a", 2))
    assert [sql.split(maxsplit=1)[0] for sql in seen] == ["SELECT", "INSERT"]
    assert ann.set_cookies == []


async def test_a_change_inside_of_a_value_counts(ann: Visit) -> None:
    await ann.has(put("a", {"list": [1], "n": {"x": 1}}))
    await ann.has(lambda session: session["a"]["list"].append(2))
    assert not ann.session.modified
    assert await ann.has() == {"a": {"list": [1, 2], "n": {"x": 1}}}
    await ann.has(lambda session: session["a"]["n"].update(x=True))
    assert (await ann.has())["a"]["n"]["x"] is True


async def test_a_removed_key_is_gone(ann: Visit) -> None:
    await ann.has(lambda session: session.update(a=1, b=2, c=3, d=4))
    for removes in (
        lambda session: session.pop("a"),
        lambda session: session.__delitem__("b"),
        lambda session: session.popitem(),
    ):
        await ann.has(removes)
    assert await ann.has() == {"c": 3}
    await ann.has(lambda session: (session.clear(), session.update(e=5)))
    assert await ann.has() == {"e": 5}
    await ann.has(lambda session: session.clear())
    assert await ann.has() == {}


async def test_requests_side_by_side_keep_one_anothers_keys(ann: Visit, data: Sessions) -> None:
    await ann.has(lambda session: session.update(same=0, gone=1))
    other = Visit(data, ann.cookie)

    async def step(request: Request) -> None:
        await other.has(lambda session: (session.update(b=2, same=2), session.pop("gone")))
        request.session.update(a=1, same=1)

    await ann.does(step)
    assert await ann.has() == {"a": 1, "b": 2, "same": 1}


async def test_keys_of_all_kinds_come_back(ann: Visit) -> None:
    for value in (1, 2):  # the row is made, and then changed
        await ann.has(putting(dict.fromkeys(KEYS, value)))
        assert await ann.has() == dict.fromkeys(KEYS, value)
    for key in KEYS:
        await ann.has(operator.methodcaller("pop", key))
    assert await ann.has() == {}
    for key in KEYS:
        await ann.has(put(key, key))
    assert await ann.has() == {key: key for key in KEYS}


async def test_values_of_all_kinds_come_back(ann: Visit) -> None:
    def alike(one: Any, other: Any) -> bool:
        return dumps(one, sort_keys=True) == dumps(other, sort_keys=True)

    for first in (VALUES, VALUES[::-1]):  # the row is made, and then changed
        await ann.has(putting(enumerated(first)))
        assert alike(await ann.has(), enumerated(first))
    await ann.has(put("one more", 1))  # nothing of what came back is refused
    assert alike(await ann.has(), {**enumerated(VALUES[::-1]), "one more": 1})

    guest = Visit(ann.sessions)
    await guest.has(putting(enumerated(VALUES)))
    assert alike(await guest.has(), enumerated(VALUES))
    await guest.login()
    assert alike(await guest.has(), enumerated(VALUES))


def enumerated(values: list[Any]) -> dict[str, Any]:
    return {f"k{number}": value for number, value in enumerate(values)}


async def test_deep_values_come_back(ann: Visit) -> None:
    value: Any = {"a": 1}
    for _ in range(29):
        value = [value]
    for key in ("a", "b"):
        await ann.has(put(key, value))
    assert await ann.has() == {"a": value, "b": value}
    with pytest.raises(ValueError, match="more than 30"):
        await ann.has(put("a", [value]))


@pytest.mark.parametrize("count", [33, 300])
async def test_many_keys_at_once_come_back(ann: Visit, count: int) -> None:
    await ann.has(put("other", 0))
    many = {f"k{number}": number for number in range(count)}
    await ann.has(lambda session: session.update(many))
    assert await ann.has() == {"other": 0, **many}
    await ann.has(lambda session: [session.pop(key) for key in many])
    assert await ann.has() == {"other": 0}


# --- what is not saved ----------------------------------------------------------------------------


async def test_an_app_that_fails_saves_nothing(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", 1))
    with statements(data) as seen:
        await ann.has(put("a", 2), status=500)
        await ann.has(put("b", 2), status=503)

        async def fails(request: Request) -> None:
            request.session["a"] = 3
            raise LookupError("the app's own")

        with pytest.raises(LookupError):
            await ann.does(fails)
    assert all(sql.startswith("SELECT") for sql in seen)
    assert await ann.has() == {"a": 1}
    await ann.has(put("a", 4), status=404)
    assert await ann.has() == {"a": 4}


async def test_an_app_that_answers_nothing_saves_nothing(ann: Visit, data: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1

    await call(SessionMiddleware(app, sessions=data), http(cookie=ann.cookie))
    assert await ann.has() == {}


async def test_an_app_that_fails_behind_a_framework_saves_nothing(data: Sessions) -> None:
    async def fails(request: Request) -> Response:
        request.session["a"] = 1
        raise LookupError

    async def sees(request: Request) -> Response:
        return PlainTextResponse(str(dict(request.session)))

    app = make_app(data, Route("/fails", fails), Route("/sees", sees))
    async with Browser(app, raise_app_exceptions=False) as browser:
        await browser.login("ann")
        assert (await browser.get("/fails")).status_code == 500
        assert (await browser.get("/sees")).text == "{}"


async def test_data_of_a_session_that_has_ended_meanwhile_are_dropped(
    make_sessions: MakeSessions,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    dropped = counter(monkeypatch)
    data = await make_sessions(data=True)
    ann = await somebody("ann", data)
    await ann.has(put("a", 1))

    async def step(request: Request) -> None:
        await data.end_session_by_id(request.state.sid)
        request.session["b"] = 2
        assert not await data.data.save(request)

    with caplog.at_level(logging.WARNING, "asgi_sessions"):
        await ann.does(step)
    assert ann.status == 200
    assert dropped() == 1
    assert warnings(caplog) == []
    assert await data_of(data) == {}
    assert await ann.has() == {}
    assert await data.list_sessions("ann") == []


def warnings(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


def counter(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How often data were dropped."""
    reader = InMemoryMetricReader()
    meter = MeterProvider(metric_readers=[reader]).get_meter("asgi_sessions")
    monkeypatch.setattr(_metrics, "METRICS", Metrics(meter))

    def count() -> int:
        found = reader.get_metrics_data()
        if found is None:
            return 0
        metrics: list[Any] = [*found.resource_metrics[0].scope_metrics[0].metrics]
        (dropped,) = [one for one in metrics if one.name == "asgi_sessions.data.dropped"]
        return sum(int(point.value) for point in dropped.data.data_points)

    return count


async def test_too_much_is_refused_before_anything_is_written(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(data=SessionData(max_bytes=100))
    visit = Visit(sessions)
    await visit.login()
    await visit.has(put("a", "x" * 50))
    with statements(sessions) as seen:
        with pytest.raises(InvalidSession, match="bytes of JSON"):
            await visit.has(put("b", "é" * 25))
        with pytest.raises(InvalidSession, match="bytes of JSON"):
            await visit.does(lambda request: sessions.data.append(request, "l", "x" * 60))
        with pytest.raises(InvalidSession):
            await Visit(sessions).has(put("b", "x" * 100))
    # What depends on the value that is there looks, and writes nothing.
    assert not [sql for sql in seen if sql.startswith(("INSERT", "DELETE"))]
    assert await visit.has() == {"a": "x" * 50}
    assert await data_of(sessions, "visitors") == {}


# --- outages --------------------------------------------------------------------------------------


def is_refused(visit: Visit) -> None:
    assert visit.status == 503
    assert field(visit.sent[0], "retry-after") == ["1"]
    assert visit.set_cookies == []


@pytest.mark.parametrize("kind", ["ann", "guest"])
async def test_an_outage_loses_nothing(kind: str, data: Sessions) -> None:
    visit = await somebody(kind, data)
    await visit.has(put("a", 1))
    before, cookie = await visit.has(), visit.cookie
    with broken(data, data.table.name):
        await visit.has()
        is_refused(visit)

    async def step(request: Request) -> None:
        request.session["a"] = 2
        away.__enter__()

    away = broken(data, data.table.name)
    await visit.does(step)
    is_refused(visit)
    away.__exit__(None, None, None)
    assert visit.cookie == cookie
    assert await visit.has() == before
    with broken(data, data.table.name), suppress(SessionsUnavailable):
        await visit.does(lambda request: data.data.increment(request, "a"))
    is_refused(visit)
    assert await visit.has() == before


@pytest.mark.parametrize("kind", ["ann", "guest"])
async def test_an_outage_can_mean_no_data(
    kind: str,
    data: Sessions,
    make_sessions: MakeSessions,
    caplog: pytest.LogCaptureFixture,
) -> None:
    visit = await somebody(kind, data)
    await visit.has(put("a", 1))
    before = await visit.has()
    visit.sessions = sessions = await make_sessions(data=True, on_unavailable="anonymous")
    with broken(sessions, sessions.table.name):
        assert await visit.has() == {}
        with caplog.at_level(logging.WARNING, "asgi_sessions"):
            await visit.has(put("b", 1))
    assert visit.status == 200
    assert visit.set_cookies == []
    (lost,) = [record for record in caplog.records if record.name == "asgi_sessions.data"]
    assert "nobody knows whether there is a session" in lost.getMessage()
    assert "sessions unavailable" in caplog.text
    assert await visit.has() == before
    assert len(await data_of(sessions)) + len(await data_of(sessions, "visitors")) == 1


async def test_an_end_that_meets_an_outage_is_told_and_nothing_else(
    ann: Visit, data: Sessions
) -> None:
    await ann.has(put("a", 1))
    with broken(data, "DELETE", "_data"):
        await ann.logout()
        is_refused(ann)
    assert await ann.has() == {"a": 1}  # all of it or nothing


# --- after the response has begun -----------------------------------------------------------------


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    scope["session"]["before"] = 1
    await send({"type": "http.response.start", "status": 200, "headers": []})
    scope["session"]["after"] = 2
    await send({"type": "http.response.body", "body": b""})


async def test_what_changes_later_is_saved_at_the_end(ann: Visit, guest: Visit) -> None:
    for visit in (ann, guest):
        await call(SessionMiddleware(stream, sessions=visit.sessions), http(cookie=visit.cookie))
        seen = await visit.has()
        assert (seen["before"], seen["after"]) == (1, 2)


async def test_a_new_visitors_later_changes_are_saved_too(data: Sessions) -> None:
    visit = Visit(data)
    visit.sent = await call(SessionMiddleware(stream, sessions=data), http())
    visit.keep()
    assert await visit.has() == {"before": 1, "after": 2}


async def test_what_comes_too_late_for_a_cookie_is_warned_about(
    data: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    async def late(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        scope["session"]["a"] = "a-value"

    with caplog.at_level(logging.WARNING):
        sent = await call(SessionMiddleware(late, sessions=data), http())
    assert cookies(sent) == []
    (record,) = warnings(caplog)
    assert record.name == "asgi_sessions.data"
    assert "after the response had begun" in record.getMessage()
    assert "a-value" not in record.getMessage()
    assert await data_of(data, "visitors") == {}


async def test_an_app_that_fails_later_saves_no_more(ann: Visit, data: Sessions) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        await stream(scope, receive, send)
        raise LookupError

    with pytest.raises(LookupError):
        await call(SessionMiddleware(fails, sessions=data), http(cookie=ann.cookie))
    assert await ann.has() == {"before": 1}


async def test_a_stream_saves_when_it_says_so(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(data=True, end_streams=True)
    visit = Visit(sessions)
    await visit.login()
    seen: list[dict[str, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for n in range(2):
            scope["session"]["n"] = n
            assert await sessions.data.save(scope)
            seen.extend((await data_of(sessions)).values())
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        scope["session"]["last"] = True
        await send({"type": "http.response.body", "body": b""})

    await call(SessionMiddleware(app, sessions=sessions), http(cookie=visit.cookie))
    assert seen == [{"n": 0}, {"n": 1}]
    assert await visit.has() == {"n": 1, "last": True}


# --- WebSockets -----------------------------------------------------------------------------------


async def test_a_socket_has_data(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", 1))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        socket.session["b"] = 2
        await socket.accept()
        await socket.send_json(dict(socket.session))
        async for word in socket.iter_text():
            socket.session["heard"] = word
            await socket.send_json(await data.data.save(socket))
        socket.session["gone"] = True

    scope = websocket(cookie=ann.cookie)
    async with Peer(SessionMiddleware(app, sessions=data), scope) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        assert (await peer.gets())["text"] == '{"a":1,"b":2}'
        assert await ann.has() == {"a": 1, "b": 2}
        peer.says({"type": "websocket.receive", "text": "x"})
        assert (await peer.gets())["text"] == "true"
        assert await ann.has() == {"a": 1, "b": 2, "heard": "x"}
        peer.says({"type": "websocket.disconnect", "code": 1000})
    assert await ann.has() == {"a": 1, "b": 2, "heard": "x", "gone": True}


async def test_a_new_visitors_cookie_comes_with_the_accept(data: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        socket.session["a"] = 1
        await socket.accept()
        await socket.close()

    visit = Visit(data)
    async with Peer(SessionMiddleware(app, sessions=data), websocket()) as peer:
        visit.sent = [await peer.gets()]
        assert (await peer.gets())["type"] == "websocket.close"
    visit.keep()
    assert await visit.has() == {"a": 1}


async def test_a_socket_of_a_foreign_origin_has_no_data(
    ann: Visit, guest: Visit, data: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        seen.append(dict(socket.session))
        socket.session["a"] = 1
        await socket.accept()
        await socket.close()

    await ann.has(put("a", 0))
    for cookie in (ann.cookie, guest.cookie, None):
        scope = websocket(cookie=cookie)
        scope["headers"].append((b"origin", b"https://evil.example"))
        async with Peer(SessionMiddleware(app, sessions=data), scope) as peer:
            assert field(await peer.gets(), "set-cookie") == []
            await peer.gets()
    assert seen == [{}, {}, {}]
    assert await ann.has() == {"a": 0}
    assert len(await data_of(data, "visitors")) == 1


# --- without, beside, around ----------------------------------------------------------------------


async def test_without_the_option_there_is_nothing(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(data=False)
    assert len(sessions.metadata.tables) == 2
    visit, theirs = Visit(sessions), {"a": 1}
    await visit.login()

    async def step(request: Request) -> Any:
        return request.scope.get("session", "none")

    assert await visit.does(step) == "none"
    with statements(sessions) as seen:

        def with_another(app: Any) -> Any:
            async def layer(scope: Scope, receive: Receive, send: Send) -> None:
                await app({**scope, "session": theirs}, receive, send)

            return layer

        assert await visit.does(step, app=with_another) is theirs
    assert len(seen) == 1
    assert "_data" not in seen[0]
    with pytest.raises(ConfigurationError, match=r"Sessions\(data=True\)"):
        _ = sessions.data


async def test_two_sessions_in_one_app(make_sessions: MakeSessions, table_name: str) -> None:
    sessions = await make_sessions(data=True)
    other = await make_sessions(table_name=f"{table_name}_b", cookie_name="other")
    try:
        visit = Visit(sessions)

        def inside(app: Any) -> Any:
            return SessionMiddleware(app, sessions=other)

        await visit.has(put("a", 1), app=inside)

        async def logs_in(request: Request) -> None:
            await other.start_session(request, {"id": "bob"})

        await visit.does(logs_in, app=inside)
        assert await visit.has(app=inside) == {"a": 1}  # a login there is none here
        assert len(await data_of(sessions, "visitors")) == 1
    finally:
        for table in other.metadata.sorted_tables:
            await run(other, table.delete())


async def test_an_excluded_path_has_none(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(data=True, exclude=["/health"])

    async def step(request: Request) -> bool:
        with pytest.raises(ConfigurationError):
            await sessions.data.pop(request, "a")
        return "session" in request.scope

    assert not await Visit(sessions).does(step, path="/health")


async def test_litestars_replacements_of_the_dict_are_understood(ann: Visit) -> None:
    await ann.has(lambda session: session.update(a=1, b=2))

    def by_litestar(value: object) -> Step:
        async def step(request: Request) -> None:
            request.scope.update(litestar_app=request.scope.get("app"), session=value)

        return step

    await ann.does(by_litestar({"b": 2, "c": 3}))  # set_session
    assert await ann.has() == {"b": 2, "c": 3}
    with pytest.raises(TypeError, match=r"session\['b'\]"):
        await ann.does(by_litestar({"b": object()}))
    await ann.does(by_litestar(None))  # clear_session
    assert await ann.has() == {}


@pytest.mark.parametrize("value", [{"n": 2}, MappingProxyType({"n": 2}), None])
async def test_one_key_changes_in_what_litestar_was_given(
    ann: Visit, data: Sessions, value: object
) -> None:
    await ann.has(put("n", 5))
    given = {**value} if isinstance(value, dict) else value  # which is changed

    async def step(request: Request) -> Any:
        request.scope.update(litestar_app=request.scope.get("app"), session=given)
        await data.data.increment(request, "n")
        return await data.data.increment(request, "n")

    n = 2 if value is None else 4
    assert await ann.does(step) == n
    assert await ann.has() == {"n": n}


async def test_starlettes_middleware_inside_keeps_its_own(ann: Visit) -> None:
    """Admins bring it along."""
    await ann.has(put("a", 1))

    def inside(app: ASGIApp) -> ASGIApp:
        return StarlettesMiddleware(app, secret_key=KEY)

    await ann.has(put("token", "of the admin"), app=inside)
    (cookie,) = ann.set_cookies
    assert cookie.startswith("session=")
    assert await ann.has() == {"a": 1}


async def test_starlettes_middleware_outside_is_refused(ann: Visit) -> None:
    """It would write our data to its cookie."""
    layered = StarlettesMiddleware(SessionMiddleware(echo, sessions=ann.sessions), secret_key=KEY)
    with pytest.raises(ConfigurationError, match="take that layer out"):
        await call(layered, http(cookie=ann.cookie))


async def test_an_answer_that_depends_on_data_is_in_no_shared_cache(guest: Visit) -> None:
    await guest.has()
    assert field(guest.sent[0], "vary") == ["Cookie"]
    new = Visit(guest.sessions)
    await new.has(put("a", 1))
    assert field(new.sent[0], "cache-control") == ["no-store"]
    await new.has(put("a", 2))
    assert "Cookie" in field(new.sent[0], "vary")


# --- visitors -------------------------------------------------------------------------------------


async def test_a_bot_that_writes_nothing_makes_no_row(data: Sessions) -> None:
    bot = Visit(data)
    changes: list[Callable[[Any], Any]] = [
        dict,
        lambda session: session.get("a"),
        lambda session: session.pop("_messages", []),
        lambda session: session.setdefault("_messages", []),
        lambda session: session.clear(),
        lambda session: session.update(a={}, b=[]),
        lambda session: (session.update(a=1), session.clear()),
    ]
    with statements(data) as seen:
        for change in changes:
            await bot.has(change)
            await bot.has(change, method="OPTIONS")
            assert bot.set_cookies == []
    assert seen == []


async def test_a_visitor_has_a_row_from_the_first_write_on(data: Sessions, clock: Clock) -> None:
    guest = Visit(data)
    await guest.has()
    assert guest.set_cookies == []
    with statements(data) as seen:
        await guest.has(put("a", 1))
    assert len(seen) == 1
    (cookie,) = guest.set_cookies
    assert cookie.startswith("__Host-sid=")
    assert f"; Max-Age={round(ABSOLUTE.total_seconds())}; " in cookie
    assert "; Path=/; HttpOnly; SameSite=Lax; Secure" in cookie
    with statements(data) as seen:
        assert await guest.has() == {"a": 1}
    assert guest.set_cookies == []
    assert len(seen) == 1
    with statements(data) as seen:
        await guest.has(put("b", 2))
    assert len(seen) == 2
    assert guest.cookie is not None
    ((sid, row),) = (await rows(data, "visitors")).items()
    assert row["data"] == {"a": 1, "b": 2}
    assert row["started_at"].replace(tzinfo=clock.now.tzinfo) == clock.now
    assert sid == guest.cookie.partition("=")[2][:36]
    assert await run(data, data.table.select()) == []
    assert await data.list_sessions("ann") == []


async def test_a_visitor_has_no_session(guest: Visit, data: Sessions) -> None:
    async def step(request: Request) -> tuple[Any, ...]:
        return request.state.sid, request.state.session, data.current(request)

    assert await guest.does(step) == (None, None, None)


async def test_the_cookies_are_not_taken_for_one_another(
    guest: Visit, ann: Visit, data: Sessions
) -> None:
    """The sid and the secret of the one, under the signature of the other."""
    await ann.has(put("a", 1))
    (name, _, visitors), (_, _, sessions) = (
        one.cookie.partition("=") for one in (guest, ann) if one.cookie
    )
    for said, signature in ((visitors, sessions), (sessions, visitors)):
        mixed = f"{said.rpartition('.')[0]}.{signature.rpartition('.')[2]}"
        assert await Visit(data, f"{name}={mixed}").has() == {}

    # A row of each kind under the sid and the secret of the other: only the kind tells them apart.
    ((sid, row),) = (await rows(data, "visitors")).items()
    (live,) = await run(data, data.table.select())
    table = data.table
    await run(data, table.insert().values({**live, "id": sid, "secret_hash": row["secret_hash"]}))

    async def who(request: Request) -> Any:
        return request.state.sid

    assert await guest.does(who) is None
    table = data.metadata.tables[f"{data.table.name}_visitors"]
    await run(
        data,
        table.insert().values(
            {**row, "id": live["id"], "secret_hash": live["secret_hash"], "data": {}}
        ),
    )
    assert await ann.has() == {"a": 1}


async def test_a_changed_cookie_of_a_visitor_is_worth_nothing(
    tmp_path: Path, anyio_backend: str
) -> None:
    async with Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, data=True) as sessions:
        await sessions.create_tables()
        guest = Visit(sessions)
        await guest.has(put("a", 1))
        assert guest.cookie is not None
        name, _, value = guest.cookie.partition("=")
        loop = asyncio.get_running_loop()

        def changed(place: int, letter: str) -> str:
            return value[:place] + letter + value[place + 1 :]

        changes = st.builds(
            changed, st.integers(0, len(value) - 1), st.sampled_from("aA0-_.=~é")
        ) | st.integers(0, len(value)).map(lambda length: value[:length])
        found: list[str] = []

        @settings(deadline=None, max_examples=60)
        @given(given=changes)
        def collect(given: str) -> None:
            if given != value:
                found.append(given)

        collect()
        assert loop.is_running()
        with statements(sessions) as seen:
            for given_value in found:
                stranger = Visit(sessions, f"{name}={given_value}")
                assert await stranger.has() == {}
        assert seen == []  # the signature comes first


async def test_a_visitor_is_known_by_the_secret(guest: Visit, data: Sessions) -> None:
    table = data.metadata.tables[f"{data.table.name}_visitors"]
    await run(data, table.update().values(secret_hash=bytes(32)))
    assert await guest.has() == {}


@pytest.mark.parametrize("turns", [1, 8])
async def test_a_visitor_ends_when_idle_or_old(guest: Visit, clock: Clock, turns: int) -> None:
    """One that is there now and then ends when it is old."""
    clock.turn(IDLE - timedelta(seconds=1))
    assert await guest.has() != {}
    for _ in range(turns):
        clock.turn(IDLE - timedelta(hours=1))
        seen = await guest.has()
        if not seen:
            break
    passed = clock.now
    clock.turn(ABSOLUTE)
    assert await guest.has() == {}
    assert passed <= clock.now
    guest.cookie, cookie = None, guest.cookie
    await guest.has(put("a", 1))
    assert guest.cookie not in {None, cookie}


async def test_a_visitor_that_has_ended_begins_anew(
    guest: Visit, data: Sessions, clock: Clock
) -> None:
    old = guest.cookie
    clock.turn(IDLE)
    await guest.has(put("a", 1))
    assert guest.cookie != old
    assert await guest.has() == {"a": 1}
    assert await Visit(data, old).has() == {}


async def test_lifetimes_of_visitors_are_an_option(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    lifetimes = Lifetimes(absolute=timedelta(hours=2), idle=timedelta(hours=1))
    guest = Visit(await make_sessions(data=True, visitor_lifetimes=lifetimes))
    await guest.has(put("a", 1))
    assert "Max-Age=7200;" in guest.set_cookies[0]
    for minutes, there in ((59, True), (59, True), (2, False)):
        clock.turn(timedelta(minutes=minutes))
        assert bool(await guest.has()) is there


async def test_a_visitors_use_is_noted_now_and_then(
    guest: Visit, data: Sessions, clock: Clock
) -> None:
    async def seen_at() -> Any:
        await touched()
        await settled(data)
        ((_, row),) = (await rows(data, "visitors")).items()
        return row["last_seen_at"].replace(tzinfo=clock.now.tzinfo)

    first = clock.now
    clock.turn(timedelta(seconds=59))
    await guest.has()
    assert await seen_at() == first
    clock.turn(timedelta(seconds=1))
    await guest.has(dict, status=500)
    assert await seen_at() == first
    await guest.has()
    assert await seen_at() == clock.now
    clock.turn(timedelta(minutes=2))
    with statements(data) as run_now:
        await guest.has(put("a", 1))
        await settled(data)
    assert len(run_now) == 2  # the save has noted it
    assert await seen_at() == clock.now


async def test_a_use_that_does_not_count_is_not_noted(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions(data=True, touch=lambda scope: scope["path"] != "/poll")
    guest = Visit(sessions)
    await guest.has(put("a", 1))
    clock.turn(IDLE - timedelta(hours=1))
    await guest.has(path="/poll")
    await settled(sessions)
    clock.turn(timedelta(hours=1))
    assert await guest.has() == {}


async def test_a_touch_of_a_visitor_that_fails_hurts_nobody(
    guest: Visit, data: Sessions, clock: Clock
) -> None:
    clock.turn(timedelta(minutes=2))
    with broken(data, "UPDATE"):
        assert (await guest.has())["cart"] == ["a"]
        await settled(data)
    assert guest.status == 200


async def test_old_visitors_are_purged(data: Sessions, clock: Clock) -> None:
    for number in range(5):
        await Visit(data).has(put("n", number))
    clock.turn(ABSOLUTE - timedelta(seconds=1))
    last = Visit(data)
    await last.has(put("n", 5))
    await data.purge()
    assert len(await data_of(data, "visitors")) == 6
    clock.turn(timedelta(seconds=2))
    await data.purge(batch_size=2)
    assert [*(await data_of(data, "visitors")).values()] == [{"n": 5}]
    assert await last.has() == {"n": 5}


# --- logins ---------------------------------------------------------------------------------------


async def test_a_login_takes_the_data_over(guest: Visit, data: Sessions) -> None:
    planted = guest.cookie

    async def step(request: Request) -> None:
        request.session["before"] = 1
        session = request.session
        await data.start_session(request, {"id": "ann"})
        assert request.session is session
        assert session == {"cart": ["a"], "theme": "dark", "before": 1}
        session["after"] = 2

    await guest.does(step)
    assert guest.cookie != planted
    assert len(cookies(guest.sent)) == 1
    everything = {"cart": ["a"], "theme": "dark", "before": 1, "after": 2}
    assert await guest.has() == everything
    assert [*(await data_of(data)).values()] == [everything]
    assert await data_of(data, "visitors") == {}
    assert await Visit(data, planted).has() == {}  # whoever has planted it
    sid, row = next(iter((await rows(data, "data")).items()))
    assert planted is not None
    assert planted.partition("=")[2][:36] != sid
    assert row["data"] == everything


async def test_a_login_takes_what_carry_says(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(data=SessionData(carry=["cart", "new"]))
    guest = Visit(sessions)
    await guest.has(lambda session: session.update(cart=[1], theme="dark"))

    async def step(request: Request) -> Any:
        request.session.update(new=1, other=2)
        await sessions.start_session(request, {"id": "ann"})
        return dict(request.session)

    assert await guest.does(step) == {"cart": [1], "new": 1}
    assert await guest.has() == {"cart": [1], "new": 1}
    # carry is about visitors: the same person keeps all.
    await guest.has(put("theme", "light"))
    await guest.login("ann")
    assert await guest.has() == {"cart": [1], "new": 1, "theme": "light"}


async def test_a_login_may_take_nothing(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(data=SessionData(carry=[]))
    guest = await somebody("guest", sessions)
    await guest.login()
    assert await guest.has() == {}
    assert await data_of(sessions) == await data_of(sessions, "visitors") == {}


async def test_a_login_takes_what_was_never_saved(data: Sessions) -> None:
    async def step(request: Request) -> None:
        request.session["cart"] = 1
        await data.start_session(request, {"id": "ann"})
        assert request.session == {"cart": 1}

    new = Visit(data)
    await new.does(step)
    assert await new.has() == {"cart": 1}
    assert await data_of(data, "visitors") == {}


async def test_a_login_of_another_person_starts_empty(ann: Visit, data: Sessions) -> None:
    await ann.has(put("secret", 1))

    async def step(request: Request) -> Any:
        request.session["unsaved"] = 1
        await data.start_session(request, {"id": "bob"})
        return dict(request.session)

    assert await ann.does(step) == {}
    assert await ann.has() == {}
    assert await data_of(data) == {}


async def test_a_login_of_the_same_person_keeps_the_data(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", 1))
    first, sid = ann.cookie, await ann.login("ann")
    assert await ann.has() == {"a": 1}
    assert await data_of(data) == {sid: {"a": 1}}
    assert await Visit(data, first).has() == {}


async def test_a_login_takes_what_others_have_written_meanwhile(
    guest: Visit, data: Sessions
) -> None:
    other = Visit(data, guest.cookie)

    async def step(request: Request) -> None:
        await other.has(lambda session: (session.update(late=1), session.pop("theme")))
        await data.start_session(request, {"id": "ann"})
        request.session["mine"] = 2

    await guest.does(step)
    assert await guest.has() == {"cart": ["a"], "late": 1, "mine": 2}


async def test_logins_at_once_each_have_the_data(guest: Visit, data: Sessions) -> None:
    """Of somebody who has clicked twice: the browser keeps one of the cookies."""
    visits = [guest, *(Visit(data, guest.cookie) for _ in range(3))]

    await asyncio.gather(*(visit.login() for visit in visits))
    assert [*(await data_of(data)).values()] == [{"cart": ["a"], "theme": "dark"}] * 4
    assert await data_of(data, "visitors") == {}


@pytest.mark.parametrize("how", ["500", "raises", "gone", "cannot send"])
async def test_a_login_that_is_not_delivered_leaves_the_cart_with_the_visitor(
    guest: Visit, data: Sessions, how: str
) -> None:
    cookie = guest.cookie

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"]["lost"] = 1
        await data.start_session(scope, {"id": "ann"})
        scope["session"]["lost too"] = 1
        if how == "raises":
            raise LookupError
        if how == "gone":
            raise asyncio.CancelledError
        await respond(send, 500 if how == "500" else 200)

    async def send(message: Message) -> None:
        if how == "cannot send":
            raise OSError("the client has gone")
        assert field(message, "set-cookie") == []

    served = SessionMiddleware(app, sessions=data)(http(cookie=cookie), asyncio.Future, send)
    with suppress(LookupError, OSError, asyncio.CancelledError):
        await served
    assert await guest.has() == {"cart": ["a"], "theme": "dark"}
    assert guest.cookie == cookie
    assert await data_of(data) == {}
    assert await data.list_sessions("ann") == []
    await guest.login()
    assert await guest.has() == {"cart": ["a"], "theme": "dark"}


async def test_a_login_that_is_not_delivered_gives_nothing_back_where_nothing_was(
    data: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    async def step(request: Request) -> None:
        request.session["lost"] = 1
        await data.start_session(request, {"id": "ann"})
        raise LookupError

    with pytest.raises(LookupError):
        await Visit(data).does(step)
    assert await data.list_sessions("ann") == []
    assert await data_of(data) == await data_of(data, "visitors") == {}
    assert warnings(caplog) == []


async def test_a_cart_that_cannot_be_given_back_is_told(
    guest: Visit, data: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    away = broken(data, "INSERT", "_visitors")

    async def step(request: Request) -> None:
        await data.start_session(request, {"id": "ann"})
        away.__enter__()
        raise LookupError

    with caplog.at_level(logging.WARNING), pytest.raises(LookupError):
        await guest.does(step)
    away.__exit__(None, None, None)
    (record,) = [record for record in caplog.records if record.name == "asgi_sessions.data"]
    assert "a login was not delivered" in record.getMessage()


async def test_a_person_of_another_layer_takes_the_data_over(guest: Visit, data: Sessions) -> None:
    planted = guest.cookie
    assert await guest.has(person="ann") == {"cart": ["a"], "theme": "dark"}
    assert guest.cookie != planted
    assert await guest.has(put("a", 1), person="ann") is None
    assert await guest.has(person="ann") == {"cart": ["a"], "theme": "dark", "a": 1}
    assert await data_of(data, "visitors") == {}
    assert await Visit(data, planted).has() == {}


async def test_a_person_of_another_layer_who_has_a_session_keeps_its_data(
    guest: Visit, data: Sessions
) -> None:
    other = Visit(data)
    await other.has(put("mine", 1), person="ann")
    assert await guest.has(person="ann") == {"mine": 1}  # found by the device
    await guest.has(put("more", 2), person="ann")
    assert await other.has(person="ann") == {"mine": 1, "more": 2}


async def test_a_cookie_of_a_session_that_is_not_in_use_is_not_overwritten(
    data: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    visit = Visit(data)
    await visit.has(put("a", 1), person="ann")
    cookie = visit.cookie
    with caplog.at_level(logging.WARNING, "asgi_sessions.data"):
        await visit.has(put("b", 1))  # nobody vouches for ann
    assert visit.set_cookies == []
    assert "the cookie of a session that is not in use here" in caplog.text
    assert visit.cookie == cookie
    assert await visit.has(person="ann") == {"a": 1}
    assert await data_of(data, "visitors") == {}


# --- ends -----------------------------------------------------------------------------------------


async def test_a_logout_leaves_nothing(ann: Visit, guest: Visit, data: Sessions) -> None:
    await ann.has(put("a", 1))
    for visit in (ann, guest):
        cookie = visit.cookie

        async def step(request: Request) -> Any:
            request.session["unsaved"] = 1
            await data.end_session(request)
            return dict(request.session)

        assert await visit.does(step) == {}
        (cleared,) = visit.set_cookies
        assert cleared.startswith("__Host-sid=; Max-Age=0")
        assert visit.cookie is None
        assert await Visit(data, cookie).has() == {}
    assert await data_of(data) == {}
    assert await data_of(data, "visitors") == {}


@pytest.mark.parametrize("kind", ["ann", "guest"])
async def test_a_flash_after_a_logout_makes_a_new_visitor(kind: str, data: Sessions) -> None:
    visit = await somebody(kind, data)
    await visit.has(put("a", 1))
    old = visit.cookie

    async def step(request: Request) -> None:
        await data.end_session(request)
        request.session["flash"] = "goodbye"

    await visit.does(step)
    assert len(visit.set_cookies) == 1
    assert visit.cookie not in {None, old}
    assert await visit.has() == {"flash": "goodbye"}
    assert [*(await data_of(data, "visitors")).values()] == [{"flash": "goodbye"}]
    assert await data_of(data) == {}


End = Callable[[Visit, Sessions, Clock], Any]


async def end_own(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    await visit.does(lambda request: sessions.update_session_end(request, reason="x"))


async def end_by_id(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    (session,) = await sessions.list_sessions("ann")
    await sessions.end_session_by_id(session.id)


async def end_all(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    await sessions.end_all_sessions("ann")


async def end_others(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    other = Visit(sessions)
    await other.login()
    await other.does(sessions.end_other_sessions)


async def end_at_the_cap(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    for _ in range(3):
        clock.turn(timedelta(seconds=1))
        await Visit(sessions).login()


async def end_as_replaced(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    await visit.login("bob")


async def end_at_expiry(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    clock.turn(timedelta(days=40))
    assert len(await data_of(sessions)) == 1
    await sessions.purge()


async def end_when_found_expired(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    clock.turn(timedelta(days=40))
    await visit.has()


async def end_by_an_operator(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    assert await Operator(sessions, pause=0).end_all(None, 10, lambda _: None) == 1


async def end_at_an_operators_purge(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    clock.turn(timedelta(days=40))
    await Operator(sessions, pause=0).purge(10, lambda _: None)


async def end_by_a_theft(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    old = visit.cookie
    await visit.does(sessions.rotate_session)
    clock.turn(timedelta(minutes=5))
    await visit.has()
    clock.turn(timedelta(minutes=5))
    await Visit(sessions, old).has()


async def end_with_another_person(visit: Visit, sessions: Sessions, clock: Clock) -> None:
    await visit.has(person="bob")


@pytest.mark.parametrize(
    "end",
    [
        end_own,
        end_by_id,
        end_all,
        end_others,
        end_at_the_cap,
        end_as_replaced,
        end_at_expiry,
        end_when_found_expired,
        end_by_an_operator,
        end_at_an_operators_purge,
        end_by_a_theft,
        end_with_another_person,
    ],
)
async def test_every_end_removes_the_data_at_once(
    make_sessions: MakeSessions, clock: Clock, end: End
) -> None:
    sessions = await make_sessions(data=True, max_sessions_per_person=3)
    visit = Visit(sessions)
    await visit.login()
    await visit.has(put("a", 1))
    await end(visit, sessions, clock)
    ended = [row for row in await run(sessions, sessions.table.select()) if row["ended_at"]]
    assert len(ended) == 1
    assert await data_of(sessions) == {}


async def test_what_an_app_has_ended_itself_is_removed_with_the_row(
    ann: Visit, data: Sessions, clock: Clock
) -> None:
    await ann.has(put("a", 1))

    async def step(request: Request) -> None:
        await run(data, data.end_all_statement("ann"))
        request.session["b"] = 2
        assert await data.data.increment(request, "a") is None

    await ann.does(step)
    assert await ann.has() == {}
    assert [*(await data_of(data)).values()] == [{"a": 1}]
    clock.turn(timedelta(days=91))
    await data.purge()
    assert await data_of(data) == {}


async def test_a_stream_that_ends_with_its_session_saves_no_more(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(data=True, end_streams=True)
    visit = Visit(sessions)
    sid = await visit.login()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await sessions.end_session_by_id(sid)
        scope["session"]["b"] = 1
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        scope["session"]["c"] = 1

    await call(SessionMiddleware(app, sessions=sessions), http(cookie=visit.cookie))
    assert await data_of(sessions) == {}


# --- a new id -------------------------------------------------------------------------------------


async def test_a_visitor_gets_a_new_id_and_the_old_one_is_dead(
    guest: Visit, data: Sessions
) -> None:
    old = guest.cookie

    async def step(request: Request) -> None:
        request.session["before"] = 1
        await regenerate(request)
        assert await Visit(data, old).has() == {}
        request.session["after"] = 2

    await guest.does(step)
    assert len(guest.set_cookies) == 1
    assert guest.cookie != old
    assert await guest.has() == {"cart": ["a"], "theme": "dark", "before": 1, "after": 2}
    assert len(await data_of(data, "visitors")) == 1


async def test_a_session_gets_a_new_secret(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", 1))
    old = ann.cookie

    async def step(request: Request) -> None:
        await regenerate(request)
        request.session["b"] = 2

    await ann.does(step)
    assert ann.cookie not in {None, old}
    assert await ann.has() == {"a": 1, "b": 2}
    assert len(await data_of(data)) == 1


async def test_who_has_no_row_gets_no_id(data: Sessions) -> None:
    new = Visit(data)
    await new.does(regenerate)
    assert new.set_cookies == []


async def test_a_new_id_comes_too_late_after_the_response(guest: Visit, data: Sessions) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(send)
        with pytest.raises(ConfigurationError, match="the response has begun"):
            await scope["session"].regenerate_id()

    await call(SessionMiddleware(app, sessions=data), http(cookie=guest.cookie))
    assert (await guest.has())["cart"] == ["a"]


async def test_a_visitor_that_is_gone_gets_no_id(guest: Visit, data: Sessions) -> None:
    async def step(request: Request) -> None:
        await Visit(data, guest.cookie).login()
        await regenerate(request)

    await guest.does(step)
    assert guest.set_cookies == []


# --- one key --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ann", "guest", "new"])
async def test_changes_of_one_key(kind: str, data: Sessions) -> None:
    """On a session, on a visitor, and before there is a row."""
    visit = await somebody(kind, data)
    before = await visit.has()
    keys = data.data

    async def step(request: Request) -> None:
        session = request.session
        assert await keys.increment(request, "n") == 1
        assert await keys.increment(request, "n", 2) == 3
        assert await keys.increment(request, "n", -0.5) == 2.5
        assert session["n"] == 2.5
        assert await keys.append(request, "l", "a") == ["a"]
        assert await keys.append(request, "l", {"b": 1}) == ["a", {"b": 1}]
        assert await keys.append(request, "l", "c", keep=2) == [{"b": 1}, "c"]
        assert await keys.replace(request, "r", [1], expected=MISSING) is True
        assert await keys.replace(request, "r", [2], expected=MISSING) is False
        assert await keys.replace(request, "r", [2], expected=[1.0]) is False
        assert await keys.replace(request, "r", [2], expected=(1,)) is True
        assert session["r"] == [2]
        assert await keys.replace(request, "none", 1, expected=None) is False
        assert "none" not in session
        session["nonce"] = "x"
        assert await keys.pop(request, "nonce") == "x"
        assert await keys.pop(request, "nonce") is None
        assert await keys.pop(request, "nonce", "default") == "default"
        assert "nonce" not in session
        assert await keys.save(request) is True

    await visit.does(step)
    assert await visit.has() == {**before, "n": 2.5, "l": [{"b": 1}, "c"], "r": [2]}

    async def scope_will_do(request: Request) -> None:
        assert await keys.pop(request.scope, "n") == 2.5

    await visit.does(scope_will_do)
    assert await visit.has() == {**before, "l": [{"b": 1}, "c"], "r": [2]}


async def test_what_was_assigned_and_not_saved_counts(ann: Visit, data: Sessions) -> None:
    await ann.has(lambda session: session.update(n=1, l=["a"], gone=1, nonce="old"))

    async def step(request: Request) -> None:
        session = request.session
        session.update(n=10, nonce="new")
        session["l"].append("b")
        del session["gone"]
        assert await data.data.increment(request, "n") == 11
        assert await data.data.append(request, "l", "c") == ["a", "b", "c"]
        assert await data.data.pop(request, "gone", "none") == "none"
        assert await data.data.pop(request, "nonce") == "new"
        # Another key that was assigned is saved with the response.
        session["other"] = 1
        assert await data.data.increment(request, "n") == 12

    await ann.does(step)
    assert await ann.has() == {"n": 12, "l": ["a", "b", "c"], "other": 1}


async def test_it_works_on_what_is_there_and_not_on_what_was_loaded(
    ann: Visit, data: Sessions
) -> None:
    await ann.has(lambda session: session.update(n=1, l=["a"], r=1, nonce=1))
    other = Visit(data, ann.cookie)

    async def step(request: Request) -> None:
        await other.has(lambda session: (session.update(n=5, l=["x"], r=2), session.pop("nonce")))
        assert await data.data.increment(request, "n") == 6
        assert await data.data.append(request, "l", "y") == ["x", "y"]
        assert not await data.data.replace(request, "r", 3, expected=1)
        assert await data.data.pop(request, "nonce") is None
        assert request.session == {"n": 6, "l": ["x", "y"], "r": 2}

    await ann.does(step)
    assert await ann.has() == {"n": 6, "l": ["x", "y"], "r": 2}


async def test_calls_side_by_side_in_one_request(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", 0))
    other = Visit(data, ann.cookie)

    async def step(request: Request) -> None:
        request.session["b"] = 1
        await asyncio.gather(
            data.data.save(request),
            *(data.data.increment(request, key) for key in ("x", "y", "z", "x")),
        )
        await other.has(lambda session: session.update(x=10, y=20))
        # What they have written themselves is not written again.

    await ann.does(step)
    assert await ann.has() == {"a": 0, "b": 1, "x": 10, "y": 20, "z": 1}


async def test_the_order_of_keys_does_not_count(ann: Visit, data: Sessions) -> None:
    await ann.has(put("a", {"long": 1, "b": {"y": 1, "x": 2}}))

    async def step(request: Request) -> bool:
        expected = {"b": {"x": 2, "y": 1}, "long": 1}
        return await data.data.replace(request, "a", 1, expected=expected)

    assert await ann.does(step)
    assert await ann.has() == {"a": 1}


async def test_on_an_ended_session_they_change_nothing_and_say_so(
    ann: Visit, data: Sessions
) -> None:
    await ann.has(lambda session: session.update(n=1, l=[], nonce=1))

    async def step(request: Request) -> None:
        await data.end_all_sessions("ann")
        assert await data.data.increment(request, "n") is None
        assert await data.data.append(request, "l", 1) is None
        assert await data.data.pop(request, "nonce", "default") == "default"
        assert await data.data.replace(request, "n", 2, expected=1) is False
        request.session["a"] = 1
        assert await data.data.save(request) is False

    await ann.does(step)
    assert await data_of(data) == {}


async def test_values_of_the_wrong_kind_are_refused(ann: Visit, data: Sessions) -> None:
    await ann.has(lambda session: session.update(text="x", flag=True, n=2**63 - 1, none=None))

    async def step(request: Request) -> None:
        for key in ("text", "flag", "none"):
            with pytest.raises(TypeError, match=rf"session\['{key}'\] is no number"):
                await data.data.increment(request, key)
            with pytest.raises(TypeError, match=rf"session\['{key}'\] is no list"):
                await data.data.append(request, key, 1)
        with pytest.raises(ValueError, match="64 bits"):
            await data.data.increment(request, "n")
        with pytest.raises(TypeError, match=r"session\['l'\] is no JSON"):
            await data.data.append(request, "l", b"x")
        with pytest.raises(TypeError, match=r"session\['r'\] is no JSON"):
            await data.data.replace(request, "r", object(), expected=MISSING)
        with pytest.raises(ValueError, match="of session data"):
            await data.data.pop(request, 'a"b')
        with pytest.raises(TypeError, match="must be text"):
            await data.data.pop(request, 1)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="keep=0"):
            await data.data.append(request, "l", 1, keep=0)

    await ann.does(step)
    assert await ann.has() == {"text": "x", "flag": True, "n": 2**63 - 1, "none": None}


async def test_many_at_once_share_a_transaction(ann: Visit, data: Sessions) -> None:
    """Those of one session, of others, of visitors, and one that is wrong."""
    visits = [ann, Visit(data, ann.cookie), *[Visit(data) for _ in range(4)]]
    for number, visit in enumerate(visits[2:]):
        await (visit.login(f"p{number}") if number % 2 else visit.has(put("v", 1)))
    await ann.has(put("text", "x"))

    async def step(request: Request) -> Any:
        keys = data.data
        request.session["mine"] = 1
        return await asyncio.gather(
            keys.increment(request, "n"),
            keys.append(request, "l", 1),
            keys.save(request),
            keys.increment(request, "text"),
            keys.increment(request, "n"),
            return_exceptions=True,
        )

    answers = await asyncio.gather(*(visit.does(step) for visit in visits))
    assert all(answer[2] is True for answer in answers)
    assert (
        sorted(isinstance(answer[3], TypeError) for answer in answers) == [False] * 4 + [True] * 2
    )
    seen = [await visit.has() for visit in visits]
    assert seen[0] == seen[1] == {"text": "x", "mine": 1, "n": 4, "l": [1, 1]}
    assert [(one["n"], one["l"], one["mine"], one["text"]) for one in seen[2:]] == [
        (2, [1], 1, 1)
    ] * 4


# --- Starlette's cookie ---------------------------------------------------------------------------


def starlettes(content: dict[str, Any]) -> str:
    value = TimestampSigner("starlette's").sign(b64encode(dumps(content).encode())).decode()
    return f"session={value}"


@pytest.fixture
async def moving(make_sessions: MakeSessions) -> Sessions:
    return await make_sessions(data=SessionData(starlette_cookie=StarletteCookie("starlette's")))


async def test_the_data_of_starlettes_cookie_are_taken_over_once(moving: Sessions) -> None:
    old = starlettes({"user": {"name": "Ann"}, "cart": [1]})
    visit = Visit(moving, f"a=b; ; c; {old}; d=e")
    assert await visit.has() == {"user": {"name": "Ann"}, "cart": [1]}
    ours, theirs = sorted(visit.set_cookies)
    assert ours.startswith("__Host-sid=")
    assert theirs.startswith("session=; Max-Age=0; ")
    assert await visit.has() == {"user": {"name": "Ann"}, "cart": [1]}
    assert visit.set_cookies == []


async def test_starlettes_cookie_stays_until_its_data_are_saved(moving: Sessions) -> None:
    old = starlettes({"cart": [1]})
    visit = Visit(moving, old)
    await visit.has(status=500)
    assert visit.set_cookies == []
    with broken(moving, "INSERT"):
        await visit.has()
        is_refused(visit)
    moved = Visit(moving, old)
    await moved.login()
    assert await moved.has() == {"cart": [1]}


async def test_what_starlettes_cookie_says_is_not_brought_back(moving: Sessions) -> None:
    """Where there are data already, it is cleared."""
    old = starlettes({"user": "ann"})
    visit = Visit(moving)
    await visit.has(put("a", 1))
    visit.cookie = f"{visit.cookie}; {old}"
    assert await visit.has() == {"a": 1}
    (cleared,) = visit.set_cookies
    assert cleared.startswith("session=; Max-Age=0; ")


async def test_what_cannot_be_kept_of_starlettes_cookie_is_left_out(
    moving: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    old = starlettes({"": 1, 'a"b': 1, "nul": "\x00", "large": 2**64, "cart": [1]})
    visit = Visit(moving, old)
    with caplog.at_level(logging.WARNING, "asgi_sessions.data"):
        assert await visit.has() == {"cart": [1]}
    assert "Starlette's cookie" in caplog.text
    assert await visit.has() == {"cart": [1]}
    large = Visit(moving, starlettes({"a": "x" * 20_000}))
    assert await large.has() == {}
    assert large.status == 200


async def test_a_socket_of_a_foreign_origin_sees_nothing_of_starlettes_cookie(
    moving: Sessions,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        await socket.accept()
        await socket.send_json(dict(socket.session))
        await socket.close()

    for origin, seen in ((b"https://evil.example", "{}"), (b"https://test", '{"a":1}')):
        scope = websocket(cookie=starlettes({"a": 1}))
        scope["headers"].append((b"origin", origin))
        async with Peer(SessionMiddleware(app, sessions=moving), scope) as peer:
            await peer.gets()
            assert (await peer.gets())["text"] == seen
            await peer.gets()


# --- who sees them --------------------------------------------------------------------------------


async def test_nobody_else_is_told_of_them(
    make_sessions: MakeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    """Nor of the secret of a visitor: logs, events, `repr`."""
    events: list[object] = []
    sessions = await make_sessions(data=True, on_event=events.append)
    caplog.set_level(logging.DEBUG, "asgi_sessions")
    visit = Visit(sessions)
    shown: list[str] = []

    async def step(request: Request) -> None:
        request.session["a-key"] = "a-value"
        context = next(v for k, v in request.scope.items() if k.startswith("asgi_sessions."))
        shown.extend(map(repr, (request.session, context.data, context.row, context.visits)))
        await sessions.data.increment(request, "a-number")

    await visit.does(step)
    secrets = [visit.cookie]
    await visit.does(step)
    await visit.login()
    secrets.append(visit.cookie)
    await visit.does(step)
    with broken(sessions, "_data"):
        await visit.has(put("a-key", "another a-value"))
    await visit.has(put("a-key", {"x": "a-value"}), status=500)
    for end in (visit.logout, visit.has):
        await end()
    await settled(sessions)
    shown += [caplog.text, repr(events), *(repr(vars(record)) for record in caplog.records)]
    assert events
    for text in shown:
        for word in ("a-key", "a-value", "a-number"):
            assert word not in text
        for cookie in secrets:
            assert cookie is not None
            assert cookie.split(".")[1] not in text


# --- what is in one another's way -----------------------------------------------------------------


async def test_a_session_that_is_locked_holds_up_no_other(
    ann: Visit, data: Sessions, onlooker: Onlooker, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("one transaction writes at a time")
    bob, guest = await somebody("ann", data), await somebody("guest", data)
    assert ann.cookie is not None
    sid = ann.cookie.partition("=")[2][:36]
    with onlooker.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(
            f"SELECT id FROM {onlooker.table} WHERE id = '{sid}' FOR UPDATE"  # noqa: S608 -- a test's
        )
        waiting = asyncio.create_task(ann.has(put("a", 1)))
        await asyncio.sleep(0)
        for other in (bob, guest):  # alone, and beside the one that waits
            await other.has(put("a", 2))
            assert other.status == 200
        assert not waiting.done()
        connection.exec_driver_sql("ROLLBACK")
    await waiting
    assert (await ann.has(), await bob.has()) == ({"a": 1}, {"a": 2})


async def test_a_visitor_that_is_locked_holds_up_no_other(
    ann: Visit, guest: Visit, onlooker: Onlooker, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("one transaction writes at a time")
    with onlooker.engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql(
            f"SELECT id FROM {onlooker.table}_visitors FOR UPDATE"  # noqa: S608 -- a test's
        )
        waiting = asyncio.create_task(guest.has(put("a", 1)))
        await asyncio.sleep(0)
        await ann.has(put("a", 2))
        assert ann.status == 200
        assert not waiting.done()
        connection.exec_driver_sql("ROLLBACK")
    await waiting
    assert (await guest.has())["a"] == 1


async def test_a_session_that_stays_locked_is_an_outage(
    make_sessions: MakeSessions, onlooker: Onlooker, database_url: str
) -> None:
    if database_url.startswith("sqlite"):
        pytest.skip("one transaction writes at a time")
    sessions = await make_sessions(data=True, timeout=timedelta(seconds=0.5))
    ann = await somebody("ann", sessions)
    with onlooker.locked():
        await ann.has(put("a", 1))
        assert ann.status == 503
    assert await ann.has() == {}


class TooOld(Exception):
    """A server's that knows no SKIP LOCKED."""


async def test_a_server_that_leaves_out_no_locked_rows_is_asked_once(
    ann: Visit, guest: Visit, data: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = driver_of(data)
    if not driver.skips:
        pytest.skip("one transaction writes at a time")
    asked = 0

    def look(sql: str) -> None:
        nonlocal asked
        if "SKIP LOCKED" in sql:
            asked += 1
            raise TooOld

    monkeypatch.setattr(driver, "unknown", lambda error: isinstance(error, TooOld))
    monkeypatch.setattr(driver, "skips", True)  # and as it was afterwards
    with watched(data, look):
        for visit in (ann, guest):
            await visit.has(put("a", 1))
            assert await visit.does(lambda request: data.data.increment(request, "a")) == 2
    assert asked == 1
    assert not driver.skips


async def test_a_save_that_fails_otherwise_is_an_outage(
    ann: Visit, data: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(sql: str) -> None:
        if "_data" in sql and "INSERT" in sql:
            raise TooOld

    with watched(data, look):
        await ann.has(put("a", 1))
    assert ann.status == 503


async def test_a_late_request_of_a_visitor_sets_no_cookie_beside_that_of_the_login(
    guest: Visit, data: Sessions, caplog: pytest.LogCaptureFixture
) -> None:
    late = Visit(data, guest.cookie)
    await guest.login()
    await late.has(put("flash", "hello"))
    assert late.set_cookies == []
    assert "not in use here" in caplog.text
    assert await data_of(data, "visitors") == {}


async def test_a_late_request_of_a_session_that_was_replaced_sets_no_cookie(
    ann: Visit, data: Sessions
) -> None:
    late = Visit(data, ann.cookie)
    await ann.login()
    await late.has(put("flash", "hello"))
    assert late.set_cookies == []
    late.cookie = ann.cookie
    await ann.logout()
    await late.has(put("flash", "hello"))  # nobody has another cookie now
    assert len(late.set_cookies) == 1


async def test_all_keys_can_be_removed_at_once(ann: Visit) -> None:
    await ann.has(putting({"cart": 1, "user": 2, "größe": "XL", "farbe": 3, "ö": 4}))
    await ann.has(dict.clear)
    assert await ann.has() == {}


async def test_what_is_too_large_may_become_smaller(make_sessions: MakeSessions) -> None:
    roomy = await make_sessions(data=True)
    ann = await somebody("ann", roomy)
    await ann.has(putting({"a": "x" * 900, "b": "x" * 900}))
    ann.sessions = await make_sessions(data=SessionData(max_bytes=1000))
    with pytest.raises(InvalidSession, match="allows no more"):
        await ann.has(put("c", "x"))
    await ann.has(put("a", "y"))
    assert await ann.has() == {"a": "y", "b": "x" * 900}


async def test_an_app_may_answer_that_there_is_too_much(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(data=SessionData(max_bytes=1000))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"]["a"] = "x" * 1000
        try:
            await respond(send)
        except InvalidSession:
            await respond(send, 413)

    sent = await call(SessionMiddleware(app, sessions=sessions), http())
    assert (sent[0]["status"], field(sent[0], "set-cookie")) == (413, [])
    assert await data_of(sessions, "visitors") == {}


async def test_a_visitors_new_id_is_taken_back_if_the_app_fails(guest: Visit) -> None:
    async def fails(request: Request) -> None:
        await regenerate(request)
        raise LookupError

    with pytest.raises(LookupError):
        await guest.does(fails)
    await settled(guest.sessions)
    assert await guest.has() == {"cart": ["a"], "theme": "dark"}


async def test_what_a_socket_has_written_is_saved_when_its_client_goes(ann: Visit) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        scope["session"]["draft"] = (await receive())["text"]
        assert (await receive())["type"] == "websocket.disconnect"
        raise WebSocketDisconnect

    async def quietly(scope: Scope, receive: Receive, send: Send) -> None:
        with suppress(WebSocketDisconnect):  # as frameworks do
            await SessionMiddleware(app, sessions=ann.sessions)(scope, receive, send)

    async with Peer(quietly, websocket(cookie=ann.cookie)) as peer:
        await peer.gets()
        peer.says({"type": "websocket.receive", "text": "hello"})
        peer.says({"type": "websocket.disconnect", "code": 1001})
    assert await ann.has() == {"draft": "hello"}


async def test_a_visitor_who_comes_often_is_never_idle(make_sessions: MakeSessions) -> None:
    lifetimes = Lifetimes(idle=timedelta(minutes=1), absolute=timedelta(days=1))
    with pytest.raises(ConfigurationError, match="half of the idle timeout of visitor_lifetimes"):
        await make_sessions(data=True, visitor_lifetimes=lifetimes)
    await make_sessions(visitor_lifetimes=lifetimes)  # nobody is one


async def test_starlettes_cookie_has_another_name_than_ours(make_sessions: MakeSessions) -> None:
    same = SessionData(starlette_cookie=StarletteCookie(KEY, name="__Host-sid"))
    with pytest.raises(ConfigurationError, match="has the name '__Host-sid' of our own"):
        await make_sessions(data=same)


async def test_inside_of_an_apps_transaction_the_data_wait_for_its_end(
    guest: Visit, database_url: str
) -> None:
    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}.get(kind(database_url), "aiomysql")
    engine = app_engine(database_url, f"{kind(database_url)}+{driver}")
    sessions, saved = guest.sessions, []

    async def step(request: Request) -> None:
        async with engine.begin() as connection:
            await sessions.start_session(request, {"id": "ann"}, connection=connection)
            request.session["x"] = 1
            saved.append(await sessions.data.save(request))
            with pytest.raises(ConfigurationError, match="commit the app's transaction"):
                await sessions.data.pop(request, "x")
        saved.append(await sessions.data.save(request))

    await guest.does(step)
    await engine.dispose()
    assert saved == [False, True]
    assert await guest.has() == {"cart": ["a"], "theme": "dark", "x": 1}
