"""A session as a value: the row without its secrets."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from .device_name import device_name

Origin = Literal["login", "scope"]


@dataclass(frozen=True, kw_only=True)
class Session:
    """One person, one app, one device, from a start to an end. All times are aware UTC.

    Attributes:
        id: the sid: public, shown in lists, logged, put in URLs. Knowing it gives no access.
        origin: ``login`` when the app started it, ``scope`` when the middleware did for a
            person whom another layer had authenticated.
        user_agent: the User-Agent header when it started, at most 500 characters.
        ip_address: the client's address when it started, as `store_ip` allows.
        last_seen_at: when it was last used, exact to `touch_interval`.
        idle_expires_at: when it ends unless it is used before.
        authenticated_at: when the person last proved who they are; None if nobody said.
        expires_at: when it ends, however busy.
        ended_at: when it was ended; None while nobody ended it.
        end_reason: ``logout``, ``revoked``, ``replaced``, ``person_changed``, ``limit``,
            ``expired``, ``reuse``, ``not_delivered``, ``actor_left`` or the app's own word.
        remember: whether the cookie outlives the browser.
        acr: how well the person was authenticated, in the words of who did it (OpenID Connect).
        amr: the methods that were used, such as ``pwd`` and ``otp`` (RFC 8176).
        bound: whether it is bound to its device, so that a copied cookie opens nothing.
        bearer: whether its client sends a token in place of the cookie.
        actor_id: who acts for the person in it; None in nearly all, in which they act themselves.
        actor_reason: why somebody does.
    """

    id: str
    person_id: str
    app_id: str
    auth_provider: str | None
    origin: Origin
    user_agent: str | None
    ip_address: str | None
    started_at: datetime
    last_seen_at: datetime
    idle_expires_at: datetime
    authenticated_at: datetime | None
    expires_at: datetime
    ended_at: datetime | None
    end_reason: str | None
    remember: bool
    acr: str | None = None
    amr: tuple[str, ...] = ()
    bound: bool = False
    bearer: bool = False
    actor_id: str | None = None
    actor_reason: str | None = None

    @property
    def sid(self) -> str:
        """The same as `id`."""
        return self.id

    @property
    def device(self) -> str:
        """The device's name for people, such as "Chrome on Windows". Escape it in HTML."""
        return device_name(self.user_agent)

    def live(self, now: datetime) -> bool:
        """Not ended, not expired and not idle too long at `now` (an aware datetime)."""
        return self.ended_at is None and now < self.expires_at and now < self.idle_expires_at
