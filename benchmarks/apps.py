"""The apps of Starlette: the same routes and the same handlers, with other middleware."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as CookieMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions

from .load import App

KEY = "the key that signs in the benchmarks, 32+"

OK = PlainTextResponse("ok")
DENIED = PlainTextResponse("", 401)

Who = Callable[[Request], str | None]
Change = Callable[[Request], Awaitable[object]]


def make(who: Who, login: Change, logout: Change, *middleware: Middleware) -> Starlette:
    """An app. ``/`` does nothing; ``/me`` reads whose session it is, and ``/who`` says it;
    ``/read`` reads a key of its data, and ``/write`` writes one.

    Args:
        who: reads the person's id.
        login: logs in the person of the query.
        logout: logs out.
        middleware: what is measured.
    """

    async def nothing(request: Request) -> Response:
        return OK

    async def me(request: Request) -> Response:
        return OK if who(request) else DENIED

    async def tell(request: Request) -> Response:
        return PlainTextResponse(who(request) or "")

    async def read(request: Request) -> Response:
        return OK if "count" in request.session else DENIED

    numbers = count(1)

    async def write(request: Request) -> Response:
        request.session["count"] = next(numbers)
        return OK

    async def log_in(request: Request) -> Response:
        await login(request)
        return OK

    async def log_out(request: Request) -> Response:
        await logout(request)
        return OK

    return Starlette(
        routes=[
            Route("/", nothing),
            Route("/me", me),
            Route("/who", tell),
            Route("/read", read),
            Route("/write", write),
            Route("/login", log_in, methods=["POST"]),
            Route("/logout", log_out, methods=["POST"]),
        ],
        middleware=middleware,
    )


async def _nothing(request: Request) -> None:
    """Neither login nor logout."""


def bare() -> App:
    """The app alone."""
    return make(lambda request: "nobody", _nothing, _nothing)


def cookie() -> App:
    """With Starlette's own middleware: the person's id in a signed cookie."""

    def who(request: Request) -> str | None:
        person: str | None = request.session.get("person")
        return person

    async def login(request: Request) -> None:
        request.session["person"] = request.query_params["person"]

    async def logout(request: Request) -> None:
        request.session.clear()

    return make(who, login, logout, Middleware(CookieMiddleware, secret_key=KEY, https_only=True))


def ours(sessions: Sessions) -> App:
    """With ours."""

    def who(request: Request) -> str | None:
        session = request.state.session
        return None if session is None else session.person_id

    async def login(request: Request) -> None:
        await sessions.start_session(request, {"id": request.query_params["person"]})

    return make(who, login, sessions.end_session, Middleware(SessionMiddleware, sessions=sessions))
