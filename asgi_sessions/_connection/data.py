"""``request.session``: loaded before the app runs, saved before its response leaves."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum
from http.cookies import SimpleCookie
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions._errors import ConfigurationError, SessionsUnavailable
from asgi_sessions._model.device import headers_of
from asgi_sessions._model.person import Person
from asgi_sessions._model.session_data import (
    EMPTY,
    MISSING,
    Changes,
    SessionDict,
    Visitor,
    changes,
    check,
    decode,
    encode,
    is_blank,
    limit,
)
from asgi_sessions._service.core import Started
from asgi_sessions._service.session_data import DataSteps, owner_of
from asgi_sessions._store.data import GONE, Owner

from .context import Conn, RequestContext
from .notices import Notices

_SERVER_ERROR = 500
_STARTS = frozenset({"http.response.start", "websocket.accept", "websocket.http.response.start"})

#: From the value of a key, or `MISSING`: what it shall be, and the answer to whoever asked.
Change = Callable[[Any], tuple[Any, Any]]


class RequestData:
    """The data of one connection.

    Args:
        steps: what happens to data.
        context: of the connection.

    Attributes:
        dict: what the app has as ``request.session``.
    """

    def __init__(self, steps: DataSteps, context: RequestContext) -> None:
        self._steps = steps
        self._context = context
        self._owner: Owner | None = None
        self._visitor: Visitor | None = None
        #: A visitor whose data a login of this request has taken over.
        self._taken: Visitor | None = None
        #: What is in the database, as `encode` writes it.
        self._before = EMPTY
        self.dict = SessionDict()

    async def load(self, scope: Scope) -> None:
        """Fill the dict.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        context, text = self._context, None
        if context.row is not None:
            self._owner, text = Owner(context.row.id), context.row.data
        elif context.visits:
            context.private = True
            visitor = await self._steps.visitor(context.visits)
            if visitor is not None:
                self._visitor, self._owner = visitor, owner_of(visitor)
                text = visitor.data
        if text is not None and text != EMPTY:
            data = decode(text)
            self._before = encode(data)
            self.dict = SessionDict(data)
        elif self._steps.options.starlette_cookie is not None:
            self._take_starlettes(scope)

    def _take_starlettes(self, scope: Scope) -> None:
        cookie = self._steps.options.starlette_cookie
        assert cookie is not None  # noqa: S101 -- for the type checker
        sent = SimpleCookie()
        for name, value in headers_of(scope):
            if name == b"cookie":
                sent.load(value.decode("latin-1"))
        data = cookie.read(sent[cookie.name].value) if cookie.name in sent else None
        if data is not None:
            self.dict = SessionDict(data)
            self._context.carry((b"set-cookie", cookie.clearing()))

    def _current(self, scope: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the app has made of it: Litestar's `set_session` and `clear_session` put something
        else in its place. What any other layer puts there is its own, and not to be saved here.

        Raises:
            TypeError: for an object that Litestar was given in place of a dict.
        """
        current: object = scope.get("session")
        if current is self.dict or not _is_litestars(scope):
            return self.dict
        if current is None or isinstance(current, Enum):  # Litestar's Empty
            return {}
        if not isinstance(current, Mapping):
            raise TypeError(f"set_session() was given {type(current).__name__}: give it a dict")
        return current

    def is_hidden(self, scope: Mapping[str, Any]) -> bool:
        """Whether another layer has put something in its place."""
        return scope.get("session") is not self.dict and not _is_litestars(scope)

    # --- saving -------------------------------------------------------------------------------

    async def save(self, scope: Mapping[str, Any]) -> bool:
        """Write what has changed; whether it is written, or nothing had to be.

        Raises:
            InvalidSession: if there is too much.
            SessionsUnavailable: if the database does not answer.
            TypeError: for what is no JSON.
        """
        data = self._current(scope)
        new = changes(self._before, data, self._steps.options.max_bytes)
        if new is None:
            return True
        after = encode(data)  # the app may go on while this waits
        if self._owner is None:
            return is_blank(data) or await self._welcome(after)
        if not await self._steps.save(self._owner, new):
            return False
        self._before = after
        self._context.private = True
        return True

    async def save_in_time(self, scope: Mapping[str, Any]) -> None:
        """Save before the response begins; raises as `save`."""
        self._context.unsaved = None
        try:
            await self.save(scope)
        except SessionsUnavailable as error:
            self._context.unsaved = error
            raise

    async def _welcome(self, data: str) -> bool:
        """Somebody who had no row has data now."""
        context = self._context
        if context.error is not None:
            why = "nobody knows whether there is a session, for the database did not answer"
        elif context.responding:
            why = "they were written after the response had begun, too late for a cookie"
        elif context.kept is not None or context.foreign:
            why = "the browser has the cookie of a session that is not in use here"
        else:
            visitor, token = await self._steps.welcome(data)
            self._visitor, self._owner, self._before = visitor, owner_of(visitor), data
            context.visit(token)
            return True
        self._steps.events.data_lost(why)
        return False

    async def finish(self, scope: Scope, interval: timedelta) -> None:
        """At the end of the call: write what has changed since the response began, or note that
        the visitor was there.
        """
        if self._context.responding:
            before = self._before
            await self.save(scope)
            if self._visitor is not None and self._before == before and self._context.touches:
                self._steps.touch(self._visitor, interval)

    # --- logins and logouts -------------------------------------------------------------------

    def source(self, person: Person) -> Owner | None:
        """Where a login of somebody takes its data from."""
        row = self._context.row
        if row is not None and (row.person_id, row.app_id) != (person.id, person.app_id):
            return None
        return self._owner

    def log_in(self, scope: Scope, started: Started, source: Owner | None) -> None:
        """Somebody has logged in: what they have now is theirs."""
        current, kept = dict(self._current(scope)), self._steps.options.kept
        before = decode(self._before)
        if source is None and self._owner is not None:
            # They were somebody else's, but for what the app has written since it cleared them.
            current, before = current if self.dict.cleared else {}, {}
        self._replace(scope, kept(current), kept(before))
        if self._visitor is not None and started.had is not None:
            self._taken = self._visitor._replace(data=encode(started.had))
        self._visitor, self._owner = None, Owner(started.row.id)

    def log_out(self, scope: Scope) -> None:
        """Nothing is left of the data."""
        self._replace(scope, {}, {})
        self._visitor = self._owner = None

    async def give_back(self) -> None:
        """The login was not delivered: the visitor has what it had."""
        if self._taken is not None:
            await self._steps.give_back(self._taken)

    async def regenerate(self) -> None:
        """Another sid and secret for a visitor.

        Raises:
            ConfigurationError: if the response has begun.
        """
        if self._visitor is None:
            return
        if self._context.responding:
            raise ConfigurationError(
                "the response has begun, so its cookie could not be sent: call regenerate_id() "
                "before the response (or the WebSocket's accept)"
            )
        renamed = await self._steps.rename(self._visitor)
        if renamed is not None:
            self._visitor, token = renamed
            self._owner = owner_of(self._visitor)
            self._context.visit(token)

    def _replace(self, scope: Scope, data: dict[str, Any], before: dict[str, Any]) -> None:
        dict.clear(self.dict)
        dict.update(self.dict, data)
        self._before = encode(before)
        if _is_litestars(scope):
            scope["session"] = self.dict

    # --- one key ------------------------------------------------------------------------------

    async def change(self, scope: Mapping[str, Any], key: str, change: Change) -> Any:  # noqa: ANN401 -- whatever `change` says
        """Change the value of a key as it is in the database at that moment; the answer of
        `change`, or `GONE`. What the app has assigned to the key before counts.

        Raises:
            InvalidSession: if there is too much.
            SessionsUnavailable: if the database does not answer.
            TypeError: if `change` cannot work with the value, or for what is no JSON.
            ValueError: as for an assignment.
        """
        check(key, None)
        current, before = self._current(scope), decode(self._before)
        here = current.get(key, MISSING)
        assigned = _text(here) != _text(before.get(key, MISSING))
        result = here

        def apply(data: dict[str, Any]) -> tuple[Changes, Any]:
            nonlocal result
            old = here if assigned else data.get(key, MISSING)
            result, answer = change(old)
            if result is MISSING:
                return Changes({}, [key] if key in data else []), answer
            text = check(key, result)
            limit({**data, key: result}, self._steps.options.max_bytes)
            return Changes({key: text}, []), answer

        if self._owner is None:
            _, answer = apply(dict(current))
        else:
            answer = await self._steps.edit(self._owner, apply)
            if answer is GONE:
                self._steps.events.data_dropped()
                return GONE
            _put(before, key, result)
            self._before = encode(before)
        if isinstance(current, dict):
            _put(current, key, result)
        return answer


class DataLayer:
    """Between the middleware and the app, where sessions have data.

    Args:
        app: the app behind it.
        key: of the context in the scope.
        steps: what happens to data.
        regenerate: gives a login a new secret, from the scope.
        refuses: whether requests are refused while the database does not answer.
        touch_interval: how exact it is when a visitor was seen last.
        notices: what the middleware warns of.
    """

    def __init__(
        self,
        app: ASGIApp,
        key: str,
        steps: DataSteps,
        regenerate: Callable[[Scope], Any],
        *,
        refuses: bool,
        touch_interval: timedelta,
        notices: Notices,
    ) -> None:
        self._app = app
        self._key = key
        self._steps = steps
        self._regenerate = regenerate
        self._refuses = refuses
        self._touch_interval = touch_interval
        self._notices = notices

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        context: RequestContext = scope[self._key]
        data = context.data = RequestData(self._steps, context)
        try:
            await data.load(scope)
        except SessionsUnavailable as error:
            if self._refuses:
                raise
            context.error = error
        session = scope["session"] = data.dict

        async def regenerate() -> None:
            if context.row is not None:
                await self._regenerate(scope)
            else:
                await data.regenerate()

        session._regenerate = regenerate  # noqa: SLF001 -- of this package
        failed = False

        async def save_and_send(message: Message) -> None:
            nonlocal failed
            if message["type"] in _STARTS and not context.responding:
                failed = message.get("status", 0) >= _SERVER_ERROR
                if not failed:
                    await data.save_in_time(scope)
            await send(message)

        try:
            await self._app(scope, receive, save_and_send)
            if not failed:
                await data.finish(scope, self._touch_interval)
        finally:
            if data.is_hidden(scope):
                self._notices.give("session_hidden")
            session._regenerate = None  # noqa: SLF001 -- else it would be a cycle


class DataMethods:
    """Changes of one key of ``request.session`` that are right whatever other requests do: each
    works on the value that is in the database at that moment, once across all processes, and shows
    in ``request.session`` of the same request.

    ``conn`` is a request or WebSocket of Starlette, FastAPI or Litestar, or an ASGI scope. On a
    session that has ended meanwhile they change nothing. Each raises `SessionsUnavailable` if the
    database does not answer, `TypeError` and `ValueError` as an assignment does, and
    `InvalidSession` if there is too much.
    """

    def __init__(self, data_of: Callable[[Conn], tuple[Scope, RequestData]]) -> None:
        self._of = data_of

    async def pop(self, conn: Conn, key: str, default: Any = None) -> Any:  # noqa: ANN401 -- JSON
        """Remove a key: its value, which nobody else gets, or `default`: nonces, OAuth's state."""

        def pop(old: object) -> tuple[object, object]:
            return MISSING, default if old is MISSING else old

        answer = await self._change(conn, key, pop)
        return default if answer is GONE else answer

    async def increment(self, conn: Conn, key: str, by: float = 1) -> Any:  # noqa: ANN401 -- JSON
        """Add to a number, 0 if there is none yet; the sum, or None."""

        def increment(old: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- JSON
            number = 0 if old is MISSING else old
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError(f"session[{key!r}] is no number: increment() cannot add to it")
            return number + by, number + by

        answer = await self._change(conn, key, increment)
        return None if answer is GONE else answer

    async def append(
        self,
        conn: Conn,
        key: str,
        value: Any,  # noqa: ANN401 -- JSON
        *,
        keep: int | None = None,
    ) -> list[Any] | None:
        """Add to a list, which begins empty; the list, or None.

        Args:
            conn: the connection.
            key: of the list.
            value: what is added at its end.
            keep: how many are left at most: the last.
        """
        if keep is not None and keep < 1:
            raise ConfigurationError(f"append(keep={keep}): use 1 and more, or None")

        def append(old: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- JSON
            if old is not MISSING and not isinstance(old, list):
                raise TypeError(f"session[{key!r}] is no list: append() cannot add to it")
            new = [*([] if old is MISSING else old), value]
            new = new if keep is None else new[-keep:]
            return new, new

        answer = await self._change(conn, key, append)
        return None if answer is GONE else list(answer)

    async def replace(self, conn: Conn, key: str, value: Any, *, expected: Any) -> bool:  # noqa: ANN401 -- JSON
        """Assign a value if the present one is as expected; whether it was.

        Args:
            conn: the connection.
            key: of the value.
            value: the new one.
            expected: the one that has to be there; `MISSING` for none.
        """

        def replace(old: object) -> tuple[object, object]:
            same = _text(old) == _text(expected)
            return (value if same else old), same

        answer = await self._change(conn, key, replace)
        return answer is True

    async def save(self, conn: Conn) -> bool:
        """Write what has changed, now: for WebSockets and streams. Whether it is written."""
        scope, data = self._of(conn)
        return await data.save(scope)

    async def _change(self, conn: Conn, key: str, change: Change) -> Any:  # noqa: ANN401 -- JSON
        scope, data = self._of(conn)
        return await data.change(scope, key, change)


def _is_litestars(scope: Mapping[str, Any]) -> bool:
    """Whether the app is Litestar, and no app that is mounted in it."""
    return "litestar_app" in scope and scope.get("app") is scope["litestar_app"]


def _text(value: object) -> str | None:
    return None if value is MISSING else encode(value)


def _put(data: dict[str, Any], key: str, value: object) -> None:
    if value is MISSING:
        data.pop(key, None)
    else:
        data[key] = value
