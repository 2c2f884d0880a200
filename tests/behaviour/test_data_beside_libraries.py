"""What libraries and apps do around a login with ``request.session``, without the libraries."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions
from tests.conftest import MakeSessions
from tests.support import Browser


@pytest.fixture
async def sessions(make_sessions: MakeSessions) -> Sessions:
    return await make_sessions(data=True)


async def test_what_was_written_after_a_clear_stays_when_another_person_logs_in(
    sessions: Sessions,
) -> None:
    async def login(request: Request) -> Response:
        if "clear" in request.query_params:
            request.session.clear()
        name = request.session["name"] = request.query_params["name"]
        await sessions.start_session(request, {"id": name})
        request.session["since"] = name
        return Response()

    async def home(request: Request) -> Response:
        return JSONResponse(request.session)

    async def fill(request: Request) -> Response:
        request.session["cart"] = ["apple"]
        return Response()

    routes = [Route("/", home), Route("/login", login), Route("/cart", fill)]
    app = Starlette(routes=routes)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    browser = Browser(app)
    await browser.get("/login?name=ada")
    await browser.get("/cart")
    assert (await browser.get("/")).json() == {"name": "ada", "cart": ["apple"], "since": "ada"}
    await browser.get("/login?name=grace")
    assert (await browser.get("/")).json() == {"since": "grace"}
    await browser.get("/cart")
    await browser.get("/login?name=ada&clear")
    assert (await browser.get("/")).json() == {"name": "ada", "since": "ada"}
