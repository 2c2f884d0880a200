"""Somebody acts for another person, and goes back."""

from __future__ import annotations

from datetime import timedelta

from asgi_sessions._connection import impersonating
from asgi_sessions._connection.context import Conn
from asgi_sessions._model.session import Session

from .base import AppConnection, Base


class Support(Base):
    """Act for somebody in a session that is marked."""

    async def impersonate(
        self,
        conn: Conn,
        person: object,
        *,
        reason: str,
        lifetime: timedelta = timedelta(hours=1),
        connection: AppConnection | None = None,
    ) -> Session:
        """Act for a person: from now on this browser has a session of theirs, which is marked
        (`Session.actor_id`, `Session.actor_reason`). **Whether somebody may act for that person is
        for your app to decide, before it calls this**: nothing here knows of rights.

        The session that calls this waits, and no cookie opens it meanwhile; `stop_impersonating`
        brings it back. The two end together, whoever ends either.

        In the session nothing is proved (`is_fresh` is False), it cannot be renewed, and it counts
        for no limit of the person's. Its data start empty.

        Args:
            conn: the request; a WebSocket before it is accepted.
            person: for whom: an object or mapping with an id; see `Person`.
            reason: why, for the person and the record: 1 to 255 characters, such as the number of a
                ticket.
            lifetime: for how long at most: more than 0, at most 12 hours, and no longer than the
                session that waits.
            connection: as in `start_session`.

        Raises:
            ConfigurationError: if the person has no id, the lifetime cannot be one, or the response
                has begun.
            ImpersonationRefused: unless the session is a login whose person has proved who they are
                at most 15 minutes ago, who is somebody else, and does not act for anybody yet. Its
                `reason` says which.
            InvalidSession: if the reason or the id cannot be stored.
        """
        context = self._context(conn)
        self._may_change(context)
        wish = impersonating.wish(self._core.settings, context, person, reason, lifetime)
        return await impersonating.begin(
            await self._core_on(connection, context), conn, context, wish
        )

    async def stop_impersonating(self, conn: Conn) -> Session | None:
        """Go back: the session in which somebody acts for a person ends (``actor_left``), and this
        browser has their own again, with a new secret. None without such a session, or if either
        of the two has ended.

        Args:
            conn: the request; a WebSocket before it is accepted.

        Raises:
            ConfigurationError: if the response has begun.
        """
        context = self._context(conn)
        self._may_change(context)
        return await impersonating.go_back(self._core, conn, context)
