"""The command ``asgi-sessions``: what operators do to sessions. Needs the extra ``cli``."""

from __future__ import annotations

import asyncio
import re
import secrets
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TypeVar, get_args
from urllib.parse import urlsplit

import click
from databases import DatabaseURL

from asgi_sessions._errors import SessionsError, SessionsUnavailable
from asgi_sessions._methods.base import ALL_APPS
from asgi_sessions._model.lifetimes import AAL1, LONGEST_LIFETIME, Lifetimes
from asgi_sessions._model.session import Session
from asgi_sessions._model.session_data import decode
from asgi_sessions._model.tokens import SID_PATTERN
from asgi_sessions._service.options import system_clock
from asgi_sessions._sessions import Sessions, SQLDialect
from asgi_sessions._store.maintenance import LARGEST_BATCH

from .operator import Due, Operator, Stats
from .view import Stdout, Unwritable, View

T = TypeVar("T")

#: For ends: what has been idle for too long ends, too, so that a wrong --idle leaves nobody in.
_ANY = LONGEST_LIFETIME
_UNITS = {"d": "days", "h": "hours", "m": "minutes", "s": "seconds"}

EPILOG = """\b
Exit codes:
  0    done
  1    there is no such session
  2    wrong options
  3    the database does not answer, or has no such table
  4    not confirmed, so nothing was ended
  5    the answer could not be written; stderr says what was done
  130  interrupted; what was done stays done"""


class NoSuchSession(click.ClickException):
    """The sid is none of this table."""

    exit_code = 1


class Unreachable(click.ClickException):
    """The database does not answer."""

    exit_code = 3


class NotConfirmed(click.ClickException):
    """Whoever was asked did not say yes."""

    exit_code = 4


def duration(text: str) -> timedelta:
    """What 90d, 12h, 30m or 45s are."""
    match = re.fullmatch(r"(\d{1,9})([dhms])", text)
    if match is None:
        raise click.BadParameter(f"{text!r} is no duration: use for instance 90d, 12h, 30m or 45s")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


@dataclass(frozen=True, slots=True, repr=False)  # the URL may hold a password
class Target:
    """Which sessions, and how to answer.

    Attributes:
        database_url: where they are.
        table: in which table.
        idle: after how long without a request one is over; of `Lifetimes` of the app.
        timeout: how long the database may take for one statement.
        as_json: answer programs.
    """

    database_url: str
    table: str
    idle: timedelta
    timeout: timedelta
    as_json: bool

    @property
    def view(self) -> View:
        """Where answers go."""
        return View(as_json=self.as_json, now=system_clock())

    def __str__(self) -> str:
        """For people, without user, password and options."""
        url = DatabaseURL(self.database_url)
        where = "/".join(part for part in (url.hostname, url.database) if part)
        return f"table {self.table} of {where} ({url.dialect})"

    def run(
        self,
        work: Callable[[Sessions], Awaitable[T]],
        *,
        make: bool = False,
        data: bool | None = None,
        idle: timedelta | None = None,
        keep_ended: timedelta = timedelta(days=90),
        keep_visitors: timedelta = LONGEST_LIFETIME,
    ) -> T:
        """Do something with the sessions.

        Args:
            work: what.
            make: the database may be a file that is not there yet.
            data: whether sessions have data; None to look whether there is a table of them.
            idle: instead of that of the app.
            keep_ended: for how long.
            keep_visitors: for how long; the app alone knows its own lifetimes.
        """
        make_sessions = partial(
            Sessions,
            self.database_url,
            secret_key=_any_key(),
            table_name=self.table,
            timeout=self.timeout,
            lifetimes=Lifetimes(idle=idle or self.idle, absolute=LONGEST_LIFETIME),
            keep_ended=keep_ended,
            visitor_lifetimes=Lifetimes(idle=keep_visitors, absolute=keep_visitors),
            touch_interval=timedelta(0),  # fits each idle timeout; nothing is touched
            notify=DatabaseURL(self.database_url).dialect in {"postgres", "postgresql"},
        )
        url = DatabaseURL(self.database_url)
        file = url.database.removeprefix("file:") if url.options else url.database
        if url.dialect == "sqlite" and not make and not Path(file).is_file():
            raise Unreachable(f"there is no file {file}")

        async def connected() -> T:
            async with make_sessions(data=data is not False) as sessions:
                if data is not None or await sessions._core.store.keeps_data():
                    return await work(sessions)
            async with make_sessions() as sessions:
                return await work(sessions)

        try:
            return asyncio.run(connected())
        except SessionsUnavailable as error:
            cause = f": {error.__cause__}" if error.__cause__ is not None else ""
            message = f"{error}{cause}"
            for secret in filter(None, {url.password, urlsplit(self.database_url).password}):
                message = message.replace(secret, "***")
            raise Unreachable(message) from error


def _any_key() -> str:
    """What `Sessions` signs cookies with. None is read or written here, and no row depends on it
    but by its device, which is known only where one starts; so any key will do.
    """
    return secrets.token_urlsafe()


# --- options ------------------------------------------------------------------------------------

#: An option whose default, and whose variable in the environment, the help tells.
setting = partial(click.option, show_default=True, show_envvar=True)

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
table = setting(
    "--table",
    envvar="ASGI_SESSIONS_TABLE",
    default="sessions",
    help="The table, with its schema before a dot if it has one.",
)
with_data = click.option(
    "--data", is_flag=True, help="With the tables of an app that has Sessions(data=...)."
)
yes = click.option("--yes", is_flag=True, help="Do not ask.")
pause = click.option(
    "--pause",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Rest after each statement for so many times as long as it took.",
)
batch_size = click.option(
    "--batch-size",
    type=click.IntRange(1, LARGEST_BATCH),
    default=1000,
    show_default=True,
    help="Rows that are written at a time.",
)
_DATABASE = (
    click.option(
        "--database-url",
        envvar="ASGI_SESSIONS_DATABASE_URL",
        required=True,
        show_envvar=True,
        help="As for Sessions(...). What stands here, other users of this machine may see: "
        "the environment is the better place for a password.",
    ),
    table,
    setting(
        "--idle",
        type=duration,
        envvar="ASGI_SESSIONS_IDLE",
        default=f"{AAL1.idle.days}d",
        help="The idle timeout of the app, if its lifetimes are not the default.",
    ),
    setting(
        "--timeout",
        type=duration,
        envvar="ASGI_SESSIONS_TIMEOUT",
        default="60s",
        help="How long the database may take for one statement.",
    ),
    as_json,
)


def on_database(command: Callable[..., T]) -> Callable[..., T]:
    """The options that say which sessions; the command gets a `Target`."""

    @wraps(command)
    def with_target(
        *,
        database_url: str,
        table: str,
        idle: timedelta,
        timeout: timedelta,
        as_json: bool,
        **others: object,
    ) -> T:
        return command(Target(database_url, table, idle, timeout, as_json), **others)

    for option in reversed(_DATABASE):
        with_target = option(with_target)
    return with_target


# --- commands -----------------------------------------------------------------------------------


@click.group(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="asgi-login-sessions")
def cli() -> None:
    """Login sessions in a SQL database: list, end, purge and count them.

    No command needs the secret key of an app, and none prints a secret.
    """


@cli.command("create-tables")
@with_data
@on_database
def create_tables(target: Target, *, data: bool) -> None:
    """Make the tables and their indexes where they are missing."""
    target.run(Sessions.create_tables, make=True, data=data)
    target.view.answer(f"{target} is there", table=target.table)


@cli.command("ddl")
@click.option(
    "--dialect", required=True, type=click.Choice(get_args(SQLDialect)), help="Whose SQL."
)
@table
@with_data
@as_json
def ddl(dialect: SQLDialect, table: str, *, data: bool, as_json: bool) -> None:
    """Print the SQL that makes the tables; no database is asked."""
    sessions = Sessions("sqlite:///unused", secret_key=_any_key(), table_name=table, data=data)
    statements = sessions.ddl(dialect)
    view = View(as_json=as_json, now=system_clock())
    view.answer(statements.rstrip(), dialect=dialect, table=table, ddl=statements)


@cli.command("list")
@click.option("--person", "person_id", required=True, help="Whose sessions.")
@click.option("--app", "app_id", help="Those of this app alone.")
@click.option("--ended", "include_ended", is_flag=True, help="Those that have ended, too.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many.")
@click.option("--before", metavar="SID", help="Go on after the last one of another list.")
@on_database
def list_(
    target: Target,
    person_id: str,
    *,
    app_id: str | None,
    include_ended: bool,
    limit: int,
    before: str | None,
) -> None:
    """List a person's sessions, newest first."""
    sessions = target.run(
        lambda it: it.list_sessions(
            person_id,
            app_id=app_id or ALL_APPS,
            include_ended=include_ended,
            limit=limit,
            before=before,
        )
    )
    target.view.sessions(sessions)


@cli.command("show")
@click.argument("sid")
@click.option("--data", is_flag=True, help="The data of the session, too, which may be private.")
@on_database
def show(target: Target, sid: str, *, data: bool) -> None:
    """Show all that is known of a session; of its data, only on request."""

    async def work(sessions: Sessions) -> tuple[Session | None, str | None]:
        session = await sessions.get_by_id(sid)
        if session is None or session.ended_at is not None:
            return session, None
        row = await sessions._core.store.by_sid(session.id)
        return session, None if row is None else row.data

    session, text = target.run(work)
    if session is None:
        raise NoSuchSession(f"there is no session {sid} in {target}")
    target.view.session(session, {"data": decode(text)} if data else {})


@cli.command("end")
@click.argument("sid")
@on_database
def end(target: Target, sid: str) -> None:
    """End a session, as "revoked": nobody is let in with it any more."""

    async def work(sessions: Sessions) -> tuple[Session | None, bool]:
        # One that is not a sid is not worth a question.
        known = SID_PATTERN.fullmatch(sid) is not None
        return await sessions._core.end(sid, "revoked") if known else (None, False)

    session, now = target.run(work, idle=_ANY)
    if session is None:
        raise NoSuchSession(f"there is no session {sid} in {target}")
    target.view.ended(session, now=now)


@cli.command("end-all")
@click.option("--person", help="Of this person.")
@click.option("--app", help="Of this app; with --person, of this person in this app.")
@click.option("--everyone", is_flag=True, help="Of all people in all apps.")
@batch_size
@pause
@yes
@on_database
def end_all(
    target: Target,
    *,
    person: str | None,
    app: str | None,
    everyone: bool,
    batch_size: int,
    pause: float,
    yes: bool,
) -> None:
    """End all live sessions of a person, of an app, or of everyone, as "revoked".

    Those of an app or of everyone end in batches, with a rest after each; run it again to go on
    where it was interrupted. Sessions that start meanwhile stay.
    """
    if everyone == (person is not None or app is not None):
        raise click.UsageError("say whose: --person, --app, both of them, or --everyone")
    if everyone:
        whose = "of everyone"
    else:
        parts = (("of", person), ("in the app", app))
        whose = " ".join(f"{word} {name}" for word, name in parts if name is not None)
    if not yes and (person is None or _several(target, person, app)):
        _confirm(f"End all sessions {whose} in {target}?")

    async def work(sessions: Sessions) -> int:
        if person is not None:
            return await sessions.end_all_sessions(person, app_id=app or ALL_APPS)
        with target.view.progress("ended", None) as progress:
            return await Operator(sessions, pause).end_all(app, batch_size, progress)

    count = target.run(work, idle=_ANY)
    target.view.answer(f"{_sessions(count)} {whose} ended", ended=count)


@cli.command("readmit")
@click.argument("person")
@click.option("--app", help="In this app alone; in all apps without it.")
@on_database
def readmit(target: Target, *, person: str, app: str | None) -> None:
    """Let a person in again whose sessions were all ended.

    Only people whom another layer vouches for without ever dating what it says need this; their old
    tokens are good again, too.
    """
    target.run(lambda it: it.readmit(person, app_id=app or ALL_APPS), idle=_ANY)
    where = f"in the app {app}" if app else "in all apps"
    target.view.answer(f"{person} is readmitted {where}", readmitted=person)


def _several(target: Target, person: str, app: str | None) -> bool:
    live = target.run(
        lambda it: it.list_sessions(person, app_id=app or ALL_APPS, limit=2), idle=_ANY
    )
    return len(live) > 1


@cli.command("purge")
@setting(
    "--keep-ended",
    type=duration,
    envvar="ASGI_SESSIONS_KEEP_ENDED",
    default="90d",
    help="Keep what has ended for so long: it is the audit trail.",
)
@setting(
    "--keep-visitors",
    type=duration,
    envvar="ASGI_SESSIONS_KEEP_VISITORS",
    default=f"{LONGEST_LIFETIME.days}d",
    help="Keep visitors without a login for so long: as `visitor_lifetimes` of the app has it.",
)
@click.option("--dry-run", is_flag=True, help="Count, and change nothing.")
@batch_size
@pause
@on_database
def purge(
    target: Target,
    *,
    keep_ended: timedelta,
    keep_visitors: timedelta,
    dry_run: bool,
    batch_size: int,
    pause: float,
) -> None:
    """Remove what has ended long ago; write down the end of what has run out.

    In batches, with a rest after each; run it again to go on where it was interrupted.
    """
    view = target.view

    async def work(sessions: Sessions) -> Due:
        operator = Operator(sessions, pause)
        if dry_run:
            return await operator.due()
        total = None
        if view.shows_progress:  # else nobody needs the count
            with view.progress("counted", None):
                due = await operator.due()
            total = due.mark + due.remove
        with view.progress("purged", total) as progress:
            return await operator.purge(batch_size, progress)

    done = target.run(work, keep_ended=keep_ended, keep_visitors=keep_visitors)
    verbs = ("would be removed", "would be marked") if dry_run else ("removed", "marked")
    view.answer(
        f"{_sessions(done.remove)} {verbs[0]}, {done.mark:,} {verbs[1]} as expired",
        removed=done.remove,
        expired=done.mark,
        dry_run=dry_run,
    )


@cli.command("stats")
@click.option(
    "--days",
    type=click.IntRange(1, 3660),
    default=30,
    show_default=True,
    help="For starts and ends: today and the days before, in UTC.",
)
@pause
@on_database
def stats(target: Target, days: int, pause: float) -> None:
    """Count sessions: live ones, ends by reason, starts per day.

    It reads the index entries of what is live, and of what began or ended on these days, a slice
    of time after the other; it locks nothing. The last line says what that took.
    """

    async def work(sessions: Sessions) -> tuple[Stats, Operator]:
        operator = Operator(sessions, pause)
        return await operator.stats(days), operator

    target.view.stats(*target.run(work))


def _confirm(question: str) -> None:
    try:
        sure = click.confirm(question, err=True)
    except click.Abort:  # Ctrl-C, or nobody there to be asked
        sure = False
    if not sure:
        raise NotConfirmed("nothing was ended; --yes ends without asking")


def _sessions(count: int) -> str:
    return f"{count:,} session" + "s" * (count != 1)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code.

    Args:
        arguments: those of the process by default.
    """
    out = Stdout(sys.stdout)
    try:
        with redirect_stdout(out):
            code = cli.main(arguments, prog_name="asgi-sessions", standalone_mode=False)
            out.flush()
    except click.Abort:
        _say("interrupted; what was done stays done, and can be gone on with")
        return 130
    except click.ClickException as error:
        if isinstance(error, Unwritable):
            out.silence()
        with suppress(OSError):  # the exit code is left to tell it
            error.show()
        return error.exit_code
    except SessionsError as error:
        _say(f"Error: {error}")
        return 2
    return code or 0


def _say(text: str) -> None:
    with suppress(OSError):  # the exit code is left to tell it
        click.echo(text, err=True)
