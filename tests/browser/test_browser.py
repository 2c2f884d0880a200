"""The page of one's sessions in a real Chromium and Firefox, on the example as users start it.

TEST_BROWSER=1 makes a machine without them a failure; else the tests are skipped there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Page,
    expect,
)

from example_app import PASSWORDS
from tests.browser import chromium, firefox
from tests.project.test_end_to_end import EXAMPLE, PATIENCE, Server

WINDOWS = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko)"
DESK = f"{WINDOWS} Chrome/142.0.0.0 Safari/537.36"
PHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15"
    " (KHTML, like Gecko) Version/18.1 Mobile/15E148 Safari/604.1"
)

#: What axe asks for: WCAG 2.2, A and AA, and what it takes for good practice besides.
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
LEAST_HEIGHT = "elements => Math.min(...elements.map(one => one.getBoundingClientRect().height))"

SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")

NewContext = Callable[..., BrowserContext]


@pytest.fixture
def browser(request: pytest.FixtureRequest) -> Browser:
    """Chromium, unless a test asks for another."""
    made: Browser = request.getfixturevalue(getattr(request, "param", "chromium"))
    return made


@pytest.fixture
def app() -> Path:
    """What is served: the example."""
    return EXAMPLE


@pytest.fixture
def server(tmp_path: Path, app: Path) -> Iterator[Server]:
    """For one test: what it leaves behind is in no other's way."""
    server = Server(tmp_path, app)
    try:
        server.start()
        yield server
    finally:
        server.kill()
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def new_context(browser: Browser, server: Server) -> Iterator[NewContext]:
    """Makes people's browsers: without script, which no page needs, and without complaints."""
    made: list[BrowserContext] = []
    complaints: list[str] = []

    def note(message: ConsoleMessage) -> None:
        icon = message.location["url"].endswith("/favicon.ico")  # there is none
        if not icon and not re.search(r"\((Unauthorized|Forbidden)\)$", message.text):
            complaints.append(message.text)

    def new(agent: str = DESK, **options: object) -> BrowserContext:
        given: dict[str, object] = {"java_script_enabled": False, **options}
        context = browser.new_context(base_url=server.url, user_agent=agent, **given)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE * 1000)
        context.on("console", note)
        made.append(context)
        return context

    yield new
    for context in made:
        context.close()
    # Neither does the policy forbid anything that the page holds, nor is anything missing.
    assert complaints == []


def log_in(context: BrowserContext, name: str) -> Page:
    """Log in with the form, and go to the page of sessions."""
    page = context.new_page()
    page.goto("/sessions/")
    expect(page).to_have_url(re.compile("/login$"))
    page.get_by_label("Name").fill(name)
    page.get_by_label("Password").fill(PASSWORDS[name])
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("link", name="Where you are logged in").click()
    page.wait_for_url("**/sessions/")  # loaded: a key that comes before goes to no button
    return page


def accessible(page: Page) -> None:
    """Whether axe finds nothing that would shut somebody out."""
    found = Axe().run(page, options={"runOnly": RULES})
    assert found.violations_count == 0, found.generate_report()
    assert found.response["passes"]


def test_a_browser_that_is_missing_is_no_reason_to_skip_where_one_is_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    for package, path in (
        ("chromium", chromium.browser_path),
        ("firefox-esr", firefox.browser_path),
    ):
        monkeypatch.delenv("TEST_BROWSER", raising=False)
        with pytest.raises(pytest.skip.Exception, match=f"install {package}"):
            path()
        monkeypatch.setenv("TEST_BROWSER", "1")
        with pytest.raises(pytest.fail.Exception, match=f"install {package}"):
            path()


@pytest.mark.parametrize("browser", ["chromium", "firefox"], indirect=True)
def test_a_session_that_is_ended_here_is_over_there_at_the_next_click(
    new_context: NewContext,
) -> None:
    desk, phone = log_in(new_context(), "ann"), log_in(new_context(PHONE), "ann")
    expect(phone.get_by_role("listitem")).to_have_count(2)
    desk.reload()
    sessions = desk.get_by_role("listitem")
    expect(sessions).to_have_count(2)
    expect(sessions.nth(0)).to_contain_text("Chrome on Windows")
    expect(sessions.nth(0)).to_contain_text("this device")
    expect(sessions.nth(1)).to_contain_text("Safari on iPhone")
    expect(sessions.nth(1)).to_contain_text("Last seen just now")
    hover = sessions.nth(1).locator("time").nth(0).get_attribute("title")
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", hover or "")

    sessions.nth(1).get_by_role("button", name="End: Safari on iPhone").click()
    expect(desk.get_by_role("status")).to_have_text("1 session was ended.")
    expect(sessions).to_have_count(1)
    desk.get_by_role("link", name="Show recently ended sessions").click()
    over = desk.get_by_role("list", name="Ended sessions").get_by_role("listitem")
    expect(over).to_contain_text("ended from another device just now")

    phone.get_by_role("link", name="Back").click()  # the next click
    expect(phone.get_by_role("alert")).to_contain_text("ended from another device")
    expect(phone.get_by_role("button", name="Log in")).to_be_visible()


def test_the_others_are_ended_and_this_one_logs_out(new_context: NewContext) -> None:
    here, *others = [log_in(new_context(), "ben") for _ in range(3)]
    here.get_by_role("link", name="Show recently ended sessions").click()
    here.get_by_role("button", name="End all other sessions").click()
    expect(here.get_by_role("status")).to_have_text("2 sessions were ended.")
    for other in others:
        other.reload()
        expect(other).to_have_url(re.compile("/login$"))
    here.get_by_role("button", name="Log out").click()
    expect(here.get_by_role("heading")).to_have_text("Logged out")
    here.go_back()
    expect(here.get_by_role("heading")).to_have_text("Not logged in")  # not stored, not shown


def test_the_keyboard_does_it_too(new_context: NewContext) -> None:
    phone = log_in(new_context(PHONE), "cleo")
    desk = log_in(new_context(), "cleo")
    for name in ("Log out: Chrome on Windows, 127.0.0.1", "End: Safari on iPhone, 127.0.0.1"):
        desk.keyboard.press("Tab")
        expect(desk.get_by_role("button", name=name)).to_be_focused()
    desk.keyboard.press("Enter")
    expect(desk.get_by_role("status")).to_have_text("1 session was ended.")
    phone.reload()
    expect(phone).to_have_url(re.compile("/login$"))
    desk.get_by_role("button", name="Log out").press("Enter")
    desk.get_by_role("link", name="Log in").press("Enter")
    expect(desk).to_have_url(re.compile("/login$"))


def test_it_can_be_read_in_light_and_dark_and_on_a_phone(new_context: NewContext) -> None:
    log_in(new_context("w" * 60), "cleo")
    log_in(new_context(PHONE), "cleo")
    page = log_in(new_context(java_script_enabled=True), "cleo")
    page.get_by_role("button", name="End: Safari").click()
    expect(page.get_by_role("status")).to_be_visible()
    page.goto(f"{page.url}&ended=1")
    grounds = set()
    for scheme in SCHEMES:
        page.emulate_media(color_scheme=scheme)
        for width in (320, 900):
            page.set_viewport_size({"width": width, "height": 700})
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.locator("button").evaluate_all(LEAST_HEIGHT) >= 44  # pixels: a finger
        accessible(page)
        ground = page.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
        grounds.add(ground)
    assert len(grounds) == 2


@pytest.mark.parametrize("browser", ["chromium", "firefox"], indirect=True)
@pytest.mark.parametrize("app", [Path(__file__).with_name("provider_app.py")], ids=["provider"])
def test_people_get_to_a_login_at_another_site_by_a_link(new_context: NewContext) -> None:
    """A policy that keeps forms at home would not let a browser follow the redirects."""
    context = new_context(locale="de-DE", java_script_enabled=True)
    page = context.new_page()
    for button in ("Alle anderen Sitzungen beenden", "Abmelden"):
        new_context().new_page().goto("/in")
        page.goto("/in")
        expect(page.get_by_role("heading")).to_have_text("Wo Sie angemeldet sind")
        accessible(page)
        page.get_by_role("button", name=button).click()
        accessible(page)
        page.get_by_role("link", name="Anmelden").click()
        expect(page.get_by_role("heading")).to_have_text("The provider")
    page.goto("/sessions/")  # which nothing keeps from leading there by itself
    expect(page.get_by_role("heading")).to_have_text("The provider")
