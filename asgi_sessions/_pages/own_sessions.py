"""What people see and end of their own sessions, and what they are refused: the same for the page,
for JSON and for FastAPI's router, which only ask and answer in different ways.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from starlette.datastructures import Headers
from starlette.types import Scope

from asgi_sessions._model.device import headers_of
from asgi_sessions._model.session import Session

from .cross_origin import SAFE, crosses_sites
from .negotiation import htmx_redirect
from .options import PRIVATE, RouteOptions

#: Sessions that are listed at most, the newest; and ended ones.
_MOST_SHOWN = 1000
_MOST_ENDED = 50


class Context(Protocol):
    """What has to be known of a request: its session, or why there is none, or the outage that
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


class SessionMethods(Protocol):
    """What is asked of `Sessions`, whose methods these are."""

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


class Refused(Exception):
    """A request that gets nothing.

    Args:
        status: of the answer.
        detail: in a few words, for programs. The texts for people are named after it.
        parts: what the placeholders of the text stand for.
        facts: what programs are told besides.
        url: where people can do something about it.
        headers: that the answer has besides.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        parts: Mapping[str, str] | None = None,
        facts: Mapping[str, Any] | None = None,
        url: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.name = detail.replace(" ", "_").replace("-", "_")
        self.parts = parts or {}
        self.url = url
        self.headers = {**PRIVATE, **(headers or {})}
        self.content = {"detail": detail, **(facts or {})}


@dataclass(frozen=True, kw_only=True)
class Listed:
    """The sessions of a person.

    Attributes:
        current: the one that asks.
        live: that one first, then the others by when they were last seen.
        ended: what ended of late, the last one first; None if nobody has asked.
    """

    current: Session
    live: Sequence[Session]
    ended: Sequence[Session] | None

    def content(self) -> dict[str, Any]:
        """As JSON."""
        content = {"sessions": [self._facts(one) for one in self.live]}
        if self.ended is not None:
            content["ended"] = [self._facts(one) for one in self.ended]
        return content

    def _facts(self, session: Session) -> dict[str, Any]:
        return {
            "sid": session.sid,
            "current": session.sid == self.current.sid,
            "device": session.device,
            "ip_address": session.ip_address,
            "auth_provider": session.auth_provider,
            "bearer": session.bearer,
            "bound": session.bound,
            "actor_id": session.actor_id,
            "actor_reason": session.actor_reason,
            "started_at": session.started_at.isoformat(),
            "last_seen_at": session.last_seen_at.isoformat(),
            "expires_at": session.expires_at.isoformat(),
            "ended_at": session.ended_at and session.ended_at.isoformat(),
            "end_reason": session.end_reason,
        }


class OwnSessions:
    """Of the person who is logged in, the sessions in this app alone.

    Args:
        sessions: whose.
        options: what the app decides.
        context: what is known of a request.
        trusted: origins of the app's own front ends.
        same_site: whether sister hosts may change something, too.
    """

    def __init__(
        self,
        sessions: SessionMethods,
        options: RouteOptions,
        *,
        context: Callable[[Scope], Context],
        trusted: Sequence[str],
        same_site: bool,
    ) -> None:
        self._sessions = sessions
        self._options = options
        self._context = context
        self._trusted = trusted
        self._same_site = same_site

    def session_of(self, scope: Scope) -> Session:
        """Whose request it is.

        Raises:
            Refused: if another site has sent it, or nobody is logged in.
            SessionsUnavailable: if nobody knows whether somebody is.
        """
        headers = Headers(raw=list(headers_of(scope)))
        context = self._context(scope)
        # A token is nothing that other sites have browsers send.
        if (
            scope.get("method", "") not in SAFE
            and not context.bearer
            and crosses_sites(headers, same_site=self._same_site, trusted=self._trusted)
        ):
            raise Refused(403, "cross-site request refused")
        if context.error is not None:
            raise context.error  # to say that nobody is logged in would be a guess
        if context.session is None:
            url = self._options.login_url
            raise Refused(
                401,
                "not logged in",
                facts={"reason": context.end_reason},
                url=url,
                headers=htmx_redirect(headers, url),
            )
        return context.session

    async def listed(self, current: Session, *, ended: bool) -> Listed:
        """What there is.

        Args:
            current: whose request it is.
            ended: also what has ended of late.
        """
        live = await self._listed(current, limit=_MOST_SHOWN)
        others = [one for one in live if one.sid != current.sid]
        others.sort(key=lambda one: one.last_seen_at, reverse=True)
        over = None
        if ended:
            known = await self._listed(current, include_ended=True, limit=_MOST_SHOWN)
            dated = [(one.ended_at, one.sid, one) for one in known if one.ended_at is not None]
            over = [one for *_, one in sorted(dated, reverse=True)[:_MOST_ENDED]]
        return Listed(current=current, live=[current, *others], ended=over)

    def _listed(self, session: Session, **which: Any) -> Awaitable[list[Session]]:  # noqa: ANN401 -- passed on
        return self._sessions.list_sessions(session.person_id, app_id=session.app_id, **which)

    async def end(self, scope: Scope, current: Session, sid: str) -> int | None:
        """End one; how many were live, None for a logout.

        Raises:
            Refused: if it is not theirs, or their login is too old for that.
        """
        if sid == current.sid:  # to leave is always allowed
            await self._sessions.end_session(scope)
            return None
        self._check_fresh(scope, current)
        other = await self._sessions.get_by_id(sid)
        # In another app, the same id may be somebody else.
        if other is None or _owner(other) != _owner(current):
            raise not_found()
        await self._sessions.end_session_by_id(
            sid, person_id=current.person_id, app_id=current.app_id
        )
        return int(other.ended_at is None)

    async def end_others(self, scope: Scope, current: Session) -> int:
        """End all but this one; how many.

        Raises:
            Refused: if their login is too old for that.
        """
        self._check_fresh(scope, current)
        return await self._sessions.end_other_sessions(scope)

    def _check_fresh(self, scope: Scope, current: Session) -> None:
        fresh_for = self._options.fresh_for
        if fresh_for is None or self._sessions.is_fresh(scope, fresh_for):
            return
        since = current.authenticated_at
        url = self._options.confirm_url or self._options.login_url
        raise Refused(
            403,
            "log in again first",
            facts={
                "authenticated_at": since and since.isoformat(),
                "max_age": fresh_for.total_seconds(),
            },
            url=url,
            headers=htmx_redirect(Headers(raw=list(headers_of(scope))), url),
        )


def not_found() -> Refused:
    """There is none such; whose it may be is not told."""
    return Refused(404, "not found")


def _owner(session: Session) -> tuple[str, str]:
    return session.person_id, session.app_id
