"""A provider of the tests, as far as it signs: logout tokens, events, and the keys for them."""

from __future__ import annotations

import json
import secrets
from functools import cache
from typing import Any
from urllib.parse import urlencode

import httpx
from joserfc.jwk import ECKey, OctKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry, serialize_compact
from starlette.types import ASGIApp

from tests.support import Clock

ISSUER, CLIENT = "https://id.example", "shop"
LOGOUT = "http://schemas.openid.net/event/backchannel-logout"
_FORM = {"content-type": "application/x-www-form-urlencoded"}
_EVENT = {"content-type": "application/secevent+jwt"}

Key = ECKey | OKPKey | RSAKey


class AnyAlgorithm(JWSRegistry):
    """Signs with each, also with what nobody should take; without warnings."""

    def get_alg(self, name: str) -> Any:
        return self.algorithms[name]

    def check_header(self, header: Any) -> None:
        """Nothing is wrong with any."""


def key(kind: str = "P-256", kid: str = "one") -> Key:
    """A key pair: of a curve, or an RSA key of so many bits; the same for the same name."""
    return _key(kind, kid)


@cache
def _key(kind: str, kid: str) -> Key:
    named: Any = {"kid": kid}
    if kind.isdecimal():
        return RSAKey.generate_key(int(kind), named)
    if kind == "Ed25519":
        return OKPKey.generate_key("Ed25519", named)
    return ECKey.generate_key(kind, named)


def public(*keys: Key) -> dict[str, Any]:
    """What the provider publishes."""
    return {"keys": [{**one.as_dict(private=False)} for one in keys]}


def sign(
    claims: object, of: Key | OctKey | None = None, algorithm: str = "ES256", /, **header: object
) -> str:
    """A JWT. A field of the header that is None is left out."""
    of = of or key()
    fields: Any = {"alg": algorithm, "kid": of.kid, "typ": "logout+jwt", **header}
    fields = {name: value for name, value in fields.items() if value is not None}
    registry = AnyAlgorithm(strict_check_header=False)
    content = claims if isinstance(claims, str) else json.dumps(claims)
    return serialize_compact(fields, content, of, registry=registry)


class Provider:
    """What it says is dated by a clock, and of nobody in particular unless a test says so."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def claims(self, **claims: object) -> dict[str, Any]:
        """Of a logout token. A claim that is None is left out."""
        now = int(self._clock.now.timestamp())
        made = {
            "iss": ISSUER,
            "aud": CLIENT,
            "iat": now,
            "exp": now + 120,
            "jti": secrets.token_hex(8),
            "events": {LOGOUT: {}},
            **claims,
        }
        return {name: value for name, value in made.items() if value is not None}

    def logout_token(self, **claims: object) -> str:
        return sign(self.claims(**claims))

    def event(self, kind: str, subject: object = None, **claims: object) -> str:
        """A security event token; `kind` such as ``caep/event-type/session-revoked``."""
        uri = f"https://schemas.openid.net/secevent/{kind}"
        event = claims.pop("event", {})
        given: dict[str, Any] = {"exp": None, "events": {uri: event}, "sub_id": subject, **claims}
        return sign(self.claims(**given), typ="secevent+jwt")


async def post(app: ASGIApp, content: str | bytes, **headers: str) -> httpx.Response:
    """Post to an app as a provider does."""
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="https://test") as client:
        answer = await client.post("/", content=content, headers=headers)
    assert answer.headers["cache-control"] == "no-store"
    return answer


async def log_out(app: ASGIApp, token: str) -> httpx.Response:
    """Post a logout token."""
    return await post(app, urlencode({"logout_token": token, "more": "x"}), **_FORM)


async def push(app: ASGIApp, token: str) -> httpx.Response:
    """Push a security event token."""
    return await post(app, token, **_EVENT)
