"""The rows. Reads answer with rows or None; writes with the rows they changed.

Each write is conditional on the row being live, so that none can bring an ended session back,
and tells by its answer whether it took place. A missing row is never an error; a database that
cannot be asked is `SessionsUnavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Integer, MetaData, bindparam, delete, update

from ._access import Access
from ._ends import Ends
from ._lifetimes import Lifetimes
from ._link import Work
from ._links import Links
from ._row import Row
from ._sql import Clauses, Condition, values
from ._starts import Start, Started, Starts
from ._tables import ddl, sessions_table

_LIMIT = bindparam("p_limit", type_=Integer())


class Store:
    """The table of sessions in a database.

    Args:
        links: where the database is reached.
        table_name: the table's name.
        lifetimes: what "live" means.
        cap: live sessions that a person may have in an app; None for any number.
    """

    def __init__(
        self, links: Links, table_name: str, lifetimes: Lifetimes, cap: int | None
    ) -> None:
        self.links = links
        self.metadata = MetaData()
        self.table = sessions_table(table_name, self.metadata)
        self._sql = Clauses(self.table, lifetimes)
        self._ends = Ends(self._sql, lifetimes)
        starts = Starts(self._sql, self._ends, cap)
        links.batched = {"look-up": self._look_up, "start": starts.run, "touch": self._touch}

    async def create(self) -> None:
        """Make the table and its indexes where they are missing."""

        async def work(access: Access) -> None:
            for statement in ddl(self.table, await access.ddl_dialect()):
                await access.create(statement)

        await self._write(work)

    # --- reads --------------------------------------------------------------------------------

    def by_sid(self, sid: str) -> Awaitable[Row | None]:
        """The row of this sid, an ended one too."""
        return self.links.here.lookups.put("look-up", sid)

    async def by_sids(self, sids: Iterable[str]) -> dict[str, Row]:
        """The rows of these sids, ended ones too."""
        rows = await asyncio.gather(*map(self.by_sid, sids))
        return {row.id: row for row in rows if row is not None}

    async def live_scope_row(self, keys: Iterable[bytes]) -> Row | None:
        """The row of origin ``scope`` that a device uses, unless it has ended."""
        for key in keys:
            row: Row | None = await self.links.here.lookups.put("look-up", key)
            if row is not None:
                return row
        return None

    async def _look_up(self, access: Access, keys: list[str | bytes]) -> list[Row | None]:
        """Answer what many requests have asked for, in one SELECT for each kind of key."""
        c = self.table.c
        found: dict[str | bytes, Row] = {}
        sids = {key for key in keys if type(key) is str}
        if sids:
            for row in await self._read_among(access, c.id, sids):
                found[row.id] = row
        if len(sids) < len(keys):
            devices = {key for key in keys if type(key) is bytes}
            if devices:
                for row in await self._read_among(access, c.live_device_key, devices):
                    found[row.live_device_key or b""] = row
        return [found.get(key) for key in keys]

    async def by_device(
        self, keys: Sequence[bytes], *, live: datetime | None = None, origin: str | None = None
    ) -> Row | None:
        """The newest row of a device: of those live at a moment, of one origin, or of all."""
        sql = self._sql
        given: dict[str, Any] = {}
        conditions: list[Condition] = []
        if live is not None:
            conditions.append(sql.live)
            given |= sql.at(live)
        if origin is not None:
            conditions.append(sql.equals("origin"))
            given |= values(origin=origin)

        async def work(access: Access) -> Row | None:
            device = access.driver.among(self.table.c.device_key, keys)
            newest = (self.table.c.started_at.desc(), self.table.c.id.desc())
            rows = await access.select(
                ("device", live is None, origin is None, device.shape),
                lambda: sql.rows.where(device.match(), *conditions).order_by(*newest).limit(1),
                {**given, **device.values},
            )
            return rows[0] if rows else None

        answer: Row | None = await self._query(work)
        return answer

    async def listed(
        self,
        person_id: str,
        app_id: str | None,
        *,
        live: datetime | None,
        limit: int,
        before: str | None,
    ) -> list[Row]:
        """A person's rows, newest first, from `before` (a sid) on; all or those live."""
        sql = self._sql
        mine, given = self._of(person_id, app_id)
        given["p_limit"] = limit
        if live is not None:
            mine &= sql.live
            given |= sql.at(live)
        if before is not None:
            mine &= self.table.c.id < sql.param("id")
            given |= values(id=before)
        key = ("listed", app_id is None, live is None, before is None)
        newest = self.table.c.id.desc()

        async def work(access: Access) -> list[Row]:
            return await access.select(
                key, lambda: sql.rows.where(mine).order_by(newest).limit(_LIMIT), given
            )

        answer: list[Row] = await self._query(work)
        return answer

    # --- writes -------------------------------------------------------------------------------

    async def insert(self, row: dict[str, Any], *, replaces: str | None, now: datetime) -> Started:
        """A new row of origin ``login``, and the rows that it ended: the one it replaces, and
        those over the cap. All of it or nothing.
        """
        started: Started = await self.links.here.writes.put("start", Start(row, (), replaces, now))
        return started

    async def insert_once(
        self, row: dict[str, Any], keys: Sequence[bytes], *, now: datetime
    ) -> Started:
        """The one live row of origin ``scope`` that this device has: a new one, or the one that
        another request or process was first to make; and the rows that it ended.
        """
        started: Started = await self.links.here.writes.put("start", Start(row, keys, None, now))
        return started

    async def end(
        self,
        sid: str,
        *,
        reason: str,
        now: datetime,
        person_id: str | None = None,
    ) -> tuple[Row | None, bool]:
        """End one session, of this person if one is given: its row, and whether it ended now.
        The first end wins; one whose time was up has ended by that.
        """
        sql = self._sql
        mine, given = sql.sid, values(id=sid)
        if person_id is not None:
            mine &= sql.person
            given |= values(person_id=person_id)
        key = ("one", person_id is None)

        async def work(access: Access) -> tuple[Row | None, bool]:
            ended = await self._ends.end(access, key, mine, given, reason=reason, now=now)
            if ended:
                return ended[0], True
            rows = await access.select(key, lambda: sql.rows.where(mine), given)
            expired = await self._ends.expire(access, rows, now)
            return (*expired, *rows, None)[0], bool(expired)

        answer: tuple[Row | None, bool] = await self._write(work)
        return answer

    async def end_all(
        self,
        person_id: str,
        app_id: str | None,
        *,
        except_sid: str | None,
        reason: str,
        now: datetime,
    ) -> list[Row]:
        """End a person's live sessions but one."""
        mine, given = self._of(person_id, app_id)
        if except_sid is not None:
            mine &= self.table.c.id != self._sql.param("id")
            given |= values(id=except_sid)
        key = ("all", app_id is None, except_sid is None)

        async def work(access: Access) -> list[Row]:
            return await self._ends.end(access, key, mine, given, reason=reason, now=now)

        answer: list[Row] = await self._write(work)
        return answer

    async def renew(self, row: Row, changed: dict[str, Any], *, now: datetime) -> Row | None:
        """Write a new secret unless the session is dead (None) or another request has renewed it
        since `row` was read (then its row as it is now).
        """
        sql = self._sql
        old = bindparam("p_old_hash", type_=self.table.c.secret_hash.type)
        unchanged = sql.sid & sql.live & (self.table.c.secret_hash == old)
        given = {**sql.at(now), **values(id=row.id, old_hash=row.secret_hash, **changed)}

        async def work(access: Access) -> Row | None:
            rows = await access.update(
                "renew", sql, lambda: unchanged, changes=sql.given(*changed), values=given
            ) or await access.select("live one", lambda: sql.rows.where(sql.sid, sql.live), given)
            return rows[0] if rows else None

        answer: Row | None = await self._write(work)
        return answer

    async def bind(self, row: Row, binding: bytes, *, now: datetime) -> bool:
        """Write what a device has proved, unless the session is dead, or another request has
        written since `row` was read.
        """
        sql, c = self._sql, self.table.c
        old = bindparam("p_old_binding", type_=c.binding.type)
        unchanged = c.binding.is_(None) if row.binding is None else c.binding == old
        given = {**sql.at(now), **values(id=row.id, old_binding=row.binding, binding=binding)}

        async def work(access: Access) -> int:
            return await access.execute(
                ("bind", row.binding is None),
                lambda: (
                    update(self.table)
                    .where(sql.sid, sql.live, unchanged)
                    .values(sql.given("binding"))
                ),
                given,
            )

        return bool(await self._write(work))

    async def touch(self, sid: str, *, now: datetime) -> None:
        """Note that a live session was used."""
        await self.links.here.writes.put("touch", (sid, now))

    async def _touch(self, access: Access, jobs: list[tuple[str, datetime]]) -> list[None]:
        """One UPDATE for all that have been used since the last; the time of the earliest."""
        sql, c = self._sql, self.table.c
        now = min(now for _, now in jobs)
        mine = access.driver.among(c.id, {sid for sid, _ in jobs})
        await access.execute(
            ("touch", mine.shape),
            lambda: (
                update(self.table)
                .where(mine.match(), sql.live, c.last_seen_at < sql.now)
                .values(last_seen_at=sql.now)
            ),
            {**sql.at(now), **mine.values},
        )
        return [None] * len(jobs)

    async def arrived(self, row: Row, *, now: datetime) -> None:
        """Note that the secret of a row has been seen: its predecessor's grace begins."""
        sql = self._sql
        mine = sql.sid & sql.live & sql.equals("secret_hash")
        given = {**sql.at(now), **values(id=row.id, secret_hash=row.secret_hash)}

        async def work(access: Access) -> None:
            await access.execute(
                "arrived",
                lambda: update(self.table).where(mine).values(secret_seen_at=sql.now),
                given,
            )

        await self._write(work)

    async def purge(self, *, keep: timedelta, batch_size: int, now: datetime) -> int:
        """Mark what has run out, then remove what ended longer than `keep` ago, in batches."""
        sql, c = self._sql, self.table.c

        async def mark(access: Access) -> int:
            # By `expires_at` alone: what is merely idle is found when its time is up, too.
            over = c.ended_at.is_(None) & (c.expires_at <= sql.now)
            rows = await access.select(
                "over",
                lambda: sql.rows.where(over).order_by(c.expires_at).limit(_LIMIT),
                {"p_now": now, "p_limit": batch_size},
            )
            return len(await self._ends.expire(access, rows, now))

        async def remove(access: Access) -> int:
            old = c.ended_at < sql.param("ended_at")
            ids = await access.ids(
                "old",
                lambda: sql.ids.where(old).order_by(c.ended_at).limit(_LIMIT),
                {"p_ended_at": now - keep, "p_limit": batch_size},
            )
            if not ids:
                return 0
            mine = access.driver.among(c.id, ids)
            return await access.execute(
                ("delete", mine.shape),
                lambda: delete(self.table).where(mine.match()),
                mine.values,
            )

        removed = 0
        for step in (mark, remove):
            while count := await self._write(step):
                removed += count if step is remove else 0
        return removed

    # --- pieces -------------------------------------------------------------------------------

    def _write(self, work: Work) -> asyncio.Future[Any]:
        return self.links.here.writes.put("other", work)

    def _query(self, work: Work) -> asyncio.Future[Any]:
        return self.links.here.queries.put("other", work)

    def _of(self, person_id: str, app_id: str | None) -> tuple[Condition, dict[str, Any]]:
        if app_id is None:
            return self._sql.person, values(person_id=person_id)
        both = self._sql.person & self._sql.app
        return both, values(person_id=person_id, app_id=app_id)

    async def _read_among(
        self, access: Access, column: ColumnElement[Any], keys: Iterable[Any]
    ) -> list[Row]:
        mine = access.driver.among(column, keys)
        return await access.select(
            mine.shape, lambda: self._sql.rows.where(mine.match()), mine.values
        )
