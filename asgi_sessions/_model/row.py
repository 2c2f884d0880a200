"""One row as read: the session and what stays on the server. Pure."""

from __future__ import annotations

import hmac
from datetime import datetime
from typing import NamedTuple

from .decisions import REVOKING, Cookie, Found, Secret, Who, worth_of_superseded
from .lifetimes import Terms
from .person import Person
from .session import Session

_new = object.__new__
_set = object.__setattr__

#: Bytes at the head of `Row.binding`: since when the device's proof is needed, in microseconds
#: since 1970; zeros as long as the browser has not shown that it has what it takes.
ENFORCED = 8
_NOT_YET = bytes(ENFORCED)

_OF_LOGINS = {
    Secret.CURRENT: Cookie.LIVE_LOGIN,
    Secret.BRIDGE: Cookie.BRIDGE_LOGIN,
    Secret.LAPSED: Cookie.LAPSED,
    Secret.SUPERSEDED: Cookie.SUPERSEDED,
}
_OF_SCOPE = {
    **_OF_LOGINS,
    Secret.CURRENT: Cookie.LIVE_SCOPE,
    Secret.BRIDGE: Cookie.BRIDGE_SCOPE,
}


def enforced_at(binding: bytes | None) -> int:
    """Since when a session needs its device's proof, in microseconds since 1970; 0 if it needs
    none: it is not bound, or its browser may not know yet that it is.
    """
    return 0 if binding is None else int.from_bytes(binding[:ENFORCED], "big")


class Row(NamedTuple):
    """The columns that are read, in the order in which they are selected."""

    id: str
    person_id: str
    app_id: str
    auth_provider: str | None
    origin: str
    user_agent: str | None
    ip_address: str | None
    secret_hash: bytes
    previous_secret_hash: bytes | None
    secret_seen_at: datetime | None
    started_at: datetime
    last_seen_at: datetime
    authenticated_at: datetime | None
    expires_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    remember: bool
    live_device_key: bytes | None
    acr: str | None
    amr: str | None
    binding: bytes | None
    renewed_at: datetime | None

    def __repr__(self) -> str:
        """Without the hashes: nothing of a secret reaches a log."""
        return f"Row(id={self.id!r}, person_id={self.person_id!r})"

    def session(self, terms: Terms, now: datetime) -> Session:
        """What the outside sees. A proof that is dated later than now counts as one of now."""
        lifetimes = terms.persistent if self[16] else terms.browser
        authenticated_at, expires_at = self[12], self[13]
        if (sooner := self[10] + lifetimes.absolute) < expires_at:
            expires_at = sooner
        if authenticated_at is not None and authenticated_at > now:
            authenticated_at = now
        session = _new(Session)
        # A frozen dataclass sets its fields one by one, which takes three times as long.
        _set(
            session,
            "__dict__",
            {
                "id": self[0],
                "person_id": self[1],
                "app_id": self[2],
                "auth_provider": self[3],
                "origin": self[4],
                "user_agent": self[5],
                "ip_address": self[6],
                "started_at": self[10],
                "last_seen_at": self[11],
                "idle_expires_at": self[11] + lifetimes.idle,
                "authenticated_at": authenticated_at,
                "expires_at": expires_at,
                "ended_at": self[14],
                "end_reason": self[15],
                "remember": self[16],
                "acr": self[18],
                "amr": tuple(amr.split()) if (amr := self[19]) is not None else (),
                "bound": (binding := self[20]) is not None and binding[:ENFORCED] != _NOT_YET,
            },
        )
        return session

    def deadline(self, terms: Terms) -> datetime:
        """When the session ends by itself if it is not used again."""
        lifetimes = terms.of(remember=self.remember)
        return min(
            self.expires_at,
            lifetimes.expires_at(self.started_at),
            self.last_seen_at + lifetimes.idle,
        )

    def live(self, now: datetime, terms: Terms) -> bool:
        """The predicate of `Session.live`, and of `Clauses.live` in SQL."""
        lifetimes = terms.persistent if self.remember else terms.browser
        return (
            self.ended_at is None
            and now < self.expires_at
            and now - self.started_at < lifetimes.absolute
            and now - self.last_seen_at < lifetimes.idle
        )

    def reason(self) -> str:
        """Why a row that is not live is not."""
        return self.end_reason or "expired"

    def worth(self, digest: bytes, now: datetime) -> Secret:
        """What a secret is worth, by its digest. Its signature held, so it was issued here: what
        is neither the current one nor the one before is old.
        """
        if hmac.compare_digest(digest, self.secret_hash):
            return Secret.CURRENT
        previous = self.previous_secret_hash
        if previous is None or not hmac.compare_digest(digest, previous):
            return Secret.SUPERSEDED
        return worth_of_superseded(self.renewed_at, self.secret_seen_at, now)

    def cookie(self, digest: bytes, now: datetime, terms: Terms) -> Cookie:
        """The row of the decision table for a cookie that leads here, by its secret's digest."""
        if not self.live(now, terms):
            return Cookie.REVOKED if self.reason() in REVOKING else Cookie.DEAD
        kinds = _OF_LOGINS if self.origin == "login" else _OF_SCOPE
        return kinds[self.worth(digest, now)]

    def found(self, now: datetime, terms: Terms, *, claimed: bool) -> Found:
        """The row of the second table for a row found without a cookie."""
        if self.live(now, terms):
            return Found.LIVE
        if self.reason() in REVOKING:
            return Found.REVOKED
        return Found.DEAD_CLAIM if claimed else Found.DEAD

    def who(
        self,
        person: Person | None,
        now: datetime,
        terms: Terms,
        readmitted_at: datetime | None = None,
    ) -> Who:
        """How the person in scope stands to this row; to have been readmitted is as good as a
        proof of that moment.
        """
        if person is None:
            return Who.NOBODY
        if (self.person_id, self.app_id) != (person.id, person.app_id):
            return Who.OTHER
        proof = person.proof
        if proof is None or (readmitted_at is not None and readmitted_at > proof):
            proof = readmitted_at
        if proof is None or self.live(now, terms):
            return Who.SAME
        end = self.ended_at or self.deadline(terms)
        return Who.SAME_SINCE if proof > end else Who.SAME
