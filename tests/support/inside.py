"""What no public name tells, or lets a test wait for: the private names behind it stand here once.

Apps need none of this. They wait for nobody, look at nothing on the spot, and what is open in them
they opened themselves.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from asgi_sessions import Sessions
from asgi_sessions._database.drivers.base import Driver
from asgi_sessions._service.core import TOUCH
from asgi_sessions._store.store import Store


async def touched() -> None:
    """Wait until the uses that are noted beside requests have been noted."""
    touches = [task for task in asyncio.all_tasks() if task.get_name() == TOUCH]
    if touches:
        await asyncio.wait(touches)


async def settled(sessions: Sessions) -> None:
    """Wait for what runs beside requests: handlers of events that are awaited, and uses noted."""
    await sessions._core.background.settle()


async def check_what_is_open(sessions: Sessions) -> None:
    """Do at once what is done every `socket_check_interval`."""
    await sessions._core.live_connections.check()


def open_sids(sessions: Sessions) -> list[str]:
    """The sessions on which something is open, in any event loop."""
    return [sid for here in sessions._core.live_connections._loops.values() for sid in here.open]


def driver_of(sessions: Sessions) -> Driver:
    """Through which each statement goes: somebody may want to count, change or stop them."""
    return sessions._core.store.engines.here.driver


def opened(
    sessions: Sessions,
    sid: str,
    end: Callable[[], None],
    secret: Callable[[], bytes | None] = lambda: None,
) -> Callable[[], None]:
    """Have something open on a session, which `end` closes. What is returned takes it off again."""
    return sessions._core.live_connections.add(sid, end, secret)


async def run_beside(sessions: Sessions, work: Coroutine[Any, Any, Any]) -> None:
    """Let something run as what runs beside requests does, and wait for it."""
    await sessions._core.background.run(work)


def store_of(sessions: Sessions) -> Store:
    """Where each question to the database has a method of its own: one of them may be answered
    late, or by a fault, while an outage from outside meets all of them.
    """
    return sessions._core.store
