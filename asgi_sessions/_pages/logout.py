"""The logout route: an ASGI app that any router takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.device import headers_of

# A path of this site, or an absolute URL that the developer wrote out.
_TARGET = re.compile(r"(/(?![/\\])|https?://[!-.0-\[\]-~]+)[!-\[\]-~]*")

#: What browsers leave out of an origin, and clients may leave out of a host.
_PORTS = {"http": ":80", "https": ":443"}
#: What `Clear-Site-Data` may name (W3C Clear Site Data, 3.1).
CLEARED = ("cache", "cookies", "storage", "executionContexts", "clientHints", "*")


class EndSessionEndpoint:
    """Ends the session of the request: ``POST`` only, not across sites, as often as you like.

    Args:
        end_session: `Sessions.end_session`.
        same_site: whether sister hosts may post: they may if they share the cookie.
        redirect_to: where a 303 leads; None for JSON. Fixed here: no request can change it.
        trusted: origins that may post, too.
        clear_site_data: what the browser is told to forget.

    Raises:
        ConfigurationError: if `redirect_to` is neither a path nor a URL.
    """

    def __init__(
        self,
        end_session: Callable[[Scope], Awaitable[object]],
        *,
        same_site: bool,
        redirect_to: str | None,
        trusted: Sequence[str] = (),
        clear_site_data: Sequence[str] = (),
    ) -> None:
        for error in target_fault("redirect_to", redirect_to):
            raise ConfigurationError(error)
        if isinstance(clear_site_data, str) or not set(clear_site_data) <= set(CLEARED):
            raise ConfigurationError(
                f"clear_site_data={clear_site_data!r}: use a list of some of {', '.join(CLEARED)}"
            )
        self._trusted = trusted
        self._cleared = ", ".join(f'"{kind}"' for kind in clear_site_data)
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
        headers = Headers(raw=list(headers_of(scope)))
        if crosses_sites(headers, same_site=self._same_site, trusted=self._trusted):
            return JSONResponse({"detail": "cross-site request refused"}, 403)
        await self._end_session(scope)
        forget = {"Clear-Site-Data": self._cleared} if self._cleared else None
        if self._redirect_to is not None:
            return RedirectResponse(self._redirect_to, 303, headers=forget)
        return JSONResponse({"message": "session ended"}, headers=forget)


def target_fault(name: str, url: object) -> Iterator[str]:
    """What is wrong with an option that says where to lead; None is right."""
    if url is not None and not (isinstance(url, str) and _TARGET.fullmatch(url)):
        yield f"{name}={url!r}: use a path like '/' or a URL like 'https://...'"


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
