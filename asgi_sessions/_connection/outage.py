"""An outage that another layer has answered: Starlette's and Litestar's own answer a 500."""

from __future__ import annotations

import sys

from asgi_sessions._errors import SessionsUnavailable


def outage_of(error: BaseException | None) -> SessionsUnavailable | None:
    """The outage, if the error is one, or if a group of exceptions holds one."""
    if isinstance(error, SessionsUnavailable):
        return error
    if isinstance(error, BaseExceptionGroup):
        return next(filter(None, map(outage_of, error.exceptions)), None)
    return None


def outage_at_hand() -> SessionsUnavailable | None:
    """The outage that is being handled right now: error middlewares answer while they handle what
    the app has raised. So it is known for the cause of the answer, and not only for something that
    has happened before.
    """
    return outage_of(sys.exc_info()[1])
