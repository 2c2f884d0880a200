"""Whose session a guard asks for; access checks and error bodies that all integrations share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from starlette.datastructures import Headers

from ._connection.context import SESSIONS, Conn, scope_of
from ._errors import ConfigurationError
from ._model.device import headers_of
from ._model.session import Session
from ._pages.logout import target_fault
from ._pages.negotiation import htmx_redirect
from ._sessions import Sessions

#: What a 401 and a 403 of the guards mean, for the OpenAPI document.
NOT_LOGGED_IN = "Nobody is logged in"
NOT_FRESH = "The person has to prove anew who they are"

_LOGIN = "log in first"
_AGAIN = "prove again who you are: the last time was too long ago"


def session_of(conn: Conn, sessions: Sessions | None = None) -> Session | None:
    """The session of a connection.

    Args:
        conn: the connection.
        sessions: whose; None for those of the only middleware that it has passed.

    Raises:
        ConfigurationError: if the connection passed through no such middleware, or through two.
    """
    return (sessions or _sessions(scope_of(conn))).current(conn)


def is_fresh(conn: Conn, max_age: timedelta, sessions: Sessions | None = None) -> bool:
    """`Sessions.is_fresh` of the same."""
    return (sessions or _sessions(scope_of(conn))).is_fresh(conn, max_age)


def checked_age(max_age: object) -> timedelta:
    """The age, if it can be one.

    Raises:
        ConfigurationError: if it cannot.
    """
    if not isinstance(max_age, timedelta) or max_age <= timedelta(0):
        raise ConfigurationError(f"max_age={max_age!r}: use a datetime.timedelta of more than 0")
    return max_age


def checked_urls(**urls: str | None) -> None:
    """Raises a ConfigurationError if one of them is neither a path nor a URL."""
    errors = [error for name, url in urls.items() for error in target_fault(name, url)]
    if errors:
        raise ConfigurationError("; ".join(errors))


def led_to(conn: Conn, url: str | None) -> dict[str, str]:
    """The header by which htmx leads the page to a URL; nothing for other clients."""
    return htmx_redirect(Headers(raw=list(headers_of(scope_of(conn)))), url)


def login_required(conn: Conn, sessions: Sessions | None = None) -> dict[str, Any]:
    """Why there is no session, with OpenID Connect's word for it (Core 1.0, 3.1.2.6).

    Raises:
        SessionsUnavailable: if nobody knows whether there is one.
    """
    context = (sessions or _sessions(scope_of(conn)))._context(conn)
    if context.error is not None:
        raise context.error
    return {"error": "login_required", "error_description": _LOGIN, "reason": context.end_reason}


def challenge(conn: Conn, sessions: Sessions | None = None) -> dict[str, str]:
    """The header of a 401."""
    return dict([(sessions or _sessions(scope_of(conn)))._core.settings.carriers.challenge])


def not_fresh(session: Session, max_age: timedelta) -> dict[str, Any]:
    """When the person has proved who they are, and how long that counts (RFC 9470, 3)."""
    at = session.authenticated_at
    return {
        "error": "insufficient_user_authentication",
        "error_description": _AGAIN,
        "authenticated_at": None if at is None else at.isoformat(),
        "max_age": round(max_age.total_seconds()),
    }


def _sessions(scope: Mapping[str, Any]) -> Sessions:
    passed = scope.get(SESSIONS, ())
    if not passed:
        raise ConfigurationError(
            "this connection did not pass through SessionMiddleware: add it to the app, outside "
            "of what asks for the session"
        )
    if len(passed) > 1:
        raise ConfigurationError(
            "this connection has passed through the middlewares of two Sessions, so it has to be "
            "said whose session is meant: in FastAPI by current_session_of(sessions) and its kin, "
            "in Starlette by SessionAuthBackend(sessions=...), elsewhere by sessions.current(conn)"
        )
    sessions: Sessions = passed[0]
    return sessions
