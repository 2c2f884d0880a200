"""Decides whether a request has a session. No I/O, no clock; docs/decisions.md shows the tables.

A request is described in words: what its cookie leads to (`Cookie`), how the person of another
layer stands to that row (`Who`), and what was found for a person without a cookie (`Found`). Two
tables say what follows from them: which session to end, and what to do then.

Rule 1: everything that decides whether a request has a session stands in this file. Whether a row
is live, `Row.live` says, in Python, and `Clauses.live`, in SQL; whether a device has proved itself
lately, whoever binds sessions to devices.
Rule 2: a decision says what to end first and what to do then; how that is done, `resolve` knows.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import Enum
from typing import Literal, NamedTuple

from .lifetimes import Terms
from .person import Person
from .row import Row


class Word(Enum):
    """A word that the tables are looked up by."""

    __hash__ = object.__hash__  # of each there is one; Enum's own is slow


class Cookie(Word):
    """What the cookie of a request leads to."""

    NONE = "none"
    INVALID = "does not verify"
    LIVE_LOGIN = "live, origin login"
    LIVE_SCOPE = "live, origin scope"
    UNPROVEN = "live, bound to a device that has not proved itself"
    BRIDGE_LOGIN = "live, origin login, superseded secret within its grace"
    BRIDGE_SCOPE = "live, origin scope, superseded secret within its grace"
    WAITING = "live, waiting while its person acts for another"
    ORPHANED = "live, of somebody who acts for its person and whose own session has ended"
    LAPSED = "live, superseded secret whose successor was never seen, after 10 minutes"
    SUPERSEDED = "live, superseded secret past its grace"
    REVOKED = "ended as revoked, reuse or limit"
    DEAD = "ended otherwise, expired or unknown"


class Who(Word):
    """The person in scope beside the row of the cookie. Without a row everybody is the same."""

    NOBODY = "no person"
    SAME = "same person and app"
    SAME_SINCE = "same, authenticated since the end"
    OTHER = "another person"


class Found(Word):
    """What a person without a cookie leads to: the row their token names, or their device's."""

    LIVE = "live"
    REVOKED = "ended as revoked, reuse or limit"
    DEAD_CLAIM = "named by the token; ended otherwise or expired"
    DEAD = "the device's newest; ended otherwise or expired"
    NOTHING = "nothing"
    CUT_OFF = "of a person who is cut off; neither spared nor live and named by the token"


class Secret(Word):
    """What the secret of a cookie is worth."""

    CURRENT = "current"
    #: Of requests that were under way when the secret was replaced: the same session, but nothing
    #: that was proved since counts for them.
    BRIDGE = "superseded, within its grace"
    LAPSED = "superseded by one that was never seen, after 10 minutes"
    WAITING = "put aside, while the person acts for another"
    SUPERSEDED = "superseded, past its grace"


class Then(Enum):
    """What to do once that which has to end has ended."""

    NO_SESSION = "no session"
    RESUME = "resume"
    BRIDGE = "resume as if nothing had been proved"
    FIND = "find or start"
    START = "start"
    SIGN_OUT = "signed out"


#: Why a session has ended; an app may have words of its own besides.
EndReason = Literal[
    "logout",  # the person has left
    "revoked",  # somebody has ended it: the person elsewhere, the app, an operator
    "replaced",  # by another login in the same browser
    "person_changed",  # another layer vouched for somebody else
    "limit",  # one login too many
    "expired",  # its time was up
    "reuse",  # of a superseded secret: a theft
    "not_delivered",  # the answer to the login could not be sent
    "actor_left",  # whoever acted for the person has stopped, or their own session has ended
]


class Decision(NamedTuple):
    """End the session for this reason, if one is given; then go on."""

    end: EndReason | None
    then: Then


#: Reasons after which only a new authentication lets a person in again.
REVOKING: frozenset[EndReason] = frozenset({"revoked", "reuse", "limit"})

#: How long a superseded secret stays good once its successor has been seen, for requests that were
#: under way. One that comes later shows that two parties hold the cookie. (`_dbsc.binding.GRACE` is
#: another one: how long a session that was just bound may come without a proof.)
GRACE = timedelta(seconds=60)
#: How long it stays good while its successor has not been seen, because the answer may have been
#: lost. Later it is good for nothing, and ends nothing: nobody else has shown up.
UNSEEN_GRACE = timedelta(minutes=10)

_NO_SESSION = Decision(None, Then.NO_SESSION)
RESUME = Decision(None, Then.RESUME)
_BRIDGE = Decision(None, Then.BRIDGE)
_FIND = Decision(None, Then.FIND)
_START = Decision(None, Then.START)
_SIGN_OUT = Decision(None, Then.SIGN_OUT)

BY_COOKIE: dict[Cookie, dict[Who, Decision]] = {
    Cookie.NONE: {Who.NOBODY: _NO_SESSION, Who.SAME: _FIND},
    Cookie.INVALID: {Who.NOBODY: _NO_SESSION, Who.SAME: _FIND},
    Cookie.LIVE_LOGIN: {
        Who.NOBODY: RESUME,
        Who.SAME: RESUME,
        Who.OTHER: Decision("person_changed", Then.FIND),
    },
    Cookie.LIVE_SCOPE: {
        # Whoever vouched for the person does so no longer.
        Who.NOBODY: _NO_SESSION,
        Who.SAME: RESUME,
        Who.OTHER: Decision("person_changed", Then.FIND),
    },
    Cookie.UNPROVEN: {
        # The browser may prove itself yet; whoever has merely copied its cookie cannot.
        Who.NOBODY: _NO_SESSION,
        Who.SAME: _SIGN_OUT,
        Who.OTHER: Decision("person_changed", Then.FIND),
    },
    Cookie.BRIDGE_LOGIN: {
        Who.NOBODY: _BRIDGE,
        Who.SAME: _BRIDGE,
        Who.OTHER: Decision("person_changed", Then.FIND),
    },
    Cookie.BRIDGE_SCOPE: {
        Who.NOBODY: _NO_SESSION,
        Who.SAME: _BRIDGE,
        Who.OTHER: Decision("person_changed", Then.FIND),
    },
    # As if the cookie had not come, for as long as that lasts: requests that were under way, or a
    # browser that the answer has not reached.
    Cookie.WAITING: {Who.NOBODY: _NO_SESSION, Who.SAME: _FIND, Who.OTHER: _FIND},
    Cookie.ORPHANED: {
        Who.NOBODY: Decision("actor_left", Then.NO_SESSION),
        Who.SAME: Decision("actor_left", Then.FIND),
        Who.OTHER: Decision("actor_left", Then.FIND),
    },
    # As if the cookie had not come.
    Cookie.LAPSED: {Who.NOBODY: _NO_SESSION, Who.SAME: _FIND, Who.OTHER: _FIND},
    Cookie.SUPERSEDED: {
        Who.NOBODY: Decision("reuse", Then.NO_SESSION),
        Who.SAME: Decision("reuse", Then.SIGN_OUT),
        Who.OTHER: Decision("reuse", Then.FIND),
    },
    Cookie.REVOKED: {
        Who.NOBODY: _NO_SESSION,
        Who.SAME: _SIGN_OUT,
        Who.SAME_SINCE: _FIND,
        Who.OTHER: _FIND,
    },
    Cookie.DEAD: {
        Who.NOBODY: _NO_SESSION,
        Who.SAME: _FIND,
        Who.SAME_SINCE: _FIND,
        Who.OTHER: _FIND,
    },
}

BY_FINDING: dict[Found, dict[Who, Decision]] = {
    Found.LIVE: {Who.SAME: RESUME},
    Found.REVOKED: {Who.SAME: _SIGN_OUT, Who.SAME_SINCE: _START},
    # A token that names its session lives and dies with it.
    Found.DEAD_CLAIM: {Who.SAME: _SIGN_OUT, Who.SAME_SINCE: _START},
    Found.DEAD: {Who.SAME: _START, Who.SAME_SINCE: _START},
    Found.NOTHING: {Who.SAME: _START},
    # On every device, whatever has become of its row.
    Found.CUT_OFF: {Who.SAME: _SIGN_OUT, Who.SAME_SINCE: _SIGN_OUT},
}


_OF_LOGINS = {
    Secret.CURRENT: Cookie.LIVE_LOGIN,
    Secret.BRIDGE: Cookie.BRIDGE_LOGIN,
    Secret.LAPSED: Cookie.LAPSED,
    Secret.WAITING: Cookie.WAITING,
    Secret.SUPERSEDED: Cookie.SUPERSEDED,
}
_OF_SCOPE = {
    **_OF_LOGINS,
    Secret.CURRENT: Cookie.LIVE_SCOPE,
    Secret.BRIDGE: Cookie.BRIDGE_SCOPE,
}


def cookie_of(
    row: Row, digest: bytes, now: datetime, terms: Terms, actor: Row | None = None
) -> Cookie:
    """What a cookie leads to whose signature holds and whose sid is this row's.

    Args:
        row: as it was read.
        digest: the SHA-256 of the cookie's secret.
        now: the moment.
        terms: the lifetimes that hold now.
        actor: of a session in which somebody acts for its person, the row of their own.
    """
    if not row.live(now, terms):
        return Cookie.REVOKED if row.reason() in REVOKING else Cookie.DEAD
    if row.actor_sid is not None and not _acts(actor, row, now, terms):
        return Cookie.ORPHANED
    kinds = _OF_LOGINS if row.origin == "login" else _OF_SCOPE
    return kinds[worth_of(row, digest, now)]


def _acts(actor: Row | None, row: Row, now: datetime, terms: Terms) -> bool:
    """Whether the session of whoever acts for a person lives, and waits for this very row."""
    return (
        actor is not None
        and actor.id == row.actor_sid
        and actor.live(now, terms)
        and actor.waits_for == row.id
    )


#: How long ago somebody may have proved who they are to act for another person.
FRESH_FOR = timedelta(minutes=15)

#: Why somebody may not act for another person.
WhyNot = Literal[
    "no_session",  # nobody is logged in, or not any more
    "not_a_login",  # another layer vouches for them, or they have come without a cookie of ours
    "not_fresh",  # they have proved who they are longer than 15 minutes ago
    "acting",  # they act for somebody already
    "self",  # they are that person
]


def may_not_act(
    row: Row, proof: datetime | None, whom: Person, now: datetime, *, vouched_for: bool
) -> WhyNot | None:
    """Why the person of a session may not act for another one; None if they may, as far as that can
    be told here: their rights, only the app knows.

    Args:
        row: of their session.
        proof: when they last proved who they are, as far as this request may say so.
        whom: the person for whom they want to act.
        now: the moment.
        vouched_for: whether another layer vouches for somebody in this request.
    """
    if row.actor_sid is not None:
        return "acting"
    if row.origin != "login" or row.bearer or vouched_for:
        return "not_a_login"
    if (row.person_id, row.app_id) == (whom.id, whom.app_id):
        return "self"
    return None if is_fresh(proof, now, FRESH_FOR) else "not_fresh"


def worth_of(row: Row, digest: bytes, now: datetime) -> Secret:
    """What a secret is worth. The signature of its cookie held, so it was issued here: what is
    neither the current one nor the one before is old.

    Args:
        row: the row of the cookie's sid.
        digest: the SHA-256 of the secret.
        now: the moment.
    """
    if hmac.compare_digest(digest, row.secret_hash):
        return Secret.CURRENT
    if row.waits_for is not None:
        return Secret.WAITING
    previous = row.previous_secret_hash
    if previous is None or not hmac.compare_digest(digest, previous):
        return Secret.SUPERSEDED
    if row.secret_seen_at is not None:
        return Secret.BRIDGE if now <= row.secret_seen_at + GRACE else Secret.SUPERSEDED
    if row.renewed_at is not None and now <= row.renewed_at + UNSEEN_GRACE:
        return Secret.BRIDGE
    return Secret.LAPSED


def who_is(
    person: Person | None,
    row: Row,
    now: datetime,
    terms: Terms,
    readmitted_at: datetime | None = None,
) -> Who:
    """How the person of another layer stands to the row of a cookie, or to one that was found.

    Args:
        person: whom another layer vouches for, if it does.
        row: as it was read.
        now: the moment.
        terms: the lifetimes that hold now.
        readmitted_at: when they were last readmitted, which is as good as a proof of that moment.
    """
    if person is None:
        return Who.NOBODY
    if (row.person_id, row.app_id) != (person.id, person.app_id):
        return Who.OTHER
    proof = person.proof
    if proof is None or (readmitted_at is not None and readmitted_at > proof):
        proof = readmitted_at
    if proof is None or row.live(now, terms):
        return Who.SAME
    end = row.ended_at or row.deadline(terms)
    return Who.SAME_SINCE if proof > end else Who.SAME


def found_as(row: Row | None, now: datetime, terms: Terms, *, claimed: bool) -> Found:
    """What a person without a cookie leads to.

    Args:
        row: the row that their token names, or that of their device; None if there is none.
        now: the moment.
        terms: the lifetimes that hold now.
        claimed: whether their token names it.
    """
    if row is None:
        return Found.NOTHING
    if row.live(now, terms):
        return Found.LIVE
    if row.reason() in REVOKING:
        return Found.REVOKED
    return Found.DEAD_CLAIM if claimed else Found.DEAD


class Cutoff(NamedTuple):
    """What is remembered when all sessions of a person are ended, longer than any of their rows.

    Attributes:
        person_id: whose.
        app_id: in which app; empty for all apps.
        cut_at: what was proved until then opens nothing; None if nothing was cut off.
        spared_sid: the session that goes on.
        proved_at: the latest proof that was dated ahead of the clock when it was seen.
        readmitted_at: what has ended until then, and what was cut off, counts no longer.
    """

    person_id: str
    app_id: str
    cut_at: datetime | None = None
    spared_sid: str | None = None
    proved_at: datetime | None = None
    readmitted_at: datetime | None = None

    def cut(self, beside: Iterable[Cutoff], now: datetime, spared_sid: str | None) -> Cutoff:
        """All sessions end now, but that one. The cut is later than any proof that was seen, so
        that a provider whose clock is ahead opens nothing.

        Args:
            beside: all cut-offs that the app knows of the person, this one too.
            now: the moment.
            spared_sid: the session that goes on.
        """
        beside = list(beside)
        readmitted = readmitted_at(beside)
        proofs = [one.proved_at for one in beside]
        cut_at = _latest(now, self.cut_at, readmitted and readmitted + _TICK, *proofs)
        return self._replace(cut_at=cut_at, spared_sid=spared_sid)

    def readmit(self, beside: Iterable[Cutoff], now: datetime) -> Cutoff:
        """The person may come in again with whatever another layer says of them."""
        return self._replace(readmitted_at=_latest(now, *(one.cut_at for one in beside)))

    def prove(self, proof: datetime) -> Cutoff:
        """A proof was seen that is dated ahead of the clock."""
        return self._replace(proved_at=_latest(proof, self.proved_at))


_TICK = timedelta(microseconds=1)


def _latest(*moments: datetime | None) -> datetime | None:
    return max((moment for moment in moments if moment is not None), default=None)


def readmitted_at(cutoffs: Iterable[Cutoff]) -> datetime | None:
    """When the person was last readmitted; None if never."""
    return _latest(*(one.readmitted_at for one in cutoffs))


def is_cut_off(cutoffs: Iterable[Cutoff], proof: datetime | None, sid: str | None) -> bool:
    """Whether a person comes in vain: with a proof from before all their sessions were ended.

    Args:
        cutoffs: those of the person in the app, and in all apps.
        proof: when the person last proved who they are; None if nobody has dated that.
        sid: the live session that was found for them; None for a new one.
    """
    cutoffs = list(cutoffs)
    readmitted = readmitted_at(cutoffs)
    return any(
        one.cut_at is not None
        and (proof is None or proof <= one.cut_at)
        and (readmitted is None or readmitted < one.cut_at)
        and (sid is None or sid != one.spared_sid)
        for one in cutoffs
    )


def vouches(row: Row) -> bool:
    """Whether a row of a person's shows that its device is theirs. One that was ended as somebody
    else's does not, and neither does one in which somebody acted for them.
    """
    return not was_thrown_out(row) and row.actor_id is None


def was_thrown_out(row: Row) -> bool:
    """Whether a row was ended as somebody else's."""
    return row.end_reason in ("revoked", "reuse")


def is_fresh(authenticated_at: datetime | None, now: datetime, max_age: timedelta) -> bool:
    """Whether a proof of identity is recent enough (ASVS 7.5.1). One in the future is not: the
    clock that dated it cannot be compared with ours.
    """
    return authenticated_at is not None and timedelta(0) <= now - authenticated_at <= max_age
