"""`asgi_sessions.litestar`: what one line adds, and who gets past a guard."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from litestar import Litestar, Request, WebSocket, asgi, get, post, websocket
from litestar.config.response_cache import ResponseCacheConfig, default_cache_key_builder
from litestar.connection import ASGIConnection
from litestar.di import NamedDependency, Provide
from litestar.exceptions import WebSocketDisconnect
from litestar.handlers import BaseRouteHandler
from litestar.middleware import DefineMiddleware
from litestar.openapi import OpenAPIConfig
from litestar.openapi.spec import Components, SecurityScheme
from litestar.params import FromPath
from litestar.response import Response
from litestar.response.base import ASGIResponse
from litestar.security.jwt import JWTAuth, Token
from litestar.static_files import create_static_files_router
from litestar.testing import TestClient

from asgi_sessions import (
    ConfigurationError,
    Person,
    Session,
    SessionMiddleware,
    Sessions,
    SessionsUnavailable,
)
from asgi_sessions._litestar_user import RetrieveUser
from asgi_sessions.litestar import (
    CurrentSession,
    OptionalSession,
    SessionsPlugin,
    requires_fresh_session,
    requires_session,
)
from asgi_sessions.testing import Clock, logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import KEY, Browser, Vouch, vouched

HOUR = timedelta(hours=1)
AnyRequest = Request[Any, Any, Any]


@get("/current")
async def current(current_session: CurrentSession) -> str:
    return current_session.sid


@get("/optional")
async def optional(optional_session: OptionalSession) -> str:
    return str(optional_session and optional_session.sid)


@get("/guarded", guards=[requires_session])
async def guarded(request: AnyRequest) -> str:
    return str(request.state.sid)


@get("/fresh", guards=[requires_fresh_session(HOUR)])
async def fresh(current_session: CurrentSession) -> str:
    return current_session.sid


@get("/")
async def home(request: AnyRequest) -> str:
    return str(request.state.sid)


HANDLERS: list[Any] = [current, optional, guarded, fresh, home]


def make(sessions: Sessions, **options: Any) -> Any:  # Browser takes Starlette's kind of ASGI
    return Litestar(HANDLERS, plugins=[SessionsPlugin(sessions)], **options)


def as_asgi(app: Litestar) -> Any:  # Browser takes Starlette's kind
    return app


async def browse(sessions: Sessions, person: str | None = None) -> Browser:
    browser = Browser(make(sessions))
    if person is not None:
        browser.cookies.update(await logged_in_cookie(sessions, person))
    return browser


# --- who gets past --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/current", "/guarded", "/fresh"])
async def test_a_stranger_is_asked_to_log_in(sessions: Sessions, path: str) -> None:
    answer = await (await browse(sessions)).get(path)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Cookie"
    assert answer.json() == {
        "status_code": 401,
        "detail": "log in first",
        "extra": {
            "error": "login_required",
            "error_description": "log in first",
            "reason": None,
        },
    }


async def test_whoever_was_logged_out_is_told_why(sessions: Sessions) -> None:
    browser = await browse(sessions, "ann")
    await sessions.end_all_sessions("ann")
    assert (await browser.get("/guarded")).json()["extra"]["reason"] == "revoked"


async def test_whoever_has_a_session_gets_it(sessions: Sessions) -> None:
    browser = await browse(sessions, "ann")
    (session,) = await sessions.list_sessions("ann")
    for path in ("/current", "/optional", "/guarded", "/fresh", "/"):
        assert (await browser.get(path)).text == session.sid
    stranger = await browse(sessions)
    assert (await stranger.get("/optional")).text == "None"
    assert (await stranger.get("/")).text == "None"


async def test_a_proof_counts_as_long_as_it_is_said(sessions: Sessions, clock: Clock) -> None:
    browser = await browse(sessions, "ann")
    proof = clock.now
    clock.turn(HOUR)
    assert (await browser.get("/fresh")).status_code == 200
    clock.turn(timedelta(microseconds=1))
    answer = await browser.get("/fresh")
    assert answer.status_code == 403
    message = "prove again who you are: the last time was too long ago"
    assert answer.json() == {
        "status_code": 403,
        "detail": message,
        "extra": {
            "error": "insufficient_user_authentication",
            "error_description": message,
            "authenticated_at": proof.isoformat(),
            "max_age": 3600,
        },
    }
    assert (await browser.get("/guarded")).status_code == 200


def test_an_age_that_cannot_be_one_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"use a datetime\.timedelta of more"):
        requires_fresh_session(timedelta(0))


async def test_a_websocket_asks_in_the_same_way(sessions: Sessions) -> None:
    @websocket("/socket", guards=[requires_session])
    async def tell(socket: WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_text(socket.state.sid)
        await socket.close()

    cookie = await logged_in_cookie(sessions, "ann")
    (session,) = await sessions.list_sessions("ann")
    app = Litestar([tell], plugins=[SessionsPlugin(sessions)])
    with TestClient(app, base_url="https://test.local") as client:
        with pytest.raises(WebSocketDisconnect) as closed, client.websocket_connect("/socket"):
            pass
        assert closed.value.code == 4500  # Litestar's for every fault
        assert closed.value.detail == "log in first"
        client.cookies.update(cookie)
        with client.websocket_connect("wss://test.local/socket") as socket:
            assert socket.receive_text() == session.sid


async def test_an_outage_is_no_logout(tmp_path: Path) -> None:
    working = Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)
    await working.create_tables()
    broken = Sessions(
        f"sqlite:///{tmp_path}/missing/sessions.db", secret_key=KEY, on_unavailable="anonymous"
    )
    browser = Browser(make(broken))
    browser.cookies.update(await logged_in_cookie(working, "ann"))
    assert (await browser.get("/optional")).text == "None"
    for path in ("/current", "/guarded", "/fresh"):
        answer = await browser.get(path)
        assert answer.status_code == 503
        assert answer.headers["retry-after"]
        assert answer.headers["cache-control"] == "no-store"
    await working.disconnect()
    await broken.disconnect()


async def test_htmx_is_led_to_the_login_and_to_the_confirmation(
    sessions: Sessions, clock: Clock
) -> None:
    htmx = {"hx-request": "true"}

    async def led(browser: Browser, **headers: str) -> list[str | None]:
        answers = [await browser.get(path, headers=headers) for path in ("/guarded", "/fresh")]
        return [one.headers.get("hx-redirect") for one in answers]

    plugin = SessionsPlugin(sessions, login_url="/login", confirm_url="/confirm")
    browser = Browser(as_asgi(Litestar(HANDLERS, plugins=[plugin])))
    simple = Browser(as_asgi(Litestar(HANDLERS, plugins=[SessionsPlugin(sessions)])))
    mine = [DefineMiddleware(SessionMiddleware, sessions=sessions)]
    without = Browser(as_asgi(Litestar([guarded], middleware=mine, openapi_config=None)))
    assert await led(browser, **htmx) == ["/login", "/login"]
    assert await led(browser) == await led(simple, **htmx) == [None, None]
    assert await led(without, **htmx) == [None, None]
    cookie = await logged_in_cookie(sessions, "ann")
    clock.turn(2 * HOUR)
    for one in (browser, simple):
        one.cookies.update(cookie)
    assert await led(browser, **htmx) == [None, "/confirm"]
    assert await led(browser) == await led(simple, **htmx) == [None, None]


# --- request.user ---------------------------------------------------------------------------------


@dataclass
class User:
    name: str


@get("/me")
async def me(request: AnyRequest) -> dict[str, str | None]:
    user, session = request.user, request.auth
    return {"user": user and user.name, "sid": session and session.sid}


@get("/welcome", sync_to_thread=False)
def welcome(request: AnyRequest) -> str:
    return f"Hello, {request.user.name if request.user else 'stranger'}"


@get("/open", exclude_from_auth=True)
async def open_to_all(request: AnyRequest) -> str:
    return str(request.user)


USER_HANDLERS: list[Any] = [me, welcome, open_to_all]
USERS = {"ann": User("Ann")}


async def retrieve_later(session: Session) -> User | None:
    return USERS.get(session.person_id)


@pytest.mark.parametrize("retrieve", [retrieve_later, lambda one: USERS.get(one.person_id)])
async def test_the_user_comes_from_the_session_and_a_stranger_is_refused(
    sessions: Sessions, retrieve: RetrieveUser
) -> None:
    plugin = SessionsPlugin(sessions, retrieve_user=retrieve, exclude=["^/welcome"])
    app = Litestar(USER_HANDLERS, plugins=[plugin])
    ann, ghost, stranger = (Browser(as_asgi(app)) for _ in range(3))
    ann.cookies.update(await logged_in_cookie(sessions, "ann"))
    ghost.cookies.update(await logged_in_cookie(sessions, "ghost"))  # whose row is gone
    (session,) = await sessions.list_sessions("ann")
    assert (await ann.get("/me")).json() == {"user": "Ann", "sid": session.sid}
    assert (await ann.get("/welcome")).text == "Hello, Ann"
    for browser in (ghost, stranger):
        refused = await browser.get("/me")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Cookie"
        assert refused.json()["extra"]["error"] == "login_required"
        assert (await browser.get("/welcome")).text == "Hello, stranger"
        assert (await browser.get("/open")).text == "None"
    await sessions.end_all_sessions("ann")
    assert (await ann.get("/me")).json()["extra"]["reason"] == "revoked"
    operations = described(app)["paths"]
    assert operations["/me"]["get"]["security"] == [{"session": []}]
    assert "401" in operations["/me"]["get"]["responses"]
    assert not any("security" in operations[path]["get"] for path in ("/welcome", "/open"))


async def test_no_spelling_of_a_path_opens_what_is_beside_the_open_one(
    plain: Sessions, tmp_path: Path
) -> None:
    for name in ("public", "private"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page").write_text(name)

    @asgi("/admin", is_mount=True, copy_scope=True)
    async def admin(scope: Any, receive: Any, send: Any) -> None:
        await ASGIResponse(body=b"admin")(scope, receive, send)

    async def status(app: Any, path: str) -> int:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "GET", "headers": [], "query_string": b"", "state": {}}
        await app({**scope, "path": unquote(path), "raw_path": path.encode()}, None, send)
        return int(sent[0]["status"])

    def app(*open_paths: str) -> Litestar:
        plugin = SessionsPlugin(plain, retrieve_user=retrieve_later, exclude=open_paths)
        files = create_static_files_router("/files", [tmp_path])
        return Litestar([files, admin], plugins=[plugin], openapi_config=None)

    files, lookahead = app("^/files/public", "^/admin/login"), app("^/(?!admin|9)")
    for path in ("/files/public/page", "/admin/login", "/admin/login/"):
        assert await status(files, path) == 200
    for path in ("/../private", "/..%2fprivate", "/%2e%2e%5cprivate"):
        assert await status(files, f"/files/public{path}/page") == 401
    for path in ("/admin", "/%61dmin", "//admin", "/admin/login/../users"):
        assert await status(lookahead, path) == await status(files, path) == 401


async def test_a_token_of_litestars_opens_a_session_until_all_are_ended_and_a_newer_one_again(
    make_sessions: MakeSessions,
) -> None:
    clock = Clock(datetime(2020, 1, 1, tzinfo=UTC))  # Litestar takes no token from the future
    sessions = await make_sessions(clock=clock)
    never = datetime(2100, 1, 1, tzinfo=UTC)

    async def of_the_token(token: Token, _: ASGIConnection[Any, Any, Any, Any]) -> dict[str, str]:
        return {"id": token.sub}

    @get("/deaf")
    async def deaf() -> str:  # looks at no user
        return "come in"

    def bearer() -> dict[str, str]:
        token = Token(sub="ann", iat=clock.now, exp=never).encode(KEY, "HS256")
        return {"authorization": f"Bearer {token}"}

    async def seen(headers: dict[str, str]) -> list[int]:
        answers = [await browser.get(path, headers=headers) for path in ("/welcome", "/deaf")]
        return [one.status_code for one in answers]

    layer = JWTAuth[dict[str, str]](token_secret=KEY, retrieve_user_handler=of_the_token)
    plugin = SessionsPlugin(sessions, retrieve_user=retrieve_later)
    app = Litestar([welcome, deaf], on_app_init=[layer.on_app_init], plugins=[plugin])
    browser = Browser(as_asgi(app))
    old = bearer()
    assert await seen(old) == [200, 200]
    (session,) = await sessions.list_sessions("ann")
    assert (session.origin, session.started_at) == ("scope", clock.now)
    clock.turn(HOUR)
    await sessions.end_all_sessions("ann")
    assert await seen(old) == [401, 401]
    clock.turn(HOUR)
    assert await seen(bearer()) == [200, 200]
    assert await seen(old) == [200, 200]  # the device has a session again


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({"exclude": ["/login"]}, "so it needs retrieve_user="),
        ({"retrieve_user": "ann"}, r"retrieve_user='ann'\): use a function of the session"),
        ({"retrieve_user": retrieve_later, "exclude": 7}, "exclude=7.*: use a list of regular"),
        ({"retrieve_user": retrieve_later, "exclude": "("}, r"exclude='\('\): missing \)"),
        ({"login_url": "login"}, "login_url='login': use a path"),
    ],
)
def test_an_option_that_cannot_be_is_refused(options: Any, mend: str) -> None:
    with pytest.raises(ConfigurationError, match=mend):
        SessionsPlugin(Sessions("sqlite:///never.db", secret_key=KEY), **options)


# --- what the plugin adds -------------------------------------------------------------------------


async def test_the_sessions_are_there_before_the_lifespan_of_the_app_and_go_after_it(
    tmp_path: Path,
) -> None:
    sessions = Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)
    connected: list[bool] = []

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        connected.append(sessions.database.is_connected)
        yield
        connected.append(sessions.database.is_connected)

    app = make(sessions, lifespan=[lifespan])
    async with app.lifespan():
        assert sessions.database.is_connected
    assert connected == [True, True]
    assert not sessions.database.is_connected


def middlewares(app: Litestar) -> list[Any]:
    return [getattr(one, "middleware", one) for one in app.middleware]


async def test_the_middleware_is_inside_of_what_authenticates(sessions: Sessions) -> None:
    app = make(sessions, middleware=[Vouch])
    assert middlewares(app) == [Vouch, SessionMiddleware]
    answer = await Browser(app).get("/current", headers=vouched("ann"))
    (session,) = await sessions.list_sessions("ann")
    assert answer.text == session.sid


async def test_the_middleware_stays_where_the_app_has_put_it(sessions: Sessions) -> None:
    mine = DefineMiddleware(SessionMiddleware, sessions=sessions)
    assert middlewares(make(sessions, middleware=[mine, Vouch])) == [SessionMiddleware, Vouch]


async def test_the_person_is_read_by_whom_the_app_says(sessions: Sessions) -> None:
    plugin = SessionsPlugin(sessions, person=lambda _: Person("ann"))
    app: Any = Litestar(HANDLERS, plugins=[plugin])
    answer = await Browser(app).get("/current")
    (session,) = await sessions.list_sessions("ann")
    assert answer.text == session.sid


async def test_what_the_app_has_under_the_same_names_stays(tmp_path: Path) -> None:
    def mine() -> str:
        return "mine"

    def unavailable(_: AnyRequest, __: SessionsUnavailable) -> Response[str]:
        return Response("back soon", status_code=418)

    @get("/mine", dependencies={"current_session": Provide(mine, sync_to_thread=False)})
    async def of_the_apps_own(current_session: NamedDependency[str]) -> str:
        return current_session

    broken = Sessions(
        f"sqlite:///{tmp_path}/missing/sessions.db", secret_key=KEY, on_unavailable="anonymous"
    )
    app: Any = Litestar(
        [of_the_apps_own, guarded],
        plugins=[SessionsPlugin(broken)],
        exception_handlers={SessionsUnavailable: unavailable},
    )
    browser = Browser(app)
    assert (await browser.get("/mine")).text == "mine"
    working = Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)
    await working.create_tables()
    browser.cookies.update(await logged_in_cookie(working, "ann"))
    assert (await browser.get("/guarded")).status_code == 418
    assert "security" not in described(app)["paths"]["/mine"]["get"]
    await working.disconnect()
    await broken.disconnect()


@pytest.mark.parametrize("wrong", [None, "sessions", Litestar])
def test_what_is_no_sessions_is_refused(wrong: Any) -> None:
    plugin: Callable[..., Any] = SessionsPlugin
    with pytest.raises(ConfigurationError, match=r"SessionsPlugin\(.*pass the Sessions of your"):
        plugin(wrong)


async def test_without_the_plugin_the_mend_is_named() -> None:
    # Asked directly: Litestar would make a 500 of it, and a record in its log.
    scope: Any = {"type": "http", "headers": [], "state": {}}
    handler: Any = BaseRouteHandler
    with pytest.raises(ConfigurationError, match="did not pass through SessionMiddleware"):
        await requires_session(ASGIConnection(scope), handler)


# --- the OpenAPI document -------------------------------------------------------------------------


def described(app: Litestar) -> dict[str, Any]:
    return app.openapi_schema.to_schema()


def test_the_document_says_who_asks_for_the_cookie() -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY, cookie_name="me", cookie_path="/app")
    document = described(make(sessions))
    assert document["components"]["securitySchemes"] == {
        "session": {"type": "apiKey", "in": "cookie", "name": "__Secure-me"}
    }
    operations = {path: methods["get"] for path, methods in document["paths"].items()}
    asks = {path: (set(one["responses"]), one.get("security")) for path, one in operations.items()}
    asked: Any = [{"session": []}]
    assert asks == {
        "/": ({"200"}, None),
        "/optional": ({"200"}, None),
        "/current": ({"200", "401"}, asked),
        "/guarded": ({"200", "401"}, asked),
        "/fresh": ({"200", "401", "403"}, asked),
    }


async def test_a_token_lets_in_and_is_in_the_document(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(bearer=True)

    @post("/token", status_code=200)
    async def log_in(request: AnyRequest) -> str:
        return (await sessions.start_token(request, {"id": "ann"})).token

    app = Litestar([*HANDLERS, log_in], plugins=[SessionsPlugin(sessions)])
    document = described(app)
    token: Any = {"type": "http", "scheme": "bearer"}
    assert document["components"]["securitySchemes"]["session_token"] == token
    either: Any = [{"session": []}, {"session_token": []}]
    assert document["paths"]["/guarded"]["get"]["security"] == either
    browser = Browser(as_asgi(app))
    assert (await browser.get("/guarded")).headers["www-authenticate"] == "Bearer"
    issued = (await browser.post("/token")).text
    answer = await browser.get("/guarded", headers={"authorization": f"Bearer {issued}"})
    (session,) = await sessions.list_sessions("ann")
    assert answer.text == session.sid


def test_a_guard_of_the_whole_app_is_in_the_document_of_each_handler() -> None:
    sessions = Sessions("sqlite:///never.db", secret_key=KEY)
    document = described(make(sessions, guards=[requires_session]))
    for methods in document["paths"].values():
        assert methods["get"]["security"] == [{"session": []}]


@pytest.mark.parametrize("components", [Components, list])
def test_what_the_app_says_in_its_document_stays(components: type) -> None:
    mine = Components(security_schemes={"key": SecurityScheme(type="http", scheme="bearer")})
    config = OpenAPIConfig(
        title="Shop", version="1", components=mine if components is Components else [mine]
    )
    app = make(Sessions("sqlite:///never.db", secret_key=KEY), openapi_config=config)
    assert described(app)["components"]["securitySchemes"].keys() == {"key", "session"}
    assert config.components in (mine, [mine])  # another app may use it


def test_two_apps_do_not_know_each_other() -> None:
    ours = make(Sessions("sqlite:///never.db", secret_key=KEY))
    assert "session" in described(ours)["components"]["securitySchemes"]
    others = described(Litestar([home]))
    assert "session" not in others["components"].get("securitySchemes", {})


def test_an_app_without_a_document_needs_none() -> None:
    app = make(Sessions("sqlite:///never.db", secret_key=KEY), openapi_config=None)
    assert SessionMiddleware in middlewares(app)


# --- what Litestar keeps --------------------------------------------------------------------------


async def test_an_answer_that_is_kept_is_shown_to_nobody_else(tmp_path: Path) -> None:
    @post("/login/{name:str}")
    async def log_in(request: AnyRequest, name: FromPath[str]) -> None:
        await sessions.start_session(request, {"id": name})

    @post("/cart/{item:str}")
    async def fill(request: AnyRequest, item: FromPath[str]) -> None:
        request.session["cart"] = item

    made: list[str] = []

    @get("/", cache=60)
    async def home(request: AnyRequest) -> list[Any]:
        session = sessions.current(request)
        made.append("home")
        return [session and session.person_id, request.session.get("cart")]

    @get("/form", cache=60)
    async def form(request: AnyRequest) -> str:
        made.append("form")
        request.session["csrf"] = csrf = str(len(made))
        return csrf

    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Sessions(url, secret_key=KEY, data=True) as sessions:
        await sessions.create_tables()
        app: Any = Litestar([log_in, fill, home, form], plugins=[SessionsPlugin(sessions)])
        ann, ben, visitor, stranger = (Browser(app) for _ in range(4))
        await ann.post("/login/ann")
        await ben.post("/login/ben")
        await visitor.post("/cart/apple")
        seen = [(await one.get("/")).json() for one in (ann, ben, visitor, stranger)]
        assert seen == [["ann", None], ["ben", None], [None, "apple"], [None, None]]
        assert [(await one.get("/")).json() for one in (ann, ben, visitor, stranger)] == seen
        assert len(made) == 4  # and it is kept
        await sessions.end_all_sessions("ann")
        assert (await ann.get("/")).json() == [None, None]
        # Of two strangers, each becomes a visitor by what is kept.
        assert [(await one.get("/form")).text for one in (stranger, Browser(app))] == ["5", "6"]
        assert (await stranger.get("/form")).text == "5"


async def test_no_path_and_no_farewell_leads_to_what_is_kept_for_somebody(plain: Sessions) -> None:
    sessions = plain

    @get("/{name:str}", cache=60)
    async def page(request: AnyRequest, name: FromPath[str]) -> str:
        session = sessions.current(request)
        if name == "bye" and session is not None:
            await sessions.end_session(request)
        return f"{name} of {session and session.person_id}"

    app: Any = Litestar([page], plugins=[SessionsPlugin(sessions)])
    ann, stranger = Browser(app), Browser(app)
    ann.cookies.update(await logged_in_cookie(sessions, "ann"))
    (session,) = await sessions.list_sessions("ann")
    for name in ("mail", "bye"):
        assert (await ann.get(f"/{name}")).text == f"{name} of ann"
        assert (await stranger.get(f"/{name}")).text == f"{name} of None"
    for path in (f"/mail%20{session.sid}", f"/{session.sid}%20mail"):
        assert "ann" not in (await stranger.get(path)).text


async def test_what_is_kept_for_a_person_without_a_session_is_theirs(
    make_sessions: MakeSessions,
) -> None:
    @get("/", cache=60)
    async def home(request: AnyRequest) -> str:
        return str(request.scope["user"])

    sessions = await make_sessions(auto_start=False)
    vouch: Any = Vouch
    app: Any = Litestar([home], middleware=[vouch], plugins=[SessionsPlugin(sessions)])
    for person in ("ann", "ben"):
        assert person in (await Browser(app).get("/", headers=vouched(person))).text


@pytest.mark.parametrize("own", [False, True], ids=["ours", "the app's"])
def test_a_key_of_the_app_stays(plain: Sessions, own: bool) -> None:
    def key(request: AnyRequest) -> str:
        return "one for all"

    given = key if own else default_cache_key_builder
    config = ResponseCacheConfig(default_expiration=7, key_builder=given)
    app = Litestar([], plugins=[SessionsPlugin(plain)], response_cache_config=config)
    assert app.response_cache_config.default_expiration == 7
    assert (app.response_cache_config.key_builder is key) == own
    assert config.key_builder is given  # it may be another app's, too
