"""What uvicorn serves for figure k; told by the environment which app."""

from __future__ import annotations

import os
from contextlib import AbstractAsyncContextManager
from typing import Any

from asgi_sessions import Sessions

from .apps import KEY, cookie, ours
from .load import App

#: Names of the environment's variables: the database, nothing for the signed cookie; the table.
URL, TABLE = "BENCHMARK_URL", "BENCHMARK_TABLE"


def make() -> App:
    """The app of a worker."""
    url = os.environ[URL]
    if not url:
        return cookie()
    sessions = Sessions(url, secret_key=KEY, table_name=os.environ[TABLE])
    return Connected(ours(sessions), sessions)


class Connected:
    """Connects before the first request, as an app's lifespan does.

    Args:
        app: the app.
        sessions: what is connected.
    """

    def __init__(self, app: App, sessions: AbstractAsyncContextManager[object]) -> None:
        self.app = app
        self._sessions = sessions

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- as App
        """Serve one connection, or the lifespan."""
        if scope["type"] != "lifespan":
            await self.app(scope, receive, send)
            return
        await receive()
        async with self._sessions:
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})
