"""The conditions and changes that statements are made of, with parameters in place of values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    ColumnElement,
    DateTime,
    Integer,
    Select,
    String,
    Table,
    and_,
    bindparam,
    not_,
    null,
    or_,
    select,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement

from asgi_sessions._model.lifetimes import Terms
from asgi_sessions._model.row import COLUMNS

Condition = ColumnElement[bool]

LIMIT = bindparam("p_limit", type_=Integer())


class _Unended(FunctionElement[bool]):
    """That a column is NULL; on SQLite by no index that begins with it. Nearly all rows have not
    ended, but SQLite, which counts how often a value comes on average, takes them for few.
    """

    inherit_cache = True
    type = Boolean()

    def self_group(self, against: object = None) -> _Unended:  # noqa: ARG002 -- as SQLAlchemy has it
        # A condition as it is: with the "= 1" that SQLAlchemy would put behind it, MariaDB finds
        # it in no index.
        return self


@compiles(_Unended)
def _is_null(element: _Unended, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"{compiler.process(element.clauses, **options)} IS NULL"


@compiles(_Unended, "sqlite")
def _is_null_without_index(element: _Unended, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"+{_is_null(element, compiler, **options)}"  # sqlite.org/queryplanner: unary plus


class _UnendedOfPeople(_Unended):
    """The same for a column of the index of people. SQLite is told that it holds for nearly all
    rows, so that it prefers no index that begins with that. PostgreSQL, as long as it has not
    looked at the table, takes such an index for as good; so it finds the person's rows, and leaves
    out those that have ended.
    """

    inherit_cache = True


@compiles(_UnendedOfPeople, "postgresql")
def _is_null_and_nothing_more(element: _Unended, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"({_is_null(element, compiler, **options)}) IS TRUE"


@compiles(_UnendedOfPeople, "sqlite")
def _is_null_nearly_always(element: _Unended, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"likelihood({_is_null(element, compiler, **options)}, 0.999)"


class _Aside(FunctionElement[bool]):
    """A condition of several, joined by AND, for rows that are found by something else: on
    PostgreSQL by nothing in it. As long as it has not looked at a table, it takes those that have
    not ended for few, and would read all of them to find a few sids.
    """

    inherit_cache = True
    type = Boolean()

    def self_group(self, against: object = None) -> _Aside:  # noqa: ARG002 -- as SQLAlchemy has it
        return self  # as `_Unended`


@compiles(_Aside)
def _all(element: _Aside, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return compiler.process(element.clauses, **options)


@compiles(_Aside, "postgresql")
def _all_without_index(element: _Aside, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"({_all(element, compiler, **options)}) IS TRUE"


class Sorted(FunctionElement[str]):
    """A column to sort by after the rows have been found. On PostgreSQL it is an expression that no
    index has: along the primary key PostgreSQL would go through the whole table, where it expects
    many rows of a person who has few.
    """

    inherit_cache = True
    type = String()


@compiles(Sorted)
def _column(element: Sorted, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return compiler.process(element.clauses, **options)


@compiles(Sorted, "postgresql")
def _expression(element: Sorted, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    return f"{_column(element, compiler, **options)} || ''"


class _IdleSince(FunctionElement[datetime]):
    """The moment before which a row of its own idle timeout must not have been seen last: a
    moment, and the column of the seconds.
    """

    inherit_cache = True
    type = DateTime()


@compiles(_IdleSince, "postgresql")
def _minus_interval(element: _IdleSince, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    now, seconds = (compiler.process(one, **options) for one in element.clauses)
    # A parameter without a type, minus an interval, would be one, too.
    return f"CAST({now} AS timestamptz) - make_interval(secs => {seconds})"


@compiles(_IdleSince, "mysql")
@compiles(_IdleSince, "mariadb")
def _minus_seconds(element: _IdleSince, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    now, seconds = (compiler.process(one, **options) for one in element.clauses)
    # What a driver sends as text would be compared as text.
    return f"TIMESTAMPADD(SECOND, -{seconds}, CAST({now} AS DATETIME(6)))"


@compiles(_IdleSince, "sqlite")
def _minus_text(element: _IdleSince, compiler: SQLCompiler, **options: Any) -> str:  # noqa: ANN401 -- the compiler's own
    now, seconds = (compiler.process(one, **options) for one in element.clauses)
    # The fraction of the second, which SQLite would round, is put behind it.
    whole = f"datetime(substr({now}, 1, 19), '-' || {seconds} || ' seconds')"
    return f"{whole} || substr({now}, 20)"


class Clauses:
    """What is said of a table of sessions. Pure: no database, no clock.

    Args:
        table: the table.
        terms: what "live" means.
    """

    def __init__(self, table: Table, terms: Terms) -> None:
        self._terms = terms
        #: Whether sessions of both kinds have the same lifetimes, so that one condition will do.
        self._alike = terms.persistent == terms.browser
        self.table = table
        c = self.c = table.c
        rows: Any = select(*(c[name] for name in COLUMNS), null().label("data"))
        self.rows: Select[Any] = rows
        #: Those of people, in the order of their sids: by the index of people. MariaDB would else
        #: go along the primary key to have them in order, if it takes them for many.
        self.theirs = self.by_person(self.rows)
        self.ids: Select[Any] = select(c.id)
        self.now: ColumnElement[Any] = bindparam("p_now", type_=c.expires_at.type)
        self._unended: Condition = _Unended(c.ended_at)
        #: `Row.live` in SQL, once for all statements.
        self.live = self._live(self._moment)
        #: Within the lifetimes that hold now.
        self.within = self._within(self._moment)
        #: Nobody has ended it, but its time is up.
        self.overdue: Condition = _Aside(
            and_(self._unended, or_(c.expires_at <= self.now, not_(self.within)))
        )
        #: Implied by `live`; for those that are looked for by when they run out.
        self.unended: Condition = c.ended_at.is_(None)
        #: A person's live rows in an app, by the index of people, in which they stand by the id.
        self.owned = self.owned_by(self.param("person_id"), self.param("app_id"))
        #: Those that an app has started itself, and those that it has for people of other layers.
        #: An impersonation is none of the person's own.
        self.logins: Condition = and_(c.origin == "login", c.actor_sid.is_(None))
        self.vouched: Condition = c.live_device_key.is_not(None)
        self.sid: Condition = self.equals("id")
        self.person: Condition = self.equals("person_id")
        self.app: Condition = self.equals("app_id")
        #: What ends a row: by `end`.
        self.ended: Mapping[str, ColumnElement[Any]] = {
            **self.given("ended_at", "end_reason"),
            "live_device_key": null(),
        }

    def owned_by(self, person: ColumnElement[Any], app: ColumnElement[Any]) -> Condition:
        """As `owned`."""
        c = self.c
        unended = _UnendedOfPeople(c.ended_at)
        return and_(c.person_id == person, c.app_id == app, unended, self.live)

    def named(self, column: str) -> Condition:
        """The live rows in an app that have a value of an issuer's in a column, by the index of
        that column, in which they stand by the id.
        """
        unended = _UnendedOfPeople(self.c.ended_at)
        return and_(self.equals(column), self.equals("issuer"), unended, self.app, self.live)

    def by_person(self, rows: Select[Any]) -> Select[Any]:
        """A SELECT of people's rows in an order: MariaDB is to use the index of people."""
        return rows.with_hint(self.table, "IGNORE INDEX (PRIMARY)", "mysql")

    def _live(self, moment: Callable[[str], Any]) -> Condition:
        """`moment` gives the value, or the parameter, of each moment of `at`."""
        lasts = self.c.expires_at > moment("p_now")
        return _Aside(and_(self._unended, lasts, self._within(moment)))

    def _within(self, moment: Callable[[str], Any]) -> Condition:
        """Within the lifetimes that hold now, whatever was written when the session started;
        or within its own.
        """
        kinds = ("",) if self._alike else ("", "_browser")
        each = [
            and_(
                self.c.last_seen_at > moment(f"p_idle{kind}"),
                self.c.started_at > moment(f"p_born{kind}"),
            )
            for kind in kinds
        ]
        common = each[0]
        if not self._alike:
            common = or_(and_(self.c.remember, each[0]), and_(not_(self.c.remember), each[1]))
        idle = self.c.idle_seconds
        own = self.c.last_seen_at > _IdleSince(moment("p_now"), idle)
        return or_(and_(idle.is_(None), common), and_(idle.is_not(None), own))

    def _moment(self, name: str) -> ColumnElement[Any]:
        return bindparam(name, type_=self.c.expires_at.type)

    def live_at(self, now: datetime) -> Condition:
        """`live` with the values of a moment in it, for a statement that somebody else runs."""
        return self._live(self.at(now).__getitem__)

    def param(self, name: str) -> ColumnElement[Any]:
        """A parameter for a value of a column."""
        return param(self.table, name)

    def equals(self, name: str) -> Condition:
        """That a column has the value of its parameter."""
        return equals(self.table, name)

    def given(self, *names: str) -> dict[str, ColumnElement[Any]]:
        """Columns that are set to their parameters."""
        return {name: self.param(name) for name in names}

    def at(self, now: datetime) -> dict[str, Any]:
        """The values of `live` and `overdue` at a moment."""
        terms = self._terms
        given = {
            "p_now": now,
            "p_idle": terms.persistent.idle_since(now),
            "p_born": terms.persistent.too_old_since(now),
        }
        if not self._alike:
            given["p_idle_browser"] = terms.browser.idle_since(now)
            given["p_born_browser"] = terms.browser.too_old_since(now)
        return given


def param(table: Table, name: str) -> ColumnElement[Any]:
    """A parameter for a value of a column of any table."""
    return bindparam(f"p_{name}", type_=table.c[name].type)


def equals(table: Table, name: str) -> Condition:
    """That a column of any table has the value of its parameter."""
    condition: Condition = table.c[name] == param(table, name)
    return condition


def values(**given: object) -> dict[str, Any]:
    """Values by the names of their parameters."""
    return {f"p_{name}": value for name, value in given.items()}
