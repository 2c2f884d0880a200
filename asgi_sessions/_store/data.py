"""The tables of data: what sessions and visitors keep. Changed keys are merged with those that
others have written, as long as their owner lives.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime
from enum import Enum
from itertools import groupby
from typing import Any, Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    MetaData,
    Select,
    Text,
    Update,
    and_,
    bindparam,
    delete,
    select,
    union_all,
    update,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql import ClauseElement
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from asgi_sessions._database.statement import padded
from asgi_sessions._model.lifetimes import Lifetimes
from asgi_sessions._model.row import Row
from asgi_sessions._model.session_data import (
    Changes,
    SessionData,
    Visitor,
    decode,
    document,
    encode,
    written_out,
)
from asgi_sessions._model.tokens import new_sid

from .clauses import LIMIT, Clauses, Condition, equals, param, values
from .connection import RowConnection
from .tables import data_table, visitors_table


class Owner(NamedTuple):
    """Whose data are meant: a session's, or a visitor's, who is found by a secret as well."""

    sid: str
    secret_hash: bytes | None = None

    def __repr__(self) -> str:
        """Without the hash."""
        return f"Owner(sid={self.sid!r})"


class _Unchanged(Enum):
    GONE = "gone"
    LOCKED = "locked"


#: The answer to a change of data whose owner has ended.
GONE: Final = _Unchanged.GONE
#: The answer if another transaction has locked it: nobody else shall wait for that.
LOCKED: Final = _Unchanged.LOCKED


class Save(NamedTuple):
    """Changes to be written. The answer is True, `GONE` or `LOCKED`."""

    owner: Owner
    changes: Changes
    now: datetime


class Edit(NamedTuple):
    """Changes that depend on what is there. `apply` makes them and the answer from the data, while
    their owner is locked. An error that it raises is the answer as well. `GONE` if the owner has
    ended, and `LOCKED` if another transaction holds it.
    """

    owner: Owner
    apply: Callable[[dict[str, Any]], tuple[Changes, Any]]
    now: datetime


class TakeOver(NamedTuple):
    """Where a login takes its data from: a visitor, or the session of the same person that it
    replaces.
    """

    source: Owner
    sid: str


class Data:
    """Reads and writes data.

    Args:
        sql: what is said of the table of sessions.
        metadata: of the tables.
        name: of the table of sessions.
        options: which keys a login keeps.
        lifetimes: of visitors.
    """

    def __init__(
        self,
        sql: Clauses,
        metadata: MetaData,
        name: str,
        options: SessionData,
        lifetimes: Lifetimes,
    ) -> None:
        self._sql = sql
        self._options = options
        self._lifetimes = lifetimes
        self.table = data_table(name, metadata)
        self.visitors = visitors_table(name, metadata)
        #: The rows of sessions with their data.
        self.rows: Select[Any] = sql.rows.with_only_columns(
            *[*sql.rows.selected_columns][:-1], _text(self.table.c.data)
        ).outerjoin_from(sql.table, self.table, sql.c.id == self.table.c.id)
        c = self.visitors.c
        self._visitors = select(*(c[name] for name in Visitor._fields[:-1]), _text(c.data))
        self._alive: Condition = (c.last_seen_at > bindparam("p_idle", type_=c.started_at.type)) & (
            c.started_at > bindparam("p_born", type_=c.started_at.type)
        )

    def _at(self, now: datetime) -> dict[str, Any]:
        """The values of `_alive` at a moment."""
        lifetimes = self._lifetimes
        return {"p_idle": lifetimes.idle_since(now), "p_born": lifetimes.too_old_since(now)}

    # --- reads --------------------------------------------------------------------------------

    async def visitors_of(
        self, connection: RowConnection, sids: Collection[str]
    ) -> dict[str, Visitor]:
        """The visitors of these sids, also those whose time is up."""
        mine = connection.driver.among(self.visitors.c.id, sids)
        records = await connection.gather(
            ("visitors", mine.shape),
            lambda: mine.pick(self._visitors),
            mine.values,
            many=mine.many,
        )
        return {record[0]: Visitor(*record) for record in records}

    # --- changes ------------------------------------------------------------------------------

    async def change(self, connection: RowConnection, jobs: list[Save | Edit]) -> list[Any]:
        """Make changes: a single one in one statement; several, and those that depend on what is
        there, in one transaction that locks their owners. It waits for no lock of another
        transaction, so that the others are not held up.
        """
        try:
            return await self._change(connection, jobs)
        except Exception as error:
            if not (connection.driver.skips and connection.driver.unknown(error)):
                raise
            connection.driver.skips = False
            return await self._change(connection, jobs)

    async def _change(self, connection: RowConnection, jobs: list[Save | Edit]) -> list[Any]:
        if len(jobs) == 1 and isinstance(job := jobs[0], Save) and len(job.changes.parts()) == 1:
            statement = self._merge(connection, job.owner, job.changes, job.now)
            if await connection.execute(*statement):
                return [True]
            # It has ended, or is locked; and MySQL does not count a row that stays as it was.
        now = max(job.now for job in jobs)
        async with connection.transaction():
            if connection.driver.serial:
                # First a write: SQLite refuses one after a read if others wrote in between.
                await connection.execute("hold data", self._hold, {})
            owners = {job.owner for job in jobs}
            # Where each merge would be a trip of its own, whole objects are written in one.
            whole = not connection.driver.pipelines
            edited = owners if whole else {job.owner for job in jobs if isinstance(job, Edit)}
            there = await self._lock(connection, owners, edited, now, wait=False)
            locked = await self._live(connection, owners - there.keys(), now)
            answers = [
                (LOCKED, None) if job.owner in locked else _change(job, there, edited)
                for job in jobs
            ]
            new = [
                (job.owner, changes)
                for job, (_, changes) in zip(jobs, answers, strict=True)
                if changes is not None
            ]
            if whole:
                await self._write_whole(
                    connection,
                    {o.sid: there[o] for o, _ in new if o.secret_hash is None},
                )
                new = [one for one in new if one[0].secret_hash is not None]
            await self._write(connection, new, now)
        return [answer for answer, _ in answers]

    async def _live(
        self, connection: RowConnection, owners: Collection[Owner], now: datetime
    ) -> set[Owner]:
        """Those that are live, of owners that could not be locked."""
        sql, found = self._sql, set[Owner]()
        if not connection.driver.skips:
            return found
        if sids := [owner.sid for owner in owners if owner.secret_hash is None]:
            mine = connection.driver.among(sql.c.id, sids)
            live = await connection.ids(
                ("live for data", mine.shape),
                lambda: sql.ids.where(mine.match(), sql.live),
                {**mine.values, **sql.at(now)},
            )
            found |= {Owner(sid) for sid in live}
        if sids := [owner.sid for owner in owners if owner.secret_hash is not None]:
            mine = connection.driver.among(self.visitors.c.id, sids)
            records = await connection.records(
                ("live visitors", mine.shape),
                lambda: self._visitors.where(mine.match(), self._alive),
                {**mine.values, **self._at(now)},
            )
            found |= {Owner(record[0], record[1]) for record in records}
        return found & {*owners}

    def _hold(self) -> Update:
        """A write of no row."""
        c = self.table.c
        return update(self.table).where(c.id == "").values(id=c.id)

    async def _lock(
        self,
        connection: RowConnection,
        owners: Collection[Owner],
        edited: Collection[Owner],
        now: datetime,
        *,
        wait: bool,
    ) -> dict[Owner, dict[str, Any]]:
        """Lock those owners that are live, all in the same order; without waiting, those that
        nobody else has locked. With the data of sessions that are to be edited, and of all
        visitors.
        """
        sql, c, skip = self._sql, self._sql.c, connection.driver.skips and not wait
        there: dict[Owner, dict[str, Any]] = {}
        if sids := {owner.sid for owner in owners if owner.secret_hash is None}:
            mine = connection.driver.among(c.id, sids)
            # An end of the session waits for this and then removes what has been written. A touch
            # passes over the session.
            live = await connection.ids(
                ("lock for data", mine.shape, skip),
                lambda: (
                    sql.ids.where(mine.match(), sql.live)
                    .order_by(c.id)
                    .with_for_update(key_share=True, skip_locked=skip)
                ),
                {**mine.values, **sql.at(now)},
            )
            there = {Owner(sid): {} for sid in live}
            if wanted := [owner.sid for owner in edited if owner in there]:
                # In a statement of its own: one that has waited for a lock sees other tables as
                # they were before.
                for sid, text in await self._read(connection, wanted):
                    there[Owner(sid)] = decode(text)
        if sids := {owner.sid for owner in owners if owner.secret_hash is not None}:
            rows = await self._lock_visitors(connection, sids, now, skip=skip)
            there |= {Owner(row.id, row.secret_hash): decode(row.data) for row in rows}
        return there

    async def _read(self, connection: RowConnection, sids: Sequence[str]) -> list[Any]:
        mine = connection.driver.among(self.table.c.id, sids)
        return await connection.records(
            ("data", mine.shape),
            lambda: select(self.table.c.id, _text(self.table.c.data)).where(mine.match()),
            mine.values,
        )

    async def _lock_visitors(
        self, connection: RowConnection, sids: Collection[str], now: datetime, *, skip: bool
    ) -> list[Visitor]:
        c = self.visitors.c
        mine = connection.driver.among(c.id, sids)
        records = await connection.records(
            ("lock visitors", mine.shape, skip),
            lambda: (
                self._visitors.where(mine.match(), self._alive)
                .order_by(c.id)
                .with_for_update(skip_locked=skip)
            ),
            {**mine.values, **self._at(now)},
        )
        return [Visitor(*record) for record in records]

    async def _write(
        self, connection: RowConnection, changes: Sequence[tuple[Owner, Changes]], now: datetime
    ) -> None:
        statements = [
            self._merge(connection, owner, part, now)
            for owner, new in changes
            for part in new.parts()
        ]
        for key, alike in groupby(statements, key=lambda statement: statement[0]):
            (_, make, given), *others = alike
            await connection.execute_each(key, make, [given, *(one[2] for one in others)])

    async def _write_whole(
        self, connection: RowConnection, data: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """Write the data of sessions that are locked, as they are now."""
        if not data:
            return
        given = padded([(sid, written_out(encode(one))) for sid, one in data.items()])

        def make() -> ClauseElement:
            rows: list[Any] = [
                select(
                    bindparam(f"p_id_{i}", type_=self.table.c.id.type).label("id"),
                    bindparam(f"p_data_{i}", type_=Text()).label("data"),
                )
                for i in range(len(given))
            ]
            new = union_all(*rows).subquery("new")
            given_rows: Any = select(new.c.id, new.c.data)
            return connection.driver.upsert(self.table, given_rows, {"data": new.c.data})

        await connection.execute(
            ("write whole", len(given)),
            make,
            {
                f"p_{name}_{i}": value
                for i, row in enumerate(given)
                for name, value in zip(("id", "data"), row, strict=True)
            },
        )

    def _merge(
        self, connection: RowConnection, owner: Owner, changes: Changes, now: datetime
    ) -> tuple[Any, Callable[[], ClauseElement], Mapping[str, Any]]:
        """The statement that writes some changes: its key, what makes it, its values."""
        driver, (written, removed) = connection.driver, changes
        skip = driver.skips
        merge = driver.merge(written, removed)
        given = {**merge.values, **values(id=owner.sid)}
        if owner.secret_hash is not None:
            c = self.visitors.c
            mine = and_(
                equals(self.visitors, "id"), equals(self.visitors, "secret_hash"), self._alive
            )
            if skip:
                free = select(c.id).where(mine).with_for_update(skip_locked=True)
                mine = driver.one_of(c.id, free)
            return (
                ("save of visitor", merge.shape, skip),
                lambda: (
                    update(self.visitors)
                    .where(mine)
                    .values(
                        data=merge.make(c.data),
                        last_seen_at=bindparam("p_now", type_=c.last_seen_at.type),
                    )
                ),
                {**given, **self._at(now), **values(secret_hash=owner.secret_hash, now=now)},
            )
        sql = self._sql

        def make() -> ClauseElement:
            new = driver.json_of(bindparam("p_document", type_=Text()))
            guarded: Any = select(sql.c.id, new).where(sql.sid, sql.live)
            rows = guarded.with_for_update(key_share=True, skip_locked=skip)
            return driver.upsert(self.table, rows, {"data": merge.make(self.table.c.data)})

        return (
            ("save", merge.shape, skip),
            make,
            {**given, **sql.at(now), "p_document": document(written)},
        )

    # --- visitors -----------------------------------------------------------------------------

    async def insert_visitor(self, connection: RowConnection, visitor: Visitor) -> None:
        """Write the row of a new visitor; nothing if it is there."""
        row = visitor._replace(data=written_out(visitor.data))._asdict()
        await connection.insert(connection.driver.insertion(self.visitors, [row]))

    async def remove_visitor(self, connection: RowConnection, owner: Owner) -> None:
        """Remove a visitor."""
        table = self.visitors
        await connection.execute(
            "remove visitor",
            lambda: delete(table).where(equals(table, "id"), equals(table, "secret_hash")),
            values(id=owner.sid, secret_hash=owner.secret_hash),
        )

    async def rename_visitor(self, connection: RowConnection, old: Owner, new: Owner) -> bool:
        """Give a visitor another sid and secret; False if there is no such visitor any more."""
        table, c = self.visitors, self.visitors.c
        new_id = bindparam("p_new_id", type_=c.id.type)
        new_hash = bindparam("p_new_hash", type_=c.secret_hash.type)
        count = await connection.execute(
            "rename visitor",
            lambda: (
                update(table)
                .where(equals(table, "id"), equals(table, "secret_hash"))
                .values(id=new_id, secret_hash=new_hash)
            ),
            {
                **values(id=old.sid, secret_hash=old.secret_hash),
                "p_new_id": new.sid,
                "p_new_hash": new.secret_hash,
            },
        )
        return bool(count)

    # --- starts and ends of sessions ----------------------------------------------------------

    async def take_over(
        self, connection: RowConnection, jobs: Sequence[TakeOver], now: datetime
    ) -> dict[str, dict[str, Any]]:
        """Give new sessions the data of visitors, whose rows are removed, or of the sessions that
        they replace. By the sid of each that took some over, what its source had.
        """
        sources = {job.source for job in jobs}
        had = await self._lock(connection, sources, sources, now, wait=True)
        # The first of several that log in at the same moment, as where one comes after the other.
        first = {job.source: job for job in reversed(jobs)}
        taken = [job for source, job in first.items() if source in had]
        kept = [(job.sid, self._kept(job.source, had[job.source])) for job in taken]
        new = [{"id": sid, "data": written_out(encode(data))} for sid, data in kept if data]
        if new:
            await connection.insert(connection.driver.insertion(self.table, new))
        if gone := [job.source.sid for job in taken if job.source.secret_hash is not None]:
            await self._remove_visitors(connection, gone)
        return {job.sid: had[job.source] for job in taken}

    def _kept(self, source: Owner, had: Mapping[str, Any]) -> Mapping[str, Any]:
        return had if source.secret_hash is None else self._options.kept(had)

    def shown(self, row: Row, source_data: Mapping[str, Any] | None) -> Row:
        """The row of a new session with the data that it has taken over from a visitor, as a
        look-up would return it.
        """
        kept = self._options.kept(source_data or {})
        return row._replace(data=encode(kept)) if kept else row

    async def remove(self, connection: RowConnection, sids: Sequence[str]) -> None:
        """Remove the data of sessions that have ended, in the transaction that ends them."""
        mine = connection.driver.among(self.table.c.id, sids)
        await connection.execute(
            ("remove data", mine.shape),
            lambda: delete(self.table).where(mine.match()),
            mine.values,
        )

    async def forget_visitors(self, connection: RowConnection, limit: int, *, now: datetime) -> int:
        """Remove up to `limit` visitors whose absolute lifetime is over; how many. They are found
        by their ids, which begin with the moment of the first visit, so idle ones stay as long.
        """
        c = self.visitors.c
        before = new_sid(self._lifetimes.too_old_since(now), bytes)
        ids = await connection.ids(
            "old visitors",
            lambda: (
                select(c.id).where(c.id < param(self.visitors, "id")).order_by(c.id).limit(LIMIT)
            ),
            {"p_id": before, "p_limit": limit},
        )
        return await self._remove_visitors(connection, ids) if ids else 0

    async def _remove_visitors(self, connection: RowConnection, ids: Sequence[str]) -> int:
        mine = connection.driver.among(self.visitors.c.id, ids)
        return await connection.execute(
            ("remove visitors", mine.shape),
            lambda: delete(self.visitors).where(mine.match()),
            mine.values,
        )


class _AsText(FunctionElement[str]):
    """JSON as text: the drivers of a database do not agree on what else it might be. On MariaDB and
    MySQL with a collation: beside columns of other ones, that of the connection need not do.
    """

    inherit_cache = True
    type = Text()


@compiles(_AsText)
def _as_text(element: _AsText, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"CAST({compiler.process(element.clauses, **options)} AS TEXT)"


@compiles(_AsText, "mysql", "mariadb")
def _as_collated_text(element: _AsText, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"CAST({compiler.process(element.clauses, **options)} AS CHAR) COLLATE utf8mb4_bin"


def _text(data: ColumnElement[Any]) -> ColumnElement[Any]:
    return _AsText(data).label("data")


def _change(
    job: Save | Edit, there: dict[Owner, dict[str, Any]], edited: Collection[Owner]
) -> tuple[Any, Changes | None]:
    """The answer to a job, and what to write. The edits that follow find its changes in `there`."""
    data = there.get(job.owner)
    if data is None:
        return GONE, None
    if isinstance(job, Save):
        answer, new = True, job.changes
    else:
        try:
            new, answer = job.apply(dict(data))
        except (TypeError, ValueError) as error:
            return error, None
    if job.owner in edited:
        there[job.owner] = new.made_in(data)
    return answer, new if new.written or new.removed else None
