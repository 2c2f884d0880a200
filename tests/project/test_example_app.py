"""The example: what a stranger tries first. On a real server it runs in test_end_to_end.py."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from datetime import timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from argon2 import PasswordHasher
from starlette.applications import Starlette

import example_app
from asgi_sessions import Sessions
from example_app import PASSWORDS, create_app, kept_secret, tell_by_mail, what_to_try
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Clock, set_cookies

pytestmark = pytest.mark.anyio

HTML = {"accept": "text/html"}
ANN = {"authorization": "Bearer ann-demo-token"}
UNKNOWN = "01890000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module", autouse=True)
def passwords_are_hashed_quickly() -> Iterator[None]:
    """With the costs that hold off guessers, logging in is most of what these tests do; they are as
    users have them in test_end_to_end.py.
    """
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(example_app, "hasher", quick)
        patch.setattr(example_app, "nobody", quick.hash("nobody's"))
        for name, password in PASSWORDS.items():
            patch.setitem(example_app.hashes, name, quick.hash(password))
        yield


@pytest.fixture
def app(sessions: Sessions) -> Starlette:
    return create_app(sessions)


async def log_in(browser: Browser, name: str = "ann", **fields: str) -> httpx.Response:
    form = {"name": name, "password": PASSWORDS.get(name, ""), **fields}
    return await browser.post("/login", data=form)


async def me(browser: Browser, **headers: str) -> tuple[str | None, str | None, str | None]:
    """The person, the sid and the reason that the app tells this browser."""
    response = await browser.get("/api/me", headers=headers)
    answer = response.json()
    assert response.status_code == (200 if answer["sid"] else 401)
    return answer["person"], answer["sid"], answer["reason"]


async def sessions_page(browser: Browser, query: str = "") -> str:
    """The page on which people see where they are logged in."""
    response = await browser.get(f"/sessions/{query}", headers=HTML)
    assert response.status_code == 200
    return response.text


async def sid_of(browser: Browser, **headers: str) -> str:
    sid = (await me(browser, **headers))[1]
    assert sid is not None
    return sid


# --- people who log in ------------------------------------------------------------------------


async def test_who_comes_without_a_session_gets_the_login_form(app: Starlette) -> None:
    async with Browser(app) as browser:
        response = await browser.get("/")
        assert response.status_code == 200
        assert '<form class="login" method="post" action="/login">' in response.text
        assert "set-cookie" not in response.headers


async def test_a_login_leads_home_where_the_sid_is_shown(
    app: Starlette, sessions: Sessions
) -> None:
    async with Browser(app) as browser:
        response = await log_in(browser)
        assert (response.status_code, response.headers["location"]) == (303, "/")
        home = (await browser.get("/")).text
        (session,) = await sessions.list_sessions("ann")
        assert "Hello, Ann" in home
        assert f"This session: <code>{session.sid}</code>" in home
        assert await me(browser) == ("ann", session.sid, None)
        assert session.origin == "login"


@pytest.mark.parametrize(("fields", "kept"), [({"remember": "1"}, True), ({}, False)])
async def test_the_cookie_outlives_the_browser_if_remember_me_is_ticked(
    app: Starlette, fields: dict[str, str], kept: bool
) -> None:
    async with Browser(app) as browser:
        (cookie,) = set_cookies(await log_in(browser, **fields))
        assert ("Max-Age=" in cookie) is kept


@pytest.mark.parametrize(
    "form",
    [
        {"name": "ann", "password": "blue-boat"},
        {"name": "nobody", "password": "apple-tree"},
        {"name": "ann", "password": ""},
        {"name": "ann\0", "password": "apple-tree"},
        {},
    ],
    ids=["wrong password", "unknown name", "no password", "NUL", "empty"],
)
async def test_a_wrong_login_is_refused_without_a_session(
    app: Starlette, sessions: Sessions, form: dict[str, str]
) -> None:
    async with Browser(app) as browser:
        response = await browser.post("/login", data=form)
        assert response.status_code == 403
        assert "Name and password do not fit." in response.text
        assert "set-cookie" not in response.headers
        assert await sessions.list_sessions("ann", include_ended=True) == []


async def test_a_wrong_login_changes_nothing_about_the_session_in_use(app: Starlette) -> None:
    async with Browser(app) as browser:
        await log_in(browser)
        sid = await sid_of(browser)
        await log_in(browser, "ben", password="wrong")
        assert await me(browser) == ("ann", sid, None)


async def test_the_list_shows_each_device_and_marks_this_one(app: Starlette, clock: Clock) -> None:
    phone_agent = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) Version/18.1 Safari/604.1"
    async with (
        Browser(app, agent="Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0") as desk,
        Browser(app, agent=phone_agent, address="2001:db8::7") as phone,
    ):
        await log_in(desk)
        clock.turn(timedelta(minutes=1))
        await log_in(phone)
        assert 'href="/sessions/"' in (await desk.get("/")).text
        first, second = items(await sessions_page(desk))
        assert "Firefox on Linux" in first
        assert "192.0.2.1" in first
        assert "this device" in first
        assert "Log out" in first
        assert "Safari on iPhone" in second
        assert "2001:db8::7" in second
        assert f'action="./{await sid_of(phone)}/end"' in second
        assert "this device" not in second


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0) Chrome/142.0 Safari/537.36",
            "Chrome on Windows",
        ),
        ("Mozilla/5.0 (Windows NT 10.0) Chrome/142.0 Safari/537.36 Edg/142.0", "Edge on Windows"),
        ("Mozilla/5.0 (Linux; Android 15) Chrome/142.0 Mobile Safari/537.36", "Chrome on Android"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 15) Version/18 Safari/605", "Safari on macOS"),
        ("curl/8.5.0", "curl/8.5.0"),
        ("x" * 600, "x" * 40 + "…"),
        ("", "Unknown device"),
    ],
)
async def test_a_device_is_named_in_a_few_words(app: Starlette, agent: str, shown: str) -> None:
    async with Browser(app, agent=agent) as browser:
        await log_in(browser)
        (item,) = items(await sessions_page(browser))
        assert f">{shown}</strong>" in item


async def test_ending_one_session_puts_that_device_out_and_says_why(app: Starlette) -> None:
    async with Browser(app, agent="desk") as desk, Browser(app, agent="phone") as phone:
        await log_in(desk)
        await log_in(phone)
        sid = await sid_of(phone)
        response = await desk.post(f"/sessions/{sid}/end", headers=HTML)
        assert (response.status_code, response.headers["location"]) == (303, "../?closed=1")
        assert await me(phone) == (None, None, "revoked")
        assert "over: ended from another device." in (await phone.get("/")).text
        here, gone = items(await sessions_page(desk, "?ended=1"))
        assert "this device" in here
        assert "phone" in gone
        assert "ended from another device" in gone


async def test_ending_all_others_keeps_this_one(app: Starlette) -> None:
    async with Browser(app) as desk, Browser(app) as phone, Browser(app) as ben:
        for browser in (desk, phone):
            await log_in(browser)
        await log_in(ben, "ben")
        sid, sid_of_ben = await sid_of(desk), await sid_of(ben)
        await desk.post("/sessions/end-others")
        assert await me(desk) == ("ann", sid, None)
        assert await me(phone) == (None, None, "revoked")
        assert await me(ben) == ("ben", sid_of_ben, None)


async def test_nobody_ends_the_session_of_somebody_else_and_foreign_looks_like_unknown(
    app: Starlette,
) -> None:
    async with Browser(app) as ann, Browser(app) as ben:
        await log_in(ann)
        await log_in(ben, "ben")
        sid = await sid_of(ann)
        foreign = await ben.post(f"/sessions/{sid}/end")
        unknown = await ben.post(f"/sessions/{UNKNOWN}/end")
        nonsense = await ben.post("/sessions/%00'--/end")
        assert foreign.status_code == 404
        assert foreign.text == unknown.text == nonsense.text
        assert await me(ann) == ("ann", sid, None)


async def test_who_has_no_session_ends_none(app: Starlette) -> None:
    async with Browser(app) as ann, Browser(app) as stranger:
        await log_in(ann)
        sid = await sid_of(ann)
        for path in (f"/sessions/{sid}/end", "/sessions/end-others"):
            response = await stranger.post(path, headers=HTML)
            assert response.status_code == 401
            assert '<a href="/login">' in response.text
            assert (await stranger.post(path)).status_code == 401
        assert (await stranger.post("/logout")).headers["location"] == "/"
        assert await me(ann) == ("ann", sid, None)


async def test_logging_out_ends_the_session_and_clears_the_cookie(
    app: Starlette, sessions: Sessions
) -> None:
    async with Browser(app) as browser:
        await log_in(browser)
        sid = await sid_of(browser)
        cookie = browser.cookies[sessions.cookie_name]
        response = await browser.post("/logout")
        assert (response.status_code, response.headers["location"]) == (303, "/")
        assert await me(browser) == (None, None, None)
        replayed = {"cookie": f"{sessions.cookie_name}={cookie}"}
        assert await me(browser, **replayed) == (None, None, "logout")
        session = await sessions.get_by_id(sid)
        assert session is not None
        assert session.end_reason == "logout"


async def test_logging_in_as_somebody_else_replaces_the_session(
    app: Starlette, sessions: Sessions
) -> None:
    async with Browser(app) as browser:
        await log_in(browser)
        assert "You are Ann" in (await browser.get("/login")).text
        await log_in(browser, "ben")
        assert "Hello, Ben" in (await browser.get("/")).text
        (ended,) = await sessions.list_sessions("ann", include_ended=True)
        assert ended.end_reason == "replaced"


async def test_a_session_that_ran_out_is_shown_as_expired(app: Starlette, clock: Clock) -> None:
    async with Browser(app, agent="old laptop") as old, Browser(app) as new:
        await log_in(old)
        clock.turn(timedelta(days=14))
        await log_in(new)
        _, expired = items(await sessions_page(new, "?ended=1"))
        assert "old laptop" in expired
        assert "expired" in expired
        assert await me(old) == (None, None, "expired")


# --- people whom another layer vouches for ------------------------------------------------------


async def test_a_token_gets_one_session_however_often_it_is_used(
    app: Starlette, sessions: Sessions
) -> None:
    sids = set()
    for _ in range(5):
        async with Browser(app, agent="script") as client:  # keeps no cookie
            sids.add(await sid_of(client, **ANN))
    (session,) = await sessions.list_sessions("ann", include_ended=True)
    assert sids == {session.sid}
    assert session.origin == "scope"


async def test_a_token_whose_session_was_ended_stays_out(app: Starlette) -> None:
    async with Browser(app) as desk:
        await log_in(desk)
        async with Browser(app, agent="script") as client:
            sid = await sid_of(client, **ANN)
        assert "via a token" in items(await sessions_page(desk))[1]
        await desk.post(f"/sessions/{sid}/end")
        for _ in range(2):
            async with Browser(app, agent="script") as client:
                assert await me(client, **ANN) == (None, None, "revoked")
        async with Browser(app, agent="another script") as client:
            assert await sid_of(client, **ANN) != sid


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
async def test_an_unknown_token_is_refused(app: Starlette, scheme: str) -> None:
    async with Browser(app) as client:
        response = await client.get("/api/me", headers={"authorization": f"{scheme} made-up"})
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'


async def test_another_scheme_of_authorization_is_nobody(app: Starlette) -> None:
    async with Browser(app) as client:
        assert await me(client, authorization="Basic YW5uOg==") == (None, None, None)


# --- safe to be copied --------------------------------------------------------------------------


async def test_a_hostile_user_agent_is_shown_as_text(app: Starlette) -> None:
    async with Browser(app, agent="\"'><script>alert(1)</script>") as browser:
        await log_in(browser)
        await log_in(browser)  # which puts the first one among the ended
        page = await sessions_page(browser, "?ended=1")
        assert page.count(">&quot;&#x27;&gt;&lt;script&gt;alert(1)&lt;/script&gt;<") == 2
        assert "<script" not in page


async def test_a_hostile_name_comes_back_as_text(app: Starlette) -> None:
    async with Browser(app) as browser:
        response = await log_in(browser, '"><script>alert(1)</script>')
        assert 'value="&quot;&gt;&lt;script&gt;' in response.text
        assert "<script" not in response.text


@pytest.mark.parametrize("path", ["/login", "/logout", "/sessions/end-others", "/sessions/{}/end"])
@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "https://test"},
        {"origin": "https://evil.example"},
        {"origin": "https://test.evil.example"},
        {"origin": "null"},
    ],
    ids=lambda headers: " ".join(headers.values()),
)
async def test_a_post_from_another_site_is_refused(
    app: Starlette, path: str, headers: dict[str, str]
) -> None:
    async with Browser(app) as ann, Browser(app) as other:
        await log_in(ann)
        await log_in(other)
        sids = await sid_of(ann), await sid_of(other)
        form = {"name": "ben", "password": PASSWORDS["ben"]}
        response = await ann.post(path.format(sids[1]), headers=headers, data=form)
        assert response.status_code == 403
        assert "set-cookie" not in response.headers
        assert (await sid_of(ann), await sid_of(other)) == sids


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "same-origin"}, {"sec-fetch-site": "none"}, {"origin": "https://test"}],
    ids=lambda headers: " ".join(headers.values()),
)
async def test_a_post_from_its_own_pages_is_taken(app: Starlette, headers: dict[str, str]) -> None:
    async with Browser(app) as browser:
        form = {"name": "ben", "password": PASSWORDS["ben"]}
        assert (await browser.post("/login", headers=headers, data=form)).status_code == 303
        assert (await browser.post("/logout", headers=headers)).status_code == 303


async def test_pages_allow_their_own_style_and_no_script_and_are_not_stored(
    app: Starlette,
) -> None:
    async with Browser(app) as browser:
        form = await browser.get("/")
        await log_in(browser)
        for response in (form, await browser.get("/")):
            (style,) = re.findall(r"<style>(.*?)</style>", response.text, re.DOTALL)
            digest = b64encode(sha256(style.encode()).digest()).decode()
            policy = response.headers["content-security-policy"].split("; ")
            assert "default-src 'none'" in policy
            assert f"style-src 'self' 'sha256-{digest}'" in policy
            assert response.headers["cache-control"] == "no-store"
            assert "style=" not in response.text


# --- mail ---------------------------------------------------------------------------------------


async def test_a_login_on_a_new_device_is_told_and_one_on_a_known_device_is_not(
    make_sessions: MakeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "mail")
    app = create_app(await make_sessions(on_event=tell_by_mail))
    async with Browser(app, agent="desk") as desk, Browser(app, agent="phone") as phone:
        for browser in (desk, phone, desk):
            await log_in(browser)
            await browser.post("/logout")
    mails = [record.getMessage() for record in caplog.records if record.name == "mail"]
    assert [mail.partition(" from ")[0] for mail in mails] == [
        "To ann: new login with desk",
        "To ann: new login with phone",
    ]


# --- starting it --------------------------------------------------------------------------------


async def test_its_lifespan_makes_the_table(tmp_path: Path) -> None:
    sessions = Sessions(f"sqlite:///{tmp_path}/new.db", secret_key=KEY)
    app = create_app(sessions)
    async with app.router.lifespan_context(app), Browser(app) as browser:
        await log_in(browser)
        assert await sid_of(browser)


@pytest.mark.skipif("os.name != 'posix'", reason="modes are POSIX")
def test_its_key_is_made_once_beside_the_database_and_for_its_owner_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/demo.db"
    key = kept_secret(url)
    assert kept_secret(url) == key
    assert len(key) >= 32
    assert (tmp_path / ".demo-secret").stat().st_mode & 0o777 == 0o600


def test_a_database_server_s_key_is_kept_in_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    key = kept_secret("postgresql://someone@db.example/sessions")
    assert (tmp_path / ".demo-secret").read_text() == key


def test_it_says_what_to_try() -> None:
    text = what_to_try("http://127.0.0.1:8000")
    for name, password in PASSWORDS.items():
        assert re.search(rf"^ +{name} +{password}$", text, re.MULTILINE)
    assert text.count("  curl ") == 5


def items(html: str) -> list[str]:
    """The list items of a page."""
    return re.findall(r"<li\b.*?</li>", html, re.DOTALL)
