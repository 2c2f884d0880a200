"""The routes of one's own sessions for FastAPI, with all that its OpenAPI document says of them."""

# Annotations are real ones here, as in `fastapi.py`.
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.params import Depends as Dependency
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from ._model.session import Session
from ._model.tokens import SID_PATTERN
from ._pages.logout import EndSessionEndpoint
from ._pages.options import PRIVATE
from ._pages.own_sessions import OwnSessions, Refused


class SessionEntry(BaseModel):
    """A login of the person: where and when."""

    sid: str = Field(description="Names the session. It gives no access.")
    current: bool = Field(description="Whether it is the one that asks.")
    device: str = Field(description="Such as Firefox on Linux.")
    ip_address: str | None = Field(description="Where it was started from.")
    auth_provider: str | None = Field(description="Who has authenticated the person.")
    bearer: bool = Field(description="Whether its client sends a token in place of the cookie.")
    bound: bool = Field(description="Whether it is bound to its device.")
    actor_id: str | None = Field(description="Who acts for the person in it, if somebody does.")
    actor_reason: str | None = Field(description="Why somebody acts for the person.")
    started_at: datetime
    last_seen_at: datetime
    expires_at: datetime = Field(description="When it ends at the latest.")
    ended_at: datetime | None = Field(description="Null while it is live.")
    end_reason: str | None = Field(description="Why it has ended.")


class SessionList(BaseModel):
    """The sessions of the person in this app."""

    sessions: list[SessionEntry] = Field(
        description="Those that are live: the current one first, then by when they were last seen."
    )
    ended: list[SessionEntry] | None = Field(
        None, description="If they were asked for: those that have ended, the last one first."
    )


class EndedSessions(BaseModel):
    """What was done."""

    ended: int = Field(description="How many sessions were ended.")


class LoggedOut(BaseModel):
    """What was done."""

    message: str


class NotLoggedIn(BaseModel):
    """There is no session, or none any more."""

    detail: str
    reason: str | None = Field(description="Why the session that was sent is over.")


class SessionsForbidden(BaseModel):
    """The login is too old, or another site has sent the request."""

    detail: str
    authenticated_at: datetime | None = Field(
        None, description="When the person proved who they are."
    )
    max_age: float | None = Field(None, description="How long that counts, in seconds.")


class NoSuchSession(BaseModel):
    """The person has no such session, whoever else may have it."""

    detail: str


_UNAVAILABLE: dict[str, Any] = {
    "description": "The database does not answer. Nobody is logged out by that",
    "content": {"text/plain": {"schema": {"type": "string"}}},
    "headers": {
        "Retry-After": {
            "description": "Seconds after which asking again makes sense",
            "schema": {"type": "integer"},
        }
    },
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": NotLoggedIn, "description": "Nobody is logged in"},
    403: {
        "model": SessionsForbidden,
        "description": "The person has to prove anew who they are, or another site has sent this",
    },
    404: {"model": NoSuchSession, "description": "The person has no such session"},
    503: _UNAVAILABLE,
}


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: _RESPONSES[status] for status in statuses}


class _Route(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """A handler that answers refusals as `Sessions.routes` does."""
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                return await handle(request)
            except Refused as refusal:
                return JSONResponse(refusal.content, refusal.status, headers=refusal.headers)

        return handler


def make_router(
    own: OwnSessions, logout: EndSessionEndpoint, schemes: Sequence[Dependency]
) -> APIRouter:
    """See `asgi_sessions.fastapi.session_router`.

    Args:
        own: what people see and end.
        logout: the logout route.
        schemes: how a client may say who it is.
    """
    router = APIRouter(tags=["sessions"], route_class=_Route, dependencies=schemes)

    async def session_of(request: Request) -> Session:
        return own.session_of(request.scope)

    # As a dependency it comes before what else may be wrong with the request.
    known = Depends(session_of)

    @router.get(
        "/",
        operation_id="list_sessions",
        response_model=SessionList,
        responses=_responses(401, 503),
    )
    async def list_sessions(
        current: Annotated[Session, known],
        ended: Annotated[bool, Query(description="Also what has ended of late.")] = False,  # noqa: FBT002 -- a query's
    ) -> Response:
        """Where the person is logged in."""
        listed = await own.listed(current, ended=ended)
        return JSONResponse(listed.content(), headers=PRIVATE)

    @router.delete(
        "/{sid}",
        operation_id="end_session",
        status_code=204,
        responses=_responses(401, 403, 404, 503),
    )
    async def end_session(
        request: Request,
        current: Annotated[Session, known],
        sid: Annotated[
            str, Path(pattern=f"^{SID_PATTERN.pattern}$", description="Of one of their sessions.")
        ],
    ) -> Response:
        """End one session. To end the one that asks is to log out."""
        await own.end(request.scope, current, sid)
        return Response(status_code=204, headers=PRIVATE)

    @router.post(
        "/end-others",
        operation_id="end_other_sessions",
        response_model=EndedSessions,
        responses=_responses(401, 403, 503),
    )
    async def end_other_sessions(
        request: Request,
        current: Annotated[Session, known],
    ) -> Response:
        """End all sessions but the one that asks."""
        return JSONResponse(
            {"ended": await own.end_others(request.scope, current)}, headers=PRIVATE
        )

    @router.post(
        "/logout",
        operation_id="logout",
        response_model=LoggedOut,
        responses=_responses(403, 503),
        openapi_extra={"security": [{}]},  # or without
    )
    async def log_out(request: Request) -> Response:
        """Log out. Nothing is wrong with it if nobody is logged in."""
        return await logout.respond(request.scope)

    return router
