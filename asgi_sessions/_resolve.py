"""From a request to its session: reads, asks the decision table, does as it says."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime

from starlette.types import Scope

from ._binding import Binding
from ._call import Call
from ._core import Core
from ._decisions import BY_COOKIE, RESUME, Cookie, Then, Who
from ._errors import SessionsError
from ._lifetimes import Lifetimes
from ._person import Person
from ._row import Row
from ._settings import Settings
from ._tokens import Token, digest

_LIVE = (Cookie.LIVE_LOGIN, Cookie.LIVE_SCOPE)


def resumes(
    settings: Settings,
    call: Call,
    person: Person | None,
    tokens: Sequence[Token],
    rows: Sequence[Row | None],
) -> bool:
    """Give the call the session of its one cookie, if it only has to be resumed: the way of nearly
    every request, in one step.
    """
    row = rows[0] if len(rows) == 1 else None
    if row is None or row.binding is not None:  # a bound one takes a closer look
        return False
    now, lifetimes, secret = settings.now(), settings.lifetimes, digest(tokens[0].secret)
    cookie = row.cookie(secret, now, lifetimes)
    if BY_COOKIE[cookie][row.who(person, now, lifetimes)] is not RESUME:
        return False
    call.use(row, row.session(lifetimes))
    call.presented, call.now = secret, now
    return True


async def resolve(
    core: Core,
    scope: Scope,
    call: Call,
    tokens: Sequence[Token],
    rows: Sequence[Row | None],
    *,
    binding: Binding | None,
    person: Person | None,
    sent: bool,
    start: bool,
) -> None:
    """Give the call its session, if it has one.

    Args:
        scope: of the call.
        tokens: what the cookies say whose signature holds.
        rows: theirs, None where there is none.
        binding: what binds sessions to devices, if anything does.
        person: whom another layer vouches for, as `Core.identify` spells them.
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
        call.brought = rows
        cookie, row, secret = _judge(tokens, rows, now, settings.lifetimes)
        if row is not None:
            if cookie in _LIVE and not _proven(binding, scope, call, row, now):
                cookie = Cookie.UNPROVEN
            who = row.who(person, now, settings.lifetimes)
    decision = BY_COOKIE[cookie][who]
    if row is not None:
        if decision is RESUME:
            call.use(row, row.session(settings.lifetimes))
            call.presented, call.now = secret, now
            return
        await _settle(core, call, cookie, row, decision.end)
    if decision.then is Then.SIGN_OUT:
        call.sign_out(scope)
    elif decision.then is Then.FIND and person is not None:
        await _find(core, scope, call, person, start=start)


async def _settle(core: Core, call: Call, cookie: Cookie, row: Row, end: str | None) -> None:
    """Put down what becomes of a row that is not resumed."""
    if end is not None:
        await core.end(row.id, end)
        call.state["session_end_reason"] = end
    elif cookie is Cookie.LIVE_SCOPE:
        call.kept = row.id
    elif cookie is Cookie.UNPROVEN:
        call.kept = row.id  # a login over it, or a logout, ends it: that opens nothing to anybody
        call.state["session_end_reason"] = "not_bound"
    else:
        call.state["session_end_reason"] = row.reason()
        if row.ended_at is None:
            with suppress(SessionsError):  # it is written down another time
                await core.end(row.id, "expired")


async def _find(core: Core, scope: Scope, call: Call, person: Person, *, start: bool) -> None:
    then, started, reason = await core.find_or_start(
        scope, person, start=start, known=call.knows(person)
    )
    if reason is not None:
        call.state["session_end_reason"] = reason
    if then is Then.SIGN_OUT:
        call.sign_out(scope)
    elif started is not None:
        call.use(started.row, started.session)
        call.give(started.token)
        call.now = core.settings.now()


def _judge(
    tokens: Sequence[Token], rows: Sequence[Row | None], now: datetime, lifetimes: Lifetimes
) -> tuple[Cookie, Row | None, bytes | None]:
    """What verified tokens lead to: the first that is live, else the first."""
    found: list[tuple[Cookie, Row | None, bytes | None]] = []
    for token, row in zip(tokens, rows, strict=True):
        if row is None:
            found.append((Cookie.DEAD, None, None))
            continue
        secret = digest(token.secret)
        cookie = row.cookie(secret, now, lifetimes)
        if cookie in _LIVE:
            return cookie, row, secret
        found.append((cookie, row, secret))
    return found[0]


def _proven(binding: Binding | None, scope: Scope, call: Call, row: Row, now: datetime) -> bool:
    """Whether the device of a session has proved itself, if it is bound to one. Where nobody can
    tell, because the option `dbsc` was dropped, it has not.
    """
    return row.binding is None or (binding is not None and binding.holds(scope, call, row, now))
