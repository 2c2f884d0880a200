"""Login sessions that a server can list, limit and end, for any ASGI app.

One row per person, app and device; a signed cookie; ``request.state.sid`` in every handler;
every request checked against the row, so ending a session works everywhere at once.
"""

from ._connection.data_methods import DataMethods
from ._connection.outside import Watch
from ._errors import (
    ConfigurationError,
    ImpersonationRefused,
    InvalidSession,
    SessionsError,
    SessionsUnavailable,
)
from ._methods.base import ALL_APPS, ANYBODY
from ._middleware import SessionMiddleware
from ._model.bearer import IssuedToken
from ._model.changeset import Changeset, changeset
from ._model.lifetimes import AAL1, AAL2, AAL3, BANKING, Lifetimes
from ._model.person import Person, person_from_scope, sign_out_of_scope
from ._model.session import Session
from ._model.session_data import MISSING, SessionData, SessionDict
from ._model.starlette_cookie import StarletteCookie
from ._pages.cross_origin import CrossOriginProtection
from ._pages.html import DevicesPage
from ._service.events import Incident, SessionEvent
from ._sessions import Sessions

__all__ = [
    "AAL1",
    "AAL2",
    "AAL3",
    "ALL_APPS",
    "ANYBODY",
    "BANKING",
    "MISSING",
    "Changeset",
    "ConfigurationError",
    "CrossOriginProtection",
    "DataMethods",
    "DevicesPage",
    "ImpersonationRefused",
    "Incident",
    "InvalidSession",
    "IssuedToken",
    "Lifetimes",
    "Person",
    "Session",
    "SessionData",
    "SessionDict",
    "SessionEvent",
    "SessionMiddleware",
    "Sessions",
    "SessionsError",
    "SessionsUnavailable",
    "StarletteCookie",
    "Watch",
    "changeset",
    "person_from_scope",
    "sign_out_of_scope",
]
