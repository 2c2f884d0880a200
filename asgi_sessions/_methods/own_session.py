"""One's own session: the seven functions of Auth.Session, and what a request may ask of it."""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from asgi_sessions._connection.context import Conn, RequestContext, scope_of
from asgi_sessions._connection.marking import mark, marked_at
from asgi_sessions._model.decisions import is_fresh
from asgi_sessions._model.device import device_from_scope
from asgi_sessions._model.person import Person, person_from_scope
from asgi_sessions._model.row import Row
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import SID_PATTERN
from asgi_sessions._service.identity import identify

from .base import AppConnection
from .people import People


class OwnSession(People):
    """Start, ask for and end the session of a connection."""

    async def insert(
        self, conn: Conn, person: object, *, connection: AppConnection | None = None
    ) -> Session:
        """Insert a new session for a person. Touches no cookie and no state: for tokens that
        carry the sid as a claim.

        Args:
            conn: the request, whose User-Agent and address are kept.
            person: an object or mapping with an id; see `Person`.
            connection: as in `start_session`.

        Raises:
            ConfigurationError: if the person has no id.
            InvalidSession: if an attribute cannot be stored.
        """
        core = await self._core_on(connection)
        started = await core.start(
            device_from_scope(scope_of(conn)),
            identify(person, core.settings, login=True),
            remember=True,
        )
        return started.session

    def current(self, conn: Conn) -> Session | None:
        """The session of a connection, or None. What other layers write to ``state`` counts for
        nothing.

        Raises:
            ConfigurationError: if the connection did not pass through the middleware.
        """
        return self._context(conn).session

    async def start_session(
        self,
        conn: Conn,
        person: object,
        *,
        remember: bool = True,
        connection: AppConnection | None = None,
    ) -> Session:
        """Log a person in: insert a session, set ``state.sid`` and ``state.session``; the cookie
        follows on the response. A live session of this browser ends (``replaced``, ASVS 7.2.4).

        Args:
            conn: the request; a WebSocket before it is accepted.
            person: an object or mapping with an id; see `Person`.
            remember: whether the cookie outlives the browser.
            connection: an `AsyncConnection` or `AsyncSession` of SQLAlchemy on the same database.
                The session is part of its transaction: what follows from it, the cookie too,
                happens once that has committed, which has to be before the response begins. After
                a rollback nothing has happened.

        Raises:
            ConfigurationError: if the person has no id, or the response has begun.
            InvalidSession: if an attribute cannot be stored, or the provider has ended the session
                that they have there.
        """
        context = self._context(conn)
        self._may_change(context)
        core = await self._core_on(connection, context)
        identified = identify(person, core.settings, login=True)
        data = context.data
        source = None if data is None else data.source(context.row, identified)
        replaces = context.replaceable
        if context.bearer:  # the token's session is another one, which goes on, with its data
            context.drop()
            context.bearer, replaces, source = False, None, None
        started = await core.start(
            device_from_scope(scope_of(conn)),
            identified,
            remember=remember,
            replaces=replaces,
            known=context.knows(identified),
            marked_at=marked_at(core.settings, context, scope_of(conn), identified),
            announce=context.announce,
            source=source,
        )
        if data is not None:
            data.log_in(scope_of(conn), started, source)
        context.bridge = False
        context.use(started.row, started.session)
        context.presented = None
        context.give(started.token)
        mark(core, context, scope_of(conn), started.row)
        return started.session

    async def get(self, conn: Conn) -> Session | None:
        """The live session of the connection's person in this app on this device; the newest.

        The person is whom the middleware has found in the scope, else whose session it is.
        """
        core, scope = self._core, scope_of(conn)
        context = scope.get(self._key)
        person: object
        if isinstance(context, RequestContext):
            person, session = context.person, context.session
            if person is None and session is not None:
                person = Person(session.person_id, app_id=session.app_id)
        else:
            person = person_from_scope(scope)
        if person is None:
            return None
        row = await core.newest(device_from_scope(scope), identify(person, core.settings))
        return None if row is None else core.session(row)

    async def get_by_id(self, sid_or_conn: str | UUID | Conn | None) -> Session | None:
        """The session of a sid, or of a connection; an ended one too."""
        if sid_or_conn is None or isinstance(sid_or_conn, str | UUID):
            sid = None if sid_or_conn is None else str(sid_or_conn)
        else:
            context = scope_of(sid_or_conn).get(self._key, RequestContext)
            sid = None if context.row is None else context.row.id
        if sid is None or not SID_PATTERN.fullmatch(sid):
            return None
        row = await self._core.store.by_sid(sid)
        return None if row is None else self._core.session(row)

    async def update_session_end(self, conn: Conn, *, reason: str) -> Session | None:
        """End the session of the connection in the table, once: the first end wins. Touches no
        cookie and no state.

        Args:
            conn: the connection.
            reason: ``logout`` or a word of yours, at most 50 characters.
        """
        row: Row | None = scope_of(conn).get(self._key, RequestContext).row
        return None if row is None else (await self._core.end(row.id, reason))[0]

    async def end_session(
        self,
        conn: Conn,
        *,
        reason: str = "logout",
        connection: AppConnection | None = None,
    ) -> Session | None:
        """Log out: `update_session_end`, drop ``state.sid``, clear the cookie (ASVS 7.4.1).

        Args:
            conn: the request.
            reason: ``logout`` or a word of yours, at most 50 characters.
            connection: as in `start_session`: the cookie is cleared if the end has committed.
        """
        context = self._context(conn)
        self._refuse_excluded(context)
        if context.error is not None:
            raise context.error  # to say that it has ended would be a guess
        # Also one that is not in use because nobody vouches for its person just now.
        sid = context.replaceable
        core = await self._core_on(connection, context)
        session = None if sid is None else (await core.end(sid, reason))[0]
        if context.data is not None:
            await context.data.log_out(scope_of(conn), core.store)
        context.drop()
        if not context.bearer:
            context.take(sid)
        return session

    def no_touch(self, conn: Conn) -> None:
        """Do not count this request as use of its session, which so may idle out in spite of it."""
        self._context(conn).touches = False

    def is_fresh(self, conn: Conn, max_age: timedelta) -> bool:
        """Whether the person proved who they are at most `max_age` ago (ASVS 7.5.1)."""
        session = self.current(conn)
        proof = None if session is None else session.authenticated_at
        return is_fresh(proof, self._core.settings.now(), max_age)

    async def end_other_sessions(
        self, conn: Conn, *, connection: AppConnection | None = None
    ) -> int:
        """End the person's other sessions in this app (``revoked``, ASVS 7.4.3); how many.

        Args:
            conn: the request.
            connection: as in `start_session`.
        """
        session = self.current(conn)
        if session is None:
            return 0
        return await self.end_all_sessions(
            session.person_id,
            app_id=session.app_id,
            except_sid=session.id,
            connection=connection,
        )
