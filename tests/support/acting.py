"""Staff who act for people: what their app has for it."""

from __future__ import annotations

from datetime import timedelta

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import ImpersonationRefused, Sessions


def acting_routes(sessions: Sessions) -> list[Route]:
    """To act for `?person=` (for so many `?minutes=`, and to answer with `?status=`), and to stop
    it. Each says whose session the request has then.
    """

    def seen(request: Request, status: int = 200) -> Response:
        session = sessions.current(request)
        whose = session and {"person_id": session.person_id, "actor_id": session.actor_id}
        return JSONResponse({"sid": session and session.sid, **(whose or {})}, status)

    async def act(request: Request) -> Response:
        query = request.query_params
        try:
            await sessions.impersonate(
                request,
                {"id": query["person"]},
                reason=query.get("reason", "ticket 7"),
                lifetime=timedelta(minutes=int(query.get("minutes", "60"))),
            )
        except ImpersonationRefused as refused:
            return JSONResponse({"refused": refused.reason, "why": str(refused)}, 403)
        return seen(request, int(query.get("status", "200")))

    async def back(request: Request) -> Response:
        await sessions.stop_impersonating(request)
        return seen(request, int(request.query_params.get("status", "200")))

    return [Route("/act", act, methods=["POST"]), Route("/back", back, methods=["POST"])]
