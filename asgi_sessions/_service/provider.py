"""What a provider says of its people ends their sessions here, or is told to the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from asgi_sessions._errors import InvalidSession
from asgi_sessions._model.changeset import checked
from asgi_sessions._model.provider import Kind, name_of
from asgi_sessions._model.row import Row
from asgi_sessions._store.bulk_ending import Column
from asgi_sessions._store.store import Finding

from .core import Core
from .events import SignalKind


class Named(NamedTuple):
    """Whom a provider means: a person by their ``sub``, or one session of theirs by its ``sid``."""

    kind: Kind
    value: str

    @property
    def column(self) -> Column:
        """Where rows have it."""
        return "subject" if self.kind == "subject" else "provider_sid"

    def can_be_stored(self) -> bool:
        """Whether a row can have it; a database would not even take the question."""
        try:
            checked(**{self.column: self.value})
        except InvalidSession:
            return False
        return True


class ProviderSteps:
    """The steps that one issuer may cause, in the app of these `Sessions`.

    Args:
        core: the steps of a session's life.
        issuer: whose words count, and nobody else's.
    """

    def __init__(self, core: Core, issuer: str) -> None:
        self._core = core
        self._issuer = issuer
        self._app_id = core.settings.app_id

    async def end(self, named: Named, dated: datetime, token: str) -> int:
        """End the sessions of a person or of a session of theirs at the issuer (``revoked``), and
        cut off what was proved before; how many. Those that start meanwhile stay, also if the same
        token is at work twice at once.

        Args:
            named: whose, or which.
            dated: when the issuer said so, by its own clock, which has dated its tokens, too.
            token: by which one, as in `has_seen`.
        """
        now = self._core.settings.now()
        await self._remember(name_of(named.kind, self._issuer, named.value), max(now, dated), now)
        if not named.can_be_stored():
            return 0
        return await self._core.report_batches(self._batches(named, now, token))

    def _batches(self, named: Named, now: datetime, token: str) -> AsyncIterator[list[Row]]:
        async def still() -> bool:
            # Asked again when the rows are known: a session that has started since another request
            # was done with the same token is none of those.
            return not await self.has_seen(token)

        return self._core.store.bulk.end_named(
            named.column,
            named.value,
            self._issuer,
            self._app_id,
            reason="revoked",
            now=now,
            still=still,
        )

    async def tell(self, kind: SignalKind, named: Named, signal: Mapping[str, Any]) -> None:
        """Tell the app what the issuer says of somebody, once for each of their live sessions."""
        if not named.can_be_stored():
            return
        now = self._core.settings.now()
        rows = await self._core.store.named(
            named.column, named.value, self._issuer, self._app_id, now=now
        )
        for session in self._core.sessions(rows):
            self._core.events.signalled(kind, session, signal)

    async def has_seen(self, token: str) -> bool:
        """Whether a token was taken before, in whichever process. `token` names it."""
        asked = Finding(name_of("token", self._issuer, token), self._app_id)
        return bool((await self._core.store.find(asked)).cutoffs)

    async def note(self, token: str) -> None:
        """Remember a token, once what it says is done: one that was lost on the way comes again."""
        now = self._core.settings.now()
        await self._remember(name_of("token", self._issuer, token), now, now)

    async def _remember(self, name: str, moment: datetime, now: datetime) -> None:
        await self._core.store.cutoffs.change(
            name, self._app_id, lambda old, beside: old.cut(beside, moment, None), now=now
        )
