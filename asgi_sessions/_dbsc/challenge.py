"""Challenges: signed rather than stored, good for one session, one use and five minutes."""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from datetime import datetime, timedelta
from secrets import token_bytes
from typing import Literal

from asgi_sessions._model.row import Row
from asgi_sessions._model.tokens import Keys, microseconds

from .record import SERIAL_BYTES, DeviceRecord
from .refusal import Refusal

#: How long a challenge is good.
LIFETIME = timedelta(minutes=5)

Use = Literal["register", "refresh"]

_SERIAL_LENGTH = 22  # characters of 16 bytes in base64 without padding
_MOMENT = 8


class Challenges:
    """Makes and recognises challenges. What was used, the row remembers (`DeviceRecord.used`).

    Args:
        keys: sign them.
    """

    def __init__(self, keys: Keys) -> None:
        self._signer = keys.signer("dbsc.challenge")

    def new(self, row: Row, use: Use, now: datetime) -> str:
        """A challenge for the device of a session."""
        moment = microseconds(now)
        if row.binding is not None:
            # Later than what was used, or it would count as used: other servers' clocks may be
            # ahead of ours.
            newest = DeviceRecord.read(row.binding).used[-1]
            moment = max(moment, int.from_bytes(newest[:_MOMENT], "big") + 1)
        serial = moment.to_bytes(_MOMENT, "big") + token_bytes(SERIAL_BYTES - _MOMENT)
        text = urlsafe_b64encode(serial).rstrip(b"=").decode("ascii")
        return f"{text}.{self._signature(text, row, use)}"

    def serial(self, challenge: str, row: Row, use: Use, now: datetime) -> bytes:
        """The serial of a challenge that was made for this session and use.

        Raises:
            Refusal: ``unknown_challenge`` or ``expired_challenge``.
        """
        text, _, signature = challenge.partition(".")
        if (
            len(text) != _SERIAL_LENGTH
            or not challenge.isascii()
            or not self._signer.verify_signature(_said(text, row, use), signature)
        ):
            raise Refusal("unknown_challenge")
        serial = urlsafe_b64decode(text + "==")
        if microseconds(now - LIFETIME) >= int.from_bytes(serial[:_MOMENT], "big"):
            raise Refusal("expired_challenge")
        return serial

    def _signature(self, text: str, row: Row, use: Use) -> str:
        return self._signer.get_signature(_said(text, row, use)).decode("ascii")


def _said(text: str, row: Row, use: Use) -> bytes:
    # With the secret's digest: what was asked before a renewal is not answered after it.
    return f"{use}.{row.id}.{row.secret_hash.hex()}.{text}".encode("ascii")
