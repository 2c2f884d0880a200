"""A process of an app, served by uvicorn on a loopback port.

python -m tests.cluster.app URL TABLE [KEEP [PATIENCE]]    prints the port, and ends at SIGTERM

KEEP is how many seconds `purge` keeps what has ended, PATIENCE those that the database may take.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
from datetime import timedelta

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions
from tests.servers.process import LOOPBACK
from tests.support import KEY

#: Live sessions that a person may have.
CAP = 6
TOUCH_INTERVAL = timedelta(seconds=1)


def make(url: str, table: str, keep: timedelta, timeout: timedelta) -> tuple[Sessions, Starlette]:
    """The app: every answer is what it sees, or what it has done."""
    sessions = Sessions(
        url,
        secret_key=KEY,
        table_name=table,
        max_sessions_per_person=CAP,
        touch_interval=TOUCH_INTERVAL,
        keep_ended=keep,
        timeout=timeout,
    )

    def seen(request: Request) -> Response:
        return JSONResponse({"sid": request.state.sid, "reason": request.state.session_end_reason})

    async def home(request: Request) -> Response:
        return seen(request)

    async def login(request: Request) -> Response:
        await sessions.start_session(request, {"id": request.query_params["person"]})
        return seen(request)

    async def renew(request: Request) -> Response:
        await sessions.renew_session(request)
        return seen(request)

    async def logout(request: Request) -> Response:
        await sessions.end_session(request)
        return seen(request)

    # What an administrator does: without a cookie.

    async def revoke(request: Request) -> Response:
        session = await sessions.end_session_by_id(request.query_params["sid"])
        return JSONResponse({"reason": session and session.end_reason})

    async def revoke_all(request: Request) -> Response:
        return JSONResponse(await sessions.end_all_sessions(request.query_params["person"]))

    async def purge(request: Request) -> Response:
        return JSONResponse(await sessions.purge())

    async def listed(request: Request) -> Response:
        found = await sessions.list_sessions(request.query_params["person"])
        return JSONResponse([session.sid for session in found])

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/list", listed),
            *(
                Route(f"/{handler.__name__}", handler, methods=["POST"])
                for handler in (login, renew, logout, revoke, revoke_all, purge)
            ),
        ],
        lifespan=sessions.lifespan,
    )
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return sessions, app


async def _main(url: str, table: str, keep: str = "7776000", patience: str = "5") -> None:
    _, app = make(url, table, timedelta(seconds=float(keep)), timedelta(seconds=float(patience)))
    with socket.create_server((LOOPBACK, 0)) as listener:
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_keep_alive=600)
        sys.stdout.write(f"{listener.getsockname()[1]}\n")
        sys.stdout.flush()
        await uvicorn.Server(config).serve([listener])


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(_main(*sys.argv[1:]))
