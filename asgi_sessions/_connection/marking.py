"""The mark of a device on a request: when it is from, and a new one after a login."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from asgi_sessions._model.device import headers_of
from asgi_sessions._model.person import Person
from asgi_sessions._model.row import Row
from asgi_sessions._service.core import Core
from asgi_sessions._service.options import Settings

from .context import RequestContext


def marked_at(
    settings: Settings, context: RequestContext, scope: Mapping[str, Any], person: Person
) -> datetime | None:
    """When the browser was last marked as one of this person's; None if it is not.

    Args:
        settings: the options.
        context: of the request.
        scope: its.
        person: as `identify` spells them.
    """
    if settings.device_marks is None or context.foreign or context.bearer:
        return None
    owner = (str(person.id), str(person.app_id))
    return settings.device_marks.dated(headers_of(scope), owner, settings.now())


def mark(core: Core, context: RequestContext, scope: Mapping[str, Any], row: Row) -> None:
    """Have the response mark the browser, unless it is somebody else's, which `remember` says.

    Args:
        core: has the options, the clock and the randomness.
        context: of the request.
        scope: its.
        row: of the session that has started.
    """
    marks = core.settings.device_marks
    if marks is None or not row.remember:
        context.mark = None
        return
    owner = (row.person_id, row.app_id)
    context.mark = marks.render(headers_of(scope), owner, row.started_at, core.random)
