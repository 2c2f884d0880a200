"""The page and its buttons wherever an app mounts them, as a browser meets them: by URL."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import fastapi
import httpx
import litestar
import pytest
from litestar.middleware import DefineMiddleware
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import SessionMiddleware, Sessions

pytestmark = pytest.mark.anyio

HTML = {"accept": "text/html"}


# --- apps with POST /login and the routes at /sessions --------------------------------------------


def starlette_app(sessions: Sessions) -> ASGIApp:
    async def login(request: Request) -> Response:
        await sessions.start_session(request, {"id": "ann"})
        return Response()

    routes = [Route("/login", login, methods=["POST"]), Mount("/sessions", sessions.routes())]
    app = Starlette(routes=routes)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


def fastapi_app(sessions: Sessions) -> ASGIApp:
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)
    app.mount("/sessions", sessions.routes())

    @app.post("/login")
    async def login(request: fastapi.Request) -> None:
        await sessions.start_session(request, {"id": "ann"})

    return app


def litestar_app(sessions: Sessions) -> ASGIApp:
    @litestar.post("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> None:
        await sessions.start_session(request, {"id": "ann"})

    mounted = litestar.asgi("/sessions", is_mount=True, copy_scope=True)(sessions.routes())
    ours = DefineMiddleware(SessionMiddleware, sessions=sessions)
    app: Any = litestar.Litestar([login, mounted], middleware=[ours], openapi_config=None)
    return app  # type: ignore[no-any-return]


APPS: dict[str, Callable[[Sessions], ASGIApp]] = {
    "starlette": starlette_app,
    "fastapi": fastapi_app,
    "litestar": litestar_app,
}


@pytest.fixture(params=APPS.values(), ids=list(APPS))
def app(request: pytest.FixtureRequest, sessions: Sessions) -> ASGIApp:
    """Each of the three."""
    made: ASGIApp = request.param(sessions)
    return made


# --- where they are -------------------------------------------------------------------------------


class Behind:
    """A proxy that cuts the prefix off, and a server that says so in the root path alone."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, raw_path = scope["path"], scope["raw_path"]
        cut = {
            "path": path.removeprefix(self.prefix),
            "raw_path": raw_path.removeprefix(self.prefix.encode()),
            "root_path": self.prefix,
        }
        await self.app({**scope, **cut}, receive, send)


class Browser(httpx.AsyncClient):
    """Somebody who clicks at a site below a prefix."""

    def __init__(self, app: ASGIApp, prefix: str = "", root_path: str = "") -> None:
        transport = httpx.ASGITransport(app, root_path=root_path)
        super().__init__(transport=transport, base_url=f"https://test{prefix}", headers=HTML)

    async def press(self, page: httpx.Response, action: str) -> httpx.Response:
        """Press the button whose form ends so; where that leads."""
        (target,) = re.findall(rf'action="([^"]*{action})"', page.text)
        done = await self.post(page.url.join(target))
        assert done.status_code == 303
        return await self.get(done.url.join(done.headers["location"]))


async def story(app: ASGIApp, prefix: str = "", *, slash: str = "/", root_path: str = "") -> None:
    """Log in three times, end one and then the others on the page, and log out."""
    here, *others = [Browser(app, prefix, root_path) for _ in range(3)]
    for browser in (here, *others):
        assert (await browser.post("login")).is_success
    page = await here.get(f"sessions{slash}", follow_redirects=True)
    assert page.status_code == 200
    assert page.text.count("<li>") == 3
    (style,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', page.text)
    assert (await here.get(page.url.join(style))).headers["content-type"].startswith("text/css")
    sid = re.findall(r"/([0-9a-f-]{36})/end", page.text)[1]
    for action, left in ((f"{sid}/end", 2), ("end-others", 1)):
        page = await here.press(page, action)
        assert page.url.path == f"{prefix}/sessions/"
        assert page.text.count("<li>") == left
    (more,) = re.findall(r'href="([^"]*)\?ended=1"', page.text)
    over = await here.get(page.url.join(f"{more}?ended=1"))
    assert over.text.count('<li class="over">') == 2
    left_behind = await here.press(page, "/end")
    assert left_behind.url.path == f"{prefix}/sessions/"
    assert "Logged out" in left_behind.text


async def test_each_framework_takes_them(app: ASGIApp) -> None:
    await story(app)


async def test_the_address_without_its_slash_leads_there(app: ASGIApp) -> None:
    await story(app, slash="")


async def test_an_app_in_an_app_takes_them(app: ASGIApp) -> None:
    await story(Starlette(routes=[Mount("/shop", app)]), "/shop")


async def test_a_server_may_have_a_root_path(app: ASGIApp) -> None:
    await story(app, "/api", root_path="/api")


async def test_a_proxy_may_cut_off_the_root_path(app: ASGIApp) -> None:
    await story(Behind(app, "/api"), "/api")


async def test_a_proxy_may_cut_off_what_no_server_knows_of(app: ASGIApp) -> None:
    async def unknowing(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].removeprefix("/api")
        await app({**scope, "path": path, "raw_path": path.encode()}, receive, send)

    await story(unknowing, "/api")


@pytest.mark.parametrize("end", ["/", ""])
async def test_a_slash_at_the_end_makes_no_difference_to_a_form(app: ASGIApp, end: str) -> None:
    here, other = Browser(app), Browser(app)
    await here.post("login")
    await other.post("login")
    for path in ("sessions/end-others", "sessions/{}/end"):
        listed = await here.get("sessions/", headers={"accept": "application/json"})
        sid = listed.json()["sessions"][-1]["sid"]
        done = await here.post(f"{path.format(sid)}{end}")
        assert done.url.join(done.headers["location"]).path == "/sessions/"


async def test_a_server_that_sends_no_raw_path_will_do(sessions: Sessions) -> None:
    app = starlette_app(sessions)

    async def without(scope: Scope, receive: Receive, send: Send) -> None:
        del scope["raw_path"]
        await app(scope, receive, send)

    await story(without)


async def test_they_need_no_mount(sessions: Sessions) -> None:
    app = SessionMiddleware(sessions.routes(), sessions=sessions)
    answer = await Browser(app).get("/", headers={"accept": "*/*"})
    assert answer.json() == {"detail": "not logged in", "reason": None}
