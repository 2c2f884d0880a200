"""What the tests share: a clock to turn, tiny apps, browsers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import SessionMiddleware, Sessions
from asgi_sessions.testing import Clock as Clock
from asgi_sessions.testing import logged_in_cookie
from tests.support.inside import touched

KEY = "the key that signs in the tests, 32+"
OLD_KEY = "a key that was good until yesterday.."


class Vouch:
    """Another layer that authenticates: takes the person from the header X-Person (JSON)."""

    def __init__(self, app: ASGIApp, *, state: bool = False) -> None:
        self.app = app
        self.state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for name, value in scope.get("headers", ()):
            if name == b"x-person":
                person = json.loads(value)
                if "iso" in person:  # {"iso": "..."}: authenticated_at as a datetime
                    person["authenticated_at"] = datetime.fromisoformat(person.pop("iso"))
                if self.state:
                    scope.setdefault("state", {})["person"] = person
                else:
                    scope["user"] = person
        await self.app(scope, receive, send)


def make_app(sessions: Sessions, *extra: BaseRoute, vouch_in_state: bool = False) -> Starlette:
    """An app whose routes do what their names say, behind `Vouch` and the middleware.

    Every answer is what the app sees: sid, person_id, reason, user (whether somebody is vouched
    for after the middleware).
    """

    def seen(request: Request) -> dict[str, Any]:
        session = request.state.session
        return {
            "sid": request.state.sid,
            "person_id": session and session.person_id,
            "reason": request.state.session_end_reason,
            "user": isinstance(request.scope.get("user"), Mapping)
            or "person" in request.scope["state"],
        }

    async def home(request: Request) -> Response:
        return JSONResponse(seen(request))

    async def login(request: Request) -> Response:
        remember = request.query_params.get("remember", "1") == "1"
        await sessions.start_session(
            request, {"id": request.query_params["person"]}, remember=remember
        )
        return JSONResponse(seen(request))

    async def renew(request: Request) -> Response:
        await sessions.renew_session(request)
        return JSONResponse(seen(request))

    async def logout(request: Request) -> Response:
        await sessions.end_session(request)
        return JSONResponse(seen(request))

    async def end_others(request: Request) -> Response:
        return JSONResponse(await sessions.end_other_sessions(request))

    app = Starlette(
        routes=[
            Route("/", home, methods=["GET", "HEAD", "OPTIONS"]),
            Route("/login", login, methods=["POST"]),
            Route("/renew", renew, methods=["POST"]),
            Route("/logout", logout, methods=["POST"]),
            Route("/end-others", end_others, methods=["POST"]),
            Route("/end-session", sessions.end_session_endpoint()),
            *extra,
        ]
    )
    app.add_middleware(SessionMiddleware, sessions=sessions)
    app.add_middleware(Vouch, state=vouch_in_state)
    return app


async def entered(sessions: Sessions, person: object = None) -> tuple[Scope, str]:
    """The scope of a request of somebody who has just logged in, as a handler gets it, and the sid.

    Args:
        sessions: whose.
        person: who; None for nobody.
    """
    cookie = {} if person is None else await logged_in_cookie(sessions, person)
    header = "; ".join(f"{name}={value}" for name, value in cookie.items())
    scope: Scope = {"type": "http", "method": "GET", "headers": [(b"cookie", header.encode())]}

    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    async def nothing(*_: Any) -> Any: ...

    await SessionMiddleware(app, sessions=sessions)(scope, nothing, nothing)
    return scope, scope["state"]["sid"]


class Browser(httpx.AsyncClient):
    """An httpx client with a cookie jar, in process, one device."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        agent: str = "Firefox",
        address: str = "192.0.2.1",
        raise_app_exceptions: bool = True,
    ) -> None:
        transport = httpx.ASGITransport(
            app, client=(address, 4711), raise_app_exceptions=raise_app_exceptions
        )
        super().__init__(
            transport=transport, base_url="https://test", headers={"user-agent": agent}
        )

    async def send(self, *args: Any, **kwargs: Any) -> httpx.Response:
        """Send a request; when it is answered, what is noted beside it has been noted, too."""
        response = await super().send(*args, **kwargs)
        await touched()
        return response

    async def see(self, **headers: str) -> dict[str, Any]:
        """What the app sees of this browser."""
        response = await self.get("/", headers={k.replace("_", "-"): v for k, v in headers.items()})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def see_as(self, person: object, **facts: object) -> dict[str, Any]:
        """What the app sees when another layer vouches for this person."""
        return await self.see(**vouched(person, **facts))

    async def login(self, person: str, *, remember: bool = True) -> str:
        """Log in; the sid."""
        url = f"/login?person={person}&remember={int(remember)}"
        response = await self.post(url)
        assert response.status_code == 200, response.text
        sid: str = response.json()["sid"]
        return sid


def vouched(person: object, **facts: object) -> dict[str, str]:
    """The header that `Vouch` reads."""
    return {"x-person": json.dumps({"id": person, **facts})}


def set_cookies(response: httpx.Response, name: str = "__Host-sid") -> list[str]:
    """The Set-Cookie values of a name on a response."""
    return [
        value for value in response.headers.get_list("set-cookie") if value.startswith(f"{name}=")
    ]


def cookie_of(browser: Browser, sessions: Sessions) -> str:
    """The value that the browser keeps."""
    value = browser.cookies.get(sessions.cookie_name)
    assert value is not None
    return value


async def see_with(app: ASGIApp, sessions: Sessions, *values: str) -> dict[str, Any]:
    """What the app sees of a stranger who sends these cookie values."""
    cookies = "; ".join(f"{sessions.cookie_name}={value}" for value in values)
    return await Browser(app, agent="curl", address="203.0.113.66").see(cookie=cookies)
