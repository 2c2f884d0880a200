"""How a session is carried, which is by a cookie: what answers say of that to caches and to clients
that came without one, and what the OpenAPI document calls it.
"""

from __future__ import annotations

from collections.abc import Iterable

Headers = Iterable[tuple[bytes, bytes]]

#: Of a 401, which has to have a challenge (RFC 9110, 11.6.1).
CHALLENGE = ("WWW-Authenticate", "Cookie")
#: Of each answer: it depends on the cookie (RFC 9110, 12.5.5).
VARY = ("Vary", "Cookie")
#: The name of the security scheme in OpenAPI documents.
SCHEME = "session"


def raw_header(header: tuple[str, str]) -> tuple[bytes, bytes]:
    """A header as ASGI has it."""
    name, value = header
    return name.lower().encode("ascii"), value.encode("ascii")


_PRIVATE = (b"cache-control", b"private")
_VARY = raw_header(VARY)
_VARIES = _VARY[1].lower()
#: Of the names of headers that tell caches what `for_caches` does.
_LENGTHS = (len(b"vary"), len(b"cache-control"))


def for_caches(headers: Headers, *, private: bool) -> list[tuple[bytes, bytes]]:
    """The headers with ``Vary: Cookie``, merged with what the app has set (RFC 9110, 12.5.5), and
    with ``Cache-Control: private`` for an answer to somebody, unless the app says otherwise.
    """
    varied = list(headers)
    for name, _ in varied:
        if len(name) in _LENGTHS:  # lengths compare faster
            return _merged(varied, private=private)
    if private:
        varied.append(_PRIVATE)
    varied.append(_VARY)
    return varied


def _merged(varied: list[tuple[bytes, bytes]], *, private: bool) -> list[tuple[bytes, bytes]]:
    place, varies = None, False
    for index, (name, value) in enumerate(varied):
        if name.lower() == b"vary":
            fields = {field.strip().lower() for field in value.split(b",")}
            varies = varies or bool(fields & {_VARIES, b"*"})
            place = index if place is None else place
        elif name.lower() == b"cache-control":
            private = False
    if private:
        varied.append(_PRIVATE)
    if place is None:
        varied.append(_VARY)
    elif not varies:
        name, value = varied[place]
        varied[place] = (name, value + b", " + _VARY[1])
    return varied
