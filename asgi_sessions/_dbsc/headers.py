"""The headers of the protocol: read in each form that browsers have, written in one. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

Raw = Iterable[tuple[bytes, bytes]]

#: By their names in the specification: those, and the older ones.
PROOF = frozenset({b"secure-session-response", b"sec-session-response"})
SESSION_ID = frozenset({b"sec-secure-session-id", b"sec-session-id"})
SKIPPED = frozenset({b"secure-session-skipped", b"sec-session-skipped"})

# A string of RFC 9651, 3.3.3, or the bare text that Chromium sends; parameters do not count.
_QUOTED = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"[ ]*(?:;.*)?')
_BARE = re.compile(rb"([^\s\",;]+)[ ]*(?:;.*)?")
_ESCAPED = re.compile(rb'\\(["\\])')
#: Bytes of a list of skipped sessions that are looked at: a few sessions' worth.
_SKIPPED_LENGTH = 1024
_SKIP = re.compile(r'\s*([a-z_]+)\s*(?:;\s*session_identifier="?([^",;]*)"?\s*)?', re.ASCII)


def text(headers: Raw, names: frozenset[bytes]) -> str | None:
    """The text of a header; None if it is missing, there twice, or no text."""
    found = [value for name, value in headers if name in names]
    if len(found) != 1:
        return None
    value = found[0].strip(b" \t")
    match = _QUOTED.fullmatch(value) or _BARE.fullmatch(value)
    if match is None or not match[1].isascii():
        return None
    return _ESCAPED.sub(rb"\1", match[1]).decode("ascii")


def present(headers: Raw, names: frozenset[bytes]) -> bool:
    """Whether a header is there in whatever form."""
    return any(name in names for name, _ in headers)


def skipped(headers: Raw, mine: Callable[[str], bool]) -> set[str]:
    """Why the browser says that it has not renewed the proof for a session, whose identifier `mine`
    knows.
    """
    reasons: set[str] = set()
    for name, value in headers:
        if name in SKIPPED and len(value) <= _SKIPPED_LENGTH:
            for item in value.decode("latin-1").split(","):
                match = _SKIP.fullmatch(item)
                if match is not None and (match[2] is None or mine(match[2])):
                    reasons.add(match[1])
    return reasons


def registration(algorithms: Iterable[str], path: str, challenge: str) -> tuple[bytes, bytes]:
    """Asks the browser to bind the session."""
    value = f'({" ".join(algorithms)});path="{path}";challenge="{challenge}"'
    return b"secure-session-registration", value.encode("ascii")


def challenge(value: str, identifier: str) -> tuple[bytes, bytes]:
    """What the browser is to sign next."""
    return b"secure-session-challenge", f'"{value}";id="{identifier}"'.encode("ascii")
