"""The data of one connection: as they were loaded, and what the app makes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from enum import Enum
from typing import Any

from starlette.requests import cookie_parser
from starlette.types import Scope

from asgi_sessions._errors import ConfigurationError, InvalidSession, SessionsUnavailable
from asgi_sessions._model.device import headers_of
from asgi_sessions._model.person import Person
from asgi_sessions._model.row import Row
from asgi_sessions._model.session_data import (
    MISSING,
    Changes,
    SessionDict,
    Snapshot,
    Visitor,
    check,
    encode,
    is_blank,
    limit,
)
from asgi_sessions._model.starlette_cookie import StarletteCookie
from asgi_sessions._service.core import Started
from asgi_sessions._service.session_data import DataSteps, owner_of
from asgi_sessions._store.data import GONE, Owner
from asgi_sessions._store.store import Store

from .context import RequestContext

#: From the value of a key, or `MISSING`: what it shall be, and the answer to whoever asked.
Change = Callable[[Any], tuple[Any, Any]]


class RequestData:
    """The data of one connection. They do not hold its context, which holds them: that would be a
    cycle for the garbage collector.

    Args:
        steps: what happens to data.

    Attributes:
        dict: what the app has as ``request.session``.
        clearing: what clears Starlette's cookie, once that which it says has been saved.
    """

    clearing: bytes | None = None
    #: Whose the data are; None for somebody who has no row.
    _owner: Owner | None = None
    _visitor: Visitor | None = None
    #: A visitor whose data a login of this request has taken over.
    _taken: Visitor | None = None
    #: What is in the database.
    _before = Snapshot()
    #: Whether a save has found that the owner has ended: it is told once.
    _over = False
    #: Whether a save has noted that the visitor was there.
    _seen = False

    def __init__(self, steps: DataSteps) -> None:
        self._steps = steps
        self.dict = SessionDict()

    async def load(self, context: RequestContext, scope: Scope) -> None:
        """Fill the dict.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        text = None
        if context.row is not None:
            self._owner, text = Owner(context.row.id), context.row.data
        elif context.visits:
            context.private = True
            visitor = await self._steps.visitor(context.visits)
            if visitor is not None:
                self._visitor, self._owner = visitor, owner_of(visitor)
                text = visitor.data
        if text is not None:
            self._before = Snapshot(text)
            self.dict = SessionDict(self._before.data)
        if self._steps.options.starlette_cookie is not None and not context.foreign:
            self._take_starlettes(scope, self._steps.options.starlette_cookie)

    def _take_starlettes(self, scope: Scope, cookie: StarletteCookie) -> None:
        sent: dict[str, str] = {}
        for name, value in headers_of(scope):
            if name == b"cookie":
                sent |= cookie_parser(value.decode("latin-1"))
        data = cookie.read(sent[cookie.name]) if cookie.name in sent else None
        if data is None:
            return
        # Where there are data already it is cleared as well: they would be gone after a logout, and
        # it would bring back what it says.
        self.clearing = cookie.clearing()
        if self.dict:
            return
        taken = {key: value for key, value in data.items() if _can_be_kept(key, value)}
        try:
            limit(taken, self._steps.options.max_bytes)
        except InvalidSession:
            taken = {}
        if len(taken) < len(data):
            self._steps.events.data_lost("Starlette's cookie held what cannot be kept here")
        self.dict = SessionDict(taken)

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

    def changes(self, scope: Mapping[str, Any]) -> Changes | None:
        """What has changed since it was loaded or saved; None if nothing has.

        Raises:
            InvalidSession: if there is too much.
            TypeError: for what is no JSON.
        """
        return self._before.changes(self._current(scope), self._steps.options.max_bytes)

    async def begin(
        self, context: RequestContext, scope: Mapping[str, Any], changes: Changes | None
    ) -> None:
        """Save before the response begins.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        context.unsaved = None
        try:
            saved = changes is None or await self.save(context, scope, changes)
        except SessionsUnavailable as error:
            context.unsaved = error
            raise
        if saved and self.clearing is not None:
            context.carry((b"set-cookie", self.clearing))

    async def save(
        self, context: RequestContext, scope: Mapping[str, Any], changes: Changes
    ) -> bool:
        """Write what has changed; whether it is written.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        data, before = self._current(scope), self._before
        after = encode(data)  # the app may go on while this waits
        if self._owner is None:
            return is_blank(data) or await self._welcome(context, after)
        if not self._over and not await self._steps.save(self._owner, changes):
            self._over = not await self._save_after_rollback(context, changes)
        if self._over:
            return False
        if self._before is not before:  # another call of the same request has written meanwhile
            after = encode(changes.made_in(self._before.read()))
        self._before = Snapshot(after)
        context.private = self._seen = True
        return True

    async def _save_after_rollback(self, context: RequestContext, changes: Changes) -> bool:
        """Where the app has rolled a login back, the visitor is still there."""
        transaction = context.transaction
        if self._taken is None or transaction is None or transaction.is_open:
            return False
        return await self._steps.save(owner_of(self._taken), changes)

    async def _welcome(self, context: RequestContext, data: str) -> bool:
        """Somebody who had no row has data now."""
        if context.error is not None:
            why = "nobody knows whether there is a session, for the database did not answer"
        elif context.responding:
            why = "they were written after the response had begun, too late for a cookie"
        elif context.kept is not None or context.foreign:
            why = "the browser has the cookie of a session that is not in use here"
        else:
            visitor, token = await self._steps.welcome(data)
            self._visitor, self._owner = visitor, owner_of(visitor)
            self._before = Snapshot(data)
            context.visit(token)
            return True
        self._steps.events.data_lost(why)
        return False

    async def finish(self, context: RequestContext, scope: Scope, interval: timedelta) -> None:
        """At the end of the call: write what has changed since the response began, or note that
        the visitor was there.
        """
        if not context.responding:
            return
        if (changes := self.changes(scope)) is not None:
            await self.save(context, scope, changes)
        if self._visitor is not None and not self._seen and context.touches:
            self._steps.touch(self._visitor, interval)

    # --- logins and logouts -------------------------------------------------------------------

    def source(self, row: Row | None, person: Person) -> Owner | None:
        """Where a login of somebody over a session, if there is one, takes its data from."""
        if row is not None and (row.person_id, row.app_id) != (person.id, person.app_id):
            return None
        return self._owner

    def log_in(self, scope: Scope, started: Started, source: Owner | None) -> None:
        """Somebody has logged in: what they have now is theirs."""
        current, before = dict(self._current(scope)), self._before.read()
        if self._owner is None or self._visitor is not None:
            kept = self._steps.options.kept
            current, before = kept(current), kept(before)
        elif source is None:
            # They were somebody else's, but for what the app has written since it cleared them.
            current, before = current if self.dict.cleared else {}, {}
        self._replace(scope, current, before)
        if self._visitor is not None and started.had is not None:
            self._taken = self._visitor._replace(data=encode(started.had))
        self._visitor, self._owner = None, Owner(started.row.id)

    async def log_out(self, scope: Scope, store: Store) -> None:
        """Nothing is left of the data.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        if self._visitor is not None:
            await store.remove_visitor(owner_of(self._visitor))
        self._replace(scope, {}, {})
        self._visitor = self._owner = None

    async def give_back(self) -> None:
        """The login was not delivered: the visitor has what it had."""
        if self._taken is not None:
            await self._steps.give_back(self._taken)

    async def regenerate(self, context: RequestContext) -> None:
        """Another sid and secret for a visitor.

        Raises:
            ConfigurationError: if the response has begun.
        """
        if self._visitor is None:
            return
        if context.responding:
            raise ConfigurationError(
                "the response has begun, so its cookie could not be sent: call regenerate_id() "
                "before the response (or the WebSocket's accept)"
            )
        renamed = await self._steps.rename(self._visitor)
        if renamed is not None:
            self._visitor, token = renamed
            self._owner = owner_of(self._visitor)
            context.visit(token)

    def _replace(self, scope: Scope, data: dict[str, Any], before: dict[str, Any]) -> None:
        dict.clear(self.dict)
        dict.update(self.dict, data)
        self._before = Snapshot(encode(before))
        self._over = False
        if _is_litestars(scope):
            scope["session"] = self.dict

    # --- one key ------------------------------------------------------------------------------

    async def change(self, scope: Scope, key: str, change: Change) -> Any:  # noqa: ANN401 -- whatever `change` says
        """Change the value of a key as it is in the database at that moment; the answer of
        `change`, or `GONE`. What the app has assigned to the key before counts.

        Raises:
            InvalidSession: if there is too much.
            SessionsUnavailable: if the database does not answer.
            TypeError: if `change` cannot work with the value, or for what is no JSON.
            ValueError: as for an assignment.
        """
        check(key, None)
        current = self._current(scope)
        here = current.get(key, MISSING)
        assigned = _text(here) != _text(self._before.read().get(key, MISSING))
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
            before = self._before.read()
            _put(before, key, result)
            self._before = Snapshot(encode(before))
        if not isinstance(current, dict):
            current = {**current}
        _put(current, key, result)
        if current is not self.dict:  # Litestar's
            scope["session"] = current
        return answer


def _is_litestars(scope: Mapping[str, Any]) -> bool:
    """Whether the app is Litestar, and no app that is mounted in it."""
    return "litestar_app" in scope and scope.get("app") is scope["litestar_app"]


def _text(value: object) -> str | None:
    return None if value is MISSING else encode(value)


def _can_be_kept(key: str, value: object) -> bool:
    try:
        check(key, value)
    except ValueError:
        return False
    return True


def _put(data: dict[str, Any], key: str, value: object) -> None:
    if value is MISSING:
        data.pop(key, None)
    else:
        data[key] = value
