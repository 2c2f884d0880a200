"""The contract between the engine of an event loop and whatever gives it connections.

What `Sessions` is given becomes a `Source`, once for the process. The source makes a `Pool` for
each event loop, and a pool lends connections (`Lease`). The drivers see nothing of these three:
they speak to the raw connection that a lease holds. To take connections from yet another place,
write one module with three subclasses, and name it in `source_of`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from asgi_sessions._database.drivers.base import Driver, Raw
from asgi_sessions._errors import SessionsError

#: Connections that are in use at the same moment at most, so that a smaller pool is not held.
MOST = 5


class Line(ABC):
    """A connection that is ours until it is given back, if only to listen on it.

    Attributes:
        raw: the driver's own connection, to which statements go without a detour.
    """

    raw: Raw

    @abstractmethod
    async def give_back(self, *, broken: bool) -> None:
        """Return the connection to its pool.

        Args:
            broken: a statement failed or was cut short, so that nobody knows which state the
                connection is in. Its socket has already been closed, and the pool must not lend
                it again.
        """

    def leave(self) -> None:  # noqa: B027 -- not all have to
        """Let go of the connection without waiting: its event loop is gone."""


class Lease(Line):
    """A connection that a pool has lent to us, in autocommit mode.

    Attributes:
        by_index: whether `Driver.by_index` has changed a setting of it.
    """

    by_index: bool = False

    @abstractmethod
    def transaction(self) -> AbstractAsyncContextManager[object]:
        """What runs inside is committed together, or rolled back if an exception leaves the block.

        It is never nested.
        """

    @property
    def stale(self) -> bool:
        """Whether the app has replaced its pool since, so that another one is to be borrowed."""
        return False


class Pool(ABC):
    """The connections of one event loop.

    Attributes:
        driver: how to speak to its connections.
        owned: whether we made it, so that its connections may be set up as we like. An app's own
            are left as they are.
        hold: whether connections may be kept while there is nothing to do.
        frugal: whether no more of them are kept than requests wait for.
    """

    driver: Driver
    owned: bool
    hold: bool
    frugal: bool = False

    @property
    @abstractmethod
    def database(self) -> object:
        """What `Sessions.database` gives to the app."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """Whether connections can be borrowed."""

    @abstractmethod
    async def open(self) -> None:
        """Make it possible to borrow connections."""

    @abstractmethod
    async def close(self) -> None:
        """Close what `open` has opened. All connections have been given back."""

    @abstractmethod
    async def borrow(self) -> Lease:
        """A connection, as soon as there is one."""

    async def connect(self) -> Line:
        """A connection on which to listen, which is closed when it is given back.

        It is asked for only where the driver `notifies`.
        """
        raise NotImplementedError

    def on_replaced(self, then: Callable[[], None]) -> None:  # noqa: B027 -- not all can be
        """Have something called in the event loop when the app has replaced the pool."""

    def shortage(self) -> SessionsError | None:
        """Why nothing can be borrowed, if the reason is that too many connections are in use."""
        return None

    def leave(self) -> None:  # noqa: B027 -- not all have to
        """The event loop was closed without a word, so nothing can be awaited any more."""


class Source(ABC):
    """What `Sessions` was given, checked.

    Attributes:
        driver: the kind of driver that its connections have.
        max_idle: seconds after which a connection at rest is not trusted any more.
    """

    driver: type[Driver]
    max_idle: float

    @property
    @abstractmethod
    def address(self) -> str:
        """Where the database is, without the password."""

    @property
    @abstractmethod
    def database(self) -> object:
        """What `Sessions.database` gives to the app outside of any event loop."""

    @abstractmethod
    def pool(self, loop: asyncio.AbstractEventLoop) -> Pool:
        """A pool for an event loop: a connection belongs to the loop that opened it.

        Raises:
            ConfigurationError: if it is an app's own, and belongs to another loop.
        """
