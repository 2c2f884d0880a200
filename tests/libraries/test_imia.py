"""imia keeps whom it has logged in, and whom somebody impersonates, in ``request.session``; a login
asks it for another id (``regenerate_id``).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions
from tests.support import Browser, cookie_of, set_cookies
from tests.support.libraries import need

need("imia")

SECRET = "of the hashes in the session"


@dataclass
class User:
    """What imia calls user-like."""

    id: str
    scopes: list[str] = field(default_factory=list)

    def get_id(self) -> str:
        return self.id

    def get_display_name(self) -> str:
        return self.id.title()

    def get_hashed_password(self) -> str:
        return f"the password of {self.id}"

    def get_scopes(self) -> list[str]:
        return self.scopes


class Verifier:
    def verify(self, plain: str, hashed: str) -> bool:
        return plain == hashed


USERS = {"ada": User("ada", ["auth:impersonate_others"]), "grace": User("grace")}


def make_app(sessions: Sessions, *, ours: bool) -> Starlette:
    """An app that imia logs people in to; with `ours`, in a session that can be ended elsewhere."""
    from imia import (
        AuthenticationMiddleware,
        ImpersonationMiddleware,
        InMemoryProvider,
        LoginManager,
        SessionAuthenticator,
    )

    users = InMemoryProvider(USERS)
    manager = LoginManager(users, Verifier(), SECRET)

    async def home(request: Request) -> Response:
        return JSONResponse(
            {
                "user": request.auth.user_id,
                "really": request.auth.original_user_id,
                "cart": request.session.get("cart"),
            }
        )

    async def fill(request: Request) -> Response:
        request.session["cart"] = ["apple"]
        return JSONResponse(None)

    async def login(request: Request) -> Response:
        async with request.form() as form:
            token = await manager.login(request, str(form["name"]), str(form["password"]))
        if token and ours:
            await sessions.start_session(request, {"id": token.user_id})
        return JSONResponse(bool(token))

    async def logout(request: Request) -> Response:
        await manager.logout(request)
        if ours:
            await sessions.end_session(request)
        return JSONResponse(None)

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/cart", fill, methods=["POST"]),
            Route("/login", login, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
        ]
    )
    app.add_middleware(ImpersonationMiddleware, user_provider=users)
    app.add_middleware(AuthenticationMiddleware, authenticators=[SessionAuthenticator(users)])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


def credentials(name: str) -> dict[str, str]:
    return {"name": name, "password": USERS[name].get_hashed_password()}


@pytest.mark.parametrize("ours", [False, True], ids=["alone", "with-ours"])
class TestLogins:
    async def test_a_login_keeps_the_cart_under_another_cookie(
        self, plain: Sessions, ours: bool
    ) -> None:
        app = make_app(plain, ours=ours)
        browser, thief = Browser(app), Browser(app)
        await browser.post("/cart")
        thief.cookies.update(browser.cookies)  # the cookie was planted, say
        refused = await browser.post("/login", data={"name": "ada", "password": "wrong"})
        assert refused.json() is False
        login = await browser.post("/login", data=credentials("ada"))
        assert login.json() is True
        assert len(set_cookies(login)) == 1
        home = (await browser.get("/")).json()
        assert home == {"user": "ada", "really": None, "cart": ["apple"]}
        assert (await thief.get("/")).json() == {"user": None, "really": None, "cart": None}
        listed = await plain.list_sessions("ada")
        assert len(listed) == (1 if ours else 0)

    async def test_a_logout_leaves_nothing(self, plain: Sessions, ours: bool) -> None:
        app = make_app(plain, ours=ours)
        browser, replay = Browser(app), Browser(app)
        await browser.post("/cart")
        await browser.post("/login", data=credentials("ada"))
        replay.cookies.update(browser.cookies)
        await browser.post("/logout")
        nobody = {"user": None, "really": None, "cart": None}
        assert (await browser.get("/")).json() == nobody
        assert (await replay.get("/")).json() == nobody
        assert await plain.list_sessions("ada") == []

    async def test_who_logs_in_after_somebody_else_finds_nothing_of_theirs(
        self, plain: Sessions, ours: bool
    ) -> None:
        browser = Browser(make_app(plain, ours=ours))
        await browser.post("/login", data=credentials("ada"))
        await browser.post("/cart")
        await browser.post("/login", data=credentials("grace"))
        home = (await browser.get("/")).json()
        assert home == {"user": "grace", "really": None, "cart": None}

    async def test_somebody_is_impersonated_until_that_is_left(
        self, plain: Sessions, ours: bool
    ) -> None:
        browser = Browser(make_app(plain, ours=ours))
        await browser.post("/login", data=credentials("ada"))
        await browser.get("/", params={"_impersonate": "grace"})
        home = (await browser.get("/")).json()
        assert (home["user"], home["really"]) == ("grace", "ada")
        await browser.get("/", params={"_impersonate": "__exit__"})
        home = (await browser.get("/")).json()
        assert (home["user"], home["really"]) == ("ada", None)


async def test_a_login_of_somebody_who_has_a_session_gives_it_a_new_secret(plain: Sessions) -> None:
    browser = Browser(make_app(plain, ours=True))
    await browser.post("/login", data=credentials("ada"))
    before = cookie_of(browser, plain)
    await browser.post("/login", data=credentials("ada"))
    assert cookie_of(browser, plain) != before
    assert len(await plain.list_sessions("ada")) == 1
