"""The steps of session data: a visitor starts, data are saved, changed, given back."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import Any

from asgi_sessions._errors import SessionsError, SessionsUnavailable
from asgi_sessions._model.row import Row
from asgi_sessions._model.session_data import Changes, SessionData, Visitor
from asgi_sessions._model.tokens import Presented, Token, digest, new_secret, new_sid, started_at
from asgi_sessions._store.data import GONE, LOCKED, Edit, Owner, Save
from asgi_sessions._store.store import Store

from .background import BackgroundTasks
from .events import Events
from .options import Settings

#: Seconds between two attempts at a row that somebody has locked: at first, and at most.
_PAUSE, _LONGEST_PAUSE = 0.002, 0.05


class DataSteps:
    """Saves and changes data, and starts and renews visitors: what `Core` does for sessions.

    Args:
        settings: the options.
        store: the tables.
        events: where data that were not saved are reported.
        background: what runs beside requests.
        random: returns so many random bytes.

    Attributes:
        options: of the data.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        events: Events,
        background: BackgroundTasks,
        random: Callable[[int], bytes],
    ) -> None:
        self.options = settings.session_data or SessionData()
        self._lifetimes = settings.visitor_lifetimes
        self._terms = settings.terms
        self._now = settings.now
        self._timeout = settings.timeout.total_seconds()
        self.events = events
        self._store = store
        self._background = background
        self._random = random

    # --- visitors -----------------------------------------------------------------------------

    async def find_visitor(self, cookies: Iterable[Presented]) -> tuple[Visitor | None, bool]:
        """The live visitor of these cookies, if there is one; else whether one of them was valid a
        moment ago: its row has gone before its time, with a login or a logout, whose answer has
        brought the browser another cookie, or will.
        """
        gone = False
        for presented in cookies:
            visitor = await self._store.visitor(presented.sid)
            if visitor is None:
                gone |= self._now() - started_at(presented.sid) < self._lifetimes.absolute
            elif hmac.compare_digest(visitor.secret_hash, presented.digest) and visitor.live(
                self._now(), self._lifetimes
            ):
                return visitor, False
        return None, gone

    def have_cookies(self, brought: Iterable[Row | None]) -> bool:
        """Whether the browser may have the cookie of a session, though none is in use: of one of
        these that lives, or of the login that took its place.
        """
        now = self._now()
        return any(
            row is not None and (row.live(now, self._terms) or row.end_reason == "replaced")
            for row in brought
        )

    async def start_visitor(self, data: str) -> tuple[Visitor, Token]:
        """A new visitor with these data, and the token of the cookie."""
        now = self._now()
        token = self._token(now)
        visitor = Visitor(token.sid, digest(token.secret), now, now, data)
        await self._store.insert_visitor(visitor)
        return visitor, token

    async def rename_visitor(self, visitor: Visitor) -> tuple[Visitor, Token] | None:
        """Another sid and secret for a visitor; None if there is no such visitor any more."""
        # The new sid begins with the same time: `Data.forget_visitors` finds old ones by it.
        token = self._token(visitor.started_at)
        renamed = visitor._replace(id=token.sid, secret_hash=digest(token.secret))
        old, new = owner_of(visitor), owner_of(renamed)
        return (renamed, token) if await self._store.rename_visitor(old, new) else None

    async def restore_visitor(self, visitor: Visitor) -> None:
        """Write the row of a visitor again, whose data a login has taken over that was not
        delivered.
        """
        try:
            await self._store.insert_visitor(visitor)
        except SessionsError as error:
            self.events.data_lost(f"a login was not delivered, and then: {error}")

    def undo_rename(self, renamed: Visitor, before: Visitor) -> None:
        """Give a visitor the sid and the secret of before: the new ones were not delivered."""
        self._background.run(self._store.rename_visitor(owner_of(renamed), owner_of(before)))

    def touch(self, visitor: Visitor, interval: timedelta) -> None:
        """Note that a visitor was there, once in `interval`. No request waits for it."""
        if self._now() - visitor.last_seen_at >= interval:
            self._background.run(self._note_visit(visitor))

    async def _note_visit(self, visitor: Visitor) -> None:
        try:
            # A save writes `last_seen_at`, whatever has changed.
            await self.save(owner_of(visitor), Changes({}, []))
        except SessionsError as error:
            self.events.touch_failed(error)

    def _token(self, since: datetime) -> Token:
        return Token(new_sid(since, self._random), new_secret(self._random))

    # --- data ---------------------------------------------------------------------------------

    async def save(self, owner: Owner, changes: Changes) -> bool:
        """Write changes; False if the session has ended, whose data have gone with it.

        Raises:
            SessionsUnavailable: if the database does not answer.
        """
        if await self._change(Save(owner, changes, self._now())) is GONE:
            self.events.data_dropped()
            return False
        return True

    async def edit(
        self, owner: Owner, apply: Callable[[dict[str, Any]], tuple[Changes, Any]]
    ) -> Any:  # noqa: ANN401 -- whatever `apply` says
        """Change data by what is in the database at that moment; the answer of `apply`, or `GONE`.

        Raises:
            Exception: what `apply` raises.
            SessionsUnavailable: if the database does not answer.
        """
        answer = await self._change(Edit(owner, apply, self._now()))
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _change(self, job: Save | Edit) -> Any:  # noqa: ANN401 -- as `Store.change`
        """Have a change made. Where another transaction has locked the row, it is tried again
        after a pause, in which the changes of others are made.
        """
        now = asyncio.get_running_loop().time
        until, pause = now() + self._timeout, _PAUSE
        while (answer := await self._store.change(job)) is LOCKED:
            if now() > until:
                raise SessionsUnavailable(
                    "the data cannot be saved: another transaction has locked their session, and "
                    "does not end"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        return answer


def owner_of(visitor: Visitor) -> Owner:
    """The key by which the data of a visitor are found."""
    return Owner(visitor.id, visitor.secret_hash)
