"""One row as read: the session and what stays on the server. Pure."""

from __future__ import annotations

import hmac
from datetime import datetime, timedelta
from typing import NamedTuple

from ._decisions import REVOKING, Cookie, Found, Who
from ._lifetimes import Lifetimes
from ._person import Person
from ._session import Session

#: How long a superseded secret stays good once its successor has been seen: requests that were
#: under way. Later it means that two parties hold the cookie.
GRACE = timedelta(seconds=60)

_new = object.__new__
_set = object.__setattr__


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

    def __repr__(self) -> str:
        """Without the hashes: nothing of a secret reaches a log."""
        return f"Row(id={self.id!r}, person_id={self.person_id!r})"

    def session(self, lifetimes: Lifetimes) -> Session:
        """What the outside sees."""
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
                "authenticated_at": self[12],
                "expires_at": self[13],
                "ended_at": self[14],
                "end_reason": self[15],
                "remember": self[16],
                "acr": self[18],
                "amr": tuple(amr.split()) if (amr := self[19]) is not None else (),
                "bound": self[20] is not None,
            },
        )
        return session

    def deadline(self, lifetimes: Lifetimes) -> datetime:
        """When the session ends by itself if it is not used again."""
        return min(self.expires_at, self.last_seen_at + lifetimes.idle)

    def live(self, now: datetime, lifetimes: Lifetimes) -> bool:
        """The predicate of `Session.live`, and of `Store.live` in SQL."""
        return (
            self.ended_at is None
            and now < self.expires_at
            and now < self.last_seen_at + lifetimes.idle
        )

    def reason(self) -> str:
        """Why a row that is not live is not."""
        return self.end_reason or "expired"

    def _good(self, digest: bytes, now: datetime) -> bool:
        if hmac.compare_digest(digest, self.secret_hash):
            return True
        # The signature held, so we issued it: what is neither current nor in its grace is old.
        previous, seen = self.previous_secret_hash, self.secret_seen_at
        if previous is None or not hmac.compare_digest(digest, previous):
            return False
        return seen is None or now <= seen + GRACE

    def renewed_lately(self, presented: bytes | None, now: datetime) -> bool:
        """Whether this is the second click: the answer to the first may be on its way, and its
        secret must stay the one that counts.
        """
        return (
            presented is not None
            and presented == self.previous_secret_hash
            and self.secret_seen_at is None
            and self.authenticated_at is not None
            and now <= self.authenticated_at + GRACE
        )

    def cookie(self, digest: bytes, now: datetime, lifetimes: Lifetimes) -> Cookie:
        """The row of the decision table for a cookie that leads here, by its secret's digest."""
        if not self.live(now, lifetimes):
            return Cookie.REVOKED if self.reason() in REVOKING else Cookie.DEAD
        if not self._good(digest, now):
            return Cookie.SUPERSEDED
        return Cookie.LIVE_LOGIN if self.origin == "login" else Cookie.LIVE_SCOPE

    def found(self, now: datetime, lifetimes: Lifetimes, *, claimed: bool) -> Found:
        """The row of the second table for a row found without a cookie."""
        if self.live(now, lifetimes):
            return Found.LIVE
        if self.reason() in REVOKING:
            return Found.REVOKED
        return Found.DEAD_CLAIM if claimed else Found.DEAD

    def who(self, person: Person | None, now: datetime, lifetimes: Lifetimes) -> Who:
        """How the person in scope stands to this row."""
        if person is None:
            return Who.NOBODY
        if (self.person_id, self.app_id) != (person.id, person.app_id):
            return Who.OTHER
        if person.authenticated_at is None or self.live(now, lifetimes):
            return Who.SAME
        end = self.ended_at or self.deadline(lifetimes)
        return Who.SAME_SINCE if person.authenticated_at > end else Who.SAME
