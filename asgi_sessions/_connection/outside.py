"""Sessions of clients that have not come through the middleware: looked up by their headers, and
watched while something of theirs is open.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, NamedTuple, Self

from starlette.types import Scope

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import Presented
from asgi_sessions._service.core import Core

from .binding import Binding
from .context import RequestContext
from .resolving import resolve, resumes

#: The name of an attribute of the sessions that `opened` has marked. It is no field: nothing that
#: shows sessions, or compares them, knows of it.
_OPENED = "_opened"


class _Opened(NamedTuple):
    """How a client has shown that a session is theirs."""

    secret: bytes | None
    unproved_since: datetime | None
    actor_sid: str | None


def scope_from_headers(
    headers: Mapping[str, str] | Iterable[tuple[str | bytes, str | bytes]],
) -> Scope:
    """A scope with these headers, as that of a WebSocket's handshake.

    Raises:
        ConfigurationError: if they are none.
    """
    pairs: Any = headers.items() if isinstance(headers, Mapping) else headers
    try:
        raw = [(_raw(name).lower(), _raw(value)) for name, value in pairs]
    except (AttributeError, TypeError, ValueError):
        raise ConfigurationError(
            "authenticate(headers): use a mapping of names to values, or a list of pairs of these, "
            "as text or bytes"
        ) from None
    return {"type": "websocket", "headers": raw}


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1", "replace")


async def look_up(
    core: Core,
    scope: Scope,
    context: RequestContext,
    tokens: Sequence[Presented],
    *,
    binding: Binding | None,
) -> None:
    """Give a context the session of these tokens, for nobody but whom it names.

    Raises:
        SessionsUnavailable: if the database does not answer.
    """
    rows = await asyncio.gather(*(core.store.by_sid(token.sid) for token in tokens))
    if not resumes(core.settings, context, None, tokens, rows):
        await resolve(
            core, scope, context, tokens, rows, binding=binding, person=None, sent=True, start=False
        )


def opened(session: Session, context: RequestContext) -> Session:
    """The session, marked with how it was opened."""
    actor_sid = None if context.row is None else context.row.actor_sid
    how = _Opened(context.secret, context.unproved_since, actor_sid)
    object.__setattr__(session, _OPENED, how)
    return session


class Watch:
    """Closes something when a session ends, until it is stopped.

    Args:
        close: closes it.
        add: has a function called when the session ends; what it returns puts an end to that.
    """

    def __init__(
        self, close: Callable[[], None], add: Callable[[Callable[[], None]], Callable[[], None]]
    ) -> None:
        self._close: Callable[[], None] | None = close
        self._leave = add(self._end)

    def stop(self) -> None:
        """Watch no more. It may be called again."""
        self._close = None
        self._leave()

    def _end(self) -> None:
        close = self._close
        if close is not None:  # it may be told twice
            self.stop()
            close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """As `stop`."""
        self.stop()


def watch(core: Core, session: Session, close: Callable[[], object]) -> Watch:
    """Have something closed when a session ends, which `opened` has marked; of any other session
    only its end is noticed.

    Args:
        core: knows what is open on sessions.
        session: which.
        close: closes it, or returns a coroutine that does.
    """
    how: _Opened = getattr(session, _OPENED, _Opened(None, None, None))

    def closing() -> None:
        answer = close()
        if inspect.iscoroutine(answer):
            core.background.run(answer)

    def add(end: Callable[[], None]) -> Callable[[], None]:
        return core.live_connections.add(
            session.id, end, lambda: how.secret, lambda: how.unproved_since, how.actor_sid
        )

    return Watch(closing, add)
