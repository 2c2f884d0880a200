"""The binding of sessions to devices, as the middleware meets it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.types import Scope

from asgi_sessions._binding import Binding, Headers, Respond
from asgi_sessions._call import Call
from asgi_sessions._core import Core
from asgi_sessions._row import Row
from asgi_sessions._tokens import microseconds

from . import headers
from .challenge import LIFETIME, Challenges
from .cookie import BoundCookie
from .endpoints import Endpoints
from .proof import ALGORITHMS
from .record import Record
from .refusal import Reason

#: How long after its registration a browser may send what it had begun before it had the bound
#: cookie: a page that loads while the browser registers. Half the life of a short cookie at most.
GRACE = timedelta(seconds=10)
#: When a response brings the next challenge along: while the bound cookie is good for less, since
#: browsers refresh two minutes ahead. Less than a challenge lives, so that it is good by then.
PRE_ISSUE = LIFETIME - timedelta(minutes=1)


class DeviceBound(Binding):
    """Sessions bound by Device Bound Session Credentials.

    Args:
        core: the steps of a session's life.
        path: of the two routes.
        cookie_lifetime: how long a proof is good.
        allowed_skips: reasons of a browser for which it need not prove itself.
    """

    def __init__(
        self, core: Core, path: str, cookie_lifetime: timedelta, allowed_skips: Collection[str]
    ) -> None:
        self._core = core
        self._path = path
        self._allowed_skips = frozenset(allowed_skips)
        self._grace = min(GRACE, cookie_lifetime / 2)
        self._challenges = Challenges(core.settings.keys)
        self._cookie = BoundCookie(core.settings, cookie_lifetime)
        endpoints = Endpoints(core, path, self._challenges, self._cookie)
        self._responders: dict[str, Respond] = {
            f"{path}/register": endpoints.register,
            f"{path}/refresh": endpoints.refresh,
        }

    def responder(self, scope: Scope) -> Respond | None:
        """The route that the browser posts to by itself, if this is one."""
        path: str = scope["path"]
        if self._path not in path or scope["type"] != "http":
            return None
        return self._responders.get(path.removeprefix(scope.get("root_path", "")))

    def holds(self, scope: Mapping[str, Any], call: Call, row: Row, now: datetime) -> bool:
        """Whether the request brings a live bound cookie, or needs none.

        Notes on the call the challenge that the response brings along, if it is time for it.
        """
        given = scope.get("headers", ())
        left = self._cookie.left(given, row, now)
        if left is not None:
            if left < PRE_ISSUE:
                challenge = self._challenges.new(row, "refresh", now)
                call.carry(headers.challenge(challenge, row.id))
            return True

        def client() -> str | None:
            return self._core.client(scope)

        if self._begun_before(given, row, now):
            return True
        if reasons := headers.skipped(given, row.id) & self._allowed_skips:
            self._core.events.device_skipped(min(reasons), row.id, client)
            return True
        reason: Reason = "no_cookie"
        self._core.events.device_refused(reason, row.id, client)
        return False

    def headers(self, call: Call) -> Headers:
        """With the cookie of a login the offer to bind it; with its end that of the bound one."""
        if call.clear:
            return [(b"set-cookie", self._cookie.clear())]
        row = call.row
        # A session that another layer vouches for is not worth binding: whoever has stolen that
        # layer's credential needs no cookie of ours.
        if call.token is None or row is None or row.binding is not None or row.origin != "login":
            return []
        challenge = self._challenges.new(row, "register", self._core.settings.now())
        path = f"{call.root_path}{self._path}/register"
        return [headers.registration(ALGORITHMS, path, challenge)]

    def _begun_before(
        self, given: Collection[tuple[bytes, bytes]], row: Row, now: datetime
    ) -> bool:
        """Whether the request may have left before the bound cookie was there. Only browsers that
        bind sessions need this, and each of them says where a request comes from.
        """
        age = microseconds(now) - Record.read(row.binding or b"").bound_at
        young = timedelta(microseconds=age) < self._grace
        return young and any(name == b"sec-fetch-site" for name, _ in given)
