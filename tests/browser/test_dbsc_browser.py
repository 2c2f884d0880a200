"""Device-bound sessions in a real browser: what Chromium does by itself, and what it keeps away."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, Page, Playwright, sync_playwright

from asgi_sessions import Sessions
from tests.browser.chromium import browser_path, open_profile
from tests.support import KEY
from tests.support.certificates import Certificate, make_certificate
from tests.support.repository import ROOT

#: Seconds until a test gives up; what is waited for takes less than a cookie's life.
PATIENCE = 30
#: Seconds that a bound cookie is good for; the browser drops it a quarter earlier.
LIFE = 4
BOUND = "__Host-sid-bound"


class Server:
    """One or more processes of the app, on one socket, with one database."""

    def __init__(
        self,
        directory: Path,
        certificate: Certificate,
        processes: int,
        environment: Mapping[str, str],
        life: int = LIFE,
    ) -> None:
        self._life = life
        self._environment = {**os.environ, **environment}
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = int(self._socket.getsockname()[1])
        self.url = f"https://localhost:{self.port}"
        #: The same server, for browsers another site.
        self.elsewhere = f"https://127.0.0.1:{self.port}"
        self._log = directory / "requests.log"
        self._log.touch()
        self.database = f"sqlite:///{directory}/sessions.db"
        self._certificate = certificate
        self._count = processes
        self._processes: list[subprocess.Popen[bytes]] = []
        with closing(sqlite3.connect(directory / "sessions.db")) as connection:
            connection.executescript(Sessions(self.database, secret_key=KEY).ddl("sqlite"))

    def start(self) -> None:
        fd = self._socket.fileno()
        words = [str(fd), self._certificate.file, self.database, self._log, str(self._life)]
        for _ in range(self._count):
            command = [sys.executable, "-m", "tests.browser.dbsc_app", *map(str, words)]
            self._processes.append(
                subprocess.Popen(command, cwd=ROOT, env=self._environment, pass_fds=[fd])
            )

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(PATIENCE)
        self._processes.clear()

    def close(self) -> None:
        self.stop()
        self._socket.close()

    def requests(self, path: str) -> list[dict[str, Any]]:
        """What was asked for so far that ends so."""
        lines = map(json.loads, self._log.read_text().splitlines())
        return [line for line in lines if line["path"].endswith(path)]


def until(holds: Callable[[], object]) -> None:
    """Wait for what the browser or its clock does by itself."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, "it never came about"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def playwright() -> Iterator[Playwright]:
    browser_path()
    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


MakeServer = Callable[..., Server]
OpenBrowser = Callable[..., "Person"]


@pytest.fixture
def make_server(tmp_path: Path, certificate: Certificate) -> Iterator[MakeServer]:
    with ExitStack() as stack:

        def make(*, processes: int = 1, life: int = LIFE, **environment: str) -> Server:
            server = Server(tmp_path, certificate, processes, environment, life)
            stack.callback(server.close)
            server.start()
            return server

        yield make


class Person:
    """Somebody with a browser of their own, at one server."""

    def __init__(self, context: BrowserContext, server: Server) -> None:
        context.set_default_timeout(PATIENCE * 1000)
        self.context = context
        self.server = server
        self.page: Page = context.pages[0]

    def cookies(self, **changed: Any) -> list[Any]:
        """A copy of all cookies, for another browser."""
        return [{**cookie, **changed} for cookie in self.context.cookies()]

    def bound_cookie(self) -> str | None:
        cookies = self.context.cookies(self.server.url)
        return next((one["value"] for one in cookies if one["name"] == BOUND), None)

    def goes_to(self, path: str) -> str:
        """What the page says who is there."""
        self.page.goto(self.server.url + path)
        return self.page.inner_text("#who")

    def logs_in(self) -> str:
        """By a page; until the browser has bound the session. The sid."""
        sid = self.goes_to("/login")
        until(self.bound_cookie)
        return sid

    def fetches(self, path: str = "/me", method: str = "GET") -> dict[str, Any]:
        script = "([path, method]) => fetch(path, {method}).then(r => r.json())"
        answer: dict[str, Any] = self.page.evaluate(script, [path, method])
        return answer

    def hears_from(self, path: str) -> str:
        """What a WebSocket says first."""
        script = """url => new Promise((done, failed) => {
            const socket = new WebSocket(url);
            socket.onmessage = event => done(event.data);
            socket.onerror = failed;
        })"""
        url = self.server.url.replace("https", "wss") + path
        word: str = self.page.evaluate(script, url)
        return word

    def forgets_the_bound_cookie(self) -> None:
        """Which to the browser is the same as its expiry, and takes no time."""
        # It has the cookie a moment before it knows that it has to refresh it.
        self.fetches()
        self.context.clear_cookies(name=BOUND)

    def waits_for_expiry(self) -> None:
        until(lambda: self.bound_cookie() is None)


@pytest.fixture
def open_browser(
    playwright: Playwright, certificate: Certificate, tmp_path: Path
) -> Iterator[OpenBrowser]:
    with ExitStack() as stack:

        def open_(server: Server, name: str = "victim", **options: Any) -> Person:
            context = open_profile(playwright, tmp_path / name, certificate, **options)
            stack.callback(context.close)
            return Person(context, server)

        yield open_


# --- binding --------------------------------------------------------------------------------------


def by_page(person: Person) -> None:
    person.goes_to("/login")


def by_redirect(person: Person) -> None:
    person.goes_to("/")
    person.page.click("button")


def by_fetch(person: Person) -> None:
    person.goes_to("/")
    person.page.evaluate("fetch('/login', {method: 'POST'}).then(r => r.text())")


@pytest.mark.parametrize("log_in", [by_page, by_redirect, by_fetch])
def test_a_login_binds_the_session(
    make_server: MakeServer, open_browser: OpenBrowser, log_in: Callable[[Person], None]
) -> None:
    ann = open_browser(make_server())
    log_in(ann)
    until(ann.bound_cookie)
    seen = ann.fetches()
    assert seen["bound"]
    (registered,) = ann.server.requests("/register")
    assert (registered["status"], registered["proof"]) == (200, True)


def test_a_page_that_loads_while_the_browser_registers_keeps_its_session(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server(SLOW_REGISTER="1")  # seconds that its answer is under way
    ann = open_browser(server)
    sid = ann.goes_to("/login")
    until(lambda: server.requests("/register"))  # the device is known, the browser has no cookie
    assert ann.fetches() == {"who": sid, "bound": False}
    assert ann.bound_cookie() is None
    until(ann.bound_cookie)
    assert ann.fetches() == {"who": sid, "bound": True}


def test_requests_that_waited_for_a_connection_meanwhile_keep_their_session(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server(life=600, SLOW_REGISTER="0.5")
    ann = open_browser(server)
    sid = ann.goes_to("/login")
    until(lambda: server.requests("/register"))
    # A browser has six connections to a server, and chooses a request's cookies before it has one.
    script = """() => { window.seen = Promise.all([...Array(12).keys()].map(
        () => fetch('/slow', {priority: 'low'}).then(r => r.json()))); return null; }"""
    ann.page.evaluate(script)
    until(ann.bound_cookie)
    script = "fetch('/me', {priority: 'high'}).then(r => r.json())"
    assert ann.page.evaluate(script) == {"who": sid, "bound": True}
    seen = ann.page.evaluate("window.seen")
    assert [one["who"] for one in seen] == [sid] * 12
    paths = [line["path"] for line in server.requests("")]
    assert "/slow" in paths[paths.index("/me") :]


def test_a_registration_whose_answer_is_lost_locks_nobody_out(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server(LOSE_REGISTER="1")
    ann = open_browser(server)
    sid = ann.goes_to("/login")
    until(lambda: server.requests("/register"))
    time.sleep(LIFE)  # after which a bound cookie would have run out
    assert ann.bound_cookie() is None
    assert ann.goes_to("/") == sid
    assert ann.fetches() == {"who": sid, "bound": False}


def test_a_browser_that_binds_nothing_is_not_disturbed(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server()
    ann = open_browser(server, dbsc=False)
    sid = ann.goes_to("/login")
    assert ann.fetches() == {"who": sid, "bound": False}
    assert ann.goes_to("/") == sid
    assert server.requests("/register") == server.requests("/refresh") == []


# --- refreshes ------------------------------------------------------------------------------------


def test_pages_keep_working_over_several_refreshes(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server()
    ann = open_browser(server)
    sid = ann.logs_in()
    for _ in range(2):
        ann.waits_for_expiry()
        assert ann.goes_to("/") == sid
        assert ann.fetches()["who"] == sid
    # With the challenge that came along, each took one round trip.
    assert {line["status"] for line in server.requests("/refresh")} == {200}


def test_three_fetches_after_the_expiry_wait_for_one_refresh(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server()
    ann = open_browser(server)
    sid = ann.logs_in()
    ann.waits_for_expiry()
    before = len(server.requests(""))
    script = "Promise.all([1, 2, 3].map(() => fetch('/me').then(r => r.json())))"
    seen = ann.page.evaluate(script)
    assert [one["who"] for one in seen] == [sid] * 3
    paths = [line["path"] for line in server.requests("")[before:]]
    assert paths[: paths.index("/me")] == ["/.session/dbsc/refresh"]


def test_a_link_from_another_site_brings_the_session_along(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    ann = open_browser(make_server())
    sid = ann.logs_in()
    ann.forgets_the_bound_cookie()
    ann.page.goto(f"{ann.server.elsewhere}/link?to={ann.server.url}/")
    ann.page.click("a")
    assert ann.page.inner_text("#who") == sid


def test_a_websocket_binds_and_waits_for_the_refresh(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    ann = open_browser(make_server())
    ann.goes_to("/")
    sid = ann.hears_from("/socket?login=1")
    until(ann.bound_cookie)
    ann.forgets_the_bound_cookie()
    assert ann.hears_from("/socket") == sid
    assert ann.fetches() == {"who": sid, "bound": True}


def test_a_restart_of_the_server_goes_unnoticed(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    ann = open_browser(make_server())
    sid = ann.logs_in()
    ann.server.stop()
    ann.server.start()
    assert ann.fetches()["who"] == sid
    ann.forgets_the_bound_cookie()
    assert ann.goes_to("/") == sid


def test_two_processes_of_the_server_take_turns(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server(processes=2)
    ann = open_browser(server)
    sid = ann.logs_in()

    def both(path: str) -> bool:
        ann.forgets_the_bound_cookie()
        assert ann.fetches()["who"] == sid
        return len({line["process"] for line in server.requests(path)}) == 2

    until(lambda: both("/refresh"))
    until(lambda: both("/me"))
    assert {line["status"] for line in server.requests("/refresh")} == {200}


# --- the end --------------------------------------------------------------------------------------


def test_a_logout_ends_the_binding(make_server: MakeServer, open_browser: OpenBrowser) -> None:
    # Of a cookie that runs out soon, the browser refreshes beside each request: an answer that is
    # under way at the logout would bring the cookie back, though it opens nothing any more.
    server = make_server(life=600)
    ann = open_browser(server)
    ann.logs_in()
    ann.forgets_the_bound_cookie()
    ann.fetches()
    stolen = ann.cookies()
    assert any(one["name"] == BOUND for one in stolen)
    ann.fetches("/logout", "POST")
    assert ann.bound_cookie() is None
    assert ann.goes_to("/") == "nobody (None)"
    assert server.requests("/refresh")[-1]["status"] == 401
    # The browser has given up the binding: it does not even ask.
    asked = len(server.requests("/refresh"))
    ann.context.add_cookies(stolen)
    ann.forgets_the_bound_cookie()
    assert ann.goes_to("/") == "nobody (logout)"
    assert len(server.requests("/refresh")) == asked


def test_a_revocation_from_another_device_holds_at_the_next_request(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server()
    ann, phone = open_browser(server), open_browser(server, "phone")
    ann.logs_in()
    sid = phone.logs_in()
    assert phone.fetches("/others", "POST") == {"ended": 1}
    assert ann.goes_to("/") == "nobody (revoked)"
    ann.forgets_the_bound_cookie()
    assert ann.goes_to("/") == "nobody (revoked)"
    assert phone.goes_to("/") == sid


def test_a_new_login_is_bound_anew(make_server: MakeServer, open_browser: OpenBrowser) -> None:
    server = make_server()
    ann = open_browser(server)
    old = ann.logs_in()
    new = ann.goes_to("/login")
    assert new != old
    until(lambda: (ann.bound_cookie() or "").startswith(new))
    for _ in range(2):
        ann.forgets_the_bound_cookie()
        assert ann.goes_to("/") == new


# --- theft ----------------------------------------------------------------------------------------


def test_copied_cookies_are_worth_nothing_once_the_bound_one_has_expired(
    make_server: MakeServer, open_browser: OpenBrowser
) -> None:
    server = make_server()
    ann, thief = open_browser(server), open_browser(server, "thief")
    sid = ann.logs_in()
    thief.context.add_cookies(ann.cookies(expires=-1))  # a copy that the browser keeps
    assert thief.goes_to("/") == sid  # the pair, as long as it is good
    until(lambda: thief.fetches()["who"] == "nobody (not_bound)")
    assert thief.goes_to("/") == "nobody (not_bound)"
    thief.forgets_the_bound_cookie()
    assert thief.goes_to("/") == "nobody (not_bound)"
    assert thief.fetches() == {"who": "nobody (not_bound)", "bound": None}
    assert ann.goes_to("/") == sid
