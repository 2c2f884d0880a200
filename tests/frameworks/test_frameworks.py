"""One middleware class, three frameworks: the same story in each, then what differs."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
import anyio.from_thread
import anyio.lowlevel
import fastapi
import litestar
import litestar.testing
import pytest
from fastapi.testclient import TestClient as FastAPITestClient
from litestar.exceptions import WebSocketDisconnect as LitestarWebSocketDisconnect
from litestar.middleware import DefineMiddleware
from litestar.middleware.authentication import (
    AbstractAuthenticationMiddleware,
    AuthenticationResult,
)
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from asgi_sessions import Session, SessionMiddleware, Sessions, SessionsUnavailable
from tests.support import KEY

# --- somebody else's authentication: a bearer token that is the person's name ---------------------


class Somebody(SimpleUser):
    """Starlette's user, with the id that `person_from_scope` looks for."""

    @property
    def identity(self) -> str:
        """The id."""
        return self.username


class Tokens(AuthenticationBackend):
    """For Starlette and FastAPI."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, BaseUser] | None:
        name = conn.headers.get("authorization", "").removeprefix("Bearer ")
        return (AuthCredentials(["known"]), Somebody(name)) if name else None


class LitestarTokens(AbstractAuthenticationMiddleware):
    """For Litestar."""

    async def authenticate_request(
        self, connection: litestar.connection.ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        name = connection.headers.get("authorization", "").removeprefix("Bearer ")
        return AuthenticationResult(user={"id": name} if name else None, auth=None)


def seen(connection: Any) -> dict[str, Any]:
    """What a handler sees, in each framework by the same words."""
    session: Session | None = connection.state.session
    user = connection.scope.get("user")
    known = user.get("id") if isinstance(user, dict) else getattr(user, "username", None)
    return {
        "sid": connection.state.sid,
        "person": session and session.person_id,
        "origin": session and session.origin,
        "reason": connection.state.session_end_reason,
        "user": known or None,
    }


#: Where another layer's authentication stands, if there is any.
Authentication = Literal["outside", "inside", "none"]

# --- the same routes in each ----------------------------------------------------------------------


def starlette_app(sessions: Sessions, *, authentication: Authentication = "outside") -> Any:
    async def home(request: Request) -> Response:
        return JSONResponse(seen(request))

    async def login(request: Request) -> Response:
        await sessions.start_session(request, {"id": request.query_params["person"]})
        return JSONResponse(seen(request))

    def sync_login(request: Request) -> Response:
        person = {"id": request.query_params["person"]}
        anyio.from_thread.run(partial(sessions.start_session, request, person, remember=False))
        return JSONResponse(seen(request))

    def sync_logout(request: Request) -> Response:
        anyio.from_thread.run(sessions.end_session, request)
        return JSONResponse(seen(request))

    async def echo(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(seen(websocket))
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    async def socket_login(websocket: WebSocket) -> None:
        await sessions.start_session(websocket, {"id": "ann"})
        await echo(websocket)

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/login", login, methods=["POST"]),
            Route("/sync-login", sync_login, methods=["POST"]),
            Route("/sync-logout", sync_logout, methods=["POST"]),
            Route("/logout", sessions.end_session_endpoint()),
            Route("/leave", sessions.end_session_endpoint(redirect_to="/")),
            WebSocketRoute("/echo", echo),
            WebSocketRoute("/socket-login", socket_login),
        ],
        lifespan=sessions.lifespan,
    )
    add_layers(app, sessions, authentication)
    return app


def add_layers(app: Starlette, sessions: Sessions, authentication: Authentication) -> None:
    """In Starlette and FastAPI the layer that is added last is outermost."""
    if authentication == "inside":
        app.add_middleware(AuthenticationMiddleware, backend=Tokens())
    app.add_middleware(SessionMiddleware, sessions=sessions)
    if authentication == "outside":
        app.add_middleware(AuthenticationMiddleware, backend=Tokens())


def fastapi_app(sessions: Sessions, *, authentication: Authentication = "outside") -> Any:
    app = fastapi.FastAPI(
        routes=[Route("/logout", sessions.end_session_endpoint())], lifespan=sessions.lifespan
    )
    add_layers(app, sessions, authentication)

    @app.get("/")
    async def home(request: fastapi.Request) -> dict[str, Any]:
        return seen(request)

    @app.post("/login")
    async def login(request: fastapi.Request, person: str) -> dict[str, Any]:
        await sessions.start_session(request, {"id": person})
        return seen(request)

    @app.post("/sync-login")
    def sync_login(request: fastapi.Request, person: str) -> dict[str, Any]:
        start = partial(sessions.start_session, request, {"id": person}, remember=False)
        anyio.from_thread.run(start)
        return seen(request)

    @app.post("/sync-logout")
    def sync_logout(request: fastapi.Request) -> dict[str, Any]:
        anyio.from_thread.run(sessions.end_session, request)
        return seen(request)

    app.router.routes.append(Route("/leave", sessions.end_session_endpoint(redirect_to="/")))

    @app.websocket("/echo")
    async def echo(websocket: fastapi.WebSocket) -> None:
        await websocket.accept()
        await websocket.send_json(seen(websocket))
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    @app.websocket("/socket-login")
    async def socket_login(websocket: fastapi.WebSocket) -> None:
        await sessions.start_session(websocket, {"id": "ann"})
        await echo(websocket)

    return app


async def remember_loop(app: litestar.Litestar) -> None:
    """For handlers that run in a thread: how to get back."""
    app.state.loop = anyio.lowlevel.current_token()


def litestar_app(sessions: Sessions, *, authentication: Authentication = "outside") -> Any:
    @litestar.get("/")
    async def home(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        return seen(request)

    @litestar.post("/login", status_code=200)
    async def login(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        await sessions.start_session(request, {"id": request.query_params["person"]})
        return seen(request)

    @litestar.post("/sync-login", status_code=200, sync_to_thread=True)
    def sync_login(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        person = {"id": request.query_params["person"]}
        start = partial(sessions.start_session, request, person, remember=False)
        anyio.from_thread.run(start, token=request.app.state.loop)
        return seen(request)

    @litestar.post("/sync-logout", status_code=200, sync_to_thread=True)
    def sync_logout(request: litestar.Request[Any, Any, Any]) -> dict[str, Any]:
        anyio.from_thread.run(sessions.end_session, request, token=request.app.state.loop)
        return seen(request)

    @litestar.websocket("/echo")
    async def echo(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await socket.accept()
        await socket.send_json(seen(socket))
        while True:
            await socket.send_text(await socket.receive_text())

    @litestar.websocket("/socket-login")
    async def socket_login(socket: litestar.WebSocket[Any, Any, Any]) -> None:
        await sessions.start_session(socket, {"id": "ann"})
        await socket.accept()
        await socket.send_json(seen(socket))
        while True:
            await socket.send_text(await socket.receive_text())

    logout = litestar.asgi("/logout", copy_scope=False)(sessions.end_session_endpoint())
    leave = litestar.asgi("/leave", copy_scope=False)(
        sessions.end_session_endpoint(redirect_to="/")
    )
    ours = DefineMiddleware(SessionMiddleware, sessions=sessions)
    layers: dict[Authentication, list[Any]] = {  # the first is outermost
        "outside": [LitestarTokens, ours],
        "inside": [ours, LitestarTokens],
        "none": [ours],
    }
    return litestar.Litestar(
        [home, login, sync_login, sync_logout, echo, socket_login, logout, leave],
        lifespan=[sessions.lifespan],
        on_startup=[remember_loop],
        middleware=layers[authentication],
        openapi_config=None,
    )


class Client:
    """One browser, whichever test client it is made of."""

    def __init__(self, client: Any, url: str) -> None:
        self.http = client
        self._url = url

    def see(self, token: str | None = None) -> dict[str, Any]:
        """What the app sees, with a bearer token or without."""
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        answer: dict[str, Any] = self.http.get("/", headers=headers).json()
        return answer

    def post(self, path: str, **headers: str) -> Any:
        """A form, as good as."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, headers=fields, follow_redirects=False)

    def connect(self, path: str, **options: Any) -> Any:
        """A WebSocket, over TLS, or the cookie would stay at home."""
        return self.http.websocket_connect(f"wss://{self._url}{path}", **options)


@dataclass
class Framework:
    """How an app is made, and a client of it."""

    make_app: Callable[..., Any]
    make_client: Callable[..., Any]
    host: str
    disconnect: type[Exception]

    @contextmanager
    def client(self, app: Any) -> Iterator[Client]:
        """A client, while the app's lifespan lasts."""
        with self.make_client(app, base_url=f"https://{self.host}") as client:
            yield Client(client, self.host)


FRAMEWORKS = {
    "starlette": Framework(starlette_app, TestClient, "test", WebSocketDisconnect),
    "fastapi": Framework(fastapi_app, FastAPITestClient, "test", WebSocketDisconnect),
    "litestar": Framework(
        litestar_app, litestar.testing.TestClient, "test.local", LitestarWebSocketDisconnect
    ),
}


@pytest.fixture(params=FRAMEWORKS.values(), ids=list(FRAMEWORKS))
def framework(request: pytest.FixtureRequest) -> Framework:
    """Each of the three."""
    framework: Framework = request.param
    return framework


@pytest.fixture
def sessions(tmp_path: Path) -> Sessions:
    """Sessions that nobody has connected: the app's lifespan will."""
    sessions = Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)

    async def create() -> None:
        async with sessions:
            await sessions.create_tables()

    anyio.run(create)
    return sessions


Open = AbstractContextManager[Client]


@pytest.fixture
def client(framework: Framework, sessions: Sessions) -> Iterator[Client]:
    """A browser on the framework's app."""
    with framework.client(framework.make_app(sessions)) as client:
        yield client


def reasons(sessions: Sessions, person: str = "ann") -> list[str | None]:
    """Why each session of a person has ended, sorted; None, first of all, for a live one."""

    async def listed() -> list[Session]:
        async with sessions:
            return await sessions.list_sessions(person, include_ended=True)

    ends = [session.end_reason for session in anyio.run(listed)]
    return sorted(ends, key=lambda reason: reason or "")


NOBODY = {"sid": None, "person": None, "origin": None, "reason": None, "user": None}

# --- the app logs people in -----------------------------------------------------------------------


def test_a_login_is_known_from_then_on(client: Client, sessions: Sessions) -> None:
    assert client.see() == NOBODY
    response = client.post("/login?person=ann")
    here = response.json()
    assert here["person"] == "ann"
    assert here["origin"] == "login"
    assert len(response.headers.get_list("set-cookie")) == 1
    assert response.headers["cache-control"] == "no-store"
    for _ in range(2):
        assert client.see() == here
    assert reasons(sessions) == [None]


def test_a_session_outlives_the_apps_lifespan(framework: Framework, sessions: Sessions) -> None:
    with framework.client(framework.make_app(sessions)) as client:
        sid = client.post("/login?person=ann").json()["sid"]
        cookie = client.http.cookies[sessions.cookie_name]
    with framework.client(framework.make_app(sessions)) as client:
        client.http.cookies.set(sessions.cookie_name, cookie)
        assert client.see()["sid"] == sid


def test_the_lifespan_connects_and_lets_go(framework: Framework, sessions: Sessions) -> None:
    app = framework.make_app(sessions)
    database = sessions.database
    with framework.client(app) as client:
        client.post("/login?person=ann")
    assert not database.is_connected


def test_a_logout_ends_the_session_and_clears_the_cookie(
    client: Client, sessions: Sessions
) -> None:
    client.post("/login?person=ann")
    cookie = client.http.cookies[sessions.cookie_name]
    response = client.post("/logout")
    assert response.status_code == 200
    assert response.json() == {"message": "session ended"}
    (cleared,) = response.headers.get_list("set-cookie")
    assert cleared.startswith("__Host-sid=;")
    assert "Max-Age=0" in cleared
    assert sessions.cookie_name not in client.http.cookies
    assert client.see() == NOBODY
    client.http.cookies.set(sessions.cookie_name, cookie)  # a thief's
    assert client.see() == {**NOBODY, "reason": "logout"}
    assert reasons(sessions) == ["logout"]


def test_a_logout_may_be_repeated_and_may_redirect(client: Client) -> None:
    client.post("/login?person=ann")
    for _ in range(2):
        response = client.post("/leave")
        assert response.status_code == 303
        assert response.headers["location"] == "/"
    for _ in range(2):
        assert client.post("/logout").json() == {"message": "session ended"}


def test_a_logout_takes_post_only_and_not_from_another_site(
    client: Client, framework: Framework
) -> None:
    sid = client.post("/login?person=ann").json()["sid"]
    for method in ("GET", "PUT", "DELETE"):
        response = client.http.request(method, "/logout")
        assert response.status_code == 405
        assert response.headers["allow"] == "POST"
    assert client.post("/logout", sec_fetch_site="cross-site").status_code == 403
    assert client.post("/logout", sec_fetch_site="same-site").status_code == 403
    assert client.post("/logout", origin="https://evil.example").status_code == 403
    assert client.see()["sid"] == sid
    assert client.post("/logout", origin=f"https://{framework.host}").status_code == 200
    assert client.see()["sid"] is None


def test_a_handler_that_runs_in_a_thread_logs_in_and_out(
    client: Client, sessions: Sessions
) -> None:
    response = client.post("/sync-login?person=ann")
    assert response.status_code == 200
    assert response.json()["person"] == "ann"
    (cookie,) = response.headers.get_list("set-cookie")
    assert "Max-Age" not in cookie  # remember=False came through
    assert client.see() == response.json()

    response = client.post("/sync-logout")
    assert response.json() == NOBODY
    assert len(response.headers.get_list("set-cookie")) == 1
    assert client.see() == NOBODY
    assert reasons(sessions) == ["logout"]


# --- another layer has authenticated the person ---------------------------------------------------


def test_a_person_of_another_layer_gets_one_session(client: Client, sessions: Sessions) -> None:
    first = client.see("ann")
    assert first["person"] == "ann"
    assert first["origin"] == "scope"
    assert client.see("ann") == first
    client.http.cookies.clear()
    assert client.see("ann") == first  # by the device
    assert client.see() == NOBODY
    assert reasons(sessions) == [None]


def test_a_person_whose_session_was_revoked_is_taken_out_of_the_request(
    client: Client, sessions: Sessions
) -> None:
    sid = client.see("ann")["sid"]

    async def revoke() -> None:
        async with sessions:
            await sessions.end_session_by_id(sid, person_id="ann")

    anyio.run(revoke)
    out = {**NOBODY, "reason": "revoked"}
    assert client.see("ann") == out
    client.http.cookies.clear()
    assert client.see("ann") == out
    assert client.see("bob")["person"] == "bob"


def test_a_login_holds_beside_the_layer_that_knows_somebody_else(client: Client) -> None:
    client.post("/login?person=ann")
    assert client.see()["person"] == "ann"
    assert client.see("ann")["origin"] == "login"
    assert client.see("bob")["person"] == "bob"  # person_changed


# --- WebSockets -----------------------------------------------------------------------------------


def test_a_websocket_resumes_and_closes_with_its_session(
    client: Client, framework: Framework
) -> None:
    here = client.post("/login?person=ann").json()
    with client.connect("/echo") as socket:
        assert socket.receive_json() == here
        socket.send_text("hello")
        assert socket.receive_text() == "hello"
        client.post("/logout")
        with pytest.raises(framework.disconnect) as caught:
            socket.receive_text()
    assert getattr(caught.value, "code", None) == 1008


def test_a_websocket_takes_the_person_of_another_layer(client: Client, sessions: Sessions) -> None:
    with client.connect("/echo", headers={"authorization": "Bearer ann"}) as socket:
        assert socket.receive_json()["person"] == "ann"
    assert reasons(sessions) == [None]


def test_a_websocket_without_a_session_stays_open(client: Client) -> None:
    with client.connect("/echo") as socket:
        assert socket.receive_json() == NOBODY
        client.post("/logout")
        socket.send_text("hello")
        assert socket.receive_text() == "hello"


def test_a_login_on_the_handshake_brings_its_cookie(client: Client, sessions: Sessions) -> None:
    with client.connect("/socket-login") as socket:
        here = socket.receive_json()
        assert here["person"] == "ann"
        if hasattr(socket, "extra_headers"):  # Litestar's client does not show them
            names = [name for name, _ in socket.extra_headers]
            assert names.count(b"set-cookie") == 1
    assert reasons(sessions) == [None]


# --- while the database does not answer -----------------------------------------------------------


@contextmanager
def outage(sessions: Sessions) -> Iterator[None]:
    """The database answers each statement with an error."""
    with closing(sqlite3.connect(str(sessions.database.url.database))) as file:
        file.execute("ALTER TABLE sessions RENAME TO away")
        yield
        file.execute("ALTER TABLE away RENAME TO sessions")


def test_an_outage_is_a_503_and_no_logout(client: Client, sessions: Sessions) -> None:
    sid = client.post("/login?person=ann").json()["sid"]
    with outage(sessions):
        response = client.http.get("/")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert "set-cookie" not in response.headers
    assert client.see()["sid"] == sid


@pytest.mark.parametrize("path", ["/login?person=ann", "/sync-login?person=ann"])
def test_a_login_in_an_outage_is_a_503(client: Client, sessions: Sessions, path: str) -> None:
    with outage(sessions):
        response = client.post(path)
    assert response.status_code == 503
    assert "set-cookie" not in response.headers
    assert response.headers["retry-after"] == "1"


def test_litestar_is_told_how_to_answer_an_outage(sessions: Sessions) -> None:
    def unavailable(
        request: litestar.Request[Any, Any, Any], fault: SessionsUnavailable
    ) -> litestar.Response[str]:
        headers = {"retry-after": str(fault.retry_after)}
        return litestar.Response("Service Unavailable", status_code=503, headers=headers)

    @litestar.post("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> None:
        await sessions.start_session(request, {"id": "ann"})

    app = litestar.Litestar(
        [login],
        middleware=[DefineMiddleware(SessionMiddleware, sessions=sessions)],
        exception_handlers={SessionsUnavailable: unavailable},
        openapi_config=None,
    )
    with (
        outage(sessions),
        litestar.testing.TestClient(app, base_url="https://test.local") as client,
    ):
        response = client.post("/login")
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert "set-cookie" not in response.headers


# --- the order of layers --------------------------------------------------------------------------


def test_authentication_has_to_stand_outside(framework: Framework, sessions: Sessions) -> None:
    with framework.client(framework.make_app(sessions, authentication="inside")) as client:
        here = client.see("ann")
        assert here["user"] == "ann"  # the handler knows who it is
        assert here["sid"] is None  # the session middleware did not
    assert reasons(sessions) == []


def test_an_app_needs_no_other_layer(framework: Framework, sessions: Sessions) -> None:
    with framework.client(framework.make_app(sessions, authentication="none")) as client:
        here = client.post("/login?person=ann").json()
        assert client.see() == here
        assert here["user"] is None


# --- what only one of them has --------------------------------------------------------------------


def test_fastapi_takes_the_logout_route_in_each_of_its_ways(sessions: Sessions) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)
    router = fastapi.APIRouter()
    endpoint: Any = sessions.end_session_endpoint()  # add_route is typed for functions alone
    router.add_route("/logout", endpoint)
    app.include_router(router, prefix="/account")  # a prefix of the router's own is not heeded
    app.add_route("/one", endpoint)
    app.mount("/two", endpoint)

    @app.post("/login")
    async def login(request: fastapi.Request) -> str:
        return (await sessions.start_session(request, {"id": "ann"})).id

    with FastAPITestClient(app, base_url="https://test") as client:
        for path in ("/account/logout", "/one", "/two/", "/two"):
            client.post("/login")
            assert client.post(path).json() == {"message": "session ended"}
            assert sessions.cookie_name not in client.cookies
            assert client.get(path).status_code == 405
    assert reasons(sessions) == ["logout"] * 4


def current_person(request: fastapi.Request) -> str:
    """A dependency: who is logged in."""
    if request.state.session is None:
        raise fastapi.HTTPException(401, "log in first")
    person_id: str = request.state.session.person_id
    return person_id


CurrentPerson = Annotated[str, fastapi.Depends(current_person)]


def test_a_dependency_of_fastapi_guards_a_route_by_its_session(sessions: Sessions) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)

    @app.get("/")
    def home(person_id: CurrentPerson) -> str:
        return person_id

    @app.post("/login")
    async def login(request: fastapi.Request) -> None:
        await sessions.start_session(request, {"id": "ann"})

    with FastAPITestClient(app, base_url="https://test") as client:
        assert client.get("/").status_code == 401
        client.post("/login")
        assert client.get("/").json() == "ann"


def test_a_dependency_of_fastapi_may_log_in(sessions: Sessions) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)

    async def log_in(request: fastapi.Request) -> None:
        await sessions.start_session(request, {"id": "ann"})

    @app.post("/login", dependencies=[fastapi.Depends(log_in)])
    async def login(request: fastapi.Request) -> str:
        return str(request.state.sid)

    with FastAPITestClient(app, base_url="https://test") as client:
        response = client.post("/login")
        assert response.cookies[sessions.cookie_name].startswith(response.json())


def test_a_background_task_may_end_sessions(sessions: Sessions) -> None:
    app = fastapi.FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)

    @app.post("/login")
    async def login(request: fastapi.Request) -> None:
        await sessions.start_session(request, {"id": "ann"})

    @app.post("/everywhere")
    async def everywhere(request: fastapi.Request, tasks: fastapi.BackgroundTasks) -> None:
        tasks.add_task(sessions.end_all_sessions, request.state.session.person_id)

    with FastAPITestClient(app, base_url="https://test") as client:
        client.post("/login")
        client.post("/everywhere")
    assert reasons(sessions) == ["revoked"]


def test_a_thread_of_litestars_is_none_of_anyios(sessions: Sessions) -> None:
    @litestar.post("/login", sync_to_thread=True)
    def login(request: litestar.Request[Any, Any, Any]) -> str:
        with pytest.raises(anyio.NoEventLoopError):
            anyio.from_thread.run(sessions.end_session, request)
        return "that is why it needs the token of its loop"

    app = litestar.Litestar(
        [login],
        middleware=[DefineMiddleware(SessionMiddleware, sessions=sessions)],
        openapi_config=None,
    )
    with litestar.testing.TestClient(app, base_url="https://test.local") as client:
        assert client.post("/login").status_code == 201


def test_a_handler_of_litestars_that_fails_after_a_login_delivers_nothing(
    sessions: Sessions,
) -> None:
    @litestar.post("/login")
    async def login(request: litestar.Request[Any, Any, Any]) -> None:
        await sessions.start_session(request, {"id": "ann"})
        raise LookupError("no template")

    app = litestar.Litestar(
        [login],
        middleware=[DefineMiddleware(SessionMiddleware, sessions=sessions)],
        openapi_config=None,
    )
    with litestar.testing.TestClient(app, base_url="https://test.local") as client:
        response = client.post("/login")
        assert response.status_code == 500
        assert "set-cookie" not in response.headers
    assert reasons(sessions) == ["not_delivered"]


def test_a_route_of_litestars_may_have_the_middleware_for_itself(sessions: Sessions) -> None:
    ours = DefineMiddleware(SessionMiddleware, sessions=sessions)

    @litestar.get("/", middleware=[ours])
    async def home(request: litestar.Request[Any, Any, Any]) -> str:
        return str(request.state.sid)

    @litestar.get("/without")
    async def without(request: litestar.Request[Any, Any, Any]) -> bool:
        return "sid" in request.state

    app = litestar.Litestar([home, without], openapi_config=None)
    with litestar.testing.TestClient(app, base_url="https://test.local") as client:
        assert client.get("/").text == "None"
        assert client.get("/without").json() is False


def test_litestar_answers_an_unknown_path_before_it_asks_any_middleware(
    sessions: Sessions,
) -> None:
    with litestar.testing.TestClient(
        litestar_app(sessions), base_url="https://test.local"
    ) as client:
        client.post("/login?person=ann")
        with outage(sessions):
            assert client.get("/").status_code == 503
            assert client.get("/nowhere").status_code == 404


def test_litestar_may_be_wrapped_from_outside_as_well(sessions: Sessions) -> None:
    app: Any = SessionMiddleware(litestar_app(sessions, authentication="none"), sessions=sessions)
    with TestClient(app, base_url="https://test") as client:
        sid = client.post("/login?person=ann").json()["sid"]
        assert client.get("/").json()["sid"] == sid
    assert reasons(sessions) == [None]
