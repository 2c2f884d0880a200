"""For FastAPI: the session as a dependency, a router of the sessions, the OpenAPI document."""

# Annotations are real ones here: of an object that is called, older FastAPIs read no others.
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Annotated, Any

from ._errors import ConfigurationError
from ._guards import (
    NOT_FRESH,
    NOT_LOGGED_IN,
    challenge,
    checked_age,
    checked_urls,
    is_fresh,
    led_to,
    login_required,
    not_fresh,
    session_of,
)
from ._model.carrier import BEARER_SCHEME, SCHEME
from ._model.session import Session
from ._pages.options import RouteOptions
from ._sessions import Sessions

try:
    from fastapi import APIRouter, Depends, FastAPI, HTTPException, Security
    from fastapi.params import Depends as Dependency
    from fastapi.requests import HTTPConnection
    from fastapi.security import APIKeyCookie
    from fastapi.security.http import HTTPBase

    from ._session_router import make_router
except ModuleNotFoundError as _fault:  # the library that the extra brings
    raise ImportError(
        f"asgi_sessions.fastapi needs {_fault.name}: install asgi-login-sessions[fastapi]",
        name=_fault.name,
    ) from _fault

__all__ = [
    "CurrentSession",
    "OptionalSession",
    "current_session",
    "current_session_of",
    "describe_sessions",
    "fresh_session",
    "fresh_session_of",
    "optional_session",
    "optional_session_of",
    "session_router",
]

#: Marks in the document which operations ask for a fresh session, until `describe_sessions`.
_FRESH = "fresh_session"


class _Cookie(APIKeyCookie):
    """What the OpenAPI document says of the cookie; `describe_sessions` knows its name better.
    Whether it is any good, the middleware has found out.
    """

    def __init__(self, scheme_name: str, name: str = "__Host-sid") -> None:
        super().__init__(name=name, scheme_name=scheme_name, auto_error=False)

    async def __call__(self, request: HTTPConnection) -> None:
        """Does nothing: the middleware has already checked the cookie. It also accepts WebSockets,
        which older versions of `APIKeyCookie` did not.
        """


class _Token(HTTPBase):
    """What the OpenAPI document says of the token of `Sessions(bearer=True)`."""

    def __init__(self) -> None:
        super().__init__(scheme="bearer", scheme_name=BEARER_SCHEME, auto_error=False)

    async def __call__(self, request: HTTPConnection) -> None:
        """Does nothing: the middleware has already checked the token."""


async def current_session(
    connection: HTTPConnection, _: Annotated[None, Security(_Cookie(SCHEME))]
) -> Session:
    """The session; 401 without one. To guard a whole router: ``Depends(current_session)``."""
    return _session(connection)


async def optional_session(connection: HTTPConnection) -> Session | None:
    """The session, or None."""
    return session_of(connection)


def current_session_of(
    sessions: Sessions, *, login_url: str | None = None
) -> Callable[[HTTPConnection, None], Awaitable[Session]]:
    """`current_session` of these `Sessions`, for ``Depends``, where an app has more than one, or is
    used by htmx.

    Args:
        sessions: whose.
        login_url: where htmx is led by the 401 (``HX-Redirect``); None for nowhere.

    Raises:
        ConfigurationError: if `login_url` is neither a path nor a URL.
    """
    checked_urls(login_url=login_url)
    scheme = Security(_Cookie(SCHEME, sessions.cookie_name))

    async def current(connection: HTTPConnection, _: Annotated[None, scheme]) -> Session:
        return _session(connection, sessions, login_url)

    return current


def optional_session_of(
    sessions: Sessions,
) -> Callable[[HTTPConnection], Awaitable[Session | None]]:
    """`optional_session` of these `Sessions`, for ``Depends``."""

    async def optional(connection: HTTPConnection) -> Session | None:
        return session_of(connection, sessions)

    return optional


#: ``session: CurrentSession`` is the session; without one the answer is a 401.
CurrentSession = Annotated[Session, Depends(current_session)]
#: ``session: OptionalSession`` is the session, or None.
OptionalSession = Annotated[Session | None, Depends(optional_session)]


def fresh_session(
    max_age: timedelta, *, login_url: str | None = None, confirm_url: str | None = None
) -> Dependency:
    """The session of somebody who has proved lately who they are (ASVS 7.5.1), for
    ``Annotated[Session, fresh_session(...)]`` and ``dependencies=[fresh_session(...)]``.

    The answer is a 401 without a session, and a 403 with one that is not fresh. Its ``detail`` has
    the ``error`` ``insufficient_user_authentication`` (RFC 9470), ``authenticated_at`` and
    ``max_age`` in seconds.

    Args:
        max_age: how long the last proof counts.
        login_url: where htmx is led by the 401 (``HX-Redirect``); None for nowhere.
        confirm_url: where it is led by the 403; `login_url` if None.

    Raises:
        ConfigurationError: if `max_age` is no positive timedelta, or a URL cannot be one.
    """
    return _fresh(None, max_age, login_url, confirm_url)


def fresh_session_of(
    sessions: Sessions,
    max_age: timedelta,
    *,
    login_url: str | None = None,
    confirm_url: str | None = None,
) -> Dependency:
    """`fresh_session` of these `Sessions`, where an app has more than one.

    Raises:
        ConfigurationError: if `max_age` is no positive timedelta, or a URL cannot be one.
    """
    return _fresh(sessions, max_age, login_url, confirm_url)


def _fresh(
    sessions: Sessions | None, max_age: timedelta, login_url: str | None, confirm_url: str | None
) -> Dependency:
    age = checked_age(max_age)
    checked_urls(login_url=login_url, confirm_url=confirm_url)

    async def fresh(
        connection: HTTPConnection, _: Annotated[None, Security(_Cookie(_FRESH))]
    ) -> Session:
        session = _session(connection, sessions, login_url)
        if not is_fresh(connection, age, sessions):
            led = led_to(connection, confirm_url or login_url)
            raise HTTPException(403, not_fresh(session, age), led)
        return session

    dependency: Dependency = Depends(fresh)
    return dependency


def session_router(
    sessions: Sessions,
    *,
    fresh_for: timedelta | None = None,
    login_url: str | None = None,
    confirm_url: str | None = None,
    clear_site_data: Sequence[str] = (),
) -> APIRouter:
    """What `Sessions.routes` and `Sessions.end_session_endpoint` do for programs, as a router whose
    operations stand in the OpenAPI document, for clients that are generated from it:
    ``list_sessions``, ``end_session``, ``end_other_sessions`` and ``logout``.

    ``app.include_router(session_router(sessions), prefix="/sessions")``

    Args:
        sessions: whose.
        fresh_for: how long ago a person may have proved who they are to end other sessions; None
            for as long as their own lasts.
        login_url: where htmx is led (``HX-Redirect``) by a 401; None for nowhere.
        confirm_url: where it is led by the 403 of a login that is too old; `login_url` if None.
        clear_site_data: what the browser is told to forget at a logout, such as ``("cache",)``.

    Raises:
        ConfigurationError: for arguments that cannot be.
    """
    if not isinstance(sessions, Sessions):
        raise ConfigurationError(f"session_router({sessions!r}): pass the Sessions of your app")
    options = RouteOptions(
        html=False,
        fresh_for=fresh_for,
        login_url=login_url,
        confirm_url=confirm_url,
    )
    schemes = [Security(_Cookie(SCHEME, sessions.cookie_name))]
    if _takes_tokens(sessions):
        schemes.append(Security(_Token()))
    return make_router(
        sessions._own_sessions(options),
        sessions.end_session_endpoint(clear_site_data=clear_site_data),
        schemes,
    )


def describe_sessions(app: FastAPI, sessions: Sessions) -> None:
    """Have the app's OpenAPI document name the cookie as it is on the wire, and the token of
    `Sessions(bearer=True)` beside it; and list the 401 and 403 of each operation that asks for a
    session.

    Args:
        app: whose document.
        sessions: whose cookie and token.

    Raises:
        ConfigurationError: if `sessions` are none.
    """
    if not isinstance(sessions, Sessions):
        raise ConfigurationError(f"describe_sessions(app, {sessions!r}): pass the Sessions")
    make = app.openapi

    def openapi() -> dict[str, Any]:
        document = make()
        schemes = document.get("components", {}).get("securitySchemes", {})
        cookie = schemes.pop(_FRESH, None) or schemes.get(SCHEME)
        tokens = _takes_tokens(sessions)
        if cookie is not None:
            schemes[SCHEME] = {**cookie, "name": sessions.cookie_name}
            if tokens:
                schemes[BEARER_SCHEME] = {"type": "http", "scheme": "bearer"}
        for path in document.get("paths", {}).values():
            for operation in path.values():
                _describe(operation, tokens=tokens)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own pages do


def _takes_tokens(sessions: Sessions) -> bool:
    return sessions._core.settings.carriers.bearer


def _describe(operation: Any, *, tokens: bool) -> None:  # noqa: ANN401 -- a piece of a JSON document
    security = operation.get("security", [])
    asked = {name for one in security for name in one}
    if not asked & {SCHEME, _FRESH}:
        return
    if _FRESH in asked:
        operation["responses"].setdefault("403", {"description": NOT_FRESH})
        security = [one for one in security if not one.keys() & {SCHEME, _FRESH}]
        security.append({SCHEME: []})
    if tokens and BEARER_SCHEME not in asked:
        security.append({BEARER_SCHEME: []})
    operation["security"] = security
    if {} not in security:
        operation["responses"].setdefault("401", {"description": NOT_LOGGED_IN})


def _session(
    connection: HTTPConnection, sessions: Sessions | None = None, login_url: str | None = None
) -> Session:
    session = session_of(connection, sessions)
    if session is None:
        headers = {**challenge(connection, sessions), **led_to(connection, login_url)}
        raise HTTPException(401, login_required(connection, sessions), headers)
    return session
