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
    decode,
    encode,
    is_blank,
    limit,
)
from asgi_sessions._model.starlette_cookie import StarletteCookie
from asgi_sessions._service.core import Started
from asgi_sessions._service.data_steps import DataSteps, owner_of
from asgi_sessions._store.data import GONE, Owner
from asgi_sessions._store.store import Store

from .context import RequestContext

_COMMIT_FIRST = "commit the app's transaction (connection=) before"

#: Makes of the value of a key, or `MISSING`, its new value and the answer of the method.
Change = Callable[[Any], tuple[Any, Any]]


class RequestData:
    """The data of one connection. They do not hold its context, which holds them: that would be a
    cycle for the garbage collector.

    Args:
        steps: what happens to data.

    Attributes:
        dict: what the app has as ``request.session``.
        clearing: the header that clears Starlette's cookie, sent once its data have been saved.
        refused: whether they could not be saved as they are, which the app has been told.
    """

    clearing: bytes | None = None
    refused = False
    #: Whose the data are; None for somebody who has no row.
    _owner: Owner | None = None
    _visitor: Visitor | None = None
    #: A visitor whose data a login of this request has taken over.
    _taken: Visitor | None = None
    #: A visitor who has got another sid and secret, as it was before.
    _renamed: Visitor | None = None
    #: Whether the browser has another cookie by now, or will have, so that it must not get one.
    _superseded = False
    #: What is in the database.
    _before = Snapshot()
    #: Whether a save has found that the owner has ended, so that this is reported once.
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
            visitor, self._superseded = await self._steps.find_visitor(context.visits)
            if visitor is not None:
                self._visitor, self._owner = visitor, owner_of(visitor)
                text = visitor.data
        if text is not None:
            self.dict = SessionDict(decode(text))
            self._before = Snapshot(text, self.dict)
        if self._steps.options.starlette_cookie is not None and not (
            context.foreign or context.bearer
        ):
            self._take_starlettes(scope, self._steps.options.starlette_cookie)

    def _take_starlettes(self, scope: Scope, cookie: StarletteCookie) -> None:
        sent: dict[str, str] = {}
        for name, value in headers_of(scope):
            if name == b"cookie":
                sent |= cookie_parser(value.decode("latin-1"))
        data = cookie.read(sent[cookie.name]) if cookie.name in sent else None
        if data is None:
            return
        # It is cleared even where there are data already, or it would bring its own back after a
        # logout, when those are gone.
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
        """What the app has made of the data: Litestar's `set_session` and `clear_session` put
        something else in the place of the dict. What any other layer puts there is that layer's.

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
        """Whether another layer has put something in the place of the dict."""
        return scope.get("session") is not self.dict and not _is_litestars(scope)

    # --- saving -------------------------------------------------------------------------------

    def changes(self, scope: Mapping[str, Any]) -> Changes | None:
        """What has changed since it was loaded or saved; None if nothing has.

        Raises:
            InvalidSession: if there is too much.
            TypeError: for what is no JSON.
        """
        try:
            return self._before.changes(self._current(scope), self._steps.options.max_bytes)
        except (TypeError, ValueError):
            self.refused = True  # the app may answer this, without them
            raise

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
        """Write what has changed. False if it is lost, because the session has ended, or there is
        no row and none can be made (`_start_visitor` says why).

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        if _is_open(context):
            self._steps.events.data_lost(_COMMIT_FIRST)
            return False
        data, before = self._current(scope), self._before
        text = encode(data)  # the app may go on while this waits
        if self._owner is None:
            return is_blank(data) or await self._start_visitor(context, text)
        after = Snapshot(text, data)
        if not self._over and not await self._steps.save(self._owner, changes):
            self._over = not await self._save_after_rollback(context, changes)
        if self._over:
            return False
        if self._before is not before:  # another call of the same request has written meanwhile
            after = Snapshot(encode(changes.made_in(self._before.read())))
        self._before = after
        context.private = self._seen = True
        return True

    async def _save_after_rollback(self, context: RequestContext, changes: Changes) -> bool:
        """Where the app has rolled a login back, the visitor is still there."""
        transaction = context.transaction
        if self._taken is None or transaction is None or transaction.is_open:
            return False
        return await self._steps.save(owner_of(self._taken), changes)

    async def _start_visitor(self, context: RequestContext, data: str) -> bool:
        """Somebody who had no row has data now."""
        if context.error is not None:
            why = "nobody knows whether there is a session, for the database did not answer"
        elif context.responding:
            why = "they were written after the response had begun, too late for a cookie"
        elif context.bearer:
            why = "the client has sent a token, and a visitor would need a cookie"
        elif (
            self._superseded
            or context.foreign
            or context.kept is not None
            or self._steps.have_cookies(context.brought)
        ):
            why = "the browser has the cookie of a session that is not in use here"
        else:
            visitor, token = await self._steps.start_visitor(data)
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
        """Whose data a login takes over: those of the visitor or session of this request, unless
        the session (`row`) is somebody else's, or one in which somebody acts for the person.
        """
        if row is not None and (
            row.actor_sid is not None or (row.person_id, row.app_id) != (person.id, person.app_id)
        ):
            return None
        return self._owner

    def log_in(self, scope: Scope, started: Started, source: Owner | None) -> None:
        """Go on with the data of the session that a login has started."""
        current, before = dict(self._current(scope)), self._before.read()
        if self._owner is None or self._visitor is not None:
            kept = self._steps.options.kept
            # Where another login of the moment has taken them over, they are written once more.
            current, before = kept(current), kept(before if started.source_data else {})
        elif source is None:
            # They were somebody else's, but for what the app has written since it cleared them.
            current, before = current if self.dict.cleared else {}, {}
        self._replace(scope, current, before)
        if self._visitor is not None and started.source_data is not None:
            self._taken = self._visitor._replace(data=encode(started.source_data))
        self._visitor, self._owner = None, Owner(started.row.id)

    def go_over(self, scope: Scope, row: Row) -> None:
        """Go on with the data of another session, as they are in its row."""
        data = {} if row.data is None else decode(row.data)
        self._replace(scope, data, data)
        self._visitor, self._owner = None, Owner(row.id)

    async def log_out(self, scope: Scope, store: Store) -> None:
        """Remove the visitor, if there is one, and empty the dict: nothing is left of the data.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        if self._visitor is not None:
            await store.remove_visitor(owner_of(self._visitor))
        self._replace(scope, {}, {})
        self._visitor = self._owner = None
        self._superseded = False

    async def give_back(self) -> None:
        """Give the visitor its data back, since the login that has taken them over was not
        delivered.
        """
        if self._taken is not None:
            await self._steps.restore_visitor(self._taken)

    def give_up(self) -> None:
        """The app has failed before the response began: a new cookie is not on its way."""
        if self._renamed is not None and self._visitor is not None:
            self._steps.undo_rename(self._visitor, self._renamed)

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
        renamed = await self._steps.rename_visitor(self._visitor)
        if renamed is not None:
            self._renamed = self._renamed or self._visitor
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

    async def change(self, context: RequestContext, scope: Scope, key: str, change: Change) -> Any:  # noqa: ANN401 -- whatever `change` says
        """Change the value of a key as it is in the database at that moment; the answer of
        `change`, or `GONE`. What the app has assigned to the key before counts.

        Raises:
            ConfigurationError: in a transaction of the app in which the session was changed.
            InvalidSession: if there is too much.
            SessionsUnavailable: if the database does not answer.
            TypeError: if `change` cannot work with the value, or for what is no JSON.
            ValueError: as for an assignment.
        """
        check(key, None)
        if _is_open(context):
            raise ConfigurationError(f"the data of the session cannot be changed: {_COMMIT_FIRST}")
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
            limit({**data, key: result}, max(self._steps.options.max_bytes, len(encode(data))))
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


def _is_open(context: RequestContext) -> bool:
    """Whether the session was changed in a transaction of the app that is not over, so that nobody
    else sees it yet.
    """
    return context.transaction is not None and context.transaction.is_open


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
