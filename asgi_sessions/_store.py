"""Every SQL statement. Reads answer with rows or None; writes with the rows they changed.

Each write is conditional on the row being live, so that none can bring an ended session back,
and tells by its answer whether it took place. A missing row is never an error; a database that
cannot be asked is `SessionsUnavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterable, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from sqlalchemy import (
    ColumnElement,
    MetaData,
    Select,
    and_,
    bindparam,
    case,
    delete,
    or_,
    select,
    update,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from ._lifetimes import Lifetimes
from ._link import Access, Links
from ._row import Row
from ._tables import sessions_table

Condition = ColumnElement[bool]


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
        links.batched = self._look_up
        self.metadata = MetaData()
        self.table = sessions_table(table_name, self.metadata)
        self._lifetimes = lifetimes
        self._cap = cap
        self._c = self.table.c
        self._columns = [self._c[name] for name in Row._fields]

    def ddl(self, dialect: Dialect) -> list[str]:
        """The statements that make the table and its indexes, in a dialect."""
        indexes = sorted(self.table.indexes, key=lambda index: str(index.name))
        # MySQL knows no IF NOT EXISTS for indexes, and its drivers warn where it holds.
        exists = dialect.name not in {"mysql", "mariadb"}
        made: list[ExecutableDDLElement] = [CreateTable(self.table, if_not_exists=exists)]
        made += [CreateIndex(index, if_not_exists=exists) for index in indexes]
        return [str(one.compile(dialect=dialect)).strip() for one in made]

    async def create(self) -> None:
        """Make the table and its indexes where they are missing."""

        async def work(access: Access) -> None:
            for statement in self.ddl(await access.ddl_dialect()):
                await access.create(statement)

        await self.links.here.writes.put(work)

    # --- what "live" means, once --------------------------------------------------------------

    def live(self, now: datetime) -> Condition:
        """`Row.live` in SQL."""
        return and_(
            self._c.ended_at.is_(None),
            self._c.expires_at > now,
            self._c.last_seen_at > self._lifetimes.idle_since(now),
        )

    def _overdue(self, now: datetime) -> Condition:
        return and_(
            self._c.ended_at.is_(None),
            or_(
                self._c.expires_at <= now,
                self._c.last_seen_at <= self._lifetimes.idle_since(now),
            ),
        )

    # --- reads --------------------------------------------------------------------------------

    def by_sid(self, sid: str) -> Awaitable[Row | None]:
        """The row of this sid, an ended one too."""
        return self.links.here.look_up(sid)

    async def by_sids(self, sids: Iterable[str]) -> dict[str, Row]:
        """The rows of these sids, ended ones too."""
        rows = await asyncio.gather(*map(self.by_sid, sids))
        return {row.id: row for row in rows if row is not None}

    async def live_scope_row(self, keys: Iterable[bytes]) -> Row | None:
        """The row of origin ``scope`` that a device uses, unless it has ended."""
        for key in keys:
            row = await self.links.here.look_up(key)
            if row is not None:
                return row
        return None

    async def _look_up(self, access: Access, keys: list[str | bytes]) -> list[Row | None]:
        """Answer what many requests have asked for, in one SELECT for each kind of key."""
        found: dict[str | bytes, Row] = {}
        for kind, column in ((str, self._c.id), (bytes, self._c.live_device_key)):
            asked = list({key for key in keys if type(key) is kind})
            if asked:
                size = 1 << (len(asked) - 1).bit_length()  # few statements for all numbers
                statement = access.statement((kind, size), partial(self._in, column, size))
                asked += asked[-1:] * (size - len(asked))
                for record in await access.run(statement, asked):
                    found[record[0]] = Row._make(record[-len(Row._fields) :])
        return [found.get(key) for key in keys]

    def _in(self, column: ColumnElement[Any], size: int) -> Select[Any]:
        keys = [bindparam(f"key_{i}", None, type_=column.type) for i in range(size)]
        first = [] if column is self._columns[0] else [column]
        return select(*first, *self._columns).where(column.in_(keys))

    async def by_device(
        self, keys: Sequence[bytes], *, live: datetime | None = None, origin: str | None = None
    ) -> Row | None:
        """The newest row of a device: of those live at a moment, of one origin, or of all."""
        conditions: list[Condition] = [self._c.device_key.in_(keys)]
        if live is not None:
            conditions.append(self.live(live))
        if origin is not None:
            conditions.append(self._c.origin == origin)

        async def work(access: Access) -> Row | None:
            newest = (self._c.started_at.desc(), self._c.id.desc())
            rows = await self._read(access, *conditions, order=newest, limit=1)
            return rows[0] if rows else None

        answer: Row | None = await self.links.here.queries.put(work)
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
        conditions = self._of(person_id, app_id)
        if live is not None:
            conditions.append(self.live(live))
        if before is not None:
            conditions.append(self._c.id < before)

        async def work(access: Access) -> list[Row]:
            return await self._read(access, *conditions, order=(self._c.id.desc(),), limit=limit)

        answer: list[Row] = await self.links.here.queries.put(work)
        return answer

    # --- writes -------------------------------------------------------------------------------

    async def insert(
        self, values: dict[str, Any], *, replaces: str | None, now: datetime
    ) -> tuple[Row, list[Row]]:
        """A new row of origin ``login``, and the rows that it ended: the one it replaces, and
        those over the cap. All of it or nothing.
        """

        async def work(access: Access) -> tuple[Row, list[Row]]:
            async with access.transaction():
                ended: list[Row] = []
                if replaces is not None:
                    ended += await self._end(access, now, "replaced", self._c.id == replaces)
                # Once, in case that it is tried again after its answer was lost.
                await access.execute(access.driver.insert_once(self.table).values(values))
                ended += await self._enforce_cap(access, values, now)
                (row,) = await self._read(access, self._c.id == values["id"])
            return row, ended + await self._enforce_cap_again(access, values, now)

        answer: tuple[Row, list[Row]] = await self.links.here.writes.put(work)
        return answer

    async def insert_once(
        self, values: dict[str, Any], keys: Sequence[bytes], *, now: datetime
    ) -> tuple[Row, list[Row]]:
        """The one live row of origin ``scope`` that this device has: a new one, or the one that
        another request or process was first to make; and the rows that it ended.
        """

        async def work(access: Access) -> tuple[Row, list[Row]]:
            async with access.transaction():
                mine = self._c.live_device_key.in_(keys)
                once = access.driver.insert_once(self.table).values(values)
                # First a write: SQLite refuses one after a read if others wrote in between.
                await access.execute(once)
                ended = await self._expire(access, now, mine)
                if ended:  # the device's last one had run out
                    await access.execute(once)
                (row, *_) = await self._read(access, mine)
                mine_now = row.id == values["id"]
                if mine_now:
                    ended += await self._enforce_cap(access, values, now)
            if mine_now:
                ended += await self._enforce_cap_again(access, values, now)
            return row, ended

        answer: tuple[Row, list[Row]] = await self.links.here.writes.put(work)
        return answer

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
        mine = self._c.id == sid
        if person_id is not None:
            mine &= self._c.person_id == person_id

        async def work(access: Access) -> tuple[Row | None, bool]:
            ended = await self._end(access, now, reason, mine)
            if ended:
                return ended[0], True
            expired = await self._expire(access, now, mine)
            rows = expired or await self._read(access, mine)
            return (rows[0] if rows else None), bool(expired)

        answer: tuple[Row | None, bool] = await self.links.here.writes.put(work)
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
        conditions = self._of(person_id, app_id)
        if except_sid is not None:
            conditions.append(self._c.id != except_sid)

        async def work(access: Access) -> list[Row]:
            return await self._end(access, now, reason, and_(*conditions))

        answer: list[Row] = await self.links.here.writes.put(work)
        return answer

    async def renew(self, row: Row, values: dict[str, Any], *, now: datetime) -> Row | None:
        """Write a new secret unless the session is dead (None) or another request has renewed it
        since `row` was read (then its row as it is now).
        """
        mine = self._c.id == row.id
        unchanged = and_(mine, self._c.secret_hash == row.secret_hash, self.live(now))

        async def work(access: Access) -> Row | None:
            rows = await self._update(access, values, unchanged) or await self._read(
                access, mine, self.live(now)
            )
            return rows[0] if rows else None

        answer: Row | None = await self.links.here.writes.put(work)
        return answer

    async def touch(self, row: Row, *, now: datetime, seen: bool) -> None:
        """Note that a live session was used; with `seen`, that its new secret has arrived."""
        used = self._c.last_seen_at
        values: dict[str, Any] = {"last_seen_at": case((used < now, now), else_=used)}
        if seen:
            values["secret_seen_at"] = now
        mine = and_(self._c.id == row.id, self._c.secret_hash == row.secret_hash, self.live(now))

        async def work(access: Access) -> None:
            await access.execute(update(self.table).where(mine).values(values))

        await self.links.here.writes.put(work)

    async def purge(self, *, keep: timedelta, batch_size: int, now: datetime) -> int:
        """Mark what has run out, then remove what ended longer than `keep` ago, in batches."""

        async def mark(access: Access) -> int:
            # By `expires_at` alone: what is merely idle is found when its time is up, too.
            ids = await self._ids(
                access,
                and_(self._c.ended_at.is_(None), self._c.expires_at <= now),
                order=self._c.expires_at,
                limit=batch_size,
            )
            return len(await self._expire(access, now, self._c.id.in_(ids))) if ids else 0

        async def remove(access: Access) -> int:
            ids = await self._ids(
                access, self._c.ended_at < now - keep, order=self._c.ended_at, limit=batch_size
            )
            if not ids:
                return 0
            return await access.execute(delete(self.table).where(self._c.id.in_(ids)))

        removed = 0
        for step in (mark, remove):
            while count := await self.links.here.writes.put(step):
                removed += count if step is remove else 0
        return removed

    # --- pieces -------------------------------------------------------------------------------

    def _of(self, person_id: str, app_id: str | None) -> list[Condition]:
        conditions: list[Condition] = [self._c.person_id == person_id]
        if app_id is not None:
            conditions.append(self._c.app_id == app_id)
        return conditions

    async def _read(
        self,
        access: Access,
        *conditions: Condition,
        order: Sequence[ColumnElement[Any]] = (),
        limit: int | None = None,
    ) -> list[Row]:
        query = select(*self._columns).where(*conditions).order_by(*order).limit(limit)
        return [Row._make(record) for record in await access.fetch(query)]

    async def _ids(
        self, access: Access, condition: Condition, *, order: ColumnElement[Any], limit: int
    ) -> list[str]:
        query = select(self._c.id).where(condition).order_by(order).limit(limit)
        return [record[0] for record in await access.fetch(query)]

    async def _update(
        self, access: Access, values: dict[str, Any], condition: Condition
    ) -> list[Row]:
        records = await access.update(self.table, values, condition, self._columns)
        return [Row._make(record) for record in records]

    async def _end(
        self, access: Access, now: datetime, reason: str, condition: Condition
    ) -> list[Row]:
        values = {"ended_at": now, "end_reason": reason, "live_device_key": None}
        return await self._update(access, values, and_(condition, self.live(now)))

    async def _expire(self, access: Access, now: datetime, condition: Condition) -> list[Row]:
        """Write down the end of what has run out: at the moment when it did."""
        rows = await self._read(access, condition, self._overdue(now))
        if not rows:
            return []
        ended: list[Row] = []
        async with access.transaction():
            for row in rows:
                values = {
                    "ended_at": row.deadline(self._lifetimes),
                    "end_reason": "expired",
                    "live_device_key": None,
                }
                mine = and_(self._c.id == row.id, self._overdue(now))
                ended += await self._update(access, values, mine)
        return ended

    async def _enforce_cap(
        self, access: Access, values: dict[str, Any], now: datetime
    ) -> list[Row]:
        """End what the new row is too many of: the least recently seen, never the new one."""
        if self._cap is None:
            return []
        others = [*self._of(values["person_id"], values["app_id"]), self._c.id != values["id"]]
        return await self._end_surplus(access, others, self._cap - 1, now)

    async def _enforce_cap_again(
        self, access: Access, values: dict[str, Any], now: datetime
    ) -> list[Row]:
        """Once the row is there for all to see: logins at the same moment did not see one
        another. They agree on the order, so that no two of them end each other.
        """
        if self._cap is None:
            return []
        everyone = self._of(values["person_id"], values["app_id"])
        return await self._end_surplus(access, everyone, self._cap, now)

    async def _end_surplus(
        self, access: Access, conditions: list[Condition], keep: int, now: datetime
    ) -> list[Row]:
        latest = (self._c.last_seen_at.desc(), self._c.id.desc())
        rows = await self._read(access, *conditions, self.live(now), order=latest)
        surplus = [row.id for row in rows[keep:]]
        if not surplus:
            return []
        return await self._end(access, now, "limit", self._c.id.in_(surplus))
