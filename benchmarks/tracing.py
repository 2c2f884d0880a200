"""Which statements reach the database, as the driver itself tells."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
from databases import Database

from .places import Place

Statements = list[str]


@asynccontextmanager
async def tracing(place: Place) -> AsyncIterator[tuple[Database, Statements]]:
    """A database, connected, and the list that its statements are added to."""
    statements: Statements = []

    class Connection(sqlite3.Connection):
        """Tells what it runs."""

        def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 -- handed on
            super().__init__(*args, **options)
            self.set_trace_callback(statements.append)

    async def listen(connection: Any) -> None:  # noqa: ANN401 -- asyncpg has no types
        def log(record: asyncpg.connection.LoggedQuery) -> None:
            statements.append(record.query)

        connection.add_query_logger(log)

    options: dict[str, Any] = (
        {"factory": Connection}
        if place.kind == "sqlite"
        else {"init": listen, "min_size": 5, "max_size": 5}
    )
    async with Database(place.url, **options) as database:
        yield database, statements
