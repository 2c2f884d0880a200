"""For Litestar: a plugin that adds the middleware, and what handlers may ask for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from datetime import timedelta
from typing import Any

from ._errors import ConfigurationError, SessionsUnavailable
from ._guards import (
    challenge,
    checked_age,
    checked_urls,
    is_fresh,
    led_to,
    login_required,
    not_fresh,
    session_of,
)
from ._middleware import OnSignedOut, PersonReader, SessionMiddleware, SignOut
from ._model.carrier import BEARER_SCHEME, SCHEME
from ._model.person import Person, person_from_scope, sign_out_of_scope
from ._model.session import Session
from ._sessions import Sessions

try:
    from litestar import Request, Response
    from litestar.config.app import AppConfig
    from litestar.config.response_cache import default_cache_key_builder
    from litestar.connection import ASGIConnection
    from litestar.di import NamedDependency, Provide
    from litestar.exceptions import NotAuthorizedException, PermissionDeniedException
    from litestar.handlers import BaseRouteHandler, HTTPRouteHandler
    from litestar.middleware import DefineMiddleware
    from litestar.openapi.spec import Components, Reference, SecurityScheme
    from litestar.plugins import InitPlugin, ReceiveRoutePlugin
    from litestar.routes import BaseRoute, HTTPRoute
    from litestar.types import Guard

    from ._litestar_user import RetrieveUser, SessionUser, is_open, pattern_of
except ModuleNotFoundError as _fault:  # the library that the extra brings
    raise ImportError(
        f"asgi_sessions.litestar needs {_fault.name}: install asgi-login-sessions[litestar]",
        name=_fault.name,
    ) from _fault

__all__ = [
    "CurrentSession",
    "OptionalSession",
    "SessionsPlugin",
    "current_session",
    "optional_session",
    "requires_fresh_session",
    "requires_session",
]

AnyConnection = ASGIConnection[Any, Any, Any, Any]
AnyRequest = Request[Any, Any, Any]

#: ``current_session: CurrentSession`` is the session; without one the answer is a 401.
CurrentSession = NamedDependency[Session]
#: ``optional_session: OptionalSession`` is the session, or None.
OptionalSession = NamedDependency[Session | None]

#: The key of a scope for whom the cache of responses was first asked for.
_ASKED_FIRST = "asgi_sessions.asked_first"


async def requires_session(connection: AnyConnection, _: BaseRouteHandler) -> None:
    """A guard: 401 without a session. For an app, a router, a controller or a handler."""
    _session(connection)


def requires_fresh_session(max_age: timedelta) -> Guard:
    """A guard: 401 without a session, 403 unless the person has proved lately who they are (ASVS
    7.5.1). The 403's ``extra`` has the ``error`` ``insufficient_user_authentication`` (RFC 9470),
    ``authenticated_at`` and ``max_age`` in seconds.

    Args:
        max_age: how long the last proof counts.

    Raises:
        ConfigurationError: if `max_age` is no positive timedelta.
    """
    return _Fresh(checked_age(max_age))


async def current_session(request: AnyRequest) -> Session:
    """The session; 401 without one."""
    return _session(request)


async def optional_session(request: AnyRequest) -> Session | None:
    """The session, or None."""
    return session_of(request)


class SessionsPlugin(InitPlugin, ReceiveRoutePlugin):
    """All of it in one line: ``Litestar(..., plugins=[SessionsPlugin(sessions)])``.

    Adds `SessionMiddleware` as the innermost of the app's own middlewares, unless it stands in the
    list already; the lifespan; the dependencies `current_session` and `optional_session`; a 503 for
    a database that does not answer; the cookie to the OpenAPI document, and the token of
    `Sessions(bearer=True)`, with each handler that asks for a session; the session to the key of
    Litestar's cache of responses, unless the app has a key of its own.

    Args:
        sessions: the `Sessions` that hold the rows.
        retrieve_user: makes ``request.user`` of a `Session`, for instance a row of your own table;
            may be async. Who has no session, or gets None, is answered with 401.
            ``request.auth`` is the session, unless another layer has set it. None for no users.
        exclude: with `retrieve_user`, where nobody has to be logged in: regular expressions for
            paths, as Litestar's own layers take them. Strangers have None for a user there. The
            ``opt`` ``exclude_from_auth=True`` of a handler says the same.
        login_url: where htmx is led by a 401 (``HX-Redirect``); None for nowhere.
        confirm_url: where it is led by the 403 of `requires_fresh_session`; `login_url` if None.
        person: as for `SessionMiddleware`. By default it also reads when a token of Litestar's JWT
            layer (``request.auth``) was issued.
        sign_out: as for `SessionMiddleware`.
        on_signed_out: as for `SessionMiddleware`; the default is ``refuse``, because Litestar's own
            layers have let the person in already.

    Attributes:
        urls: where htmx is led by a 401 and by a 403.

    Raises:
        ConfigurationError: if `sessions` are none, or an option cannot be.
    """

    def __init__(
        self,
        sessions: Sessions,
        *,
        retrieve_user: RetrieveUser | None = None,
        exclude: str | Sequence[str] = (),
        login_url: str | None = None,
        confirm_url: str | None = None,
        person: PersonReader | None = None,
        sign_out: SignOut = sign_out_of_scope,
        on_signed_out: OnSignedOut = "refuse",
    ) -> None:
        if not isinstance(sessions, Sessions):
            raise ConfigurationError(f"SessionsPlugin({sessions!r}): pass the Sessions of your app")
        checked_urls(login_url=login_url, confirm_url=confirm_url)
        self._open = pattern_of(retrieve_user, exclude)
        self._retrieve_user = retrieve_user
        self._sessions = sessions
        self.urls: tuple[str | None, str | None] = (login_url, confirm_url or login_url)
        self._schemes: dict[str, SecurityScheme | Reference] = {
            SCHEME: SecurityScheme(
                type="apiKey", name=sessions.cookie_name, security_scheme_in="cookie"
            )
        }
        if sessions._core.settings.carriers.bearer:
            self._schemes[BEARER_SCHEME] = SecurityScheme(type="http", scheme="bearer")
        self._options = {
            "sessions": sessions,
            "person": _person_from_scope_and_token if person is None else person,
            "sign_out": sign_out,
            "on_signed_out": on_signed_out,
        }

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        """Add it all; what the app has under the same names stays."""
        if not any(map(_is_ours, app_config.middleware)):
            app_config.middleware.append(DefineMiddleware(SessionMiddleware, **self._options))
        if self._retrieve_user is not None:
            users = DefineMiddleware(
                SessionUser,
                sessions=self._sessions,
                retrieve_user=self._retrieve_user,
                exclude=None if self._open is None else [self._open.pattern],
                refuse=_not_authorized,
            )
            app_config.middleware.append(users)
        app_config.lifespan.insert(0, self._sessions.lifespan)
        app_config.dependencies = {
            "current_session": Provide(current_session),
            "optional_session": Provide(optional_session),
            **app_config.dependencies,
        }
        app_config.exception_handlers = {
            SessionsUnavailable: _unavailable,
            **app_config.exception_handlers,
        }
        cache = app_config.response_cache_config
        if cache.key_builder is default_cache_key_builder:
            app_config.response_cache_config = replace(cache, key_builder=self._cache_key)
        if app_config.openapi_config is not None:
            # A copy: it may be Litestar's own, which all apps share.
            config = app_config.openapi_config = copy(app_config.openapi_config)
            others = config.components
            config.components = [
                *(others if isinstance(others, list) else [others]),
                Components(security_schemes=self._schemes),
            ]
        return app_config

    def receive_route(self, route: BaseRoute) -> None:
        """Note for the OpenAPI document which handlers ask for a session."""
        if isinstance(route, HTTPRoute):
            for handler in route.route_handlers:
                users = self._retrieve_user is not None
                asks = users and not is_open(handler, route.path, self._open)
                _describe(handler, list(self._schemes), asks=asks)

    def _cache_key(self, request: AnyRequest) -> str:
        """Litestar's own is the address alone: what one person sees would be shown to the next.

        It is asked twice: what is kept, and where. What was made for somebody who has left
        meanwhile is kept where nobody looks. Whose it is stands first, since no method begins so:
        at the end, a stranger's path could say the same.
        """
        scope: Any = request.scope
        whose = self._whose(request)
        first = scope.setdefault(_ASKED_FIRST, whose)
        key = default_cache_key_builder(request)
        if first not in (None, whose):
            return f"{first} {whose} {key}"
        return key if whose is None else f"{whose} {key}"

    def _whose(self, request: AnyRequest) -> str | None:
        context = self._sessions._context(request)
        known = context.session or context.visitor or next(iter(context.visits), None)
        if known is not None:
            return known.sid
        person = context.person  # whom another layer vouches for, without a session of ours
        return None if person is None else json.dumps([str(person.app_id), str(person.id)])


def _person_from_scope_and_token(scope: Mapping[str, Any]) -> Person | None:
    """`person_from_scope`, and if nothing there says when they proved who they are, the
    ``auth_time`` and ``iat`` of the token in ``scope["auth"]``.
    """
    person = person_from_scope(scope)
    token = scope.get("auth")
    if person is None or token is None or person.proof is not None:
        return person
    extras = getattr(token, "extras", None)
    claims = extras if isinstance(extras, Mapping) else {}
    return Person.of(
        replace(
            person,
            authenticated_at=claims.get("auth_time"),
            issued_at=getattr(token, "iat", None),
        )
    )


class _Fresh:
    """A guard; a class, so that the plugin knows it again."""

    def __init__(self, max_age: timedelta) -> None:
        self._max_age = max_age

    async def __call__(self, connection: AnyConnection, _: BaseRouteHandler) -> None:
        session = _session(connection)
        if not is_fresh(connection, self._max_age):
            facts = not_fresh(session, self._max_age)
            confirm_url = _urls(connection)[1]
            raise PermissionDeniedException(
                facts["error_description"], headers=led_to(connection, confirm_url), extra=facts
            )


def _session(connection: AnyConnection) -> Session:
    session = session_of(connection)
    if session is None:
        raise _not_authorized(connection)
    return session


def _not_authorized(connection: AnyConnection) -> NotAuthorizedException:
    facts = login_required(connection)
    login_url = _urls(connection)[0]
    headers = {**challenge(connection), **led_to(connection, login_url)}
    return NotAuthorizedException(facts["error_description"], headers=headers, extra=facts)


def _urls(connection: AnyConnection) -> tuple[str | None, str | None]:
    """Where htmx is led by a 401 and by a 403, if the app has the plugin, and that says so."""
    plugins = (one for one in connection.app.plugins if isinstance(one, SessionsPlugin))
    return next((one.urls for one in plugins), (None, None))


def _is_ours(middleware: object) -> bool:
    return isinstance(middleware, DefineMiddleware) and middleware.middleware is SessionMiddleware


def _describe(handler: HTTPRouteHandler, schemes: Sequence[str], *, asks: bool) -> None:
    guards = handler.resolve_guards()
    fresh = any(isinstance(guard, _Fresh) for guard in guards)
    wanted = handler.parsed_fn_signature.parameters
    given = [by.dependency for name, by in handler.resolve_dependencies().items() if name in wanted]
    if asks or fresh or requires_session in guards or current_session in given:
        ways: list[dict[str, list[str]]] = [{name: []} for name in schemes]
        handler.security = [*(handler.security or ()), *ways]
        refusals = [NotAuthorizedException, *[PermissionDeniedException] * fresh]
        handler.raises = [*(handler.raises or ()), *refusals]


def _unavailable(_: AnyRequest, error: SessionsUnavailable) -> Response[str]:
    headers = {"retry-after": str(error.retry_after), "cache-control": "no-store"}
    return Response(
        "Service Unavailable", status_code=503, headers=headers, media_type="text/plain"
    )
