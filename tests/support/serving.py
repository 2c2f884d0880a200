"""An app on a port of its own, served in the event loop of a test."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tests.support.asgi import until


@asynccontextmanager
async def served(app: Any, listening: socket.socket | None = None) -> AsyncIterator[str]:
    """The host and port of a server.

    Args:
        app: what it serves.
        listening: the socket that it takes; None for one of its own.
    """
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="warning", ws="websockets-sansio")
    )
    task = asyncio.create_task(server.serve(None if listening is None else [listening]))
    try:
        await until(lambda: server.started)
        yield f"127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
