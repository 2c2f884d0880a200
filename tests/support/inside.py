"""What no public name tells, or lets a test wait for: the private names behind it stand here once.

Apps need none of this. They wait for nobody, look at nothing on the spot, and what is open in them
they opened themselves.
"""

from __future__ import annotations

import asyncio

from asgi_sessions import Sessions
from asgi_sessions._database.drivers.base import Driver
from asgi_sessions._service.core import TOUCH


async def touched() -> None:
    """Wait until the uses that are noted beside requests have been noted."""
    touches = [task for task in asyncio.all_tasks() if task.get_name() == TOUCH]
    if touches:
        await asyncio.wait(touches)


async def settled(sessions: Sessions) -> None:
    """Wait for what runs beside requests: handlers of events that are awaited, and uses noted."""
    await sessions._core.events.settle()


async def check_what_is_open(sessions: Sessions) -> None:
    """Do at once what is done every `socket_check_interval`."""
    await sessions._core.live_connections.check()


def open_sids(sessions: Sessions) -> list[str]:
    """The sessions on which something is open, in any event loop."""
    return [sid for here in sessions._core.live_connections._loops.values() for sid in here.open]


def driver_of(sessions: Sessions) -> Driver:
    """Through which each statement goes: somebody may want to count, change or stop them."""
    return sessions._core.store.engines.here.driver
