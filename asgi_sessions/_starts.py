"""How rows start: all that are asked for at the same time in one transaction."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select

from ._access import Access
from ._ends import Ends
from ._row import Row
from ._sql import Clauses


@dataclass(slots=True)
class Start:
    """A row to be written.

    Attributes:
        row: the values by column.
        keys: of a row of origin ``scope``: its device by each key; none of a login.
        replaces: the sid of the session that ends with it.
        now: when it was asked for.
        shared: what `row` and `keys` are where the person has as many of origin ``scope`` as they
            may: the row that their other devices share.
        ended: the rows that it has ended so far. Kept here, so that they are told of even if what
            comes after is tried again.
    """

    row: dict[str, Any]
    keys: Sequence[bytes]
    replaces: str | None
    now: datetime
    shared: tuple[dict[str, Any], Sequence[bytes]] | None = None
    ended: list[Row] = field(default_factory=list)


class Started(NamedTuple):
    """The row that a device has now, its own or one that was there, and the rows that ended."""

    row: Row
    ended: list[Row]


#: The values of a row in the order of `Row`.
_in_order = itemgetter(*Row._fields)


class Starts:
    """Writes new rows, and ends what they put an end to.

    Args:
        sql: what is said of the table.
        ends: how rows end.
        cap: live rows of origin ``login`` that a person may have in an app; None for any number.
        scope_cap: those of origin ``scope``. Processes that start some at the same moment do not
            see one another's, and may pass it by those.
    """

    def __init__(self, sql: Clauses, ends: Ends, cap: int | None, scope_cap: int | None) -> None:
        self._sql = sql
        self._ends = ends
        self._cap = cap
        self._scope_cap = scope_cap

    async def run(self, access: Access, jobs: list[Start]) -> list[Started]:
        """Start sessions: all of them, or none."""
        now = max(job.now for job in jobs)
        ended: list[Row] = []
        # Also around a single INSERT: given up while it waits for a lock, it is never committed, so
        # that nobody finds a session of a login that has failed.
        async with access.transaction():
            # First a write: SQLite refuses one after a read if others wrote in between.
            await self._insert(access, [job.row for job in jobs])
            scope = [job for job in jobs if job.keys]
            theirs = await self._by_device(access, scope, ended, now) if scope else {}
            if beyond := await self._beyond(access, scope, theirs, now):
                theirs |= await self._share(access, beyond, ended, now)
            rows = [_started(job, theirs) for job in jobs]
            replaced = [job.replaces for job in jobs if job.replaces is not None]
            ended += await self._ends.end_these(access, replaced, reason="replaced", now=now)
            new = [row for row, job in zip(rows, jobs, strict=True) if not job.keys]
            ended += await self._end_surplus(access, new, spared=new, now=now)
        _assign(jobs, rows, ended)
        if self._cap is not None and new and not access.driver.serial:
            # Logins at the same moment did not see one another; now all of them are there.
            async with access.transaction():
                ended = await self._end_surplus(access, new, spared=(), now=now)
            _assign(jobs, rows, ended)
        return [Started(row, job.ended) for row, job in zip(rows, jobs, strict=True)]

    async def _insert(self, access: Access, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows unless they are there: one may be tried again after its answer was lost, and
        a device may have its row already.
        """
        await access.insert(access.driver.insertion(self._sql.table, rows))

    async def _by_device(
        self, access: Access, jobs: Sequence[Start], ended: list[Row], now: datetime
    ) -> dict[bytes, Row]:
        """The live rows of devices; one whose time was up makes room for a new one, whoever
        has ended it.
        """
        theirs = await self._live(access, jobs)
        over = self._ends.overdue(theirs.values(), now)
        ended += await self._ends.expire(access, over, now)
        gone = {row.id for row in over}
        again = [job for job in jobs if (row := _of(job, theirs)) is None or row.id in gone]
        if again:
            await self._insert(access, [job.row for job in again])
            theirs = await self._live(access, jobs)
        return theirs

    async def _beyond(
        self, access: Access, jobs: Sequence[Start], theirs: Mapping[bytes, Row], now: datetime
    ) -> list[Start]:
        """Those of these jobs that have made one more row than their person may have."""
        made = [job for job in jobs if job.shared and _is(job, _of(job, theirs))]
        if self._scope_cap is None or not made:
            return []
        sql, c = self._sql, self._sql.c
        people = access.driver.among(c.person_id, {job.row["person_id"] for job in made})
        records = await access.records(
            ("live of scope", people.shape),
            lambda: (
                select(c.person_id, c.app_id, func.count())
                .where(people.match(), c.live_device_key.is_not(None), sql.live)
                .group_by(c.person_id, c.app_id)
            ),
            {**people.values, **sql.at(now)},
        )
        surplus = {(person, app): count - self._scope_cap for person, app, count in records}
        beyond: list[Start] = []
        for job in reversed(made):
            owner = (job.row["person_id"], job.row["app_id"])
            if surplus.get(owner, 0) > 0:
                surplus[owner] -= 1
                beyond.append(job)
        return beyond

    async def _share(
        self, access: Access, jobs: Sequence[Start], ended: list[Row], now: datetime
    ) -> dict[bytes, Row]:
        """Take back the rows of these jobs, and give them the one that is shared."""
        mine = access.driver.among(self._sql.c.id, [job.row["id"] for job in jobs])
        await access.execute(
            ("take back", mine.shape),
            lambda: delete(self._sql.table).where(mine.match()),
            mine.values,
        )
        for job in jobs:
            assert job.shared is not None  # noqa: S101 -- for the type checker
            (job.row, job.keys), job.shared = job.shared, None
        await self._insert(access, [job.row for job in jobs])
        return await self._by_device(access, jobs, ended, now)

    async def _live(self, access: Access, jobs: Sequence[Start]) -> dict[bytes, Row]:
        keys = [key for job in jobs for key in job.keys]
        mine = access.driver.among(self._sql.c.live_device_key, keys)
        rows = await access.among(self._sql, mine)
        return {row.live_device_key: row for row in rows if row.live_device_key is not None}

    async def _end_surplus(
        self, access: Access, new: Sequence[Row], *, spared: Sequence[Row], now: datetime
    ) -> list[Row]:
        """End what people have too many of: the least recently seen. Their rows are locked, so
        that two who count at the same moment do not both end one.
        """
        if self._cap is None or not new:
            return []
        people = access.driver.among(self._sql.c.person_id, {row.person_id for row in new})
        rows = await access.select(
            ("live of", people.shape),
            lambda: (
                self._sql.theirs.where(people.match(), self._sql.logins, self._sql.live)
                .order_by(self._sql.c.id)  # all lock in the same order
                .with_for_update()
            ),
            {**people.values, **self._sql.at(now)},
        )
        kept = {row.id for row in spared}
        everyone: defaultdict[tuple[str, str], list[Row]] = defaultdict(list)
        for row in rows:
            everyone[row.person_id, row.app_id].append(row)
        surplus: list[str] = []
        for owner in {(row.person_id, row.app_id) for row in new}:
            theirs = everyone[owner]
            theirs.sort(key=lambda row: (row.id in kept, row.last_seen_at, row.id), reverse=True)
            surplus += [row.id for row in theirs[self._cap :]]
        return await self._ends.end_these(access, surplus, reason="limit", now=now)


def _is(job: Start, row: Row | None) -> bool:
    """Whether a row is the one of the job, and not one that was there."""
    return row is not None and row.id == job.row["id"]


def _of(job: Start, theirs: Mapping[bytes, Row]) -> Row | None:
    return next((theirs[key] for key in job.keys if key in theirs), None)


def _started(job: Start, theirs: Mapping[bytes, Row]) -> Row:
    if not job.keys:
        return Row._make(_in_order(job.row))
    row = _of(job, theirs)
    if row is None:  # started and ended by others in between, twice
        raise LookupError("the row of a device was there, and was gone")
    return row


def _assign(jobs: Sequence[Start], rows: Sequence[Row], ended: Sequence[Row]) -> None:
    """Note each ended row with the job that ended it: the one that replaces it, or its person's."""
    for row in ended:
        owner = (row.person_id, row.app_id)
        by = [job.replaces == row.id for job in jobs]
        by += [(one.person_id, one.app_id) == owner for one in rows]
        jobs[by.index(True) % len(jobs)].ended.append(row)
