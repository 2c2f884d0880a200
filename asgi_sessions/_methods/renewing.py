"""A new secret for a session that goes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from asgi_sessions._connection import impersonating
from asgi_sessions._connection.context import Conn, RequestContext
from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import Token
from asgi_sessions._service.core import unproved
from asgi_sessions._service.identity import moment_of_proof

from .base import AppConnection, Base


class Renewing(Base):
    """Renew the session of a connection."""

    async def renew_session(
        self,
        conn: Conn,
        *,
        acr: str | None = None,
        amr: Sequence[str] = (),
        authenticated_at: datetime | None = None,
        connection: AppConnection | None = None,
    ) -> Session | None:
        """After a password, a second factor or another login at the provider: a new secret under
        the same sid, and a new `authenticated_at` (ASVS 7.2.4, 7.5.1). None without a live session.

        The previous secret stays good until the new one has been seen, and 60 s longer; never seen,
        for 10 minutes. It is a bridge for requests that were under way: nothing that was proved
        counts for them, and a renewal by one of them changes nothing. WebSockets and streams that
        were opened with it are closed.

        Args:
            conn: the request; a WebSocket before it is accepted.
            acr: how well the person is authenticated now; None leaves it as it is.
            amr: the methods that were used, such as ``["pwd", "otp"]``; none leaves them.
            authenticated_at: when they proved it (aware); None for now. Pass the ``auth_time`` of a
                provider, which may have asked nothing this time. It is kept even if the session
                had a later one: what was proved earlier is not fresh. Up to 5 minutes ahead of the
                clock count as now.
            connection: as in `start_session`.

        Raises:
            ConfigurationError: if the response has begun.
            ImpersonationRefused: in a session in which somebody acts for its person.
            InvalidSession: if `acr` or `amr` cannot be stored, or `authenticated_at` is not aware
                or more than 5 minutes ahead of the clock.
        """
        context = self._context(conn)
        proof = self._proof(context, acr, amr, authenticated_at)
        await self._renew(context, proof, connection)
        return context.session

    def _proof(
        self,
        context: RequestContext,
        acr: str | None,
        amr: Sequence[str],
        authenticated_at: datetime | None,
    ) -> dict[str, Any]:
        shown = context.session
        return {
            "acr": acr or (shown and shown.acr),
            "amr": amr or (shown.amr if shown else ()),
            "authenticated_at": moment_of_proof(authenticated_at, self._core.settings),
        }

    async def rotate_session(
        self, conn: Conn, *, connection: AppConnection | None = None
    ) -> Session | None:
        """A new secret and a new cookie under the same sid, without claiming that the person has
        proved anything: after a change of roles, or where a cookie may have been seen. None without
        a live session.

        Args:
            conn: the request; a WebSocket before it is accepted.
            connection: as in `start_session`.

        Raises:
            ConfigurationError: if the response has begun.
            ImpersonationRefused: in a session in which somebody acts for its person.
        """
        context = self._context(conn)
        await self._renew(context, {}, connection)
        return context.session

    async def _renew(
        self,
        context: RequestContext,
        proof: Mapping[str, Any],
        connection: AppConnection | None,
        *,
        bearer: bool = False,
    ) -> Token | None:
        """The new token, if this request has got it."""
        self._may_change(context)
        if context.row is None:
            return None
        impersonating.refuse_inside(context, "not_renewable")
        if context.bearer != bearer:
            raise ConfigurationError(
                "the client of this session sends a token, and would not take the cookie of a "
                "renewal: give it a new token by renew_token"
                if context.bearer
                else "this session has a cookie, and no token: renew it by renew_session"
            )
        if context.bridge:  # a bridge renews nothing, but what has ended meanwhile has ended
            row = await self._core.store.by_sid(context.row.id)
            settings = self._core.settings
            if row is None or not row.live(settings.now(), settings.terms):
                context.drop()
            return None
        core = await self._core_on(connection, context)
        renewed = await core.renew(context.row, context.presented, proof)
        if renewed is None:
            context.drop()
            return None
        if renewed.token is None:  # another request was faster: this one has its old secret
            context.bridge = True
            context.use(renewed.row, unproved(renewed.session))
        else:
            context.use(renewed.row, renewed.session)
            context.reissued = bearer
            if not bearer:
                context.give(renewed.token)
        return renewed.token
