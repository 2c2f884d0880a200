"""starlette-flash appends to a list in ``request.session``, and looks for it on each page."""

from __future__ import annotations

from sqlalchemy import select
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions
from tests.support import Browser, set_cookies
from tests.support.engines import run
from tests.support.libraries import need

need("starlette_flash")


def make_app(sessions: Sessions) -> Starlette:
    from starlette_flash import flash

    async def home(request: Request) -> Response:
        return JSONResponse([message["message"] for message in flash(request)])

    async def save(request: Request) -> Response:
        flash(request).success("saved").info("sent")
        return RedirectResponse("/", 303)

    async def more(request: Request) -> Response:
        flash(request).error("again")
        return RedirectResponse("/", 303)

    async def login(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ada"})
        flash(request).success("hello")
        return RedirectResponse("/", 303)

    async def logout(request: Request) -> Response:
        await sessions.end_session(request)
        flash(request).info("goodbye")
        return RedirectResponse("/", 303)

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/save", save, methods=["POST"]),
            Route("/more", more, methods=["POST"]),
            Route("/login", login, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
        ]
    )
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


async def test_a_message_is_shown_once_after_a_redirect(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    browser.follow_redirects = True
    assert (await browser.post("/save")).json() == ["saved", "sent"]
    assert (await browser.get("/")).json() == []
    assert (await browser.post("/more")).json() == ["again"]
    assert (await Browser(make_app(plain)).get("/")).json() == []


async def test_messages_of_two_requests_are_shown_together(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    await browser.post("/save")
    await browser.post("/more")
    assert (await browser.get("/")).json() == ["saved", "sent", "again"]
    assert (await browser.get("/")).json() == []


async def test_who_has_no_message_gets_no_cookie_and_no_row(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    page = await browser.get("/")
    assert page.json() == []
    assert not page.headers.get_list("set-cookie")
    assert await run(plain, select(plain.metadata.tables["sessions_visitors"])) == []


async def test_a_login_and_a_logout_say_something(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    login = await browser.post("/login")
    assert len(set_cookies(login)) == 1
    assert (await browser.get("/")).json() == ["hello"]
    logout = await browser.post("/logout")
    assert len(set_cookies(logout)) == 1
    assert (await browser.get("/")).json() == ["goodbye"]
    assert await plain.list_sessions("ada") == []
