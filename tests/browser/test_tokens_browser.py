"""A page that has its token in memory opens a WebSocket, in real browsers: docs/tokens.md."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from tests.support import KEY
from tests.support.pages import Reader
from tests.support.repository import DOCS

PATIENCE = 30
#: Under which sub-protocol it opens, and what it says of whose it is; or that it never opened.
LISTEN = """([url, protocols]) => new Promise(done => {
    const socket = new WebSocket(url, protocols);
    socket.onmessage = event => done([socket.protocol, event.data]);
    socket.onclose = () => done("closed");
})"""


async def feed(socket: WebSocket) -> None:
    """Say whose it is, and what is offered."""
    session = socket.state.session
    await socket.accept()
    offered = ", ".join(socket.scope["subprotocols"])
    await socket.send_text(f"{session and session.person_id}; {offered}")
    await socket.receive()  # Firefox would else tell of the end alone


async def empty(_: Request) -> HTMLResponse:
    """A page; Firefox opens no socket from one that is text."""
    return HTMLResponse("<title>empty</title>")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_KEY", KEY)
        patch.chdir(tmp_path_factory.mktemp("app"))
        reader = Reader(DOCS / "tokens.md")
        asyncio.run(reader.run())
        app: Any = reader["app"]
        app.router.routes += [WebSocketRoute("/feed", feed), Route("/", empty)]

        async def make() -> None:
            await reader["sessions"].create_tables()
            await reader["sessions"].disconnect()

        asyncio.run(make())
        config = uvicorn.Config(app, port=0, log_config=None, ws="websockets-sansio")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            thread.join(0.02)
        try:
            yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


@pytest.mark.parametrize("name", ["chromium", "firefox"])
def test_a_page_opens_a_socket_with_its_token(
    name: str, place: str, request: pytest.FixtureRequest
) -> None:
    browser: Browser = request.getfixturevalue(name)
    token = httpx.post(f"http://{place}/login").json()["token"]
    page = browser.new_page()
    try:
        page.goto(f"http://{place}/")
        url = f"ws://{place}/feed"
        answers = [
            page.evaluate(LISTEN, [url, protocols])
            for protocols in (
                ["asgi-sessions", token],
                ["asgi-sessions", token, "chat"],
                ["asgi-sessions", "asgis_junk"],
                [],
            )
        ]
    finally:
        page.close()
    assert answers == [
        ["asgi-sessions", "ada; "],
        ["asgi-sessions", "ada; chat"],
        ["asgi-sessions", "None; "],
        ["", "None; "],
    ]
