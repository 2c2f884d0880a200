"""Tokens that this app signs: its keys, and what a token says of a session."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey
from joserfc.jws import extract_compact, serialize_compact, validate_compact
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.session import Session

from .algorithms import REGISTRY

#: A key as somebody has it: PEM, or a JWK.
GivenKey = str | bytes | Mapping[str, Any]

_KINDS: dict[object, tuple[type[ECKey | OKPKey], str]] = {
    "P-256": (ECKey, "ES256"),
    "Ed25519": (OKPKey, "EdDSA"),
}
_MEDIA_TYPE = "application/jwk-set+json"
#: How long others may keep the set without asking. A new key is published before it signs, if it
#: stands among the old ones for so long.
_CACHED = "public, max-age=300"


class SigningKey:
    """A key with its name, the thumbprint of RFC 7638.

    Attributes:
        public: what is published of it.
        kid: its name.
        algorithm: for which it is good.
    """

    def __init__(self, key: ECKey | OKPKey, algorithm: str) -> None:
        self._key = key
        self.algorithm = algorithm
        self.kid = key.thumbprint()
        self.public: dict[str, Any] = {
            **{name: value for name, value in key.as_dict(private=False).items() if name in _SHOWN},
            "kid": self.kid,
            "use": "sig",
            "alg": algorithm,
        }

    def sign(self, claims: Mapping[str, Any]) -> str:
        """A signed JWT."""
        header = {"typ": "JWT", "alg": self.algorithm, "kid": self.kid}
        payload = json.dumps(claims, separators=(",", ":"))
        return serialize_compact(header, payload, self._key, registry=REGISTRY)

    def fits(self) -> bool:
        """Whether what it signs is verified by what is published.

        Raises:
            JoseError: if it is for something else, by its own ``use``, ``key_ops`` or ``alg``.
        """
        signed = extract_compact(self.sign({}).encode(), registry=REGISTRY)
        published = type(self._key).import_key(self.public)
        return validate_compact(signed, published, registry=REGISTRY)


_SHOWN = {"kty", "crv", "x", "y"}


def read_key(given: object, name: str, *, private: bool) -> SigningKey:
    """A key of the app's.

    Args:
        given: PEM or a JWK.
        name: of the argument.
        private: whether it has to sign.

    Raises:
        ConfigurationError: if it is none, or a weak one. The message shows nothing of it.
    """
    for kind, algorithm in _KINDS.values():
        try:
            key = kind.import_key(given)  # type: ignore[arg-type]  # refused if it is none
            fits = _KINDS.get(key.curve_name, (None, ""))[1] == algorithm
            if fits and (key.is_private or not private):
                read = SigningKey(key, algorithm)
                if not private or read.fits():
                    return read
        except (JoseError, ValueError, TypeError, AttributeError, LookupError):
            continue
    del given  # no frame of a traceback may show it
    what = "a private key" if private else "a key"
    raise ConfigurationError(
        f"{name} is not {what} for Ed25519 or P-256: pass its PEM, or a JWK, for instance what "
        "`openssl genpkey -algorithm ed25519` prints"
    )


def claims_of(session: Session) -> dict[str, Any]:
    """What a token says of a session: who, and how they were authenticated."""
    facts = {
        "sub": session.person_id,
        "sid": session.id,
        "auth_time": session.authenticated_at and seconds(session.authenticated_at),
        "acr": session.acr,
        "amr": list(session.amr) or None,
        # Who acts for them, if they do not themselves (RFC 8693, 4.1).
        "act": session.actor_id and {"sub": session.actor_id},
    }
    return {name: value for name, value in facts.items() if value is not None}


def seconds(moment: datetime) -> int:
    """Whole seconds since 1970."""
    return int(moment.timestamp())


class KeysEndpoint:
    """An ASGI app for ``/.well-known/jwks.json``: the public keys by which others verify.

    Args:
        keys: the one that signs, and those that did.
    """

    def __init__(self, keys: Iterable[SigningKey]) -> None:
        by_name = {key.kid: key.public for key in keys}
        self._content = {"keys": [*by_name.values()]}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        await self._respond(scope)(scope, receive, send)

    def _respond(self, scope: Scope) -> Response:
        if scope.get("method") not in {"GET", "HEAD"}:
            return JSONResponse({"detail": "use GET"}, 405, headers={"Allow": "GET, HEAD"})
        return JSONResponse(
            self._content, headers={"Cache-Control": _CACHED}, media_type=_MEDIA_TYPE
        )
