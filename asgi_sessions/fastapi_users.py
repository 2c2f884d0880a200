"""For fastapi-users: its logins are sessions here, by our token or our cookie."""

# Annotations are real ones here: FastAPI reads those of a dependency.
from collections.abc import Callable
from typing import Any, ClassVar, Generic

from starlette.requests import Request

from ._errors import ConfigurationError
from ._guards import login_required
from ._model.bearer import PREFIX
from ._sessions import Sessions

try:
    from fastapi_users import BaseUserManager, exceptions
    from fastapi_users.models import ID, UP
except ModuleNotFoundError as _fault:  # the library that the app brings
    raise ImportError(
        f"asgi_sessions.fastapi_users needs {_fault.name}: install fastapi-users",
        name=_fault.name,
    ) from _fault

__all__ = ["SessionStrategy", "SessionsOfUsers", "session_strategy"]


class SessionStrategy(Generic[UP, ID]):
    """A strategy for an ``AuthenticationBackend``: a login starts a session, a logout ends it, and
    each request is checked against its row.

    With a ``BearerTransport`` its token is ours, and needs ``Sessions(bearer=True)``. With a
    ``CookieTransport(cookie_name=sessions.cookie_name)`` its cookie is ours: what the transport
    would set under this name, the middleware puts its own in the place of.

    Args:
        sessions: of the app, whose `SessionMiddleware` has to be there.
        request: the request.
        cookie: whether a login sets the cookie rather than give out a token; None for tokens with
            ``Sessions(bearer=True)``, else the cookie.
    """

    def __init__(self, sessions: Sessions, request: Request, *, cookie: bool | None = None) -> None:
        self._sessions = sessions
        self._request = request
        bearer = sessions._core.settings.carriers.bearer
        self._cookie = not bearer if cookie is None else cookie

    async def read_token(
        self, token: str | None, user_manager: BaseUserManager[UP, ID]
    ) -> UP | None:
        """The user of the request's session, if it came by this token; None for nobody.

        Raises:
            SessionsUnavailable: if nobody knows whether there is a session.
        """
        # What the middleware has not looked at is another layer's: it proves nothing here, whatever
        # came beside it.
        cookie = self._request.cookies.get(self._sessions.cookie_name)
        if token is None or not (token.startswith(PREFIX) or token == cookie):
            return None
        session = self._sessions.current(self._request)
        if session is None:
            login_required(self._request, self._sessions)
        if session is None or session.bearer != token.startswith(PREFIX):
            return None
        try:
            return await user_manager.get(user_manager.parse_id(session.person_id))
        except (exceptions.InvalidID, exceptions.UserNotExists):
            return None

    async def write_token(self, user: UP) -> str:
        """Start a session for the user.

        Returns:
            The token for the client; or, where the middleware sets the cookie, the sid, which the
            cookie takes the place of.
        """
        person = {"id": user.id}
        if self._cookie:
            return (await self._sessions.start_session(self._request, person)).sid
        return (await self._sessions.start_token(self._request, person)).token

    async def destroy_token(self, token: str, user: UP) -> None:  # noqa: ARG002 -- their signature
        """End the session of the request."""
        await self._sessions.end_session(self._request)


def session_strategy(
    sessions: Sessions, *, cookie: bool | None = None
) -> Callable[[Request], SessionStrategy[Any, Any]]:
    """What an ``AuthenticationBackend`` takes as its `get_strategy`.

    Args:
        sessions: of the app.
        cookie: as for `SessionStrategy`.

    Raises:
        ConfigurationError: if `sessions` are none.
    """
    if not isinstance(sessions, Sessions):
        raise ConfigurationError(f"session_strategy({sessions!r}): pass the Sessions of your app")

    def strategy(request: Request) -> SessionStrategy[Any, Any]:
        return SessionStrategy(sessions, request, cookie=cookie)

    return strategy


class SessionsOfUsers:
    """For a ``UserManager``, as the first of its bases: ends sessions when what they rest on has
    changed.

    ``class UserManager(SessionsOfUsers, BaseUserManager[User, int], sessions=sessions)``

    A new password ends the user's other sessions, and gives the cookie of this one a new secret;
    it ends all if it was not set within one of them. A password that was reset ends all, too. A
    user who is deactivated or deleted has none any more. Who overrides one of these methods calls
    ``super()``.

    Raises:
        ConfigurationError: for a class without `sessions`, or with another order of its bases.
    """

    _sessions_of_users: ClassVar[Sessions]

    def __init_subclass__(cls, *, sessions: Sessions | None = None, **more: Any) -> None:  # noqa: ANN401 -- of other bases
        super().__init_subclass__(**more)
        if sessions is not None:
            cls._sessions_of_users = sessions
        if not isinstance(getattr(cls, "_sessions_of_users", None), Sessions):
            raise ConfigurationError(f"class {cls.__name__}(..., sessions=...): pass the Sessions")
        ahead = cls.__mro__[: cls.__mro__.index(SessionsOfUsers)]
        others = [one for one in ahead if not issubclass(one, SessionsOfUsers)]
        if any("on_after_update" in vars(one) for one in others):
            raise ConfigurationError(
                f"class {cls.__name__}: put SessionsOfUsers before its other bases, or it is not "
                "told of a new password"
            )

    async def on_after_update(
        self,
        user: Any,  # noqa: ANN401 -- of their own type
        update_dict: dict[str, Any],
        request: Request | None = None,
    ) -> None:
        """End what a change of the user puts in question."""
        if update_dict.get("is_active") is False:
            await self._sessions_of_users.end_all_sessions(user.id)
        elif update_dict.get("password") is not None:
            await self._end_others(user, request)

    async def on_after_reset_password(self, user: Any, request: Request | None = None) -> None:  # noqa: ANN401, ARG002 -- as above
        """End the sessions of somebody who did not know the password."""
        await self._sessions_of_users.end_all_sessions(user.id)

    async def on_after_delete(self, user: Any, request: Request | None = None) -> None:  # noqa: ANN401, ARG002 -- as above
        """End the sessions of somebody who is no more."""
        await self._sessions_of_users.end_all_sessions(user.id)

    async def _end_others(self, user: Any, request: Request | None) -> None:  # noqa: ANN401 -- as above
        sessions = self._sessions_of_users
        session = None if request is None else sessions.current(request)
        if request is None or session is None or session.person_id != str(user.id):
            await sessions.end_all_sessions(user.id)
            return
        # Whoever acts for the user has no cookie that could be renewed.
        if not session.bearer and session.actor_id is None:
            await sessions.rotate_session(request)
        # By its sid: a session that has ended meanwhile is the request's no more.
        await sessions.end_all_sessions(user.id, app_id=session.app_id, except_sid=session.sid)
