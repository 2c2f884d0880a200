"""Clients that are no browsers: those that send a token, and those that do not come through the
middleware.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from asgi_sessions._connection import impersonating
from asgi_sessions._connection.context import Conn, RequestContext, scope_of
from asgi_sessions._connection.outside import Watch, look_up, opened, scope_from_headers, watch
from asgi_sessions._connection.reading import Reader
from asgi_sessions._connection.touching import touch_if_due
from asgi_sessions._errors import ConfigurationError, SessionsUnavailable
from asgi_sessions._model.bearer import PREFIX, IssuedToken
from asgi_sessions._model.device import device_from_scope
from asgi_sessions._model.lifetimes import Lifetimes
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import Token
from asgi_sessions._service.identity import identify

from .base import AppConnection
from .renewing import Renewing


class Clients(Renewing):
    """Issue tokens; look sessions up by headers, and watch them."""

    _reader: Reader

    async def start_token(
        self,
        conn: Conn,
        person: object,
        *,
        lifetimes: Lifetimes | None = None,
        connection: AppConnection | None = None,
    ) -> IssuedToken:
        """A session for a client without a cookie jar, which sends the token from now on as
        ``Authorization: Bearer <token>`` (RFC 6750, 2.1). The session of this request stays as it
        is, and no cookie is set. The response is stored by no cache.

        It counts for `max_sessions_per_person`, and is listed and ended like any other. If the app
        fails, or answers with a status of 500 and above, it ends (``not_delivered``).

        Args:
            conn: the request, whose User-Agent and address are kept.
            person: an object or mapping with an id; see `Person`.
            lifetimes: its own; those of `Sessions` if None. The idle timeout is kept in whole
                seconds.
            connection: as in `start_session`; the token is good once that has committed.

        Raises:
            ConfigurationError: without the option `bearer`, if the person has no id, or the
                response has begun.
            ImpersonationRefused: in a session in which somebody acts for its person, which the
                token would outlast.
            InvalidSession: if an attribute cannot be stored.
        """
        self._needs_bearer("start_token")
        if not isinstance(lifetimes, Lifetimes | None):
            raise ConfigurationError(f"lifetimes={lifetimes!r}: use Lifetimes(...), or None")
        context = self._context(conn)
        self._may_change(context)
        impersonating.refuse_inside(context, "acting")
        core = await self._core_on(connection, context)
        identified = identify(person, core.settings, login=True)
        started = await core.start(
            device_from_scope(scope_of(conn)),
            identified,
            remember=True,
            known=context.knows(identified),
            announce=context.issue,
            bearer=True,
            lifetimes=lifetimes,
        )
        return self._issued(started.session, started.token)

    async def renew_token(
        self,
        conn: Conn,
        *,
        acr: str | None = None,
        amr: Sequence[str] = (),
        authenticated_at: datetime | None = None,
        connection: AppConnection | None = None,
    ) -> IssuedToken | None:
        """As `renew_session`, for a client that sends a token: a new one for the same session. None
        without a live session, and for a request that came with the token before the current one.

        Args:
            conn: the request; a WebSocket before it is accepted.
            acr: how well the person is authenticated now; None leaves it as it is.
            amr: the methods that were used, such as ``["pwd", "otp"]``; none leaves them.
            authenticated_at: as in `renew_session`.
            connection: as in `start_session`. Answer once it has committed: a client that sends the
                token of a renewal that was rolled back looks like a thief.

        Raises:
            ConfigurationError: without the option `bearer`, if the session has a cookie and no
                token, or the response has begun.
            ImpersonationRefused: in a session in which somebody acts for its person.
            InvalidSession: as `renew_session`.
        """
        self._needs_bearer("renew_token")
        context = self._context(conn)
        proof = self._proof(context, acr, amr, authenticated_at)
        token = await self._renew(context, proof, connection, bearer=True)
        if token is None or context.session is None:
            return None
        context.unstored = context.tells = True
        return self._issued(context.session, token)

    def _issued(self, session: Session, token: Token | None) -> IssuedToken:
        assert token is not None  # noqa: S101 -- for the type checker: a new session has its own
        return IssuedToken(session, PREFIX + self._core.settings.keys.sign(token, "bearer"))

    def _needs_bearer(self, name: str) -> None:
        if not self._core.settings.bearer:
            raise ConfigurationError(f"{name} needs Sessions(bearer=True)")

    # --- outside of the middleware --------------------------------------------------------------

    async def authenticate(
        self, headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]]
    ) -> Session | None:
        """The session of a client that has not come through the middleware: the handshake of
        Socket.IO, the metadata of gRPC, a message in a queue. It decides as the middleware does,
        counts as use, and ends what has to end.

        A browser that names another origin than ``Host``, which is not one of `trusted_origins`,
        has no session by its cookie, as with a WebSocket.

        Args:
            headers: by name, or as pairs, as ASGI and gRPC have them. Those named ``cookie``,
                ``authorization``, ``origin`` and ``host`` are looked at.

        Raises:
            ConfigurationError: if the headers are none.
            SessionsUnavailable: if the database does not answer.
        """
        scope = scope_from_headers(headers)
        context = RequestContext(scope, self._key)
        if tokens := self._reader.read(scope, context):
            try:
                await look_up(self._core, scope, context, tokens, binding=self._binding)
            except SessionsUnavailable as error:
                self._core.events.unavailable(error)
                raise
            if context.now is not None:
                touch_if_due(self._core, context, context.now)
        return None if context.session is None else opened(context.session, context)

    def watch(self, session: Session, close: Callable[[], object]) -> Watch:
        """Have something closed when its session ends, in this process at once, in others within
        `socket_check_interval`: a socket that the middleware does not know of.

        Args:
            session: as `authenticate` has given it. Of such a one it also knows the secret that
                the client has shown, so that a renewal by somebody else closes the socket. Of any
                other session it knows only whether it lives.
            close: called once, in the event loop that runs now; a function, or one that returns a
                coroutine.

        Returns:
            What stops it, once the socket is closed by others: ``watch.stop()``, or the end of
            ``with sessions.watch(...):``.
        """
        return watch(self._core, session, close)
