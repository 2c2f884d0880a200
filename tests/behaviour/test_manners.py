"""Manners among servers and frameworks: headers of any kind, an outage behind other layers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar, WebSocket, get, websocket
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import Sessions, SessionsUnavailable, changeset
from asgi_sessions.testing import logged_in_cookie
from tests.support import KEY
from tests.support.asgi import behind, call, cookies, field, http, respond
from tests.support.asgi import websocket as websocket_scope

# --- headers are any iterable (ASGI) --------------------------------------------------------------


@pytest.mark.parametrize("length", [b"2", None])
@pytest.mark.parametrize("end_streams", [True, False])
@pytest.mark.parametrize("login", [True, False])
async def test_response_headers_that_can_be_read_once_arrive(
    tmp_path: Path, *, login: bool, end_streams: bool, length: bytes | None
) -> None:
    sessions = Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY, end_streams=end_streams)
    given = [
        (b"content-security-policy", b"default-src 'none'"),
        *([(b"content-length", length)] if length else []),
        (b"set-cookie", b"theirs=1"),
        (b"content-type", b"text/plain"),
    ]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if login:
            await sessions.start_session(scope, "ann")
        start = {"type": "http.response.start", "status": 200, "headers": iter(given)}
        await send(start)
        await send({"type": "http.response.body", "body": b"ok"})

    async with sessions:
        await sessions.create_tables()
        start, _ = await call(behind(sessions, app), http())
    sent = list(start["headers"])
    assert [header for header in sent if header in given] == given
    assert len(cookies([{**start, "headers": sent}])) == login


async def test_request_headers_that_can_be_read_once_are_there_for_everybody(
    tmp_path: Path,
) -> None:
    sessions = Sessions(f"sqlite:///{tmp_path}/s.db", secret_key=KEY)
    seen: list[tuple[Any, Any]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        session = await sessions.start_session(scope, "ann")
        seen.append((session.user_agent, dict(scope["headers"]).get(b"x-last")))
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body", "body": b""})

    async with sessions:
        await sessions.create_tables()
        scope = http(x_last="there")
        await call(behind(sessions, app), {**scope, "headers": iter(scope["headers"])})
        # Without the middleware, too: `insert` takes any scope.
        bare = {**scope, "headers": iter(scope["headers"])}
        await sessions.insert(bare, "ann")
        await sessions.insert(bare, "ann")
        agents = {one.user_agent for one in await sessions.list_sessions("ann")}
    assert seen == [("Firefox", b"there")]
    assert agents == {"Firefox"}


# --- an outage in a handler, behind other layers --------------------------------------------------


async def respond_to(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send)


class Down:
    """A database that does not answer, and who hears of it."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.directory = path / "missing"
        url = f"sqlite:///{self.directory}/s.db"
        self.told: list[Any] = []
        self.sessions = Sessions(url, secret_key=KEY, on_event=self.told.append, **options)

    async def affected(self) -> int:
        """How many requests have met the outage, as is told when it is over: from here on."""
        self.directory.mkdir()
        await self.sessions.create_tables()
        ((name, value),) = (await logged_in_cookie(self.sessions, "ann")).items()
        await call(behind(self.sessions, respond_to), http(cookie=f"{name}={value}"))
        await self.sessions.disconnect()
        return sum(one.count for one in self.told if one.kind == "outage_over")


async def fails(sessions: Sessions, how: str) -> None:
    """What a handler does."""
    if how == "raises":
        await sessions.list_sessions("ann")
    elif how == "group":
        async with asyncio.TaskGroup() as group:
            group.create_task(sessions.end_all_sessions("ann"))
    elif how == "own fault":
        with suppress(SessionsUnavailable):
            await sessions.list_sessions("ann")
        raise ValueError("secret of the app")
    else:
        await sessions.list_sessions("ann")
        raise AssertionError


def starlette(sessions: Sessions, how: str, *, debug: bool) -> ASGIApp:
    async def home(_: Any) -> PlainTextResponse:
        await fails(sessions, how)
        raise AssertionError

    return Starlette(debug=debug, routes=[Route("/", home)])


def litestar(sessions: Sessions, how: str, *, debug: bool) -> ASGIApp:
    @get("/")
    async def home() -> None:
        await fails(sessions, how)

    app: Any = Litestar([home], debug=debug, logging_config=None)
    return app  # type: ignore[no-any-return]  # its types of ASGI are others


@pytest.mark.parametrize("make", [starlette, litestar])
@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("end_streams", [False, True])
@pytest.mark.parametrize("how", ["raises", "group"])
async def test_an_outage_in_a_handler_is_a_503_whatever_layer_has_met_it(
    tmp_path: Path, make: Callable[..., ASGIApp], how: str, *, debug: bool, end_streams: bool
) -> None:
    down = Down(tmp_path, end_streams=end_streams)
    start, body = await call(behind(down.sessions, make(down.sessions, how, debug=debug)), http())
    assert start["status"] == 503
    assert field(start, "retry-after") == ["1"]
    assert body["body"] == b"Service Unavailable"
    assert await down.affected() == 1


@pytest.mark.parametrize("make", [starlette, litestar])
async def test_a_fault_of_the_app_after_an_outage_stays_a_500(
    tmp_path: Path, make: Callable[..., ASGIApp]
) -> None:
    down = Down(tmp_path)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    app = behind(down.sessions, make(down.sessions, "own fault", debug=False))
    with suppress(ValueError):  # Starlette raises it again, for the server's log
        await app(http(), receive, send)
    assert [one["status"] for one in sent if "status" in one] == [500]
    assert await down.affected() == 0


@pytest.mark.parametrize("how", ["raises", "group"])
async def test_a_request_that_asks_again_is_affected_once(tmp_path: Path, how: str) -> None:
    down = Down(tmp_path, on_unavailable="anonymous")
    cookie = await logged_in_cookie_of(down.sessions, tmp_path)
    app = behind(down.sessions, starlette(down.sessions, how, debug=False))
    start, _ = await call(app, http(cookie=cookie))
    assert start["status"] == 503
    assert await down.affected() == 1


async def test_an_answer_of_the_app_to_an_outage_stays_and_is_counted(tmp_path: Path) -> None:
    down = Down(tmp_path)

    async def home(_: Any) -> PlainTextResponse:
        await down.sessions.list_sessions("ann")
        raise AssertionError

    def sorry(_: Any, __: Exception) -> PlainTextResponse:
        return PlainTextResponse("sorry", 502)

    app = Starlette(routes=[Route("/", home)], exception_handlers={SessionsUnavailable: sorry})
    start, _ = await call(behind(down.sessions, app), http())
    assert start["status"] == 502
    assert await down.affected() == 1


async def test_a_websocket_that_a_layer_closes_for_an_outage_may_try_again(tmp_path: Path) -> None:
    down = Down(tmp_path)

    @websocket("/")
    async def home(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await fails(down.sessions, "raises")

    app: Any = Litestar([home], logging_config=None)
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    await behind(down.sessions, app)(websocket_scope(), receive, send)
    assert [one["type"] for one in sent] == ["websocket.accept", "websocket.close"]
    assert sent[1]["code"] == 1013
    assert await down.affected() == 1


async def logged_in_cookie_of(sessions: Sessions, path: Path) -> str:
    """A cookie by the key of these."""
    async with Sessions(f"sqlite:///{path}/s.db", secret_key=KEY) as other:
        await other.create_tables()
        values = await logged_in_cookie(other, {"id": "ann"})
    return f"{sessions.cookie_name}={values[sessions.cookie_name]}"


# --- what an extra brings -------------------------------------------------------------------------


@pytest.fixture
def imports() -> Iterator[None]:
    """What was imported before, and nothing besides: a second `Sessions` is none to the first."""
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        del sys.modules[name]
    sys.modules.update(before)


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize(
    ("library", "mend"),
    [
        ("fastapi", r"asgi-login-sessions\[fastapi\]"),
        ("fastapi_users", "fastapi-users"),
        ("litestar", r"asgi-login-sessions\[litestar\]"),
    ],
)
def test_without_its_library_a_module_names_the_mend(library: str, mend: str) -> None:
    for name in [name for name in sys.modules if name.startswith(("asgi_sessions", library))]:
        del sys.modules[name]
    sys.modules[library] = None  # type: ignore[assignment]  # as Python marks what is not there
    import_module("asgi_sessions")  # which needs none
    with pytest.raises(ImportError, match=rf"install {mend}$") as caught:
        import_module(f"asgi_sessions.{library}")
    assert caught.value.name == library


# --- control characters ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field", ["person_id", "app_id", "auth_provider", "end_reason", "acr", "amr"]
)
@pytest.mark.parametrize("control", ["\r", "\n", "\t", "\x1b", "\x7f", "\x85", "\x9b", "\u2028"])
def test_control_characters_are_refused_in_what_reaches_logs(field: str, control: str) -> None:
    text = f"a{control}b"
    value: object = [text] if field == "amr" else text
    errors = changeset(None, {"person_id": "ann", "app_id": "x", field: value}).errors
    assert errors == {field: [f"must not hold a control character, has U+{ord(control):04X}"]}


@pytest.mark.parametrize("text", ["a b", "a\xa0b", "a\u3000b", "\u0645\u200c\u06cc", "\U0001f989"])
def test_unusual_spaces_and_joiners_are_no_control_characters(text: str) -> None:
    assert changeset(None, {"person_id": text, "app_id": "x"}).valid
