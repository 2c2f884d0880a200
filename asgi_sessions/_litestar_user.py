"""``request.user`` from the session, for Litestar: what `SessionsPlugin(retrieve_user=)` adds."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any
from urllib.parse import unquote

from litestar.connection import ASGIConnection
from litestar.handlers import HTTPRouteHandler
from litestar.middleware.authentication import (
    AbstractAuthenticationMiddleware,
    AuthenticationResult,
)
from litestar.types import ASGIApp, Receive, Scope, Send

from ._errors import ConfigurationError
from ._model.person import SESSION_USER
from ._model.session import Session
from ._sessions import Sessions

RetrieveUser = Callable[[Session], Any | Awaitable[Any]]
Refuse = Callable[[ASGIConnection[Any, Any, Any, Any]], Exception]

#: By which a handler says that it needs nobody, as with Litestar's own layers.
_OPEN = "exclude_from_auth"


def pattern_of(retrieve_user: object, exclude: object) -> re.Pattern[str] | None:
    """Of the paths where nobody has to be logged in.

    Raises:
        ConfigurationError: if the options cannot be, or do not go together.
    """
    patterns = [exclude] if isinstance(exclude, str) else exclude
    if not isinstance(patterns, Sequence) or not all(isinstance(one, str) for one in patterns):
        raise ConfigurationError(
            f"SessionsPlugin(exclude={exclude!r}): use a list of regular expressions for paths"
        )
    if retrieve_user is None:
        if patterns:
            raise ConfigurationError(
                "SessionsPlugin(exclude=...) says where nobody has to be logged in, so it needs "
                "retrieve_user=; paths without any session are those of Sessions(exclude=...)"
            )
        return None
    if not callable(retrieve_user):
        raise ConfigurationError(
            f"SessionsPlugin(retrieve_user={retrieve_user!r}): use a function of the session"
        )
    try:
        return re.compile("|".join(patterns)) if patterns else None
    except re.error as error:
        raise ConfigurationError(f"SessionsPlugin(exclude={exclude!r}): {error}") from None


def is_open(handler: HTTPRouteHandler, path: str, pattern: re.Pattern[str] | None) -> bool:
    """Whether a handler needs nobody to be logged in, for the OpenAPI document."""
    return bool(handler.opt.get(_OPEN)) or bool(pattern and pattern.search(path))


def _is_within(scope: Any, pattern: re.Pattern[str]) -> bool:  # noqa: ANN401 -- as in `_find`
    """Whether a pattern lets strangers in: it has to match what Litestar's own layers look at, and,
    below a mount, also what the router has read there (``/%61dmin``, ``//admin``). With a ``..``
    nobody knows which path it is to whoever serves files, or to a mounted app.
    """
    path: str = scope["path"]
    paths = [path]
    if getattr(scope.get("route_handler"), "is_mount", False):
        raw = scope["raw_path"].decode("latin-1")
        path = unquote(raw)
        paths = [raw, re.sub("/{2,}", "/", path)]
    return ".." not in re.split(r"[/\\]", path) and all(map(pattern.search, paths))


class SessionUser(AbstractAuthenticationMiddleware):
    """Inside of `SessionMiddleware`. Where nobody has to be logged in, strangers have no user.

    Args:
        app: the app behind it.
        sessions: whose.
        retrieve_user: makes the user of a session; None for somebody who may not come in.
        exclude: as Litestar's own layers take it.
        refuse: makes the 401.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        sessions: Sessions,
        retrieve_user: RetrieveUser,
        exclude: list[str] | None,
        refuse: Refuse,
    ) -> None:
        super().__init__(app, exclude, exclude_from_auth_key=_OPEN)
        self._open, self.exclude = self.exclude, None  # it is looked at here
        self._sessions = sessions
        self._retrieve_user = retrieve_user
        self._refuse = refuse

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self._find(scope)
        if self._open is not None and _is_within(scope, self._open):
            await self.app(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    async def _find(self, scope: Any) -> None:  # noqa: ANN401 -- a TypedDict that knows no user
        session = self._sessions.current(scope)
        user = None if session is None else self._retrieve_user(session)
        if inspect.isawaitable(user):
            user = await user
        # Another `SessionMiddleware` further in must not take them for somebody's word.
        scope["user"] = scope[SESSION_USER] = user
        if scope.get("auth") is None:
            scope["auth"] = None if user is None else session

    async def authenticate_request(
        self, connection: ASGIConnection[Any, Any, Any, Any]
    ) -> AuthenticationResult:
        """Let in whom the session has brought; only asked where somebody has to be logged in."""
        if connection.user is None:
            raise self._refuse(connection)
        return AuthenticationResult(connection.user, connection.auth)
