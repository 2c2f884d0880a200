"""What differs between databases: dialect, driver calls, and which errors are transient.

A driver knows the raw connection of one library, and not where it comes from. Everything it needs
to know about values, SQLAlchemy's dialect of the library knows.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import chain
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Insert,
    Integer,
    Select,
    Table,
    Text,
    bindparam,
    func,
    literal_column,
    select,
    true,
)
from sqlalchemy.engine import Dialect

from asgi_sessions._database.statement import Record, padded

#: A driver's own connection: with each of another type, and few of them have types at all.
Raw: TypeAlias = Any


class HasRaw(Protocol):
    """What holds a driver's own connection."""

    raw: Raw

    def leave(self) -> None:
        """Let go of it without waiting."""


Holder = TypeVar("Holder", bound=HasRaw)
T = TypeVar("T")

#: Keys that one call of a JSON function writes or removes: older releases of SQLite take 100
#: arguments, and writing a key takes two.
_KEYS_IN_A_CALL = 32


class InClause(NamedTuple):
    """Some values of a column, asked for in one of few shapes, so that few statements serve all.

    Attributes:
        shape: what tells one shape from another.
        match: that the column is one of them.
        values: the values of its parameters.
        many: whether they are many.
        each: a table of the values, where rows are better found for one after the other.
    """

    shape: Hashable
    match: Callable[[], ColumnElement[bool]]
    values: Mapping[str, Any]
    many: bool
    each: Callable[[], tuple[ColumnElement[Any], FromClause, ColumnElement[Any]]] | None = None

    def pick(self, rows: Select[Any], most: int = 1) -> Select[Any]:
        """The rows of a SELECT in which the column is one of the values; so many of each value at
        most, which is enough for a unique column.
        """
        if self.each is None:
            return rows.where(self.match())
        column, values, value = self.each()
        one = rows.where(column == value).limit(literal_column(str(most), Integer())).lateral()
        return select(*one.c).select_from(values.join(one, true()))


class Insertion(NamedTuple):
    """How some rows are written, with few statements for all numbers of them.

    Attributes:
        shape: what tells one statement from another.
        make: the statement; it leaves out the rows for which a unique column is taken.
        values: the values of its parameters, for each time that it is run.
    """

    shape: Hashable
    make: Callable[[], Insert]
    values: Sequence[Mapping[str, Any]]


class Merge(NamedTuple):
    """How some keys of a JSON object are written and others removed, on the server.

    Attributes:
        shape: what tells one expression from another.
        make: makes of the column the expression of the changed object.
        values: the values of its parameters.
    """

    shape: Hashable
    make: Callable[[ColumnElement[Any]], ColumnElement[Any]]
    values: Mapping[str, Any]


class Found(NamedTuple):
    """A column as it stands in the database.

    Attributes:
        name: its name.
        shown: its type, as the database calls it.
        holds: the kinds of values that it gives back as they were.
        length: the most characters or bytes, if it has such a limit.
        collation: how it compares, if the database tells.
        required: whether a new row has to bring a value.
    """

    name: str
    shown: str
    holds: frozenset[type]
    length: int | None
    collation: str | None
    required: bool


class Listening(ABC):
    """Hears what is told on a channel of the database (`Driver.listen`)."""

    @abstractmethod
    async def wait(self, seconds: float) -> None:
        """Hear for so long, or until something has been heard.

        Raises:
            Exception: a driver's own, if the connection is lost.
        """

    @abstractmethod
    async def pulse(self) -> None:
        """Ask the server for a sign of life."""

    @abstractmethod
    async def stop(self) -> None:
        """Hear no more."""


class Driver(ABC):
    """How to speak to one kind of database through one library. `raw` is its own connection."""

    #: The kind of database, as people call it.
    system: ClassVar[str]
    #: Whether UPDATE tells the rows that it changed.
    returning: ClassVar[bool] = True
    #: Whether one transaction writes at a time, so that none has to lock what it reads.
    serial: ClassVar[bool] = False
    #: Whether what is to be changed has to be locked before, to be locked in an order.
    locks: ClassVar[bool] = False
    #: Whether, to have rows in the order of an index, a column has to be named that is NULL in all
    #: of them; else it must not be.
    orders_nulls: ClassVar[bool] = False
    #: Whether a statement can leave out the rows that somebody has locked; False once the server
    #: has turned out to be older than that.
    skips: bool = False
    #: Whether the database works elsewhere, while Python goes on.
    elsewhere: ClassVar[bool] = True
    #: Whether one connection can tell another what happens (`Listener`).
    notifies: ClassVar[bool] = False
    #: Seconds that a batch of `purge` should take: for so long, requests share a core and the disk
    #: with it. A commit takes some of it.
    batch: ClassVar[float] = 0.01
    #: Up to this many values count as a small result.
    few: ClassVar[int] = 1
    #: Whether an INSERT writes one row, and is run for each; else one writes all.
    row_by_row: ClassVar[bool] = False
    #: Whether statements that are alike are sent together.
    pipelines: ClassVar[bool] = True
    #: Keys of an object that one call of a function removes.
    removals: ClassVar[int] = _KEYS_IN_A_CALL
    #: Whether the app uses the same connection at the same time.
    shared: ClassVar[bool] = False
    #: Seconds to wait after a failed connect, so that the driver can clean up.
    last_word: ClassVar[float] = 0
    dialect: Dialect

    @abstractmethod
    async def fetch(self, raw: Raw, sql: str, params: Sequence[Any]) -> Sequence[Record]:
        """The rows of a statement."""

    @abstractmethod
    async def execute(self, raw: Raw, sql: str, params: Sequence[Any]) -> int:
        """How many rows a statement changed."""

    async def run(self, raw: Raw, sql: str, params: Sequence[Sequence[Any]]) -> None:
        """Execute a statement once for each set of parameters."""
        for each in params:
            await self.execute(raw, sql, each)

    async def begin(self, raw: Raw) -> None:
        """Begin a transaction on a connection in autocommit mode."""
        await self.execute(raw, "BEGIN", ())

    async def commit(self, raw: Raw) -> None:
        """Commit what has been done since `begin`."""
        await self.execute(raw, "COMMIT", ())

    async def rollback(self, raw: Raw) -> None:
        """Undo what has been done since `begin`."""
        await self.execute(raw, "ROLLBACK", ())

    @abstractmethod
    def insert_once(self, table: Table) -> Insert:
        """An INSERT that does nothing where a unique column is taken."""

    @abstractmethod
    def upsert(self, table: Table, rows: Select[Any], changes: Mapping[str, Any]) -> Insert:
        """An INSERT of some rows, in the order of the table's columns. Rows that are there already
        get the `changes`.
        """

    def merge(self, written: Mapping[str, str], removed: Sequence[str]) -> Merge:
        """Change some keys of a JSON object, and leave the others as they are at that moment.

        Args:
            written: by the key, the JSON text of its value.
            removed: the keys to be removed.
        """
        gone = padded([self.path(key) for key in removed]) if removed else []
        paths = padded([self.path(key) for key in written]) if written else []
        texts = padded([*written.values()]) if written else []
        places = (("gone", gone), ("path", paths), ("text", texts))
        names = [_places((name,), len(these)) for name, these in places]

        def each(name: int) -> list[ColumnElement[Any]]:
            return [bindparam(one, type_=Text()) for one in names[name]]

        def make(column: ColumnElement[Any]) -> ColumnElement[Any]:
            for keys in _batched(each(0), self.removals):
                column = func.json_remove(column, *keys)
            pairs = [*zip(each(1), map(self.json_of, each(2)), strict=True)]
            for some in _batched(pairs, _KEYS_IN_A_CALL):
                column = func.json_set(column, *chain.from_iterable(some))
            return column

        given = dict(zip(chain(*names), chain(gone, paths, texts), strict=True))
        return Merge((len(gone), len(paths)), make, given)

    def json_of(self, text: ColumnElement[Any]) -> ColumnElement[Any]:
        """A JSON text as a value of the database's."""
        return func.json(text)

    def path(self, key: str) -> str:
        """The JSON path of a key, which has neither `"` nor a backslash."""
        return f'$."{key}"'

    @abstractmethod
    def pack(self, rows: Select[Any], *, many: bool) -> Select[Any] | None:
        """The same SELECT with the rows as JSON, in no order, as `Statement` reads it: drivers take
        their time for each value. None where that gains nothing.
        """

    def among(self, column: ColumnElement[Any], keys: Iterable[Any]) -> InClause:
        """That a column is one of these: as many parameters as the next power of two."""
        given = padded(list(keys))
        names = [f"p_{column.name}_{i}" for i in range(len(given))]
        return InClause(
            (column.name, len(given)),
            lambda: column.in_([bindparam(name, type_=column.type) for name in names]),
            dict(zip(names, given, strict=True)),
            many=len(given) > self.few,
        )

    def one_of(self, column: ColumnElement[Any], found: Select[Any]) -> ColumnElement[bool]:
        """That a column is one of those that are found first, and locked."""
        # Twice: in a plain subquery of the table that it changes, MariaDB skips no locked row.
        return column.in_(select(found.subquery().c[str(column.key)]))

    def insertion(self, table: Table, rows: Sequence[Mapping[str, Any]]) -> Insertion:
        """Rows, all with the same columns in the same order, written unless they are there: as
        many at a time as the next power of two, or `row_by_row`.
        """
        if not self.row_by_row:
            rows = padded(rows)
        columns, size = tuple(rows[0]), 1 if self.row_by_row else len(rows)
        places = _places(columns, size)

        def make() -> Insert:
            names = iter(places)
            return self.insert_once(table).values(
                [
                    {name: bindparam(next(names), type_=table.c[name].type) for name in columns}
                    for _ in range(size)
                ]
            )

        given = chain.from_iterable(row.values() for row in rows)
        values = [dict(zip(places, given, strict=False)) for _ in range(0, len(rows), size)]
        return Insertion((table.name, size), make, values)

    async def connect(self, **options: Any) -> Raw:  # noqa: ANN401 -- the library's
        """Open a connection by the library's own function; where it `notifies`."""
        raise NotImplementedError  # `source_of` refuses `notify` where it is missing

    async def opened(self, opening: Coroutine[Any, Any, Holder]) -> Holder:
        """What a pool opens for us, so that nothing is left open if we are cancelled meanwhile."""
        return await opening

    async def prepare(self, raw: Raw, *, owned: bool, timeout: float) -> None:  # noqa: ARG002, ASYNC109 -- for those who have to; what a connection is told
        """Make a new connection ready; an app's own is only looked at where it must not change."""
        await self.check(raw)

    async def check(self, raw: Raw) -> None:  # noqa: B027 -- not all have to
        """Refuse a connection that would spoil values, or whose statements others would run.

        Raises:
            ConfigurationError: for such a one.
        """

    async def restore(self, raw: Raw, *, by_index: bool) -> None:  # noqa: B027 -- not all have to
        """Undo the settings of `prepare`, and of `by_index` if it has changed one, for a pool that
        does not do so itself.
        """

    async def listen(self, raw: Raw, channel: str, heard: Callable[[str], None]) -> Listening:
        """Listen to a channel; where the driver `notifies`.

        Args:
            raw: a connection that does nothing else.
            channel: its name.
            heard: called with each payload.
        """
        raise NotImplementedError

    @abstractmethod
    async def columns(self, raw: Raw, table: Table) -> list[Found]:
        """The columns of the table that has this name; none if there is no such table."""

    async def by_index(self, raw: Raw) -> bool:  # noqa: ARG002 -- not all have to
        """Have rows found by indexes, whatever the database thinks of the table, until this
        connection is given back; whether that has changed a setting.
        """
        return False

    async def ddl_dialect(self, raw: Raw) -> Dialect:  # noqa: ARG002 -- for those who have to ask
        """The dialect in which to make tables."""
        return self.dialect

    def socket(self, raw: Raw) -> Any:  # noqa: ANN401, ARG002 -- of asyncio, of uvloop
        """The socket of a connection; None where there is none to be had."""
        return None

    def is_transient(self, error: Exception) -> bool:  # noqa: ARG002 -- for those whose errors do
        """Whether an error is transient: a deadlock, a serialization failure."""
        return False

    def hint(self, error: Exception) -> str | None:  # noqa: ARG002 -- for those that know one
        """What an app may have done wrong that meets this error."""
        return None

    @abstractmethod
    def of_tables(self, error: Exception) -> bool:
        """Whether an error may come from a table that is missing, or not as it should be."""

    def unknown(self, error: Exception) -> bool:  # noqa: ARG002 -- for those of which old ones are about
        """Whether the server does not know the words of a statement."""
        return False

    def already_exists(self, error: Exception) -> bool:  # noqa: ARG002 -- for those that say so by an error
        """Whether a table or an index is there already."""
        return False

    def leave(self, raw: Raw) -> None:
        """Let go of a connection whose event loop is gone."""
        self.abandon(raw)

    def abandon(self, raw: Raw) -> None:  # noqa: B027 -- a thread has no other end
        """Close the socket without waiting for the server."""

    async def close(self, raw: Raw) -> None:
        """Close a connection that no pool takes back."""
        await raw.close()

    async def discard(self, raw: Raw) -> None:
        """Close a connection that no pool takes back, and that may not answer any more."""
        self.abandon(raw)


def _batched(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """As many at a time as one call of a JSON function takes."""
    return (items[i : i + most] for i in range(0, len(items), most))


@cache  # one entry for each power of two
def _places(columns: Sequence[str], size: int) -> list[str]:
    """The names of the parameters of so many rows."""
    return [f"p_{name}_{i}" for i in range(size) for name in columns]
