"""What the command line prints: tables and charts for people, JSON for programs."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import datetime
from typing import Any, TextIO

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from asgi_sessions._model.session import Session

from .operator import Operator, Stats
from .operator import Progress as Told

_BAR = 40  # characters of the longest


class Unwritable(click.ClickException):
    """Stdout does not take the answer: its disk is full, nobody reads the pipe, it is closed."""

    exit_code = 5


class Stdout(io.TextIOBase):
    """Stdout, as long as a command runs. What its encoding cannot spell is replaced; what it does
    not take is `Unwritable`, before Click or Rich take a broken pipe for an exit code of theirs.

    Args:
        stream: the stdout of the process; None if it is closed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        super().__init__()
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]  # typeshed has an attribute
        """How characters become bytes."""
        return getattr(self._stream, "encoding", "utf-8")

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._stream is not None and self._stream.isatty()

    def write(self, text: str, /) -> int:
        """Write a text."""
        with self._open() as stream:
            return stream.write(text)

    def flush(self) -> None:
        """Write what has gathered."""
        if self._stream is not None:
            with self._open() as stream:
                stream.flush()

    def close(self) -> None:
        """Do nothing: the stream belongs to the process. Python calls this when it collects the
        object, and since 3.13 it reports what fails then.
        """

    def silence(self) -> None:
        """Have Python's last flush at the end of the process succeed."""
        if self._stream is not None:
            with suppress(OSError), open(os.devnull, "wb") as nowhere:  # noqa: PTH123 -- a device
                os.dup2(nowhere.fileno(), self._stream.fileno())

    @contextmanager
    def _open(self) -> Iterator[TextIO]:
        if self._stream is None:
            raise Unwritable("the answer cannot be written: stdout is closed")
        try:
            yield self._stream
        except OSError as error:
            raise Unwritable(f"the answer cannot be written: {error.strerror}") from None


class View:
    """Prints answers to stdout, and progress to stderr.

    Args:
        as_json: one JSON document instead of text.
        now: the moment at which sessions live or not.
    """

    def __init__(self, *, as_json: bool, now: datetime) -> None:
        self._json = as_json
        self._now = now
        # What is piped is not cut to the width of a screen.
        self._out = Console(highlight=False, width=None if sys.stdout.isatty() else 500)
        self._err = Console(stderr=True, highlight=False)

    @property
    def shows_progress(self) -> bool:
        """Whether somebody is looking."""
        return self._err.is_terminal and not self._json

    def answer(self, sentence: str, **facts: object) -> None:
        """What a command has done."""
        try:
            if self._json:
                self._print_json(facts)
            else:
                self._out.print(Text(sentence), soft_wrap=True)
            sys.stdout.flush()
        except Unwritable as error:  # but it has been done
            raise Unwritable(f"{error.message}; {sentence}") from None

    def sessions(self, sessions: Sequence[Session]) -> None:
        """A list."""
        if self._json:
            self._print_json({"sessions": [self._facts(session) for session in sessions]})
            return
        if not sessions:
            self._out.print("no sessions")
            return
        rows = [("sid", "app", "state", "last seen (UTC)", "from")]
        for session in sessions:
            where = f"{session.ip_address or ''} {session.user_agent or ''}".strip()
            if session.actor_id is not None:
                where += f" (acted in by {session.actor_id}: {session.actor_reason})"
            seen = _minute(session.last_seen_at)
            rows.append((session.id, session.app_id, self._state(session), seen, where))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:  # whole lines, however narrow the terminal: a sid that is cut is none
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self._out.print(printable("  ".join(cells).rstrip()), soft_wrap=True)

    def ended(self, session: Session, *, now: bool) -> None:
        """One that has ended, now or before."""
        when = "ended" if now else "had ended before:"
        self.answer(
            printable(f"session {session.id} {when} {self._state(session)}").plain,
            ended=now,
            session=self._facts(session),
        )

    def session(self, session: Session, more: Mapping[str, Any]) -> None:
        """All that is known of one, and more beside it."""
        facts = {**self._facts(session), **more}
        if self._json:
            self._print_json({"session": facts})
            return
        grid = Table.grid(padding=(0, 2))
        for name, value in facts.items():
            if isinstance(value, dict):
                value = json.dumps(value, ensure_ascii=False)  # noqa: PLW2901 -- as it is shown
            shown = {None: "", True: "yes", False: "no"}.get(value, value)
            grid.add_row(Text(name, style="dim"), printable(str(shown)))
        self._out.print(grid)

    def stats(self, stats: Stats, operator: Operator) -> None:
        """Counts, with their cost."""
        cost = {
            "statements": operator.steps,
            "seconds": round(operator.busy, 3),
            "longest_seconds": round(operator.longest, 3),
        }
        days = {day.isoformat(): count for day, count in stats.started.items()}
        if self._json:
            by_count = dict(stats.ended.most_common())
            self._print_json(
                {
                    "live": stats.live.total(),
                    "live_by_app": dict(stats.live.most_common()),
                    "ended_by_reason": by_count,
                    "started_by_day": days,
                    "cost": cost,
                }
            )
            return
        self._out.print(Text(f"live now: {stats.live.total():,}", style="bold"))
        self._chart("by app", dict(stats.live.most_common()) if len(stats.live) > 1 else {})
        self._chart(
            f"ended on the last {len(days)} days, by reason", dict(stats.ended.most_common())
        )
        self._chart("started per day (UTC)", days)
        self._out.print(
            Text(
                f"{cost['statements']} statements took {operator.busy:.2f} s, "
                f"the longest {operator.longest:.2f} s; nothing was locked",
                style="dim",
            ),
            soft_wrap=True,
        )

    @contextmanager
    def progress(self, doing: str, total: int | None) -> Iterator[Told]:
        """A bar, if somebody is looking."""
        if not self.shows_progress:
            yield lambda _: None  # nobody is told
            return
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._err, transient=True) as bar:
            task = bar.add_task(doing, total=total)
            yield lambda count: bar.advance(task, count)

    # --- pieces -------------------------------------------------------------------------------

    def _chart(self, title: str, counts: Mapping[str, int]) -> None:
        if not counts:
            return
        self._out.print()
        self._out.print(Text(title, style="bold"))
        block = "█" if self._out.encoding.startswith("utf") else "#"
        most = max(*counts.values(), 1)
        grid = Table.grid(padding=(0, 2))
        for name, count in counts.items():
            bar = block * -(-count * _BAR // most)  # rounded up: one is not none
            grid.add_row(printable(name), Text(f"{count:,}", justify="right"), bar)
        self._out.print(grid)

    def _state(self, session: Session) -> str:
        if session.ended_at is None:
            return "live"
        return f"{session.end_reason} {_minute(session.ended_at)}"

    def _facts(self, session: Session) -> dict[str, Any]:
        facts = asdict(session)
        facts = {"sid": facts.pop("id"), "live": session.live(self._now), **facts}
        return {k: v.isoformat() if isinstance(v, datetime) else v for k, v in facts.items()}

    @staticmethod
    def _print_json(facts: Mapping[str, object]) -> None:
        sys.stdout.write(json.dumps(facts, indent=2) + "\n")


def printable(text: str) -> Text:
    """A text that does nothing to a terminal: a User-Agent is a stranger's, and may hold orders
    to it.
    """
    return Text("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text))


def _minute(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M}"
