"""FastHTML hands ``scope["session"]`` to handlers as ``session``, and keeps its toasts in it."""

# mypy: allow-untyped-defs, allow-incomplete-defs
# ruff: noqa: ANN001, ANN202 -- FastHTML hands out by its name what has no type

from __future__ import annotations

from typing import Any

import pytest
from starlette.middleware import Middleware

from asgi_sessions import SessionMiddleware, Sessions
from tests.support import Browser, set_cookies
from tests.support.asgi import Peer, websocket
from tests.support.libraries import need
from tests.support.pages import Reader, blocks
from tests.support.repository import DOCS

need("fasthtml", apart=True)


def make_app(sessions: Sessions) -> Any:
    from fasthtml.common import (
        Beforeware,
        Button,
        FastHTML,
        Form,
        P,
        RedirectResponse,
        Titled,
        add_toast,
        setup_toasts,
    )

    def before(req, session):
        req.scope["auth"] = session.get("auth")
        return None if req.scope["auth"] else RedirectResponse("/login", status_code=303)

    app = FastHTML(
        middleware=[Middleware(SessionMiddleware, sessions=sessions)],
        sess_cls=None,
        secret_key="not used",  # else FastHTML writes one to a file
        before=Beforeware(before, skip=["/login", "/count"]),
    )
    setup_toasts(app)

    @app.get("/")
    def home(auth, session):
        return Titled("Home", P(f"Hello {auth}"))

    @app.get("/count")
    def count(session):
        session["count"] = session.get("count", 0) + 1
        return P(f"count: {session['count']}")

    @app.get("/login")
    def form():
        return Titled("Login", Form(Button("Log in"), action="/login", method="post"))

    @app.post("/login")
    async def login(req, session, name: str):
        await sessions.start_session(req, {"id": name})
        session["auth"] = name
        add_toast(session, f"Welcome {name}", "success")
        return RedirectResponse("/", status_code=303)

    @app.post("/logout")
    async def logout(req, session):
        await sessions.end_session(req)
        add_toast(session, "Goodbye")
        return RedirectResponse("/login", status_code=303)

    @app.ws("/ws")
    async def talk(msg: str, session, send) -> None:
        await send(P(f"{session['auth']}: {msg}"))

    return app


async def test_a_page_counts_its_visitor(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    for count in (1, 2, 3):
        assert f"count: {count}" in (await browser.get("/count")).text
    assert "count: 1" in (await Browser(make_app(plain)).get("/count")).text


async def test_a_login_and_a_logout_with_toasts(plain: Sessions) -> None:
    app = make_app(plain)
    browser, replay = Browser(app), Browser(app)
    assert (await browser.get("/")).headers["location"] == "/login"
    await browser.get("/count")
    login = await browser.post("/login", data={"name": "ada"})
    assert len(set_cookies(login)) == 1
    replay.cookies.update(browser.cookies)
    home = (await browser.get("/")).text
    assert "Hello ada" in home
    assert "Welcome ada" in home
    assert "Welcome ada" not in (await browser.get("/")).text
    assert "count: 2" in (await browser.get("/count")).text
    await browser.post("/logout")
    assert "Goodbye" in (await browser.get("/login")).text
    assert (await browser.get("/")).headers["location"] == "/login"
    assert (await replay.get("/")).headers["location"] == "/login"
    assert await plain.list_sessions("ada") == []


async def test_a_websocket_has_the_session_of_its_browser(plain: Sessions) -> None:
    app = make_app(plain)
    browser = Browser(app)
    await browser.post("/login", data={"name": "ada"})
    scope = websocket(cookie="; ".join(f"{k}={v}" for k, v in browser.cookies.items()))
    async with Peer(app, {**scope, "path": "/ws", "raw_path": b"/ws"}) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        peer.says({"type": "websocket.receive", "text": '{"msg": "hello"}'})
        assert "ada: hello" in (await peer.gets())["text"]
        peer.says({"type": "websocket.disconnect", "code": 1000})


@pytest.mark.parametrize("page", [DOCS / "libraries.md"])
async def test_the_code_of_the_page_runs(reader: Reader) -> None:
    beginning, *_ = blocks(reader.page, "python")
    (own,) = [block for block in blocks(reader.page, "py") if "import FastHTML" in block.source]
    await reader.run(beginning, own)
