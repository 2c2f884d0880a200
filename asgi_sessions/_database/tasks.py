"""Tasks that belong to an event loop rather than to a request."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextvars import Context
from typing import Any

from asgi_sessions._errors import ConfigurationError


def running_loop() -> asyncio.AbstractEventLoop:
    """The running event loop of asyncio.

    Raises:
        ConfigurationError: without one, as under trio.
    """
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        raise ConfigurationError(
            "asgi_sessions runs on asyncio, as the drivers of its databases do, and no event loop "
            "of asyncio runs here: serve the app with asyncio (hypercorn --worker-class asyncio, "
            "uvicorn), and test it with anyio's backend 'asyncio', rather than with trio"
        ) from None


def own_task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task of the running loop that outlives the request, or whoever else has begun it."""
    # An empty context: what a request has set must not live on in it.
    task = asyncio.get_running_loop().create_task(work, context=Context())
    # As asyncio.gather does: a loop that is closed without a word (as tests do) is left in good
    # order all the same.
    setattr(task, "_log_destroy_pending", False)  # noqa: B010 -- in no stub
    return task
