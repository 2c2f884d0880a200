"""The names under which it is remembered that a provider has ended something, beside the ids of
people, none of which can be one of these. Pure.
"""

from __future__ import annotations

import json
from hashlib import sha256
from typing import Literal

from .person import Person

Kind = Literal["subject", "session", "token"]

# A control character, which no id may hold.
_MARK = "\x1f"


def name_of(kind: Kind, issuer: str, value: str) -> str:
    """The name of what an issuer calls by a value: its person, their session, a token of its own.

    Args:
        kind: of what.
        issuer: whose words they are.
        value: its ``sub``, ``sid`` or ``jti``.
    """
    # What comes from outside has any length, and any characters.
    spelled = json.dumps([issuer, value]).encode()
    return f"{_MARK}{kind}:{sha256(spelled).hexdigest()}"


def names_of(person: Person) -> tuple[str, ...]:
    """The names of a person whom another layer vouches for, by the words of an issuer: none for
    nearly everybody. A ``sid`` that is not ours may be the issuer's: to compare it opens nothing.
    """
    if person.issuer is None:
        return ()
    named: tuple[tuple[Kind, str | None], ...] = (
        ("subject", person.subject),
        ("session", person.provider_sid or person.sid),
    )
    return tuple(name_of(kind, person.issuer, value) for kind, value in named if value is not None)


def session_name_of(person: Person) -> str | None:
    """The name of the session at the issuer with which a person logs in, if they have one."""
    if person.issuer is None or person.provider_sid is None:
        return None
    return name_of("session", person.issuer, person.provider_sid)
