"""How rows start: all starts that are requested at the same time share one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import ScalarSelect, bindparam, delete, func, select
from sqlalchemy.sql import ClauseElement

from asgi_sessions._database.statement import padded
from asgi_sessions._model.row import COLUMNS, Row

from .clauses import LIMIT, Clauses, Condition, values
from .connection import RowConnection
from .data import Data, Owner, TakeOver
from .ending import Ends


@dataclass(slots=True)
class Start:
    """A row to be written.

    Attributes:
        row: the values by column.
        keys: of a row of origin ``scope``: its device by each key; none of a login.
        replaces: the sid of the session that ends with it.
        now: when it was asked for.
        shared: the row and the keys to write in their place if the person has as many sessions of
            origin ``scope`` as they may: those of the row that their other devices share.
        source: whose data the session takes over, if it is a new one.
        source_data: what the source had; None if it was gone, or another login has taken it.
        ended: the rows that it has ended so far. Kept here, so that they are told of even if what
            comes after is tried again.
    """

    row: dict[str, Any]
    keys: Sequence[bytes]
    replaces: str | None
    now: datetime
    shared: tuple[dict[str, Any], Sequence[bytes]] | None = None
    source: Owner | None = None
    source_data: dict[str, Any] | None = None
    ended: list[Row] = field(default_factory=list)


class Inserted(NamedTuple):
    """What a start has done.

    Attributes:
        row: the one that the device has now, its own or one that was there.
        ended: the rows that it has ended.
        crowded: whether so many are over the cap that their end is left to the caller.
        source_data: the data of the source, if the new session has taken them over.
    """

    row: Row
    ended: list[Row]
    crowded: bool
    source_data: dict[str, Any] | None


#: Live rows over the cap that are ended with a start at most; more are left to `Bulk`.
ROOM = 128
#: People of whom one statement asks how many rows they have.
_PEOPLE = 8

#: A person in an app, by their ids.
Account = tuple[str, str]

#: The values of a row in the order of `Row`.
_in_order = itemgetter(*COLUMNS)


class Starts:
    """Writes new rows, and ends what they put an end to.

    Args:
        sql: what is said of the table.
        ends: how rows end.
        cap: live rows of origin ``login`` that a person may have in an app; None for any number.
        scope_cap: those of origin ``scope``. Processes that start some at the same moment do not
            see one another's, and may pass it by those.
        data: gives new sessions the data of their sources; None where sessions have no data.
    """

    def __init__(
        self,
        sql: Clauses,
        ends: Ends,
        cap: int | None,
        scope_cap: int | None,
        data: Data | None = None,
    ) -> None:
        self._data = data
        self._sql = sql
        self._ends = ends
        self._cap = cap
        self._scope_cap = scope_cap

    async def run(self, connection: RowConnection, jobs: list[Start]) -> list[Inserted]:
        """Start sessions: all of them, or none."""
        now = max(job.now for job in jobs)
        ended: list[Row] = []
        # Also around a single INSERT: given up while it waits for a lock, it is never committed, so
        # that nobody finds a session of a login that has failed.
        async with connection.transaction():
            # First a write: SQLite refuses one after a read if others wrote in between.
            await self._insert(connection, [job.row for job in jobs])
            scope = [job for job in jobs if job.keys]
            theirs = await self._by_device(connection, scope, ended, now) if scope else {}
            if beyond := await self._beyond(connection, scope, theirs, now):
                theirs |= await self._share(connection, beyond, ended, now)
            rows = [_started(job, theirs) for job in jobs]
            await self._take_over(connection, jobs, rows, now)
            replaced = [job.replaces for job in jobs if job.replaces is not None]
            ended += await self._ends.end_these(connection, replaced, reason="replaced", now=now)
            new = [row for row, job in zip(rows, jobs, strict=True) if not job.keys]
            surplus, crowded = await self.end_surplus(connection, new, spared=new, now=now)
            ended += surplus
        _assign(jobs, rows, ended)
        if self._cap is not None and new and not connection.driver.serial:
            # Logins at the same moment did not see one another; now all of them are there.
            async with connection.transaction():
                ended, more = await self.end_surplus(connection, new, spared=(), now=now)
                crowded |= more
            _assign(jobs, rows, ended)
        return [
            Inserted(row, job.ended, _account(row) in crowded, job.source_data)
            for row, job in zip(rows, jobs, strict=True)
        ]

    async def _insert(self, connection: RowConnection, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows unless they are there: one may be tried again after its answer was lost, and
        a device may have its row already.
        """
        await connection.insert(connection.driver.insertion(self._sql.table, rows))

    async def _take_over(
        self, connection: RowConnection, jobs: Sequence[Start], rows: Sequence[Row], now: datetime
    ) -> None:
        """Give new sessions the data of their sources. Before the sessions that they replace end,
        whose data are removed then.
        """
        taking = [
            (job, TakeOver(job.source, row.id))
            for job, row in zip(jobs, rows, strict=True)
            if job.source is not None and _is(job, row)
        ]
        if self._data is None or not taking:
            return
        taken = await self._data.take_over(connection, [one for _, one in taking], now)
        for job, one in taking:
            job.source_data = taken.get(one.sid)

    async def _by_device(
        self, connection: RowConnection, jobs: Sequence[Start], ended: list[Row], now: datetime
    ) -> dict[bytes, Row]:
        """The live rows of devices; one whose time was up makes room for a new one, whoever
        has ended it.
        """
        theirs = await self._live(connection, jobs)
        over = self._ends.overdue(theirs.values(), now)
        ended += await self._ends.expire(connection, over, now)
        gone = {row.id for row in over}
        again = [job for job in jobs if (row := _of(job, theirs)) is None or row.id in gone]
        if again:
            await self._insert(connection, [job.row for job in again])
            theirs = await self._live(connection, jobs)
        return theirs

    async def _beyond(
        self,
        connection: RowConnection,
        jobs: Sequence[Start],
        theirs: Mapping[bytes, Row],
        now: datetime,
    ) -> list[Start]:
        """Those of these jobs whose row is one more than their person may have: the one that has
        made it, and whoever asks for the same device in the same moment.
        """
        made = [job for job in jobs if job.shared and _is(job, _of(job, theirs))]
        if self._scope_cap is None or not made:
            return []
        accounts = sorted({(job.row["person_id"], job.row["app_id"]) for job in made})
        most = self._scope_cap + len(made)
        counts = await self._count(connection, accounts, self._sql.vouched, most, now)
        surplus = {account: count - self._scope_cap for account, count in counts.items()}
        beyond: set[str] = set()
        for job in reversed(made):
            account = (job.row["person_id"], job.row["app_id"])
            if surplus[account] > 0:
                surplus[account] -= 1
                beyond.add(job.row["id"])
        return [job for job in jobs if (row := _of(job, theirs)) and row.id in beyond]

    async def _share(
        self, connection: RowConnection, jobs: Sequence[Start], ended: list[Row], now: datetime
    ) -> dict[bytes, Row]:
        """Take back the rows of these jobs, and give them the one that is shared."""
        mine = connection.driver.among(self._sql.c.id, [job.row["id"] for job in jobs])
        await connection.execute(
            ("take back", mine.shape),
            lambda: delete(self._sql.table).where(mine.match()),
            mine.values,
        )
        for job in jobs:
            assert job.shared is not None  # noqa: S101 -- for the type checker
            (job.row, job.keys), job.shared = job.shared, None
        await self._insert(connection, [job.row for job in jobs])
        return await self._by_device(connection, jobs, ended, now)

    async def _live(self, connection: RowConnection, jobs: Sequence[Start]) -> dict[bytes, Row]:
        keys = [key for job in jobs for key in job.keys]
        mine = connection.driver.among(self._sql.c.live_device_key, keys)
        rows = await connection.among(self._sql, mine)
        return {row.live_device_key: row for row in rows if row.live_device_key is not None}

    async def end_surplus(
        self,
        connection: RowConnection,
        new: Sequence[Row],
        *,
        spared: Sequence[Row],
        now: datetime,
    ) -> tuple[list[Row], set[Account]]:
        """End what people have too many of: the least recently seen. Their rows are locked, so
        that two who count at the same moment do not both end one.

        Args:
            connection: in a transaction.
            new: rows of these people.
            spared: rows that stay, whenever they were seen.
            now: the moment.

        Returns:
            The rows that ended, and those who have too many to end them here.
        """
        crowded: set[Account] = set()
        if self._cap is None or not new:
            return [], crowded
        kept = {row.id for row in spared}
        surplus: list[str] = []
        accounts = sorted({_account(row) for row in new})
        counts = await self._count(connection, accounts, self._sql.logins, self._cap + 1, now)
        for account in (account for account, count in counts.items() if count > self._cap):
            theirs = await self._lock(connection, account, now)
            if len(theirs) == self._cap + ROOM:
                crowded.add(account)
            else:
                theirs.sort(key=lambda row: (row.id in kept, row.last_seen_at, row.id))
                surplus += [row.id for row in theirs[: -self._cap]]
        return await self._ends.end_these(connection, surplus, reason="limit", now=now), crowded

    async def _count(
        self,
        connection: RowConnection,
        accounts: Sequence[Account],
        kind: Condition,
        most: int,
        now: datetime,
    ) -> dict[Account, int]:
        """How many live rows of a kind each of these has, counted up to so many."""
        sql, c = self._sql, self._sql.c
        counts: dict[Account, int] = {}

        def one(number: int) -> ScalarSelect[int]:
            person = bindparam(f"p_person_{number}", type_=c.person_id.type)
            app = bindparam(f"p_app_{number}", type_=c.app_id.type)
            theirs = sql.by_person(sql.ids).where(sql.owned_by(person, app), kind)
            # Those that have not ended come first.
            newest = [column.desc() for column in connection.by_id(sql)]
            found = theirs.order_by(*newest).limit(LIMIT).subquery()
            return select(func.count()).select_from(found).scalar_subquery()

        for some in (accounts[i : i + _PEOPLE] for i in range(0, len(accounts), _PEOPLE)):
            asked = padded(some)
            given = {**sql.at(now), "p_limit": most}
            for number, (person_id, app_id) in enumerate(asked):
                given |= {f"p_person_{number}": person_id, f"p_app_{number}": app_id}
            (numbers,) = await connection.records(
                ("owned", kind is sql.logins, len(asked)),
                partial(_all, one, len(asked)),
                given,
            )
            counts |= zip(asked, numbers, strict=True)
        return counts

    async def _lock(self, connection: RowConnection, account: Account, now: datetime) -> list[Row]:
        """Live rows of somebody in an app, all of them unless they are many."""
        sql = self._sql
        return await connection.select(
            "live of",
            lambda: (
                sql.theirs.where(sql.owned, sql.logins)
                .order_by(*connection.by_id(sql))  # all lock in the same order
                .limit(LIMIT)
                .with_for_update()
            ),
            {
                **sql.at(now),
                **values(person_id=account[0], app_id=account[1], limit=(self._cap or 0) + ROOM),
            },
        )


def _all(one: Callable[[int], ScalarSelect[int]], size: int) -> ClauseElement:
    columns: list[Any] = [*map(one, range(size))]
    return select(*columns)


def _account(row: Row) -> Account:
    return row.person_id, row.app_id


def _is(job: Start, row: Row | None) -> bool:
    """Whether a row is the one of the job, and not one that was there."""
    return row is not None and row.id == job.row["id"]


def _of(job: Start, theirs: Mapping[bytes, Row]) -> Row | None:
    return next((theirs[key] for key in job.keys if key in theirs), None)


def _started(job: Start, theirs: Mapping[bytes, Row]) -> Row:
    if not job.keys:
        return Row._make((*_in_order(job.row), None))
    row = _of(job, theirs)
    if row is None:  # started and ended by others in between, twice
        raise LookupError("the row of a device was there, and was gone")
    return row


def _assign(jobs: Sequence[Start], rows: Sequence[Row], ended: Sequence[Row]) -> None:
    """Note each ended row with the job that ended it: the one that replaces it, or its person's."""
    for row in ended:
        by = [job.replaces == row.id for job in jobs]
        by += [_account(one) == _account(row) for one in rows]
        jobs[by.index(True) % len(jobs)].ended.append(row)
