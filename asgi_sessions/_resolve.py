"""From a request to its session: reads, asks the decision table, does as it says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from ._call import Call
from ._core import Core
from ._decisions import BY_COOKIE, RESUME, Cookie, Then, Who
from ._errors import SessionsError
from ._person import Person
from ._row import Row
from ._tokens import Token, digest

_LIVE = (Cookie.LIVE_LOGIN, Cookie.LIVE_SCOPE)


async def resolve(
    core: Core,
    call: Call,
    person: Person | None,
    tokens: Sequence[Token],
    *,
    sent: bool,
    start: bool,
) -> None:
    """Give the call its session, if it has one.

    Args:
        person: whom another layer vouches for, as `Core.identify` spells them.
        tokens: what the cookies say whose signature holds.
        sent: whether the browser sent any cookie of ours at all.
        start: whether a session may be started for that person.

    Raises:
        SessionsUnavailable: if the database does not answer.
    """
    settings = core.settings
    now = settings.now()
    who = Who.NOBODY if person is None else Who.SAME
    cookie, row, secret = Cookie.INVALID if sent else Cookie.NONE, None, None
    if tokens:
        call.vary = True  # whatever becomes of it, the answer depends on the cookie
        cookie, row, secret = await _look_up(core, tokens, now)
        if row is not None:
            who = row.who(person, now, settings.lifetimes)
    decision = BY_COOKIE[cookie][who]
    if row is not None:
        if decision is RESUME:
            call.use(row, row.session(settings.lifetimes))
            call.presented = secret
            return
        await _settle(core, call, cookie, row, decision.end)
    if decision.then is Then.SIGN_OUT:
        call.sign_out()
    elif decision.then is Then.FIND and person is not None:
        await _find(core, call, person, start=start)


async def _settle(core: Core, call: Call, cookie: Cookie, row: Row, end: str | None) -> None:
    """Put down what becomes of a row that is not resumed."""
    if end is not None:
        await core.end(row.id, end)
        call.state["session_end_reason"] = end
    elif cookie is Cookie.LIVE_SCOPE:
        call.replaceable = row.id
    else:
        call.state["session_end_reason"] = row.reason()
        if row.ended_at is None:
            with suppress(SessionsError):  # it is written down another time
                await core.end(row.id, "expired")


async def _find(core: Core, call: Call, person: Person, *, start: bool) -> None:
    then, started, reason = await core.find_or_start(call.scope, person, start=start)
    if reason is not None:
        call.state["session_end_reason"] = reason
    if then is Then.SIGN_OUT:
        call.sign_out()
    elif started is not None:
        call.use(started.row, core.session(started.row))
        call.token = started.token


async def _look_up(
    core: Core, tokens: Sequence[Token], now: datetime
) -> tuple[Cookie, Row | None, bytes | None]:
    """What verified tokens lead to: the first that is live, else the first."""
    found: list[tuple[Cookie, Row | None, bytes | None]] = []
    rows = await core.store.by_sids([token.sid for token in tokens]) if len(tokens) > 1 else None
    for token in tokens:
        row = await core.store.by_sid(token.sid) if rows is None else rows.get(token.sid)
        if row is None:
            found.append((Cookie.DEAD, None, None))
            continue
        secret = digest(token.secret)
        cookie = row.cookie(secret, now, core.settings.lifetimes)
        if cookie in _LIVE:
            return cookie, row, secret
        found.append((cookie, row, secret))
    return found[0]
