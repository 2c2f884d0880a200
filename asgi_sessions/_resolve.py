"""From a request to its session: reads, asks the decision table, does as it says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ._call import Call
from ._core import Core
from ._decisions import BY_COOKIE, Cookie, Then, Who
from ._person import Person
from ._row import Row
from ._tokens import Token, digest

_LIVE = (Cookie.LIVE_LOGIN, Cookie.LIVE_SCOPE)


class Presented(NamedTuple):
    """What the cookies of a request lead to."""

    cookie: Cookie
    row: Row | None = None
    digest: bytes | None = None


async def resolve(
    core: Core, call: Call, presented: Presented, person: Person | None, *, start: bool
) -> None:
    """Give the call its session, if it has one.

    Args:
        presented: what the cookies lead to.
        person: whom another layer vouches for, as `Core.identify` spells them.
        start: whether a session may be started for that person.

    Raises:
        SessionsUnavailable: if the database does not answer.
    """
    cookie, row, secret = presented
    if row is None:
        who = Who.NOBODY if person is None else Who.SAME
    else:
        who = row.who(person, core.settings.now(), core.settings.lifetimes)
    if cookie in _LIVE and row is not None:
        call.replaceable = row.id
    decision = BY_COOKIE[cookie][who]
    if cookie in (Cookie.REVOKED, Cookie.DEAD) and row is not None:
        call.state["session_end_reason"] = row.reason()
        if row.ended_at is None:
            core.events.run(core.end(row.id, "expired"))
    if decision.end is not None and row is not None:
        await core.end(row.id, decision.end)
        call.state["session_end_reason"] = decision.end
        call.replaceable = None
    if decision.then is Then.RESUME and row is not None:
        call.use(row, core.session(row))
        call.presented = secret
    elif decision.then is Then.SIGN_OUT:
        call.sign_out()
    elif decision.then is Then.FIND and person is not None:
        await _find(core, call, person, start=start)


async def _find(core: Core, call: Call, person: Person, *, start: bool) -> None:
    then, started, reason = await core.find_or_start(call.scope, person, start=start)
    if reason is not None:
        call.state["session_end_reason"] = reason
    if then is Then.SIGN_OUT:
        call.sign_out()
    elif started is not None:
        call.use(started.row, core.session(started.row))
        call.token = started.token


async def look_up(core: Core, tokens: Sequence[Token], *, sent: bool) -> Presented:
    """What verified tokens lead to: the first that is live, else the first.

    Args:
        sent: whether the browser sent any cookie of ours at all.
    """
    if not tokens:
        return Presented(Cookie.INVALID if sent else Cookie.NONE)
    rows = await core.store.by_sids([token.sid for token in tokens])
    now = core.settings.now()
    found: list[Presented] = []
    for token in tokens:
        row = rows.get(token.sid)
        if row is None:
            found.append(Presented(Cookie.DEAD))
            continue
        secret = digest(token.secret)
        cookie = row.cookie(row.check(secret, now), now, core.settings.lifetimes)
        found.append(Presented(cookie, row, secret))
    return next((one for one in found if one.cookie in _LIVE), found[0])
