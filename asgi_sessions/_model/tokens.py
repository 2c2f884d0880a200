"""Sids, secrets and signatures. Pure: time and randomness are arguments."""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from binascii import b2a_base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from itsdangerous import Signer

from asgi_sessions._errors import ConfigurationError

if TYPE_CHECKING:
    from hashlib import _Hash

#: Characters a key needs at least; `secrets.token_urlsafe(32)` makes one of 43.
KEY_LENGTH = 32
#: Distinct characters that a key needs at least: "a" * 32 is no key, nor is a short word repeated.
KEY_VARIETY = 8
#: Bytes of randomness in a secret: 256 bits, twice what ASVS 7.2.3 asks.
SECRET_BYTES = 32

# sid "." secret "." signature, each of one length: anything else costs no HMAC.
_SECRET, _SIGNATURE, _LENGTH = 37, 81, 124  # where the second and the third begin, and the end
_SID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
_SHAPE = re.compile(rf"({_SID})\.([\w-]{{43}})\.[\w-]{{43}}", re.ASCII)
#: What a sid looks like; nothing else is asked for in the database.
SID_PATTERN = re.compile(_SID)

_URL_SAFE = bytes.maketrans(b"+/", b"-_")
#: Bytes that SHA-256 takes at a time.
_BLOCK = 64
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_presented = tuple.__new__
_MICROSECOND = timedelta(microseconds=1)

RandomBytes = Callable[[int], bytes]
#: What carries a signed secret: none is taken for another.
Use = Literal["cookie", "visitor", "bearer"]


@dataclass(frozen=True, slots=True)
class Token:
    """What a new cookie says: which row, and the proof to be let in.

    It is no tuple, and its `repr` has no secret, so that a tool that shows the variables of a
    traceback does not show one (ASVS 16.2.5).
    """

    sid: str
    secret: str = field(repr=False)


class Presented(NamedTuple):
    """What is left of a cookie whose signature holds: which row, and the digest of its secret. The
    secret itself is kept in no variable.
    """

    sid: str
    digest: bytes


def microseconds(now: datetime) -> int:
    """The time as a number: since 1970."""
    return (now - _EPOCH) // _MICROSECOND


def new_sid(now: datetime, random: RandomBytes) -> str:
    """A UUIDv7 (RFC 9562, 5.7): time first, so that the primary key grows at its end."""
    milliseconds, rest = divmod(microseconds(now), 1000)
    fraction = rest * 4096 // 1000  # of the millisecond, in 12 bits (RFC 9562, 6.2, method 3)
    tail = int.from_bytes(random(8), "big") & (1 << 62) - 1
    digits = f"{milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | tail:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def started_at(sid: str) -> datetime:
    """When a sid was made, to the millisecond."""
    return _EPOCH + timedelta(milliseconds=int(sid[:8] + sid[9:13], 16))


def new_secret(random: RandomBytes) -> str:
    """256 bits as text."""
    return urlsafe_b64encode(random(SECRET_BYTES)).rstrip(b"=").decode("ascii")


def digest(secret: str) -> bytes:
    """What the row keeps of a secret. Of 256 random bits one plain hash is enough."""
    return sha256(secret.encode("ascii")).digest()


def looks_like_ours(value: str) -> bool:
    """Whether a cookie has the shape of ours, whoever has signed it."""
    return _SHAPE.fullmatch(value) is not None


class Keys:
    """Signs with the newest key, verifies with each.

    Args:
        secret_key: signs; at least 32 characters, random.
        old_secret_keys: still verify.
        purpose: what no other signature may be taken for.

    Raises:
        ConfigurationError: for a key that is too short, has too few distinct characters, or is
            no text.
    """

    def __init__(
        self, secret_key: str | bytes, old_secret_keys: Iterable[str | bytes], *, purpose: str
    ) -> None:
        if isinstance(old_secret_keys, str | bytes) or not _iterable(old_secret_keys):
            raise ConfigurationError("old_secret_keys takes a list of keys, not one key")
        self._keys, self._purpose = [secret_key, *old_secret_keys], purpose
        del secret_key, old_secret_keys  # no frame of a traceback may show them
        if not all(map(_is_key, self._keys)):
            self._keys = []
            # The message must not tell the key.
            raise ConfigurationError(
                "secret_key and old_secret_keys take str or bytes of at least "
                f"{KEY_LENGTH} characters, at least {KEY_VARIETY} of them distinct; make one with:"
                " python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            )
        # With the key already in, as RFC 2104, 4, has it: half of an HMAC's work.
        self._keyed: dict[Use, list[tuple[_Hash, _Hash]]] = {
            use: [
                _keyed(_signer(key, f"asgi_sessions.{use}.{purpose}").derive_key())
                for key in self._keys
            ]
            for use in get_args(Use)
        }
        self._device_keys = [
            _signer(key, "asgi_sessions.device").derive_key() for key in self._keys
        ]

    def __repr__(self) -> str:
        """Without the keys."""
        return f"<{len(self._keys)} keys>"

    def sign(self, token: Token, use: Use = "cookie") -> str:
        """What carries the token: a session's cookie, or that of a visitor without a login, or a
        bearer token, without its prefix.
        """
        said = f"{token.sid}.{token.secret}"
        keyed = self._keyed[use][0]
        return f"{said}.{_signature(keyed, said.encode('ascii')).decode('ascii')}"

    def verify(self, value: str, use: Use = "cookie") -> Presented | None:
        """What a value says that one of the keys signed for this use; None for anything else."""
        if len(value) != _LENGTH or value[_SIGNATURE - 1] != "." or not value.isascii():
            return None
        given = value.encode("ascii")
        said, signature = given[: _SIGNATURE - 1], given[_SIGNATURE:]
        for keyed in self._keyed[use]:
            # The text is compared, not what it decodes to: one token has one spelling.
            if hmac.compare_digest(_signature(keyed, said), signature):
                sid, secret_hash = value[: _SECRET - 1], sha256(said[_SECRET:]).digest()
                # What was signed here has the right shape; and a sid has one spelling.
                return _presented(Presented, (sid, secret_hash)) if sid == sid.lower() else None
        return None

    def signer(self, use: str) -> Signer:
        """What signs something else than the cookie, in the same way: for one use alone."""
        salts = f"asgi_sessions.{use}.{self._purpose}"
        derived = [_signer(key, salts).derive_key() for key in reversed(self._keys)]
        return Signer(derived, key_derivation="none", digest_method=sha256)

    def device_keys(self, *facts: str | None) -> list[bytes]:
        """A device's name that tells nothing without the key, by each key, the newest first."""
        message = b"".join(
            b"-" if fact is None else b"%d:%b" % (len(raw := fact.encode()), raw) for fact in facts
        )
        return [hmac.digest(key, message, "sha256") for key in self._device_keys]


def _keyed(key: bytes) -> tuple[_Hash, _Hash]:
    """The two halves of HMAC-SHA-256 (RFC 2104, 2) for a key no longer than a block."""
    block = key.ljust(_BLOCK, b"\0")
    inner, outer = (sha256(bytes(byte ^ pad for byte in block)) for pad in (0x36, 0x5C))
    return inner, outer


def _signature(keyed: tuple[_Hash, _Hash], said: bytes) -> bytes:
    """What `Signer.get_signature` makes, in a fifth of its time."""
    inner, outer = keyed
    mac = inner.copy()
    mac.update(said)
    whole = outer.copy()
    whole.update(mac.digest())
    return b2a_base64(whole.digest(), newline=False).translate(_URL_SAFE, b"=")


def _is_key(key: object) -> bool:
    if isinstance(key, str) and len(key) != len(key.encode(errors="ignore").decode()):
        return False  # it holds what is no text
    return isinstance(key, str | bytes) and len(key) >= KEY_LENGTH and len(set(key)) >= KEY_VARIETY


def _iterable(value: object) -> bool:
    return isinstance(value, Iterable)


def _signer(key: str | bytes, salt: str) -> Signer:
    derived = Signer(key, salt=salt, key_derivation="hmac", digest_method=sha256).derive_key()
    # Derived once: itsdangerous would derive again at each signature.
    return Signer(derived, key_derivation="none", digest_method=sha256)
