"""A signed token of a provider, verified: by whom, for whom, when (RFC 7519). What it says is read
after its signature was found good, and not before.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from joserfc.errors import JoseError
from joserfc.jws import CompactSignature, extract_compact, validate_compact

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._service.core import Core
from asgi_sessions._service.identity import SKEW

from .algorithms import ALGORITHMS, REGISTRY
from .key_source import Keys, KeySource
from .refusal import Refusal

#: Characters of a token.
LENGTH = 65_536

# Characters of base64 without padding, as RFC 7515 has it, and with nothing in between.
_JWT = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+", re.ASCII)


# What has to be understood, and is not (RFC 7515, 4.1.11; RFC 7797).
_EXTENSIONS = {"crit", "b64"}


#: In the year 9999: of a token that says nothing of its end.
_LATE = 253_370_764_800


class Verified(NamedTuple):
    """What a token says, of which everything is true that could be found out.

    Attributes:
        claims: all of it.
        issued_at: when it was issued, by the clock of the issuer.
        jti: its own id.
    """

    claims: dict[str, Any]
    issued_at: datetime
    jti: str


class Verifier:
    """Reads the tokens of one issuer for one audience.

    Args:
        source: the issuer's keys.
        issuer: its ``iss``.
        audience: whom they are for.
        algorithms: which signatures count.
        types: what the header's ``typ`` may be, in lower case; with None it may be missing.
        alone: whether nobody else may be in the audience.
        oldest: how long ago a token may have been issued.
        now: the clock.
    """

    def __init__(
        self,
        source: KeySource,
        *,
        issuer: str,
        audience: str,
        algorithms: Collection[str],
        types: Collection[str | None],
        alone: bool,
        oldest: timedelta,
        now: Callable[[], datetime],
    ) -> None:
        self._source = source
        self._issuer = issuer
        self._audience = audience
        self._algorithms = algorithms
        self._types = types
        self._alone = alone
        self._oldest = oldest
        self._now = now

    async def verified(self, token: str) -> Verified:
        """What a token says, if it counts.

        Raises:
            Refusal: if it does not.
            KeysUnavailable: if that cannot be told now.
        """
        if len(token) > LENGTH or not _JWT.fullmatch(token):
            raise Refusal("no signed JWT")  # neither is one that is encrypted, of five parts
        try:
            jwt = extract_compact(token.encode("ascii"), registry=REGISTRY)
            header: object = jwt.headers()
        except (JoseError, ValueError, TypeError, RecursionError):
            raise Refusal("a JWT that cannot be read") from None
        if not isinstance(header, dict) or header.keys() & _EXTENSIONS:
            raise Refusal("a JWT that cannot be read")
        kind = header.get("typ")
        if not isinstance(kind, str | None) or self._type(kind) not in self._types:
            raise Refusal("another type of token")
        algorithm, kid = str(header.get("alg")), header.get("kid")
        if algorithm not in self._algorithms:
            raise Refusal("another algorithm", "invalid_key")
        if not isinstance(kid, str | None):
            raise Refusal("a kid that is no text", "invalid_key")
        keys = await self._source.find(kid, algorithm)
        if not keys:
            raise Refusal("signed with an unknown key", "invalid_key")
        if not any(validate_compact(jwt, one.key, registry=REGISTRY) for one in keys):
            raise Refusal("an invalid signature", "invalid_key")
        claims = _payload(jwt)
        self._is_between_us(claims)
        issued_at = self._is_timely(claims)
        if (jti := text_of(claims, "jti")) is None:
            raise Refusal("without an id of its own")
        return Verified(claims, issued_at, jti)

    @staticmethod
    def _type(kind: str | None) -> str | None:
        return None if kind is None else kind.lower().removeprefix("application/")

    def _is_between_us(self, claims: Mapping[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise Refusal("another issuer", "invalid_issuer")
        audience = claims.get("aud")
        audiences = [audience] if isinstance(audience, str) else audience
        if not isinstance(audiences, list) or self._audience not in audiences:
            raise Refusal("for somebody else", "invalid_audience")
        if self._alone and any(one != self._audience for one in audiences):
            raise Refusal("for others besides", "invalid_audience")

    def _is_timely(self, claims: Mapping[str, Any]) -> datetime:
        """When it was issued."""
        now = self._now()
        issued_at = _moment(claims.get("iat"))
        if issued_at is None:
            raise Refusal("without a time of its issue")
        if issued_at > now + SKEW:
            raise Refusal("issued in the future")
        if issued_at < now - self._oldest - SKEW:
            raise Refusal("issued too long ago")
        expires_at, begins_at = _moment(claims.get("exp", _LATE)), _moment(claims.get("nbf", 0))
        if expires_at is None or expires_at <= now - SKEW:
            raise Refusal("expired")
        if begins_at is None or begins_at > now + SKEW:
            raise Refusal("not valid yet")
        return issued_at


def verifier_of(
    core: Core,
    keys: Keys,
    *,
    issuer: object,
    audience: object,
    algorithms: Sequence[str],
    types: Collection[str | None],
    alone: bool,
    oldest: timedelta,
) -> Verifier:
    """A verifier by the arguments of an app, which are checked.

    Raises:
        ConfigurationError: if one cannot be one, all errors in one message.
    """
    given = {"iss": issuer, "aud": audience}
    names = {claim: value for claim, value in given.items() if isinstance(value, str) and value}
    errors = [
        f"{value!r} is no {claim}: pass its text, as the provider has it in its tokens"
        for claim, value in given.items()
        if claim not in names
    ]
    if isinstance(algorithms, str) or not algorithms or not set(algorithms) <= {*ALGORITHMS}:
        errors.append(f"algorithms={algorithms!r}: use a list of some of {', '.join(ALGORITHMS)}")
    source = None
    try:
        source = KeySource(keys, core.settings.now)
    except ConfigurationError as error:
        errors.append(str(error))
    if errors or source is None:
        raise ConfigurationError("; ".join(errors))
    return Verifier(
        source,
        issuer=names["iss"],
        audience=names["aud"],
        algorithms=tuple(algorithms),
        types=types,
        alone=alone,
        oldest=oldest,
        now=core.settings.now,
    )


def _moment(value: object) -> datetime | None:
    """A time in seconds since 1970; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def text_of(claims: Mapping[str, Any], name: str) -> str | None:
    """A claim that is a text with something in it; None if it is none."""
    value = claims.get(name)
    return value if isinstance(value, str) and value else None


def _payload(jwt: CompactSignature) -> dict[str, Any]:
    try:
        claims = json.loads(jwt.payload)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise Refusal("a JWT that cannot be read")
    return claims
