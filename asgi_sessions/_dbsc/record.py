"""What the row of a bound session keeps of its device, in one column. Pure."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from secrets import token_bytes
from typing import NamedTuple, Self

from asgi_sessions._tokens import microseconds

#: Bytes of a challenge's serial: when it was made, and 64 random bits.
SERIAL_BYTES = 16
#: How many used challenges are remembered. One that is older than all of them counts as used, so
#: that none is good twice; a few browser tabs may still use theirs in another order.
REMEMBERED = 4

_MOMENT = _MARK = 8
_USED = REMEMBERED * SERIAL_BYTES
_HEAD = _MOMENT + _MARK + _USED


class Record(NamedTuple):
    """A device's public key, and which challenges it has answered.

    Attributes:
        bound_at: when it was registered, in microseconds since 1970.
        mark: random bytes, by which a registration knows again what itself has written.
        used: the serials of the latest challenges, in order; zeros where there was none.
        key: the public key, as SubjectPublicKeyInfo in DER (RFC 5280, 4.1).
    """

    bound_at: int
    mark: bytes
    used: tuple[bytes, ...]
    key: bytes

    @classmethod
    def first(cls, key: bytes, serial: bytes, now: datetime) -> Self:
        """Of a device that has just registered."""
        used = (bytes(SERIAL_BYTES),) * (REMEMBERED - 1) + (serial,)
        return cls(microseconds(now), token_bytes(_MARK), used, key)

    @classmethod
    def read(cls, binding: bytes) -> Self:
        """From the column."""
        used = binding[_MOMENT + _MARK : _HEAD]
        return cls(
            int.from_bytes(binding[:_MOMENT], "big"),
            binding[_MOMENT : _MOMENT + _MARK],
            tuple(used[i : i + SERIAL_BYTES] for i in range(0, _USED, SERIAL_BYTES)),
            key_of(binding),
        )

    def write(self) -> bytes:
        """For the column."""
        moment = self.bound_at.to_bytes(_MOMENT, "big")
        return b"".join((moment, self.mark, *self.used, self.key))

    def fresh(self, serial: bytes) -> bool:
        """Whether a challenge has not been used."""
        return serial > self.used[0] and serial not in self.used

    def using(self, serial: bytes) -> Self:
        """With a fresh challenge used: the oldest is forgotten."""
        return self._replace(used=tuple(sorted((*self.used[1:], serial))))


def thumbprint(key: bytes) -> str:
    """A public key's name: the SHA-256 of its DER, in hex."""
    return sha256(key).hexdigest()


def key_of(binding: bytes) -> bytes:
    """The public key in the column, without the rest."""
    return binding[_HEAD:]
