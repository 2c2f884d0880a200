"""What the pages say is so: their code runs, their tables match, their links and tests exist.

The command line is compared with its page as the objects that it consists of, which are private.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from types import FunctionType
from typing import Any

import pytest
from anyio import to_thread
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

import asgi_sessions
from asgi_sessions import Lifetimes, Session, SessionMiddleware, Sessions
from asgi_sessions._cli.commands import EPILOG, cli
from asgi_sessions.testing import logged_in_cookie
from tests.support import KEY, Browser, set_cookies
from tests.support.asgi import until
from tests.support.inside import open_sids
from tests.support.libraries import need
from tests.support.pages import ASVS, Reader, blocks, faults, prose, section, table
from tests.support.repository import DOCS, PAGES, README, ROOT

#: What the page of other people's libraries imports.
LIBRARIES = ("authlib", "imia", "sqladmin", "starlette_admin", "starlette_flash", "starlette_wtf")
INTEGRATIONS = [
    f"asgi_sessions.{name}"
    for name in ("dbsc", "fastapi", "fastapi_users", "jwt", "litestar", "oidc", "ssf", "starlette")
]


def name_of(page: Path) -> str:
    """The name of a page in the ids of tests: there are two READMEs."""
    return page.relative_to(ROOT).with_suffix("").as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name_of)


# --- the code of the pages ------------------------------------------------------------------------


@each_page
async def test_the_code_of_a_page_runs(reader: Reader) -> None:
    if reader.page == DOCS / "libraries.md":
        for library in LIBRARIES:
            need(library)
    await reader.run()


@pytest.mark.parametrize("page", [README])
async def test_each_app_of_the_readme_logs_in_and_out(reader: Reader) -> None:
    frameworks = []
    for block in blocks(README, "python"):
        await reader.run(block)
        app: ASGIApp = reader["app"]
        sessions: Sessions = reader["sessions"]
        await sessions.create_tables()
        frameworks.append(type(app).__name__)

        browser = Browser(app)
        login = await browser.post("/login")
        (session,) = await sessions.list_sessions("ada")
        (cookie,) = set_cookies(login)
        assert cookie.partition("=")[2].startswith(session.sid)
        if login.status_code == 303:
            assert (await browser.get(login.headers["location"])).text == f"sid: {session.sid}"
        else:
            assert login.json() == {"sid": session.sid}

        replay = Browser(app)
        replay.cookies.update(browser.cookies)
        assert (await browser.post("/logout")).json() == {"message": "session ended"}
        assert not browser.cookies
        assert await sessions.list_sessions("ada") == []
        if login.status_code == 303:
            assert (await browser.get("/")).text == "sid: None"
            assert (await replay.get("/")).text == "sid: None"
    assert frameworks == ["Starlette", "FastAPI", "Litestar"]


def shell(commands: str, directory: Path) -> str:
    """What commands print in a directory where README's app is main.py."""
    (directory / "main.py").write_text(blocks(README, "python")[0].source)
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        ["sh", "-euc", commands],
        cwd=directory,
        env={**os.environ, "SECRET_KEY": KEY, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_commands_of_the_pages_make_the_table_and_purge_it(tmp_path: Path) -> None:
    (make,) = [block.source for block in blocks(README, "sh") if "create_tables" in block.source]
    (purge,) = [block.source for block in blocks(DOCS / "sessions.md", "sh")]
    assert shell(make, tmp_path) == ""
    assert shell(purge, tmp_path) == "0\n"
    with closing(sqlite3.connect(tmp_path / "sessions.db")) as database:
        assert database.execute("SELECT count(*) FROM sessions").fetchone() == (0,)


def test_the_commands_of_the_command_line_run(tmp_path: Path) -> None:
    (commands,) = [block.source for block in blocks(DOCS / "command_line.md", "sh")]
    said = shell(commands, tmp_path)
    assert said.startswith("table sessions of sessions.db (sqlite) is there\nno sessions\n")
    assert said.endswith("0 sessions removed, 0 marked as expired\n")


def test_the_command_line_is_that_of_its_page() -> None:
    page = DOCS / "command_line.md"
    commands = [re.match(r"`([\w-]+)", row[0]) for row in table(page, "Commands")]
    assert [match and match[1] for match in commands] == list(cli.commands)
    options = {
        f"`{option.opts[0]}`": option
        for command in cli.commands.values()
        for option in command.params
    }
    for name, environment, default, _ in table(page, "Options"):
        option = options[name]
        assert environment.strip("`") == (getattr(option, "envvar", None) or "")
        if default == "required":
            assert option.required
        elif default:
            assert default.strip("`") == str(option.default)
    codes = [line.split()[0] for line in EPILOG.splitlines()[2:]]
    assert [code for code, _ in table(page, "Exit codes")] == codes


@pytest.mark.parametrize("page", [DOCS / "tutorial.md"])
async def test_the_app_of_the_tutorial_does_what_it_says(reader: Reader) -> None:
    await reader.run()
    app, sessions = reader["app"], reader["sessions"]
    await sessions.create_tables()
    first, second = Browser(app), Browser(app)
    sids = []
    for browser in (first, second):
        assert "You are not logged in" in (await browser.get("/")).text
        assert (await browser.post("/login/nobody")).status_code == 404
        assert (await browser.post("/login/ada")).headers["location"] == "/"
        (sid,) = re.findall(r"Hello, Ada. Your session is ([\w-]+)", (await browser.get("/")).text)
        sids.append(sid)

    listed = (await first.get("/sessions/", headers={"accept": "text/html"})).text
    assert all(f"{sid}/end" in listed for sid in sids)
    assert (await first.post(f"/sessions/{sids[1]}/end")).is_success
    assert "Hello, Ada" in (await first.get("/")).text
    assert "ended on another device" in (await second.get("/")).text
    await second.post("/login/grace")
    assert "Hello, Grace" in (await second.get("/")).text
    assert (await first.post("/logout")).headers["location"] == "/"
    assert "You are not logged in" in (await first.get("/")).text


@pytest.mark.parametrize("page", [DOCS / "sessions.md"])
async def test_the_app_of_the_how_to_does_what_it_says(reader: Reader) -> None:
    await reader.run()
    app, sessions = reader["app"], reader["sessions"]
    ada = {"name": "ada", "password": "analytical"}
    here, phone, grace = Browser(app), Browser(app, agent="Phone"), Browser(app)

    # logging in, and what a handler sees
    assert (await here.post("/login", json={**ada, "password": "wrong"})).status_code == 401
    assert (await here.get("/")).json() == {"sid": None, "reason": None}
    assert (await here.get("/devices")).status_code == 401
    sid = (await here.post("/login", json=ada)).json()["sid"]
    lost = (await phone.post("/login", json=ada)).json()["sid"]
    assert (await here.get("/")).json() == {"sid": sid, "person_id": "ada"}

    # the list, and the lost phone
    devices = {device["sid"]: device for device in (await here.get("/devices")).json()}
    assert devices.keys() == {sid, lost}
    assert devices[lost]["device"] == "Phone"
    assert [devices[sid]["this_device"], devices[lost]["this_device"]] == [True, False]
    await grace.post("/login", json={"name": "grace", "password": "compiler"})
    assert (await grace.delete(f"/devices/{lost}")).status_code == 404
    assert (await phone.delete(f"/devices/{lost}1")).status_code == 404
    assert (await here.delete(f"/devices/{lost}")).status_code == 204
    assert (await phone.get("/")).json() == {"sid": None, "reason": "revoked"}
    assert (await phone.delete(f"/devices/{sid}")).status_code == 401

    # the password: asked for again, and changed
    assert (await phone.post("/confirm", json=ada)).status_code == 401
    assert (await phone.put("/password", json={"password": "new"})).status_code == 403
    await phone.post("/login", json=ada)
    confirmed = await here.post("/confirm", json=ada)
    assert confirmed.status_code == 204
    assert set_cookies(confirmed)
    assert (await here.put("/password", json={"password": "new"})).status_code == 204
    assert (await phone.get("/")).json() == {"sid": None, "reason": "revoked"}
    assert (await here.get("/")).json()["sid"] == sid
    assert (await phone.post("/login", json=ada)).status_code == 401

    # logging out, in a thread too
    assert (await here.post("/logout")).json() == {"message": "session ended"}
    app.router.routes.append(Route("/thread", reader["log_out_in_a_thread"], methods=["POST"]))
    assert (await grace.post("/thread")).status_code == 204
    assert not grace.cookies

    # the test at the end of the page, in a thread because it is not async
    await to_thread.run_sync(reader["test_login"])
    (everybody,) = [
        block for block in blocks(reader.page, "python") if "distinct()" in block.source
    ]
    assert len(await sessions.list_sessions("ada")) == 1
    await reader.run(everybody)
    assert await sessions.list_sessions("ada") == []


@pytest.mark.parametrize("page", [DOCS / "sessions.md"])
async def test_a_token_that_names_its_session_dies_with_it(reader: Reader) -> None:
    await reader.run()
    reader["app"].router.routes.append(Route("/token", reader["issue_token"], methods=["POST"]))
    claims = (await Browser(reader["app"]).post("/token")).json()

    async def with_claims(scope: Scope, receive: Receive, send: Send) -> None:
        await reader["with_tokens"]({**scope, "claims": claims}, receive, send)

    client = Browser(with_claims, agent="whatever")
    assert (await client.get("/")).json() == {"sid": claims["sid"], "person_id": "ada"}
    await reader["sessions"].end_session_by_id(claims["sid"])
    assert (await client.get("/")).json() == {"sid": None, "reason": "revoked"}
    assert (await Browser(reader["with_tokens"]).get("/")).json()["sid"] is None


@pytest.mark.parametrize("page", [DOCS / "devices.md"])
async def test_the_apps_of_the_page_on_devices_do_what_it_says(reader: Reader) -> None:
    await reader.run()
    browser = Browser(reader["app"])
    login = await browser.post("/login")
    listed = (await browser.get(login.headers["location"])).json()
    assert [one["current"] for one in listed["sessions"]] == [True]
    for name in ("fastapi_app", "litestar_app"):
        elsewhere = Browser(reader[name])
        elsewhere.cookies.update(browser.cookies)
        assert (await elsewhere.get("/sessions/")).json() == listed

    html = {"accept": "text/html"}
    stranger = await Browser(reader["app"]).get("/sessions/", headers=html)
    assert stranger.headers["location"] == "/login"
    own = Browser(SessionMiddleware(reader["simple"], sessions=reader["sessions"]))
    own.cookies.update(browser.cookies)
    page = (await own.get("/", headers=html)).text
    assert f'action="./{listed["sessions"][0]["sid"]}/end"' in page

    await reader["watched"].insert({"type": "http", "headers": []}, {"id": "grace"})
    await reader["watched"].disconnect()
    ((to, text),) = reader["outbox"]
    assert (to, text.partition(",")[0]) == ("grace", "New login: Unknown device")


def test_the_options_of_the_routes_are_those_of_the_signature() -> None:
    rows = table(DOCS / "devices.md", "Options")
    _, *parameters = inspect.signature(Sessions.routes).parameters.values()
    expected = [(f"`{p.name}`", f"`{p.default}`") for p in parameters]
    assert [(name, default) for name, default, _ in rows] == expected


def test_the_tests_of_the_page_on_testing_pass(tmp_path: Path) -> None:
    source = "\n".join(block.source for block in blocks(DOCS / "testing.md", "python"))
    (tmp_path / "test_app.py").write_text(source)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"{len(re.findall('def test_', source))} passed" in done.stdout, done.stdout
    assert done.returncode == 0


@pytest.mark.parametrize("page", [DOCS / "live_connections.md"])
async def test_the_stream_of_the_page_ends_with_its_session(reader: Reader) -> None:
    await reader.run()
    app, sessions = reader["app"], reader["sessions"]
    await sessions.create_tables()
    browser = Browser(app)
    assert (await browser.get("/news")).status_code == 401
    await browser.post("/login")

    async def end() -> int:
        # httpx shows nothing of a response before its end.
        await until(lambda: open_sids(sessions))
        return int(await sessions.end_all_sessions("ada"))

    async with asyncio.timeout(10):
        news, ended = await asyncio.gather(browser.get("/news"), end())
    assert ended == 1
    assert news.text.startswith("data: tick\n\n")
    assert (await browser.get("/news")).status_code == 401


@pytest.mark.parametrize("page", [DOCS / "logging.md"])
async def test_what_is_sent_to_an_error_tracker_holds_no_cookie(reader: Reader) -> None:
    await reader.run()
    sessions: Sessions = reader["sessions"]
    await sessions.create_tables()
    ((name, value),) = (await logged_in_cookie(sessions, "ada")).items()
    others = "theme=dark; "
    header = f"{others}{name}={value}; {name}-bound=v1.2.3; lang=en"
    stack = {"vars": {"scope": {"headers": [["b'cookie'", f"b'{header}'"]]}, "mine": f"'{value}'"}}
    event: dict[str, Any] = {
        "request": {"cookies": {name: value, f"{name}-bound": "v1.2.3"}, "headers": {"X": header}},
        "exception": {"values": [{"stacktrace": {"frames": [stack]}}]},
        "extra": {"count": 1, "pair": (value, None)},
    }
    sent = reader["without_cookies"](event, {})
    assert value.split(".")[1] not in repr(sent)
    assert "v1.2.3" not in repr(sent)
    assert sent["request"]["headers"] == {"X": f"{others}[cookie]; [cookie]; lang=en"}
    assert sent["extra"] == {"count": 1, "pair": ["[cookie]", None]}
    assert event["request"]["cookies"][name] == value


# --- the tables of the pages ----------------------------------------------------------------------


@pytest.mark.parametrize("documented", [Sessions, SessionMiddleware])
def test_the_options_and_their_defaults_are_those_of_the_signature(
    documented: type[Sessions | SessionMiddleware],
) -> None:
    rows = table(DOCS / "options.md", documented.__name__)
    parameters = inspect.signature(documented).parameters
    assert [option for option, _, _ in rows] == [f"`{name}`" for name in parameters]
    known = {**vars(asgi_sessions), "timedelta": timedelta}
    for (_, default, why), parameter in zip(rows, parameters.values(), strict=True):
        assert why.endswith(".")
        if default == "required":
            assert parameter.default is parameter.empty
        elif default == "the system's":
            assert parameter.default().utcoffset() == timedelta(0)
        else:
            code = compile(default.strip("`"), "<options>", "eval")
            assert FunctionType(code, known)() == parameter.default, parameter.name


def test_the_presets_are_those_of_the_code() -> None:
    shown = {
        name.strip("`"): Lifetimes(absolute=duration(absolute), idle=duration(idle))
        for name, absolute, idle, _ in table(DOCS / "options.md", "Lifetimes")
    }
    presets = {k: v for k, v in vars(asgi_sessions).items() if isinstance(v, Lifetimes)}
    assert shown == presets


def duration(words: str) -> timedelta:
    """What "30 days" are."""
    number, unit = words.split()
    return timedelta(**{unit.removesuffix("s") + "s": int(number)})


def test_each_threat_has_a_defence() -> None:
    never = table(DOCS / "security.md", "What must never happen")
    threats = table(DOCS / "security.md", "Threats")
    assert len(never) == 8
    for threat, defence in never + threats:
        assert threat
        assert defence.endswith(".")


def test_asvs_v7_is_answered_in_full() -> None:
    rows = table(DOCS / "security.md", ASVS)
    numbers = {1: 3, 2: 4, 3: 2, 4: 5, 5: 3, 6: 2}
    ids = [f"7.{part}.{n}" for part, count in numbers.items() for n in range(1, count + 1)]
    assert len(ids) == 19
    assert [row[0] for row in rows] == ids
    for _, level, asks, who, where in rows:
        assert level in {"1", "2", "3"}
        assert asks
        assert who in {"done", "hook", "yours"}
        assert where
        if who == "done":
            assert "(evidence.md#" in where


def test_auth_session_is_mapped_in_full() -> None:
    page = DOCS / "auth_session.md"
    functions = table(page, "The seven functions")
    assert len(functions) == 7
    for _, here, _ in functions:
        name = re.search(r"(\w+)\(", here)
        assert name
        assert hasattr(Sessions, name[1]) or hasattr(asgi_sessions, name[1])
    assert [row[0] for row in faults()] == [f"L{n}" for n in range(1, 30)]


def test_the_reasons_of_an_end_are_those_of_the_code() -> None:
    shown = [reason.strip("`") for reason, _, _ in table(DOCS / "sessions.md", "Why sessions end")]
    documented = (inspect.getdoc(Session) or "").partition("end_reason:")[2].partition(":")[0]
    assert shown == re.findall(r"``(\w+)``", documented)
    assert len(shown) == 9


def test_the_architecture_names_what_there_is() -> None:
    sources = [path.read_text() for path in (ROOT / "asgi_sessions").rglob("*.py")]
    page = prose(DOCS / "architecture.md")
    named = re.findall(r"`([A-Z]\w*[a-z]\w*)(?:\.(\w+))?`", page)
    assert len(named) > 50
    for name, member in named:
        made = rf"^(class {name}\b|{name} = )"
        here = [text for text in sources if re.search(made, text, re.MULTILINE)]
        assert here, name
        inherited = hasattr(getattr(asgi_sessions, name, None), member)
        written = any(re.search(rf"\b{member}\b", text) for text in here)
        assert not member or inherited or written, (name, member)


# --- links, versions, manners ---------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    """The fragments of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Path and fragment of each link into the repository."""
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if not target.startswith(("https://", "http://")):
            path, _, fragment = target.partition("#")
            yield path, fragment


@pytest.mark.parametrize("page", sorted({*PAGES, *ROOT.glob("*.md")}), ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for path, fragment in links(page):
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), f"{page.name}: {path}"
        assert not fragment or fragment in anchors(target), f"{page.name}: {path}#{fragment}"


def test_the_readme_leads_to_each_page() -> None:
    linked = {(ROOT / path).resolve() for path, _ in links(README)}
    assert set(PAGES) - {README} <= linked


def test_the_site_has_the_pages_in_the_parts_of_the_index() -> None:
    entry = re.compile(r"^- \[(.+?)\]\((\w+\.md)\)", re.MULTILINE)
    index = {
        heading: entry.findall(section(DOCS / "README.md", heading))
        for heading in ("Tutorial", "How to", "Reference", "Explanation")
    }
    _, _, nav = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")
    parts = {
        heading: re.findall(r"^ +- (.+): (\S+\.md)$", entries, re.MULTILINE)
        for heading, entries in re.findall(r"^  - (.+):\n((?:      .+\n)+)", nav, re.MULTILINE)
    }
    assert {heading: parts[heading] for heading in index} == index
    named = [page for part in index.values() for _, page in part]
    assert sorted([*named, "README.md"]) == sorted(page.name for page in DOCS.glob("*.md"))


def test_the_reference_of_the_api_has_each_public_name() -> None:
    page = (DOCS / "api.md").read_text()
    shown = set(re.findall(r"^::: ([\w.]+)$", page, re.MULTILINE))
    need("fastapi_users")
    for module in (asgi_sessions, *map(import_module, INTEGRATIONS)):
        for name in module.__all__:
            assert f"{module.__name__}.{name}" in shown or f"`{name}`" in page, name


def test_the_readme_is_short_and_plain() -> None:
    text = README.read_text()
    assert len(text.splitlines()) <= 130
    assert "![" not in text
    assert text.replace("·", "").isascii()


def test_the_names_and_versions_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changes = (ROOT / "CHANGELOG.md").read_text()
    versions = re.findall(r"^## \[(\d[^\]]*)\]", changes, re.MULTILINE)
    assert versions[0] == project["version"]
    assert f"pip install {project['name']}\n" in README.read_text()


def test_no_file_knows_the_machine_it_was_written_on() -> None:
    machine = re.compile(r"(?<![\w.])/(?:work|root|home|Users|tmp)/\w|\.\./shared")
    for path in files(ROOT):
        found = machine.search(path.read_text())
        assert not found, f"{path.relative_to(ROOT)}: {found}"


def files(directory: Path) -> Iterator[Path]:
    """The texts of the repository, without what tools have made."""
    for path in directory.iterdir():
        if path.is_dir():
            made = path.name.startswith(".") or path.name in {"__pycache__", "build", "dist"}
            if not made or path.name in {".ci", ".github"}:
                yield from files(path)
        elif path.suffix in {".py", ".md", ".toml", ".yml", ".ini", ".yaml"} or path.name in {
            "Makefile",
            "LICENSE",
            "run",
        }:
            yield path
