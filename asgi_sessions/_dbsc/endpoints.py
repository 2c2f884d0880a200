"""The two routes that browsers post to by themselves: to bind a session, and to prove it again.

A refused registration says nothing but 403. A refresh is answered 403 with a new challenge where
the browser may try again, and 401 with ``{"continue": false}`` where there is nothing to try for:
that ends the binding in the browser, so that one that is logged out cannot refresh itself back in.
Whoever names a session by anything but its signed identifier is answered 401 without a look-up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_sessions._model.changeset import checked
from asgi_sessions._model.decisions import Cookie, cookie_of
from asgi_sessions._model.device import device_from_scope
from asgi_sessions._model.row import Row, enforced_at
from asgi_sessions._pages.cross_origin import crosses_sites
from asgi_sessions._service.core import Core

from . import headers
from .challenge import Challenges
from .cookie import BoundCookie
from .identifier import Identifiers
from .mount import mount
from .proof import answer, registration
from .record import DeviceRecord
from .refusal import ROUTINE, Refusal

#: How often a request begins anew because another one of the same browser was faster.
_TRIES = 4
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Endpoints:
    """Answers ``PATH/register`` and ``PATH/refresh``.

    Args:
        core: the steps of a session's life.
        path: of both routes.
        challenges: what devices sign.
        identifiers: what they call their sessions.
        cookie: what they get for it.
    """

    def __init__(
        self,
        core: Core,
        path: str,
        challenges: Challenges,
        identifiers: Identifiers,
        cookie: BoundCookie,
    ) -> None:
        self._core = core
        self._path = path
        self._challenges = challenges
        self._identifiers = identifiers
        self._cookie = cookie
        self._verify = core.settings.keys.verify
        self._read = core.settings.cookie.reader()
        # Links of other sites bring the cookie along (Lax), and so have to wait for it, too. With
        # SameSite=None, pictures would, and their time tells others whether somebody is logged in.
        self._initiators = [] if core.settings.cookie.samesite == "none" else ["*"]

    async def register(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Bind a session to the device that its login was answered to."""
        await (await self._answer(scope, self._register))(scope, receive, send)

    async def refresh(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Renew the bound cookie of a device that proves itself."""
        await (await self._answer(scope, self._refresh))(scope, receive, send)

    async def _answer(
        self, scope: Scope, respond: Callable[[Scope], Awaitable[Response]]
    ) -> Response:
        if scope["method"] != "POST":
            response: Response = JSONResponse({"detail": "use POST"}, 405, {"Allow": "POST"})
        else:
            response = await respond(scope)
        response.headers.update(_HEADERS)
        return response

    # --- registration -------------------------------------------------------------------------

    async def _register(self, scope: Scope) -> Response:
        row: Row | None = None
        try:
            self._same_origin(scope)
            row = await self._logged_in(scope)
            row = await self._bind(scope, row)
        except Refusal as refusal:
            self._tell(scope, refusal, None if row is None else row.id)
            return JSONResponse({"detail": "refused"}, 403)
        return self._granted(scope, row, self._identifiers.of(row.id))

    async def _logged_in(self, scope: Scope) -> Row:
        """The row that the cookie of a login leads to."""
        now, terms = self._core.settings.now(), self._core.settings.terms
        for value in self._read(_given(scope)):
            token = self._verify(value)
            row = None if token is None else await self._core.store.by_sid(token.sid)
            if token is None or row is None:
                continue
            if cookie_of(row, token.digest, now, terms) is Cookie.LIVE_LOGIN:
                return row
        raise Refusal("no_session")

    async def _bind(self, scope: Scope, row: Row, tries: int = _TRIES) -> Row:
        """The row with the key of the device, which counts from the first bound cookie on."""
        now = self._core.settings.now()
        challenge, key = registration(_proof(scope))
        serial = self._challenges.serial(challenge, row, "register", now)
        record = DeviceRecord.first(key) if row.binding is None else DeviceRecord.read(row.binding)
        if record.enforced_at and record.key != key:
            raise Refusal("bound_already")
        if not record.fresh(serial):
            if record.enforced_at or record.key != key:
                raise Refusal("used_challenge")
            return row  # the same proof again, because the answer was lost
        # Another key, as long as none is enforced, has signed a challenge of a later answer: that
        # of a renewal, which had the browser begin anew.
        binding = checked(binding=record.using(serial)._replace(key=key).write())["binding"]
        if await self._core.store.bind(row, binding, now=now):
            return row._replace(binding=binding)
        current = await self._core.store.by_sid(row.id)
        if current is None or not current.live(now, self._core.settings.terms) or not tries:
            raise Refusal("lost_race")
        return await self._bind(scope, current, tries - 1)

    # --- refresh ------------------------------------------------------------------------------

    async def _refresh(self, scope: Scope, tries: int = _TRIES) -> Response:
        # The browser's own spelling, which another key of ours may have signed: it goes by that.
        identifier = headers.text(_given(scope), headers.SESSION_ID) or ""
        sid = self._identifiers.sid(identifier)
        try:
            row = await self._bound(scope, sid)
        except Refusal as refusal:
            self._tell(scope, refusal, sid)
            return JSONResponse({"continue": False}, 401)
        try:
            renewed = await self._prove(scope, row)
        except Refusal as refusal:
            if refusal.reason != "no_proof":  # which is how a refresh begins
                self._tell(scope, refusal, row.id)
            return self._challenged(row, identifier)
        if renewed is not None:
            return self._granted(scope, renewed, identifier)
        # Another refresh of the same browser was faster. It has its challenge, we have ours.
        return await self._refresh(scope, tries - 1) if tries else self._challenged(row, identifier)

    async def _bound(self, scope: Scope, sid: str | None) -> Row:
        """The row that the browser names. The cookie may be missing: browsers leave it out where
        the request that waits for this one comes from another site.
        """
        self._same_origin(scope)
        if sid is None:
            raise Refusal("no_session")
        tokens = [token for value in self._read(_given(scope)) if (token := self._verify(value))]
        named = {token.sid for token in tokens}
        if tokens and sid not in named and not await self._acts(named, sid):
            # A login has taken its place; its cookie is not to be had for the older one.
            raise Refusal("another_session")
        row = await self._core.store.by_sid(sid)
        if row is None:
            raise Refusal("no_session")
        if not row.live(self._core.settings.now(), self._core.settings.terms):
            raise Refusal("ended")
        if row.binding is None:
            raise Refusal("not_bound")
        return row

    async def _acts(self, named: set[str], sid: str) -> bool:
        """Whether one of these is a session in which somebody acts whose own is the one asked for:
        their device proves itself for both.
        """
        rows = [await self._core.store.by_sid(one) for one in named]
        return any(row is not None and row.actor_sid == sid for row in rows)

    async def _prove(self, scope: Scope, row: Row) -> Row | None:
        """The row with the challenge used; None if another request has written to it first."""
        now = self._core.settings.now()
        record = DeviceRecord.read(row.binding or b"")
        challenge = answer(_proof(scope), record.key)
        serial = self._challenges.serial(challenge, row, "refresh", now)
        if not record.fresh(serial):
            raise Refusal("used_challenge")
        binding = checked(binding=record.using(serial).enforcing(now).write())["binding"]
        if not await self._core.store.bind(row, binding, now=now):
            return None
        proved = row._replace(binding=binding)
        if not enforced_at(row.binding):
            self._core.events.report("bound", self._core.session(proved))
        return proved

    # --- pieces -------------------------------------------------------------------------------

    @staticmethod
    def _same_origin(scope: Scope) -> None:
        # Browsers post here on their own behalf: as same-origin, whoever has made them do it.
        given = Headers(raw=list(_given(scope)))
        fetch_site = given.get("sec-fetch-site", "same-origin")
        if fetch_site != "same-origin" or crosses_sites(given, same_site=False):
            raise Refusal("cross_site")

    def _granted(self, scope: Scope, row: Row, identifier: str) -> Response:
        now = self._core.settings.now()
        path = mount(scope.get("root_path", "")) + self._path
        response = JSONResponse(
            {
                "session_identifier": identifier,
                "refresh_url": f"{path}/refresh",
                "scope": {"include_site": False},
                "credentials": [
                    {
                        "type": "cookie",
                        "name": self._cookie.name,
                        "attributes": self._cookie.attributes,
                    }
                ],
                "allowed_refresh_initiators": self._initiators,
            }
        )
        response.raw_headers.append((b"set-cookie", self._cookie.make(row, identifier, now)))
        response.raw_headers.append(self._next(row, identifier))
        return response

    def _challenged(self, row: Row, identifier: str) -> Response:
        response = JSONResponse({"detail": "refused"}, 403)
        response.raw_headers.append(self._next(row, identifier))
        return response

    def _next(self, row: Row, identifier: str) -> tuple[bytes, bytes]:
        now = self._core.settings.now()
        return headers.challenge(self._challenges.new(row, "refresh", now), identifier)

    def _tell(self, scope: Scope, refusal: Refusal, sid: str | None) -> None:
        reason = refusal.reason
        self._core.events.device_refused(
            reason,
            sid,
            lambda: self._core.address(device_from_scope(scope)),
            routine=reason in ROUTINE,
        )


def _given(scope: Scope) -> headers.Raw:
    raw: headers.Raw = scope.get("headers", ())
    return raw


def _proof(scope: Scope) -> str:
    if not headers.present(_given(scope), headers.PROOF):
        raise Refusal("no_proof")
    proof = headers.text(_given(scope), headers.PROOF)
    if proof is None:
        raise Refusal("malformed")
    return proof
