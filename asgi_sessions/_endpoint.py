"""The logout route: an ASGI app that any router takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from ._device import headers_of
from ._errors import ConfigurationError

# A path of this site, or an absolute URL that the developer wrote out.
_TARGET = re.compile(r"(/(?![/\\])|https?://[!-.0-\[\]-~]+)[!-\[\]-~]*")


class EndSessionEndpoint:
    """Ends the session of the request: ``POST`` only, not across sites, as often as you like.

    Args:
        end_session: `Sessions.end_session`.
        same_site: whether sister hosts may post: they may if they share the cookie.
        redirect_to: where a 303 leads; None for JSON. Fixed here: no request can change it.

    Raises:
        ConfigurationError: if `redirect_to` is neither a path nor a URL.
    """

    def __init__(
        self,
        end_session: Callable[[Scope], Awaitable[object]],
        *,
        same_site: bool,
        redirect_to: str | None,
    ) -> None:
        for fault in target_fault("redirect_to", redirect_to):
            raise ConfigurationError(fault)
        self._end_session = end_session
        self._same_site = same_site
        self._redirect_to = redirect_to

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._respond(scope)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        if scope.get("method") != "POST":
            return JSONResponse({"detail": "use POST"}, 405, headers={"Allow": "POST"})
        if crosses_sites(Headers(raw=list(headers_of(scope))), same_site=self._same_site):
            return JSONResponse({"detail": "cross-site request refused"}, 403)
        await self._end_session(scope)
        if self._redirect_to is not None:
            return RedirectResponse(self._redirect_to, 303)
        return JSONResponse({"message": "session ended"})


def target_fault(name: str, url: object) -> Iterator[str]:
    """What is wrong with an option that says where to lead; None is right."""
    if url is not None and not (isinstance(url, str) and _TARGET.fullmatch(url)):
        yield f"{name}={url!r}: use a path like '/' or a URL like 'https://...'"


def crosses_sites(headers: Headers, *, same_site: bool) -> bool:
    """Whether a browser sent this on behalf of another site (ASVS 3.5.1): by Sec-Fetch-Site, or
    by Origin where it is not sent. A client that sends neither is no browser.
    """
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        return fetch_site not in ({"same-origin", "none"} | ({"same-site"} if same_site else set()))
    origin = headers.get("origin")
    if origin is None:
        return False
    host = origin.partition("://")[2].lower()
    return not host or host != headers.get("host", "").lower()
