"""An app whose people log in at another site, served as the example is: ``PORT``, ``DATABASE_URL``.

Whoever comes to ``/in`` is logged in, too long ago to end other sessions.
"""

from __future__ import annotations

import os
from datetime import timedelta
from secrets import token_urlsafe

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Mount, Route

from asgi_sessions import SessionMiddleware, Sessions

PORT = int(os.environ["PORT"])
sessions = Sessions(os.environ["DATABASE_URL"], secret_key=token_urlsafe(), cookie_secure=False)


async def log_in(request: Request) -> Response:
    """Without a question."""
    await sessions.create_tables()
    await sessions.start_session(request, {"id": "ann"})
    return RedirectResponse("/sessions/", 303)


async def leave(_: Request) -> Response:
    """To the provider, which for a browser is another site."""
    return RedirectResponse(f"http://localhost:{PORT}/provider", 303)


async def provider(_: Request) -> Response:
    """Where people would log in."""
    return HTMLResponse("<!doctype html><title>provider</title><h1>The provider</h1>")


mine = sessions.routes(
    login_url="/leave", fresh_for=timedelta(microseconds=1), time_zone="Europe/Berlin"
)
app = Starlette(
    routes=[
        Route("/in", log_in),
        Route("/leave", leave),
        Route("/provider", provider),
        Mount("/sessions", mine),
    ],
    lifespan=sessions.lifespan,
)
app.add_middleware(SessionMiddleware, sessions=sessions)

if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=PORT)
