"""The rows. Reads answer with rows or None; writes with the rows they changed.

Each write is conditional on the row being live, so that none can bring an ended session back,
and tells by its answer whether it took place. A missing row is never an error; a database that
cannot be asked is `SessionsUnavailable`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Sequence
from copy import copy
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple, cast

from sqlalchemy import MetaData, Select, Update, bindparam, select, update

from asgi_sessions._database.drivers.base import InClause
from asgi_sessions._database.engines import Engines
from asgi_sessions._database.joined import JoinedEngines
from asgi_sessions._database.pools.app_connection import Joined
from asgi_sessions._database.pools.base import Source
from asgi_sessions._database.statement import Record, Statement
from asgi_sessions._errors import ConfigurationError, SessionsError
from asgi_sessions._model.decisions import Cutoff
from asgi_sessions._model.lifetimes import Lifetimes, Terms
from asgi_sessions._model.row import Row
from asgi_sessions._model.session_data import SessionData, Visitor

from .bulk_ending import Bulk, Column
from .clauses import LIMIT, Clauses, Condition, Sorted, values
from .connection import RowConnection
from .cutoffs import Cutoffs, in_app
from .data import Data, Edit, Owner, Save
from .ending import Ends
from .listener import Listener
from .maintenance import Maintenance, in_batches
from .schema_check import explained, refuse_others
from .setting_aside import Acting
from .starting import ROOM, Inserted, Start, Starts
from .tables import cutoffs_table, ddl, sessions_table

#: Sessions that one statement asks about: SQLite takes 32,766 parameters, and a statement with
#: many takes its time to be made.
_SIDS_AT_A_TIME = 4096

#: How long a cut-off is remembered: longer than anybody trusts a token.
KEEP_CUTOFFS = timedelta(days=400)


class Touch(NamedTuple):
    """That a session was used: when, and the digest of its secret if that came for the first
    time.
    """

    sid: str
    now: datetime
    arrived: bytes | None


class Finding(NamedTuple):
    """What is asked about a person who has brought no cookie.

    Attributes:
        person_id: who.
        app_id: in which app.
        sid: the session that their token names; None if it names none.
        keys: their device, by each key; the first that leads to a row counts.
        names: under which something is remembered of them besides, as of a person.
    """

    person_id: str
    app_id: str
    sid: str | None = None
    keys: tuple[bytes, ...] = ()
    names: tuple[str, ...] = ()


class _Visit(NamedTuple):
    """Asks for the visitor of a sid."""

    sid: str


class Known(NamedTuple):
    """What is known about them: the row that their token names, the row of origin ``scope`` that
    their device uses, and the cut-offs that hold in the app.
    """

    named: Row | None
    device: Row | None
    cutoffs: list[Cutoff]


class Store:
    """The tables of sessions and of cut-offs in a database.

    Args:
        source: where the connections come from.
        table_name: the table's name.
        terms: what "live" means.
        cap: live sessions of origin ``login`` that a person may have in an app; None for any
            number.
        scope_cap: those of origin ``scope``; devices beyond them share one more.
        notify: whether other processes are told when rows end.
        timeout: seconds that anything may take.
        data: the options of data, and the lifetimes of visitors; None where sessions have no data.
    """

    def __init__(
        self,
        source: Source,
        table_name: str,
        terms: Terms,
        cap: int | None,
        scope_cap: int | None = None,
        *,
        notify: bool = False,
        timeout: float = 5.0,
        data: tuple[SessionData, Lifetimes] | None = None,
    ) -> None:
        self.metadata = MetaData()
        self.table = sessions_table(table_name, self.metadata)
        self._sql = Clauses(self.table, terms)
        self.data = None if data is None else Data(self._sql, self.metadata, table_name, *data)
        #: At most 52 bytes of the 63 that PostgreSQL takes.
        self._channel = f"{self.table.name}_ended"
        self._ends = Ends(self._sql, terms, self._channel if notify else None, self.data)
        self._cap = cap
        self._starts = Starts(self._sql, self._ends, cap, scope_cap, self.data)
        self.engines = engines = Engines(
            source,
            {
                "look-up": self._look_up,
                "start": self._starts.run,
                "touch": self._touch,
                **({} if self.data is None else {"save": self.data.change}),
            },
            explain=self._explain,
            connection=RowConnection,
            timeout=timeout,
        )
        self._write, self._query = engines.write, engines.query
        #: Many rows at a time, for `purge` and for operators.
        self.maintenance = Maintenance(engines, self._sql, self._ends, self.data)
        #: Many rows of one person.
        self.bulk = Bulk(engines, self._sql, self._ends)
        #: Whoever acts for another person.
        self.acting = Acting(self._write, self._sql, self._ends)
        self._cutoffs_table = cutoffs_table(table_name, self.metadata)
        self.cutoffs = Cutoffs(engines, self._cutoffs_table)
        #: Of the connections of apps, by their drivers.
        self._statements: dict[str, dict[Hashable, Statement]] = {}

    def within(self, joined: Joined) -> Store:
        """The same tables, in a transaction of the app.

        Raises:
            ConfigurationError: if its database is of another kind than ours.
        """
        ours = self.engines.source.driver.system
        if joined.driver.system != ours:
            raise ConfigurationError(
                f"connection= is one to {joined.driver.system}, and the sessions are in {ours}: "
                "pass a connection to the database of Sessions"
            )
        other = copy(self)
        statements = self._statements.setdefault(joined.connection.dialect.driver, {})
        connection = RowConnection(joined.lease, joined.driver, statements)
        engines = JoinedEngines(
            connection,
            {"look-up": other._look_up, "start": self._starts.run},  # noqa: SLF001 -- of this class
            timeout=self.engines.timeout,
        )
        # It has what is used here, and answers at once.
        other.engines = cast("Engines", engines)
        other._write, other._query = other.engines.write, other.engines.query  # noqa: SLF001 -- as above
        other.bulk = Bulk(other.engines, self._sql, self._ends)
        other.acting = Acting(other._write, self._sql, self._ends)  # noqa: SLF001 -- as above
        other.cutoffs = Cutoffs(other.engines, self._cutoffs_table)
        return other

    async def create(self) -> None:
        """Make the tables and their indexes where they are missing."""
        tables = self.metadata.sorted_tables

        async def work(connection: RowConnection) -> None:
            await refuse_others(connection, tables)
            dialect = await connection.ddl_dialect()
            for table in tables:
                for statement in ddl(table, dialect):
                    await connection.create(statement)

        await self._write(work)

    async def keeps_data(self) -> bool:
        """Whether the database has a table of data."""

        async def work(connection: RowConnection) -> bool:
            return self.data is not None and bool(await connection.columns(self.data.table))

        there: bool = await self._query(work)
        return there

    async def _explain(self, connection: RowConnection, error: Exception) -> SessionsError | None:
        return await explained(connection, self.metadata.sorted_tables, error)

    # --- reads --------------------------------------------------------------------------------

    def by_sid(self, sid: str) -> Awaitable[Row | None]:
        """The row of this sid, an ended one too."""
        return self.engines.here.lookups.submit("look-up", sid)

    async def living(
        self, sids: Sequence[str], *, now: datetime
    ) -> dict[str, tuple[bytes, bytes | None]]:
        """Which of these sessions live, with the digests of their secrets and their bindings: one
        SELECT for 4,096, out of the way of requests.
        """
        sql, c = self._sql, self.table.c

        async def work(connection: RowConnection, some: Sequence[str]) -> list[Record]:
            mine = connection.driver.among(c.id, some)
            return await connection.records(
                ("living", mine.shape),
                lambda: select(c.id, c.secret_hash, c.binding).where(mine.match(), sql.live),
                {**mine.values, **sql.at(now)},
            )

        found: dict[str, tuple[bytes, bytes | None]] = {}
        for start in range(0, len(sids), _SIDS_AT_A_TIME):
            records = await self._query(partial(work, some=sids[start : start + _SIDS_AT_A_TIME]))
            found.update((sid, (bytes(digest), binding)) for sid, digest, binding in records)
        return found

    def visitor(self, sid: str) -> Awaitable[Visitor | None]:
        """The visitor of this sid, also one whose time is up."""
        return self.engines.here.lookups.submit("look-up", _Visit(sid))

    def find(self, finding: Finding) -> Awaitable[Known]:
        """What is known about a person who has brought no cookie."""
        return self.engines.here.lookups.submit("look-up", finding)

    async def _look_up(
        self, connection: RowConnection, jobs: list[str | Finding | _Visit]
    ) -> Sequence[Row | Known | Visitor | None]:
        """Answer what many requests have asked for, in one SELECT for each kind of key."""
        c, among = self.table.c, connection.driver.among
        found: dict[object, Any] = {}
        sids = {job for job in jobs if type(job) is str}
        findings: list[Finding] = []
        if len(sids) < len(jobs):
            findings = [job for job in jobs if type(job) is Finding]
            sids.update(finding.sid for finding in findings if finding.sid is not None)
            visits = {job.sid for job in jobs if type(job) is _Visit}
            if visits and self.data is not None:
                visitors = await self.data.visitors_of(connection, visits)
                found = {_Visit(sid): visitor for sid, visitor in visitors.items()}
        if sids:
            rows = await self._load(connection, among(c.id, sids))
            found |= {row.id: row for row in rows}
        if not findings:
            return [found.get(job) for job in jobs]
        if devices := {key for finding in findings for key in finding.keys}:
            for row in await self._load(connection, among(c.live_device_key, devices)):
                found[row.live_device_key or b""] = row
        everybody = {name for one in findings for name in (one.person_id, *one.names)}
        cutoffs = await self.cutoffs.of(connection, everybody)

        def known(finding: Finding) -> Known:
            named = None if finding.sid is None else found.get(finding.sid)
            device = next((found[key] for key in finding.keys if key in found), None)
            names = (finding.person_id, *finding.names)
            theirs = [one for name in names for one in cutoffs.get(name, ())]
            return Known(named, device, in_app(theirs, finding.app_id))

        return [known(job) if type(job) is Finding else found.get(job) for job in jobs]

    def _load(self, connection: RowConnection, mine: InClause) -> Awaitable[list[Row]]:
        """The rows in which a unique column is one of these, with the data that they may have."""
        if (data := self.data) is None:
            return connection.among(self._sql, mine)
        key = ("with data", mine.shape)
        return connection.rows(key, lambda: mine.pick(data.rows), mine.values, many=mine.many)

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

        async def work(connection: RowConnection) -> Row | None:
            device = connection.driver.among(self.table.c.device_key, keys)
            newest = (self.table.c.started_at.desc(), self.table.c.id.desc())
            rows = await connection.select(
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
        sql, c = self._sql, self.table.c
        given = values(person_id=person_id, app_id=app_id, id=before, limit=limit)
        if live is not None:
            given |= sql.at(live)

        def make(connection: RowConnection) -> Select[Any]:
            if app_id is not None and live is not None:
                # As they stand in the index of people, so that no more are read than are shown.
                rows, order = sql.theirs.where(sql.owned), connection.by_id(sql)
            else:
                rows, order = sql.theirs.where(sql.person), [Sorted(c.id)]
                if app_id is not None:
                    rows = rows.where(sql.app)
                if live is not None:
                    rows = rows.where(sql.live)
            if before is not None:
                rows = rows.where(c.id < sql.param("id"))
            return rows.order_by(*(column.desc() for column in order)).limit(LIMIT)

        key = ("listed", app_id is None, live is None, before is None)

        async def work(connection: RowConnection) -> list[Row]:
            rows = await connection.rows(key, partial(make, connection), given, many=True)
            return sorted(rows, reverse=True)  # by the id, which comes first

        answer: list[Row] = await self._query(work)
        return answer

    async def named(
        self, column: Column, value: str, issuer: str, app_id: str, *, now: datetime
    ) -> list[Row]:
        """The live rows in an app that have a value of an issuer's in a column, the newest first;
        so many that one can look through them.
        """
        sql = self._sql
        given = values(**{column: value}, issuer=issuer, app_id=app_id, limit=_SIDS_AT_A_TIME)

        async def work(connection: RowConnection) -> list[Row]:
            newest = [one.desc() for one in connection.by_id(sql)]
            return await connection.rows(
                ("named", column),
                lambda: sql.theirs.where(sql.named(column)).order_by(*newest).limit(LIMIT),
                {**given, **sql.at(now)},
                many=True,
            )

        answer: list[Row] = await self._query(work)
        return answer

    async def last_ended(self, person_id: str, app_id: str, *, limit: int) -> list[Row]:
        """A person's rows in an app that ended last, the last one first; no more are read."""
        sql, c = self._sql, self.table.c

        def make() -> Select[Any]:
            theirs = sql.theirs.where(sql.person, sql.app, c.ended_at.is_not(None))
            return theirs.order_by(c.ended_at.desc(), c.id.desc()).limit(LIMIT)

        async def work(connection: RowConnection) -> list[Row]:
            given = values(person_id=person_id, app_id=app_id, limit=limit)
            return await connection.rows(("last_ended",), make, given, many=True)

        answer: list[Row] = await self._query(work)
        return answer

    # --- writes -------------------------------------------------------------------------------

    async def insert(
        self,
        row: dict[str, Any],
        *,
        replaces: str | None,
        now: datetime,
        source: Owner | None = None,
    ) -> Inserted:
        """A new row of origin ``login``, and the rows that it ended: the one it replaces, and
        those over the cap; and the data that it took over. All of it or nothing.
        """
        inserted: Inserted = await self.engines.here.writes.submit(
            "start", Start(row, (), replaces, now, source=source)
        )
        return inserted

    async def insert_once(
        self,
        row: dict[str, Any],
        keys: Sequence[bytes],
        shared: dict[str, Any],
        shared_keys: Sequence[bytes],
        *,
        now: datetime,
        source: Owner | None = None,
    ) -> Inserted:
        """The one live row of origin ``scope`` that this device has: a new one, or the one that
        another request or process was first to make; and the rows that it ended. Where the person
        has as many as they may, the row that their other devices share.
        """
        start = Start(row, keys, None, now, (shared, shared_keys), source)
        inserted: Inserted = await self.engines.here.writes.submit("start", start)
        return inserted

    async def trim(self, row: Row, *, now: datetime) -> AsyncIterator[list[Row]]:
        """End what the person of a new row has over the cap, where that was too much to be ended
        with its start; those of each batch.
        """

        def hold() -> Update:
            return update(self.table).where(self._sql.sid).values(id=self.table.c.id)

        crowded = True
        while crowded:
            most = (self._cap or 0) + ROOM // 2  # the others are counted under a lock, as ever
            async for ended in self.bulk.trim(row, most, reason="limit", now=now):
                yield ended

            async def work(connection: RowConnection) -> tuple[list[Row], bool]:
                async with connection.transaction():
                    if connection.driver.serial:
                        # First a write: SQLite refuses one after a read if others wrote in between.
                        await connection.execute("hold", hold, values(id=row.id))
                    rows, more = await self._starts.end_surplus(
                        connection, [row], spared=[row], now=now
                    )
                return rows, bool(more)

            ended, crowded = await self._write(work)
            yield ended

    async def end(
        self,
        sid: str,
        *,
        reason: str,
        now: datetime,
        person_id: str | None = None,
        app_id: str | None = None,
    ) -> tuple[Row | None, bool]:
        """End one session, of this person and in this app if they are given: its row, and whether
        it ended now. The first end wins; one whose time was up has ended by that.
        """
        sql = self._sql
        mine, given = sql.sid, values(id=sid)
        if person_id is not None:
            mine &= sql.person
            given |= values(person_id=person_id)
        if app_id is not None:
            mine &= sql.app
            given |= values(app_id=app_id)
        key = ("one", person_id is None, app_id is None)

        async def work(connection: RowConnection) -> tuple[Row | None, bool]:
            live = mine & sql.live
            ended = await self._ends.end(connection, key, live, given, reason=reason, now=now)
            if ended:
                return ended[0], True
            rows = await connection.select(key, lambda: sql.rows.where(mine), given)
            expired = await self._ends.expire(connection, rows, now)
            return (*expired, *rows, None)[0], bool(expired)

        answer: tuple[Row | None, bool] = await self._write(work)
        return answer

    def end_all_statement(
        self,
        person_id: str,
        app_id: str | None,
        *,
        except_sid: str | None,
        reason: str,
        now: datetime,
    ) -> Update:
        """What `bulk.end_all` does, as one statement with its values."""
        c = self.table.c
        mine = [c.person_id == person_id, self._sql.live_at(now)]
        if app_id is not None:
            mine.append(c.app_id == app_id)
        if except_sid is not None:
            mine.append(c.id != except_sid)
        ended = {"ended_at": now, "end_reason": reason, "live_device_key": None}
        return update(self.table).where(*mine).values(ended)

    async def renew(self, row: Row, changed: dict[str, Any], *, now: datetime) -> Row | None:
        """Write a new secret unless the session is dead (None) or another request has renewed it
        since `row` was read (then its row as it is now).
        """
        sql = self._sql
        old = bindparam("p_old_hash", type_=self.table.c.secret_hash.type)
        unchanged = sql.sid & sql.live & (self.table.c.secret_hash == old)
        given = {**sql.at(now), **values(id=row.id, old_hash=row.secret_hash, **changed)}

        async def work(connection: RowConnection) -> Row | None:
            rows = await connection.update(
                "renew", sql, lambda: unchanged, changes=sql.given(*changed), values=given
            ) or await connection.select(
                "live one", lambda: sql.rows.where(sql.sid, sql.live), given
            )
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

        async def work(connection: RowConnection) -> int:
            return await connection.execute(
                ("bind", row.binding is None),
                lambda: (
                    update(self.table)
                    .where(sql.sid, sql.live, unchanged)
                    .values(sql.given("binding"))
                ),
                given,
            )

        return bool(await self._write(work))

    def touch(self, use: Touch) -> asyncio.Future[None]:
        """Note that a live session was used; not that of a row that somebody has locked, which
        would hold up the others: its next use will do.
        """
        return self.engines.here.touches.submit("touch", use)

    async def _touch(self, connection: RowConnection, uses: list[Touch]) -> list[None]:
        """One UPDATE for all that have been used since the last; the time of the earliest."""
        for use in uses:
            if use.arrived is not None:
                await self._arrived(connection, use.sid, use.arrived, use.now)
        sql, c = self._sql, self.table.c
        now = min(use.now for use in uses)
        mine = connection.driver.among(c.id, {use.sid for use in uses})
        await connection.change_unlocked(
            ("touch", mine.shape),
            sql,
            lambda: mine.match() & sql.live & (c.last_seen_at < sql.now),
            changes={"last_seen_at": sql.now},
            values={**sql.at(now), **mine.values},
        )
        return [None] * len(uses)

    async def _arrived(
        self, connection: RowConnection, sid: str, secret_hash: bytes, now: datetime
    ) -> None:
        """Note that the secret of a row has been seen: its predecessor's grace begins."""
        sql = self._sql
        mine = sql.sid & sql.live & sql.equals("secret_hash")
        await connection.change_unlocked(
            "arrived",
            sql,
            lambda: mine,
            changes={"secret_seen_at": sql.now},
            values={**sql.at(now), **values(id=sid, secret_hash=secret_hash)},
        )

    async def purge(self, *, keep: timedelta, batch_size: int, now: datetime) -> int:
        """Mark what has run out, then remove what ended longer than `keep` ago, in batches."""
        aim = self.engines.here.driver.batch
        with self.engines.here.bulk.kept():
            await in_batches(partial(self.maintenance.mark, now=now), batch_size, aim=aim)
            remove = partial(self.maintenance.remove, before=now - keep)
            removed = await in_batches(remove, batch_size, aim=aim)
            forget = partial(self.cutoffs.forget, before=now - KEEP_CUTOFFS)
            await in_batches(forget, batch_size, aim=aim)
            if self.data is not None:
                forget = partial(self.maintenance.forget_visitors, now=now)
                await in_batches(forget, batch_size, aim=aim)
        return removed

    # --- data ---------------------------------------------------------------------------------

    def change(self, job: Save | Edit) -> Awaitable[Any]:
        """Change the data of a session or a visitor; the answer as `Save` and `Edit` say."""
        return self.engines.here.saves.submit("save", job)

    async def insert_visitor(self, visitor: Visitor) -> None:
        """Write the row of a new visitor."""
        assert self.data is not None  # noqa: S101 -- for the type checker
        await self._write(partial(self.data.insert_visitor, visitor=visitor))

    async def remove_visitor(self, owner: Owner) -> None:
        """Remove a visitor."""
        assert self.data is not None  # noqa: S101 -- for the type checker
        await self._write(partial(self.data.remove_visitor, owner=owner))

    async def rename_visitor(self, old: Owner, new: Owner) -> bool:
        """Give a visitor another sid and secret; False if there is no such visitor any more."""
        assert self.data is not None  # noqa: S101 -- for the type checker
        renamed: bool = await self._write(partial(self.data.rename_visitor, old=old, new=new))
        return renamed

    # --- other processes ----------------------------------------------------------------------

    def listener(self, heard: Callable[[str], None], ready: Callable[[], None]) -> Listener:
        """Hear of the sids that end in other processes, in the running loop.

        Args:
            heard: called with each of them.
            ready: called when hearing begins, also again.
        """
        engine = self.engines.here

        async def tell(word: str) -> None:
            async def work(connection: RowConnection) -> None:
                told = "SELECT pg_notify($1, $2)"
                await connection.driver.fetch(connection.raw, told, (self._channel, word))

            await self._query(work)

        return Listener(
            engine.pool.connect,
            engine.driver,
            self._channel,
            tell=tell,
            heard=heard,
            ready=ready,
            timeout=self.engines.timeout,
        )
