"""For FastAPI: the session as a dependency, its cookie in the OpenAPI document."""

# Annotations are real ones here: of an object that is called, older FastAPIs read no others.
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Annotated, Any

from ._errors import ConfigurationError
from ._guards import (
    NOT_FRESH,
    NOT_LOGGED_IN,
    challenge,
    checked_age,
    is_fresh,
    login_required,
    not_fresh,
    session_of,
)
from ._model.carrier import SCHEME
from ._model.session import Session
from ._sessions import Sessions

try:
    from fastapi import Depends, FastAPI, HTTPException, Security
    from fastapi.params import Depends as Dependency
    from fastapi.requests import HTTPConnection
    from fastapi.security import APIKeyCookie
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
]

#: Marks in the document which operations ask for a fresh session, until `describe_sessions`.
_FRESH = "fresh_session"


class _Cookie(APIKeyCookie):
    """What the OpenAPI document says of the cookie; `describe_sessions` knows its name better.
    Whether it is any good, the middleware has found out.
    """

    def __init__(self, scheme_name: str) -> None:
        super().__init__(name="__Host-sid", scheme_name=scheme_name, auto_error=False)

    async def __call__(self, request: HTTPConnection) -> None:
        """Does nothing: the middleware has already checked the cookie. It also accepts WebSockets,
        which older versions of `APIKeyCookie` did not.
        """


async def current_session(
    connection: HTTPConnection, _: Annotated[None, Security(_Cookie(SCHEME))]
) -> Session:
    """The session; 401 without one. To guard a whole router: ``Depends(current_session)``."""
    return _session(connection)


async def optional_session(connection: HTTPConnection) -> Session | None:
    """The session, or None."""
    return session_of(connection)


def current_session_of(
    sessions: Sessions,
) -> Callable[[HTTPConnection, None], Awaitable[Session]]:
    """`current_session` of these `Sessions`, for ``Depends``, where an app has more than one."""

    async def current(
        connection: HTTPConnection, _: Annotated[None, Security(_Cookie(SCHEME))]
    ) -> Session:
        return _session(connection, sessions)

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


def fresh_session(max_age: timedelta) -> Dependency:
    """The session of somebody who has proved lately who they are (ASVS 7.5.1), for
    ``Annotated[Session, fresh_session(...)]`` and ``dependencies=[fresh_session(...)]``.

    The answer is a 401 without a session, and a 403 with one that is not fresh. Its ``detail`` has
    the ``error`` ``insufficient_user_authentication`` (RFC 9470), ``authenticated_at`` and
    ``max_age`` in seconds.

    Args:
        max_age: how long the last proof counts.

    Raises:
        ConfigurationError: if `max_age` is no positive timedelta.
    """
    return _fresh(None, max_age)


def fresh_session_of(sessions: Sessions, max_age: timedelta) -> Dependency:
    """`fresh_session` of these `Sessions`, where an app has more than one.

    Raises:
        ConfigurationError: if `max_age` is no positive timedelta.
    """
    return _fresh(sessions, max_age)


def _fresh(sessions: Sessions | None, max_age: timedelta) -> Dependency:
    age = checked_age(max_age)

    async def fresh(
        connection: HTTPConnection, _: Annotated[None, Security(_Cookie(_FRESH))]
    ) -> Session:
        session = _session(connection, sessions)
        if not is_fresh(connection, age, sessions):
            raise HTTPException(403, not_fresh(session, age))
        return session

    dependency: Dependency = Depends(fresh)
    return dependency


def describe_sessions(app: FastAPI, sessions: Sessions) -> None:
    """Have the app's OpenAPI document name the cookie as it is on the wire, and list the 401 and
    403 of each operation that asks for a session.

    Args:
        app: whose document.
        sessions: whose cookie.

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
        if cookie is not None:
            schemes[SCHEME] = {**cookie, "name": sessions.cookie_name}
        for path in document.get("paths", {}).values():
            for operation in path.values():
                _list_refusals(operation)
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own pages do


def _list_refusals(operation: Any) -> None:  # noqa: ANN401 -- a piece of a JSON document
    asked = {name for one in operation.get("security", ()) for name in one}
    if _FRESH in asked:
        operation["responses"].setdefault("403", {"description": NOT_FRESH})
        others = [one for one in operation["security"] if not one.keys() & {SCHEME, _FRESH}]
        operation["security"] = [*others, {SCHEME: []}]
    if asked & {SCHEME, _FRESH}:
        operation["responses"].setdefault("401", {"description": NOT_LOGGED_IN})


def _session(connection: HTTPConnection, sessions: Sessions | None = None) -> Session:
    session = session_of(connection, sessions)
    if session is None:
        raise HTTPException(
            401, login_required(connection, sessions), challenge(connection, sessions)
        )
    return session
