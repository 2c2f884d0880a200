"""What happens to a request, as data. No I/O, no clock; docs/decisions.md shows these tables.

Rule 1: everything that decides whether a request has a session stands in this file.
Rule 2: a decision says what to end first and what to do then; how is the middleware's affair.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple


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


class Then(Enum):
    """What to do once that which has to end has ended."""

    NO_SESSION = "no session"
    RESUME = "resume"
    FIND = "find or start"
    START = "start"
    SIGN_OUT = "signed out"


class Decision(NamedTuple):
    """End the session for this reason, if one is given; then go on."""

    end: str | None
    then: Then


#: Reasons after which only a new authentication lets a person in again.
REVOKING = frozenset({"revoked", "reuse", "limit"})

_NO_SESSION = Decision(None, Then.NO_SESSION)
RESUME = Decision(None, Then.RESUME)
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
}
