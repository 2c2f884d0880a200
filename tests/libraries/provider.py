"""A small OpenID Connect provider: the code flow with PKCE, for one client, without a page."""

from __future__ import annotations

import secrets
import time
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from hashlib import sha256
from typing import Any
from urllib.parse import urlencode

from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

ISSUER = "https://provider.test"
CLIENT_ID = "shop"
CLIENT_SECRET = "known to the shop and the provider"


class Provider:
    """Whoever comes to it is `person`, and agrees to everything.

    Attributes:
        app: the provider, as an ASGI app.
        person: who is logged in there.
    """

    def __init__(self) -> None:
        self.person = "ada"
        self._key = RSAKey.generate_key(2048, {"kid": "1"})
        self._codes: dict[str, Mapping[str, Any]] = {}
        self.app = Starlette(
            routes=[
                Route("/.well-known/openid-configuration", self._metadata),
                Route("/authorize", self._authorize),
                Route("/token", self._token, methods=["POST"]),
                Route("/keys", self._keys),
            ]
        )

    async def _metadata(self, _: Request) -> Response:
        return JSONResponse(
            {
                "issuer": ISSUER,
                "authorization_endpoint": f"{ISSUER}/authorize",
                "token_endpoint": f"{ISSUER}/token",
                "jwks_uri": f"{ISSUER}/keys",
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def _keys(self, _: Request) -> Response:
        return JSONResponse({"keys": [self._key.as_dict(private=False)]})

    async def _authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        code = secrets.token_urlsafe()
        self._codes[code] = {**asked, "person": self.person}
        answer = urlencode({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{answer}", 302)

    async def _token(self, request: Request) -> Response:
        credentials = b64encode(f"{CLIENT_ID}:{CLIENT_SECRET}".encode()).decode()
        if request.headers.get("authorization") != f"Basic {credentials}":
            return JSONResponse({"error": "invalid_client"}, 401)
        async with request.form() as form:
            asked = self._codes.pop(str(form["code"]), None)  # a code is good once
            digest = sha256(str(form["code_verifier"]).encode()).digest()
            proved = urlsafe_b64encode(digest).decode().rstrip("=")
            if (
                asked is None
                or form["redirect_uri"] != asked["redirect_uri"]
                or proved != asked["code_challenge"]
            ):
                return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())  # noqa: TID251 -- the client looks at the clock of the machine
        claims = {
            "iss": ISSUER,
            "aud": CLIENT_ID,
            "sub": asked["person"],
            "nonce": asked["nonce"],
            "iat": now,
            "exp": now + 60,
        }
        id_token = jwt.encode({"alg": "RS256", "kid": "1"}, claims, self._key)
        return JSONResponse({"access_token": "a", "token_type": "Bearer", "id_token": id_token})
