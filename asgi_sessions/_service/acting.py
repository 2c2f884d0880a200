"""Somebody acts for another person, in a session of that person's that is marked. Their own waits
for it, and both end together, unless they go back.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from asgi_sessions._errors import SessionsError
from asgi_sessions._model.changeset import DIGEST_BYTES, checked
from asgi_sessions._model.decisions import EndReason
from asgi_sessions._model.device import Device
from asgi_sessions._model.person import Person
from asgi_sessions._model.row import Row, waiting_for
from asgi_sessions._model.tokens import Token, digest, new_secret

if TYPE_CHECKING:
    from collections.abc import Callable

    from .core import Core

_LEFT: EndReason = "actor_left"


class Wish(NamedTuple):
    """What somebody wants who wants to act for a person.

    Attributes:
        own: the row of their own session.
        held: the digest of the secret that its browser is known to hold; None if that is the
            current one.
        person: for whom they want to act, as `identify` spells them.
        reason: why.
        lifetime: for how long at most.
    """

    own: Row
    held: bytes | None
    person: Person
    reason: str
    lifetime: timedelta


async def begin(
    core: Core, wish: Wish, device: Device, announce: Callable[[str], None]
) -> tuple[Row, Token] | None:
    """Put a session aside, and start one in which its person acts for another. None if it has
    ended or changed since it was read.

    Args:
        core: the steps of a session's life.
        wish: what they want.
        device: of the browser.
        announce: told the new sid before it is written.
    """
    own, held, person, reason, lifetime = wish
    now = core.settings.now()
    nothing_proved = replace(person, authenticated_at=None, acr=None, amr=())
    values, token, _ = core.new_rows.make(
        device, nothing_proved, "login", now, remember=own.remember
    )
    announce(token.sid)
    values |= {
        # Nothing that the person has proved, and no device of theirs.
        "authenticated_at": None,
        "device_key": core.random(DIGEST_BYTES),
        "expires_at": min(now + lifetime, core.session(own).expires_at),
        "actor_id": own.person_id,
        "actor_sid": own.id,
        "actor_reason": reason,
    }
    marker = waiting_for(token.sid)
    aside = checked(
        secret_hash=marker,
        previous_secret_hash=held or own.secret_hash,
        # Requests that were under way are over a minute after this.
        secret_seen_at=now,
        renewed_at=now,
        last_seen_at=now,
    )
    row = await core.store.acting.begin(own, aside, values, now=now)
    if row is None:
        return None
    core.events.report("started", core.session(row))
    core.live_connections.end(own.id, but=marker)
    return row, token


async def go_back(core: Core, row: Row) -> tuple[Row, Token] | None:
    """End the session in which somebody acts, and give them their own with a new secret. None if
    either has ended, or another request has done it.
    """
    now = core.settings.now()
    token = Token(str(row.actor_sid), new_secret(core.random))
    changed: dict[str, Any] = checked(secret_hash=digest(token.secret), last_seen_at=now)
    ended, own = await core.store.acting.go_back(row, changed, reason=_LEFT, now=now)
    if own is None:
        if ended is not None:
            await core.ended([ended])
        return None
    if ended is not None:  # without a look at their own, whose connection goes over right now
        core.tell_ended(ended)
    core.events.report("renewed", core.session(own))
    core.live_connections.end(own.id, but=own.secret_hash)
    return own, token


async def end_other(core: Core, row: Row) -> None:
    """Of a session in which somebody acts, and of the one that waits for it, one has ended: end the
    other, which nobody could go on with. Where the answer that began it was not delivered, the
    browser has the cookie of the one that waits.

    What fails here is made up for: each request in a session in which somebody acts looks whether
    their own still lives and waits for it.
    """
    with suppress(SessionsError):
        if (acting := row.waits_for) is not None:
            await core.end(acting, _LEFT)
            return
        own = await core.store.by_sid(str(row.actor_sid))
        if own is None or own.ended_at is not None or own.waits_for != row.id:
            return
        if row.end_reason == "not_delivered":
            await core.store.acting.restore(own, now=core.settings.now())
        else:
            await core.end(own.id, row.reason())
