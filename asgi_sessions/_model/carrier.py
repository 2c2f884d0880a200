"""How sessions are carried: by a cookie, and with the option `bearer` by a token, too. What answers
say of that to caches, and to clients that came without either.
"""

from __future__ import annotations

from collections.abc import Iterable

Headers = Iterable[tuple[bytes, bytes]]
Header = tuple[str, str]

#: The names of the security schemes in OpenAPI documents: of the cookie, and of the token.
SCHEME = "session"
BEARER_SCHEME = "session_token"

#: Headers that may tell a cache to keep what ``Cache-Control: no-store`` tells it to forget: some
#: caches obey these first (RFC 9213, 2.2).
_CACHING = frozenset(
    {
        b"cache-control",
        b"cdn-cache-control",
        b"expires",
        b"surrogate-control",
        b"x-accel-expires",
    }
)
_PRIVATE = (b"cache-control", b"private")
_NO_STORE = (b"cache-control", b"no-store")
#: Of the names of headers that tell caches what `Carriers.for_caches` does.
_LENGTHS = (len(b"vary"), len(b"cache-control"))


class Carriers:
    """By what clients bring their sessions.

    Args:
        bearer: whether by tokens, too.

    Attributes:
        bearer: the same.
        challenge: the header of a 401, which has to have one (RFC 9110, 11.6.1).
        vary: the header of each answer: what it depends on (RFC 9110, 12.5.5).
    """

    def __init__(self, *, bearer: bool) -> None:
        self.bearer = bearer
        self.challenge: Header = ("WWW-Authenticate", "Bearer" if bearer else "Cookie")
        self.vary: Header = ("Vary", "Cookie, Authorization" if bearer else "Cookie")
        self._vary = raw_header(self.vary)
        self._fields = self.vary[1].split(", ")

    def for_caches(self, headers: Headers, *, private: bool) -> list[tuple[bytes, bytes]]:
        """The headers with `vary`, merged with what the app has set, and with ``Cache-Control:
        private`` for an answer to somebody, unless the app says otherwise.
        """
        varied = list(headers)
        for name, _ in varied:
            if len(name) in _LENGTHS:  # lengths compare faster
                return self._merged(varied, private=private)
        if private:
            varied.append(_PRIVATE)
        varied.append(self._vary)
        return varied

    def _merged(
        self, varied: list[tuple[bytes, bytes]], *, private: bool
    ) -> list[tuple[bytes, bytes]]:
        place, fields = None, set()
        for index, (name, value) in enumerate(varied):
            if name.lower() == b"vary":
                fields |= {field.strip().lower() for field in value.split(b",")}
                place = index if place is None else place
            elif name.lower() == b"cache-control":
                private = False
        if private:
            varied.append(_PRIVATE)
        if place is None:
            varied.append(self._vary)
        elif b"*" not in fields:
            new = [field for field in self._fields if field.lower().encode("ascii") not in fields]
            name, value = varied[place]
            varied[place] = (name, b", ".join([value, *(field.encode("ascii") for field in new)]))
        return varied


def raw_header(header: Header) -> tuple[bytes, bytes]:
    """A header as ASGI has it."""
    name, value = header
    return name.lower().encode("ascii"), value.encode("ascii")


def unstored(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a response that is stored nowhere, since it carries a secret (ASVS 14.3.2):
    whatever the app says to caches is left out.
    """
    return [*(header for header in headers if header[0].lower() not in _CACHING), _NO_STORE]
