"""An OpenID Connect provider: Authlib's server side, with the logout tokens that it has not got.

    python -m tests.libraries.provider PORT http://127.0.0.1:8000

serves one at PORT, with the app at that address as its client. Whoever gives a name is logged in,
and with the code 123456 by a second factor, too (`acr` 2). The page /logout logs out, of this
browser or of all. Tests pass fd:NUMBER, a socket that listens, in place of PORT.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from typing import Any

import httpx
import uvicorn
from authlib.oauth2 import AuthorizationServer
from authlib.oauth2.rfc6749 import OAuth2Error, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from authlib.oidc.rpinitiated import EndSessionEndpoint
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.support.providers import PLAIN

ISSUER = "https://provider.test"
CLIENT_ID = "shop"
CLIENT_SECRET = "known-to-the-shop"
SECOND_FACTOR = "123456"
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

LOGIN_PAGE = """<!doctype html><html lang="en"><title>Provider: log in</title><form method="post">
<p><label>Name <input name="name" required></label></p>
<p><label>Code <input name="code"></label></p><p><button>Log in</button></p></form></html>"""
LOGOUT_PAGE = """<!doctype html><html lang="en"><title>Provider: log out</title>
<p>{name}</p><form method="post" action="/logout"><p><button>Log out</button>
<button name="everywhere" value="1">Log out everywhere</button></p></form></html>"""


@dataclass
class Client:
    """An app that has registered."""

    redirect_uris: tuple[str, ...]
    backchannel_logout_uri: str | None = None
    post_logout_redirect_uris: tuple[str, ...] = ()
    client_id: str = CLIENT_ID
    id_token_signed_response_alg: str = "RS256"

    @property
    def client_metadata(self) -> Mapping[str, Any]:
        return {"post_logout_redirect_uris": self.post_logout_redirect_uris}

    def get_client_id(self) -> str:
        return self.client_id

    def get_default_redirect_uri(self) -> str:
        return self.redirect_uris[0]

    def get_allowed_scope(self, scope: str | None) -> str:
        return scope or "openid"

    def check_redirect_uri(self, uri: str) -> bool:
        return uri in self.redirect_uris

    def check_client_secret(self, secret: str) -> bool:
        return secrets.compare_digest(secret, CLIENT_SECRET)

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        return method == "client_secret_basic"

    def check_response_type(self, kind: str) -> bool:
        return kind == "code"

    def check_grant_type(self, kind: str) -> bool:
        return kind == "authorization_code"


@dataclass
class Login:
    """Somebody who is logged in at the provider, in one browser."""

    person: str
    acr: str
    auth_time: int
    sid: str = field(default_factory=secrets.token_urlsafe)
    clients: set[str] = field(default_factory=set)


@dataclass
class Code:
    """An authorization code: it is good once."""

    request: Mapping[str, str]
    login: Login
    # As they are now: a step-up changes the login.
    auth_time: int
    acr: str

    @property
    def code_challenge(self) -> str | None:
        return self.request.get("code_challenge")

    @property
    def code_challenge_method(self) -> str | None:
        return self.request.get("code_challenge_method")

    def get_redirect_uri(self) -> str | None:
        return self.request.get("redirect_uri")

    def get_scope(self) -> str:
        return self.request.get("scope", "openid")

    def get_nonce(self) -> str | None:
        return self.request.get("nonce")

    def get_auth_time(self) -> int:
        return self.auth_time

    def get_acr(self) -> str:
        return self.acr

    def get_amr(self) -> list[str]:
        return ["pwd", "otp"] if self.acr == "2" else ["pwd"]


class Asked(OAuth2Request):
    """A request as Authlib reads it."""

    def __init__(self, request: Request, data: Mapping[str, str]) -> None:
        super().__init__(request.method, str(request.url), headers=request.headers)
        self.payload = BasicOAuth2Payload(data)

    @property
    def form(self) -> Any:
        return self.payload.data

    args = form


class Grant(AuthorizationCodeGrant):
    """Codes in a dict."""

    def save_authorization_code(self, code: str, request: Any) -> None:
        login = request.user
        login.clients.add(request.client.client_id)
        data = dict(request.payload.data)
        self.server.codes[code] = Code(data, login, login.auth_time, login.acr)

    def query_authorization_code(self, code: str, client: Client) -> Code | None:
        found: Code | None = self.server.codes.pop(code, None)
        return found if found and found.request["client_id"] == client.client_id else None

    def delete_authorization_code(self, code: Code) -> None:
        """It is gone since it was asked for."""

    def authenticate_user(self, code: Code) -> Login:
        return code.login


class IDToken(OpenIDCode):
    """Who it is, with the session that they have at the provider."""

    def __init__(self, provider: Provider) -> None:
        super().__init__(require_nonce=True)
        self._provider = provider

    def exists_nonce(self, nonce: str, request: Any) -> bool:
        return any(code.get_nonce() == nonce for code in self._provider.server.codes.values())

    def resolve_client_private_key(self, client: Client) -> Any:
        return self._provider.keys[-1]

    def get_encode_header(self, client: Client) -> dict[str, str]:
        return {"alg": "RS256", "kid": self._provider.keys[-1].kid or ""}

    def get_client_claims(self, client: Client) -> dict[str, Any]:
        return {"iss": self._provider.issuer, "aud": client.client_id}

    def generate_user_info(self, user: Login, scope: str) -> dict[str, Any]:
        return {"sub": user.person, "sid": user.sid}


class EndSession(EndSessionEndpoint):
    """Where an app sends its people to log out (RP-Initiated Logout 1.0)."""

    def get_server_jwks(self) -> KeySet:
        return KeySet(list(self.server.provider.keys))

    def end_session(self, asked: Any) -> None:
        """The provider does it, which has logout tokens to send."""


class Server(AuthorizationServer):
    """What Authlib asks of a framework, for Starlette."""

    def __init__(self, provider: Provider) -> None:
        super().__init__(scopes_supported=["openid"])
        self.provider = provider
        self.codes: dict[str, Code] = {}
        self.register_grant(Grant, [IDToken(provider), CodeChallenge(required=True)])
        self.register_endpoint(EndSession)
        self.register_token_generator(
            "default", BearerTokenGenerator(lambda **_: secrets.token_urlsafe())
        )

    def query_client(self, client_id: str) -> Client | None:
        return self.provider.clients.get(client_id)

    def save_token(self, token: Any, request: Any) -> None:
        """Nobody comes back with one."""

    def send_signal(self, name: str, *args: Any, **kwargs: Any) -> None:
        """Nobody listens."""

    def create_oauth2_request(self, request: Any) -> Asked:
        assert isinstance(request, Asked)
        return request

    def handle_response(self, status: int, body: Any, headers: Any) -> Response:
        content = json.dumps(body) if isinstance(body, dict) else body
        return Response(content, status, dict(headers))


class Provider:
    """Attributes:
    app: the provider, as an ASGI app.
    issuer: its address.
    clients: the apps that it knows, by id.
    keys: those that are published; the last one signs.
    keys_read: how often somebody has read them.
    """

    def __init__(self, *clients: Client, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.clients = {client.client_id: client for client in clients}
        self.keys: list[RSAKey] = []
        self.keys_read = 0
        self._logins: dict[str, Login] = {}  # by the cookie
        self.rotate()
        self.server = Server(self)
        # Browsers do not tell the ports of a host apart.
        self._cookie = f"provider-{secrets.token_hex(4)}"
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._metadata),
                Route("/authorize", self._authorize, methods=["GET", "POST"]),
                Route("/token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
                Route("/logout", self._logout, methods=["GET", "POST"]),
                Route("/operator", self._operator, methods=["POST"]),
            ]
        )

    def rotate(self) -> None:
        """Sign with a new key; the one before stays published for what is under way."""
        self.keys = [*self.keys[-1:], RSAKey.generate_key(2048, {"kid": secrets.token_hex(4)})]

    def logout_token(self, client_id: str, **whom: str) -> str:
        """A logout token (OpenID Connect Back-Channel Logout 1.0, 2.4): by `sid`, `sub` or both."""
        now = int(time.time())  # noqa: TID251 -- the clock of the machine, as its clients
        claims = {
            "iss": self.issuer,
            "aud": client_id,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_urlsafe(),
            "events": {LOGOUT_EVENT: {}},
            **whom,
        }
        header = {"alg": "RS256", "typ": "logout+jwt", "kid": self.keys[-1].kid or ""}
        return jwt.encode(header, claims, self.keys[-1])

    async def log_out(self, person: str, sid: str | None = None) -> list[int]:
        """End one session here, or all of a person, and tell the clients; what they answered."""
        over = {
            cookie: login
            for cookie, login in self._logins.items()
            if login.person == person and sid in (None, login.sid)
        }
        told: dict[str, str] = {}
        for cookie, login in over.items():
            del self._logins[cookie]
            for client_id in login.clients:
                if (uri := self.clients[client_id].backchannel_logout_uri) is not None:
                    whom = {"sub": person} | ({} if sid is None else {"sid": sid})
                    told[uri] = self.logout_token(client_id, **whom)

        async with httpx.AsyncClient(**PLAIN) as client:
            answers = await asyncio.gather(
                *(client.post(uri, data={"logout_token": token}) for uri, token in told.items())
            )
        return [answer.status_code for answer in answers]

    async def _metadata(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "end_session_endpoint": f"{self.issuer}/logout",
                "jwks_uri": f"{self.issuer}/keys",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
                "code_challenge_methods_supported": ["S256"],
                "acr_values_supported": ["1", "2"],
                "backchannel_logout_supported": True,
                "backchannel_logout_session_supported": True,
            }
        )

    async def _keys(self, _: Request) -> Response:
        self.keys_read += 1
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.keys]})

    def _login_of(self, request: Request) -> Login | None:
        return self._logins.get(request.cookies.get(self._cookie, ""))

    async def _authorize(self, request: Request) -> Response:
        login = self._login_of(request)
        asked = Asked(request, dict(request.query_params))
        try:
            grant = self.server.get_consent_grant(asked, login)
        except OAuth2Error as error:
            answer: Response = self.server.handle_error_response(asked, error)
            return answer
        if request.method == "POST":
            async with request.form() as form:
                name, code = str(form["name"]), form.get("code")
            login = self._log_in(login, name, "2" if code == SECOND_FACTOR else "1")
        elif login is None or grant.prompt == "login" or self._is_too_old(login, request):
            return HTMLResponse(LOGIN_PAGE)
        answer = self.server.create_authorization_response(asked, login, grant)
        cookie = next(key for key, one in self._logins.items() if one is login)
        answer.set_cookie(self._cookie, cookie, httponly=True, samesite="lax")
        return answer

    def _log_in(self, login: Login | None, name: str, acr: str) -> Login:
        now = int(time.time())  # noqa: TID251 -- as above
        if login is None or login.person != name:
            login = self._logins[secrets.token_urlsafe()] = Login(name, acr, now)
        login.acr, login.auth_time = acr, now
        return login

    def _is_too_old(self, login: Login, request: Request) -> bool:
        """Whether the app wants a later login, or a better one."""
        asked = request.query_params
        age = int(time.time()) - login.auth_time  # noqa: TID251 -- as above
        return age > int(asked.get("max_age", age)) or login.acr < asked.get("acr_values", "")

    async def _token(self, request: Request) -> Response:
        async with request.form() as form:
            data = {key: str(value) for key, value in form.items()}
        answer: Response = self.server.create_token_response(Asked(request, data))
        return answer

    async def _logout(self, request: Request) -> Response:
        login = self._login_of(request)
        async with request.form() as form:
            data = {**request.query_params, **{key: str(one) for key, one in form.items()}}
        asked = self.server.validate_endpoint_request("end_session", Asked(request, data))
        if asked.needs_confirmation and request.method == "GET":
            return HTMLResponse(LOGOUT_PAGE.format(name=escape(login.person if login else "")))
        if login is not None:
            await self.log_out(login.person, None if "everywhere" in data else login.sid)
        return RedirectResponse(asked.redirect_uri or "/logout", 303)

    async def _operator(self, request: Request) -> Response:
        """What an operator does, told by JSON."""
        asked = await request.json()
        if asked["do"] == "rotate":
            self.rotate()
        elif asked["do"] == "log_out":
            return JSONResponse(await self.log_out(asked["person"], asked.get("sid")))
        elif asked["do"] == "logout_token":
            return JSONResponse(self.logout_token(CLIENT_ID, **asked["whom"]))
        return JSONResponse({"keys_read": self.keys_read})


def main() -> None:
    where, app = sys.argv[1:]
    os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # plain http, on this machine
    kind, _, number = where.rpartition(":")
    listening = socket.socket(fileno=int(number)) if kind == "fd" else None
    port = int(number) if listening is None else listening.getsockname()[1]
    client = Client((f"{app}/callback",), f"{app}/backchannel-logout", (f"{app}/",))
    provider = Provider(client, issuer=f"http://127.0.0.1:{port}")
    config = uvicorn.Config(provider.app, host="127.0.0.1", port=port, log_level="warning")
    uvicorn.Server(config).run(None if listening is None else [listening])


if __name__ == "__main__":
    main()
