"""What the row of a bound session keeps of its device, in one column. Pure."""

from __future__ import annotations

from datetime import datetime
from hashlib import sha256
from typing import NamedTuple, Self

from asgi_sessions._model.row import ENFORCED, enforced_at
from asgi_sessions._model.tokens import microseconds

#: Bytes of a challenge's serial: when it was made, and 64 random bits.
SERIAL_BYTES = 16
#: How many used challenges are remembered. One that is older than all of them counts as used, so
#: that none is good twice; a few browser tabs may still use theirs in another order.
REMEMBERED = 4

_USED = REMEMBERED * SERIAL_BYTES
_HEAD = ENFORCED + _USED


class DeviceRecord(NamedTuple):
    """A device's public key, and which challenges it has answered.

    Attributes:
        enforced_at: since when its proof is needed, in microseconds since 1970: since the browser
            has shown for the first time that the answer to its registration has arrived; 0 until
            then.
        used: the serials of the latest challenges, in order; zeros where there was none.
        key: the public key, as SubjectPublicKeyInfo in DER (RFC 5280, 4.1).
    """

    enforced_at: int
    used: tuple[bytes, ...]
    key: bytes

    @classmethod
    def first(cls, key: bytes) -> Self:
        """Of a device that registers."""
        return cls(0, (bytes(SERIAL_BYTES),) * REMEMBERED, key)

    @classmethod
    def read(cls, binding: bytes) -> Self:
        """From the column."""
        used = binding[ENFORCED:_HEAD]
        return cls(
            enforced_at(binding),
            tuple(used[i : i + SERIAL_BYTES] for i in range(0, _USED, SERIAL_BYTES)),
            key_of(binding),
        )

    def write(self) -> bytes:
        """For the column."""
        return b"".join((self.enforced_at.to_bytes(ENFORCED, "big"), *self.used, self.key))

    def fresh(self, serial: bytes) -> bool:
        """Whether a challenge has not been used."""
        return serial > self.used[0] and serial not in self.used

    def using(self, serial: bytes) -> Self:
        """With a fresh challenge used: the oldest is forgotten."""
        return self._replace(used=tuple(sorted((*self.used[1:], serial))))

    def enforcing(self, now: datetime) -> Self:
        """With the proof needed, from now on if not already."""
        return self if self.enforced_at else self._replace(enforced_at=microseconds(now))


def thumbprint(key: bytes) -> str:
    """A public key's name: the SHA-256 of its DER, in hex."""
    return sha256(key).hexdigest()


def key_of(binding: bytes) -> bytes:
    """The public key in the column, without the rest."""
    return binding[_HEAD:]
