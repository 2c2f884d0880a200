"""Per-connection session state, kept in the ASGI scope."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from starlette.types import Scope

from asgi_sessions._errors import SessionsUnavailable
from asgi_sessions._model.decisions import vouches
from asgi_sessions._model.person import Person
from asgi_sessions._model.row import Row
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import Presented, Token
from asgi_sessions._service.joining import Transaction

if TYPE_CHECKING:
    from .data import RequestData


class HasScope(Protocol):
    """A Request or WebSocket of Starlette, FastAPI or Litestar."""

    @property
    def scope(self) -> Any: ...  # noqa: ANN401 -- each framework types its own


#: The key of a scope for the `Sessions` whose middlewares it has passed, the outermost first.
SESSIONS = "asgi_sessions"

#: What the functions of the package take for `conn`.
Conn = HasScope | Mapping[str, Any]


def scope_of(conn: Conn) -> Any:  # noqa: ANN401 -- a mutable mapping in every framework
    """The scope of a connection, or the scope given."""
    return getattr(conn, "scope", conn)


class RequestContext:
    """The session of a request or WebSocket, and what its response has to tell the browser.

    It lies in the scope under a key of its `Sessions`, and is the only place where they look up
    whose connection this is. What the app reads from ``scope["state"]`` is written there and never
    read back, since every other layer may write there, too.

    Attributes:
        row: the row of the session in use, as last read.
        session: the session in use, as the app sees it.
        end_reason: why there is none, or which one was ended.
        presented: the digest of the secret that the browser sent for it.
        person: whom another layer vouches for.
        kept: the live session that the browser's cookie names, if it is not in use.
        brought: the rows of the browser's cookies, if not one that was simply resumed.
        token: what to set the cookie to.
        mark: what to set the cookie to that marks the device, once the other one is sent.
        clear: whether to clear the cookie.
        cleared_sid: the session that has been logged out.
        transaction: the app's, of which the latest change was a part.
        undelivered: the sid of a login whose cookie is not on its way yet.
        responding: whether the response has begun, so that headers come too late.
        now: when its session was looked up.
        private: whether the response depends on a session.
        touches: whether the request counts as use of its session.
        shared: whether the server gives the requests of a connection one state, as Hypercorn does.
        excluded: whether its path is left alone, so that nobody has looked for a session.
        bridge: whether the session was presented with the secret before the current one.
        proved: the sid of the session whose device has proved itself.
        error: why nobody knows whether there is a session.
        unsaved: why the data could not be saved, so that the response has not begun. Litestar, and
            Starlette with a handler for this error, believe that it has, and raise one of their
            own, in whose place `unsaved` is answered.
        affected: whether an outage has been told of it.
        replaced: whether a 503 has taken the place of a layer's 500.
        root_path: where the app is mounted; known where sessions are bound to devices.
        extra: further headers of the response.
        foreign: whether a WebSocket comes from a site that is not trusted, so that cookies count
            for nothing.
        bearer: whether the client sent a token of ours, so that no cookie counts, and none is set.
        names_subprotocol: whether a WebSocket has to be told a sub-protocol of ours, if the app
            chooses none.
        reissued: whether the client gets a new token for the session in use.
        issued: the sids of new tokens that are not on their way yet.
        unstored: whether the response carries a token, so that no cache may keep it.
        visits: what the visitors' cookies with a valid signature say.
        visitor: the token to set the cookie to, for a visitor without a login.
        data: the data of the session or visitor; None without the option `data`.
        tells: whether the response may have something to say, or a login to give up: set with what
            it has to say, because each request asks for it.
    """

    # Defaults of the class: most requests change none of them, and setting all takes time.
    row: Row | None = None
    session: Session | None = None
    end_reason: str | None = None
    presented: bytes | None = None
    person: Person | None = None
    kept: str | None = None
    brought: Sequence[Row | None] = ()
    token: Token | None = None
    mark: bytes | None = None
    clear = False
    cleared_sid: str | None = None
    transaction: Transaction | None = None
    undelivered: str | None = None
    responding = False
    now: datetime | None = None
    private = False
    touches = True
    shared = False
    excluded = False
    bridge = False
    proved: str | None = None
    error: SessionsUnavailable | None = None
    unsaved: SessionsUnavailable | None = None
    affected = False
    replaced = False
    root_path = ""
    extra: Sequence[tuple[bytes, bytes]] = ()
    foreign = False
    bearer = False
    names_subprotocol = False
    reissued = False
    issued: Sequence[str] = ()
    unstored = False
    visits: Sequence[Presented] = ()
    visitor: Token | None = None
    data: RequestData | None = None
    tells = False

    def __init__(self, scope: Scope, key: str) -> None:
        # Keeping the scope, which holds this context, would create a reference cycle.
        state = scope.get("state")
        if type(state) is not dict and not isinstance(state, dict):
            state = scope["state"] = dict(state) if isinstance(state, Mapping) else {}
        elif key in state:
            # Another request has had it. What a layer in front of this one has put there for that
            # request must not count for this one.
            self.shared, left = True, state[key]
            state = {k: v for k, v in state.items() if not (k == "person" and v is left)}
            scope["state"][key] = state.get("person")
            scope["state"] = state
        state[key] = state.get("person")
        self.state: dict[str, Any] = state
        state["sid"] = state["session"] = state["session_end_reason"] = None

    @property
    def secret(self) -> bytes | None:
        """The digest of the secret with which the session in use was opened; None if it was
        found without one.
        """
        if self.row is None or (self.token is None and not self.reissued):
            return self.presented
        return self.row.secret_hash

    @property
    def unproved_since(self) -> datetime | None:
        """Since when the session is in use by its cookie alone; None if its device has
        proved itself, or it was found without the cookie.
        """
        row = self.row
        if row is None or self.proved == (row.actor_sid or row.id) or self.secret is None:
            return None
        return self.now or row.started_at

    @property
    def beside(self) -> Sequence[tuple[bytes, bytes]]:
        """Further headers of the response; the device is marked if a login is delivered."""
        if self.mark is None or self.token is None:
            return self.extra
        return (*self.extra, (b"set-cookie", self.mark))

    @property
    def replaceable(self) -> str | None:
        """The live session that the browser's cookie names, or the client's token."""
        return self.kept if self.row is None else self.row.id

    def knows(self, person: Person) -> bool:
        """Whether the browser's cookie is of this person's session, live or dead, and of one that
        vouches for its device.
        """
        owner = (person.id, person.app_id)
        rows = (self.row, *self.brought)
        return any(
            row is not None and (row.person_id, row.app_id) == owner and vouches(row)
            for row in rows
        )

    def use(self, row: Row, session: Session) -> None:
        """Make this the session in use."""
        self.row, self.session = row, session
        self.private = True
        self.state["sid"] = row.id
        self.state["session"] = session

    def explain(self, reason: str) -> None:
        """Say why there is no session, or which one was ended."""
        self.end_reason = self.state["session_end_reason"] = reason

    def announce(self, sid: str) -> None:
        """A login is about to be written, whose cookie has to reach somebody."""
        self.undelivered, self.tells = sid, True

    def issue(self, sid: str) -> None:
        """A session is about to be written, whose token the response carries."""
        self.issued, self.unstored, self.tells = (*self.issued, sid), True, True

    def give(self, token: Token | None) -> None:
        """Have the response set the cookie, if there is a new token."""
        if token is not None:
            self.token, self.clear, self.tells = token, False, True
            self.visitor = None

    def take(self, sid: str | None) -> None:
        """Have the response clear the cookie of this session, if there is one."""
        self.clear = self.tells = True
        self.cleared_sid = sid
        self.visits, self.visitor, self.brought = (), None, ()

    def visit(self, token: Token) -> None:
        """Have the response set the cookie of a visitor, who has no session."""
        self.visitor, self.tells, self.private = token, True, True

    def carry(self, header: tuple[bytes, bytes]) -> None:
        """Have the response carry this header besides."""
        self.extra, self.tells = (*self.extra, header), True

    def drop(self) -> None:
        """Leave the request without a session."""
        self.row = self.session = self.presented = self.kept = None
        self.bridge = False
        self.token = self.undelivered = None
        self.state["sid"] = None
        self.state["session"] = None
