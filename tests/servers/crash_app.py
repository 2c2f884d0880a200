"""The app that test_crashes.py kills: ``uvicorn tests.servers.crash_app:app --workers 2``.

Its database and table are named in the environment. Every answer tells who has given it.
"""

from __future__ import annotations

import os
from datetime import timedelta

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import Sessions
from tests.support import KEY, make_app


class Signed:
    """Sets the header ``x-pid`` to the worker's process id."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def signed(message: Message) -> None:
            if message["type"] == "http.response.start":
                pid = (b"x-pid", b"%d" % os.getpid())
                message["headers"] = [*message["headers"], pid]
            await send(message)

        await self._app(scope, receive, signed)


sessions = Sessions(
    os.environ["CRASH_DATABASE_URL"],
    secret_key=KEY,
    table_name=os.environ["CRASH_TABLE_NAME"],
    cookie_secure=False,  # plain http, on the loopback
    touch_interval=timedelta(0),  # every use is noted
)
_app = make_app(sessions)
_app.router.lifespan_context = sessions.lifespan
app = Signed(_app)
