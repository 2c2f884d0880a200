"""The logout route: an ASGI app that any router takes."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from inspect import Parameter, isawaitable, signature
from typing import Any

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.device import headers_of
from asgi_sessions._model.session import Session

from .cross_origin import crosses_sites
from .negotiation import htmx_redirect

# A path of this site, or an absolute URL that the developer wrote out.
_TARGET = re.compile(r"(/(?![/\\])|https?://[!-.0-\[\]-~]+)[!-\[\]-~]*")

#: What `Clear-Site-Data` may name (W3C Clear Site Data, 3.1).
CLEARED = ("cache", "cookies", "storage", "executionContexts", "clientHints", "*")


#: Where a logout leads, decided by the session that has ended and, if it asks for two arguments, by
#: the data that it had. None for no redirect.
_Answer = str | None | Awaitable[str | None]
Redirect = (
    Callable[[Session | None], _Answer] | Callable[[Session | None, Mapping[str, Any]], _Answer]
)


class EndSessionEndpoint:
    """Ends the session of the request: ``POST`` only, not across sites, as often as you like.

    Args:
        end_session: `Sessions.end_session`.
        same_site: whether sister hosts may post: they may if they share the cookie.
        redirect_to: where a 303 leads, or a function that says so; None for JSON. No request can
            change it.
        trusted: origins that may post, too.
        clear_site_data: what the browser is told to forget.
        by_cookie: whether a request has its session by a cookie, which other sites have browsers
            send, too; a token they do not have.

    Raises:
        ConfigurationError: if `redirect_to` is neither a path nor a URL, nor a function.
    """

    def __init__(
        self,
        end_session: Callable[[Scope], Awaitable[Session | None]],
        *,
        same_site: bool,
        redirect_to: str | Redirect | None,
        trusted: Sequence[str] = (),
        clear_site_data: Sequence[str] = (),
        by_cookie: Callable[[Scope], bool] = lambda _: True,
    ) -> None:
        decide: Any = redirect_to if callable(redirect_to) else None
        for error in () if decide else target_fault("redirect_to", redirect_to):
            raise ConfigurationError(f"{error}, or a function of the session")
        if isinstance(clear_site_data, str) or not set(clear_site_data) <= set(CLEARED):
            raise ConfigurationError(
                f"clear_site_data={clear_site_data!r}: use a list of some of {', '.join(CLEARED)}"
            )
        self._trusted = trusted
        self._by_cookie = by_cookie
        self._cleared = ", ".join(f'"{kind}"' for kind in clear_site_data)
        self._end_session = end_session
        self._same_site = same_site
        self._redirect_to = redirect_to if isinstance(redirect_to, str) else None
        self._decide = decide
        self._asks_for_data = decide is not None and _asks_for_two(decide)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self.respond(scope)
        await response(scope, receive, send)

    async def respond(self, scope: Scope) -> Response:
        """The answer to one request."""
        if scope.get("method") != "POST":
            return JSONResponse({"detail": "use POST"}, 405, headers={"Allow": "POST"})
        headers = Headers(raw=list(headers_of(scope)))
        crosses = crosses_sites(headers, same_site=self._same_site, trusted=self._trusted)
        if crosses and self._by_cookie(scope):
            return JSONResponse({"detail": "cross-site request refused"}, 403)
        # They are gone afterwards.
        data = [dict(scope.get("session") or {})] if self._asks_for_data else []
        session = await self._end_session(scope)
        forget = {"Clear-Site-Data": self._cleared} if self._cleared else {}
        target = self._redirect_to if self._decide is None else await self._decided(session, *data)
        if led := htmx_redirect(headers, target):
            return Response(status_code=204, headers={**forget, **led})
        if target is not None:
            return RedirectResponse(target, 303, headers=forget)
        return JSONResponse({"message": "session ended"}, headers=forget)

    async def _decided(self, session: Session | None, *data: Mapping[str, Any]) -> Any:  # noqa: ANN401 -- looked at here
        target = self._decide(session, *data)
        if isawaitable(target):
            target = await target
        for error in target_fault("redirect_to(...)", target):
            raise ConfigurationError(error)
        return target


def target_fault(name: str, url: object) -> Iterator[str]:
    """What is wrong with an option that says where to lead; None is right."""
    if url is not None and not (isinstance(url, str) and _TARGET.fullmatch(url)):
        yield f"{name}={url!r}: use a path like '/' or a URL like 'https://...'"


def _asks_for_two(function: Callable[..., object]) -> bool:
    """Whether a function cannot be called with one argument."""
    kinds = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature(function).parameters.values()
    needed = [one for one in parameters if one.kind in kinds and one.default is Parameter.empty]
    return bool(needed[1:])
