"""The routes on which people see and end their own sessions: JSON, and a page for browsers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from starlette.datastructures import Headers, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_sessions._model.device import headers_of
from asgi_sessions._model.device_name import device_name
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import SID_PATTERN

from .frame import Frame
from .html import STYLE, DevicesPage, devices_page, message_page
from .negotiation import prefers_html
from .options import PAGE, PRIVATE, RouteOptions
from .own_sessions import OwnSessions, Refused, not_found

#: Bytes of a query that are looked at.
_QUERY_LENGTH = 1024

_READS = ("GET", "HEAD")
_NOT_LOGGED_IN = 401
_STYLE_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",  # its URL tells its version
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A request, without what its app was mounted at.

    Attributes:
        scope: its.
        html: whether it is answered with HTML.
        parts: the segments of its path.
        base: how its URL leads to the list, relative: no proxy or mount can get that wrong.
        query: what its URL asks for.
    """

    scope: Scope
    html: bool
    parts: list[str]
    base: str
    query: QueryParams

    @property
    def is_link(self) -> bool:
        """Whether no form has led to it, not even by a redirect of ours: of what follows on a form,
        the page's policy lets browsers go to no other site, where the login may lead.
        """
        led = "closed" in self.query or "left" in self.query
        return self.scope.get("method") in _READS and not led


class SessionRoutes:
    """An ASGI app to be mounted: for the logged-in person, and their sessions in this app alone.

    Args:
        own: what they see and end.
        options: what the app decides.
        now: the clock.
    """

    def __init__(
        self, own: OwnSessions, options: RouteOptions, *, now: Callable[[], datetime]
    ) -> None:
        self._own = own
        self._options = options
        self._now = now
        device_name("-")  # reads the rules of the library now rather than at the first request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._respond(scope)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        headers = Headers(raw=list(headers_of(scope)))
        html = self._options.html and prefers_html(headers.get("accept", ""))
        parts = _parts(scope)
        query = QueryParams(scope.get("query_string", b"")[:_QUERY_LENGTH])
        base = _base(scope, len(parts))
        asked = _Asked(scope=scope, html=html, parts=parts, base=base, query=query)
        method = scope.get("method", "")
        if parts == ["style.css"] and self._options.html and method in _READS:
            return Response(STYLE, media_type="text/css", headers=_STYLE_HEADERS)
        try:
            answer = self._answer_of(parts, method)
            return await answer(asked, self._own.session_of(scope))
        except Refused as refusal:
            return await self._refuse(asked, refusal)

    def _answer_of(
        self, parts: list[str], method: str
    ) -> Callable[[_Asked, Session], Awaitable[Response]]:
        """What a method does at an address.

        Raises:
            Refused: if there is no such address, or if it does not take the method.
        """
        methods: Mapping[str, Callable[[_Asked, Session], Awaitable[Response]]]
        match parts:
            case []:
                methods = dict.fromkeys(_READS, self._list)
            case ["end-others"]:
                methods = {"POST": self._end_others}
            case [sid] if SID_PATTERN.fullmatch(sid):
                methods = {"DELETE": self._end}
            case [sid, "end"] if SID_PATTERN.fullmatch(sid):
                methods = {"POST": self._end}
            case _:
                raise not_found()
        if method not in methods:
            allowed = ", ".join(methods)
            parts_of_text = {"methods": allowed}
            headers = {"Allow": allowed}
            raise Refused(405, "method not allowed", parts=parts_of_text, headers=headers)
        return methods[method]

    # --- what is done -----------------------------------------------------------------------------

    async def _list(self, asked: _Asked, session: Session) -> Response:
        listed = await self._own.listed(session, ended=asked.query.get("ended") == "1")
        if not asked.html:
            return JSONResponse(listed.content(), headers=PRIVATE)
        frame = await self._frame(asked)
        page = DevicesPage(
            **vars(frame),
            current=session,
            live=listed.live,
            ended=listed.ended,
            closed=_count(asked.query.get("closed", "")),
            now=self._now(),
            scope=asked.scope,
        )
        if self._options.template is not None:  # whose style is the app's own affair
            headers = {name: PAGE[name] for name in ("Cache-Control", "Vary")}
            return HTMLResponse(self._options.template(page), headers=headers)
        return HTMLResponse(devices_page(page), headers=PAGE)

    async def _end(self, asked: _Asked, session: Session) -> Response:
        return self._done(asked, await self._own.end(asked.scope, session, asked.parts[0]))

    async def _end_others(self, asked: _Asked, session: Session) -> Response:
        count = await self._own.end_others(asked.scope, session)
        if asked.html:
            return self._done(asked, count)
        return JSONResponse({"ended": count}, headers=PRIVATE)

    # --- what is answered -------------------------------------------------------------------------

    def _done(self, asked: _Asked, count: int | None) -> Response:
        if not asked.html:
            return Response(status_code=204, headers=PRIVATE)
        query = "left=1" if count is None else f"closed={count}"
        return RedirectResponse(f"{asked.base}?{query}", 303, headers=PRIVATE)

    async def _refuse(self, asked: _Asked, refusal: Refused) -> Response:
        if not asked.html:
            return JSONResponse(refusal.content, refusal.status, headers=refusal.headers)
        if asked.is_link and refusal.url is not None and "HX-Redirect" not in refusal.headers:
            return RedirectResponse(refusal.url, 303, headers=PRIVATE)
        status, name = refusal.status, refusal.name
        links = {} if refusal.url is None else {"log_in": refusal.url}
        if status != _NOT_LOGGED_IN:
            links["title"] = asked.base
        elif "left" in asked.query:  # which is no fault
            status, name = 200, "logged_out"
        page = message_page(await self._frame(asked), name, refusal.parts, links)
        return HTMLResponse(page, status, headers={**refusal.headers, **PAGE})

    def _frame(self, asked: _Asked) -> Awaitable[Frame]:
        accepted = Headers(raw=list(headers_of(asked.scope))).get("accept-language", "")
        return self._options.framing.of(asked.scope, asked.base, accepted)


def _parts(scope: Scope) -> list[str]:
    """The segments of the path below what the app is mounted at. Starlette leaves that in the path
    and adds it to the root path; Litestar takes it out. What a proxy has cut off may stand in the
    root path alone.
    """
    path: str = scope.get("path", "")
    root = scope.get("root_path", "").rstrip("/")
    for prefix in (root, root.removeprefix(scope.get("app_root_path", "").rstrip("/"))):
        if prefix and f"{path}/".startswith(f"{prefix}/"):
            path = path[len(prefix) :]
            break
    path = path.strip("/")
    return path.split("/") if path else []


def _base(scope: Scope, depth: int) -> str:
    """The list's address, relative to that of a request so many segments below it."""
    url = (scope.get("raw_path") or scope.get("path", "").encode()).decode("latin-1")
    if not url.endswith("/"):
        depth -= 1
    if depth < 0:  # Litestar answers without the slash, too
        return f"./{url.rpartition('/')[2]}/"
    return "../" * depth or "./"


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None  # noqa: PLR2004 -- a number to be read
