"""What a logout token says (OpenID Connect Back-Channel Logout 1.0, 2.4 and 2.6). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asgi_sessions._service.provider import Named

from .refusal import Refusal
from .verifying import text_of

#: The type of a logout token, which older providers do not give.
TYPES = (None, "jwt", "logout+jwt")
EVENT = "http://schemas.openid.net/event/backchannel-logout"


def named_by(claims: Mapping[str, Any]) -> Named:
    """Whom a token logs out: the one session that it names, or else all of the person.

    Args:
        claims: of a token that is known to come from the provider.

    Raises:
        Refusal: if it is no logout token.
    """
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise Refusal("no logout token")
    if "nonce" in claims:  # that of an ID token
        raise Refusal("no logout token: it has a nonce")
    if "exp" not in claims:
        raise Refusal("without an end of its own")
    sid, subject = text_of(claims, "sid"), text_of(claims, "sub")
    if ("sid" in claims and sid is None) or ("sub" in claims and subject is None):
        raise Refusal("a sid or a sub that is no text")
    if sid is not None:
        return Named("session", sid)
    if subject is not None:
        return Named("subject", subject)
    raise Refusal("neither sid nor sub")
