"""The token on the wire, which clients without a cookie jar send in place of the cookie
(RFC 6750, 2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .carrier import Headers
from .session import Session

#: What each token begins with, so that those who look for leaked secrets find it. A bearer token
#: without it is another layer's.
PREFIX = "asgis_"
#: The WebSocket sub-protocol that is accepted where a browser has sent its token as another one,
#: which must not be named in the answer, and the app has chosen none.
SUBPROTOCOL = "asgi-sessions"

_SCHEME = b"bearer "
_RAW_PREFIX = PREFIX.encode("ascii")


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A new token, and the session that it is for.

    Attributes:
        session: the session.
        token: what the client sends from now on as ``Authorization: Bearer <token>``. It is shown
            once: the table does not have it.
    """

    session: Session
    token: str = field(repr=False)


def tokens_of(scope: Mapping[str, Any]) -> list[str]:
    """What a request brings that looks like a token of ours, each without the prefix: of the
    header ``Authorization``, and of the sub-protocols of a WebSocket, since a browser cannot set a
    header there. Other `Sessions` in front may have taken these out of the scope, for the app's
    sake, but the header still has them.
    """
    headers = scope.get("headers", ())
    found = tokens_in(headers)
    if scope["type"] == "websocket":
        sent = [
            one.strip()
            for name, line in headers
            if name == b"sec-websocket-protocol"
            for one in line.decode("latin-1").split(",")
        ]
        offered = (*_offered(scope), *sent)
        found += [one[len(PREFIX) :] for one in offered if one.startswith(PREFIX)]
    return found


def tokens_in(headers: Headers) -> list[str]:
    """Those of the header ``Authorization``."""
    return [
        value[len(PREFIX) :].decode("latin-1")
        for name, line in headers
        if name == b"authorization"
        and line[: len(_SCHEME)].lower() == _SCHEME
        and (value := line[len(_SCHEME) :].strip()).startswith(_RAW_PREFIX)
    ]


def other_subprotocols(scope: Mapping[str, Any]) -> tuple[list[str], bool]:
    """The sub-protocols that a browser offers, without its token and the one that stands beside it;
    and whether that one is among them.
    """
    offered = _offered(scope)
    others = [one for one in offered if not one.startswith(PREFIX) and one != SUBPROTOCOL]
    return others, SUBPROTOCOL in offered


def _offered(scope: Mapping[str, Any]) -> Sequence[str]:
    return scope.get("subprotocols") or ()
