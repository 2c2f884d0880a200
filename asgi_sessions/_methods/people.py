"""The sessions of any person: list them, end them, remove what is over."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy import Update

from asgi_sessions._errors import ConfigurationError, InvalidSession
from asgi_sessions._model.changeset import checked
from asgi_sessions._model.session import Session
from asgi_sessions._model.tokens import SID_PATTERN
from asgi_sessions._store.maintenance import LARGEST_BATCH

from .base import ANYBODY, AppConnection, AppId, Base

#: The largest LIMIT that every supported database accepts.
_MOST_ROWS = 2**31 - 1


class People(Base):
    """List and end sessions by whose they are."""

    async def list_sessions(
        self,
        person_id: object,
        *,
        app_id: AppId = None,
        include_ended: bool = False,
        limit: int = 100,
        before: str | None = None,
    ) -> list[Session]:
        """A person's sessions, newest first (ASVS 7.5.2).

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.
            include_ended: also what has ended, with its reasons.
            limit: at most so many.
            before: the last sid of the page before this one.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        if limit < 1:
            raise ConfigurationError(f"limit={limit}: use 1 and more")
        if before is not None and not SID_PATTERN.fullmatch(before):
            raise InvalidSession({"before": ["must be a sid"]})
        rows = await self._core.store.listed(
            *self._ids(person_id, app_id),
            live=None if include_ended else self._core.settings.now(),
            limit=min(limit, _MOST_ROWS),
            before=before,
        )
        return self._core.sessions(rows)

    async def end_session_by_id(
        self,
        sid: str | UUID,
        *,
        person_id: object = ANYBODY,
        app_id: AppId = None,
        reason: str = "revoked",
        connection: AppConnection | None = None,
    ) -> Session | None:
        """End one session: the lost phone. It holds at the very next request, in every process.

        Args:
            sid: which.
            person_id: end it only if it is theirs; foreign and unknown look alike. Always pass it
                where people end their own. None is refused: it is nobody's id.
            app_id: with `person_id`, the app in which they have it: None for the `app_id` of
                `Sessions`, or another one, or `ALL_APPS`. In another app the same id may be
                somebody else.
            reason: what to write down; the first end wins.
            connection: as in `start_session`.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        owner, app = (None, None) if person_id is ANYBODY else self._ids(person_id, app_id)
        if not SID_PATTERN.fullmatch(str(sid)):
            checked(end_reason=reason)
            return None
        core = await self._core_on(connection)
        return (await core.end(str(sid), reason, person_id=owner, app_id=app))[0]

    async def end_all_sessions(
        self,
        person_id: object,
        *,
        app_id: AppId = None,
        except_sid: str | None = None,
        connection: AppConnection | None = None,
    ) -> int:
        """End a person's sessions (``revoked``, ASVS 7.4.2); how many. When it is answered, each
        that was live when it began has ended; those that start meanwhile stay. Of many it ends
        some at a time, the newest first, so that nobody else waits for them.

        It is remembered for 400 days: what another layer says of the person counts again once it
        brings a proof (``authenticated_at``, or a token's ``auth_time`` or ``iat``) from after
        this, whatever the device. `readmit` lifts it. A login by `start_session` needs neither.

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.
            except_sid: the one to keep.
            connection: as in `start_session`. All of them end in that one transaction, so that
                others wait for their rows until it is over.
        """
        spared = except_sid if SID_PATTERN.fullmatch(except_sid or "") else None
        core = await self._core_on(connection)
        return await core.end_all(*self._ids(person_id, app_id), spared)

    async def readmit(self, person_id: object, *, app_id: AppId = None) -> None:
        """Let a person in again whose sessions were ended, with whatever another layer says of
        them: where that layer never dates its proofs. Old tokens of theirs are good again, too, so
        have them withdrawn before.

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        await self._core.readmit(*self._ids(person_id, app_id))

    def end_all_statement(
        self,
        person_id: object,
        *,
        app_id: AppId = None,
        except_sid: str | None = None,
        reason: str = "revoked",
    ) -> Update:
        """The UPDATE of `end_all_sessions`, for a transaction of your own in the same database: the
        sessions end if it commits, and only then. Nobody is told (no event, no record), and
        nothing is cut off: where another layer vouches for people, call `end_all_sessions` after
        the commit as well. Open WebSockets are closed within `socket_check_interval`.

        Args:
            person_id: str, int or UUID.
            app_id: None for the `app_id` of `Sessions`, or another one, or `ALL_APPS`.
            except_sid: the one to keep.
            reason: what to write down.

        Raises:
            InvalidSession: if an argument cannot be one.
        """
        return self._core.store.end_all_statement(
            *self._ids(person_id, app_id),
            except_sid=except_sid,
            reason=checked(end_reason=reason)["end_reason"],
            now=self._core.settings.now(),
        )

    async def purge(self, *, batch_size: int = 1000) -> int:
        """Remove what ended longer than `keep_ended` ago; how many rows. Run it daily.

        Args:
            batch_size: rows per statement at most, up to 4,096. There are fewer while that takes
                long, and a rest after each, so that requests do not wait for it.
        """
        if batch_size < 1:
            raise ConfigurationError(f"batch_size={batch_size}: use 1 and more")
        settings = self._core.settings
        return await self._core.store.purge(
            keep=settings.keep_ended, batch_size=min(batch_size, LARGEST_BATCH), now=settings.now()
        )
