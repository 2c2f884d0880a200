"""The binding of sessions to devices, as the middleware meets it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from starlette.types import Scope

from asgi_sessions._connection.binding import Binding, Headers, Respond
from asgi_sessions._connection.context import RequestContext
from asgi_sessions._model.changeset import checked
from asgi_sessions._model.device import device_from_scope
from asgi_sessions._model.row import Row, enforced_at
from asgi_sessions._model.tokens import microseconds
from asgi_sessions._service.core import Core

from . import headers
from .challenge import LIFETIME, Challenges
from .cookie import BoundCookie
from .endpoints import Endpoints
from .identifier import Identifiers
from .mount import mount, within
from .offers import Offers
from .proof import ALGORITHMS
from .record import DeviceRecord
from .refusal import Reason

#: How long after the first bound cookie has come a browser's requests may arrive that it had begun
#: before it had one: on another connection, or waiting for one. Half the life of a short cookie at
#: most.
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
        core.proof_lifetime = cookie_lifetime
        self._offers = Offers()
        self._challenges = Challenges(core.settings.keys)
        self._identifiers = Identifiers(core.settings.keys)
        self._cookie = BoundCookie(core.settings, cookie_lifetime)
        endpoints = Endpoints(core, path, self._challenges, self._identifiers, self._cookie)
        self._responders: dict[str, Respond] = {
            f"{path}/register": endpoints.register,
            f"{path}/refresh": endpoints.refresh,
        }

    def responder(self, scope: Scope) -> Respond | None:
        """The route that the browser posts to by itself, if this is one."""
        path: str = scope["path"]
        if self._path not in path or scope["type"] != "http":
            return None
        respond = self._responders.get(within(scope.get("root_path", ""), path))
        if respond is not None:
            self._offers.taken_up()
        return respond

    async def proven(
        self, scope: Mapping[str, Any], context: RequestContext, row: Row, now: datetime
    ) -> Row | None:
        """The row, if the request brings a live bound cookie, or needs none.

        The first one that comes puts the binding in force: the browser has it, so that whoever
        has none is somebody else. Notes on the context the challenge that the response brings
        along, if it is time for it.
        """
        self._offers.taken_up()
        given = scope.get("headers", ())
        shown = self._cookie.shown(given, row, now)
        if shown is not None:
            context.proved = row.id
            if shown.left < PRE_ISSUE:
                challenge = self._challenges.new(row, "refresh", now)
                context.carry(headers.challenge(challenge, shown.identifier))
            return row if enforced_at(row.binding) else await self._enforce(row, now)
        if self._under_way(given, row, now):
            return row

        def client() -> str | None:
            return self._core.address(device_from_scope(scope))

        def mine(identifier: str) -> bool:
            return identifier.startswith(row.id) and self._identifiers.sid(identifier) == row.id

        if reasons := headers.skipped(given, mine) & self._allowed_skips:
            self._core.events.device_skipped(min(reasons), row.id, client)
            return row
        reason: Reason = "no_cookie"
        self._core.events.device_refused(reason, row.id, client)
        return None

    def headers(self, context: RequestContext) -> Headers:
        """With the cookie of a login the offer to bind it; with its end that of the bound one."""
        if context.clear:
            return [(b"set-cookie", self._cookie.clear())]
        row = context.row
        # A session that another layer vouches for is not worth binding: whoever has stolen that
        # layer's credential needs no cookie of ours.
        if (
            context.token is None
            or row is None
            or row.origin != "login"
            or row.actor_sid is not None  # whoever acts has to prove the device of their own
            or enforced_at(row.binding)
        ):
            return []
        now = self._core.settings.now()
        challenge = self._challenges.new(row, "register", now)
        path = f"{mount(context.root_path)}{self._path}/register"
        self._offers.made(path, row.user_agent, now)
        return [headers.registration(ALGORITHMS, path, challenge)]

    async def _enforce(self, row: Row, now: datetime) -> Row:
        """The row from now on in need of a proof."""
        record = DeviceRecord.read(row.binding or b"").enforcing(now)
        binding = checked(binding=record.write())["binding"]
        enforced = row._replace(binding=binding)
        # Where another request was faster, it has done this, or has ended the session. This one
        # goes on as it began.
        if await self._core.store.bind(row, binding, now=now):
            self._core.events.report("bound", self._core.session(enforced))
        return enforced

    def _under_way(self, given: Collection[tuple[bytes, bytes]], row: Row, now: datetime) -> bool:
        """Whether the request may have left before the bound cookie was there. Only browsers that
        bind sessions need this, and each of them says where a request comes from.
        """
        since = enforced_at(row.binding)
        if not since:
            return True
        young = timedelta(microseconds=microseconds(now) - since) < self._grace
        return young and any(name == b"sec-fetch-site" for name, _ in given)
