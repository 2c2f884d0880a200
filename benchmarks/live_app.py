"""What uvicorn serves for `benchmarks.live`: sockets and streams that stay open."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta

import psutil
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from asgi_sessions import SessionMiddleware, Sessions

from .apps import KEY

#: Names of the environment's variables: the database, nothing for the app alone; whether ends are
#: told.
URL, NOTIFY = "BENCHMARK_URL", "BENCHMARK_NOTIFY"
#: Seconds between two checks.
CHECK = 5


def make() -> Starlette:
    """The app of the one process."""

    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        async for _ in websocket.iter_text():
            pass

    async def events(request: Request) -> Response:
        async def stream() -> AsyncIterator[str]:
            yield "data: hello\n\n"
            await asyncio.get_running_loop().create_future()

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def size(request: Request) -> Response:
        return PlainTextResponse(str(psutil.Process().memory_info().rss))

    routes = [WebSocketRoute("/socket", socket), Route("/events", events), Route("/size", size)]
    url = os.environ[URL]
    if not url:
        return Starlette(routes=routes)
    sessions = Sessions(
        url,
        secret_key=KEY,
        end_streams=True,
        notify=bool(os.environ[NOTIFY]),
        socket_check_interval=timedelta(seconds=CHECK),
    )

    async def end_all(request: Request) -> Response:
        count = await sessions.end_all_sessions(request.query_params["person"])
        return PlainTextResponse(str(count))

    routes.append(Route("/end-all", end_all))
    app = Starlette(routes=routes, lifespan=sessions.lifespan)
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app
