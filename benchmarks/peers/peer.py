"""What is known of a peer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass

from benchmarks.load import App
from benchmarks.places import Place


@dataclass(frozen=True)
class Stores:
    """What is there to keep sessions in."""

    places: dict[str, Place]
    redis: str | None

    def has(self, store: str) -> bool:
        """Whether there is such a store; several are separated by ``+``."""
        there = {*self.places, *(["redis"] if self.redis else []), "cookie"}
        return set(store.split("+")) <= there

    def redis_url(self) -> str:
        """Where Redis is."""
        if self.redis is None:
            raise LookupError("no Redis")
        return self.redis


Opened = AbstractAsyncContextManager[App]

#: Connections to Redis at most; a bound below the requests at once only slows its client down.
MOST = 512
#: Before every key in Redis.
PREFIX = "asgi_sessions_benchmark:"


@dataclass(frozen=True)
class Peer:
    """A library that keeps people logged in.

    Args:
        name: in the tables.
        store: ``cookie``, ``redis`` or the kind of a database; several are separated by ``+``.
        open: gives its app.
        bare: gives an app of the same framework without sessions.
        remark: what it does more, or less, than ours.
        keeps: whether apps keep data of their own in its sessions.
    """

    name: str
    store: str
    open: Callable[[Stores], Opened]
    bare: Callable[[], App]
    remark: str
    keeps: bool = True
