"""What answers say of how a session is carried, which is by a cookie: to clients that came without
one, and to caches.
"""

from __future__ import annotations

#: Of a 401, which has to have a challenge (RFC 9110, 11.6.1).
CHALLENGE = ("WWW-Authenticate", "Cookie")
#: Of each answer: it depends on the cookie (RFC 9110, 12.5.5).
VARY = ("Vary", "Cookie")


def raw_header(header: tuple[str, str]) -> tuple[bytes, bytes]:
    """A header as ASGI has it."""
    name, value = header
    return name.lower().encode("ascii"), value.encode("ascii")
