"""One row as read: the session and what stays on the server; and whether it is live. Pure."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple
from uuid import UUID

from .lifetimes import Terms, own_lifetimes
from .session import Session

_new = object.__new__
_set = object.__setattr__

#: Bytes at the head of `Row.binding`: since when the device's proof is needed, in microseconds
#: since 1970; zeros as long as the browser has not shown that it has what it takes.
ENFORCED = 8
_NOT_YET = bytes(ENFORCED)


def enforced_at(binding: bytes | None) -> int:
    """Since when a session needs its device's proof, in microseconds since 1970; 0 if it needs
    none: it is not bound, or its browser may not know yet that it is.
    """
    return 0 if binding is None else int.from_bytes(binding[:ENFORCED], "big")


#: What stands in place of a secret's digest before the sid of the session that its own waits for.
#: No secret has a digest that begins so: it would take 2**128 attempts to find one.
_WAITING = bytes(16)


def waiting_for(sid: str) -> bytes:
    """What a row has in place of the digest of its secret while whoever it belongs to acts for
    somebody in the session of that sid: no cookie opens it meanwhile.
    """
    return _WAITING + UUID(sid).bytes


class Row(NamedTuple):
    """The columns that are read, in the order in which they are selected; and the data of the
    session, if the look-up has asked for them and there are any: the text of a JSON object.
    """

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
    bearer: bool
    idle_seconds: int | None
    actor_id: str | None
    actor_sid: str | None
    actor_reason: str | None
    data: str | None

    def __repr__(self) -> str:
        """Without the hashes and the data: nothing of a secret reaches a log."""
        return f"Row(id={self.id!r}, person_id={self.person_id!r})"

    def session(self, terms: Terms, now: datetime) -> Session:
        """The `Session` that apps see. A proof that is dated after now counts as one of now."""
        if (idle := self[23]) is not None:
            lifetimes = own_lifetimes(idle)
        else:
            lifetimes = terms.persistent if self[16] else terms.browser
        authenticated_at, expires_at = self[12], self[13]
        if (sooner := self[10] + lifetimes.absolute) < expires_at:
            expires_at = sooner
        if authenticated_at is not None and authenticated_at > now:
            authenticated_at = now
        session = _new(Session)
        # Read by position, which is faster. A frozen dataclass sets its fields one by one, which
        # takes three times as long.
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
                "bearer": self[22],
                "actor_id": self[24],
                "actor_reason": self[26],
            },
        )
        return session

    @property
    def waits_for(self) -> str | None:
        """The sid of the session in which its person acts for another; None in nearly all."""
        if not self.secret_hash.startswith(_WAITING):
            return None
        return str(UUID(bytes=self.secret_hash[len(_WAITING) :]))

    def deadline(self, terms: Terms) -> datetime:
        """When the session ends by itself if it is not used again."""
        lifetimes = terms.of(remember=self.remember, idle_seconds=self.idle_seconds)
        return min(
            self.expires_at,
            lifetimes.expires_at(self.started_at),
            self.last_seen_at + lifetimes.idle,
        )

    def live(self, now: datetime, terms: Terms) -> bool:
        """The predicate of `Session.live`, and of `Clauses.live` in SQL."""
        if (idle := self.idle_seconds) is not None:
            lifetimes = own_lifetimes(idle)
        else:
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


#: The fields that are columns of the table of sessions, which is all but the data.
COLUMNS = Row._fields[:-1]
