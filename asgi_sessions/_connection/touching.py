"""Notes that a session is used, when its last use was noted a while ago."""

from __future__ import annotations

from datetime import datetime

from asgi_sessions._model.lifetimes import own_lifetimes
from asgi_sessions._service.core import Core

from .context import RequestContext


def touch_if_due(core: Core, context: RequestContext, now: datetime) -> None:
    """Note the use of a connection's session, unless that was done less than `touch_interval` ago,
    or half of the session's own idle timeout if that is shorter; and that its browser holds the
    newest secret, the first time that it shows it. Nobody waits for the database: a server may hold
    the client's next request back until the app is done.

    Args:
        core: writes it.
        context: of the connection.
        now: when the session was used.
    """
    row = context.row
    if row is None:
        return
    arrived = (
        row.previous_secret_hash is not None
        and row.secret_seen_at is None
        and context.presented == row.secret_hash
    )
    interval = core.settings.touch_interval
    if (idle := row.idle_seconds) is not None:  # somebody active must never look idle
        interval = min(interval, own_lifetimes(idle).idle / 2)
    if not arrived and (not context.touches or now - row.last_seen_at < interval):
        return
    seen_at = now if arrived else row.secret_seen_at
    context.row = row._replace(last_seen_at=now, secret_seen_at=seen_at)
    core.touch(row, seen=arrived, now=now)
