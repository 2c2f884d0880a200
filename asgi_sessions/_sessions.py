"""`Sessions`: the face of the package."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from databases import Database
from sqlalchemy import MetaData, Table, make_url

from ._connection.binding import DeviceBinding, check_binding
from ._connection.context import Conn, RequestContext, scope_of
from ._connection.data import RequestData
from ._connection.data_methods import DataMethods
from ._connection.reading import Reader
from ._database.source import source_of
from ._errors import ConfigurationError
from ._methods.clients import Clients
from ._methods.routes import Routes
from ._methods.support import Support
from ._model.cookies import SameSite
from ._model.device import StoreIP
from ._model.lifetimes import AAL1, VISITORS, Lifetimes
from ._model.session_data import SessionData
from ._service.background import BackgroundTasks
from ._service.core import Core
from ._service.events import EventHandler, Events, check_handler
from ._service.options import (
    AutoStart,
    Clock,
    Exclude,
    OnUnavailable,
    Touch,
    settings,
    system_clock,
)
from ._store.store import Store
from ._store.tables import ddl

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine
else:  # it needs greenlet, and takes its time to be imported
    AsyncEngine = Any

SQLDialect = Literal["sqlite", "postgresql", "mariadb", "mysql"]


class Sessions(Clients, Support, Routes):
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
        self._reader = Reader(self._core)
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

    def _data_of(self, conn: Conn) -> tuple[RequestContext, Any, RequestData]:
        context = self._context(conn)
        self._refuse_excluded(context)
        assert context.data is not None  # noqa: S101 -- for the type checker
        return context, scope_of(conn), context.data
