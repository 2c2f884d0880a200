"""The gate in front of the table: casts and validates what comes from outside."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from asgi_sessions._errors import InvalidSession

from .device import clean_address, clean_user_agent
from .lifetimes import plain_utc
from .session import Session
from .tokens import SID_PATTERN

#: Characters an id of a person or an app may have; the columns are as wide.
ID_LENGTH = 255
#: Characters a reason may have.
REASON_LENGTH = 50
#: Characters of `acr`, and of all `amr` with the spaces between them.
ASSURANCE_LENGTH = 255
#: Bytes that are kept of a device: an RSA key of 4096 bits takes 550.
BINDING_BYTES = 640
#: Of SHA-256.
DIGEST_BYTES = 32
#: Of moments: MariaDB's begin with 1000, and asyncpg takes the very first and last for infinity.
YEARS = range(1000, 9999)

# C0, DEL, C1, and the separators at which readers of logs break lines. Not all that is unprintable:
# ids of other systems may hold unusual spaces, or characters that this Python does not know yet.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

_REQUIRED = ("app_id", "person_id")


@dataclass(frozen=True, slots=True)
class Changeset:
    """What `changeset` made of some attributes.

    Attributes:
        session: the session to be changed, None for a new one.
        changes: the cast values that differ from the session's.
        errors: the messages by field; empty when valid.
    """

    session: Session | None
    changes: dict[str, Any] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)

    @property
    def valid(self) -> bool:
        """Whether the changes may be written."""
        return not self.errors

    def checked(self) -> dict[str, Any]:
        """The changes.

        Raises:
            InvalidSession: if there are errors.
        """
        if self.errors:
            raise InvalidSession(self.errors)
        return self.changes


def changeset(session: Session | None, attrs: Mapping[str, Any]) -> Changeset:
    """Cast and validate attributes of a session before an insert or an update.

    Unknown attributes are left out. A new session needs `app_id` and `person_id`; a session
    that has ended keeps its end.

    Args:
        session: the session to be changed, or None for a new one.
        attrs: values by column name.
    """
    values, errors = _cast(attrs)
    if session is not None:
        values = {k: value for k, value in values.items() if _kept(session, k) != value}
    result = Changeset(session, values, errors)
    for name in _REQUIRED:
        kept = None if session is None else getattr(session, name)
        if name not in result.errors and result.changes.get(name, kept) is None:
            result.errors[name] = ["is missing"]
    if session is not None and session.ended_at is not None:
        for name in ("ended_at", "end_reason"):
            if name in result.changes:
                result.errors[name] = ["is set already: the first end counts"]
    return result


def checked(**attrs: object) -> dict[str, Any]:
    """Cast and validate single attributes: of a change to many rows, or of a question.

    Raises:
        InvalidSession: if one of them is refused.
    """
    values, errors = _cast(attrs)
    if errors:
        raise InvalidSession(errors)
    return values


_UNKNOWN = object()


def _kept(session: Session, name: str) -> object:
    """What the column of a session holds; of what is not shown, nobody knows."""
    value = getattr(session, name, _UNKNOWN)
    return (" ".join(session.amr) or None) if name == "amr" else value


def _cast(attrs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    values: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    for name, value in attrs.items():
        if name in _CASTS:
            try:
                values[name] = None if value is None else _CASTS[name](value)
            except ValueError as error:
                errors[name] = [str(error)]
    return values, errors


def _identifier(value: object) -> str:
    if type(value) is str:  # nearly all are, and the check below takes its time
        return _name(value)
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        kind = type(value).__name__
        raise ValueError(f"must be a str, an int or a UUID, not {kind}")
    # Not what a subclass makes of itself: str(Role.ADMIN) of an enumeration is "Role.ADMIN".
    if isinstance(value, str):
        return _name(value)
    return _name(str(int(value)) if isinstance(value, int) else str(value))


def _text(length: int) -> Callable[[object], str]:
    def cast(value: object) -> str:
        if not isinstance(value, str):
            raise ValueError(f"must be a str, not {type(value).__name__}")
        if type(value) is not str:
            value = str.__str__(value)  # drivers look at the type
        if not value.strip():
            raise ValueError("must not be empty")
        if len(value) > length:
            raise ValueError(f"must have at most {length} characters, has {len(value)}")
        if "\0" in value:
            raise ValueError("must not hold a NUL character")
        if match := _CONTROL.search(value):
            raise ValueError(f"must not hold a control character, has U+{ord(match[0]):04X}")
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise ValueError("must not hold a lone surrogate") from None
        return value

    return cast


_name = _text(ID_LENGTH)
_assurance = _text(ASSURANCE_LENGTH)


def _methods(value: object) -> str | None:
    """One text with a space between methods: none of those registered has one (RFC 8176, 6.1)."""
    if value == ():  # as with nearly everybody
        return None
    methods = value.split() if isinstance(value, str) else value
    if not isinstance(methods, Iterable) or isinstance(methods, bytes | Mapping):
        raise ValueError(f"must be a list of str, not {type(value).__name__}")
    words = [_assurance(method) for method in methods]
    if any(len(word.split()) != 1 for word in words):
        raise ValueError("must not hold a method with a space in it")
    return _assurance(" ".join(words)) if words else None


def _user_agent(value: object) -> str | None:
    return clean_user_agent(str(value))


def _moment(value: object) -> datetime:
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise ValueError("must be a timezone-aware datetime")
    if value.year not in YEARS:
        raise ValueError(f"must be in the years {YEARS[0]} to {YEARS[-1]}")
    return plain_utc(value)


def _sid(value: object) -> str:
    if isinstance(value, str) and SID_PATTERN.fullmatch(value):
        return value
    try:
        return str(UUID(str(value)))
    except ValueError:
        raise ValueError("must be a UUID") from None


def _origin(value: object) -> str:
    if value not in ("login", "scope"):
        raise ValueError("must be 'login' or 'scope'")
    return str(value)


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be True or False")
    return value


def _seconds(value: object) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("must be a whole number of seconds, 1 and more")
    return value


def _digest(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) != DIGEST_BYTES:
        raise ValueError(f"must be the {DIGEST_BYTES} bytes of a SHA-256 digest")
    return value


def _binding(value: object) -> bytes:
    if not isinstance(value, bytes) or len(value) > BINDING_BYTES:
        raise ValueError(f"must be bytes, at most {BINDING_BYTES}")
    return value


_CASTS: dict[str, Callable[[object], object]] = {
    "id": _sid,
    "person_id": _identifier,
    "app_id": _identifier,
    "auth_provider": _name,
    "origin": _origin,
    "user_agent": _user_agent,
    "ip_address": clean_address,
    "device_key": _digest,
    "live_device_key": _digest,
    "secret_hash": _digest,
    "previous_secret_hash": _digest,
    "secret_seen_at": _moment,
    "started_at": _moment,
    "last_seen_at": _moment,
    "authenticated_at": _moment,
    "expires_at": _moment,
    "ended_at": _moment,
    "end_reason": _text(REASON_LENGTH),
    "remember": _flag,
    "acr": _assurance,
    "amr": _methods,
    "binding": _binding,
    "renewed_at": _moment,
    "bearer": _flag,
    "idle_seconds": _seconds,
    "actor_id": _identifier,
    "actor_sid": _sid,
    "actor_reason": _name,
    "issuer": _name,
    "subject": _name,
    "provider_sid": _name,
}
