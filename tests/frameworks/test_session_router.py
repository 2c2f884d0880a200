"""`session_router`: it answers as `Sessions.routes` does, and its document says so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
import schemathesis
from fastapi import FastAPI

from asgi_sessions import ConfigurationError, SessionMiddleware, Sessions
from asgi_sessions.fastapi import describe_sessions, session_router
from asgi_sessions.testing import Clock, logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, set_cookies

HOUR = timedelta(hours=1)
UNKNOWN = "01890000-0000-7000-8000-000000000000"
FOREIGN = {"sec-fetch-site": "cross-site"}
HTMX = {"hx-request": "true"}
OPTIONS: dict[str, Any] = {
    "fresh_for": HOUR,
    "login_url": "/login",
    "confirm_url": "https://test/confirm",
}


def make(sessions: Sessions, *, described: bool = True) -> FastAPI:
    """The router at /api, and what it has to agree with at /page and /logout."""
    app = FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)
    app.include_router(session_router(sessions, **OPTIONS), prefix="/api")
    app.mount("/page", sessions.routes(html=False, **OPTIONS))
    app.mount("/leave", sessions.end_session_endpoint())
    if described:
        describe_sessions(app, sessions)
    return app


async def browse(app: FastAPI, sessions: Sessions, person: str) -> Browser:
    browser = Browser(app)
    browser.cookies.update(await logged_in_cookie(sessions, person))
    return browser


def check(app: FastAPI, operation: str, answer: httpx.Response) -> None:
    """That the document of an operation has this answer."""
    described = schemathesis.openapi.from_dict(app.openapi()).find_operation_by_id(operation)
    assert str(answer.status_code) in described.definition.raw["responses"]
    described.validate_response(answer)


async def test_it_answers_as_the_routes_do_and_its_document_says_so(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    sessions = await make_sessions()
    app = make(sessions)
    ann, stranger = await browse(app, sessions, "ann"), Browser(app)
    await logged_in_cookie(sessions, "ben")
    (bens,) = await sessions.list_sessions("ben")
    clock.turn(timedelta(seconds=1))
    await logged_in_cookie(sessions, "ann")
    lost = (await sessions.list_sessions("ann"))[0].sid  # the newest

    # Each of the two is asked for the same.
    async def same(
        browser: Browser, method: str, path: str, operation: str, status: int, **how: Any
    ) -> httpx.Response:
        answer = await browser.request(method, f"/api{path}", **how)
        other = await browser.request(method, f"/page{path}", **how)
        assert (answer.status_code, answer.text) == (status, other.text)
        assert answer.headers["cache-control"] == other.headers["cache-control"] == "no-store"
        assert answer.headers.get("hx-redirect") == other.headers.get("hx-redirect")
        check(app, operation, answer)
        return answer

    one = f"/{lost}"
    await same(ann, "GET", "/", "list_sessions", 200)
    await same(stranger, "GET", "/", "list_sessions", 401)
    await same(stranger, "DELETE", one, "end_session", 401)
    await same(stranger, "POST", "/end-others", "end_other_sessions", 401)
    await same(ann, "DELETE", one, "end_session", 403, headers=FOREIGN)
    await same(ann, "POST", "/end-others", "end_other_sessions", 403, headers=FOREIGN)
    for sid in (UNKNOWN, bens.sid):
        await same(ann, "DELETE", f"/{sid}", "end_session", 404)
    clock.turn(HOUR + timedelta(seconds=1))
    for how in ({}, HTMX):
        await same(ann, "DELETE", one, "end_session", 403, headers=how)
    clock.turn(-HOUR)
    await same(ann, "DELETE", one, "end_session", 204)  # and again: it is over
    ended = await same(ann, "GET", "/?ended=1", "list_sessions", 200)
    assert [(had["sid"], had["end_reason"]) for had in ended.json()["ended"]] == [(lost, "revoked")]
    assert (await ann.post("/api/end-others")).json() == {"ended": 0}
    check(app, "end_other_sessions", await ann.post("/api/end-others"))


async def test_its_logout_is_the_logout_route(sessions: Sessions) -> None:
    app = make(sessions)
    browser = await browse(app, sessions, "ann")
    refused = await browser.post("/api/logout", headers=FOREIGN)
    assert refused.json() == (await browser.post("/leave/", headers=FOREIGN)).json()
    check(app, "logout", refused)
    for _ in range(2):  # as often as you like
        answer = await browser.post("/api/logout")
        assert answer.json() == {"message": "session ended"}
        assert set_cookies(answer)
        check(app, "logout", answer)
        browser.cookies.clear()
    assert (await browser.get("/api/")).json()["detail"] == "not logged in"


async def test_an_outage_is_no_logout(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions()
    broken = Sessions("sqlite:////nowhere/else.db", secret_key=KEY, on_unavailable="anonymous")
    app = make(broken)
    browser = await browse(app, sessions, "ann")
    for method, path, operation in (
        ("GET", "/api/", "list_sessions"),
        ("DELETE", f"/api/{UNKNOWN}", "end_session"),
        ("POST", "/api/end-others", "end_other_sessions"),
    ):
        answer = await browser.request(method, path)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        check(app, operation, answer)
    await broken.disconnect()


async def test_what_is_no_sid_is_told_to_those_who_are_logged_in(sessions: Sessions) -> None:
    app = make(sessions)
    assert (await Browser(app).delete("/api/nothing")).status_code == 401
    answer = await (await browse(app, sessions, "ann")).delete("/api/nothing")
    assert answer.status_code == 422
    check(app, "end_session", answer)


@pytest.mark.parametrize("described", [True, False])
def test_the_document_names_the_operations_and_the_cookie(described: bool) -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY, cookie_name="me", cookie_path="/app")
    document = make(sessions, described=described).openapi()
    operations = {
        one["operationId"]: (method, path, one["security"], set(one["responses"]))
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    }
    asked: Any = [{"session": []}]
    ends = {"401", "403", "503"}
    assert operations == {
        "list_sessions": ("get", "/api/", asked, {"200", "401", "422", "503"}),
        "end_session": ("delete", "/api/{sid}", asked, {"204", "404", "422", *ends}),
        "end_other_sessions": ("post", "/api/end-others", asked, {"200", *ends}),
        "logout": ("post", "/api/logout", [*asked, {}], {"200", "403", "503"}),
    }
    assert document["components"]["securitySchemes"]["session"] == {
        "type": "apiKey",
        "in": "cookie",
        "name": "__Secure-me",
    }


def test_options_that_cannot_be_are_refused() -> None:
    router: Callable[..., Any] = session_router
    with pytest.raises(ConfigurationError, match=r"session_router\(None\): pass the Sessions"):
        router(None)
    sessions = Sessions("sqlite:///never.db", secret_key=KEY)
    with pytest.raises(ConfigurationError, match=r"fresh_for=3600.*; login_url='login'"):
        router(sessions, fresh_for=3600, login_url="login")
    with pytest.raises(ConfigurationError, match="clear_site_data='cache'"):
        router(sessions, clear_site_data="cache")
