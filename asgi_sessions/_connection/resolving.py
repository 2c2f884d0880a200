"""Resolves a request to its session: looks the rows up and does what the decision tables say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime

from starlette.types import Scope

from asgi_sessions._errors import SessionsError
from asgi_sessions._model.decisions import (
    BY_COOKIE,
    RESUME,
    Cookie,
    EndReason,
    Then,
    Who,
    cookie_of,
    who_is,
)
from asgi_sessions._model.device import device_from_scope
from asgi_sessions._model.lifetimes import Terms
from asgi_sessions._model.person import Person
from asgi_sessions._model.row import Row, enforced_at
from asgi_sessions._model.tokens import Presented
from asgi_sessions._service.core import Core, unproved
from asgi_sessions._service.options import Settings
from asgi_sessions._store.data import Owner

from .binding import Binding
from .context import RequestContext
from .marking import mark, marked_at

_LIVE = (Cookie.LIVE_LOGIN, Cookie.LIVE_SCOPE)
_BRIDGES = (Cookie.BRIDGE_LOGIN, Cookie.BRIDGE_SCOPE)


def resumes(
    settings: Settings,
    context: RequestContext,
    person: Person | None,
    tokens: Sequence[Presented],
    rows: Sequence[Row | None],
) -> bool:
    """Give the request the session of its one cookie, if it only has to be resumed: the way of
    nearly every request, in one step.
    """
    row = rows[0] if len(rows) == 1 else None
    if row is None or row.binding is not None:  # a bound one takes a closer look
        return False
    now, terms, secret = settings.now(), settings.terms, tokens[0].digest
    cookie = cookie_of(row, secret, now, terms)
    if BY_COOKIE[cookie][who_is(person, row, now, terms)] is not RESUME:
        return False
    if person is not None and (proof := person.proof) is not None and proof > now:
        return False  # one that is dated ahead of the clock is written down first
    context.use(row, row.session(terms, now))
    context.presented, context.now = secret, now
    return True


async def resolve(
    core: Core,
    scope: Scope,
    context: RequestContext,
    tokens: Sequence[Presented],
    rows: Sequence[Row | None],
    *,
    binding: Binding | None,
    person: Person | None,
    sent: bool,
    start: bool,
) -> bool:
    """Give the request its session, if it has one.

    Args:
        scope: of the request.
        tokens: what the cookies say whose signature holds.
        rows: theirs, None where there is none.
        binding: what binds sessions to devices, if anything does.
        person: whom another layer vouches for, as `identify` spells them.
        sent: whether the browser sent any cookie of ours at all.
        start: whether a session may be started for that person.

    Returns:
        Whether the person whom another layer vouches for may stay: False signs them out.

    Raises:
        SessionsUnavailable: if the database does not answer.
    """
    settings = core.settings
    now = settings.now()
    await core.note_proof(person)
    who = Who.NOBODY if person is None else Who.SAME
    cookie, row, secret = Cookie.INVALID if sent else Cookie.NONE, None, None
    if tokens:
        context.private = True  # whatever becomes of it, the answer depends on the cookie
        context.brought = rows
        actors = await _actors(core, rows)
        cookie, row, secret = _judge(tokens, rows, actors, now, settings.terms)
        if row is not None:
            bound = actors.get(row.id) or row  # whoever acts does so from their own device
            if bound.binding is not None and cookie in (*_LIVE, *_BRIDGES):
                proven = await _proven(binding, scope, context, bound, now)
                cookie = Cookie.UNPROVEN if proven is None else cookie
                row = proven if proven is not None and bound is row else row
            who = who_is(person, row, now, settings.terms)
            if person is not None and cookie is Cookie.REVOKED and who is Who.SAME:
                readmitted_at = await core.readmitted_at(person)
                who = who_is(person, row, now, settings.terms, readmitted_at)
    decision = BY_COOKIE[cookie][who]
    if row is not None:
        if decision.then in (Then.RESUME, Then.BRIDGE):
            session = row.session(settings.terms, now)
            context.bridge = decision.then is Then.BRIDGE
            context.use(row, unproved(session) if context.bridge else session)
            context.presented, context.now = secret, now
            return True
        await _settle(core, context, cookie, row, decision.end)
    if decision.then is Then.FIND and person is not None:
        return await _find(core, scope, context, person, start=start)
    return decision.then is not Then.SIGN_OUT


async def _settle(
    core: Core, context: RequestContext, cookie: Cookie, row: Row, end: EndReason | None
) -> None:
    """Record the outcome for a session that is not resumed."""
    if end is not None:
        await core.end(row.id, end)
        context.explain(end)
    elif cookie in (Cookie.LIVE_SCOPE, Cookie.BRIDGE_SCOPE):
        context.kept = row.id
    elif cookie is Cookie.UNPROVEN:
        context.kept = (
            row.id
        )  # a login over it, or a logout, ends it: that opens nothing to anybody
        context.explain("not_bound")
    elif cookie is Cookie.WAITING:
        context.kept = row.id  # as above
        context.explain("waiting")
    elif cookie is Cookie.LAPSED:
        context.explain("superseded")
    else:
        context.explain(row.reason())
        if row.ended_at is None:
            with suppress(SessionsError):  # it is written down another time
                await core.end(row.id, "expired")


async def _find(
    core: Core, scope: Scope, context: RequestContext, person: Person, *, start: bool
) -> bool:
    visit = context.visits[0] if context.visits else None
    then, started, reason = await core.find_or_start(
        device_from_scope(scope),
        person,
        start=start,
        known=context.knows(person),
        marked_at=marked_at(core.settings, context, scope, person),
        source=None if visit is None else Owner(*visit),
    )
    if reason is not None:
        context.explain(reason)
    if started is not None:
        context.use(started.row, started.session)
        if not context.bearer:
            context.give(started.token)
            if started.token is not None:
                mark(core, context, scope, started.row)
        context.now = core.settings.now()
    return then is not Then.SIGN_OUT


def _judge(
    tokens: Sequence[Presented],
    rows: Sequence[Row | None],
    actors: Mapping[str, Row | None],
    now: datetime,
    terms: Terms,
) -> tuple[Cookie, Row | None, bytes | None]:
    """What verified cookies lead to: the first that is live, else a bridge, else the first."""
    found: list[tuple[Cookie, Row | None, bytes | None]] = []
    for token, row in zip(tokens, rows, strict=True):
        if row is None:
            found.append((Cookie.DEAD, None, None))
            continue
        actor = actors.get(row.id)
        found.append((cookie_of(row, token.digest, now, terms, actor), row, token.digest))
    # A bridge before what is dead; min gives the first of equals.
    return min(found, key=lambda one: (one[0] not in _LIVE, one[0] not in _BRIDGES))


async def _actors(core: Core, rows: Sequence[Row | None]) -> dict[str, Row | None]:
    """Of sessions in which somebody acts for their person, the rows of their own, by the sids of
    these. Nearly no session is such a one, so nobody else waits for this.
    """
    acting = [(row.id, row.actor_sid) for row in rows if row is not None]
    return {sid: await core.store.by_sid(own) for sid, own in acting if own is not None}


async def _proven(
    binding: Binding | None, scope: Scope, context: RequestContext, row: Row, now: datetime
) -> Row | None:
    """The row of a session with a device, if that has proved itself, or needs not. Where nobody
    can tell, because the option `dbsc` was dropped, it has not.
    """
    if binding is not None:
        return await binding.proven(scope, context, row, now)
    return None if enforced_at(row.binding) else row
