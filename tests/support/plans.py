"""What a database would do to find the rows of a statement: the private driver asks it first."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

from asgi_sessions._database.drivers.base import Driver

Run = Callable[[Any, str, Sequence[Any]], Awaitable[Any]]


class Explainer:
    """Has each statement explained before it is run for the first time.

    Attributes:
        whole: the steps that read the table or an index from one end to the other, by statement.
        asked: the statements that look for rows.
        sorting: those that find all before they show the first.
    """

    def __init__(self, driver: Driver) -> None:
        self.whole: dict[str, list[str]] = {}
        self.asked: set[str] = set()
        self.sorting: set[str] = set()
        self._dialect = driver.dialect.name
        self._fetch = driver.fetch
        for name in ("fetch", "execute"):
            setattr(driver, name, self._explaining(getattr(driver, name)))

    def _explaining(self, run: Run) -> Run:
        async def explained(raw: object, sql: str, params: Sequence[Any]) -> object:
            if " WHERE " in " ".join(sql.split()) and sql not in self.asked:
                self.asked.add(sql)
                if whole := await self.read_whole(raw, sql, params):
                    self.whole[sql] = whole
            return await run(raw, sql, params)

        return explained

    async def read_whole(self, raw: object, sql: str, params: Sequence[Any]) -> list[str]:
        """The steps of a plan that would read everything."""
        if self._dialect == "sqlite":
            rows = await self._fetch(raw, f"EXPLAIN QUERY PLAN {sql}", params)
            self._note(sql, rows)
            # Nearly all rows have not ended; to find them in order is the one good reason.
            bad = () if "ORDER BY" in sql else ("(ended_at=?)", "(ended_at=? AND expires_at>?)")
            # What another step has found, or nothing at all, around subqueries.
            found = ("SCAN anon", "SCAN CONSTANT ROW")
            steps = [row[3] for row in rows if not row[3].startswith(found)]
            return [one for one in steps if one.startswith("SCAN") or one.endswith(bad)]
        if self._dialect == "postgresql":
            # Its planner may find reading all of so few rows cheaper.
            await self._fetch(raw, "SET enable_seqscan = off", ())
            try:
                ((plan,),) = await self._fetch(raw, f"EXPLAIN (FORMAT JSON) {sql}", params)
            finally:
                await self._fetch(raw, "RESET enable_seqscan", ())
            plans = plan if isinstance(plan, list) else json.loads(plan)  # drivers differ
            self._note(sql, plans)
            return [str(node) for node in nodes(plans[0]["Plan"]) if is_whole(node)]
        # id, select_type, table, type, possible_keys, key, ...; MySQL has two columns more, and the
        # partitions before the type.
        rows = await self._fetch(raw, f"EXPLAIN FORMAT=TRADITIONAL {sql}", params)
        self._note(sql, rows)
        # <derived2>: what another step has found.
        tables = [row for row in rows if not (row[2] or "<").startswith("<")]
        return [str(row) for row in tables if row[4 if len(row) == 12 else 3] in {"ALL", "index"}]

    def _note(self, sql: str, plan: object) -> None:
        if any(sign in str(plan) for sign in ("FOR ORDER BY", "Sort Key", "Using filesort")):
            self.sorting.add(sql)


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """A plan's nodes."""
    yield plan
    for one in plan.get("Plans", ()):
        yield from nodes(one)


def is_whole(node: dict[str, Any]) -> bool:
    """Whether a node reads a table, and is not told from where to where."""
    others = {"Bitmap Heap Scan", "Values Scan", "Function Scan"}  # what was given, or found
    kind = node["Node Type"]
    return kind not in others and kind.endswith("Scan") and "Index Cond" not in node
