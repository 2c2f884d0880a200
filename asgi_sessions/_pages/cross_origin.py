"""Which requests other sites have browsers send, and a middleware that refuses them."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.bearer import tokens_in
from asgi_sessions._model.device import headers_of

#: What browsers leave out of an origin, and clients may leave out of a host.
_PORTS = {"http": ":80", "https": ":443"}
#: Methods that change nothing (RFC 9110, 9.2.1). TRACE has no business here.
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})

# As browsers write it (RFC 6454, 6.2): lower case, no path, no default port.
_ORIGIN = re.compile(
    r"(https?|[a-z][a-z0-9+.-]*)://[a-z0-9.-]+(:\d{1,5})?|https?://\[[0-9a-f:]+\](:\d{1,5})?"
)
_CLOSE = {"type": "websocket.close", "code": 1008, "reason": "cross-origin"}


def are_origins(value: object) -> bool:
    """Whether this is a list of origins, as browsers write them."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and all(isinstance(one, str) and _ORIGIN.fullmatch(one) for one in value)
    )


def crosses_sites(headers: Headers, *, same_site: bool, trusted: Sequence[str] = ()) -> bool:
    """Whether a browser sent this on behalf of another site (ASVS 3.5.1): by Sec-Fetch-Site, or
    by Origin where it is not sent. A client that sends neither is no browser. Origins that the app
    trusts are its own front ends.
    """
    if headers.get("origin", "") in trusted:
        return False
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site not in ({"same-origin", "none"} | ({"same-site"} if same_site else set()))
    return foreign_origin(headers.raw, trusted)


def foreign_origin(headers: Iterable[tuple[bytes, bytes]], trusted: Sequence[str]) -> bool:
    """Whether a browser names an origin that is neither the host's nor trusted. One that names none
    is no browser, or sends a plain request to its own site.
    """
    origins = [value for name, value in headers if name == b"origin"]
    if not origins:
        return False
    hosts = [value for name, value in headers if name == b"host"]
    if len(origins) > 1 or len(hosts) != 1:
        return True
    origin = origins[0].decode("latin-1")
    if origin in trusted:
        return False
    scheme, _, place = origin.lower().partition("://")
    port = _PORTS.get(scheme, "")
    host = hosts[0].decode("latin-1").lower()
    return not place or place.removesuffix(port) != host.removesuffix(port)


class CrossOriginProtection:
    """Refuses what a browser sends on behalf of another origin (ASVS 3.5.1, 3.5.3): unsafe methods
    and the handshakes of WebSockets. No tokens, no cookies: browsers say by themselves, by
    `Sec-Fetch-Site`, or by `Origin`, where a request comes from. A client that says neither is no
    browser, and passes; so does one with a bearer token of ours.

    Args:
        app: the app behind it.
        trusted_origins: origins of the app's own front ends, such as
            ``("https://app.example.com",)``.
        exempt: a function of the scope: whether a request passes in any case, for instance a
            webhook that proves itself by a signature.

    Raises:
        ConfigurationError: if an argument cannot be one.
    """

    def __init__(
        self,
        # Each framework has types of its own for what is called with scope, receive and send.
        app: Callable[[Any, Any, Any], Awaitable[None]],
        *,
        trusted_origins: Sequence[str] = (),
        exempt: Callable[[Mapping[str, Any]], bool] | None = None,
    ) -> None:
        if not are_origins(trusted_origins):
            raise ConfigurationError(
                f"CrossOriginProtection(trusted_origins={trusted_origins!r}): use a list of origins"
                " as browsers write them, such as 'https://app.example.com'"
            )
        if exempt is not None and not callable(exempt):
            raise ConfigurationError(
                f"CrossOriginProtection(exempt={exempt!r}): use a function of the scope, or None"
            )
        self.app = app
        self._trusted = tuple(trusted_origins)
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if self._passes(scope):
            await self.app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send(_CLOSE)  # before it is accepted, which a server answers with 403
        else:
            refused = JSONResponse({"detail": "cross-origin request refused"}, 403)
            await refused(scope, receive, send)

    def _passes(self, scope: Scope) -> bool:
        kind = scope["type"]
        if kind != "websocket" and (kind != "http" or scope.get("method") in SAFE):
            return True
        if self._exempt is not None and self._exempt(scope):
            return True
        headers = Headers(raw=list(headers_of(scope)))
        # No site can have a browser send this header to another origin that does not allow it. The
        # sub-protocol in which a token may come, any site can.
        if tokens_in(headers.raw):
            return True
        return not crosses_sites(headers, same_site=False, trusted=self._trusted)
