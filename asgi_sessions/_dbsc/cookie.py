"""The bound cookie: says for a short while that the device has proved itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from asgi_sessions._cookies import CookieSettings, Headers
from asgi_sessions._row import Row
from asgi_sessions._settings import Settings
from asgi_sessions._tokens import microseconds

from .record import key_of, thumbprint

#: How much sooner than the server the browser takes it for expired, so that none runs out on its
#: way; of short ones a quarter of their life.
AHEAD = timedelta(seconds=10)

_SECOND = timedelta(seconds=1)


class BoundCookie:
    """Made for a session and a key; good for both together.

    Args:
        settings: whose cookie it stands beside, with the same attributes.
        lifetime: how long it is good.
    """

    def __init__(self, settings: Settings, lifetime: timedelta) -> None:
        self._signer = settings.keys.signer("dbsc.cookie")
        self._lifetime = lifetime
        self._ahead = min(AHEAD, lifetime / 4)
        self._cookie = beside(settings.cookie)
        self._read = self._cookie.reader()
        self.name = self._cookie.wire_name
        #: As the session instructions declare it (W3C webappsec-dbsc, "JSON session credential").
        self.attributes = f"Path=/; Secure; HttpOnly; SameSite={settings.cookie.samesite.title()}"

    def make(self, row: Row, now: datetime) -> bytes:
        """A Set-Cookie value; it ends with its session at the latest."""
        until = min(now + self._lifetime, row.expires_at)
        text = f"{_said(row)}.{microseconds(until)}"
        left = max((until - now - self._ahead) // _SECOND, 1)
        return self._cookie.render(self._signer.sign(text).decode("ascii"), max_age=left)

    def clear(self) -> bytes:
        """A Set-Cookie value that takes it away."""
        return self._cookie.render("", max_age=0)

    def left(self, headers: Headers, row: Row, now: datetime) -> timedelta | None:
        """How long the proof of a bound row's device is good; None if it is not."""
        said = _said(row)
        best = 0
        for value in self._read(headers):
            if value.startswith(said) and self._signer.validate(value):
                best = max(best, int(value.split(".")[2]))
        left = best - microseconds(now)
        return timedelta(microseconds=left) if left > 0 else None


def beside(cookie: CookieSettings) -> CookieSettings:
    """The settings of the bound cookie. Never partitioned: browsers would not bind it."""
    return replace(cookie, name=f"{cookie.name}-bound", partitioned=False)


def _said(row: Row) -> str:
    return f"{row.id}.{thumbprint(key_of(row.binding or b''))}"
