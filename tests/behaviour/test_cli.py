"""The command `asgi-sessions`: what it prints, asks and returns.

The command's clock and its operator, on which it is run in process, have no public name.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import runpy
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from datetime import timedelta
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import select
from sqlalchemy.schema import DropTable

from asgi_sessions import Session, Sessions
from asgi_sessions.__main__ import main
from asgi_sessions._cli.commands import run
from asgi_sessions._cli.operator import Due, Operator
from asgi_sessions._cli.view import Stdout
from asgi_sessions._service.options import system_clock
from tests.support import KEY, Browser, Clock, make_app
from tests.support.acting import acting_routes
from tests.support.data import Visit, data_of
from tests.support.repository import DOCS

T = TypeVar("T")

DAY = timedelta(days=1)
UNKNOWN = "01890000-0000-7000-8000-000000000000"


class Shell:
    """Somebody at a terminal."""

    def __init__(
        self, url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.url = url
        self.clock = Clock()
        self.clock.now = system_clock() - timedelta(minutes=1)
        self.table = "sessions"
        self._capsys = capsys
        self._monkeypatch = monkeypatch
        self.options: dict[str, Any] = {}
        self.said = ""

    def __call__(self, *arguments: str, code: int = 0, types: str = "") -> str:
        """What a command prints; what it says on stderr is in `said`."""
        self._monkeypatch.setattr(sys, "stdin", io.StringIO(types))
        got = run([str(argument) for argument in arguments])
        out, self.said = self._capsys.readouterr()
        assert got == code, (out, self.said)
        return out

    def json(self, *arguments: str, **more: Any) -> Any:
        """What it answers to a program."""
        return json.loads(self(*arguments, "--json", **more))

    def prepare(self, work: Callable[[Sessions], Awaitable[T]]) -> T:
        """Do something as the app does."""

        async def connected() -> T:
            options = {"clock": self.clock, "table_name": self.table, **self.options}
            async with Sessions(self.url, secret_key=KEY, **options) as sessions:
                await sessions.create_tables()
                return await work(sessions)

        return asyncio.run(connected())

    def log_in(self, person: str = "ann", app: str = "default", agent: str = "Firefox") -> str:
        """A new session; its sid."""
        headers = [(b"user-agent", agent.encode("latin-1"))]
        scope = {"type": "http", "headers": headers, "client": ("192.0.2.1", 1)}
        self.clock.turn(timedelta(seconds=1))

        async def insert(sessions: Sessions) -> str:
            return (await sessions.insert(scope, {"id": person, "app_id": app})).id

        return self.prepare(insert)

    def end(self, sid: str, reason: str) -> str:
        """End a session as the app does."""
        self.prepare(lambda sessions: sessions.end_session_by_id(sid, reason=reason))
        return sid

    def get(self, sid: str) -> Session:
        """A session as it is."""
        session = self.prepare(lambda sessions: sessions.get_by_id(sid))
        assert session is not None
        return session

    def live(self, *sids: str) -> list[str]:
        """Those of these that nobody has ended."""
        return [sid for sid in sids if self.get(sid).ended_at is None]


@pytest.fixture
def shell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Shell:
    """With the database in the environment."""
    for name in list(os.environ):
        if name.startswith("ASGI_SESSIONS_") or name in {"FORCE_COLOR", "TTY_COMPATIBLE"}:
            monkeypatch.delenv(name)
    monkeypatch.setenv("TERM", "xterm")
    url = f"sqlite:///{tmp_path}/sessions.db"
    monkeypatch.setenv("ASGI_SESSIONS_DATABASE_URL", url)
    return Shell(url, capsys, monkeypatch)


# --- on each database -----------------------------------------------------------------------------


@pytest.fixture
def empty_table(
    shell: Shell, database_url: str, table_name: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """A table that is not there, in the environment."""
    monkeypatch.setenv("ASGI_SESSIONS_DATABASE_URL", database_url)
    monkeypatch.setenv("ASGI_SESSIONS_TABLE", table_name)
    shell.url, shell.table = database_url, table_name
    yield

    async def drop(sessions: Sessions) -> None:
        for each in sessions.metadata.sorted_tables:
            await sessions.database.execute(DropTable(each, if_exists=True))

    shell.prepare(drop)


@pytest.mark.usefixtures("empty_table")
def test_an_operator_has_what_they_need(shell: Shell, database_url: str, table_name: str) -> None:
    if database_url.startswith("sqlite"):
        Path(database_url.removeprefix("sqlite:///")).touch()
    shell("stats", code=3)
    assert "create_tables()` or a migration makes it" in shell.said
    assert table_name in shell("create-tables")
    assert shell.json("create-tables") == {"table": table_name}

    phone, laptop, other = shell.log_in(), shell.log_in(), shell.log_in("bob")
    listed = shell.json("list", "--person", "ann")["sessions"]
    assert [session["sid"] for session in listed] == [laptop, phone]
    assert shell.json("end", phone)["session"]["end_reason"] == "revoked"
    assert shell.json("show", phone)["session"]["live"] is False
    assert shell.json("end-all", "--person", "ann") == {"ended": 1}
    assert shell.live(phone, laptop, other) == [other]
    assert shell.json("readmit", "ann") == {"readmitted": "ann"}
    assert shell("readmit", "ann", "--app", "wiki") == "ann is readmitted in the app wiki\n"
    assert shell.json("end-all", "--everyone", "--yes") == {"ended": 1}
    stats = shell.json("stats", "--days", "2")
    assert (stats["live"], stats["ended_by_reason"]) == (0, {"revoked": 3})
    would = {"removed": 3, "expired": 0, "dry_run": True}
    assert shell.json("purge", "--keep-ended", "0s", "--dry-run") == would
    assert shell.json("purge", "--keep-ended", "0s") == {**would, "dry_run": False}
    shell("show", phone, code=1)


@pytest.mark.usefixtures("empty_table")
def test_an_operator_sees_data_on_request_and_ends_them_with_their_session(shell: Shell) -> None:
    shell.options["data"] = True

    async def visits(sessions: Sessions) -> list[str | None]:
        guest, *people = [Visit(sessions) for _ in range(4)]
        for number, visit in enumerate(people):
            await visit.login(f"p{number}")
        for visit in (guest, *people):
            await visit.has(lambda session: session.update(a=1))
        return [visit.cookie for visit in people]

    def left() -> tuple[int, int]:
        async def count(sessions: Sessions) -> tuple[int, int]:
            return len(await data_of(sessions)), len(await data_of(sessions, "visitors"))

        return shell.prepare(count)

    cookies = shell.prepare(visits)
    sids = [str(cookie).partition("=")[2].partition(".")[0] for cookie in cookies]
    assert left() == (3, 1)
    assert '{"a": 1}' in shell("show", sids[0], "--data")
    assert shell.json("show", sids[0], "--data")["session"]["data"] == {"a": 1}
    assert "data" not in shell.json("show", sids[0])["session"]
    shell("end", sids[0])
    assert left() == (2, 1)
    shell("end-all", "--person", "p1")
    assert left() == (1, 1)
    shell("end-all", "--everyone", "--yes")
    assert left() == (0, 1)
    assert shell.json("purge", "--keep-ended", "0s")["removed"] == 3
    assert left() == (0, 1)  # the app alone knows how long visitors stay


# --- which database -------------------------------------------------------------------------------


def test_without_a_database_it_says_how_to_name_one(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASGI_SESSIONS_DATABASE_URL")
    shell("stats", code=2)
    assert "ASGI_SESSIONS_DATABASE_URL" in shell.said
    shell("create-tables", "--database-url", shell.url)
    shell("stats", "--database-url", shell.url)


def test_a_file_that_is_not_there_is_not_made_by_looking(shell: Shell, tmp_path: Path) -> None:
    shell("list", "--person", "ann", code=3)
    assert "there is no file" in shell.said
    named = f"sqlite:///file:{tmp_path}/new.db?mode=rw&uri=true"
    shell("stats", "--database-url", named, code=3)
    assert f"there is no file {tmp_path}/new.db" in shell.said
    (tmp_path / "new.db").touch()
    shell("create-tables", "--database-url", named)
    shell("stats", "--database-url", named)
    (tmp_path / "new.db").unlink()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (["stats", "--table", "no table"], "table_name='no table'"),
        (["stats", "--idle", "soon"], "'soon' is no duration: use for instance 90d"),
        (["stats", "--idle", "500d"], "400 days"),
        (["stats", "--timeout", "0s"], "timeout="),
        (["stats", "--database-url", "nonsense"], "invalid database URL"),
        (["list", "--person", ""], "person_id"),
        (["list", "--person", "ann", "--before", "x"], "must be a sid"),
        (["purge", "--batch-size", "10001"], "10001"),
        (["purge", "--keep-ended", "900000d"], "keep_ended="),
        (["end-all"], "say whose"),
        (["end-all", "--everyone", "--person", "ann"], "say whose"),
        (["ddl", "--dialect", "dbase"], "dbase"),
    ],
)
def test_what_cannot_work_is_refused_with_its_mend(
    shell: Shell, arguments: list[str], fault: str
) -> None:
    shell("create-tables")
    assert shell(*arguments, code=2) == ""
    assert fault in shell.said


def test_a_password_is_never_printed(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "ASGI_SESSIONS_DATABASE_URL", "postgresql://joe:hunter%402@127.0.0.1:1/mine?ssl=disable"
    )
    for command in (["stats"], ["end-all", "--everyone"], ["end-all", "--person", "ann"]):
        shell(*command, code=4 if "--everyone" in command else 3)
        assert "hunter" not in shell.said
        assert "joe" not in shell.said

    async def quoted(_: Sessions) -> None:
        raise ValueError("cannot connect to joe:hunter@2 (hunter%402)")

    monkeypatch.setattr("databases.Database.connect", quoted)
    shell("create-tables", code=3)
    assert "cannot connect to joe:*** (***)" in shell.said


# --- looking --------------------------------------------------------------------------------------


def test_a_list_shows_whose_where_and_until_when(shell: Shell) -> None:
    old = shell.end(shell.log_in(), "logout")
    here, there = shell.log_in(), shell.log_in(app="wiki")
    seen = shell.clock.now
    shell.log_in("bob")
    text = shell("list", "--person", "ann")
    assert [sid in text for sid in (old, here, there)] == [False, True, True]
    assert "192.0.2.1" in text
    assert "Firefox" in text
    assert f"{seen:%Y-%m-%d %H:%M}" in text
    assert "logout" in shell("list", "--person", "ann", "--ended")
    listed = shell.json("list", "--person", "ann", "--ended", "--limit", "2")["sessions"]
    assert [session["sid"] for session in listed] == [there, here]
    rest = shell.json("list", "--person", "ann", "--ended", "--before", here)["sessions"]
    assert [session["end_reason"] for session in rest] == ["logout"]
    assert len(shell.json("list", "--person", "ann", "--app", "wiki")["sessions"]) == 1
    assert shell("list", "--person", "nobody") == "no sessions\n"


def test_the_idle_timeout_of_the_app_decides_what_is_live(shell: Shell) -> None:
    shell.clock.turn(-2 * DAY)
    sid = shell.log_in()
    assert shell.json("show", sid)["session"]["live"] is True
    assert shell.json("stats")["live"] == 1
    assert shell.json("show", sid, "--idle", "24h")["session"]["live"] is False
    assert shell.json("stats", "--idle", "24h")["live"] == 0
    assert shell.json("list", "--person", "ann", "--idle", "1d")["sessions"] == []


def test_all_of_a_session_is_shown_but_what_is_secret(shell: Shell) -> None:
    sid = shell.log_in()
    shown = shell.json("show", sid)["session"]
    assert shown["sid"] == sid
    assert shown.keys() == {"live", "sid", *Session.__dataclass_fields__} - {"id"}
    rows = shell.prepare(lambda it: it.database.fetch_all(it.table.select()))
    hidden = {name: rows[0][name] for name in ("secret_hash", "device_key")}
    everything = shell("show", sid) + shell("list", "--person", "ann") + json.dumps(shown)
    for value in hidden.values():
        assert value.hex() not in everything
        assert repr(value)[2:-1] not in everything
    assert "ann" in shell("show", sid)


def test_a_strangers_user_agent_has_no_power_over_the_terminal(shell: Shell) -> None:
    sid = shell.log_in(agent="\x1b[2J[bold]Fire\x9bfox[/x]")
    for text in (shell("list", "--person", "ann"), shell("show", sid)):
        assert "\x1b" not in text
        assert "\x9b" not in text
        assert "�[2J[bold]Fire�fox[/x]" in text


@pytest.mark.parametrize("sid", [UNKNOWN, "nonsense"])
def test_an_unknown_session_has_an_exit_code_of_its_own(shell: Shell, sid: str) -> None:
    shell("create-tables")
    for command in ("show", "end"):
        assert shell(command, sid, code=1) == ""
        assert f"there is no session {sid} in table sessions of " in shell.said


def test_counts_have_a_chart(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for app in ("default", "wiki", "wiki"):
        shell.log_in(app=app)
    shell.end(shell.log_in("bob"), "limit")
    text = shell("stats", "--days", "3")
    assert "live now: 3" in text
    lines = [line.split() for line in text.splitlines()]
    assert ["wiki", "2", "█" * 40] in lines
    assert ["default", "1", "█" * 20] in lines
    assert ["limit", "1", "█" * 40] in lines
    assert [f"{shell.clock.now:%Y-%m-%d}", "4", "█" * 40] in lines
    assert "statements took" in text
    assert "nothing was locked" in text
    monkeypatch.setattr("rich.console.Console.encoding", "ascii")
    assert shell("stats").isascii()


# --- ending ---------------------------------------------------------------------------------------


def test_an_end_is_told_and_an_earlier_one_holds(shell: Shell) -> None:
    sid = shell.log_in()
    assert f"session {sid} ended revoked" in shell("end", sid)
    assert f"session {sid} had ended before: revoked" in shell("end", sid)
    assert shell.json("end", sid)["ended"] is False
    assert shell.get(sid).end_reason == "revoked"


def test_more_than_one_session_ends_only_if_somebody_says_yes(shell: Shell) -> None:
    sids = [shell.log_in(), shell.log_in(), shell.log_in("bob", "wiki")]
    for whose in (["--person", "ann"], ["--app", "wiki"], ["--everyone"]):
        for answer in ("n\n", ""):
            assert shell("end-all", *whose, types=answer, code=4).strip() == ""
            assert "table sessions of " in shell.said
            assert "nothing was ended" in shell.said
    assert shell.live(*sids) == sids
    assert "2 sessions of ann ended\n" in shell("end-all", "--person", "ann", types="y\n")
    assert shell.live(*sids) == sids[2:]
    # One is not more than one.
    assert shell.json("end-all", "--person", "bob", "--app", "default") == {"ended": 0}
    assert shell("end-all", "--person", "bob", "--app", "wiki") == (
        "1 session of bob in the app wiki ended\n"
    )
    assert "0 sessions of everyone ended\n" in shell("end-all", "--everyone", types="y\n")


def test_the_sessions_of_an_app_end_and_no_others(shell: Shell) -> None:
    wiki, mail = shell.log_in(app="wiki"), shell.log_in(app="mail")
    assert shell.json("end-all", "--app", "wiki", "--yes", "--batch-size", "1") == {"ended": 1}
    assert shell.live(wiki, mail) == [mail]


def test_a_wrong_idle_timeout_leaves_nobody_in(shell: Shell) -> None:
    shell.clock.turn(-20 * DAY)
    sids = [shell.log_in(person) for person in ("ann", "bob", "cat")]
    assert shell.json("list", "--person", "ann")["sessions"] == []  # for all it knows
    assert shell.json("end", sids[0])["session"]["end_reason"] == "revoked"
    assert shell.json("end-all", "--person", "bob") == {"ended": 1}
    assert shell.json("end-all", "--everyone", "--yes") == {"ended": 1}
    assert {shell.get(sid).end_reason for sid in sids} == {"revoked"}


def test_who_is_readmitted_was_cut_off(shell: Shell) -> None:
    async def seen(sessions: Sessions) -> bool:
        return bool((await Browser(make_app(sessions)).see_as("ann"))["user"])

    assert shell.prepare(seen)
    shell("end-all", "--person", "ann")
    shell.clock.now = system_clock()
    assert not shell.prepare(seen)
    assert shell("readmit", "ann") == "ann is readmitted in all apps\n"
    shell.clock.turn(timedelta(minutes=1))
    assert shell.prepare(seen)


def test_a_purge_forgets_who_was_cut_off_long_ago(shell: Shell) -> None:
    async def cut_off(sessions: Sessions) -> None:
        await sessions.end_all_sessions("ann")

    async def remembered(sessions: Sessions) -> list[str]:
        (_, cutoffs) = sessions.metadata.sorted_tables
        rows = await sessions.database.fetch_all(select(cutoffs.c.person_id))
        return [row[0] for row in rows]

    shell.clock.turn(-401 * DAY)
    shell.prepare(cut_off)
    assert shell.prepare(remembered) == ["ann"]
    shell("purge")
    assert shell.prepare(remembered) == []


# --- purging --------------------------------------------------------------------------------------


def test_a_purge_says_what_it_has_done_and_a_dry_run_what_it_would(shell: Shell) -> None:
    shell.clock.turn(-40 * DAY)
    shell.log_in()
    shell.end(shell.log_in(), "logout")
    assert shell("purge", "--dry-run") == (
        "0 sessions would be removed, 1 would be marked as expired\n"
    )
    assert shell("purge", "--dry-run", "--keep-ended", "30d") == (
        "1 session would be removed, 1 would be marked as expired\n"
    )
    assert shell("purge", "--keep-ended", "30d") == ("1 session removed, 1 marked as expired\n")
    assert shell("purge") == "0 sessions removed, 0 marked as expired\n"


def test_whoever_looks_sees_a_bar(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    shell.clock.turn(-200 * DAY)
    for _ in range(3):
        shell.log_in()
    asked: list[Due] = []
    due = Operator.due

    async def counted(operator: Operator) -> Due:
        asked.append(await due(operator))
        return asked[-1]

    monkeypatch.setattr(Operator, "due", counted)
    shell("purge", "--json", "--pause", "0")
    assert asked == []
    assert shell.said == ""
    for _ in range(3):
        shell.log_in()
    monkeypatch.setenv("FORCE_COLOR", "1")
    shell("purge", "--pause", "0")
    assert asked == [Due(mark=3, remove=3)]
    assert "6/6" in shell.said
    shell("end-all", "--everyone", "--yes")
    assert "ended" in shell.said


def test_an_interrupted_purge_says_that_it_can_be_gone_on_with(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    shell("create-tables")

    async def interrupted(*_: object) -> Due:
        raise KeyboardInterrupt

    monkeypatch.setattr(Operator, "purge", interrupted)
    shell("purge", code=130)
    assert "what was done stays done" in shell.said


# --- making ---------------------------------------------------------------------------------------


def test_the_ddl_is_that_of_sessions_and_needs_no_database(
    shell: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ASGI_SESSIONS_DATABASE_URL")
    expected = Sessions("sqlite:///x", secret_key=KEY, table_name="auth.logins").ddl("mariadb")
    arguments = ("ddl", "--dialect", "mariadb", "--table", "auth.logins")
    assert shell(*arguments) == expected
    answer = {"dialect": "mariadb", "table": "auth.logins", "ddl": expected}
    assert shell.json(*arguments) == answer


def test_the_json_of_each_command_has_the_keys_of_the_page(shell: Shell) -> None:
    sid = shell.log_in()
    page = (DOCS / "command_line.md").read_text()
    rows = page.partition("## JSON")[2].partition("\n## ")[0].splitlines()[6:]
    more = {
        "ddl": ["--dialect", "sqlite"],
        "list": ["--person", "ann"],
        "show": [sid],
        "end": [sid],
        "end-all": ["--person", "ann"],
        "readmit": ["ann"],
    }
    for row in filter(None, rows):
        _, command, keys, _ = row.split("|")
        command = command.strip(" `")
        answer = shell.json(command, *more.pop(command, []))
        known = {*answer, *answer.get("cost", {})}
        named = set(re.findall(r"`(\w+)`", keys)) - {"show", "Session", "id", "sid"}
        assert named - {"live"} == known - {"live"}, command
    assert more == {}


# --- starting it ----------------------------------------------------------------------------------


def test_it_is_installed_under_its_name_and_runs_as_a_module(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (script,) = metadata.entry_points(group="console_scripts", name="asgi-sessions")
    assert script.load() is main
    monkeypatch.delitem(sys.modules, "asgi_sessions.__main__")
    monkeypatch.setattr(sys, "argv", ["asgi-sessions", "--version"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("asgi_sessions", run_name="__main__")
    assert ended.value.code == 0
    assert metadata.version("asgi-login-sessions") in capsys.readouterr().out


def test_the_arguments_are_those_of_the_process(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["asgi-sessions", "--help"])
    assert main() == 0
    assert "Exit codes" in capsys.readouterr().out


@pytest.mark.parametrize("library", ["click", "rich"])
def test_without_the_extra_it_says_how_to_install_it(
    library: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(sys.modules):
        if name.startswith(("asgi_sessions._cli", library)):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    assert main() == 2
    assert f"needs {library}" in (said := capsys.readouterr().err)
    assert "pip install 'asgi-login-sessions[cli]'" in said


def test_another_missing_module_is_no_matter_of_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "asgi_sessions._cli.commands")
    monkeypatch.setitem(sys.modules, "asgi_sessions._cli.operator", None)
    with pytest.raises(ModuleNotFoundError, match=r"_cli\.operator"):
        main()


# --- where its answers go -------------------------------------------------------------------------


def process(shell: Shell, command: str, stdout: str, **environment: str) -> tuple[int, bytes, str]:
    """Run a command by a shell, with stdout redirected; code, stdout, stderr."""
    done = subprocess.run(  # noqa: S602 -- a shell is what redirects
        f'"{sys.executable}" -m asgi_sessions {command} {stdout}',
        shell=True,
        capture_output=True,
        check=False,
        env={**os.environ, "ASGI_SESSIONS_DATABASE_URL": shell.url, **environment},
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252"])
def test_what_the_encoding_of_stdout_cannot_spell_is_replaced(
    shell: Shell, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    agent = "\N{SNOWMAN}".encode().decode("latin-1")
    sid = shell.log_in(agent=f"a{agent}b")
    for command in (["list", "--person", "ann"], ["show", sid], ["stats"]):
        out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", out)
            assert run(command) == 0, command
        assert b"a?b" in out.buffer.getvalue() or command == ["stats"]
    if encoding == "ascii":  # and as a process has it, with a Python that was told so
        code, written, said = process(shell, f"show {sid}", "", PYTHONIOENCODING=encoding)
        assert (code, said) == (0, "")
        assert b"a?b" in written


@pytest.mark.parametrize("stdout", [">/dev/full", ">&-"])
def test_an_answer_that_cannot_be_written_has_an_exit_code_of_its_own(
    shell: Shell, stdout: str
) -> None:
    sid = shell.log_in()
    code, _, said = process(shell, "list --person ann", stdout)
    assert code == 5, said
    assert said.startswith("Error: the answer cannot be written: "), said
    assert len(said.splitlines()) == 1
    # What was done is told all the same.
    code, _, said = process(shell, f"end {sid}", stdout)
    assert code == 5
    assert f"session {sid} ended" in said
    code, _, _ = process(shell, f"end {sid}", f"{stdout} 2>/dev/full")
    assert code == 5
    assert process(shell, f"show {UNKNOWN}", f"{stdout} 2>/dev/full")[0] == 1


def test_a_pipe_that_nobody_reads_any_more_has_the_same_code(shell: Shell) -> None:
    for _ in range(5):
        shell.log_in()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "asgi_sessions", "list", "--person", "ann"],
            stdout=writer,
            stderr=subprocess.PIPE,
            check=False,
            env={**os.environ, "ASGI_SESSIONS_DATABASE_URL": shell.url},
        )
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (
        5,
        b"Error: the answer cannot be written: Broken pipe\n",
    )


@pytest.mark.parametrize("full", [True, False])
def test_so_it_is_with_every_command(
    shell: Shell,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    full: bool,
) -> None:
    sid = shell.log_in()

    def told(*command: str) -> tuple[int, str]:
        with (
            open("/dev/full", "w", encoding="ascii") as device,  # noqa: PTH123 -- a device
            monkeypatch.context() as patch,
        ):
            patch.setattr(sys, "stdout", device if full else None)
            code = run([*command])
        return code, capsys.readouterr().err

    listing = ("list", "--person", "ann")
    for command in (listing, ("show", sid), (*listing, "--json"), ("ddl", "--help")):
        code, said = told(*command)
        assert code == 5, (command, said)
        assert said.startswith("Error: the answer cannot be written: "), said
        assert len(said.splitlines()) == 1
    code, said = told("end", sid)
    assert code == 5
    assert f"session {sid} ended" in said
    assert f"session {sid} had ended before" in told("end", sid, "--json")[1]


def test_there_is_nothing_to_flush_where_stdout_is_closed() -> None:
    stdout = Stdout(None)
    stdout.flush()
    assert not stdout.isatty()


# --- somebody acts for a person -------------------------------------------------------------------


def test_who_acts_for_a_person_is_shown_and_ends_with_their_own(shell: Shell) -> None:
    async def act(sessions: Sessions) -> tuple[str, str]:
        staff = Browser(make_app(sessions, *acting_routes(sessions)))
        own = await staff.login("grace")
        answer = await staff.post("/act?person=ann&reason=ticket%20\u202e7")
        return answer.json()["sid"], own

    sid, own = shell.prepare(act)
    assert "(acted in by grace: ticket \N{REPLACEMENT CHARACTER}7)" in shell(
        "list", "--person", "ann"
    )
    (listed,) = shell.json("list", "--person", "ann")["sessions"]
    assert (listed["actor_id"], listed["actor_reason"]) == ("grace", "ticket \u202e7")
    assert "grace" in shell("show", sid)
    shell("end", own)
    assert (shell.get(sid).end_reason, shell.get(own).end_reason) == ("actor_left", "revoked")
