"""The cookie on the wire: its name, its value and the headers around it.

What writes and reads it is private and pure, and the middleware does so too, further down.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from asgi_sessions import AAL2, BANKING, ConfigurationError, Lifetimes, Sessions
from asgi_sessions._model.carrier import Carriers
from asgi_sessions._model.cookies import VALUE_LENGTH, CookieSettings, SameSite
from tests.conftest import MakeSessions
from tests.support import KEY, OLD_KEY, Browser, Clock, make_app, set_cookies, vouched

HEADERS = list[tuple[bytes, bytes]]
OURS = b"__Host-sid=value; Path=/"
MINUTE = timedelta(minutes=1)


def attributes(cookie: str) -> set[str]:
    """Everything of a Set-Cookie value but the pair itself."""
    return set(cookie.split("; ")[1:])


async def sent(browser: Browser, *values: str, name: str = "__Host-sid") -> dict[str, Any]:
    """What the app sees if the browser sends these cookies, and only these."""
    browser.cookies.clear()
    return await browser.see(cookie="; ".join(f"{name}={value}" for value in values))


async def login(browser: Browser, person: str = "ada") -> tuple[str, str]:
    """Log in; the sid and the cookie's value. The jar stays empty."""
    browser.cookies.clear()
    sid = await browser.login(person)
    (value,) = [cookie.value for cookie in browser.cookies.jar]
    assert value is not None
    browser.cookies.clear()
    return sid, value


# --- the name -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("secure", "domain", "path", "name"),
    [
        (True, None, "/", "__Host-sid"),
        (True, None, "/app", "__Secure-sid"),
        (True, "example.com", "/", "__Secure-sid"),
        (True, "example.com", "/app", "__Secure-sid"),
        (False, None, "/", "sid"),
        (False, None, "/app", "sid"),
        (False, "example.com", "/", "sid"),
        (False, "example.com", "/app", "sid"),
    ],
)
def test_the_name_has_the_strictest_prefix_that_browsers_grant(
    secure: bool, domain: str | None, path: str, name: str
) -> None:
    assert CookieSettings(secure=secure, domain=domain, path=path).wire_name == name


def test_sessions_tell_the_name_on_the_wire() -> None:
    assert Sessions("sqlite:///x.db", secret_key=KEY).cookie_name == "__Host-sid"
    named = Sessions("sqlite:///x.db", secret_key=KEY, cookie_name="login", cookie_path="/app")
    assert named.cookie_name == "__Secure-login"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "a=b"}, "cookie_name='a=b' is no cookie name"),
        ({"name": "__host-sid"}, "cookie_name='__host-sid': leave the prefix out"),
        ({"samesite": "LAX"}, "cookie_samesite='LAX': use"),
        ({"samesite": "none", "secure": False}, "needs cookie_secure=True"),
        ({"partitioned": True, "secure": False}, "needs cookie_secure=True"),
        ({"domain": "a b"}, "cookie_domain='a b' is no domain"),
        ({"domain": ".."}, "cookie_domain='..' is no domain"),
        ({"path": "app"}, "cookie_path='app': must start with '/'"),
        ({"path": "/\r\nx"}, "cookie_path='/\\r\\nx': must start with '/'"),
    ],
)
def test_what_browsers_would_refuse_is_refused_here(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        CookieSettings(**options)
    assert message in str(caught.value)


def test_all_faults_of_a_cookie_come_in_one_message() -> None:
    with pytest.raises(ConfigurationError) as caught:
        CookieSettings(
            name=" ", secure=False, samesite="none", domain=" ", path=" ", partitioned=True
        )
    assert re.findall(r"(cookie_\w+)=.*?(?:; |$)", str(caught.value)) == [
        "cookie_name",
        "cookie_samesite",
        "cookie_partitioned",
        "cookie_domain",
        "cookie_path",
    ]


# --- read -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "values"),
    [
        ([], []),
        ([b""], []),
        ([b"sid=a"], []),
        ([b"x=__Host-sid=a"], []),
        ([b"__Host-side=a"], []),
        ([b"__host-sid=a"], []),
        ([b"__Host-sid"], []),
        ([b"__Host-sid="], []),
        ([b"__Host-sid=a"], ["a"]),
        ([b"__Host-sid=a=b"], ["a=b"]),
        ([b"x=1;__Host-sid=a;y=2"], ["a"]),
        ([b"x=1; \t__Host-sid=a\t ; y=2"], ["a"]),
        ([b";;__Host-sid=a;;"], ["a"]),
        ([b"__Host-sid=a; __Host-sid=b"], ["a", "b"]),
        ([b"__Host-sid=b; __Host-sid=a; __Host-sid=b"], ["b", "a"]),
        ([b"__Host-sid=a", b"x=1", b"__Host-sid=b"], ["a", "b"]),  # HTTP/2 may split the header
        ([b"__Host-sid=; __Host-sid=a"], ["a"]),
        ([b'__Host-sid="a"'], ['"a"']),
        ([b"__Host-sid=\xff\x00"], ["\xff\x00"]),
        ([b"__Host-sid=" + b"a" * VALUE_LENGTH], ["a" * VALUE_LENGTH]),
        ([b"__Host-sid=" + b"a" * (VALUE_LENGTH + 1)], []),
        ([b"__Host-sid=" + b"a" * 60_000 + b"; __Host-sid=b"], ["b"]),
    ],
)
def test_every_value_of_our_name_is_read_once(lines: list[bytes], values: list[str]) -> None:
    headers = [(b"host", b"test"), *((b"cookie", line) for line in lines)]
    assert CookieSettings().reader()(headers) == values


def test_only_cookies_are_read() -> None:
    assert CookieSettings().reader()([(b"x-cookie", b"__Host-sid=a")]) == []


# --- rendered -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (CookieSettings(), "__Host-sid=v; Path=/; HttpOnly; SameSite=Lax; Secure"),
        (CookieSettings(secure=False), "sid=v; Path=/; HttpOnly; SameSite=Lax"),
        (
            CookieSettings(samesite="strict", path="/app"),
            "__Secure-sid=v; Path=/app; HttpOnly; SameSite=Strict; Secure",
        ),
        (
            CookieSettings(name="login", samesite="none", partitioned=True),
            "__Host-login=v; Path=/; HttpOnly; SameSite=None; Secure; Partitioned",
        ),
        (
            CookieSettings(domain="example.com"),
            "__Secure-sid=v; Domain=example.com; Path=/; HttpOnly; SameSite=Lax; Secure",
        ),
    ],
)
def test_a_cookie_has_all_its_attributes(settings: CookieSettings, line: str) -> None:
    assert settings.render("v", max_age=None).decode() == line


def test_max_age_is_there_or_not() -> None:
    assert b"Max-Age=60;" in CookieSettings().render("v", max_age=60)
    assert b"Max-Age" not in CookieSettings().render("v", max_age=None)


@pytest.mark.parametrize(
    "settings",
    [
        CookieSettings(),
        CookieSettings(secure=False),
        CookieSettings(domain="example.com", path="/app"),
        CookieSettings(samesite="none", partitioned=True),
    ],
)
def test_a_cookie_is_cleared_with_the_attributes_it_was_set_with(settings: CookieSettings) -> None:
    # Browsers take another domain, path or partition for another cookie.
    cleared = settings.render("", max_age=0).decode()
    assert cleared.startswith(f"{settings.wire_name}=; ")
    gone = {"Max-Age=0", "Expires=Thu, 01 Jan 1970 00:00:00 GMT"}
    assert attributes(cleared) == gone | attributes(
        settings.render("v", max_age=None).decode("ascii")
    )


# --- written into a response ----------------------------------------------------------------------


def write(headers: Iterable[tuple[bytes, bytes]], *, vary: bool = False) -> HEADERS:
    written = CookieSettings().write(headers, OURS)
    return Carriers(bearer=False).for_caches(written, private=False) if vary else written


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"cache-control", b"public, max-age=3600")],
        [(b"Cache-Control", b"no-cache"), (b"CACHE-CONTROL", b"private")],
        [(b"cache-control", b"no-store")],
    ],
)
def test_a_response_with_our_cookie_is_stored_nowhere(headers: HEADERS) -> None:
    assert write(headers) == [(b"set-cookie", OURS), (b"cache-control", b"no-store")]


@pytest.mark.parametrize(
    "name", [b"set-cookie", b"Set-Cookie"], ids=["lower case", "as in HTTP/1.1"]
)
@pytest.mark.parametrize("line", [b"__Host-sid=app", b" __Host-sid=app", b"__Host-sid=; Max-Age=0"])
def test_the_apps_own_cookie_of_our_name_is_dropped(name: bytes, line: bytes) -> None:
    assert write([(name, line)]) == [(b"set-cookie", OURS), (b"cache-control", b"no-store")]


@pytest.mark.parametrize("line", [b"sid=1", b"__Host-side=1", b"x=__Host-sid=1", b"__host-sid=1"])
def test_the_apps_own_cookies_are_kept(line: bytes) -> None:
    assert write([(b"set-cookie", line)])[0] == (b"set-cookie", line)


def test_other_headers_keep_their_order_and_their_spelling() -> None:
    headers = [(b"X-One", b"1"), (b"set-cookie", b"a=1"), (b"x-two", b"2"), (b"set-cookie", b"b=2")]
    assert write(headers)[:4] == headers


def test_what_the_app_tells_caches_of_an_answer_to_somebody_holds() -> None:
    headers = [(b"Cache-Control", b"public"), (b"set-cookie", b"__Host-sid=app")]
    vary = (b"vary", b"Cookie")
    assert Carriers(bearer=False).for_caches(headers, private=True) == [*headers, vary]
    assert Carriers(bearer=False).for_caches(headers[1:], private=True) == [
        headers[1],
        (b"cache-control", b"private"),
        vary,
    ]


@pytest.mark.parametrize(
    "name",
    ["CDN-Cache-Control", "Surrogate-Control", "X-Accel-Expires", "Expires", "Cache-Control"],
)
def test_no_cache_is_told_to_keep_our_cookie(name: str) -> None:
    headers = [(name.encode(), b"60"), (name.lower().encode(), b"60")]
    assert write(headers) == [(b"set-cookie", OURS), (b"cache-control", b"no-store")]


def test_of_many_values_the_first_eight_are_looked_at() -> None:
    line = "; ".join(f"__Host-sid={number}" for number in range(20)).encode()
    read = CookieSettings().reader()
    assert read([(b"cookie", line)]) == [str(number) for number in range(8)]


def test_the_headers_given_stay_as_they_are() -> None:
    headers = [(b"cache-control", b"public"), (b"vary", b"Accept")]
    write(headers, vary=True)
    assert headers == [(b"cache-control", b"public"), (b"vary", b"Accept")]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [b"Cookie"]),
        ([b"Accept"], [b"Accept, Cookie"]),
        ([b"Accept, Origin"], [b"Accept, Origin, Cookie"]),
        ([b"Accept", b"Origin"], [b"Accept, Cookie", b"Origin"]),
        ([b"Cookie"], [b"Cookie"]),
        ([b"Accept,COOKIE , Origin"], [b"Accept,COOKIE , Origin"]),
        ([b"Accept", b"cookie"], [b"Accept", b"cookie"]),
        ([b"*"], [b"*"]),
        ([b"Accept", b"*"], [b"Accept", b"*"]),
        ([b"Set-Cookie"], [b"Set-Cookie, Cookie"]),
    ],
)
@pytest.mark.parametrize("name", [b"vary", b"Vary"])
def test_vary_is_merged_with_the_apps(name: bytes, before: list[bytes], after: list[bytes]) -> None:
    headers = [(name, value) for value in before]
    written = Carriers(bearer=False).for_caches(headers, private=False)
    assert [value for key, value in written if key.lower() == b"vary"] == after


# --- when it is written ---------------------------------------------------------------------------


async def test_a_cookie_is_written_when_something_has_changed_and_never_on_a_resume(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(sessions))

    async def written(method: str, path: str) -> int:
        return len(set_cookies(await browser.request(method, path)))

    assert await written("GET", "/") == 0
    assert await written("POST", "/login?person=ada") == 1
    assert await written("GET", "/") == 0
    clock.turn(timedelta(days=1))  # a touch is due
    assert await written("GET", "/") == 0
    assert await written("POST", "/renew") == 1
    assert await written("GET", "/") == 0
    assert await written("POST", "/login?person=bob") == 1
    assert await written("GET", "/missing") == 0
    assert await written("POST", "/logout") == 1
    assert await written("GET", "/") == 0


async def test_a_session_of_another_layer_has_its_cookie_from_the_request_that_started_it(
    sessions: Sessions,
) -> None:
    app = make_app(sessions)
    browser = Browser(app)
    response = await browser.get("/", headers=vouched("ada"))
    assert len(set_cookies(response)) == 1
    response = await browser.get("/", headers=vouched("ada"))
    assert set_cookies(response) == []
    response = await Browser(app).get("/", headers=vouched("ada"))  # the same device, found
    assert set_cookies(response) == []


async def test_a_dead_cookie_is_not_cleared_in_passing(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    sid = await browser.login("ada")
    await sessions.end_session_by_id(sid)
    response = await browser.get("/")
    assert response.json()["reason"] == "revoked"
    assert "set-cookie" not in response.headers


@pytest.mark.parametrize("steps", [["login"], ["login", "login"], ["login", "renew", "logout"]])
async def test_a_response_has_one_cookie_of_ours_however_much_happened(
    sessions: Sessions, steps: list[str]
) -> None:
    async def busy(request: Request) -> Response:
        for step in steps:
            if step == "login":
                await sessions.start_session(request, "ada")
            elif step == "renew":
                await sessions.renew_session(request)
            else:
                await sessions.end_session(request)
        return JSONResponse(request.state.sid)

    browser = Browser(make_app(sessions, Route("/busy", busy)))
    response = await browser.get("/busy")
    assert len(set_cookies(response)) == 1
    assert (await browser.see())["sid"] == response.json()


async def test_a_stream_has_one_cookie_at_its_start(sessions: Sessions) -> None:
    async def stream(request: Request) -> Response:
        await sessions.start_session(request, "ada")
        return StreamingResponse(iter(["one ", "two ", "three"]))

    response = await Browser(make_app(sessions, Route("/stream", stream))).get("/stream")
    assert response.text == "one two three"
    assert len(set_cookies(response)) == 1


async def test_the_apps_headers_and_ours_meet_on_the_wire(sessions: Sessions) -> None:
    async def login(request: Request) -> Response:
        await sessions.start_session(request, "ada")
        response = Response(headers={"cache-control": "public", "vary": "Accept"})
        response.set_cookie("theme", "dark")
        response.set_cookie(sessions.cookie_name, "the app's")
        return response

    response = await Browser(make_app(sessions, Route("/mine", login))).get("/mine")
    theme, ours = response.headers.get_list("set-cookie")
    assert theme.startswith("theme=dark")
    assert ours.startswith("__Host-sid=0")
    assert response.headers.get_list("cache-control") == ["no-store"]
    assert response.headers.get_list("vary") == ["Accept, Cookie"]


async def test_every_answer_varies_by_cookie(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    assert (await browser.get("/")).headers["vary"] == "Cookie"
    for method, path in [
        ("POST", "/login?person=ada"),
        ("GET", "/"),
        ("HEAD", "/"),
        ("GET", "/missing"),
        ("POST", "/renew"),
        ("POST", "/logout"),
    ]:
        response = await browser.request(method, path)
        assert response.headers["vary"] == "Cookie", path
    assert (await browser.get("/")).headers["vary"] == "Cookie"


async def test_an_answer_to_somebody_is_private_unless_the_app_says_otherwise(
    sessions: Sessions,
) -> None:
    async def stored(request: Request) -> Response:
        return Response(headers={"cache-control": "public, max-age=60"})

    browser = Browser(make_app(sessions, Route("/stored", stored)))
    assert "cache-control" not in (await browser.get("/")).headers
    await browser.login("ada")
    assert (await browser.get("/")).headers["cache-control"] == "private"
    assert (await browser.get("/stored")).headers["cache-control"] == "public, max-age=60"


# --- its attributes -------------------------------------------------------------------------------


async def test_the_cookie_is_as_strict_as_it_can_be_by_default(sessions: Sessions) -> None:
    (cookie,) = set_cookies(await Browser(make_app(sessions)).post("/login?person=ada"))
    assert attributes(cookie) == {
        *("HttpOnly", "Secure", "SameSite=Lax", "Path=/"),
        f"Max-Age={30 * 24 * 60 * 60}",
    }


@pytest.mark.parametrize(
    ("options", "name", "expected"),
    [
        ({"cookie_domain": "test"}, "__Secure-sid", {"Domain=test", "Secure"}),
        ({"cookie_path": "/login"}, "__Secure-sid", {"Path=/login", "Secure"}),
        ({"cookie_samesite": "strict"}, "__Host-sid", {"SameSite=Strict", "Secure"}),
        (
            {"cookie_samesite": "none", "cookie_partitioned": True},
            "__Host-sid",
            {"SameSite=None", "Partitioned", "Secure"},
        ),
        ({"cookie_name": "login"}, "__Host-login", {"Path=/", "Secure"}),
        ({"cookie_secure": False}, "sid", {"Path=/"}),
    ],
)
async def test_the_options_are_on_the_wire(
    make_sessions: MakeSessions, options: dict[str, Any], name: str, expected: set[str]
) -> None:
    sessions = await make_sessions(**options)
    response = await Browser(make_app(sessions)).post("/login?person=ada")
    (cookie,) = response.headers.get_list("set-cookie")
    assert cookie.startswith(f"{name}=")
    assert sessions.cookie_name == name
    assert expected <= attributes(cookie)
    assert ("Secure" in attributes(cookie)) is ("Secure" in expected)


@pytest.mark.parametrize("samesite", ["lax", "strict", "none"])
async def test_logout_clears_with_the_attributes_of_login(
    make_sessions: MakeSessions, samesite: SameSite
) -> None:
    browser = Browser(make_app(await make_sessions(cookie_samesite=samesite)))
    (cookie,) = set_cookies(await browser.post("/login?person=ada&remember=0"))
    (cleared,) = set_cookies(await browser.post("/logout"))
    assert attributes(cleared) > attributes(cookie)
    assert cleared.startswith("__Host-sid=; Max-Age=0; ")
    assert list(browser.cookies.jar) == []


@pytest.mark.parametrize("lifetimes", [AAL2, BANKING])
async def test_max_age_is_the_time_until_the_session_expires(
    make_sessions: MakeSessions, clock: Clock, lifetimes: Lifetimes
) -> None:
    sessions = await make_sessions(lifetimes=lifetimes)
    browser = Browser(make_app(sessions))

    def max_age(response: httpx.Response) -> int:
        (cookie,) = set_cookies(response)
        (found,) = re.findall(r"Max-Age=(\d+);", cookie)
        return int(found)

    assert max_age(await browser.post("/login?person=ada")) == lifetimes.absolute.total_seconds()
    clock.turn(5 * MINUTE)
    (session,) = await sessions.list_sessions("ada")
    left = (session.expires_at - clock.now).total_seconds()
    assert (
        max_age(await browser.post("/renew"))
        == left
        == ((lifetimes.absolute - 5 * MINUTE).total_seconds())
    )


async def test_a_login_that_is_not_to_be_remembered_ends_with_the_browser(
    sessions: Sessions,
) -> None:
    browser = Browser(make_app(sessions))
    for path in ("/login?person=ada&remember=0", "/renew"):
        (cookie,) = set_cookies(await browser.post(path))
        assert attributes(cookie) == {"HttpOnly", "Secure", "SameSite=Lax", "Path=/"}
    (session,) = await sessions.list_sessions("ada")
    assert session.remember is False


# --- several of the name --------------------------------------------------------------------------

FOREIGN = "planted-by-a-sub-domain"


@pytest.mark.parametrize(
    "order",
    [
        ["mine", FOREIGN],
        [FOREIGN, "mine"],
        [FOREIGN, "mine", FOREIGN * 2],
        ["x" * 5000, "mine"],
        ["", "mine"],
        ["mine", "mine"],
    ],
)
async def test_the_value_that_verifies_wins_wherever_it_stands(
    sessions: Sessions, order: list[str]
) -> None:
    browser = Browser(make_app(sessions))
    sid, mine = await login(browser)
    values = [mine if value == "mine" else value for value in order]
    assert (await sent(browser, *values))["sid"] == sid


@pytest.mark.parametrize("position", [0, 1])
async def test_a_live_session_wins_over_a_dead_one_wherever_it_stands(
    sessions: Sessions, position: int
) -> None:
    browser = Browser(make_app(sessions))
    dead, dead_value = await login(browser, "bob")
    await sessions.end_session_by_id(dead)
    sid, value = await login(browser, "ada")
    values = [dead_value]
    values.insert(position, value)
    seen = await sent(browser, *values)
    assert (seen["sid"], seen["person_id"], seen["reason"]) == (sid, "ada", None)


async def test_of_two_live_sessions_the_first_wins(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    ada, ada_value = await login(browser, "ada")
    bob, bob_value = await login(browser, "bob")
    assert (await sent(browser, ada_value, bob_value))["sid"] == ada
    assert (await sent(browser, bob_value, ada_value))["sid"] == bob


async def test_two_dead_sessions_are_no_session(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    values = [(await login(browser, person))[1] for person in ("ada", "bob")]
    await sessions.end_all_sessions("ada")
    await sessions.end_all_sessions("bob")
    seen = await sent(browser, *values)
    assert (seen["sid"], seen["reason"]) == (None, "revoked")


async def test_a_cookie_without_its_prefix_is_not_ours(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    _, value = await login(browser)
    for name in ("sid", "__Secure-sid", "__host-sid"):
        assert (await sent(browser, value, name=name))["sid"] is None


# --- key rotation ---------------------------------------------------------------------------------


async def test_keys_can_be_rotated_under_the_feet_of_sessions(make_sessions: MakeSessions) -> None:
    before = Browser(make_app(await make_sessions(secret_key=OLD_KEY)))
    during = Browser(make_app(await make_sessions(secret_key=KEY, old_secret_keys=[OLD_KEY])))
    after = Browser(make_app(await make_sessions(secret_key=KEY)))

    old_sid, old_value = await login(before, "ada")
    new_sid, new_value = await login(during, "bob")

    # An old cookie still verifies, a new one is signed by the new key alone.
    assert (await sent(during, old_value))["sid"] == old_sid
    assert (await sent(during, new_value))["sid"] == new_sid
    assert (await sent(before, new_value))["sid"] is None

    # The dropped key verifies no more, and nobody else is out.
    assert (await sent(after, old_value))["sid"] is None
    assert (await sent(after, new_value))["sid"] == new_sid


async def test_a_renewed_cookie_outlives_the_key_that_signed_the_first(
    make_sessions: MakeSessions,
) -> None:
    sid, old_value = await login(Browser(make_app(await make_sessions(secret_key=OLD_KEY))))
    during = Browser(make_app(await make_sessions(secret_key=KEY, old_secret_keys=[OLD_KEY])))
    renewed = await during.post("/renew", headers={"cookie": f"__Host-sid={old_value}"})
    assert renewed.json()["sid"] == sid
    (value,) = [cookie.value for cookie in during.cookies.jar]
    assert value is not None
    after = Browser(make_app(await make_sessions(secret_key=KEY)))
    assert (await sent(after, value))["sid"] == sid


async def test_the_device_of_an_api_client_is_found_across_a_rotation(
    make_sessions: MakeSessions,
) -> None:
    before = make_app(await make_sessions(secret_key=OLD_KEY))
    during = make_app(await make_sessions(secret_key=KEY, old_secret_keys=[OLD_KEY]))
    first = (await Browser(before).see_as("ada"))["sid"]
    assert (await Browser(during).see_as("ada"))["sid"] == first
    assert (await Browser(before).see_as("ada"))["sid"] == first


async def test_a_revoked_api_client_stays_out_across_a_rotation(
    make_sessions: MakeSessions,
) -> None:
    before = await make_sessions(secret_key=OLD_KEY)
    during = await make_sessions(secret_key=KEY, old_secret_keys=[OLD_KEY])
    await Browser(make_app(before)).see_as("ada")
    await before.end_all_sessions("ada")
    seen = await Browser(make_app(during)).see_as("ada")
    assert (seen["sid"], seen["reason"], seen["user"]) == (None, "revoked", False)
