"""The data of a session: a dict of JSON values, what may be in it, and what has changed. Pure."""

from __future__ import annotations

import marshal
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from json import JSONDecoder, JSONEncoder
from typing import Any, Final, NamedTuple, Self

from asgi_sessions._errors import ConfigurationError, InvalidSession

from .lifetimes import Lifetimes
from .starlette_cookie import StarletteCookie

#: The most characters that a key may have.
KEY_LENGTH = 128
#: How deep lists and dicts may be nested in a value: MariaDB's JSON_EXTRACT makes NULL of more.
DEPTH = 30
#: The most keys that one statement writes, and the most that it removes. The calls for them are
#: nested in one another (`Driver.merge`), and the parser of SQLite has a stack of limited depth.
KEYS_AT_ONCE = 64

# Keys are part of JSON paths in SQL, where some databases take a backslash for an escape.
_NOT_IN_KEYS = re.compile(r'[\x00-\x1f\x7f-\x9f"\\]')
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_MANY_DIGITS = re.compile(r"\d{19}")
_STRING_OR_POWER = re.compile(r'"(?:[^"\\]|\\.)*"|-?[0-9.]+e\+[0-9]+')
#: Types whose values differ in JSON if they differ, or if their types do.
_PLAIN = {str, int, bool, type(None)}
#: Whole numbers that every database gives back as they were.
_WHOLE = range(-(2**63), 2**63)

#: JSON as it is compared and stored.
_FORM: Final[Any] = {"ensure_ascii": False, "allow_nan": False, "separators": (",", ":")}
encode = JSONEncoder(**_FORM).encode
encode_in_order = JSONEncoder(**_FORM, sort_keys=True).encode
_decode = JSONDecoder().decode
#: The same, but that it looks for no white space, which takes it longer than a short text.
_decode_bare = JSONDecoder().raw_decode


class _Missing(Enum):
    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"


#: Stands for a key that is not there, for instance as ``expected=`` of `DataMethods.replace`.
MISSING: Final = _Missing.MISSING


@dataclass(frozen=True, kw_only=True)
class SessionData:
    """What ``Sessions(data=...)`` takes: ``request.session``, kept in the database.

    Args:
        max_bytes: how large the JSON text of one session's data may be, in UTF-8.
        carry: the keys of a visitor's data that a login takes over; None for all of them.
        starlette_cookie: the cookie of Starlette's `SessionMiddleware` that the app had before:
            where there are no data yet, those of the cookie are taken over, once.

    Raises:
        ConfigurationError: if an argument cannot be one.
    """

    max_bytes: int = 16_384
    carry: Sequence[str] | None = None
    starlette_cookie: StarletteCookie | None = None

    def __post_init__(self) -> None:
        size: object = self.max_bytes
        if type(size) is not int or size < len("{}"):
            raise ConfigurationError(
                f"SessionData(max_bytes={self.max_bytes!r}): use a number of bytes, 2 and more"
            )
        carry: object = self.carry
        if carry is not None and (
            isinstance(carry, str)
            or not isinstance(carry, Sequence)
            or not all(isinstance(key, str) for key in carry)
        ):
            raise ConfigurationError(
                f"SessionData(carry={self.carry!r}): use a list of keys, or None for all"
            )
        cookie: object = self.starlette_cookie
        if cookie is not None and not isinstance(cookie, StarletteCookie):
            raise ConfigurationError(
                "SessionData(starlette_cookie=...): use StarletteCookie(secret_key=...), or None"
            )

    def kept(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """What a login takes over of a visitor's data."""
        return {k: v for k, v in data.items() if self.carry is None or k in self.carry}


class Changes(NamedTuple):
    """What to write: the JSON texts of some keys, and the keys that are gone."""

    written: dict[str, str]
    removed: list[str]

    def made_in(self, data: Mapping[str, Any]) -> dict[str, Any]:
        """The data with these changes made, as a new dict."""
        kept = dict(data)
        for key in self.removed:
            kept.pop(key, None)
        return kept | {key: _decode(text) for key, text in self.written.items()}

    def parts(self) -> list[Changes]:
        """The same changes, divided among as many statements as they need: one, unless hundreds of
        keys have changed.
        """
        most = max(len(self.written), len(self.removed))
        if most <= KEYS_AT_ONCE:
            return [self]
        written = [*self.written.items()]
        pieces = (slice(i, i + KEYS_AT_ONCE) for i in range(0, most, KEYS_AT_ONCE))
        return [Changes(dict(written[piece]), self.removed[piece]) for piece in pieces]


class Visitor(NamedTuple):
    """The row of somebody who has data without a login."""

    id: str
    secret_hash: bytes
    started_at: datetime
    last_seen_at: datetime
    data: str

    def __repr__(self) -> str:
        """Without the hash and the data."""
        return f"Visitor(id={self.id!r})"

    def live(self, now: datetime, lifetimes: Lifetimes) -> bool:
        """Whether neither of the two lifetimes is over."""
        return (
            now - self.started_at < lifetimes.absolute and now - self.last_seen_at < lifetimes.idle
        )


class SessionDict(dict[str, Any]):
    """``request.session``: a dict of JSON values.

    It has the methods and attributes that Starlette's has. A change inside of a value counts as
    well: before it is saved, the whole is compared with what was loaded.

    Attributes:
        accessed: whether `mark_accessed` was called, as ``request.session`` does.
        modified: whether a key was assigned or removed.
        cleared: whether `clear` was called, so that all there is was written since.
    """

    accessed: bool = False
    modified: bool = False
    cleared: bool = False
    _regenerate: Callable[[], Awaitable[object]] | None = None

    def __repr__(self) -> str:
        """Without the data, so that they reach no log."""
        return f"<session data, {len(self)} keys>"

    def mark_accessed(self) -> None:
        """Note that it was used."""
        self.accessed = True

    def mark_modified(self) -> None:
        """Note that it was changed. That decides nothing here: what is saved is what differs."""
        self.accessed = self.modified = True

    async def regenerate_id(self) -> None:
        """A new sid and secret for a visitor, the old ones dead at once; for a login, a new secret
        (`Sessions.rotate_session`). Nothing for somebody who has no row yet.

        Raises:
            ConfigurationError: if the response has begun.
            SessionsUnavailable: if the database does not answer.
        """
        if self._regenerate is not None:
            await self._regenerate()

    def __setitem__(self, key: str, value: object) -> None:
        """As dict.

        Raises:
            TypeError: for a value that is no JSON, or a key that is no text.
            ValueError: for a key or a value that some database would not give back.
        """
        check(key, value)
        self.mark_modified()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        """As dict."""
        super().__delitem__(key)
        self.mark_modified()

    def clear(self) -> None:
        """As dict."""
        self.mark_modified()
        self.cleared = True
        super().clear()

    def pop(self, key: str, *default: Any) -> Any:  # noqa: ANN401 -- as dict
        """As dict."""
        if key in self:
            self.mark_modified()
        return super().pop(key, *default)

    def popitem(self) -> tuple[str, Any]:
        """As dict."""
        item = super().popitem()
        self.mark_modified()
        return item

    def setdefault(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 -- as dict
        """As dict; raises as an assignment does."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, /, *others: Any, **more: Any) -> None:  # noqa: ANN401 -- as dict
        """As dict; raises as an assignment does, and changes nothing then."""
        new = dict(*others, **more)
        for key, value in new.items():
            check(key, value)
        self.mark_modified()
        super().update(new)

    def __ior__(self, other: Any) -> Self:  # type: ignore[override,misc]  # noqa: ANN401 -- as dict
        """As dict; raises as an assignment does."""
        self.update(other)
        return self


def check(key: object, value: object) -> str:
    """The JSON text of a value, if every database stores it and its key and gives them back as they
    were.

    Raises:
        TypeError: for a value that is no JSON, or a key that is no text.
        ValueError: for a key or a value that some database would not give back.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key of session data must be text, not {type(key).__name__}")
    if not 0 < len(key) <= KEY_LENGTH or _NOT_IN_KEYS.search(key) or not _is_text(key):
        raise ValueError(
            f"the key {key!r} of session data: use 1 to {KEY_LENGTH} characters, without control "
            'characters, " and \\'
        )
    try:
        text = encode(value)
    except TypeError:
        raise TypeError(
            f"session[{key!r}] is no JSON: use text, numbers, True, False, None, lists and dicts"
        ) from None
    except (ValueError, RecursionError):
        raise ValueError(
            f"session[{key!r}] holds a number that is none (nan, inf), or itself"
        ) from None
    if _NUL.search(text) or not _is_text(text):
        raise ValueError(
            f"session[{key!r}] holds text that no database takes: NUL, or half a surrogate pair"
        )
    if _MANY_DIGITS.search(text) and not all(n in _WHOLE for n in _whole_numbers(value)):
        raise ValueError(f"session[{key!r}] holds a whole number of more than 64 bits")
    if text.count("[") + text.count("{") > DEPTH and not _fits(value, DEPTH):
        raise ValueError(
            f"session[{key!r}] holds more than {DEPTH} lists and dicts inside one another"
        )
    return written_out(text)


def written_out(text: str) -> str:
    """JSON with the digits of large numbers: PostgreSQL would make 10000000000000000, a whole
    number, of 1e+16.
    """
    return _STRING_OR_POWER.sub(_digits, text) if "e+" in text else text


def decode(text: str | None) -> dict[str, Any]:
    """The data that a JSON text holds; an empty dict for None."""
    if text is None:
        return {}
    data: dict[str, Any]
    try:
        data, _ = _decode_bare(text)
    except ValueError:
        data = _decode(text)
    return data


class Snapshot:
    """The data as they are in the database, to be compared with what the app makes of them.

    Args:
        text: their JSON text; None for none.
        data: the same as a dict, which is not kept; it is made of the text if there is none.
    """

    __slots__ = ("_mark", "_text")

    def __init__(self, text: str | None = None, data: Mapping[str, Any] | None = None) -> None:
        self._text = text
        self._mark = _fingerprint(decode(text) if data is None else data)

    def read(self) -> dict[str, Any]:
        """Another dict of them."""
        return decode(self._text)

    def changes(self, data: Mapping[str, Any], max_bytes: int) -> Changes | None:
        """What has changed; None if nothing has.

        Raises:
            InvalidSession: if the data are more than `max_bytes`.
            TypeError: as `check`, for what was changed inside of a value.
            ValueError: as `check`.
        """
        if self._mark is not None and _fingerprint(data) == self._mark:
            return None
        old = self.read()
        written = {
            key: check(key, value)
            for key, value in data.items()
            if key not in old or _differ(old[key], value)
        }
        removed = [key for key in old if key not in data]
        if not written and not removed:
            return None  # only the order of the keys differs
        if written:  # what was too large before may be written if that makes it no larger
            limit(data, max(max_bytes, len((self._text or "").encode())))
        return Changes(written, removed)


def _fingerprint(data: Mapping[str, Any]) -> bytes | None:
    """Bytes that differ where data differ, even for True and 1; made in a tenth of JSON's time.
    None for values that marshal does not take. Version 2 of its format is the last without
    references between objects, so that equal data give equal bytes.
    """
    try:
        return marshal.dumps([*data.items()], 2)
    except ValueError:
        return None


def limit(data: Mapping[str, Any], max_bytes: int) -> None:
    """Refuse data that are too large.

    Raises:
        InvalidSession: if they are more than `max_bytes` of JSON in UTF-8.
    """
    size = len(encode(data).encode())
    if size > max_bytes:
        raise InvalidSession(
            {"data": [f"{size} bytes of JSON; SessionData(max_bytes={max_bytes}) allows no more"]}
        )


def is_blank(data: Mapping[str, Any]) -> bool:
    """Whether data are not worth a row for somebody who has none: libraries that look for flash
    messages leave an empty list behind.
    """
    return all(value in ([], {}) for value in data.values())


def document(written: Mapping[str, str]) -> str:
    """The JSON text of a dict, from the JSON texts of its values."""
    return "{" + ",".join(f"{encode(key)}:{text}" for key, text in written.items()) + "}"


def _whole_numbers(value: object) -> Iterable[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _whole_numbers(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _whole_numbers(one)


def _differ(one: object, other: object) -> bool:
    if type(one) in _PLAIN and type(other) in _PLAIN:
        return type(one) is not type(other) or one != other
    try:
        return encode(one) != encode(other)
    except (TypeError, ValueError, RecursionError):
        return True  # `check` says what is wrong


def _fits(value: object, depth: int) -> bool:
    """Whether lists and dicts are nested at most `depth` deep."""
    if isinstance(value, Mapping):
        value = [*value.values()]
    if not isinstance(value, list | tuple):
        return True
    return depth > 0 and all(_fits(one, depth - 1) for one in value)


def _digits(found: re.Match[str]) -> str:
    """A number with its digits in place of an exponent; a string as it is."""
    return found[0] if found[0].startswith('"') else f"{float(found[0]):.1f}"


def _is_text(text: str) -> bool:
    """Whether it can be written in UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
