"""What a security event token says (RFC 8417; Shared Signals, CAEP and RISC 1.0). Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from asgi_sessions._service.events import SignalKind
from asgi_sessions._service.provider import Named

from .refusal import Refusal
from .verifying import text_of

#: The type of such a token; no other token can be taken for one.
TYPES = ("secevent+jwt",)

_CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
_RISC = "https://schemas.openid.net/secevent/risc/event-type/"

#: Events that end what they name.
ENDING = frozenset(
    {
        f"{_CAEP}session-revoked",
        f"{_CAEP}credential-change",
        f"{_RISC}account-disabled",
        f"{_RISC}account-purged",
    }
)
#: Those that the app is told of.
TOLD: Mapping[str, SignalKind] = {
    f"{_CAEP}token-claims-change": "claims_changed",
    f"{_CAEP}assurance-level-change": "assurance_changed",
}


class Signal(NamedTuple):
    """One event of a token that says something of somebody here.

    Attributes:
        named: whom it is about.
        tells: what the app is told; None for an end.
        event: as it came.
    """

    named: Named
    tells: SignalKind | None
    event: Mapping[str, Any]


def signals_of(claims: Mapping[str, Any]) -> list[Signal]:
    """The events of a token that mean something here; none for others, such as a verification.

    Args:
        claims: of a token that is known to come from the transmitter.

    Raises:
        Refusal: if it is no security event token.
    """
    events = claims.get("events")
    if not isinstance(events, dict) or not events:
        raise Refusal("no security event token")
    if not all(isinstance(event, dict) for event in events.values()):
        raise Refusal("an event that is no object")
    issuer = str(claims.get("iss"))
    return [
        Signal(named, TOLD.get(kind), event)
        for kind, event in events.items()
        if kind in ENDING or kind in TOLD
        # Before the standard was final, the subject stood in the event.
        for named in _named(claims.get("sub_id", event.get("subject")), issuer)
    ]


def _named(subject: object, issuer: str) -> Iterator[Named]:
    """Whom a subject means (RFC 9493); nobody, if it is in the words of somebody else, or names
    people by what they may share or give up, such as an address.
    """
    if not isinstance(subject, dict):
        return
    kind = subject.get("format", subject.get("subject_type"))
    if kind == "iss_sub":
        value = text_of(subject, "sub")
        if subject.get("iss") == issuer and value is not None:
            yield Named("subject", value)
    elif kind == "opaque":
        # Either a person or a session: the transmitter does not say which.
        if (value := text_of(subject, "id")) is not None:
            yield Named("subject", value)
            yield Named("session", value)
    elif kind == "complex":
        yield from _narrowest(subject, issuer)


def _narrowest(subject: Mapping[str, Any], issuer: str) -> Iterator[Named]:
    """Of a subject with several parts, all of which have to hold: the session, or else the person,
    with all sessions, since nobody here knows the transmitter's name for a device or a tenant.
    """
    if "session" in subject:
        part, kind = subject["session"], "session"
    else:
        part, kind = subject.get("user"), "subject"
    if not isinstance(part, dict):
        return
    if part.get("format") == "opaque":
        yield from (one for one in _named(part, issuer) if one.kind == kind)
    elif part.get("format") == "iss_sub" and kind == "subject":
        yield from _named(part, issuer)
