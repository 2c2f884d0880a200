"""For Starlette: ``request.user`` and ``@requires("authenticated")`` from the session alone."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.authentication import AuthCredentials, AuthenticationBackend, BaseUser
from starlette.requests import HTTPConnection

from ._guards import session_of
from ._model.person import SESSION_USER
from ._model.session import Session
from ._sessions import Sessions

__all__ = ["SessionAuthBackend", "SessionUser"]

LoadPerson = Callable[[Session], Any | Awaitable[Any]]


class SessionUser(BaseUser):
    """Whom a session belongs to, for ``request.user``.

    Attributes:
        session: theirs.
    """

    def __init__(self, session: Session) -> None:
        self.session = session

    @property
    def is_authenticated(self) -> bool:
        """True."""
        return True

    @property
    def display_name(self) -> str:
        """The person's id."""
        return self.session.person_id

    @property
    def identity(self) -> str:
        """The person's id."""
        return self.session.person_id


class SessionAuthBackend(AuthenticationBackend):
    """For Starlette's ``AuthenticationMiddleware``, which has to be inside of `SessionMiddleware`:
    whoever has a live session is authenticated, nobody else.

    Args:
        load_person: makes ``request.user`` of a session, for instance a row of your own table;
            None from it for somebody who may not come in any more. May be async. By default
            the user is a `SessionUser`.
        sessions: whose sessions; None for those of the app's only `SessionMiddleware`.
    """

    def __init__(
        self, load_person: LoadPerson | None = None, *, sessions: Sessions | None = None
    ) -> None:
        self._sessions = sessions
        self._load_person = load_person or SessionUser

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Any] | None:
        """The user of the connection's session.

        Raises:
            ConfigurationError: if the connection did not pass through `SessionMiddleware` first.
        """
        session = session_of(conn, self._sessions)
        if session is None:
            return None
        person = self._load_person(session)
        if inspect.isawaitable(person):
            person = await person
        if person is None:
            return None
        # Another `SessionMiddleware` further in must not take them for somebody's word.
        conn.scope[SESSION_USER] = person
        return AuthCredentials(["authenticated"]), person
