"""The cookie on the wire: read from raw headers, written as one Set-Cookie (RFC 6265bis)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from asgi_sessions._errors import ConfigurationError

from .carrier import Headers, unstored

SameSite = Literal["lax", "strict", "none"]

#: Bytes of a value that is looked at; ours have 124.
VALUE_LENGTH = 512
#: Values of our name that are looked at: a browser has one, and one more for each sub-domain or
#: path that has set another.
MOST_VALUES = 8

_NAME = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, token
_DOMAIN = re.compile(r"\.?[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*")
_PATH = re.compile(r"/[!-:<-~]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class CookieSettings:
    """Where the cookie goes. Validated once; all errors come in one message.

    Raises:
        ConfigurationError: for options that browsers would refuse.
    """

    name: str = "sid"
    secure: bool = True
    samesite: SameSite = "lax"
    domain: str | None = None
    path: str = "/"
    partitioned: bool = False

    def __post_init__(self) -> None:
        errors = list(self._errors())
        if errors:
            raise ConfigurationError("; ".join(errors))

    def _errors(self) -> Iterator[str]:
        if not _spells(_NAME, self.name):
            yield f"cookie_name={self.name!r} is no cookie name: use letters, digits, - and _"
        for flag in ("secure", "partitioned"):
            if not isinstance(getattr(self, flag), bool):
                yield f"cookie_{flag}={getattr(self, flag)!r}: use True or False"
        if str(self.name).lower().startswith(("__host-", "__secure-")):
            yield f"cookie_name={self.name!r}: leave the prefix out, it is added where it holds"
        if self.samesite not in ("lax", "strict", "none"):
            yield f"cookie_samesite={self.samesite!r}: use 'lax', 'strict' or 'none'"
        if self.samesite == "none" and not self.secure:
            yield "cookie_samesite='none' needs cookie_secure=True: browsers drop it otherwise"
        if self.partitioned and not self.secure:
            yield "cookie_partitioned=True needs cookie_secure=True: browsers drop it otherwise"
        if self.domain is not None and not _spells(_DOMAIN, self.domain):
            yield f"cookie_domain={self.domain!r} is no domain: use one like 'example.com', or None"
        if not _spells(_PATH, self.path):
            yield f"cookie_path={self.path!r}: must start with '/', without spaces and ';'"

    @property
    def wire_name(self) -> str:
        """With the prefix that browsers enforce (ASVS 3.3.1, 3.3.3)."""
        if not self.secure:
            return self.name
        host_only = self.domain is None and self.path == "/"
        return f"__Host-{self.name}" if host_only else f"__Secure-{self.name}"

    def reader(self) -> Callable[[Headers], list[str]]:
        """A function that reads every value of our name from a request's headers, in the order
        sent, each once; over-long ones left out, and what follows the eighth.
        """
        name = self.wire_name.encode("ascii")
        pairs = re.compile(rb"(?:^|;)[ \t]*" + re.escape(name) + rb"=([^;]*)")

        def read(headers: Headers) -> list[str]:
            values: list[str] = []
            for header, line in headers:
                if header == b"cookie" and name in line:
                    for given in pairs.findall(line):
                        value = given.rstrip(b" \t").decode("latin-1")
                        if 0 < len(value) <= VALUE_LENGTH and value not in values:
                            values.append(value)
                            if len(values) == MOST_VALUES:
                                return values
            return values

        return read

    def render(self, value: str, *, max_age: int | None) -> bytes:
        """A Set-Cookie value. `max_age` in seconds; None ends with the browser, 0 clears."""
        parts = [f"{self.wire_name}={value}"]
        if max_age is not None:
            parts.append(f"Max-Age={max_age}")
        if max_age == 0:
            parts.append("Expires=Thu, 01 Jan 1970 00:00:00 GMT")
        if self.domain is not None:
            parts.append(f"Domain={self.domain}")
        parts += [f"Path={self.path}", "HttpOnly", f"SameSite={self.samesite.capitalize()}"]
        if self.secure:
            parts.append("Secure")
        if self.partitioned:
            parts.append("Partitioned")
        return "; ".join(parts).encode("ascii")

    def write(self, headers: Headers, cookie: bytes) -> list[tuple[bytes, bytes]]:
        """The response's headers with our cookie as its only one of the name. A response that
        carries it is stored nowhere.
        """
        ours = self.wire_name.encode("ascii")
        written = [
            (name, value)
            for name, value in headers
            # As browsers read it (RFC 6265bis, 5.6).
            if name.lower() != b"set-cookie" or value.partition(b"=")[0].strip(b" \t") != ours
        ]
        return unstored([*written, (b"set-cookie", cookie)])


def _spells(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None
