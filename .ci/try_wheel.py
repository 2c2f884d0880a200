"""Try the installed package with nothing but what it asks for: log in, come back, log out."""

import asyncio
import pkgutil
import re
import secrets
import sys
from http import HTTPStatus
from importlib import import_module, metadata
from pathlib import Path
from tempfile import TemporaryDirectory

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Scope

import asgi_sessions
from asgi_sessions import SessionMiddleware, Sessions

#: What extras bring, and the package does without.
OPTIONAL = {
    "aiomysql",
    "click",
    "cryptography",
    "fastapi",
    "fastapi_users",
    "greenlet",
    "httpx",
    "joserfc",
    "litestar",
    "rich",
}


def try_names() -> None:
    """Every public name and every module can be imported; the wheel holds what it should."""
    assert Path(asgi_sessions.__file__).is_relative_to(sys.prefix), "not the installed package"
    for name in asgi_sessions.__all__:
        assert hasattr(asgi_sessions, name), name
    for module in pkgutil.walk_packages(asgi_sessions.__path__, "asgi_sessions."):
        try:
            import_module(module.name)
        except ImportError as fault:
            if fault.name not in OPTIONAL:
                raise
    files = {str(file) for file in metadata.files("asgi-login-sessions") or ()}
    assert "asgi_sessions/py.typed" in files, "type checkers would not see the types"
    assert any(file.endswith("licenses/LICENSE") for file in files), "no licence"
    foreign = {file for file in files if file.startswith(("tests/", "docs/", "example"))}
    assert not foreign, foreign


def try_description() -> None:
    """What a package index shows is the README, without links that would lead nowhere there."""
    description = metadata.metadata("asgi-login-sessions")["Description"]
    assert description.startswith("# asgi_sessions\n"), description[:80]
    relative = re.findall(r"\]\((?!https?://)[^)]*\)", description)
    assert not relative, f"relative links in the long description: {relative}"


async def get(app: Starlette, path: str, cookie: str | None) -> tuple[str, str | None]:
    """The body of a GET over https and the cookie it sets; raw ASGI, so no client is needed."""
    headers = [(b"host", b"example.org"), (b"user-agent", b"try_wheel")]
    if cookie is not None:
        headers.append((b"cookie", cookie.encode()))
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": headers,
        "client": ("192.0.2.1", 1),
        "server": ("example.org", 443),
    }
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, *rest = sent
    assert start["status"] == HTTPStatus.OK, (path, start)
    cookies = [value.decode() for name, value in start["headers"] if name == b"set-cookie"]
    assert len(cookies) <= 1, cookies
    body = b"".join(message.get("body", b"") for message in rest).decode()
    return body, cookies[0] if cookies else None


async def try_app(directory: str) -> None:
    """A person logs in, comes back, logs out; the cookie they had is worth nothing then."""
    sessions = Sessions(f"sqlite:///{directory}/sessions.db", secret_key=secrets.token_urlsafe(32))

    async def home(request: Request) -> Response:
        return PlainTextResponse(request.state.sid or "nobody")

    async def login(request: Request) -> Response:
        session = await sessions.start_session(request, {"id": "ann"})
        return PlainTextResponse(session.sid)

    async def logout(request: Request) -> Response:
        await sessions.end_session(request)
        return PlainTextResponse("bye")

    app = Starlette(routes=[Route("/", home), Route("/login", login), Route("/logout", logout)])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    async with sessions:
        await sessions.create_tables()
        assert await get(app, "/", None) == ("nobody", None)
        sid, set_cookie = await get(app, "/login", None)
        assert set_cookie is not None
        assert set_cookie.startswith("__Host-sid="), set_cookie
        cookie = set_cookie.partition(";")[0]
        assert await get(app, "/", cookie) == (sid, None)
        _, set_cookie = await get(app, "/logout", cookie)
        assert set_cookie is not None
        assert set_cookie.startswith("__Host-sid="), set_cookie
        assert (await get(app, "/", cookie))[0] == "nobody"
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert session.end_reason == "logout", session


try_names()
try_description()
with TemporaryDirectory() as directory:
    asyncio.run(try_app(directory))
print(f"{len(asgi_sessions.__all__)} names imported; logged in, came back, logged out")
