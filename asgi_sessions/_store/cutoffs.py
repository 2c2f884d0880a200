"""The table of cut-offs: what stays of an end of all sessions when their rows are gone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from datetime import datetime

from sqlalchemy import Table, delete, select, update

from asgi_sessions._database.engines import Engines
from asgi_sessions._model.decisions import Cutoff

from .clauses import LIMIT, equals, param, values
from .connection import RowConnection

#: The app of a cut-off that holds in all apps; no app has an empty id.
EVERYWHERE = ""

#: A cut-off as it is to be, from it as it is and from all of the person's that count beside it.
Change = Callable[[Cutoff, Sequence[Cutoff]], Cutoff]

_WRITTEN = (*Cutoff._fields[2:], "changed_at")

#: More apps than anybody has.
_APPS = 10_000


class Cutoffs:
    """Writes and reads cut-offs.

    Args:
        engines: where the database is reached.
        table: their table.
    """

    def __init__(self, engines: Engines, table: Table) -> None:
        self._write = engines.write
        self._table = table
        self._columns = [table.c[name] for name in Cutoff._fields]

    async def of(
        self, connection: RowConnection, people: Collection[str]
    ) -> dict[str, list[Cutoff]]:
        """The cut-offs of some people, one at least, in whatever apps."""
        theirs = connection.driver.among(self._table.c.person_id, people)
        records = await connection.records(
            ("cut-offs", theirs.shape),
            lambda: theirs.pick(select(*self._columns), _APPS),
            theirs.values,
        )
        found: defaultdict[str, list[Cutoff]] = defaultdict(list)
        for record in records:
            found[record[0]].append(Cutoff(*record))
        return found

    async def change(
        self, person_id: str, app_id: str | None, change: Change, *, now: datetime
    ) -> None:
        """Change what is remembered of a person in an app, or in all apps (None)."""
        blank = Cutoff(person_id, app_id or EVERYWHERE)
        mine = values(person_id=person_id, app_id=blank.app_id)

        async def work(connection: RowConnection) -> None:
            async with connection.transaction():
                row = {**blank._asdict(), "changed_at": now}
                await connection.insert(connection.driver.insertion(self._table, [row]))
                records = await connection.records(
                    "all cut-offs",
                    lambda: (
                        select(*self._columns)
                        .where(equals(self._table, "person_id"))
                        .order_by(self._table.c.app_id)  # all lock in the same order
                        .with_for_update()
                    ),
                    mine,
                )
                theirs = [Cutoff(*record) for record in records]
                (old,) = (one for one in theirs if one.app_id == blank.app_id)
                beside = theirs if app_id is None else in_app(theirs, app_id)
                new = change(old, beside)._asdict()
                await connection.execute(
                    "change cut-off",
                    lambda: (
                        update(self._table)
                        .where(equals(self._table, "person_id"), equals(self._table, "app_id"))
                        .values({name: param(self._table, name) for name in _WRITTEN})
                    ),
                    values(**new, changed_at=now),
                )

        await self._write(work)

    async def forget(self, limit: int, *, before: datetime) -> int:
        """Remove so many that were last changed before a moment; how many."""
        old = self._table.c.changed_at < param(self._table, "changed_at")

        async def work(connection: RowConnection) -> int:
            people = await connection.ids(
                "old cut-offs",
                lambda: (
                    select(self._table.c.person_id)
                    .where(old)
                    .order_by(self._table.c.changed_at)
                    .limit(LIMIT)
                ),
                {"p_changed_at": before, "p_limit": limit},
            )
            if not people:
                return 0
            theirs = connection.driver.among(self._table.c.person_id, people)
            return await connection.execute(
                ("forget cut-offs", theirs.shape),
                lambda: delete(self._table).where(theirs.match(), old),
                {"p_changed_at": before, **theirs.values},
            )

        count: int = await self._write(work)
        return count


def in_app(cutoffs: Sequence[Cutoff], app_id: str) -> list[Cutoff]:
    """Those that hold in an app."""
    return [one for one in cutoffs if one.app_id in (app_id, EVERYWHERE)]
