"""sqladmin logs its people in by ``request.session``, and flashes messages in it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions
from tests.libraries.fruit import Fruit
from tests.support import Browser, set_cookies
from tests.support.libraries import need

need("sqladmin")

ADA = {"username": "ada", "password": "analytical"}


def make_app(sessions: Sessions, engine: AsyncEngine, *, middlewares: list[Any]) -> Starlette:
    """An app with an admin, whose backend has these middlewares."""
    from sqladmin import Admin, Flash, ModelView, action
    from sqladmin.authentication import AuthenticationBackend

    class Backend(AuthenticationBackend):
        def __init__(self) -> None:
            self.middlewares = middlewares

        async def login(self, request: Request) -> bool:
            form = await request.form()
            if dict(form) != ADA:
                return False
            request.session["user_id"] = form["username"]
            return True

        async def logout(self, request: Request) -> bool:
            request.session.clear()
            return False

        async def authenticate(self, request: Request) -> bool:
            return "user_id" in request.session

    class FruitAdmin(ModelView, model=Fruit):
        column_list = form_columns = ("name",)

        @action("wash")
        async def wash(self, request: Request) -> Response:
            Flash.success(request, "it is clean")
            Flash.info(request, "it is dry")
            return RedirectResponse(request.url_for("admin:list", identity="fruit"))

    async def home(request: Request) -> Response:
        return JSONResponse(request.session)

    async def fill(request: Request) -> Response:
        request.session["cart"] = ["apple"]
        return JSONResponse(None)

    app = Starlette(routes=[Route("/", home), Route("/cart", fill, methods=["POST"])])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    Admin(app, engine, authentication_backend=Backend()).add_view(FruitAdmin)
    return app


async def test_an_admin_logs_in_and_out(plain: Sessions, engine: AsyncEngine) -> None:
    ours = [Middleware(SessionMiddleware, sessions=plain)]
    app = make_app(plain, engine, middlewares=ours)
    browser, replay = Browser(app), Browser(app)
    listed = "/admin/fruit/list"
    assert (await browser.get(listed)).headers["location"] == "https://test/admin/login"
    wrong = await browser.post("/admin/login", data={**ADA, "password": "no"})
    assert wrong.status_code == 400
    assert not set_cookies(wrong)
    login = await browser.post("/admin/login", data=ADA)
    assert login.headers["location"] == "https://test/admin/"
    assert len(set_cookies(login)) == 1
    assert not login.cookies.get("session")

    made = await browser.post("/admin/fruit/create", data={"name": "medlar", "save": "Save"})
    assert made.status_code == 302, made.text
    assert "medlar" in (await browser.get(listed)).text
    replay.cookies.update(browser.cookies)
    await browser.get("/admin/logout")
    assert (await replay.get(listed)).headers["location"] == "https://test/admin/login"


async def test_messages_of_an_admin_are_shown_once(plain: Sessions, engine: AsyncEngine) -> None:
    browser = Browser(make_app(plain, engine, middlewares=[]))
    browser.follow_redirects = True
    await browser.post("/admin/login", data=ADA)
    page = (await browser.get("/admin/fruit/action/wash?pks=1")).text
    assert "it is clean" in page
    assert "it is dry" in page
    assert "it is clean" not in (await browser.get("/admin/fruit/list")).text


async def test_an_admin_with_the_cookie_of_starlette_leaves_our_data_alone(
    plain: Sessions, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    from starlette.middleware.sessions import SessionMiddleware as Starlettes

    theirs = [Middleware(Starlettes, secret_key="of the admin")]
    browser = Browser(make_app(plain, engine, middlewares=theirs))
    await browser.post("/cart")
    with caplog.at_level(logging.WARNING):
        await browser.post("/admin/login", data=ADA)
    assert (await browser.get("/admin/fruit/list")).status_code == 200
    assert (await browser.get("/")).json() == {"cart": ["apple"]}
    assert [record.__dict__["event"] for record in caplog.records] == ["session_hidden"]
