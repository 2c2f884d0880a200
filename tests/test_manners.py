"""Manners among servers and frameworks: headers of any kind, an outage behind other layers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import SessionMiddleware, Sessions, changeset
from asgi_sessions._accept import prefers_html
from asgi_sessions._device import headers_of

from .support import KEY
from .test_asgi import call, cookies, http


def behind(sessions: Sessions, app: ASGIApp) -> ASGIApp:
    return SessionMiddleware(app, sessions=sessions)


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


def test_the_headers_of_a_scope_that_cannot_be_written_are_read_all_the_same() -> None:

    scope = MappingProxyType({"headers": iter([(b"a", b"b")])})
    assert headers_of(scope) == [(b"a", b"b")]
    assert headers_of({}) == ()


# --- what a stranger sends is looked at up to a bound ---------------------------------------------


def test_of_accept_one_kilobyte_is_looked_at() -> None:
    long = "text/html," + "a/b," * 1000
    assert prefers_html(long)
    assert prefers_html("text/html," + "," * 60_000)
    assert not prefers_html("," * 2000 + "text/html")
    # The last part that fits may have been cut: it does not count.
    start = "application/json;q=0.5,"
    cut = f"{start}{'x' * (1024 - len(start) - 10)},text/html;q=0.4"
    assert cut[:1024].endswith(",text/html")
    assert not prefers_html(cut)
    assert not prefers_html("x" * 2000)


def test_a_long_accept_costs_no_more_than_a_short_one() -> None:
    parts: list[str] = []

    class Counting(str):
        """Tells what is taken apart."""

        __slots__ = ()

        def __getitem__(self, key: Any) -> str:
            piece = str.__getitem__(self, key)
            parts.append(piece)
            return piece

    prefers_html(Counting("," * 60_000))
    assert [len(piece) for piece in parts] == [1024]


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
@pytest.mark.parametrize("extra", ["fastapi", "litestar"])
def test_without_its_extra_a_module_names_it(extra: str) -> None:
    for name in [name for name in sys.modules if name.startswith(("asgi_sessions", extra))]:
        del sys.modules[name]
    sys.modules[extra] = None  # type: ignore[assignment]  # as Python marks what is not there
    import_module("asgi_sessions")  # which needs neither
    with pytest.raises(ImportError, match=rf"install asgi-login-sessions\[{extra}\]") as caught:
        import_module(f"asgi_sessions.{extra}")
    assert caught.value.name == extra


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
