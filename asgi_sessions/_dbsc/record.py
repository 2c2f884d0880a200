"""What the row of a bound session keeps of its device, in one column. Pure."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Self

from asgi_sessions._tokens import microseconds

#: Bytes of a challenge's serial: when it was made, and 64 random bits.
SERIAL_BYTES = 16
#: How many used challenges are remembered. One that is older than all of them counts as used, so
#: that none is good twice; a few browser tabs may still use theirs in another order.
REMEMBERED = 4

_MOMENT = 8
_USED = REMEMBERED * SERIAL_BYTES


class Record(NamedTuple):
    """A device's public key, and which challenges it has answered.

    Attributes:
        bound_at: when it was registered, in microseconds since 1970.
        used: the serials of the latest challenges, in order; zeros where there was none.
        key: the public key, as SubjectPublicKeyInfo in DER (RFC 5280, 4.1).
    """

    bound_at: int
    used: tuple[bytes, ...]
    key: bytes

    @classmethod
    def first(cls, key: bytes, serial: bytes, now: datetime) -> Self:
        """Of a device that has just registered."""
        none = bytes(SERIAL_BYTES)
        return cls(microseconds(now), (none,) * (REMEMBERED - 1) + (serial,), key)

    @classmethod
    def read(cls, binding: bytes) -> Self:
        """From the column."""
        used, key = binding[_MOMENT : _MOMENT + _USED], binding[_MOMENT + _USED :]
        serials = (used[i : i + SERIAL_BYTES] for i in range(0, _USED, SERIAL_BYTES))
        return cls(int.from_bytes(binding[:_MOMENT], "big"), tuple(serials), key)

    def write(self) -> bytes:
        """For the column."""
        return self.bound_at.to_bytes(_MOMENT, "big") + b"".join(self.used) + self.key

    def fresh(self, serial: bytes) -> bool:
        """Whether a challenge has not been used."""
        return serial > self.used[0] and serial not in self.used

    def using(self, serial: bytes) -> Self:
        """With a fresh challenge used: the oldest is forgotten."""
        return self._replace(used=tuple(sorted((*self.used[1:], serial))))

    @property
    def thumbprint(self) -> str:
        """The key's name."""
        return thumbprint(self.key)


def thumbprint(key: bytes) -> str:
    """A public key's name: the SHA-256 of its DER, in hex."""
    return sha256(key).hexdigest()


def key_of(binding: bytes) -> bytes:
    """The public key in the column, without the rest."""
    return binding[_MOMENT + _USED :]
