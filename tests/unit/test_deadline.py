"""A deadline holds even where a cancellation is lost.

Deadlines are private: options like `timeout` set them.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from asgi_sessions._database.deadline import Deadline


def deadline(seconds: float) -> Deadline:
    return Deadline(asyncio.get_running_loop().time() + seconds)


async def deaf(times: int) -> None:
    """Overhear so many cancellations."""
    for _ in range(times):
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    await asyncio.Event().wait()


@pytest.mark.parametrize("times", [0, 1, 3])
async def test_a_body_is_over_at_the_deadline_however_often_it_overhears_that(times: int) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(20), deadline(0.01):
            await deaf(times)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)  # nothing is left to cancel it


async def test_a_deadline_that_has_passed_lets_nothing_wait() -> None:
    with pytest.raises(TimeoutError):
        async with deadline(-1):
            await deaf(1)


async def test_a_body_in_time_is_left_alone() -> None:
    async with deadline(0.01):
        done = await asyncio.sleep(0, "done")
    await asyncio.sleep(0.02)
    assert done == "done"


async def test_what_the_body_raises_instead_of_a_cancellation_goes_on() -> None:
    async def fail_at_the_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with deadline(0.01):
            await fail_at_the_end()
    await asyncio.sleep(0)  # nothing is left to cancel it


async def test_a_cancellation_by_somebody_else_is_no_timeout() -> None:
    async def work() -> None:
        async with deadline(20):
            begun.set()
            await asyncio.Event().wait()

    begun = asyncio.Event()
    task = asyncio.create_task(work())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()
