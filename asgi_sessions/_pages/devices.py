"""The routes on which people see and end their own sessions: JSON, and a page for browsers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol

from starlette.datastructures import Headers, QueryParams
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_sessions._model.device import headers_of
from asgi_sessions._model.device_name import device_name
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import SID_PATTERN

from .cross_origin import crosses_sites
from .html import STYLE, DevicesPage, devices_page, message_page
from .negotiation import prefers_html
from .options import PRIVATE, RouteOptions

#: Sessions that are listed at most, the newest; and ended ones.
_MOST_SHOWN = 1000
_MOST_ENDED = 50
#: Bytes of a query that are looked at.
_QUERY_LENGTH = 1024

_READS = ("GET", "HEAD")
_STYLE_HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",  # its URL tells its version
    "X-Content-Type-Options": "nosniff",
}


class _Context(Protocol):
    """What the page has to know of a request: its session, or why there is none, or the outage that
    keeps that from being known.
    """

    @property
    def session(self) -> Session | None: ...
    @property
    def end_reason(self) -> str | None: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def bearer(self) -> bool: ...


class _OwnSessions(Protocol):
    """What the page asks of `Sessions`, whose methods these are."""

    def list_sessions(
        self, person_id: object, *, app_id: str, include_ended: bool = ..., limit: int = ...
    ) -> Awaitable[list[Session]]: ...
    def get_by_id(self, sid_or_conn: str, /) -> Awaitable[Session | None]: ...
    def end_session(self, conn: Scope, /) -> Awaitable[Session | None]: ...
    def end_session_by_id(
        self, sid: str, *, person_id: object, app_id: str
    ) -> Awaitable[Session | None]: ...
    def end_other_sessions(self, conn: Scope, /) -> Awaitable[int]: ...
    def is_fresh(self, conn: Scope, max_age: timedelta, /) -> bool: ...


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A request, without what its app was mounted at.

    Attributes:
        scope: its.
        html: whether it is answered with HTML.
        parts: the segments of its path.
        base: how its URL leads to the list, relative: no proxy or mount can get that wrong.
    """

    scope: Scope
    html: bool
    parts: list[str]
    base: str


class SessionRoutes:
    """An ASGI app to be mounted: for the logged-in person, and their sessions in this app alone.

    Args:
        sessions: whose.
        options: what the app decides.
        context: what is known of a request.
        now: the clock.
        trusted: origins of the app's own front ends.
        same_site: whether sister hosts may post here, too.
    """

    def __init__(
        self,
        sessions: _OwnSessions,
        options: RouteOptions,
        *,
        context: Callable[[Scope], _Context],
        now: Callable[[], datetime],
        trusted: Sequence[str],
        same_site: bool,
    ) -> None:
        self._sessions = sessions
        self._options = options
        self._context = context
        self._now = now
        self._trusted = trusted
        self._same_site = same_site
        self._page_headers = options.page_headers()
        device_name("-")  # reads the rules of the library now rather than at the first request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._respond(scope)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope) -> Response:
        headers = Headers(raw=list(headers_of(scope)))
        html = self._options.html and prefers_html(headers.get("accept", ""))
        parts = _parts(scope)
        asked = _Asked(scope=scope, html=html, parts=parts, base=_base(scope, len(parts)))
        method = scope.get("method", "")
        if parts == ["style.css"] and self._options.html and method in _READS:
            return Response(STYLE, media_type="text/css", headers=_STYLE_HEADERS)
        methods = self._methods(parts)
        if methods is None:
            return self._not_found(asked)
        if method not in methods:
            allowed = ", ".join(methods)
            text = f"This address takes {allowed}."
            return self._refuse(asked, 405, "Method not allowed", text, headers={"Allow": allowed})
        context = self._context(scope)
        # A token is nothing that other sites have browsers send.
        if (
            method not in _READS
            and not context.bearer
            and crosses_sites(headers, same_site=self._same_site, trusted=self._trusted)
        ):
            text = "Another site has sent you here. Nothing was ended."
            return self._refuse(asked, 403, "Cross-site request refused", text)
        if context.error is not None:
            raise context.error  # to say that nobody is logged in would be a guess
        session = context.session
        if session is None:
            return self._refuse(
                asked,
                401,
                "Not logged in",
                "Log in to see where else you are.",
                facts={"reason": context.end_reason},
                url=self._options.login_url,
            )
        return await methods[method](asked, session)

    def _methods(
        self, parts: list[str]
    ) -> Mapping[str, Callable[[_Asked, Session], Awaitable[Response]]] | None:
        """What can be done at an address; None if there is none such."""
        match parts:
            case []:
                return dict.fromkeys(_READS, self._list)
            case ["end-others"]:
                return {"POST": self._end_others}
            case [sid] if SID_PATTERN.fullmatch(sid):
                return {"DELETE": self._end}
            case [sid, "end"] if SID_PATTERN.fullmatch(sid):
                return {"POST": self._end}
        return None

    # --- what is done -----------------------------------------------------------------------------

    async def _list(self, asked: _Asked, session: Session) -> Response:
        query = QueryParams(asked.scope.get("query_string", b"")[:_QUERY_LENGTH])
        live = await self._listed(session, limit=_MOST_SHOWN)
        others = [one for one in live if one.sid != session.sid]
        others.sort(key=lambda one: one.last_seen_at, reverse=True)
        ended = None
        if query.get("ended") == "1":
            known = await self._listed(session, include_ended=True, limit=_MOST_SHOWN)
            over = [(one.ended_at, one.sid, one) for one in known if one.ended_at is not None]
            ended = [one for *_, one in sorted(over, reverse=True)[:_MOST_ENDED]]
        if not asked.html:
            content = {"sessions": [_facts(one, session) for one in [session, *others]]}
            if ended is not None:
                content["ended"] = [_facts(one, session) for one in ended]
            return JSONResponse(content, headers=PRIVATE)
        page = DevicesPage(
            current=session,
            live=[session, *others],
            ended=ended,
            closed=_count(query.get("closed", "")),
            base=asked.base,
            home_url=self._options.home_url,
            now=self._now(),
            scope=asked.scope,
        )
        if self._options.template is not None:  # whose style is the app's own affair
            return HTMLResponse(self._options.template(page), headers=PRIVATE)
        return HTMLResponse(devices_page(page), headers=self._page_headers)

    def _listed(self, session: Session, **which: Any) -> Awaitable[list[Session]]:  # noqa: ANN401 -- passed on
        return self._sessions.list_sessions(session.person_id, app_id=session.app_id, **which)

    async def _end(self, asked: _Asked, session: Session) -> Response:
        sid = asked.parts[0]
        if sid == session.sid:  # to leave is always allowed
            await self._sessions.end_session(asked.scope)
            return self._done(asked, None)
        if not self._fresh(asked):
            return self._confirm(asked, session)
        other = await self._sessions.get_by_id(sid)
        # In another app, the same id may be somebody else.
        if other is None or _owner(other) != _owner(session):
            return self._not_found(asked)
        await self._sessions.end_session_by_id(
            sid, person_id=session.person_id, app_id=session.app_id
        )
        return self._done(asked, int(other.ended_at is None))

    async def _end_others(self, asked: _Asked, session: Session) -> Response:
        if not self._fresh(asked):
            return self._confirm(asked, session)
        count = await self._sessions.end_other_sessions(asked.scope)
        if asked.html:
            return self._done(asked, count)
        return JSONResponse({"ended": count}, headers=PRIVATE)

    def _fresh(self, asked: _Asked) -> bool:
        fresh_for = self._options.fresh_for
        return fresh_for is None or self._sessions.is_fresh(asked.scope, fresh_for)

    # --- what is answered -------------------------------------------------------------------------

    def _done(self, asked: _Asked, count: int | None) -> Response:
        if not asked.html:
            return Response(status_code=204, headers=PRIVATE)
        query = "" if count is None else f"?closed={count}"
        return RedirectResponse(f"{asked.base}{query}", 303, headers=PRIVATE)

    def _confirm(self, asked: _Asked, session: Session) -> Response:
        since, fresh_for = session.authenticated_at, self._options.fresh_for
        return self._refuse(
            asked,
            403,
            "Log in again first",
            "Your login is too old to end other sessions with it. Nothing was ended.",
            facts={
                "authenticated_at": since and since.isoformat(),
                "max_age": fresh_for and fresh_for.total_seconds(),
            },
            url=self._options.confirm_url or self._options.login_url,
        )

    def _not_found(self, asked: _Asked) -> Response:
        return self._refuse(asked, 404, "Not found", "You have no such session.")

    def _refuse(
        self,
        asked: _Asked,
        status: int,
        title: str,
        text: str,
        *,
        facts: Mapping[str, Any] | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        headers = headers or {}
        if not asked.html:
            content = {"detail": title.lower(), **(facts or {})}
            return JSONResponse(content, status, headers={**PRIVATE, **headers})
        if url is not None:
            return RedirectResponse(url, 303, headers=PRIVATE)
        body = message_page(title, text, asked.base, self._options.home_url)
        return HTMLResponse(body, status, headers={**self._page_headers, **headers})


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


def _owner(session: Session) -> tuple[str, str]:
    return session.person_id, session.app_id


def _count(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None  # noqa: PLR2004 -- a number to be read


def _facts(session: Session, current: Session) -> dict[str, Any]:
    """A session as JSON."""
    facts = {
        "sid": session.sid,
        "current": session.sid == current.sid,
        "device": session.device,
        "ip_address": session.ip_address,
        "auth_provider": session.auth_provider,
        "started_at": session.started_at.isoformat(),
        "last_seen_at": session.last_seen_at.isoformat(),
        "expires_at": session.expires_at.isoformat(),
    }
    if session.bearer:
        facts["bearer"] = True
    if session.bound:
        facts["bound"] = True
    if session.actor_id is not None:
        facts |= {"actor_id": session.actor_id, "actor_reason": session.actor_reason}
    if session.ended_at is not None:
        facts |= {"ended_at": session.ended_at.isoformat(), "end_reason": session.end_reason}
    return facts
