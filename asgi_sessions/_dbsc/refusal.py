"""Why a device is refused: told to the log, word by word, and to nobody outside."""

from __future__ import annotations

from typing import Literal

Reason = Literal[
    "another_session",
    "bad_signature",
    "bound_already",
    "cross_site",
    "ended",
    "expired_challenge",
    "key_in_refresh",
    "lost_race",
    "malformed",
    "no_cookie",
    "no_proof",
    "no_session",
    "not_bound",
    "too_long",
    "unknown_challenge",
    "used_challenge",
    "weak_key",
    "wrong_algorithm",
    "wrong_key",
    "wrong_type",
]


#: What a browser does by itself: it comes back after a pause, after a logout, after a new login.
ROUTINE = frozenset({"another_session", "ended", "expired_challenge"})


class Refusal(Exception):
    """A request of a device that is not granted.

    Attributes:
        reason: for the log.
    """

    def __init__(self, reason: Reason) -> None:
        self.reason: Reason = reason
        super().__init__(reason)
