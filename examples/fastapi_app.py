"""Login, a page of one's devices and logout in FastAPI: ``python examples/fastapi_app.py``.

Open http://127.0.0.1:8000/sessions/ in two browsers, log in to both as ann with the password
apple-tree, and end one session from the other. Needs fastapi, python-multipart and uvicorn.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import uvicorn
from fastapi import FastAPI, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.routing import Mount, Route

from asgi_sessions import SessionMiddleware, Sessions
from asgi_sessions.fastapi import CurrentSession, describe_sessions

PASSWORDS = {"ann": "apple-tree"}  # a real app keeps hashes, as example_app.py does
FORM = """<!doctype html><html lang="en"><title>Log in</title><form method="post">
<p><label>Name <input name="name" autocomplete="username"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><button>Log in</button></p></form></html>"""

Filled = Annotated[str, Form(min_length=1)]


def create_app(sessions: Sessions) -> FastAPI:
    """The app on these sessions."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with sessions:
            await sessions.create_tables()
            yield

    routes = [
        Route("/logout", sessions.end_session_endpoint(redirect_to="/login")),
        Mount("/sessions", sessions.routes(login_url="/login", home_url="/me")),
    ]
    app = FastAPI(title="Where am I logged in?", routes=routes, lifespan=lifespan)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    describe_sessions(app, sessions)

    @app.get("/login", response_class=HTMLResponse)
    async def form() -> str:
        """The form to log in with."""
        return FORM

    @app.post("/login", status_code=303, responses={403: {"description": "Refused"}})
    async def login(request: Request, name: Filled, password: Filled) -> RedirectResponse:
        """Check what the form brings. A real app also slows down who guesses."""
        # No other site may log its visitors in. For older browsers see example_app.py.
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise HTTPException(403, "cross-site request refused")
        if PASSWORDS.get(name) != password:
            raise HTTPException(403, "name and password do not fit")
        await sessions.start_session(request, {"id": name})
        return RedirectResponse("/sessions/", 303)

    @app.get("/me")
    async def me(session: CurrentSession) -> dict[str, str]:
        """Who it is; without a session, the answer is a 401 that says why."""
        return {"person": session.person_id, "sid": session.sid}

    return app


if __name__ == "__main__":
    url = os.environ.get("DATABASE_URL", "sqlite:///fastapi-demo.db")
    key = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)  # a new one logs everybody out
    own = Sessions(url, secret_key=key, cookie_secure=False)  # False is for plain http alone
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(create_app(own), host="127.0.0.1", port=port, proxy_headers=False)
