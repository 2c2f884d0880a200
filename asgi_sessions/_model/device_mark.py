"""The mark of a device: an opt-in cookie by which a browser is known for that of its people.

It holds a random name of the browser, and for each of the last people who have logged in there a
date, and a signature of the name, the date and the person. Without the key it says nothing, and it
opens nothing.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from .carrier import Headers
from .cookies import CookieSettings
from .tokens import Keys, RandomBytes

#: People that a mark is of, the last ones: so that a cookie is no longer than is looked at.
_PEOPLE = 6
_NAME_BYTES = 16
# The name, then for each person the seconds since 1970 and the signature.
_SHAPE = re.compile(r"[\w-]{22}(\.\d{10}\.[\w-]{43}){1,6}", re.ASCII)


class DeviceMarks:
    """Reads and writes the cookie, which stands beside the session's, with the same attributes.

    Args:
        keys: that sign it.
        cookie: the session's.
        lifetime: how long a mark counts from the person's last login.
    """

    def __init__(self, keys: Keys, cookie: CookieSettings, lifetime: timedelta) -> None:
        self._signer = keys.signer("device_mark")
        self._cookie = replace(cookie, name=f"{cookie.name}-device")
        self._read: Callable[[Headers], list[str]] = self._cookie.reader()
        self._lifetime = lifetime

    def dated(self, headers: Headers, owner: tuple[str, str], now: datetime) -> datetime | None:
        """When somebody has last been marked here, as long as that counts; None if never.

        Args:
            headers: of the request.
            owner: the ids of the person and their app.
            now: the moment.
        """
        dates = [
            datetime.fromtimestamp(int(seconds), UTC)
            for name, people in self._marks(headers)
            for seconds, signature in people
            if self._is_of(owner, name, seconds, signature)
        ]
        return max((date for date in dates if date <= now < date + self._lifetime), default=None)

    def render(
        self, headers: Headers, owner: tuple[str, str], started_at: datetime, random: RandomBytes
    ) -> bytes:
        """A Set-Cookie value that marks the browser as somebody's; the others stay.

        Args:
            headers: of the request.
            owner: the ids of the person and their app.
            started_at: of the session, by which the mark is known for that one's.
            random: returns so many random bytes.
        """
        name, people = next(iter(self._marks(headers)), (_new_name(random), []))
        others = [one for one in people if not self._is_of(owner, name, *one)]
        seconds = f"{int(started_at.timestamp()):010}"
        signature = self._signer.get_signature(_said(owner, name, seconds)).decode("ascii")
        entries = [(seconds, signature), *others][:_PEOPLE]
        value = ".".join([name, *(part for entry in entries for part in entry)])
        return self._cookie.render(value, max_age=int(self._lifetime.total_seconds()))

    def _marks(self, headers: Headers) -> list[tuple[str, list[tuple[str, str]]]]:
        """The names and people of what looks like a mark."""
        found = []
        for value in self._read(headers):
            if _SHAPE.fullmatch(value):
                name, *parts = value.split(".")
                found.append((name, list(zip(parts[::2], parts[1::2], strict=True))))
        return found

    def _is_of(self, owner: tuple[str, str], name: str, seconds: str, signature: str) -> bool:
        return self._signer.verify_signature(_said(owner, name, seconds), signature)


def _said(owner: tuple[str, str], name: str, seconds: str) -> str:
    return json.dumps([name, seconds, *owner])


def _new_name(random: RandomBytes) -> str:
    return urlsafe_b64encode(random(_NAME_BYTES)).rstrip(b"=").decode("ascii")
