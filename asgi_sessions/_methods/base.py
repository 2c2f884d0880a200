"""What the methods of `Sessions` have in common."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from asgi_sessions._connection.binding import Binding
from asgi_sessions._connection.context import Conn, RequestContext, scope_of
from asgi_sessions._database.engines import Engines
from asgi_sessions._database.pools.app_connection import join
from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.changeset import checked
from asgi_sessions._service.core import Core
from asgi_sessions._service.joining import Transaction

if TYPE_CHECKING:
    from asgi_sessions._database.pools.app_connection import AppConnection
else:  # it needs greenlet, and takes its time to be imported
    AppConnection = Any

__all__ = ["ALL_APPS", "ANYBODY", "AppConnection", "AppId", "Base"]


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


class Base:
    """The pieces that `Sessions` is made of, as its constructor has made them."""

    _core: Core
    _engines: Engines
    _binding: Binding | None
    #: Of a connection's context in its scope.
    _key: str

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
