"""Login, a page of one's devices and logout in Starlette: ``python examples/starlette_app.py``.

Open http://127.0.0.1:8000/sessions/ in two browsers, log in to both as ann with the password
apple-tree, and end one session from the other. Needs python-multipart and uvicorn.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from asgi_sessions import Session, SessionMiddleware, Sessions

PASSWORDS = {"ann": "apple-tree"}  # a real app keeps hashes, as example_app.py does
FORM = """<!doctype html><html lang="en"><title>Log in</title><form method="post">
<p><label>Name <input name="name" autocomplete="username"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><button>Log in</button></p></form></html>"""


async def login(request: Request) -> Response:
    """Show the form, or check what it brings. A real app also slows down who guesses."""
    if request.method != "POST":
        return HTMLResponse(FORM)
    # No other site may log its visitors in. For older browsers see example_app.py.
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return JSONResponse({"detail": "cross-site request refused"}, 403)
    async with request.form() as form:
        name, password = str(form.get("name", "")), str(form.get("password", ""))
    if PASSWORDS.get(name) != password:
        return JSONResponse({"detail": "name and password do not fit"}, 403)
    await request.app.state.sessions.start_session(request, {"id": name})
    return RedirectResponse("/sessions/", 303)


async def me(request: Request) -> Response:
    """Who it is; without a session, why."""
    session: Session | None = request.state.session
    if session is None:
        facts = {"detail": "log in first", "reason": request.state.session_end_reason}
        return JSONResponse(facts, 401, {"WWW-Authenticate": "Cookie"})
    return JSONResponse({"person": session.person_id, "sid": session.sid})


def create_app(sessions: Sessions) -> Starlette:
    """The app on these sessions."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with sessions:
            await sessions.create_tables()
            yield

    routes = [
        Route("/login", login, methods=["GET", "POST"]),
        Route("/me", me),
        Route("/logout", sessions.end_session_endpoint(redirect_to="/login")),
        Mount("/sessions", sessions.routes(login_url="/login", home_url="/me")),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    app.state.sessions = sessions
    return app


if __name__ == "__main__":
    url = os.environ.get("DATABASE_URL", "sqlite:///starlette-demo.db")
    key = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)  # a new one logs everybody out
    own = Sessions(url, secret_key=key, cookie_secure=False)  # False is for plain http alone
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(create_app(own), host="127.0.0.1", port=port, proxy_headers=False)
