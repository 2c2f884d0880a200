"""Whether somebody may act for a person, and over into that session and back, by the one cookie."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

from asgi_sessions._errors import ConfigurationError, ImpersonationRefused
from asgi_sessions._model.changeset import checked
from asgi_sessions._model.decisions import FRESH_FOR, WhyNot, may_not_act
from asgi_sessions._model.device import device_from_scope
from asgi_sessions._model.row import Row
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import Token
from asgi_sessions._service import acting
from asgi_sessions._service.acting import Wish
from asgi_sessions._service.core import Core
from asgi_sessions._service.identity import identify
from asgi_sessions._service.options import Settings

from .context import Conn, RequestContext, scope_of

#: How long somebody may act for another person at most.
LONGEST = timedelta(hours=12)

_REFUSALS: dict[WhyNot | Literal["not_renewable"], str] = {
    "no_session": (
        "nobody is logged in here, or not any more: log in, and act for the person from that "
        "session"
    ),
    "not_a_login": (
        "one acts for somebody from a login of one's own, by start_session and its cookie: log in "
        "here first, where no other layer vouches for anybody"
    ),
    "not_fresh": (
        "whoever acts for somebody has to have proved who they are within the last "
        f"{FRESH_FOR.seconds // 60} minutes: let them log in again, or confirm and renew_session"
    ),
    "acting": "somebody acts for a person here already: call stop_impersonating first",
    "not_renewable": (
        "a session in which somebody acts for its person is not renewed: nobody has proved to be "
        "that person, and how long it lasts was said when it began"
    ),
    "self": "nobody acts for themselves: this is a session of that person's",
}


def wish(
    settings: Settings,
    context: RequestContext,
    person: object,
    reason: object,
    lifetime: object,
) -> Wish:
    """What somebody wants who wants to act for a person, once it is certain that they may, as far
    as that can be told here.

    Raises:
        ConfigurationError: if the person has no id, or the lifetime cannot be one.
        ImpersonationRefused: if they may not.
        InvalidSession: if the reason or the id cannot be stored.
    """
    if not isinstance(lifetime, timedelta) or not timedelta(0) < lifetime <= LONGEST:
        raise ConfigurationError(
            f"impersonate(lifetime={lifetime!r}): use a timedelta of more than 0 and at most 12 "
            "hours"
        )
    why = checked(actor_reason="" if reason is None else reason)["actor_reason"]
    whom, row, session = identify(person, settings), context.row, context.session
    if row is None or session is None:
        raise refusal("no_session")
    # One that this very request has begun is not with the browser yet.
    vouched_for = context.person is not None or context.undelivered is not None
    refused = may_not_act(
        row, session.authenticated_at, whom, settings.now(), vouched_for=vouched_for
    )
    if refused is not None:
        raise refusal(refused)
    return Wish(row, context.presented, whom, why, lifetime)


def refusal(reason: WhyNot | Literal["not_renewable"]) -> ImpersonationRefused:
    """The error that says why not, and what to do."""
    return ImpersonationRefused(reason, _REFUSALS[reason])


def refuse_inside(context: RequestContext, reason: Literal["acting", "not_renewable"]) -> None:
    """Refuse what is not for a session in which somebody acts for its person.

    Raises:
        ImpersonationRefused: in such a one.
    """
    if context.row is not None and context.row.actor_sid is not None:
        raise refusal(reason)


async def begin(core: Core, conn: Conn, context: RequestContext, asked: Wish) -> Session:
    """Go over into a session of the person.

    Raises:
        ImpersonationRefused: if one's own has ended meanwhile, or another request was faster.
    """
    device = device_from_scope(scope_of(conn))
    begun = await acting.begin(core, asked, device, context.announce)
    if begun is None:
        context.drop()
        raise refusal("no_session")
    if context.data is not None:
        context.data.go_over(scope_of(conn), begun[0])
    return _use(core, context, *begun)


async def go_back(core: Core, conn: Conn, context: RequestContext) -> Session | None:
    """Go back into one's own session; None without one to go back from, or to."""
    row = context.row
    if row is None or row.actor_sid is None:
        return None
    went = await acting.go_back(core, row)
    if went is None:
        context.drop()
        return None
    own, token = went
    context.announce(own.id)
    if context.data is not None:
        # The row as a look-up reads it has the data beside it.
        context.data.go_over(scope_of(conn), await core.store.by_sid(own.id) or own)
    return _use(core, context, own, token)


def _use(core: Core, context: RequestContext, row: Row, token: Token) -> Session:
    session = core.session(row)
    context.bridge, context.presented = False, None
    context.use(row, session)
    context.give(token)
    return session
