"""The cookie of Starlette's own `SessionMiddleware`, read once by an app that moves over."""

from __future__ import annotations

from base64 import b64decode
from dataclasses import KW_ONLY, dataclass, field
from datetime import timedelta
from json import loads
from typing import Any

from itsdangerous import BadData, TimestampSigner

from asgi_sessions._errors import ConfigurationError


@dataclass(frozen=True)
class StarletteCookie:
    """The arguments that the app has given to Starlette's `SessionMiddleware`.

    Args:
        secret_key: the key that has signed the cookie.
        name: the cookie's name (``session_cookie``).
        max_age: how old the cookie may be; the data of an older one are not taken over.
        path: the cookie's path, without which it could not be cleared.
        domain: the cookie's domain, for the same reason.

    Raises:
        ConfigurationError: for an empty key, or an age that is no timedelta.
    """

    secret_key: str = field(repr=False)
    _: KW_ONLY
    name: str = "session"
    max_age: timedelta = timedelta(days=14)
    path: str = "/"
    domain: str | None = None

    def __post_init__(self) -> None:
        if not self.secret_key:
            raise ConfigurationError(
                "StarletteCookie(secret_key=...): use the key of Starlette's SessionMiddleware"
            )
        age: object = self.max_age
        if not isinstance(age, timedelta):
            raise ConfigurationError(f"StarletteCookie(max_age={age!r}): use a datetime.timedelta")

    def read(self, value: str) -> dict[str, Any] | None:
        """The data of a cookie; None if it does not verify, or holds none."""
        signer = TimestampSigner(str(self.secret_key))
        try:
            data = loads(b64decode(signer.unsign(value, max_age=int(self.max_age.total_seconds()))))
        except (BadData, ValueError):
            return None
        return data if isinstance(data, dict) and data else None

    def clearing(self) -> bytes:
        """A Set-Cookie value that clears it."""
        domain = "" if self.domain is None else f"; Domain={self.domain}"
        expired = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"
        return f"{self.name}=; {expired}; Path={self.path}; HttpOnly{domain}".encode("latin-1")
