"""The app of the browser tests, a process of its own: pages that log in and ask who is there.

    python -m tests.browser.dbsc_app FD CERTIFICATE DATABASE LOG SECONDS

serves the listening socket FD, and writes a line to LOG for each request that it has answered.
SECONDS is how long a bound cookie is good.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from asgi_sessions import SessionMiddleware, Sessions
from asgi_sessions.dbsc import DBSC
from tests.support import KEY

PAGE = """<title>page</title><link rel="icon" href="data:,">
<p id="who">{who}</p><form method="post" action="/login-redirect"><button>log in</button></form>"""


class Noted:
    """Around everything: one line of JSON for each request that has been answered."""

    def __init__(self, app: ASGIApp, log: Path) -> None:
        self._app = app
        self._log = log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                line = {
                    "path": scope["path"],
                    "status": message["status"],
                    "process": os.getpid(),
                    "proof": any(
                        name == b"secure-session-response" for name, _ in scope["headers"]
                    ),
                }
                with self._log.open("a") as log:
                    log.write(json.dumps(line) + "\n")
                if scope["path"].endswith("/register"):
                    await asyncio.sleep(float(os.environ.get("SLOW_REGISTER", "0")))
                    if "LOSE_REGISTER" in os.environ:
                        message = {**message, "status": 502, "headers": []}
            await send(message)

        await self._app(scope, receive, noting)


def make(database: str, log: Path, seconds: float) -> ASGIApp:
    """The app."""
    sessions = Sessions(
        database, secret_key=KEY, dbsc=DBSC(cookie_lifetime=timedelta(seconds=seconds))
    )

    def who(request: Request) -> str:
        return request.state.sid or f"nobody ({request.state.session_end_reason})"

    async def page(request: Request) -> Response:
        return HTMLResponse(PAGE.format(who=who(request)))

    async def me(request: Request) -> Response:
        session = request.state.session
        return JSONResponse({"who": who(request), "bound": session and session.bound})

    async def login(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        if request.url.path == "/login-redirect":
            return RedirectResponse("/", 303)
        return HTMLResponse(PAGE.format(who=who(request)))

    async def logout(request: Request) -> Response:
        await sessions.end_session(request)
        return JSONResponse({"who": who(request)})

    async def others(request: Request) -> Response:
        return JSONResponse({"ended": await sessions.end_other_sessions(request)})

    async def slow(request: Request) -> Response:
        seen = who(request)
        await asyncio.sleep(1)
        return JSONResponse({"who": seen})

    async def link(request: Request) -> Response:
        return HTMLResponse(f'<a href="{request.query_params["to"]}">there</a>')

    async def socket(websocket: WebSocket) -> None:
        if "login" in websocket.query_params:
            await sessions.start_session(websocket, {"id": "ann"})
        await websocket.accept()
        await websocket.send_text(str(websocket.state.sid))
        await websocket.close()

    routes = [
        Route("/", page),
        Route("/me", me),
        Route("/login", login, methods=["GET", "POST"]),
        Route("/login-redirect", login, methods=["POST"]),
        Route("/logout", logout, methods=["POST"]),
        Route("/others", others, methods=["POST"]),
        Route("/link", link),
        Route("/slow", slow),
        WebSocketRoute("/socket", socket),
    ]
    app = Starlette(routes=routes, lifespan=sessions.lifespan)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return Noted(app, log)


def main() -> None:
    fd, certificate, database, log, seconds = sys.argv[1:]
    config = uvicorn.Config(
        make(database, Path(log), float(seconds)),
        fd=int(fd),
        ssl_certfile=certificate,
        # Each request may go to another process.
        headers=[("Connection", "close")],
        log_level="warning",
    )
    uvicorn.Server(config).run()


if __name__ == "__main__":
    main()
