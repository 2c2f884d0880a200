"""Single sign-on in a real Chromium: the example as users start it, and a provider beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.project.test_end_to_end import PATIENCE, Server
from tests.support.libraries import need
from tests.support.providers import Provider
from tests.support.repository import ROOT

need("authlib")
from tests.libraries.provider import CLIENT_ID, CLIENT_SECRET, SECOND_FACTOR  # noqa: E402 -- it is made with Authlib


class Place:
    """The example, served, and the provider that it knows."""

    def __init__(self, chromium: Browser, server: Server, provider: Provider) -> None:
        self.chromium = chromium
        self.server = server
        self.provider = provider
        self.contexts: list[BrowserContext] = []

    def device(self) -> Page:
        """A page in a browser of its own, which has no cookies yet."""
        context = self.chromium.new_context(base_url=self.server.url)
        context.set_default_timeout(PATIENCE * 1000)
        self.contexts.append(context)
        page = context.new_page()
        page.goto("/")
        return page


@pytest.fixture
def place(chromium: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    server = Server(tmp_path, ROOT / "examples" / "sso_app.py")
    provider = Provider(server.url)
    place = Place(chromium, server, provider)
    given = {"CLIENT_ID": CLIENT_ID, "CLIENT_SECRET": CLIENT_SECRET, "NO_PROXY": "127.0.0.1"}
    for name, value in {**given, "ISSUER": provider.issuer}.items():
        monkeypatch.setenv(name, value)
    try:
        server.start()
        yield place
        for context in place.contexts:
            context.close()
        server.stop()
    finally:
        server.kill()
        provider.stop()
    assert "Traceback" not in server.log.read_text()


def agree(page: Page, code: str = "") -> None:
    """Log in at the provider, and come back."""
    page.get_by_label("Name").fill("ada")
    page.get_by_label("Code").fill(code)
    page.get_by_role("button", name="Log in").click()


def log_in(page: Page) -> None:
    page.get_by_role("link", name="Log in").click()
    agree(page)
    expect(page.locator("p")).to_have_text("Hello, ada. The WebSocket is open.")


def test_a_logout_at_the_provider_is_one_on_both_devices(place: Place) -> None:
    desk, phone = place.device(), place.device()
    log_in(desk)
    log_in(phone)

    # What is worth more asks for more.
    desk.get_by_role("button", name="Pay out").click()
    expect(desk).to_have_title("Provider: log in")
    agree(desk, SECOND_FACTOR)
    desk.get_by_role("button", name="Pay out").click()
    expect(desk.locator("body")).to_have_text("Paid out.")
    desk.goto("/")

    elsewhere = desk.context.new_page()
    elsewhere.goto(f"{place.provider.issuer}/logout")
    elsewhere.get_by_role("button", name="Log out everywhere").click()
    for page in (desk, phone):
        expect(page.locator("output")).to_have_text("closed: session ended")
        page.reload()
        expect(page.get_by_role("link", name="Log in")).to_be_visible()
    assert place.server.rows("end_reason") == [("revoked",)] * 2

    # From the app, it is the other way round: out here, then there.
    log_in(phone)
    phone.get_by_role("button", name="Log out").click()
    expect(phone).to_have_title("Provider: log out")
    phone.goto("/")
    phone.get_by_role("link", name="Log in").click()
    expect(phone).to_have_title("Provider: log in")
