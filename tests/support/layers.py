"""Layers between a server and an app, as frameworks have them."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_sessions import Sessions
from tests.support import make_app


class Passes(BaseHTTPMiddleware):
    """The middleware that others write: sees the state, adds a header."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-sid-after"] = str(getattr(request.state, "sid", None))
        return response


def layered(sessions: Sessions, *layers: Middleware) -> Starlette:
    """The routes of `make_app` behind these layers, the first outermost."""

    async def big(request: Request) -> Response:
        return PlainTextResponse("x" * 5000, headers={"vary": "Accept-Language"})

    app = make_app(sessions, Route("/big", big))
    app.user_middleware = list(layers)
    return app
