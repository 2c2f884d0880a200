"""starlette-admin logs its people in by what its app writes to ``request.session``; it has a
database session of its own at ``request.state.session``.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from asgi_sessions import SessionMiddleware, Sessions
from tests.libraries.fruit import Fruit
from tests.support import Browser, set_cookies
from tests.support.libraries import need

need("starlette_admin")


def make_app(sessions: Sessions, engine: AsyncEngine, *, ours: bool) -> Starlette:
    """An app with an admin; with `ours`, whoever logs in there has a session that can be ended."""
    from starlette_admin.auth import AdminUser, AuthProvider
    from starlette_admin.contrib.sqla import Admin, ModelView
    from starlette_admin.exceptions import LoginFailed

    class Provider(AuthProvider):
        async def login(
            self, username: str, password: str, remember_me: bool, request: Request
        ) -> Response | None:
            if (username, password) != ("ada", "analytical"):
                raise LoginFailed("no")
            if ours:
                await sessions.start_session(request, {"id": username}, remember=remember_me)
            request.session["user"] = {"name": username}
            return None

        async def logout(self, request: Request) -> Response | None:
            request.session.clear()
            if ours:
                await sessions.end_session(request)
            return None

        async def authenticate(self, request: Request) -> AdminUser | None:
            user = request.session.get("user")
            return None if user is None else AdminUser(username=user["name"])

    class FruitView(ModelView):
        fields: Any = ("id", "name")

    app = Starlette()
    app.add_middleware(SessionMiddleware, sessions=sessions)
    admin = Admin(engine, auth_provider=Provider(), secret_key="of the admin")
    admin.add_view(FruitView(Fruit))
    admin.mount_to(app)
    return app


async def token_of(browser: Browser, path: str) -> dict[str, str]:
    """The field against forgery of the form on a page."""
    found = re.search(r'name="csrftoken"\s+value="(.*?)"', (await browser.get(path)).text)
    assert found is not None
    return {"csrftoken": found[1]}


@pytest.mark.parametrize("ours", [False, True], ids=["alone", "with-ours"])
async def test_an_admin_logs_in_works_and_logs_out(
    plain: Sessions, engine: AsyncEngine, ours: bool
) -> None:
    app = make_app(plain, engine, ours=ours)
    browser, replay = Browser(app), Browser(app)
    assert (await browser.get("/admin/")).status_code == 303
    token = await token_of(browser, "/admin/login")
    form = {**token, "username": "ada", "password": "no"}
    wrong = await browser.post("/admin/login", data=form)
    assert wrong.status_code == 400
    assert not set_cookies(wrong)
    login = await browser.post("/admin/login", data={**form, "password": "analytical"})
    assert login.status_code == 303, login.text
    assert len(set_cookies(login)) == 1
    assert len(await plain.list_sessions("ada")) == (1 if ours else 0)

    made = await browser.post("/admin/fruit/create", data={**token, "name": "medlar"})
    assert made.status_code == 303, made.text
    assert "medlar" in (await browser.get(made.headers["location"])).text
    replay.cookies.update(browser.cookies)
    if ours:  # from another device
        await plain.end_all_sessions("ada")
    else:
        await browser.post("/admin/logout", data=token)
    for one in (browser, replay):
        assert (await one.get("/admin/")).status_code == 303
