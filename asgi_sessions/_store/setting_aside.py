"""Somebody acts for another person: the session in which they do begins, and gives way to their own
again. Both rows change in one transaction.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, or_, update

from asgi_sessions._model.row import COLUMNS, Row, waiting_for

from .clauses import Clauses, Condition, values
from .connection import RowConnection
from .ending import Ends

Write = Callable[[Callable[[RowConnection], Awaitable[Any]]], Awaitable[Any]]


class WentBack(NamedTuple):
    """What has come of it that somebody stops acting.

    Attributes:
        ended: the session in which they did; None if it was over.
        own: their own, with its new secret; None if it has ended, or another request was faster.
    """

    ended: Row | None
    own: Row | None


class Acting:
    """Puts sessions aside, and has them back.

    Args:
        write: does something on a connection.
        sql: what is said of the table.
        ends: how rows end.
    """

    def __init__(self, write: Write, sql: Clauses, ends: Ends) -> None:
        self._write = write
        self._sql = sql
        self._ends = ends

    async def begin(
        self, own: Row, aside: dict[str, Any], new: dict[str, Any], *, now: datetime
    ) -> Row | None:
        """Put the session of whoever acts aside, and write the one in which they do; its row. None
        if their own has ended or changed since it was read.

        Args:
            own: the row of their own session, as it was read.
            aside: what is written to it.
            new: the values of the new row.
            now: the moment.
        """
        sql, marker = self._sql, waiting_for(new["id"])
        unchanged = self._mine(or_(self._is("p_old_hash"), self._is("p_marker")))
        given = {
            **sql.at(now),
            **values(id=own.id, old_hash=own.secret_hash, marker=marker, **aside),
        }

        async def work(connection: RowConnection) -> Row | None:
            async with connection.transaction():
                rows = await connection.update(
                    "put aside",
                    sql,
                    lambda: unchanged,
                    changes=sql.given(*aside),
                    values=given,
                )
                if not rows:
                    return None
                # It is there if all this is tried again, because the answer was lost.
                await connection.insert(connection.driver.insertion(sql.table, [new]))
            return Row._make((*(new[name] for name in COLUMNS), None))

        row: Row | None = await self._write(work)
        return row

    async def go_back(
        self, row: Row, changed: dict[str, Any], *, reason: str, now: datetime
    ) -> WentBack:
        """End the session in which somebody acts, and give a new secret to their own.

        Args:
            row: in which they act.
            changed: what is written to their own.
            reason: why the one ends.
            now: the moment.
        """
        sql, new_hash = self._sql, changed["secret_hash"]
        waiting = self._mine(or_(self._is("p_marker"), self._is("p_new_hash")))

        async def work(connection: RowConnection) -> WentBack:
            async with connection.transaction():
                ended = await self._ends.end(
                    connection,
                    "go back",
                    sql.sid & sql.live,
                    values(id=row.id),
                    reason=reason,
                    now=now,
                )
                # Where it was over, their own has the new secret if all this is tried again.
                marker = waiting_for(row.id) if ended else new_hash
                own = await connection.update(
                    "have back",
                    sql,
                    lambda: waiting,
                    changes=sql.given(*changed),
                    values={
                        **sql.at(now),
                        **values(id=row.actor_sid, marker=marker, new_hash=new_hash, **changed),
                    },
                )
            return WentBack(next(iter(ended), None), next(iter(own), None))

        went: WentBack = await self._write(work)
        return went

    async def restore(self, own: Row, *, now: datetime) -> None:
        """Give the session of whoever wanted to act the secret back that its browser holds."""
        sql = self._sql
        given = {
            **sql.at(now),
            **values(id=own.id, marker=own.secret_hash, secret_hash=own.previous_secret_hash),
        }

        async def work(connection: RowConnection) -> int:
            return await connection.execute(
                "restore",
                lambda: (
                    update(sql.table)
                    .where(self._mine(self._is("p_marker")))
                    .values(sql.given("secret_hash"))
                ),
                given,
            )

        await self._write(work)

    def _mine(self, condition: Condition) -> Condition:
        return self._sql.sid & self._sql.live & condition

    def _is(self, name: str) -> Condition:
        column = self._sql.c.secret_hash
        condition: Condition = column == bindparam(name, type_=column.type)
        return condition
