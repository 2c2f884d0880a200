"""What libraries and apps do around a login with ``request.session``, without the libraries."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from asgi_sessions import SessionMiddleware, Sessions, SessionsUnavailable
from tests.conftest import MakeSessions
from tests.support import Browser
from tests.support.inside import store_of


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


@pytest.mark.parametrize("person", ["ada", None])
async def test_a_mounted_app_with_a_session_of_its_own_leaves_ours_alone(
    sessions: Sessions, person: str | None
) -> None:
    async def home(request: Request) -> Response:
        return JSONResponse(request.session)

    async def fill(request: Request) -> Response:
        request.session["cart"] = ["apple"]
        if person is not None:
            await sessions.start_session(request, {"id": person})
        return Response()

    async def there(request: Request) -> Response:
        if person is not None:
            await sessions.start_session(request, {"id": person})
        request.session["role"] = "admin"
        return JSONResponse(request.session)

    theirs = Middleware(StarlettesMiddleware, secret_key="of theirs")
    mounted = Mount("/there", routes=[Route("/", there), Route("/home", home)], middleware=[theirs])
    app = Starlette(routes=[Route("/", home), Route("/cart", fill), mounted])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    browser = Browser(app)
    await browser.get("/cart")
    assert (await browser.get("/there/")).json() == {"role": "admin"}
    assert (await browser.get("/")).json() == {"cart": ["apple"]}
    assert (await browser.get("/there/home")).json() == {"role": "admin"}


@pytest.mark.parametrize("handled", [False, True])
async def test_an_outage_at_the_save_is_a_503_whatever_handlers_the_app_has(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch, handled: bool
) -> None:
    async def fill(request: Request) -> Response:
        request.session["cart"] = request.query_params["fruit"]
        return JSONResponse(request.session)

    async def home(request: Request) -> Response:
        return JSONResponse(request.session)

    async def answer(request: Request, error: Exception) -> Response:
        return Response("we are sorry", 418)

    async def change(_: object) -> None:
        raise SessionsUnavailable("the database is away")

    handlers: dict[Any, Any] = {SessionsUnavailable: answer} if handled else {}
    app = Starlette(routes=[Route("/", home), Route("/cart", fill)], exception_handlers=handlers)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    browser = Browser(app)
    await browser.get("/cart?fruit=apple")
    monkeypatch.setattr(store_of(sessions), "change", change)
    assert (await browser.get("/cart?fruit=pear")).status_code == 503
    monkeypatch.undo()
    assert (await browser.get("/")).json() == {"cart": "apple"}
