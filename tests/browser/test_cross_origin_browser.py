"""A front end on another origin, and hostile pages beside it, in real browsers: what the app of
docs/cross_origin.md lets each of them do.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page
from starlette.responses import HTMLResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.support import KEY
from tests.support.certificates import make_certificate
from tests.support.pages import Block, Reader, blocks, the_block
from tests.support.repository import DOCS

PAGE = DOCS / "cross_origin.md"
PATIENCE = 30
#: The names of loopback. The API, the front end and its sister are one site, the others are not.
API, FRONT, SISTER = "api.shop.localhost", "app.shop.localhost", "evil.shop.localhost"
OTHER_FRONT, STRANGER = "front.localhost", "evil.localhost"
#: The settings of the cookie: those of the page, and one that keeps the cookie from nobody.
LAX = ""
PARTITIONED = 'cookie_samesite="none", cookie_partitioned=True'
NONE = 'cookie_samesite="none"'
STRICT = 'cookie_samesite="strict"'

ASK = """async ([url, options]) => {
    try { return await (await fetch(url, {credentials: "include", ...options})).json(); }
    catch (error) { return error.name; }
}"""
LISTEN = """url => new Promise(done => {
    const socket = new WebSocket(url);
    socket.onmessage = event => done(event.data);
    socket.onclose = () => done("closed");
})"""
SUBMIT = """([url, name]) => {
    document.body.innerHTML = `<form method="post" action="${url}"><input name="name"></form>`;
    document.querySelector("input").value = name;
    document.forms[0].submit();
}"""
POST = {
    "method": "POST",
    "headers": {"content-type": "application/x-www-form-urlencoded"},
    "body": "name=ann",
}
#: With this type a browser asks the server before it posts.
POST_JSON = {"method": "POST", "headers": {"content-type": "application/json"}, "body": "{}"}


class Answer(NamedTuple):
    """What a request got, and whether it had a cookie."""

    method: str
    path: str
    status: int
    cookie: bool


class Api:
    """The app of the page with its people on a front end, and what it has answered."""

    def __init__(self, directory: Path, options: str, front: str) -> None:
        first, second = (
            block.source for block in blocks(PAGE, "python") if "add_middleware" in block.source
        )
        third = the_block(DOCS / "recipes.md", "python", "def callback")
        third = f"from starlette.responses import HTMLResponse\n{third}"
        for old, new in (
            ("sqlite:///app.db", f"sqlite:///{directory}/{len(options)}.db"),
            ("https://front.example", front),
            (f"# On another site than the API's, see below: {PARTITIONED},", options),
        ):
            assert old in second
            second = second.replace(old, new)
        reader = Reader(PAGE)
        asyncio.run(reader.run(*(Block("python", 1, source) for source in (first, second, third))))
        reader["app"].router.routes.append(Route("/callback", reader["callback"]))
        self._app: ASGIApp = reader["app"]
        asyncio.run(_create_tables(reader["sessions"]))
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.host = f"{API}:{self.socket.getsockname()[1]}"
        self.url = f"https://{self.host}"
        self.answers: list[Answer] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                cookie = any(name == b"cookie" for name, _ in scope["headers"])
                answer = Answer(scope["method"], scope["path"], message["status"], cookie)
                self.answers.append(answer)
            await send(message)

        await self._app(scope, receive, noting)


async def _create_tables(sessions: Any) -> None:
    await sessions.create_tables()
    await sessions.disconnect()


class Site(NamedTuple):
    """All servers: an empty page under each name, and the APIs by their settings."""

    port: int
    apis: dict[str, Api]

    def page(self, host: str) -> str:
        return f"https://{host}:{self.port}"


@contextmanager
def serving(certificate: Path, apps: dict[socket.socket, Any]) -> Iterator[None]:
    """Each app on its socket."""
    servers = {
        place: uvicorn.Server(
            uvicorn.Config(app, ssl_certfile=certificate, log_level="warning", lifespan="on")
        )
        for place, app in apps.items()
    }

    async def serve() -> None:
        await asyncio.gather(*(one.serve(sockets=[place]) for place, one in servers.items()))

    thread = threading.Thread(target=partial(asyncio.run, serve()))
    thread.start()
    until(lambda: all(one.started for one in servers.values()))
    try:
        yield
    finally:
        for one in servers.values():
            one.should_exit = True
        thread.join(PATIENCE)


def until(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    directory = tmp_path_factory.mktemp("site")
    pages = socket.create_server(("127.0.0.1", 0))
    port: int = pages.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SECRET_KEY", KEY)
        apis = {
            options: Api(directory, options, f"https://{front}:{port}")
            for options, front in (
                (LAX, FRONT),
                (PARTITIONED, OTHER_FRONT),
                (NONE, FRONT),
                (STRICT, FRONT),
            )
        }

    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return
        await HTMLResponse('<link rel="icon" href="data:,">')(scope, receive, send)

    apps = {pages: page, **{api.socket: api for api in apis.values()}}
    with serving(make_certificate(directory).file, apps):
        yield Site(port, apis)


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def browser(request: pytest.FixtureRequest) -> Browser:
    browser: Browser = request.getfixturevalue(request.param)
    return browser


@pytest.fixture
def person(browser: Browser) -> Iterator[BrowserContext]:
    """Somebody's cookies."""
    with browser.new_context(ignore_https_errors=True) as context:
        context.set_default_timeout(PATIENCE * 1000)
        yield context


def page_of(person: BrowserContext, url: str) -> Page:
    page = person.new_page()
    page.goto(url)
    return page


@pytest.mark.parametrize(
    ("front", "options"),
    [(FRONT, LAX), (OTHER_FRONT, PARTITIONED)],
    ids=["sibling", "another-site"],
)
def test_a_front_end_on_another_origin_logs_in_calls_and_logs_out(
    site: Site, person: BrowserContext, front: str, options: str
) -> None:
    api = site.apis[options]
    page = page_of(person, site.page(front))

    def ask(path: str, **request: Any) -> Any:
        return page.evaluate(ASK, [api.url + path, request])

    sid = ask("/login", **POST)["sid"]
    assert ask("/me") == {"sid": sid}
    assert ask("/transfer", **POST_JSON) == "SyntaxError"  # it answers with text
    assert api.answers[-1] == ("POST", "/transfer", 200, True)
    assert page.evaluate(LISTEN, f"wss://{api.host}/news") == sid
    assert ask("/logout", method="POST") == {"message": "session ended"}
    assert ask("/me") == {"sid": None}
    assert person.cookies(api.url) == []


@pytest.mark.parametrize(
    ("hostile", "options"), [(SISTER, LAX), (STRANGER, NONE)], ids=["sibling", "another-site"]
)
def test_a_hostile_page_does_none_of_it(
    site: Site, person: BrowserContext, hostile: str, options: str
) -> None:
    api = site.apis[options]
    # On the API's own host: what is set within another page stays there.
    own = page_of(person, f"{api.url}/nothing")
    sid = own.evaluate(ASK, ["/login", POST])["sid"]
    page = page_of(person, site.page(hostile))
    api.answers.clear()

    assert page.evaluate(ASK, [f"{api.url}/me", {}]) == "TypeError"  # it cannot read the answer
    assert page.evaluate(ASK, [f"{api.url}/transfer", POST_JSON]) == "TypeError"
    page.evaluate(ASK, [f"{api.url}/transfer", {**POST, "mode": "no-cors"}])
    token = {"headers": {"authorization": "Bearer asgis_made-up"}}  # it would pass
    assert page.evaluate(ASK, [f"{api.url}/transfer", {**POST, **token}]) == "TypeError"
    assert page.evaluate(LISTEN, f"wss://{api.host}/news") == "closed"
    for path in ("/login", "/logout"):
        page.goto(site.page(hostile))
        page.evaluate(SUBMIT, [api.url + path, "mallory"])
        page.wait_for_url(api.url + path)

    posts = [answer for answer in api.answers if answer.method == "POST"]
    assert [one[1:3] for one in posts] == [("/transfer", 403), ("/login", 403), ("/logout", 403)]
    assert all(one.cookie for one in posts[1:])  # not for want of a cookie: forms bring it along
    assert own.evaluate(ASK, ["/me", {}]) == {"sid": sid}


def test_a_page_of_our_own_brings_a_strict_cookie_along(site: Site, person: BrowserContext) -> None:
    """The way of docs/recipes.md back from a provider, or from any link."""
    api = site.apis[STRICT]
    page_of(person, f"{api.url}/nothing").evaluate(ASK, ["/login", POST])
    page = page_of(person, site.page(STRANGER))
    api.answers.clear()
    page.evaluate("url => { location.href = url; }", f"{api.url}/callback?code=1&state=2")

    def cookies() -> list[bool]:
        return [answer.cookie for answer in api.answers if answer.path == "/callback"]

    until(lambda: len(cookies()) > 1)
    assert cookies() == [False, True]
