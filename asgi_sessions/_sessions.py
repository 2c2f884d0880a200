"""`Sessions`: the face of the package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta, tzinfo
from enum import Enum
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Literal, Self, get_args
from uuid import UUID

from databases import Database
from sqlalchemy import MetaData, Table, Update, make_url

from ._connection import acting
from ._connection.binding import DeviceBinding, check_binding
from ._connection.context import Conn, RequestContext, scope_of
from ._connection.data import RequestData
from ._connection.data_methods import DataMethods
from ._connection.marking import mark, marked_at
from ._connection.outside import Watch, look_up, opened, scope_from_headers, watch
from ._connection.reading import Reader
from ._connection.touching import touch_if_due
from ._database.pools.app_connection import join
from ._database.source import source_of
from ._errors import ConfigurationError, InvalidSession
from ._model.bearer import PREFIX, IssuedToken
from ._model.changeset import checked
from ._model.cookies import SameSite
from ._model.decisions import is_fresh
from ._model.device import StoreIP, device_from_scope
from ._model.lifetimes import AAL1, VISITORS, Lifetimes
from ._model.person import Person, person_from_scope
from ._model.row import Row
from ._model.session import Session
from ._model.session_data import SessionData
from ._model.tokens import SID_PATTERN, Token
from ._pages.devices import SessionRoutes
from ._pages.frame import Said
from ._pages.logout import EndSessionEndpoint, Redirect
from ._pages.options import RouteOptions, Template
from ._pages.own_sessions import OwnSessions
from ._pages.texts import Translate
from ._service.background import BackgroundTasks
from ._service.core import Core, unproved
from ._service.events import EventHandler, Events, check_handler
from ._service.identity import identify, moment_of_proof
from ._service.joining import Transaction
from ._service.options import (
    AutoStart,
    Clock,
    Exclude,
    OnUnavailable,
    Touch,
    settings,
    system_clock,
)
from ._store.maintenance import LARGEST_BATCH
from ._store.store import Store
from ._store.tables import ddl

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from ._database.pools.app_connection import AppConnection
else:  # it needs greenlet, and takes its time to be imported
    AppConnection = AsyncEngine = Any

SQLDialect = Literal["sqlite", "postgresql", "mariadb", "mysql"]


class _AllApps(Enum):
    ALL_APPS = "all apps"


class _Anybody(Enum):
    ANYBODY = "anybody"


#: For ``app_id=``: the sessions of every app in the table.
ALL_APPS: Final = _AllApps.ALL_APPS
#: For ``person_id=`` of `Sessions.end_session_by_id`: whoever's session it is.
ANYBODY: Final = _Anybody.ANYBODY

#: An app's id, None for the `app_id` of `Sessions`, or `ALL_APPS`.
AppId = str | _AllApps | None

#: The largest LIMIT that every supported database accepts.
_MOST_ROWS = 2**31 - 1


class Sessions:
    """Login sessions in a SQL table: start, list, limit and end them.

    ``conn``, wherever a method takes one, is a request or WebSocket of Starlette, FastAPI or
    Litestar, or an ASGI scope. Every method that asks the database raises `SessionsUnavailable`
    if it does not answer.

    Args:
        database: a URL such as ``sqlite:///sessions.db``, or an `AsyncEngine` of SQLAlchemy or a
            `databases.Database` of yours, which stays yours to close.
        secret_key: signs the cookie; at least 32 random characters.
        old_secret_keys: keys that no longer sign but still verify.
        app_id: the app people log in to. Apps with different ids do not take each other's cookies.
        lifetimes: idle timeout and absolute lifetime.
        cookie_name: without prefix; `cookie_name` tells the name on the wire.
        cookie_secure: False only for plain http on your own machine.
        cookie_samesite: ``lax``, ``strict`` or ``none``.
        cookie_domain: None for this host alone; a domain shares the cookie with its sub-domains.
        cookie_path: where the browser sends the cookie.
        cookie_partitioned: for apps embedded in other sites (CHIPS).
        auto_start: whether the middleware starts sessions for people whom another layer has
            authenticated: True, False, or a function of the scope.
        store_ip: ``full``, ``truncated`` (to /24 or /48) or ``none``.
        touch_interval: how exact `last_seen_at` is; at most half of the idle timeout.
        max_sessions_per_person: live sessions of origin ``login`` that a person may have in an
            app; the least recently seen is ended (``limit``) for a new one. None for any number.
        keep_ended: how long `purge` keeps what has ended.
        on_unavailable: while the database does not answer, ``error`` (503 for requests that need
            it) or ``anonymous`` (no session, nobody signed in).
        on_event: called with a `SessionEvent` after each step in a session's life, and with an
            `Incident` when something else is amiss.
        table_name: the name of the table.
        clock: returns the aware time; the system's by default.
        socket_check_interval: how soon an open WebSocket notices that its session has ended in
            another process, or by itself.
        end_streams: whether responses of unknown length, such as Server-Sent Events, end with
            their session, too.
        notify: on PostgreSQL, tell all processes when sessions end, so that what is open there
            ends within milliseconds. Each process that ends sessions needs it.
        timeout: how long the database may take for an answer.
        dbsc: `asgi_sessions.dbsc.DBSC()` binds sessions to devices; None does not.
        browser_lifetimes: those of sessions without `remember`; browsers restore such cookies. None
            for the same as `lifetimes`.
        exclude: paths that are left alone, with all below them, such as ``("/static",)``; or a
            function of the scope. Nobody is logged in there, and responses do not vary.
        touch: a function of the scope: whether a request counts as use of its session. A page that
            polls need not keep it from idling. None for all requests.
        trusted_origins: origins of the app's own front ends, such as
            ``("https://app.example.com",)``. They may open WebSockets and post to the logout route.
        issuer: the one issuer (``iss``) whose subjects (``sub``) are the ids of people here.
        max_scope_sessions: live sessions of origin ``scope`` that a person may have in an app;
            devices beyond them share one more. None for any number.
        connection_max_idle: how long a connection to a database server may rest before another is
            opened in its place: firewalls and load balancers forget them without a word.
            ``?pool_recycle=`` (seconds) of a URL may say less.
        bearer: whether native clients may send a token in place of the cookie (`start_token`).
        data: True gives each request ``request.session``, a dict that is kept in the database, for
            visitors without a login, too; `SessionData` says how large it may be, and what a login
            takes over of a visitor's. False leaves ``scope["session"]`` to others.
        visitor_lifetimes: how long data are kept of visitors who do not log in.
        device_cookie: for how long a second cookie marks the browsers on which people have logged
            in (with `remember`), so that `SessionEvent.new_device` knows them when nothing else
            does: at most 400 days. A logout leaves it. None sets none.

    Raises:
        ConfigurationError: for options that cannot work, all errors in one message.
    """

    def __init__(
        self,
        database: str | Database | AsyncEngine,
        *,
        secret_key: str | bytes,
        old_secret_keys: Iterable[str | bytes] = (),
        app_id: str = "default",
        lifetimes: Lifetimes = AAL1,
        cookie_name: str = "sid",
        cookie_secure: bool = True,
        cookie_samesite: SameSite = "lax",
        cookie_domain: str | None = None,
        cookie_path: str = "/",
        cookie_partitioned: bool = False,
        auto_start: AutoStart = True,
        store_ip: StoreIP = "full",
        touch_interval: timedelta = timedelta(seconds=60),
        max_sessions_per_person: int | None = None,
        keep_ended: timedelta = timedelta(days=90),
        on_unavailable: OnUnavailable = "error",
        on_event: EventHandler | None = None,
        table_name: str = "sessions",
        clock: Clock = system_clock,
        socket_check_interval: timedelta = timedelta(seconds=5),
        end_streams: bool = False,
        notify: bool = False,
        timeout: timedelta = timedelta(seconds=5),
        dbsc: DeviceBinding | None = None,
        browser_lifetimes: Lifetimes | None = None,
        exclude: Exclude = (),
        touch: Touch | None = None,
        trusted_origins: Sequence[str] = (),
        issuer: str | None = None,
        max_scope_sessions: int | None = 50,
        connection_max_idle: timedelta = timedelta(minutes=4),
        bearer: bool = False,
        data: bool | SessionData = False,
        visitor_lifetimes: Lifetimes = VISITORS,
        device_cookie: timedelta | None = None,
    ) -> None:
        given = {
            name: value for name, value in locals().items() if name not in ("self", "database")
        }
        try:
            chosen, source = settings(
                given,
                lambda: source_of(database, notify=notify, max_idle=connection_max_idle),
                lambda: check_handler(on_event),
                lambda: check_binding(dbsc, given),
            )
        finally:  # no frame of a traceback may show the keys
            given.clear()
            del secret_key, old_secret_keys
        of_data = chosen.session_data
        store = Store(
            source,
            chosen.table_name,
            chosen.terms,
            chosen.max_sessions_per_person,
            chosen.max_scope_sessions,
            notify=chosen.notify,
            timeout=chosen.timeout.total_seconds(),
            data=None if of_data is None else (of_data, chosen.visitor_lifetimes),
        )
        self._engines = store.engines
        self._source = source
        background = BackgroundTasks()
        events = Events(on_event, chosen.now, background)
        self._core = Core(chosen, store, events, background)
        self._binding = None if dbsc is None else dbsc._attach(self._core)
        self._read = Reader(self._core).read
        # In the scope; two Sessions in one app do not get in each other's way.
        self._key = f"asgi_sessions.{id(self)}"

    def __repr__(self) -> str:
        """Without keys and passwords."""
        if not hasattr(self, "_core"):  # in the traceback of a constructor that has failed
            return "<Sessions without options that can work>"
        url = self._source.address
        return f"Sessions({url!r}, app_id={self._core.settings.app_id!r})"

    # --- the database -------------------------------------------------------------------------

    @property
    def database(self) -> Any:  # noqa: ANN401 -- what it is, the argument says
        """What `Sessions` was given: your `AsyncEngine` or `databases.Database`. For a URL, the one
        of the two that the running event loop uses.
        """
        return self._engines.database

    @property
    def metadata(self) -> MetaData:
        """For Alembic's ``target_metadata``, beside your own."""
        return self._core.store.metadata

    @property
    def table(self) -> Table:
        """The table of sessions, for queries and migrations of your own."""
        return self._core.store.table

    @property
    def cookie_name(self) -> str:
        """The cookie's name on the wire, for instance ``__Host-sid``."""
        return self._core.settings.cookie.wire_name

    @property
    def data(self) -> DataMethods:
        """Changes of ``request.session`` that are right whatever other requests do.

        Raises:
            ConfigurationError: without the option `data`.
        """
        if self._core.data is None:
            raise ConfigurationError("these Sessions have no data: pass Sessions(data=True)")
        return DataMethods(self._data_of)

    async def create_tables(self) -> None:
        """Make the tables and their indexes where they are missing.

        Raises:
            ConfigurationError: if a table of that name is there and cannot be used: somebody
                else's, or that of another version. The message names what differs.
        """
        await self._core.store.create()

    def ddl(self, dialect: SQLDialect) -> str:
        """The SQL by which `create_tables` makes the tables and their indexes: for a migration
        that is written by hand.

        Args:
            dialect: ``sqlite``, ``postgresql``, ``mariadb`` or ``mysql``.

        Raises:
            ConfigurationError: for any other.
        """
        if dialect not in get_args(SQLDialect):
            raise ConfigurationError(
                f"ddl({dialect!r}): use one of {', '.join(get_args(SQLDialect))}"
            )
        chosen = make_url(f"{dialect}://").get_dialect()()
        tables = self.metadata.sorted_tables
        statements = [statement for table in tables for statement in ddl(table, chosen)]
        return "".join(f"{statement};\n" for statement in statements)

    async def connect(self) -> None:
        """Connect now rather than at first use."""
        await self._engines.open()

    async def disconnect(self) -> None:
        """Finish what is under way, then close what was opened here (not a Database of yours)."""
        await self._core.background.settle(self._engines.timeout)
        await self._core.live_connections.stop()
        await self._engines.close()

    async def __aenter__(self) -> Self:
        """As `connect`."""
        await self.connect()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As `disconnect`."""
        await self.disconnect()

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:  # noqa: ARG002 -- frameworks pass it
        """For ``Starlette(lifespan=...)`` and its kin: connected while the app runs."""
        async with self:
            yield

    # --- the seven functions of Auth.Session ---------------------------------------------------

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

    # --- more of one's own session --------------------------------------------------------------

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
        acting.refuse_inside(context, "not_renewable")
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
            if not bearer:
                context.give(renewed.token)
        return renewed.token

    # --- clients that send a token --------------------------------------------------------------

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
        acting.refuse_inside(context, "acting")
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
            conn: the request.
            acr: how well the person is authenticated now; None leaves it as it is.
            amr: the methods that were used, such as ``["pwd", "otp"]``; none leaves them.
            authenticated_at: as in `renew_session`.
            connection: as in `start_session`.

        Raises:
            ConfigurationError: without the option `bearer`, if the session has a cookie and no
                token, or the response has begun.
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
            SessionsUnavailable: if the database does not answer.
        """
        scope = scope_from_headers(headers)
        context = RequestContext(scope, self._key)
        if tokens := self._read(scope, context):
            await look_up(self._core, scope, context, tokens, binding=self._binding)
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

    # --- acting for somebody ----------------------------------------------------------------------

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
        wish = acting.wish(self._core.settings, context, person, reason, lifetime)
        return await acting.begin(await self._core_on(connection, context), conn, context, wish)

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
        return await acting.go_back(self._core, conn, context)

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

    # --- any person's sessions ------------------------------------------------------------------

    async def list_sessions(
        self,
        person_id: object,
        *,
        app_id: AppId = None,
        include_ended: bool = False,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Session]:
        """A person's sessions, newest first (ASVS 7.5.2).

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.
            include_ended: also what has ended, with its reasons.
            limit: at most so many.
            before: the last sid of the page before this one.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        if limit < 1:
            raise ConfigurationError(f"limit={limit}: use 1 and more")
        if before is not None and not SID_PATTERN.fullmatch(before):
            raise InvalidSession({"before": ["must be a sid"]})
        rows = await self._core.store.listed(
            *self._ids(person_id, app_id),
            live=None if include_ended else self._core.settings.now(),
            limit=min(limit, _MOST_ROWS),
            before=before,
        )
        return self._core.sessions(rows)

    async def end_session_by_id(
        self,
        sid: str | UUID,
        *,
        person_id: object = ANYBODY,
        app_id: AppId = None,
        reason: str = "revoked",
        connection: AppConnection | None = None,
    ) -> Session | None:
        """End one session: the lost phone. It holds at the very next request, in every process.

        Args:
            sid: which.
            person_id: end it only if it is theirs; foreign and unknown look alike. Always pass it
                where people end their own. None is refused: it is nobody's id.
            app_id: with `person_id`, the app in which they have it: None for the `app_id` of
                `Sessions`, or another one, or `ALL_APPS`. In another app the same id may be
                somebody else.
            reason: what to write down; the first end wins.
            connection: as in `start_session`.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        owner, app = (None, None) if person_id is ANYBODY else self._ids(person_id, app_id)
        if not SID_PATTERN.fullmatch(str(sid)):
            checked(end_reason=reason)
            return None
        core = await self._core_on(connection)
        return (await core.end(str(sid), reason, person_id=owner, app_id=app))[0]

    async def end_all_sessions(
        self,
        person_id: object,
        *,
        app_id: AppId = None,
        except_sid: str | None = None,
        connection: AppConnection | None = None,
    ) -> int:
        """End a person's sessions (``revoked``, ASVS 7.4.2); how many. When it is answered, each
        that was live when it began has ended; those that start meanwhile stay. Of many it ends
        some at a time, the newest first, so that nobody else waits for them.

        It is remembered for 400 days: what another layer says of the person counts again once it
        brings a proof (``authenticated_at``, or a token's ``auth_time`` or ``iat``) from after
        this, whatever the device. `readmit` lifts it. A login by `start_session` needs neither.

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.
            except_sid: the one to keep.
            connection: as in `start_session`. All of them end in that one transaction, so that
                others wait for their rows until it is over.
        """
        spared = except_sid if SID_PATTERN.fullmatch(except_sid or "") else None
        core = await self._core_on(connection)
        return await core.end_all(*self._ids(person_id, app_id), spared)

    async def readmit(self, person_id: object, *, app_id: AppId = None) -> None:
        """Let a person in again whose sessions were ended, with whatever another layer says of
        them: where that layer never dates its proofs. Old tokens of theirs are good again, too, so
        have them withdrawn before.

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        await self._core.readmit(*self._ids(person_id, app_id))

    def end_all_statement(
        self,
        person_id: object,
        *,
        app_id: AppId = None,
        except_sid: str | None = None,
        reason: str = "revoked",
    ) -> Update:
        """The UPDATE of `end_all_sessions`, for a transaction of your own in the same database: the
        sessions end if it commits, and only then. Nobody is told (no event, no record), and
        nothing is cut off: where another layer vouches for people, call `end_all_sessions` after
        the commit as well. Open WebSockets are closed within `socket_check_interval`.

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.
            except_sid: the one to keep.
            reason: what to write down.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        return self._core.store.end_all_statement(
            *self._ids(person_id, app_id),
            except_sid=except_sid,
            reason=checked(end_reason=reason)["end_reason"],
            now=self._core.settings.now(),
        )

    async def purge(self, *, batch_size: int = 1000) -> int:
        """Remove what ended longer than `keep_ended` ago; how many rows. Run it daily.

        Args:
            batch_size: rows per statement at most, up to 4,096. There are fewer while that takes
                long, and a rest after each, so that requests do not wait for it.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size={batch_size}: use 1 and more")
        settings = self._core.settings
        return await self._core.store.purge(
            keep=settings.keep_ended, batch_size=min(batch_size, LARGEST_BATCH), now=settings.now()
        )

    # --- routes -----------------------------------------------------------------------------------

    def end_session_endpoint(
        self,
        *,
        redirect_to: str | Redirect | None = None,
        clear_site_data: Sequence[str] = (),
    ) -> EndSessionEndpoint:
        """An ASGI app for the logout route: ``POST`` only (405), refused across sites (403).

        Args:
            redirect_to: where a 303 leads; None for ``{"message": "session ended"}``. Or a
                function, async or not, of the `Session` that has ended, or of None if there was
                none, that returns one or the other: to log out at the provider, too. If it has a
                second parameter, that is what ``request.session`` held, as a dict.
            clear_site_data: what the browser is told to forget, such as ``("cache",)``: after that
                its "Back" shows nothing of whoever has left.

        Raises:
            ConfigurationError: if an argument cannot be one.
        """
        return EndSessionEndpoint(
            self.end_session,
            same_site=self._core.settings.cookie.domain is not None,
            redirect_to=redirect_to,
            trusted=self._core.settings.trusted_origins,
            clear_site_data=clear_site_data,
            by_cookie=lambda scope: not self._context(scope).bearer,
        )

    def routes(
        self,
        *,
        html: bool = True,
        fresh_for: timedelta | None = None,
        login_url: str | None = None,
        confirm_url: str | None = None,
        home_url: str | None = None,
        template: Template | None = None,
        translate: Translate | None = None,
        language: Said[str | None] = None,
        time_zone: Said[str | tzinfo | None] = None,
        links: Said[Mapping[str, str] | None] = None,
        form_fields: Said[Mapping[str, str] | None] = None,
    ) -> SessionRoutes:
        """An ASGI app to mount, at ``/sessions`` for instance, where the person who is logged in
        sees where else they are, and ends it (ASVS 7.5.2). For programs it speaks JSON.

        Args:
            html: whether browsers get a page; False answers everybody with JSON.
            fresh_for: how long ago a person may have proved who they are to end other sessions;
                None for as long as their own lasts. To list them never depends on it.
            login_url: where the page sends people who have no session; None answers with 401.
                Whoever has pressed a button gets a page with a link to it.
            confirm_url: where the link of those leads whose login is too old; `login_url` if None.
            home_url: where its link "Back" leads; None for no link.
            template: makes the page from a `DevicesPage`: a str of HTML, in which it has escaped
                what comes from clients. It needs a Content-Security-Policy of yours.
            translate: further languages, or other words: a mapping of languages such as ``pt-BR``
                to texts by their names, or a function of a language that returns such texts, or
                None. What it leaves out is ours, in English where there is nothing else.
            language: which one the page has, for instance ``de``; None for what the browser would
                rather have (``Accept-Language``).
            time_zone: in which the page tells times: a name such as ``Europe/Berlin``, or a tzinfo;
                None, and a name that is none, for UTC.
            links: further links of the page: their texts, and where they lead.
            form_fields: what each of its forms sends besides, such as the token of the app's own
                protection against forged requests: names and values.

        The last three, and `language`, may each be a function of the scope, which returns it now or
        is a coroutine function.

        Raises:
            ConfigurationError: for options that cannot be.
        """
        options = RouteOptions(
            html=html,
            fresh_for=fresh_for,
            login_url=login_url,
            confirm_url=confirm_url,
            home_url=home_url,
            template=template,
            translate=translate,
            language=language,
            time_zone=time_zone,
            links=links,
            form_fields=form_fields,
        )
        return SessionRoutes(self._own_sessions(options), options, now=self._core.settings.now)

    def _own_sessions(self, options: RouteOptions) -> OwnSessions:
        settings = self._core.settings
        return OwnSessions(
            self,
            options,
            context=self._context,
            trusted=settings.trusted_origins,
            same_site=settings.cookie.domain is not None,
        )

    # --- pieces -----------------------------------------------------------------------------------

    async def _core_on(
        self, connection: AppConnection | None, context: RequestContext | None = None
    ) -> Core:
        """What happens to sessions, in the transaction of a connection of the app's if there is
        one; the response of a request has to know of it.
        """
        if connection is None:
            return self._core
        transaction = Transaction(self._core, await join(connection, timeout=self._engines.timeout))
        if context is not None:
            context.transaction = transaction
        return transaction.core

    def _data_of(self, conn: Conn) -> tuple[RequestContext, Any, RequestData]:
        context = self._context(conn)
        self._refuse_excluded(context)
        assert context.data is not None  # noqa: S101 -- for the type checker
        return context, scope_of(conn), context.data

    def _context(self, conn: Conn) -> RequestContext:
        context = scope_of(conn).get(self._key)
        if not isinstance(context, RequestContext):
            raise ConfigurationError(
                "this connection did not pass through SessionMiddleware(sessions=...) of these "
                "Sessions: add the middleware to the app"
            )
        return context

    @staticmethod
    def _refuse_excluded(context: RequestContext) -> None:
        if context.excluded:
            raise ConfigurationError(
                "the path of this connection is excluded (Sessions(exclude=...)), so that it has "
                "no session: take the path out of exclude to start, renew or end one here"
            )

    @classmethod
    def _may_change(cls, context: RequestContext) -> None:
        cls._refuse_excluded(context)
        if context.error is not None:
            raise context.error  # the session that this browser has would be left behind
        if context.responding:
            raise ConfigurationError(
                "the response has begun, so its cookie could not be sent: start or renew a "
                "session before the response (or the WebSocket's accept)"
            )

    def _app(self, app_id: object) -> Any:  # noqa: ANN401 -- text, or None for all apps
        if app_id is ALL_APPS:
            return None
        if app_id is None:
            return self._core.settings.app_id
        return checked(app_id=app_id)["app_id"]

    def _ids(self, person_id: object, app_id: object) -> tuple[str, Any]:
        ids = checked(person_id="" if person_id is None else person_id)
        return ids["person_id"], self._app(app_id)
