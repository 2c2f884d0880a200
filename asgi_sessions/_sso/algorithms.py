"""Which signatures count, and the public keys for them, read from a JWK set (RFC 7517). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from joserfc.util import urlsafe_b64decode

#: Those of `verify`, by their registered names; nothing that a public key could be mistaken for.
ALGORITHMS = ("RS256", "ES256", "EdDSA", "PS256", "Ed25519")
#: Keys of a set that are looked at.
MOST_KEYS = 100
#: Bits of an RSA key, and of its exponent.
RSA_BITS, _EXPONENT_BITS = range(2048, 8192 + 1), 32

Key = RSAKey | ECKey | OKPKey


class Registry(JWSRegistry):
    """The algorithms above and no other; what a token may be long is known before."""

    max_header_length = 4096
    max_payload_length = 65_536
    max_signature_length = 1366  # of the largest RSA key, in base64

    def __init__(self) -> None:
        super().__init__(algorithms=list(ALGORITHMS), strict_check_header=False)

    def get_alg(self, name: str) -> Any:  # noqa: ANN401 -- the library's own
        """An algorithm, without the library's warning about the name EdDSA, which providers use.
        Ed25519 is its newer name (RFC 9864), which older versions of the library do not know.
        """
        return _MODELS[name]


_MODELS = {
    name: JWSRegistry.algorithms["EdDSA" if name == "Ed25519" else name] for name in ALGORITHMS
}
REGISTRY = Registry()


class PublicKey(NamedTuple):
    """A key of a provider.

    Attributes:
        kid: its name; None if it has none.
        algorithms: for which it is good.
        key: itself.
    """

    kid: str | None
    algorithms: tuple[str, ...]
    key: Key


#: By the type and curve of a key: the members of its public part, and what it is good for.
_KINDS: dict[tuple[object, object], tuple[type[Key], tuple[str, ...], tuple[str, ...]]] = {
    ("RSA", None): (RSAKey, ("kty", "n", "e"), ("RS256", "PS256")),
    ("EC", "P-256"): (ECKey, ("kty", "crv", "x", "y"), ("ES256",)),
    ("OKP", "Ed25519"): (OKPKey, ("kty", "crv", "x"), ("EdDSA", "Ed25519")),
}


def public_keys(jwks: object) -> list[PublicKey]:
    """The keys of a JWK set that verify signatures. What is no such key is left out, as the
    standard asks: secret keys, keys for encryption, kinds that nobody here knows.

    Raises:
        ValueError: if this is no JWK set.
    """
    keys = jwks.get("keys") if isinstance(jwks, Mapping) else None
    if not isinstance(keys, list):
        raise ValueError("no JWK set: a JSON object with a list of keys")
    return [key for jwk in keys[:MOST_KEYS] for key in _read(jwk)]


def _read(jwk: object) -> Iterator[PublicKey]:
    if not isinstance(jwk, Mapping) or jwk.get("use", "sig") != "sig":
        return
    operations = jwk.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return
    kind = jwk.get("kty"), None if jwk.get("kty") == "RSA" else jwk.get("crv")
    if not all(isinstance(one, str | None) for one in kind) or kind not in _KINDS:
        return
    of, members, algorithms = _KINDS[kind]
    # Of a private key, the public part alone.
    public = {name: jwk[name] for name in members if isinstance(jwk.get(name), str)}
    only = jwk.get("alg")
    if only is not None and of is not OKPKey:  # whose algorithm has two names
        algorithms = tuple(one for one in algorithms if one == only)
    if only not in (None, *algorithms):
        return
    kid = jwk.get("kid")
    try:
        if len(public) == len(members) and (of is not RSAKey or _is_strong(public)):
            yield PublicKey(
                kid if isinstance(kid, str) else None, algorithms, of.import_key(public)
            )
    except (JoseError, ValueError, TypeError):
        return


def _is_strong(jwk: Mapping[str, str]) -> bool:
    """Looked at before it becomes a key, which takes the longer, the larger it is."""
    bits, exponent = (
        int.from_bytes(urlsafe_b64decode(jwk[name].encode())).bit_length() for name in ("n", "e")
    )
    return bits in RSA_BITS and exponent <= _EXPONENT_BITS
