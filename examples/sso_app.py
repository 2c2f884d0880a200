"""Log in at a provider, and be out when it says so: ``python examples/sso_app.py``.

Register it at a provider of OpenID Connect, with the redirect URI http://127.0.0.1:8000/callback,
and /backchannel-logout beside it for logout tokens. Set ISSUER, CLIENT_ID and CLIENT_SECRET. Needs
Authlib, httpx, joserfc, uvicorn and websockets.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from html import escape
from typing import Any

import httpx
import uvicorn
from authlib.integrations.starlette_client import OAuth
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_sessions import Session, SessionMiddleware, Sessions
from asgi_sessions.oidc import BackChannelLogout

OUT = '<!doctype html><html lang="en"><title>App</title><a href="/login">Log in</a>'
IN = """<!doctype html><html lang="en"><title>App</title>
<p>Hello, {}. The WebSocket is <output>connecting</output>.</p>
<form action="/payout"><button>Pay out</button></form>
<form action="/logout" method="post"><button>Log out</button></form>
<script>
  const output = document.querySelector("output"), live = new WebSocket("/live");
  live.onmessage = event => output.value = event.data;
  live.onclose = event => output.value = `closed: ${{event.reason}}`;
</script>"""
#: What a payout asks of the provider. With `max_age` it has to say when it saw them (`auth_time`).
STEP_UP = {"acr_values": "2", "max_age": 300, "prompt": "login"}


async def live(websocket: WebSocket) -> None:
    """Stays open as long as the session lives."""
    if websocket.state.session is not None:
        await websocket.accept()
        await websocket.send_text("open")
        await websocket.receive()


def create_app(sessions: Sessions, provider: dict[str, Any], client: dict[str, str]) -> Starlette:
    """The app on these sessions, a client of a provider: its discovery document."""
    kwargs = {"scope": "openid", "code_challenge_method": "S256"}
    oauth: Any = OAuth().register("sso", client_kwargs=kwargs, **client, **provider)

    async def home(request: Request) -> Response:
        who: Session | None = request.state.session
        return HTMLResponse(IN.format(escape(who.person_id)) if who else OUT)

    async def login(request: Request) -> Any:  # noqa: ANN401 -- Authlib has no types
        asked = STEP_UP if request.url.path == "/step-up" else {"max_age": 86400}
        return await oauth.authorize_redirect(request, request.url_for("callback"), **asked)

    async def callback(request: Request) -> Response:
        claims = (token := await oauth.authorize_access_token(request))["userinfo"]
        there = [claims["sub"], claims.get("sid")]  # not every provider names its sessions
        if request.state.session and request.session.get("there") == there:
            at = datetime.fromtimestamp(claims["auth_time"], UTC)
            acr, amr = claims.get("acr", "0"), claims.get("amr", ())  # None would keep the old one
            await sessions.renew_session(request, acr=acr, amr=amr, authenticated_at=at)
        else:  # another session at the provider, perhaps another person's
            await sessions.start_session(request, claims)
        request.session.update(there=there, id_token=token["id_token"])
        return RedirectResponse("/", 303)

    async def payout(request: Request) -> Response:
        who: Session | None = request.state.session
        if not who or who.acr != "2" or not sessions.is_fresh(request, timedelta(minutes=5)):
            return RedirectResponse("/step-up", 303)
        return HTMLResponse("Paid out.")

    def leave(_: Session | None, data: Mapping[str, Any]) -> str:
        hint = f"&id_token_hint={data['id_token']}" if "id_token" in data else ""
        return f"{provider['end_session_endpoint']}?client_id={client['client_id']}{hint}"

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with sessions:
            await sessions.create_tables()
            yield

    names = {"issuer": provider["issuer"], "client_id": client["client_id"]}
    end = BackChannelLogout(sessions, keys=provider["jwks_uri"], **names)
    routes = [
        Route("/", home),
        Route("/login", login),
        Route("/step-up", login),
        Route("/callback", callback),
        Route("/payout", payout),
        WebSocketRoute("/live", live),
        Route("/logout", sessions.end_session_endpoint(redirect_to=leave)),
        Route("/backchannel-logout", end),
    ]
    app = Starlette(routes=routes, lifespan=lifespan)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


if __name__ == "__main__":
    issuer = os.environ["ISSUER"]
    client = {"client_id": os.environ["CLIENT_ID"], "client_secret": os.environ["CLIENT_SECRET"]}
    found = httpx.get(f"{issuer}/.well-known/openid-configuration").raise_for_status().json()
    url = os.environ.get("DATABASE_URL", "sqlite:///sso-demo.db")
    key = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)  # a new one logs everybody out
    own = Sessions(url, secret_key=key, data=True, issuer=issuer, cookie_secure=False)  # plain http
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(create_app(own, found, client), host="127.0.0.1", port=port, proxy_headers=False)
