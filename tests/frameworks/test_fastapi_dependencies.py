"""`asgi_sessions.fastapi`: who gets past a dependency, and what the OpenAPI document says."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Request, WebSocket
from fastapi.security import HTTPBearer
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse

from asgi_sessions import ConfigurationError, Session, SessionMiddleware, Sessions
from asgi_sessions.fastapi import (
    CurrentSession,
    OptionalSession,
    current_session,
    current_session_of,
    describe_sessions,
    fresh_session,
    fresh_session_of,
    session_router,
)
from asgi_sessions.testing import Clock, logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import KEY, Browser

HOUR = timedelta(hours=1)


def routes(app: FastAPI | APIRouter) -> None:
    @app.get("/current")
    async def current(session: CurrentSession) -> str:
        return session.sid

    @app.get("/thread")
    def in_a_thread(session: CurrentSession) -> str:
        return session.sid

    @app.get("/optional")
    async def optional(session: OptionalSession) -> str | None:
        return None if session is None else session.sid

    @app.get("/fresh")
    async def fresh(session: Annotated[Session, fresh_session(HOUR)]) -> str:
        return session.sid

    @app.get("/guarded", dependencies=[fresh_session(HOUR)])
    async def guarded() -> str:
        return "come in"


def make(sessions: Sessions) -> FastAPI:
    app = FastAPI()
    routes(app)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


async def browse(sessions: Sessions, person: str | None = None) -> Browser:
    browser = Browser(make(sessions))
    if person is not None:
        browser.cookies.update(await logged_in_cookie(sessions, person))
    return browser


@pytest.mark.parametrize("path", ["/current", "/thread", "/fresh", "/guarded"])
async def test_a_stranger_is_asked_to_log_in(sessions: Sessions, path: str) -> None:
    answer = await (await browse(sessions)).get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Cookie"
    assert answer.json() == {
        "detail": {
            "error": "login_required",
            "error_description": "log in first",
            "reason": None,
        }
    }


async def test_whoever_was_logged_out_is_told_why(sessions: Sessions) -> None:
    browser = await browse(sessions, "ann")
    await sessions.end_all_sessions("ann")
    assert (await browser.get("/current")).json()["detail"]["reason"] == "revoked"


async def test_whoever_has_a_session_gets_it(sessions: Sessions) -> None:
    browser = await browse(sessions, "ann")
    (session,) = await sessions.list_sessions("ann")
    for path in ("/current", "/thread", "/optional", "/fresh"):
        assert (await browser.get(path)).json() == session.sid
    assert (await browser.get("/guarded")).json() == "come in"
    assert (await (await browse(sessions)).get("/optional")).json() is None


async def test_a_proof_counts_as_long_as_it_is_said(sessions: Sessions, clock: Clock) -> None:
    browser = await browse(sessions, "ann")
    proof = clock.now
    clock.turn(HOUR)
    assert (await browser.get("/fresh")).status_code == 200
    clock.turn(timedelta(microseconds=1))
    for path in ("/fresh", "/guarded"):
        answer = await browser.get(path)
        assert answer.status_code == 403
        assert answer.json() == {
            "detail": {
                "error": "insufficient_user_authentication",
                "error_description": "prove again who you are: the last time was too long ago",
                "authenticated_at": proof.isoformat(),
                "max_age": 3600,
            }
        }
    assert (await browser.get("/current")).status_code == 200


async def test_where_nobody_knows_when_nobody_is_fresh(sessions: Sessions) -> None:
    app = make(sessions)

    async def vouched_for(scope: Any, receive: Any, send: Any) -> None:
        await app({**scope, "user": {"id": "ann"}}, receive, send)

    answer = await Browser(vouched_for).get("/fresh")
    assert answer.status_code == 403
    assert answer.json()["detail"]["authenticated_at"] is None


async def test_htmx_is_led_to_the_login_and_to_the_confirmation(
    sessions: Sessions, clock: Clock
) -> None:
    app = FastAPI()
    current = Depends(current_session_of(sessions, login_url="/login"))
    both = fresh_session(HOUR, login_url="/login", confirm_url="/confirm")
    guards = {
        "/current": current,
        "/both": both,
        "/one": fresh_session_of(sessions, HOUR, login_url="/login"),
        "/none": fresh_session(HOUR),
    }
    for path, guard in guards.items():
        app.get(path, dependencies=[guard])(answer)
    app.add_middleware(SessionMiddleware, sessions=sessions)

    async def led(browser: Browser, **headers: str) -> list[str | None]:
        answers = [await browser.get(path, headers=headers) for path in guards]
        return [one.headers.get("hx-redirect") for one in answers]

    browser = Browser(app)
    assert await led(browser, **{"hx-request": "true"}) == ["/login", "/login", "/login", None]
    assert await led(browser) == [None] * 4
    browser.cookies.update(await logged_in_cookie(sessions, "ann"))
    clock.turn(2 * HOUR)
    assert await led(browser, **{"hx-request": "true"}) == [None, "/confirm", "/login", None]
    assert await led(browser) == [None] * 4


def test_a_url_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"login_url='login'.*; confirm_url='//evil'"):
        fresh_session(HOUR, login_url="login", confirm_url="//evil")
    with pytest.raises(ConfigurationError, match="login_url='login'"):
        current_session_of(Sessions("sqlite:///never.db", secret_key=KEY), login_url="login")


@pytest.mark.parametrize("max_age", [timedelta(0), -HOUR, 3600, None])
def test_an_age_that_cannot_be_one_is_refused(max_age: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^max_age=.*: use a datetime.timedelta of more"):
        fresh_session(max_age)


@pytest.mark.parametrize("path", ["/current", "/optional", "/fresh"])
async def test_without_the_middleware_the_mend_is_named(path: str) -> None:
    app = FastAPI()
    routes(app)
    with pytest.raises(ConfigurationError, match="did not pass through SessionMiddleware"):
        await Browser(app).get(path)


async def test_an_outage_is_no_logout(tmp_path: Path) -> None:
    working = Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)
    await working.create_tables()
    broken = Sessions(
        f"sqlite:///{tmp_path}/missing/sessions.db", secret_key=KEY, on_unavailable="anonymous"
    )
    browser = await browse(broken)
    browser.cookies.update(await logged_in_cookie(working, "ann"))
    assert (await browser.get("/optional")).json() is None
    for path in ("/current", "/fresh"):
        answer = await browser.get(path)
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
    browser.cookies.clear()
    assert (await browser.get("/current")).status_code == 401
    await working.disconnect()
    await broken.disconnect()


async def test_a_websocket_asks_in_the_same_way(sessions: Sessions) -> None:
    app = make(sessions)

    @app.websocket("/socket")
    async def tell(websocket: WebSocket, session: CurrentSession) -> None:
        await websocket.accept()
        await websocket.send_text(session.person_id)
        await websocket.close()

    cookie = await logged_in_cookie(sessions, "ann")
    with TestClient(app, base_url="https://test") as client:
        with (
            pytest.raises(WebSocketDenialResponse) as refused,
            client.websocket_connect("wss://test/socket"),
        ):
            pass
        assert refused.value.status_code == 401
        client.cookies.update(cookie)
        with client.websocket_connect("wss://test/socket") as socket:
            assert socket.receive_text() == "ann"


# --- the OpenAPI document -------------------------------------------------------------------------


def test_the_document_says_who_asks_for_the_cookie() -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY, cookie_name="me", cookie_path="/app")
    app = make(sessions)
    describe_sessions(app, sessions)
    for _ in range(2):  # FastAPI keeps it
        document = app.openapi()
        assert document["components"]["securitySchemes"] == {
            "session": {"type": "apiKey", "in": "cookie", "name": "__Secure-me"}
        }
        operations = {path: methods["get"] for path, methods in document["paths"].items()}
        responses = {path: set(one["responses"]) for path, one in operations.items()}
        assert responses == {
            "/current": {"200", "401"},
            "/thread": {"200", "401"},
            "/optional": {"200"},
            "/fresh": {"200", "401", "403"},
            "/guarded": {"200", "401", "403"},
        }
        assert "security" not in operations["/optional"]
        for path in ("/current", "/fresh", "/guarded"):
            assert operations[path]["security"] == [{"session": []}]


def test_the_document_has_the_token_beside_the_cookie() -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY, bearer=True)
    app = make(sessions)
    app.include_router(session_router(sessions), prefix="/api")
    router_alone = app.openapi()["paths"]["/api/"]["get"]["security"]
    describe_sessions(app, sessions)
    for _ in range(2):  # FastAPI keeps it
        document = app.openapi()
        assert document["components"]["securitySchemes"]["session_token"] == {
            "type": "http",
            "scheme": "bearer",
        }
        either: Any = [{"session": []}, {"session_token": []}]
        for path in ("/current", "/fresh", "/guarded", "/api/"):
            assert document["paths"][path]["get"]["security"] == router_alone == either
        assert document["paths"]["/api/logout"]["post"]["security"] == [*either, {}]
        assert "security" not in document["paths"]["/optional"]["get"]


async def test_a_token_is_asked_for_and_lets_in(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(bearer=True)
    app = make(sessions)
    app.include_router(session_router(sessions), prefix="/api")

    @app.post("/token")
    async def log_in(request: Request) -> str:
        return (await sessions.start_token(request, {"id": "ann"})).token

    browser = Browser(app)
    assert (await browser.get("/current")).headers["www-authenticate"] == "Bearer"
    token = (await browser.post("/token")).json()
    foreign = {"authorization": f"Bearer {token}", "sec-fetch-site": "cross-site"}
    (session,) = (await browser.get("/api/", headers=foreign)).json()["sessions"]
    assert (await browser.get("/current", headers=foreign)).json() == session["sid"]
    assert session["bearer"] is True
    # No site can have a browser send it.
    assert (await browser.post("/api/logout", headers=foreign)).status_code == 200
    assert (await browser.get("/current", headers=foreign)).status_code == 401


def test_without_a_word_the_document_has_the_cookie_of_the_defaults() -> None:
    document = make(Sessions("sqlite:///never.db", secret_key=KEY)).openapi()
    assert document["components"]["securitySchemes"]["session"]["name"] == "__Host-sid"


def test_what_the_app_says_of_its_answers_stays() -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY)
    app = FastAPI()
    describe_sessions(app, sessions)

    @app.get(
        "/", responses={401: {"description": "who are you?"}}, dependencies=[fresh_session(HOUR)]
    )
    async def guarded() -> None:
        """Nothing."""

    responses = app.openapi()["paths"]["/"]["get"]["responses"]
    assert responses["401"]["description"] == "who are you?"
    assert responses["403"]["description"]


def test_each_scheme_is_asked_for_once_beside_those_of_the_app() -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY)
    app = FastAPI()
    describe_sessions(app, sessions)
    guards = [Depends(HTTPBearer()), Depends(current_session), fresh_session(HOUR)]
    app.get("/", dependencies=guards)(answer)
    document = app.openapi()
    assert document["components"]["securitySchemes"].keys() == {"HTTPBearer", "session"}
    asked = {name for one in document["paths"]["/"]["get"]["security"] for name in one}
    assert asked == {"HTTPBearer", "session"}
    assert len(document["paths"]["/"]["get"]["security"]) == len(asked)


def test_an_app_without_any_of_it_keeps_its_document() -> None:
    app, plain = FastAPI(), FastAPI()
    describe_sessions(app, Sessions("sqlite:///never.db", secret_key=KEY))
    for one in (app, plain):
        one.get("/")(answer)
        one.add_api_route("/key", answer, dependencies=[Depends(lambda: None)])
    assert app.openapi() == plain.openapi()


async def answer() -> None:
    """Nothing."""


def test_a_whole_router_can_be_guarded() -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY)
    router = APIRouter(prefix="/inside", dependencies=[Depends(current_session)])
    router.get("/")(answer)
    app = FastAPI()
    app.include_router(router)
    describe_sessions(app, sessions)
    assert "401" in app.openapi()["paths"]["/inside/"]["get"]["responses"]


@pytest.mark.parametrize("wrong", [None, "sessions", FastAPI])
def test_what_is_no_sessions_is_refused(wrong: Any) -> None:
    describe: Callable[..., None] = describe_sessions
    with pytest.raises(ConfigurationError, match=r"describe_sessions\(app, .*pass the Sessions"):
        describe(FastAPI(), wrong)
