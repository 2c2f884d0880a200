"""The bound cookie: says for a short while that the device has proved itself."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import NamedTuple

from asgi_sessions._model.carrier import Headers
from asgi_sessions._model.cookies import CookieSettings
from asgi_sessions._model.row import Row
from asgi_sessions._model.tokens import microseconds
from asgi_sessions._service.options import Settings

from .record import key_of, thumbprint

#: How much sooner than the server the browser takes it for expired, so that none runs out on its
#: way; of short ones a quarter of their life.
AHEAD = timedelta(seconds=10)

_SECOND = timedelta(seconds=1)
_PARTS = 5  # two of them the identifier


class Shown(NamedTuple):
    """What a live bound cookie says.

    Attributes:
        left: how long it is good.
        identifier: what the browser calls the session.
    """

    left: timedelta
    identifier: str


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

    def make(self, row: Row, identifier: str, now: datetime) -> bytes:
        """A Set-Cookie value; it ends with its session at the latest."""
        until = min(now + self._lifetime, row.expires_at)
        text = f"{identifier}.{_name(row)}.{microseconds(until)}"
        left = max((until - now - self._ahead) // _SECOND, 1)
        return self._cookie.render(self._signer.sign(text).decode("ascii"), max_age=left)

    def clear(self) -> bytes:
        """A Set-Cookie value that takes it away."""
        return self._cookie.render("", max_age=0)

    def shown(self, headers: Headers, row: Row, now: datetime) -> Shown | None:
        """What the live cookie of a row's device says; None if there is none."""
        mine, best, identifier = (row.id, _name(row)), 0, ""
        for value in self._read(headers):
            parts = value.split(".")
            if len(parts) != _PARTS or (parts[0], parts[2]) != mine:
                continue
            if self._signer.validate(value) and (until := int(parts[3])) > best:
                best, identifier = until, f"{row.id}.{parts[1]}"
        left = best - microseconds(now)
        return Shown(timedelta(microseconds=left), identifier) if left > 0 else None


def beside(cookie: CookieSettings) -> CookieSettings:
    """The settings of the bound cookie. Never partitioned: browsers would not bind it."""
    return replace(cookie, name=f"{cookie.name}-bound", partitioned=False)


def _name(row: Row) -> str:
    return thumbprint(key_of(row.binding or b""))
