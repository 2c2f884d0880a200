"""Proofs: a JWT that a device has signed, over a challenge of ours. Pure.

What a browser sends (W3C webappsec-dbsc, "DBSC proof"): the header ``alg``, ``typ`` and, when it
registers, ``jwk``; the payload ``jti``, the challenge. Nothing in it is believed before the
signature holds, and then the challenge still has to be one of ours.
"""

from __future__ import annotations

import json
import re
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.serialization import load_der_public_key
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import CompactSignature, JWSRegistry, extract_compact, validate_compact
from joserfc.util import urlsafe_b64decode

from .refusal import Refusal

#: What is asked for and taken (RFC 7518, 3.1): what the chips in devices speak.
ALGORITHMS = ("ES256", "RS256")
#: Bits of an RSA key.
RSA_BITS = range(2048, 4096 + 1)
#: Characters of a proof: one with an RSA key of 4096 bits has 1,900.
LENGTH = 4096

_PUBLIC = {"ES256": ("kty", "crv", "x", "y"), "RS256": ("kty", "n", "e")}
# Characters of base64 without padding, as RFC 7515 has it, and with nothing in between.
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)
_EXPONENT = 65537  # what devices use; lesser ones have a history


class _Registry(JWSRegistry):
    """With room for an RSA key in the header, and none to spare elsewhere."""

    max_header_length = 1200
    max_payload_length = 1024


_REGISTRY = _Registry(algorithms=list(ALGORITHMS))


def registration(proof: str) -> tuple[str, bytes]:
    """The challenge that a new device has signed, and its public key in DER.

    Raises:
        Refusal: for everything that is no such proof.
    """
    jwt, algorithm, header = _read(proof)
    jwk = header.get("jwk")
    if not isinstance(jwk, dict):
        raise Refusal("wrong_key")
    key = _import(jwk, algorithm)
    return _verified(jwt, key), key.as_der(private=False)


def answer(proof: str, der: bytes) -> str:
    """The challenge that a known device has signed.

    Args:
        proof: the JWT.
        der: the device's public key.

    Raises:
        Refusal: for everything that is no such proof.
    """
    jwt, algorithm, header = _read(proof)
    if "jwk" in header:
        raise Refusal("key_in_refresh")
    kind = type_of(der)
    if _ALGORITHM_OF[kind] != algorithm:
        raise Refusal("wrong_algorithm")
    return _verified(jwt, kind.import_key(der))


def type_of(der: bytes) -> type[ECKey | RSAKey]:
    """Which kind of key one in DER is."""
    return ECKey if isinstance(load_der_public_key(der), EllipticCurvePublicKey) else RSAKey


_ALGORITHM_OF: dict[type[ECKey | RSAKey], str] = {ECKey: "ES256", RSAKey: "RS256"}


def _read(proof: str) -> tuple[CompactSignature, str, dict[str, Any]]:
    if len(proof) > LENGTH:
        raise Refusal("too_long")
    if not _JWT.fullmatch(proof):
        raise Refusal("malformed")
    try:
        jwt = extract_compact(proof.encode("ascii"), registry=_REGISTRY)
        header = jwt.headers()
    except (JoseError, ValueError, TypeError, RecursionError):
        raise Refusal("malformed") from None
    if header.get("typ") != "dbsc+jwt":
        raise Refusal("wrong_type")
    algorithm = header.get("alg")
    if algorithm not in ALGORITHMS:
        raise Refusal("wrong_algorithm")
    return jwt, algorithm, header


def _import(jwk: dict[str, Any], algorithm: str) -> ECKey | RSAKey:
    # Of a key with more in it, a private one for instance, the public part alone.
    names = _PUBLIC[algorithm]
    public = {name: jwk[name] for name in names if isinstance(jwk.get(name), str)}
    if len(public) < len(names):
        raise Refusal("wrong_key")
    try:
        if algorithm == "ES256":
            if (public["kty"], public["crv"]) != ("EC", "P-256"):
                raise Refusal("wrong_key")
            return ECKey.import_key(public)
        if public["kty"] != "RSA":
            raise Refusal("wrong_key")
        # Looked at before it becomes a key, which takes the longer, the larger it is.
        if _number(public["n"]).bit_length() not in RSA_BITS or _number(public["e"]) != _EXPONENT:
            raise Refusal("weak_key")
        return RSAKey.import_key(public)
    except (JoseError, ValueError, TypeError):
        raise Refusal("wrong_key") from None


def _number(text: str) -> int:
    return int.from_bytes(urlsafe_b64decode(text.encode("ascii")), "big")


def _verified(jwt: CompactSignature, key: ECKey | RSAKey) -> str:
    try:
        right = validate_compact(jwt, key, registry=_REGISTRY)
    except (JoseError, ValueError, TypeError):
        raise Refusal("malformed") from None
    if not right:
        raise Refusal("bad_signature")
    try:
        said = json.loads(jwt.payload)
    except (ValueError, RecursionError):
        raise Refusal("malformed") from None
    challenge = said.get("jti") if isinstance(said, dict) else None
    if not isinstance(challenge, str):
        raise Refusal("malformed")
    return challenge
