"""The routes of the logged-in person: what they list and end, for whom, and what they refuse."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.testclient import TestClient, WebSocketDenialResponse

from asgi_sessions import ConfigurationError, DevicesPage, SessionMiddleware, Sessions
from asgi_sessions.dbsc import DBSC
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Clock, make_app, set_cookies, vouched
from tests.support.devices import DeviceBrowser
from tests.support.engines import sync_engine
from tests.support.rows import fill

pytestmark = pytest.mark.anyio

HTML = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
UNKNOWN = "01890000-0000-7000-8000-000000000000"
MINUTE = timedelta(minutes=1)


def app_with(sessions: Sessions, **options: Any) -> Starlette:
    """The usual app, with the routes at /sessions."""
    return make_app(sessions, Mount("/sessions", sessions.routes(**options)))


async def listed(browser: Browser, query: str = "") -> dict[str, Any]:
    response = await browser.get(f"/sessions/{query}")
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


async def sids(browser: Browser) -> list[str]:
    return [one["sid"] for one in (await listed(browser))["sessions"]]


# --- the list -------------------------------------------------------------------------------------


async def test_a_session_is_listed_with_what_people_know_it_by(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(app_with(sessions), agent="Thing/1", address="2001:db8::7")
    sid = await browser.login("ann")
    response = await browser.get("/sessions/")
    now = clock.now.isoformat()
    assert response.json() == {
        "sessions": [
            {
                "sid": sid,
                "current": True,
                "device": "Thing/1",
                "ip_address": "2001:db8::7",
                "auth_provider": None,
                "bearer": False,
                "bound": False,
                "actor_id": None,
                "actor_reason": None,
                "started_at": now,
                "last_seen_at": now,
                "expires_at": (clock.now + timedelta(days=30)).isoformat(),
                "ended_at": None,
                "end_reason": None,
            }
        ]
    }
    assert response.headers["cache-control"] == "no-store"
    assert {"Accept", "Cookie"} == set(response.headers["vary"].split(", "))


async def test_this_device_is_first_and_the_others_by_when_they_were_seen(
    sessions: Sessions, clock: Clock
) -> None:
    app = app_with(sessions)
    first, second, third = [Browser(app) for _ in range(3)]
    expected = []
    for browser in (first, second, third):
        expected.append(await browser.login("ann"))
        clock.turn(MINUTE)
    one, two, three = expected
    assert await sids(first) == [one, three, two]
    await second.see()
    clock.turn(MINUTE)
    assert await sids(first) == [one, two, three]
    assert [one["current"] for one in (await listed(first))["sessions"]] == [True, False, False]


async def test_this_device_is_listed_however_many_came_after_it(
    sessions: Sessions, database_url: str, clock: Clock
) -> None:
    here = Browser(app_with(sessions))
    sid = await here.login("ann")
    clock.turn(timedelta(hours=1))
    engine = sync_engine(database_url)
    with engine.connect() as connection:
        later = fill(connection, sessions.table, clock, count=1001, prefix="01a0")
    assert await sids(here) == [sid, *later[:1000]]


async def test_ended_ones_are_listed_on_request_the_last_one_first_with_their_reasons(
    sessions: Sessions, clock: Clock
) -> None:
    app = app_with(sessions)
    left, lost, old, here = [Browser(app) for _ in range(4)]
    over = await old.login("ann")
    clock.turn(timedelta(days=14))
    gone, taken = await left.login("ann"), await lost.login("ann")
    sid = await here.login("ann")
    await sessions.end_session_by_id(taken)
    clock.turn(MINUTE)
    await left.post("/logout")
    answer = await listed(here, "?ended=1")
    assert [one["sid"] for one in answer["sessions"]] == [sid]
    ended = [(one["sid"], one["end_reason"], one["current"]) for one in answer["ended"]]
    assert ended == [(gone, "logout", False), (taken, "revoked", False), (over, "expired", False)]
    assert answer["ended"][0]["ended_at"] == clock.now.isoformat()
    for query in ("", "?ended=0", "?ended"):
        assert list(await listed(here, query)) == ["sessions"]


async def test_only_ones_own_sessions_in_this_app_are_listed(make_sessions: MakeSessions) -> None:
    shop, blog = await make_sessions(app_id="shop"), await make_sessions(app_id="blog")
    app = app_with(shop)
    ann, ben, elsewhere = Browser(app), Browser(app), Browser(app_with(blog))
    sid = await ann.login("ann")
    await ben.login("ben")
    await elsewhere.login("ann")
    await elsewhere.post("/logout")
    answer = await listed(ann, "?ended=1")
    assert [one["sid"] for one in answer["sessions"]] == [sid]
    assert answer["ended"] == []


# --- JSON or a page -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "application/json"),
        ("", "application/json"),
        ("*/*", "application/json"),
        ("application/json", "application/json"),
        ("text/html, application/json", "application/json"),
        ("text/html;q=0.5, */*", "application/json"),
        ("text/html;q=0, text/*", "application/json"),
        ("image/png", "application/json"),
        (";;q=x,,=", "application/json"),
        (HTML["accept"], "text/html"),
        ("text/html", "text/html"),
        ("TEXT/HTML;level=1;Q=0.9, */*;q=0.1", "text/html"),
        ("text/*", "text/html"),
        ("application/json;q=0.9, */*", "text/html"),
    ],
)
async def test_who_would_rather_have_a_page_gets_one(
    sessions: Sessions, accept: str | None, kind: str
) -> None:
    browser = Browser(app_with(sessions))
    await browser.login("ann")
    del browser.headers["accept"]
    headers = {} if accept is None else {"accept": accept}
    response = await browser.get("/sessions/", headers=headers)
    assert response.headers["content-type"].partition(";")[0] == kind
    assert "Accept" in response.headers["vary"]


async def test_without_html_all_get_json(sessions: Sessions) -> None:
    browser = Browser(app_with(sessions, html=False, login_url="/login"))
    assert (await browser.get("/sessions/", headers=HTML)).status_code == 401
    await browser.login("ann")
    assert "sessions" in (await browser.get("/sessions/", headers=HTML)).json()
    assert (await browser.post("/sessions/end-others", headers=HTML)).json() == {"ended": 0}
    assert (await browser.get("/sessions/style.css")).status_code == 404


# --- ending ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("DELETE", "/{}"), ("POST", "/{}/end")])
async def test_one_of_ones_own_is_ended(sessions: Sessions, method: str, path: str) -> None:
    app = app_with(sessions)
    here, phone = Browser(app), Browser(app)
    await here.login("ann")
    sid = await phone.login("ann")
    for _ in range(2):  # the second changes nothing
        response = await here.request(method, f"/sessions{path.format(sid)}")
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["cache-control"] == "no-store"
    assert await phone.see() == {"sid": None, "person_id": None, "reason": "revoked", "user": False}
    assert (await here.see())["person_id"] == "ann"


async def test_foreign_and_unknown_look_alike(make_sessions: MakeSessions) -> None:
    sessions, other_app = await make_sessions(), await make_sessions(app_id="other")
    app = app_with(sessions)
    ann, ben = Browser(app), Browser(app)
    await ann.login("ann")
    foreign = await ben.login("ben")
    same_id = await Browser(app_with(other_app)).login("ann")
    nonsense = "%00'--"
    for accept in ({}, HTML):
        answers = [
            await ann.request(method, f"/sessions/{path}", headers=accept)
            for sid in (foreign, same_id, UNKNOWN, UNKNOWN.upper(), nonsense)
            for method, path in (("DELETE", sid), ("POST", f"{sid}/end"))
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert len({re.sub(r'href="[./]*', "", answer.text) for answer in answers}) == 1
    for sid in (foreign, same_id):
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert session.ended_at is None


async def test_the_others_are_ended_and_counted(sessions: Sessions) -> None:
    app = app_with(sessions)
    here, ben, *others = [Browser(app) for _ in range(4)]
    sid = await here.login("ann")
    await ben.login("ben")
    for browser in others:
        await browser.login("ann")
    response = await here.post("/sessions/end-others")
    assert response.json() == {"ended": 2}
    assert await sids(here) == [sid]
    for browser in others:
        assert (await browser.see())["reason"] == "revoked"
    assert (await ben.see())["person_id"] == "ben"


@pytest.mark.parametrize("options", [{}, {"fresh_for": MINUTE}])
async def test_ending_ones_own_is_a_logout(
    sessions: Sessions, clock: Clock, options: dict[str, Any]
) -> None:
    browser = Browser(app_with(sessions, **options))
    for method, path in (("DELETE", ""), ("POST", "/end")):
        sid = await browser.login("ann")
        clock.turn(timedelta(hours=1))
        response = await browser.request(method, f"/sessions/{sid}{path}")
        assert response.status_code == 204
        (cookie,) = set_cookies(response)
        assert "Max-Age=0" in cookie
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert session.end_reason == "logout"


# --- freshness ------------------------------------------------------------------------------------

ENDINGS = [("DELETE", "{}"), ("POST", "{}/end"), ("POST", "end-others")]


@pytest.mark.parametrize(("method", "path"), ENDINGS)
async def test_ending_needs_a_fresh_login_if_asked_for_and_listing_never_does(
    sessions: Sessions, clock: Clock, method: str, path: str
) -> None:
    app = app_with(sessions, fresh_for=timedelta(minutes=10))
    here, phone = Browser(app), Browser(app)
    await here.login("ann")
    since = clock.now
    clock.turn(timedelta(minutes=10, microseconds=1))
    sid = await phone.login("ann")
    url = f"/sessions/{path.format(sid)}"
    response = await here.request(method, url)
    assert response.status_code == 403
    assert response.json() == {
        "detail": "log in again first",
        "authenticated_at": since.isoformat(),
        "max_age": 600.0,
    }
    assert len(await sids(here)) == 2
    await here.post("/renew")
    assert (await here.request(method, url)).is_success
    assert len(await sids(here)) == 1


async def test_who_never_proved_who_they_are_is_not_fresh(sessions: Sessions) -> None:
    app = app_with(sessions, fresh_for=timedelta(days=1))
    response = await Browser(app).post("/sessions/end-others", headers=vouched("ann"))
    assert response.status_code == 403
    assert response.json()["authenticated_at"] is None


@pytest.mark.parametrize(
    ("urls", "leads_to"),
    [
        ({"login_url": "/login", "confirm_url": "/confirm"}, "/confirm"),
        ({"login_url": "/login?next=/sessions/"}, "/login?next=/sessions/"),
        ({}, None),
    ],
)
async def test_the_page_leads_to_where_people_log_in_again(
    sessions: Sessions, clock: Clock, urls: dict[str, str], leads_to: str | None
) -> None:
    app = app_with(sessions, fresh_for=MINUTE, **urls)
    browser = Browser(app)
    await browser.login("ann")
    other = await Browser(app).login("ann")
    clock.turn(2 * MINUTE)
    for path in ("end-others", f"{other}/end"):
        response = await browser.post(f"/sessions/{path}", headers=HTML)
        assert response.headers["cache-control"] == "no-store"
        # By a link: browsers would not follow the redirect of a form to where a login may lead.
        assert response.status_code == 403
        assert "Nothing was ended." in response.text
        assert re.findall('href="([^"]*)">Log in', response.text) == (
            [leads_to] if leads_to else []
        )
    assert len(await sids(browser)) == 2


@pytest.mark.parametrize("accept", [{}, HTML])
async def test_htmx_is_led_there_and_puts_no_login_into_a_part_of_the_page(
    sessions: Sessions, clock: Clock, accept: dict[str, str]
) -> None:
    urls = {"login_url": "/login", "confirm_url": "/confirm"}
    app = app_with(sessions, fresh_for=MINUTE, **urls)
    leave = sessions.end_session_endpoint(redirect_to="/", clear_site_data=("cache",))
    app.routes.append(Mount("/leave", leave))
    browser = Browser(app)
    htmx = {"hx-request": "true", **accept}

    async def led(method: str, path: str) -> tuple[int, str | None]:
        response = await browser.request(method, path, headers=htmx)
        return response.status_code, response.headers.get("hx-redirect")

    assert await led("GET", "/sessions/") == (401, "/login")
    await browser.login("ann")
    clock.turn(2 * MINUTE)
    assert await led("POST", "/sessions/end-others") == (403, "/confirm")
    assert await led("GET", "/sessions/elsewhere") == (404, None)
    assert await led("POST", "/leave/") == (204, "/")
    assert (await browser.post("/leave/", headers=HTML)).status_code == 303


# --- who is let in --------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("HEAD", ""), *ENDINGS])
async def test_without_a_session_there_is_nothing_to_see(
    sessions: Sessions, method: str, path: str
) -> None:
    app = app_with(sessions)
    ann = Browser(app)
    sid = await ann.login("ann")
    url = f"/sessions/{path.format(sid)}"
    response = await Browser(app).request(method, url)
    assert response.status_code == 401
    assert response.headers["cache-control"] == "no-store"
    assert method == "HEAD" or response.json() == {"detail": "not logged in", "reason": None}
    page = await Browser(app).request(method, url, headers=HTML)
    assert page.status_code == 401
    login = app_with(sessions, login_url="https://id.example/login")
    sent = await Browser(login).request(method, url, headers=HTML)
    if method in ("GET", "HEAD"):
        assert (sent.status_code, sent.headers["location"]) == (303, "https://id.example/login")
    else:
        assert sent.status_code == 401
        assert '<a href="https://id.example/login">Log in</a>' in sent.text
    assert (await Browser(login).request(method, url)).status_code == 401
    assert await sids(ann) == [sid]


async def test_who_was_put_out_is_told_why(sessions: Sessions) -> None:
    browser = Browser(app_with(sessions))
    await sessions.end_session_by_id(await browser.login("ann"))
    answer = (await browser.get("/sessions/")).json()
    assert answer == {"detail": "not logged in", "reason": "revoked"}


@pytest.mark.parametrize(("method", "path"), ENDINGS)
@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "null"}],
    ids=lambda headers: " ".join(headers.values()),
)
async def test_what_another_site_sends_is_refused(
    sessions: Sessions, method: str, path: str, headers: dict[str, str]
) -> None:
    app = app_with(sessions)
    here = Browser(app)
    await here.login("ann")
    url = f"/sessions/{path.format(await Browser(app).login('ann'))}"
    response = await here.request(method, url, headers=headers)
    assert response.status_code == 403
    assert response.json() == {"detail": "cross-site request refused"}
    page = await here.request(method, url, headers={**headers, **HTML})
    assert page.status_code == 403
    assert "Nothing was ended." in page.text
    assert len(await sids(here)) == 2


async def test_sister_hosts_may_post_if_they_share_the_cookie(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(cookie_domain="test")
    browser = Browser(app_with(sessions))
    response = await browser.post("/sessions/end-others", headers={"sec-fetch-site": "same-site"})
    assert response.status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "", "GET, HEAD"),
        ("GET", "end-others", "POST"),
        ("GET", f"{UNKNOWN}/end", "POST"),
        ("GET", UNKNOWN, "DELETE"),
        ("OPTIONS", "", "GET, HEAD"),
    ],
)
async def test_a_method_that_is_none_of_an_address_is_refused(
    sessions: Sessions, method: str, path: str, allowed: str
) -> None:
    browser = Browser(app_with(sessions))
    await browser.login("ann")
    for headers in ({}, HTML):
        response = await browser.request(method, f"/sessions/{path}", headers=headers)
        assert (response.status_code, response.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("path", ["x", f"{UNKNOWN}/x", f"{UNKNOWN}/end/x", "end-others/x", "a//b"])
async def test_an_address_that_is_none_is_not_found(sessions: Sessions, path: str) -> None:
    response = await Browser(app_with(sessions)).get(f"/sessions/{path}")
    assert (response.status_code, response.json()) == (404, {"detail": "not found"})
    assert response.headers["cache-control"] == "no-store"


async def test_an_outage_is_no_logout(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(on_unavailable="anonymous")
    app = app_with(sessions, login_url="/login")
    browser = Browser(app)
    await browser.login("ann")
    await sessions.database.execute(f"DROP TABLE {sessions.table.name}")
    for headers in ({}, HTML):
        assert (await browser.get("/sessions/", headers=headers)).status_code == 503


def test_a_websocket_is_refused(tmp_path: Path) -> None:
    app = app_with(Sessions(f"sqlite:///{tmp_path}/x.db", secret_key=KEY))
    with TestClient(app) as client, pytest.raises(WebSocketDenialResponse) as refused:
        client.websocket_connect("/sessions/").__enter__()
    assert refused.value.status_code == 405


async def test_without_the_middleware_the_mistake_is_named(
    sessions: Sessions, tmp_path: Path
) -> None:
    app = Starlette(routes=[Mount("/sessions", sessions.routes())])
    with pytest.raises(ConfigurationError, match="SessionMiddleware"):
        await Browser(app).get("/sessions/")
    others = Sessions(f"sqlite:///{tmp_path}/others.db", secret_key=KEY)
    other = SessionMiddleware(app, sessions=others)
    with pytest.raises(ConfigurationError, match="of these Sessions"):
        await Browser(other).get("/sessions/")


def test_options_that_cannot_be_are_all_named(tmp_path: Path) -> None:
    sessions = Sessions(f"sqlite:///{tmp_path}/x.db", secret_key=KEY)
    wrong: dict[str, Any] = {
        "html": "yes",
        "fresh_for": 600,
        "login_url": "login",
        "confirm_url": "//evil.example",
        "home_url": 'javascript:alert("x")',
        "template": "devices.html",
    }
    with pytest.raises(ConfigurationError) as raised:
        sessions.routes(**wrong)
    faults = str(raised.value).split("; ")
    assert [fault.partition("=")[0] for fault in faults] == list(wrong)
    with pytest.raises(ConfigurationError, match="fresh_for"):
        sessions.routes(fresh_for=timedelta(0))


# --- the page -------------------------------------------------------------------------------------


def items(html: str) -> list[str]:
    """The list items of a page."""
    return re.findall(r"<li\b.*?</li>", html, re.DOTALL)


async def page_of(browser: Browser, query: str = "") -> str:
    response = await browser.get(f"/sessions/{query}", headers=HTML)
    assert response.status_code == 200
    return response.text


async def test_the_page_says_which_is_this_device_and_how_to_end_the_others(
    sessions: Sessions, clock: Clock
) -> None:
    app = app_with(sessions, home_url="/home")
    laptop = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
    here, phone = Browser(app, agent=laptop), Browser(app, agent="Phone/1", address="192.0.2.9")
    mine, lost = await here.login("ann"), await phone.login("ann")
    clock.turn(timedelta(hours=2))
    await here.see()
    html = await page_of(here)
    first, second = items(html)
    assert "Firefox on Linux" in first
    assert "this device" in first
    assert f'action="./{mine}/end"><button aria-label="Log out: Firefox on Linux' in first
    assert "Phone/1" in second
    assert "this device" not in second
    button = f'action="./{lost}/end"><button aria-label="End: Phone/1, 192.0.2.9">End<'
    assert button in second
    exact = 'title="2026-01-01 12:00:00 UTC"'
    assert f'<time datetime="2026-01-01T12:00:00+00:00" {exact}>2 hours ago</time>' in second
    assert 'action="./end-others"' in html
    assert 'href="./?ended=1"' in html
    assert '<a href="/home">Back</a>' in html
    assert "Recently ended" not in html
    assert 'role="status"' not in html


async def test_a_session_that_is_bound_to_its_device_is_shown_as_such(
    make_sessions: MakeSessions,
) -> None:
    app = app_with(await make_sessions(dbsc=DBSC()))
    here, phone = Browser(app), DeviceBrowser(app, agent="Phone/1")
    await here.login("ann")
    await phone.bound("ann")
    first, second = items(await page_of(here))
    assert "bound to the device" in second
    assert "bound" not in first
    listed = (await here.get("/sessions/")).json()["sessions"]
    assert [one["bound"] for one in listed] == [False, True]


async def test_one_who_is_logged_in_once_has_no_others_to_end(sessions: Sessions) -> None:
    browser = Browser(app_with(sessions))
    await browser.login("ann")
    html = await page_of(browser, "?ended=1")
    assert "end-others" not in html
    assert "None." in html
    assert "Back" not in html


@pytest.mark.parametrize(
    ("path", "count", "said"),
    [
        ("{}/end", 1, "1 session was ended."),
        ("end-others", 2, "2 sessions were ended."),
    ],
)
async def test_a_button_leads_back_to_the_page_which_says_what_was_done(
    sessions: Sessions, path: str, count: int, said: str
) -> None:
    app = app_with(sessions)
    here, *others = [Browser(app) for _ in range(3)]
    sid = [await browser.login("ann") for browser in (here, *others)][-1]
    response = await here.post(f"/sessions/{path.format(sid)}", headers=HTML)
    assert response.status_code == 303
    target = response.url.join(response.headers["location"])
    assert target == f"https://test/sessions/?closed={count}"
    html = (await here.get(target, headers=HTML)).text
    assert f'role="status">{said}</p>' in html
    again = await here.post(f"/sessions/{path.format(sid)}", headers=HTML)
    assert again.headers["location"].endswith("?closed=0")


async def test_no_button_leads_to_where_a_policy_might_not_let_it(sessions: Sessions) -> None:
    """Browsers check each redirect that follows on a form, and a login may be at a provider."""
    browser = Browser(app_with(sessions, login_url="https://id.example/login"))
    sid = await browser.login("ann")
    response = await browser.post(f"/sessions/{sid}/end", headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, "../?left=1")
    for query, status, said in (("left=1", 200, "Logged out"), ("closed=1", 401, "Not logged in")):
        page = await browser.get(f"/sessions/?{query}", headers=HTML)
        assert page.status_code == status
        assert f"<h1>{said}</h1>" in page.text
        assert '<a href="https://id.example/login">Log in</a>' in page.text
    there = await browser.get("/sessions/", headers=HTML)
    assert there.headers["location"] == "https://id.example/login"


@pytest.mark.parametrize("closed", ["", "-1", "x", "<b>", "٣", "1000000"])
async def test_a_made_up_count_is_not_shown(sessions: Sessions, closed: str) -> None:
    browser = Browser(app_with(sessions))
    await browser.login("ann")
    assert 'role="status"' not in await page_of(browser, f"?closed={closed}")


async def test_what_is_over_is_shown_with_its_reason_and_no_button(
    sessions: Sessions, clock: Clock
) -> None:
    app = app_with(sessions)
    here = Browser(app)
    await here.login("ann")
    words = {"revoked": "ended from another device", "moved out": "moved out"}
    for reason in words:
        sid = await Browser(app).login("ann")
        await sessions.end_session_by_id(sid, reason=reason)
        clock.turn(MINUTE)
    over = items(await page_of(here, "?ended=1"))[1:]
    assert len(over) == 2
    for item, said in zip(over, reversed(words.values()), strict=True):
        assert f"{said} <time" in item
        assert "<button" not in item


async def test_what_strangers_send_is_shown_as_text(sessions: Sessions) -> None:
    evil = "\"'><script>alert(1)</script>"
    app = app_with(sessions)
    person = vouched("ann", auth_provider=evil)
    browser = Browser(app, agent=evil)
    await browser.get("/", headers=person)
    gone = Browser(app, agent=evil)
    await sessions.end_session_by_id(await gone.login("ann"), reason=evil)
    response = await browser.get("/sessions/?ended=1", headers={**person, **HTML})
    assert "<script" not in response.text
    escaped = "&quot;&#x27;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"
    assert f"via {escaped}" in response.text
    assert f'<strong title="{escaped}">{escaped}</strong>' in response.text
    assert f"{escaped} <time" in response.text  # the reason


async def test_an_address_that_was_not_stored_is_unknown(make_sessions: MakeSessions) -> None:
    browser = Browser(app_with(await make_sessions(store_ip="none")))
    await browser.login("ann")
    assert "unknown address" in await page_of(browser)


async def test_the_page_lets_in_its_own_style_alone_and_needs_nothing_else(
    sessions: Sessions,
) -> None:
    app = app_with(
        sessions, login_url="https://id.example/login?x=1", confirm_url="/confirm", home_url="/"
    )
    browser = Browser(app)
    await browser.login("ann")
    for path in ("", "?ended=1", "nowhere"):
        response = await browser.get(f"/sessions/{path}", headers=HTML)
        policy = dict(
            part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
        )
        assert policy == {
            "default-src": "'none'",
            "style-src": "'self'",
            "img-src": "'self'",
            "form-action": "'self'",
            "base-uri": "'none'",
            "frame-ancestors": "'none'",
        }
        assert response.headers["x-content-type-options"] == "nosniff"
        # With less, browsers on plain http would send their own forms as of origin "null".
        assert response.headers["referrer-policy"] == "same-origin"
        assert not re.search(r"<style|<script|\bstyle=|\son\w+=", response.text)
        (sheet,) = re.findall(r'<link rel="stylesheet" href="([^"]+)">', response.text)
        style = await Browser(app).get(response.url.join(sheet))  # of anybody
        assert style.headers["content-type"] == "text/css; charset=utf-8"
        assert "immutable" in style.headers["cache-control"]
        assert "prefers-color-scheme: dark" in style.text


async def test_the_page_can_be_of_another_template(sessions: Sessions, clock: Clock) -> None:
    seen: list[DevicesPage] = []

    def template(page: DevicesPage) -> str:
        seen.append(page)
        return f"<p>{len(page.live)}"

    app = app_with(sessions, template=template, home_url="/home")
    browser = Browser(app)
    sid = await browser.login("ann")
    await sessions.end_session_by_id(await Browser(app).login("ann"))
    response = await browser.get("/sessions/?ended=1&closed=3", headers=HTML)
    assert response.text == "<p>1"
    assert response.headers["cache-control"] == "no-store"
    assert "content-security-policy" not in response.headers  # its own affair
    (page,) = seen
    assert (page.current.sid, page.live, page.closed) == (sid, [page.current], 3)
    assert page.ended is not None
    assert [page.reason(session) for session in page.ended] == ["ended from another device"]
    assert (page.base, page.home_url, page.now) == ("./", "/home", clock.now)
    assert page.scope["path"] == "/sessions/"


async def shown(sessions: Sessions) -> DevicesPage:
    """What a template is given."""
    pages: list[DevicesPage] = []

    def template(page: DevicesPage) -> str:
        pages.append(page)
        return ""

    browser = Browser(app_with(sessions, template=template))
    await browser.login("ann")
    await page_of(browser)
    return pages[0]


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (timedelta(seconds=-5), "just now"),
        (timedelta(seconds=59), "just now"),
        (timedelta(seconds=60), "1 minute ago"),
        (timedelta(minutes=59), "59 minutes ago"),
        (timedelta(hours=1), "1 hour ago"),
        (timedelta(hours=47), "1 day ago"),
        (timedelta(days=30), "30 days ago"),
        (timedelta(days=31), "on 1 December 2025"),
    ],
)
async def test_times_are_told_as_people_do(sessions: Sessions, age: timedelta, said: str) -> None:
    page = await shown(sessions)
    assert page.ago(datetime(2026, 1, 1, 12, 0, tzinfo=UTC) - age) == said


async def test_a_reason_that_nobody_gave_has_a_word(sessions: Sessions) -> None:
    page = await shown(sessions)
    assert page.reason(page.current) == "ended"
