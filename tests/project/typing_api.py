"""What users write, checked by mypy and pyright; never run.

``type: ignore`` marks what must not type-check: an unused one is an error.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, assert_never, assert_type
from uuid import UUID

import fastapi
import litestar
import starlette.websockets
from databases import Database
from litestar.handlers import asgi
from litestar.middleware import DefineMiddleware
from sqlalchemy import MetaData, Table, Update
from sqlalchemy.ext.asyncio import create_async_engine
from starlette.applications import Starlette
from starlette.authentication import SimpleUser
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import (
    AAL2,
    Changeset,
    ConfigurationError,
    DataMethods,
    DevicesPage,
    Incident,
    InvalidSession,
    Lifetimes,
    Person,
    Session,
    SessionData,
    SessionEvent,
    SessionMiddleware,
    Sessions,
    SessionsError,
    SessionsUnavailable,
    StarletteCookie,
    changeset,
    person_from_scope,
)
from asgi_sessions import fastapi as in_fastapi
from asgi_sessions import litestar as in_litestar
from asgi_sessions.dbsc import DBSC
from asgi_sessions.jwt import TokenIssuer
from asgi_sessions.oidc import BackChannelLogout
from asgi_sessions.ssf import EventReceiver
from asgi_sessions.starlette import SessionAuthBackend
from asgi_sessions.testing import Clock, logged_in_cookie

KEY = "the key that signs in the tests, 32+"
logger = logging.getLogger(__name__)

# --- options --------------------------------------------------------------------------------------


def on_weekdays(scope: Mapping[str, Any]) -> bool:
    return bool(scope["type"] == "http")


def tell(event: SessionEvent | Incident) -> None:
    if isinstance(event, SessionEvent):
        assert_type(
            event.kind,
            Literal[
                "started",
                "ended",
                "renewed",
                "bound",
                "reuse_detected",
                "claims_changed",
                "assurance_changed",
            ],
        )
        assert_type(event.signal, Mapping[str, Any])
        assert_type(event.session, Session)
        assert_type(event.session.device, str)
        assert_type(event.new_device, bool)
    else:
        assert_type(
            event.kind,
            Literal[
                "forged_cookie",
                "device_refused",
                "device_skipped",
                "signal_refused",
                "outage_begun",
                "outage_over",
                "touch_failed",
            ],
        )
        assert_type(event.count, int)
        assert_type(event.client, str | None)
        assert_type(event.sid, str | None)
        assert_type(event.reason, str | None)
        assert_type(event.error, Exception | None)


async def tell_later(event: SessionEvent | Incident) -> None:
    match event:
        case SessionEvent(kind="reuse_detected", session=session):
            logger.warning("%s", session.person_id)
        case SessionEvent(session=session):
            logger.info("%s", session.end_reason)
        case Incident(kind=kind, count=count):
            logger.info("%d %s", count, kind)
        case _:
            assert_never(event)


def tell_half(event: SessionEvent) -> None: ...


sessions = Sessions("sqlite:///sessions.db", secret_key=KEY)
everything = Sessions(
    Database("sqlite:///sessions.db"),
    secret_key=KEY.encode(),
    old_secret_keys=[KEY, KEY.encode()],
    app_id="shop",
    lifetimes=Lifetimes(idle=timedelta(hours=1), absolute=timedelta(days=1)),
    cookie_name="login",
    cookie_secure=True,
    cookie_samesite="none",
    cookie_domain="example.com",
    cookie_path="/app",
    cookie_partitioned=True,
    auto_start=on_weekdays,
    store_ip="truncated",
    touch_interval=timedelta(seconds=30),
    max_sessions_per_person=5,
    keep_ended=timedelta(days=30),
    on_unavailable="anonymous",
    on_event=tell,
    table_name="logins",
    clock=lambda: datetime(2026, 1, 1, tzinfo=UTC),
    socket_check_interval=timedelta(seconds=1),
    end_streams=True,
    notify=False,
    timeout=timedelta(seconds=1),
    connection_max_idle=timedelta(minutes=1),
    data=SessionData(max_bytes=8192, carry=["cart"], starlette_cookie=StarletteCookie(KEY)),
    visitor_lifetimes=AAL2,
)
assert_type(sessions.data, DataMethods)
assert_type(sessions, Sessions)
assert_type(sessions.database, Any)
Sessions(create_async_engine("sqlite+aiosqlite:///app.db"), secret_key="...")
assert_type(sessions.metadata, MetaData)
assert_type(sessions.table, Table)
assert_type(sessions.cookie_name, str)
assert_type(sessions.ddl("postgresql"), str)
sessions.ddl("oracle")  # type: ignore[arg-type]

Sessions("sqlite:///sessions.db", secret_key=KEY, on_event=tell_later, lifetimes=AAL2)
Sessions("sqlite:///sessions.db", secret_key=KEY, old_secret_keys=(KEY,), auto_start=False)

Sessions("sqlite:///sessions.db", secret_key=KEY, dbsc=DBSC())
DBSC(cookie_lifetime=timedelta(minutes=5), path="/device", on_skipped={"server_error"})
assert_type(DBSC().path, str)

Sessions("sqlite:///sessions.db", secret_key=KEY, dbsc=True)  # type: ignore[arg-type]
DBSC(timedelta(minutes=5))  # type: ignore[call-arg]
DBSC(on_skipped="allow")  # type: ignore[arg-type]
DBSC(on_skipped={"whatever"})  # type: ignore[arg-type]
Sessions("sqlite:///sessions.db")  # type: ignore[call-arg]
Sessions("sqlite:///sessions.db", KEY)  # type: ignore[call-arg]
Sessions("sqlite:///sessions.db", secret_key=KEY, on_event=tell_half)  # type: ignore[arg-type]
Sessions("sqlite:///sessions.db", secret_key=KEY, cookie_samesite="Lax")  # type: ignore[arg-type]
Sessions("sqlite:///sessions.db", secret_key=KEY, store_ip="some")  # type: ignore[arg-type]
Sessions("sqlite:///sessions.db", secret_key=KEY, on_unavailable="503")  # type: ignore[arg-type]
Sessions("sqlite:///sessions.db", secret_key=KEY, touch_interval=60)  # type: ignore[arg-type]
Sessions("sqlite:///sessions.db", secret_key=KEY, lifetimes=3600)  # type: ignore[arg-type]
Lifetimes(timedelta(hours=1), timedelta(days=1))  # type: ignore[call-arg]
AAL2.idle = timedelta(days=1)  # type: ignore[misc]

# --- people ---------------------------------------------------------------------------------------


@dataclass
class Account:
    """A row of an app's own table of people."""

    id: int


def bearer(scope: Scope) -> Person | None:
    """Who the app says it is."""
    user = scope.get("user")
    return None if user is None else Person(id=user["id"], auth_provider="google")


def anything(scope: Scope) -> object:
    return scope.get("user")


assert_type(person_from_scope({"type": "http"}), Person | None)
assert_type(Person.of({"sub": "ada"}), Person)
assert_type(Person("ada").authenticated_at, datetime | None)
Person(7, app_id="shop", authenticated_at=datetime(2026, 1, 1, tzinfo=UTC), sid="...")
Person(7, acr="2", amr=["pwd", "otp"])
Person()  # type: ignore[call-arg]

# --- in handlers ----------------------------------------------------------------------------------


async def login(request: Request) -> Response:
    assert_type(await sessions.start_session(request, {"id": 7}), Session)
    assert_type(await sessions.start_session(request, Account(7), remember=False), Session)
    await sessions.start_session(request, 7)
    await sessions.start_session(request, UUID(int=7))
    await sessions.start_session(request, 7, False)  # type: ignore[call-arg]
    await sessions.start_session(7, request)  # type: ignore[arg-type]
    return Response()


async def on_a_request(request: Request) -> None:
    assert_type(await sessions.insert(request, "ada"), Session)
    assert_type(await sessions.get(request), Session | None)
    assert_type(await sessions.get_by_id(request), Session | None)
    assert_type(await sessions.get_by_id("a sid"), Session | None)
    assert_type(await sessions.get_by_id(request.state.sid), Session | None)
    assert_type(await sessions.update_session_end(request, reason="bored"), Session | None)
    assert_type(await sessions.end_session(request), Session | None)
    assert_type(await sessions.renew_session(request), Session | None)
    assert_type(await sessions.renew_session(request, acr="2", amr=["otp"]), Session | None)
    assert_type(await sessions.impersonate(request, "ann", reason="ticket 7"), Session)
    assert_type(await sessions.stop_impersonating(request), Session | None)
    await sessions.impersonate(request, "ann")  # type: ignore[call-arg]
    proved = datetime.fromtimestamp(0, UTC)
    assert_type(await sessions.renew_session(request, authenticated_at=proved), Session | None)
    assert_type(sessions.is_fresh(request, timedelta(minutes=5)), bool)
    assert_type(await sessions.end_other_sessions(request), int)
    await sessions.update_session_end(request)  # type: ignore[call-arg]
    sessions.is_fresh(request, 300)  # type: ignore[arg-type]


async def on_anything_with_a_scope(  # noqa: PLR0917 -- one of each
    websocket: starlette.websockets.WebSocket,
    fastapi_request: fastapi.Request,
    fastapi_websocket: fastapi.WebSocket,
    litestar_request: litestar.Request[Any, Any, Any],
    litestar_websocket: litestar.WebSocket[Any, Any, Any],
    scope: Scope,
    mapping: Mapping[str, Any],
) -> None:
    await sessions.start_session(websocket, "ada")
    await sessions.start_session(fastapi_request, "ada")
    await sessions.start_session(fastapi_websocket, "ada")
    await sessions.start_session(litestar_request, "ada")
    await sessions.start_session(litestar_websocket, "ada")
    await sessions.start_session(scope, "ada")
    await sessions.start_session(mapping, "ada")


async def on_people() -> None:
    assert_type(await sessions.list_sessions("ada"), list[Session])
    assert_type(await sessions.list_sessions(7, app_id="shop", limit=10), list[Session])
    await sessions.list_sessions(UUID(int=7), include_ended=True, before="a sid")
    assert_type(await sessions.end_session_by_id("a sid"), Session | None)
    assert_type(await sessions.end_session_by_id("a sid", person_id=7), Session | None)
    assert_type(await sessions.end_all_sessions(7, except_sid="a sid"), int)
    assert_type(await sessions.purge(batch_size=100), int)
    await sessions.list_sessions("ada", "shop")  # type: ignore[call-arg]


def on_a_session(session: Session, now: datetime) -> None:
    assert_type(session.id, str)
    assert_type(session.sid, str)
    assert_type(session.origin, Literal["login", "scope"])
    assert_type(session.ip_address, str | None)
    assert_type(session.started_at, datetime)
    assert_type(session.ended_at, datetime | None)
    assert_type(session.live(now), bool)
    session.ended_at = now  # type: ignore[misc]
    session.sid = "another"  # type: ignore[misc]


def on_a_changeset(session: Session | None) -> None:
    made = changeset(session, {"person_id": 7})
    assert_type(made, Changeset)
    assert_type(made.valid, bool)
    assert_type(made.changes, dict[str, Any])
    assert_type(made.errors, dict[str, list[str]])


async def on_errors(request: Request) -> None:
    try:
        await sessions.start_session(request, "ada")
    except InvalidSession as fault:
        assert_type(fault.errors, dict[str, list[str]])
    except SessionsUnavailable as fault:
        assert_type(fault.retry_after, int)
    except (ConfigurationError, SessionsError):
        raise


# --- in apps --------------------------------------------------------------------------------------


async def plain(scope: Scope, receive: Receive, send: Send) -> None:
    """An app of no framework."""


async def by_hand() -> None:
    async with sessions as connected:
        assert_type(connected, Sessions)
    await sessions.create_tables()
    while_it_runs: AbstractAsyncContextManager[None] = sessions.lifespan(plain)
    async with while_it_runs:
        await sessions.connect()
    await sessions.disconnect()


wrapped: ASGIApp = SessionMiddleware(plain, sessions=sessions)
SessionMiddleware(app=plain, sessions=sessions, person=bearer)
SessionMiddleware(plain, sessions=sessions, person=anything)
SessionMiddleware(plain)  # type: ignore[call-arg]
SessionMiddleware(plain, sessions)  # type: ignore[call-arg]

endpoint: ASGIApp = sessions.end_session_endpoint(redirect_to="/")


def leave(ended: Session | None) -> str | None:
    return None if ended is None else f"https://id.example/logout?logout_hint={ended.person_id}"


async def leave_with_hint(ended: Session | None, data: Mapping[str, Any]) -> str:
    return f"https://id.example/logout?id_token_hint={data.get('id_token')}"


async def jwk_set() -> dict[str, Any]:
    return {"keys": []}


sessions.end_session_endpoint(redirect_to=leave)
sessions.end_session_endpoint(redirect_to=leave_with_hint)
sessions.end_session_endpoint(redirect_to=7)  # type: ignore[arg-type]
provider_logout: ASGIApp = BackChannelLogout(
    sessions, issuer="https://id.example", client_id="shop", keys="https://id.example/keys"
)
events: ASGIApp = EventReceiver(
    sessions,
    issuer="https://id.example",
    audience="shop",
    keys=jwk_set,
    algorithms=["RS256"],
)
logout = Route("/logout", sessions.end_session_endpoint())


def template(page: DevicesPage) -> str:
    assert_type(page.ago(page.now), str)
    return "".join(page.reason(session) for session in page.ended or page.live)


mine = sessions.routes(login_url="/login", fresh_for=timedelta(hours=1), template=template)
sessions.routes(fresh_for=3600)  # type: ignore[arg-type]
sessions.routes(template="devices.html")  # type: ignore[arg-type]

starlette_app = Starlette(routes=[logout, Mount("/sessions", mine)], lifespan=sessions.lifespan)
starlette_app.add_middleware(SessionMiddleware, sessions=sessions)
Starlette(middleware=[Middleware(SessionMiddleware, sessions=sessions, person=bearer)])

fastapi_app = fastapi.FastAPI(lifespan=sessions.lifespan)
fastapi_app.add_middleware(SessionMiddleware, sessions=sessions)
fastapi_app.router.routes.append(logout)
fastapi_app.mount("/sessions", mine)

litestar_app = litestar.Litestar(
    route_handlers=[
        asgi("/logout")(sessions.end_session_endpoint()),
        asgi("/backchannel-logout")(provider_logout),
        asgi("/sessions", is_mount=True)(mine),
    ],
    lifespan=[sessions.lifespan],
    middleware=[DefineMiddleware(SessionMiddleware, sessions=sessions)],
)

# --- what is there for frameworks and for tests ---------------------------------------------------


class Member(SimpleUser):
    """A user of the app's own."""


async def load_member(session: Session) -> Member | None:
    return Member(session.person_id)


Middleware(AuthenticationMiddleware, backend=SessionAuthBackend())
Middleware(AuthenticationMiddleware, backend=SessionAuthBackend(load_member))
SessionAuthBackend("ada")  # type: ignore[arg-type]
FreshSession = Annotated[Session, in_fastapi.fresh_session(timedelta(minutes=5))]
in_fastapi.fresh_session(300)  # type: ignore[arg-type]
in_fastapi.describe_sessions(fastapi_app, sessions)
fastapi_app.include_router(in_fastapi.session_router(sessions, login_url="/login"))
fastapi.Depends(in_fastapi.current_session_of(sessions, login_url="/login"))
in_fastapi.describe_sessions(sessions, fastapi_app)  # type: ignore[arg-type]


@fastapi_app.get("/", dependencies=[in_fastapi.fresh_session(timedelta(minutes=5))])
async def in_a_handler(
    session: in_fastapi.CurrentSession,
    maybe: in_fastapi.OptionalSession,
    fresh: FreshSession,
) -> None:
    assert_type(session, Session)
    assert_type(maybe, Session | None)
    assert_type(fresh, Session)


guards = [in_litestar.requires_session, in_litestar.requires_fresh_session(timedelta(minutes=5))]


@litestar.get("/", guards=guards)
async def in_a_guarded_handler(
    current_session: in_litestar.CurrentSession, optional_session: in_litestar.OptionalSession
) -> None:
    assert_type(current_session, Session)
    assert_type(optional_session, Session | None)


async def retrieve_user(session: Session) -> str | None:
    return session.person_id


litestar.Litestar([in_a_guarded_handler], plugins=[in_litestar.SessionsPlugin(sessions)])
in_litestar.SessionsPlugin(sessions, person=bearer)
in_litestar.SessionsPlugin(sessions, retrieve_user=retrieve_user, exclude=["^/login"])
in_litestar.SessionsPlugin(sessions, retrieve_user=lambda one: one.person_id, login_url="/login")
in_litestar.SessionsPlugin(sessions, retrieve_user=sessions)  # type: ignore[arg-type]
in_litestar.SessionsPlugin()  # type: ignore[call-arg]


async def in_tests() -> None:
    clock = Clock(datetime(2026, 1, 1, tzinfo=UTC))
    clock.turn(timedelta(minutes=5))
    assert_type(clock.now, datetime)
    tested = Sessions("sqlite:///sessions.db", secret_key=KEY, clock=clock)
    assert_type(await logged_in_cookie(tested, Account(7)), dict[str, str])
    assert_type(tested.end_all_statement(7, except_sid="a sid"), Update)


def ask_a_service(tokens: TokenIssuer, request: Request) -> ASGIApp:
    assert_type(tokens.token(request, audience="https://billing.example.com"), str | None)
    tokens.token(request.scope, audience=["a", "b"], lifetime=timedelta(minutes=1))
    return tokens.keys
