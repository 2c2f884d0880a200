"""Litestar's ``set_session`` and ``clear_session`` put something else in the place of the dict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import pytest
from litestar import Litestar, Request, get, post
from litestar.exceptions import LitestarException
from litestar.handlers import asgi
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware as StarlettesMiddleware
from starlette.requests import Request as StarlettesRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import Sessions, SessionsUnavailable
from asgi_sessions.litestar import SessionsPlugin
from tests.support import Browser, set_cookies
from tests.support.inside import store_of

AnyRequest = Request[Any, Any, Any]


@dataclass
class Cart:
    fruit: str


def make_app(sessions: Sessions, *more: Any) -> ASGIApp:
    @get("/")
    async def home(request: AnyRequest) -> dict[str, Any]:
        return dict(request.session)

    @post("/fill")
    async def fill(request: AnyRequest) -> None:
        request.session["cart"] = ["apple"]

    @post("/set")
    async def replace(request: AnyRequest) -> None:
        request.set_session({"basket": ["pear"]})

    @post("/clear")
    async def clear(request: AnyRequest) -> None:
        request.clear_session()

    @post("/refill")
    async def refill(request: AnyRequest) -> None:
        request.clear_session()
        request.set_session({})
        request.session["cart"] = ["quince"]

    @post("/object")
    async def give_object(request: AnyRequest) -> None:
        request.set_session(Cart("apple"))

    @post("/login")
    async def login(request: AnyRequest) -> None:
        request.set_session({**request.session, "since": "now"})
        await sessions.start_session(request, {"id": "ada"})
        request.session["after"] = True

    handlers = [home, fill, replace, clear, refill, give_object, login, *more]
    app = Litestar(handlers, plugins=[SessionsPlugin(sessions)], openapi_config=None)
    return cast("ASGIApp", app)  # it has types of its own for what is called


async def test_what_is_set_takes_the_place_of_what_was_there(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    await browser.post("/fill")
    assert (await browser.get("/")).json() == {"cart": ["apple"]}
    await browser.post("/set")
    assert (await browser.get("/")).json() == {"basket": ["pear"]}
    await browser.post("/refill")
    assert (await browser.get("/")).json() == {"cart": ["quince"]}
    await browser.post("/clear")
    assert (await browser.get("/")).json() == {}


async def test_somebody_without_data_gets_a_cookie_with_the_first_that_are_set(
    plain: Sessions,
) -> None:
    browser = Browser(make_app(plain))
    assert not set_cookies(await browser.post("/clear"))
    assert len(set_cookies(await browser.post("/set"))) == 1
    assert (await browser.get("/")).json() == {"basket": ["pear"]}


async def test_a_login_takes_over_what_was_set(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    await browser.post("/fill")
    await browser.post("/login")
    assert (await browser.get("/")).json() == {"cart": ["apple"], "since": "now", "after": True}


async def test_an_object_in_place_of_a_dict_is_refused_and_loses_nothing(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    await browser.post("/fill")
    with pytest.raises(LitestarException) as fault:
        await browser.post("/object")
    cause: BaseException = fault.value
    while cause.__cause__ is not None:  # Litestar's layers say each that the response has begun
        cause = cause.__cause__
    assert str(cause) == "set_session() was given Cart: give it a dict"
    assert (await browser.get("/")).json() == {"cart": ["apple"]}


async def test_an_app_that_is_mounted_in_litestar_has_a_session_of_its_own(
    plain: Sessions,
) -> None:
    async def home(request: StarlettesRequest) -> Response:
        request.session["role"] = "admin"
        return PlainTextResponse("there")

    theirs = Middleware(StarlettesMiddleware, secret_key="of theirs")
    mounted = Starlette(routes=[Route("/", home)], middleware=[theirs])

    @asgi("/there", is_mount=True, copy_scope=False)
    async def there(scope: Scope, receive: Receive, send: Send) -> None:
        await mounted(scope, receive, send)

    browser = Browser(make_app(plain, there))
    await browser.post("/fill")
    assert (await browser.get("/there/")).text == "there"
    assert (await browser.get("/")).json() == {"cart": ["apple"]}


async def test_an_outage_at_the_save_is_a_503(
    plain: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def change(_: object) -> None:
        raise SessionsUnavailable("the database is away")

    browser = Browser(make_app(plain))
    await browser.post("/fill")
    monkeypatch.setattr(store_of(plain), "change", change)
    assert (await browser.post("/set")).status_code == 503
    monkeypatch.undo()
    assert (await browser.get("/")).json() == {"cart": ["apple"]}
