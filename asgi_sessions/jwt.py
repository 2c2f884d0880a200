"""Short tokens of a session, for services that cannot ask the database. Needs
``asgi-login-sessions[sso]``.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial

from ._connection.context import Conn
from ._errors import ConfigurationError
from ._sessions import Sessions

try:
    from ._sso.issuing import GivenKey, KeysEndpoint, claims_of, read_key, seconds
except ModuleNotFoundError as _fault:  # of the libraries that the extra brings
    raise ImportError(
        f"asgi_sessions.jwt needs {_fault.name}: install asgi-login-sessions[sso]",
        name=_fault.name,
    ) from _fault

__all__ = ["TokenIssuer"]

_LONGEST = timedelta(minutes=15)
_ID_BYTES = 16


class TokenIssuer:
    """Signs short JWTs that say whose session a request has.

    A token holds until it expires, whatever becomes of its session: a logout, an end and a renewal
    do not reach it. Give it as short a life as its way takes.

    Args:
        sessions: whose sessions.
        issuer: the ``iss`` of the tokens: a URL of this app, below which others find
            ``/.well-known/jwks.json``.
        key: the private key that signs, Ed25519 (``EdDSA``) or P-256 (``ES256``): PEM, or a JWK.
        old_keys: keys that no longer sign, and are published still: until the last token that they
            have signed has expired. To change a key, publish the new one here first, for as long as
            others keep the set (5 minutes).

    Raises:
        ConfigurationError: if an argument cannot be one.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        issuer: str,
        key: GivenKey,
        old_keys: Iterable[GivenKey] = (),
    ) -> None:
        try:
            if not _is_name(issuer):
                raise ConfigurationError(
                    f"TokenIssuer(issuer={issuer!r}): use a URL such as 'https://app.example.com'"
                )
            if isinstance(old_keys, str | bytes | Mapping):
                raise ConfigurationError("TokenIssuer(old_keys=...): use a list of keys")
            self._key = read_key(key, "TokenIssuer(key=...)", private=True)
            name = "one of TokenIssuer(old_keys=...)"
            old = list(map(partial(read_key, name=name, private=False), old_keys))
        finally:  # no frame of a traceback may show the keys
            del key, old_keys
        self._sessions = sessions
        self._issuer = issuer
        self._endpoint = KeysEndpoint([self._key, *old])

    @property
    def keys(self) -> KeysEndpoint:
        """An ASGI app for ``/.well-known/jwks.json``: the public keys, each with its ``kid``."""
        return self._endpoint

    def token(
        self,
        conn: Conn,
        *,
        audience: str | Sequence[str],
        lifetime: timedelta = timedelta(minutes=5),
    ) -> str | None:
        """A signed JWT of the connection's session, with ``iss``, ``sub`` (the person's id),
        ``sid``, ``aud``, ``iat``, ``exp`` and ``jti``, and with ``auth_time``, ``acr`` and ``amr``
        if they are known. It expires with the session at the latest. In a session in which somebody
        acts for the person, ``act`` says who (RFC 8693).

        None without a session, once it is too old or has been idle for too long, and for one that
        is bound to a device which has not proved itself in this request. A request that came with
        the secret before the current one has nothing proved in its token.

        Args:
            conn: the request or WebSocket.
            audience: the service that it is for, which has to look for its name in it; or several.
            lifetime: 15 minutes at most.

        Raises:
            ConfigurationError: if an argument cannot be one, or the connection did not pass through
                the middleware.
        """
        audiences = [audience] if isinstance(audience, str) else list(audience)
        if not audiences or not all(map(_is_name, audiences)):
            raise ConfigurationError(f"token(audience={audience!r}): name a service, or several")
        if not _is_short(lifetime):
            raise ConfigurationError(
                f"token(lifetime={lifetime!r}): use a datetime.timedelta of up to 15 minutes; the "
                "token outlives the end of its session by so much"
            )
        context = self._sessions._context(conn)
        settings = self._sessions._core.settings
        session, row, now = context.session, context.row, settings.now()
        # The row knows of each use: what a WebSocket hears keeps its session from idling.
        if session is None or row is None or not row.live(now, settings.terms):
            return None
        if session.bound and context.proved != session.id:
            return None
        expires_at = min(now + lifetime, session.expires_at)
        return self._key.sign(
            {
                "iss": self._issuer,
                **claims_of(session),
                "aud": audiences[0] if len(audiences) == 1 else audiences,
                "iat": seconds(now),
                "exp": seconds(expires_at),
                "jti": secrets.token_urlsafe(_ID_BYTES),
            }
        )


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value)


def _is_short(value: object) -> bool:
    return isinstance(value, timedelta) and timedelta(0) < value <= _LONGEST
