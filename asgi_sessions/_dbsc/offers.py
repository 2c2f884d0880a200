"""Notices that nobody takes up an offer to bind a session: they may lead nowhere."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from asgi_sessions._service.events import logger

#: How many offers to browsers that bind sessions nobody has to take up, and over what time, until
#: that is told. One browser takes seconds, and some have no chip to keep a key in.
MOST_OFFERS = 20
LEAST_TIME = timedelta(minutes=1)

# No browser says whether it binds sessions. Chrome does, from this version on, on Windows; those
# that are made of it have something more in their names, and ways of their own.
_CHROME = re.compile(r"\(Windows NT .* Chrome/(\d+)[\d.]* Safari/[\d.]+\Z")
_BINDS_SINCE = 145


class Offers:
    """Counts the offers of this process until one is taken up, or too many were not."""

    def __init__(self) -> None:
        self._watching = True
        self._made = 0
        self._first: datetime | None = None

    def taken_up(self) -> None:
        """A browser has come to register or to refresh, or has a session that is registered."""
        self._watching = False

    def made(self, path: str, user_agent: str | None, now: datetime) -> None:
        """A browser was asked to register there."""
        if not self._watching or not binds(user_agent):
            return
        self._first = self._first or now
        self._made += 1
        if self._made >= MOST_OFFERS and now - self._first >= LEAST_TIME:
            self._watching = False
            logger.warning(
                "of %d browsers that bind sessions, none has come to %s: behind a proxy that "
                "strips a prefix from paths, tell the server (root_path); a proxy has to pass "
                "Secure-Session-Registration on",
                *(self._made, path),
                extra={"event": "offers_not_taken_up", "count": self._made},
            )


def binds(user_agent: str | None) -> bool:
    """Whether a browser is known to bind sessions where it can keep a key."""
    match = _CHROME.search(user_agent or "")
    return match is not None and int(match[1]) >= _BINDS_SINCE
