"""The main job on real input: the example on a socket, clients with a cookie jar per device."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from example_app import PASSWORDS

EXAMPLE = Path(__file__).parents[2] / "example_app.py"
#: Seconds until a server has to answer, or has to be gone.
PATIENCE = 30
ANN = {"authorization": "Bearer ann-demo-token"}

needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


class Server:
    """``python example_app.py`` as users start it, on a port and a SQLite file of its own."""

    def __init__(self, directory: Path, app: Path = EXAMPLE) -> None:
        self.app = app
        self.directory = directory
        self.database = directory / "demo.db"
        self.log = directory / "server.log"
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {name: value for name, value in os.environ.items() if name != "SECRET_KEY"}
        env |= {"PORT": str(self.port), "DATABASE_URL": f"sqlite:///{self.database}"}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, str(self.app)],
                cwd=self.directory,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        deadline = time.monotonic() + PATIENCE
        while True:
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
            except OSError:
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """As a supervisor does: SIGTERM, then wait."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(PATIENCE) in (0, -signal.SIGTERM), self.log.read_text()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        if self._process is not None and self.running:
            self._process.kill()
            self._process.wait()

    def forget(self) -> None:
        """Have nobody's session."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
            for (table,) in connection.execute(tables).fetchall():
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 -- ours

    def rows(self, columns: str, where: str = "1", *values: str) -> list[tuple[Any, ...]]:
        """What is in the file, read without the package."""
        with closing(sqlite3.connect(self.database)) as connection:
            query = f"SELECT {columns} FROM sessions WHERE {where} ORDER BY id"  # noqa: S608 -- ours
            return connection.execute(query, values).fetchall()


class Device(httpx.Client):
    """A browser: its own name, its own cookie jar."""

    def __init__(self, server: Server, agent: str) -> None:
        super().__init__(
            base_url=server.url,
            headers={"user-agent": agent},
            trust_env=False,  # no proxy stands between
            timeout=PATIENCE,
        )

    def log_in(self, name: str = "ann") -> str:
        """Log in with the form; the sid."""
        form = {"name": name, "password": PASSWORDS[name], "remember": "1"}
        response = self.post("/login", data=form, follow_redirects=True)
        assert response.status_code == 200
        assert f"Hello, {name.capitalize()}" in response.text
        return self.sid()

    def me(self, **headers: str) -> dict[str, Any]:
        """What the app sees of this device."""
        response = self.get("/api/me", headers=headers)
        answer: dict[str, Any] = response.json()
        assert response.status_code == (200 if answer["sid"] else 401)
        return answer

    def sid(self) -> str:
        sid = self.me()["sid"]
        assert isinstance(sid, str)
        return sid

    def reason(self, **headers: str) -> str | None:
        """Why this device is out."""
        answer = self.me(**headers)
        assert (answer["person"], answer["sid"]) == (None, None)
        reason: str | None = answer["reason"]
        return reason


def others(listed: str) -> list[str]:
    """The sids of the other sessions that a person has, of the list as JSON."""
    return [one["sid"] for one in json.loads(listed)["sessions"] if not one["current"]]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests: to start it takes as long as each of them."""
    server = Server(tmp_path_factory.mktemp("example"))
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.kill()
    assert "Traceback" not in server.log.read_text()


@pytest.fixture
def server(shared: Server) -> Server:
    """As if nobody had been there, and running, whatever the test before has left."""
    if not shared.running:
        shared.start()
    shared.forget()
    return shared


def test_from_two_logins_to_a_logout_and_nothing_brings_a_session_back(server: Server) -> None:
    with Device(server, "desk") as desk, Device(server, "phone") as phone:
        # Log in on two devices; each sees its own sid, unchanged over requests ...
        desk_sid, phone_sid = desk.log_in(), phone.log_in()
        assert desk_sid != phone_sid
        for _ in range(3):
            assert (desk.sid(), phone.sid()) == (desk_sid, phone_sid)

        # ... and over a restart of the server.
        server.stop()
        server.start()
        assert (desk.sid(), phone.sid()) == (desk_sid, phone_sid)

        # List; end the second from the first.
        assert f"This session: <code>{desk_sid}</code>" in desk.get("/").text
        page = desk.get("/sessions/", headers={"accept": "text/html"}).text
        assert page.count("this device") == 1
        assert re.findall(r'action="./([0-9a-f-]{36})/end"', page) == [desk_sid, phone_sid]
        assert others(desk.get("/sessions/").text) == [phone_sid]
        phone_cookie = {"cookie": f"sid={phone.cookies['sid']}"}
        assert desk.delete(f"/sessions/{phone_sid}").status_code == 204

        # The second's next request is out, and its replayed cookie stays out.
        assert phone.reason() == "revoked"
        with Device(server, "phone") as thief:
            assert thief.reason(**phone_cookie) == "revoked"
            server.stop()
            server.start()
            assert thief.reason(**phone_cookie) == "revoked"
            assert phone.log_in() != phone_sid
            assert thief.reason(**phone_cookie) == "revoked"
        assert desk.sid() == desk_sid

        # Log out.
        desk_cookie = {"cookie": f"sid={desk.cookies['sid']}"}
        response = desk.post("/logout", follow_redirects=True)
        assert response.status_code == 200
        assert "Hello" not in response.text
        assert "sid" not in desk.cookies
        assert desk.reason() is None
        assert desk.reason(**desk_cookie) == "logout"

        # The row says so.
        ((started, ended, reason),) = server.rows(
            "started_at, ended_at, end_reason", "id = ?", desk_sid
        )
        assert reason == "logout"
        assert ended > started
        assert server.rows("end_reason", "id = ?", phone_sid) == [("revoked",)]


def test_logging_in_as_somebody_else_ends_the_session_before(server: Server) -> None:
    with Device(server, "desk") as desk:
        first = desk.log_in("ann")
        second = desk.log_in("ben")
        assert desk.me()["person"] == "ben"
        assert server.rows("id, person_id, end_reason") == [
            (first, "ann", "replaced"),
            (second, "ben", None),
        ]


def test_ending_all_others_leaves_one_device(server: Server) -> None:
    with ExitStack() as stack:
        here, *rest = (stack.enter_context(Device(server, f"device {n}")) for n in range(5))
        sid = here.log_in()
        for device in rest:
            device.log_in()
        assert len(others(here.get("/sessions/").text)) == 4
        assert here.post("/sessions/end-others").json() == {"ended": 4}
        assert here.sid() == sid
        assert others(here.get("/sessions/").text) == []
        assert [device.reason() for device in rest] == ["revoked"] * 4


def test_a_client_without_cookies_has_one_session_and_stays_out_once_it_is_revoked(
    server: Server,
) -> None:
    def ask(_: int = 0) -> httpx.Response:
        with Device(server, "script") as client:  # a new one: no cookie, no open connection
            return client.get("/api/me", headers=ANN)

    # Parallel first requests make one row; so do all that follow, over a restart.
    with ThreadPoolExecutor(10) as pool:
        answers = [response.json() for response in pool.map(ask, range(20))]
    server.stop()
    server.start()
    answers.append(ask().json())
    ((sid,),) = server.rows("id")
    assert answers == [{"person": "ann", "sid": sid, "origin": "scope", "reason": None}] * 21

    with Device(server, "desk") as desk:
        desk.log_in()
        assert others(desk.get("/sessions/").text) == [sid]
        desk.post(f"/sessions/{sid}/end")
        # The token is as good as before.
        for restart in (False, True):
            if restart:
                server.stop()
                server.start()
            response = ask()
            assert response.status_code == 401
            assert response.json()["reason"] == "revoked"
        assert server.rows("id", "origin = 'scope'") == [(sid,)]


def test_no_secret_reaches_the_file_or_the_log(server: Server) -> None:
    with Device(server, "desk") as desk:
        desk.log_in()
        cookie = desk.cookies["sid"]
        desk.post("/logout")
    server.stop()
    left = {path.name: path.read_bytes() for path in server.directory.iterdir() if path.is_file()}
    key = left.pop(".demo-secret")
    assert {"demo.db", "server.log"} <= left.keys()
    sid, secret, signature = cookie.split(".")
    for content in left.values():
        assert sid.encode() in content
        for hidden in (secret, signature):
            assert hidden.encode() not in content
        assert key not in content


@needs_curl
def test_curl_does_the_main_job_too(server: Server) -> None:
    def curl(*arguments: str, jar: str, agent: str = "curl") -> str:
        path = str(server.directory / f"{jar}.jar")
        command = ["curl", "-sS", "--noproxy", "*", "--max-time", str(PATIENCE), "-A", agent]
        command += ["-b", path, "-c", path, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        return done.stdout

    def sid(jar: str) -> str:
        match = re.search(r'"sid":"([0-9a-f-]{36})"', curl(f"{server.url}/api/me", jar=jar))
        assert match is not None
        return match[1]

    form = ("-d", "name=ann", "-d", "password=apple-tree", "-L", f"{server.url}/login")
    assert "Hello, Ann" in curl(*form, jar="desk", agent="desk")
    assert "Hello, Ann" in curl(*form, jar="phone", agent="phone")
    desk, phone = sid("desk"), sid("phone")
    assert (sid("desk"), sid("phone")) == (desk, phone)
    assert others(curl(f"{server.url}/sessions/", jar="desk")) == [phone]

    shutil.copy(server.directory / "phone.jar", server.directory / "stolen.jar")
    curl("-X", "POST", f"{server.url}/sessions/{phone}/end", jar="desk")
    out = '{"person":null,"sid":null,"origin":null,"reason":"revoked"}'
    for jar in ("phone", "stolen"):
        assert curl(f"{server.url}/api/me", jar=jar) == out

    curl("-X", "POST", f"{server.url}/logout", jar="desk")
    assert '"sid":null' in curl(f"{server.url}/api/me", jar="desk")
    assert "\tsid\t" not in (server.directory / "desk.jar").read_text()
    ((ended, reason),) = server.rows("ended_at, end_reason", "id = ?", desk)
    assert ended is not None
    assert reason == "logout"


@needs_curl
def test_the_lines_that_the_example_prints_work(server: Server) -> None:
    def run(line: str) -> str:
        command = [*shlex.split(line), "-sS", "--noproxy", "*", "--max-time", str(PATIENCE)]
        done = subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=server.directory
        )
        return done.stdout

    lines = re.findall(r"^  (curl .+)$", server.log.read_text(), re.MULTILINE)
    login, see, logout, token, other_device = lines[-5:]  # of its last start
    run(login)
    assert '"person":"ann"' in run(see)
    run(logout)
    assert '"person":null' in run(see)
    first = run(token)
    assert '"origin":"scope"' in first
    assert run(token) == first
    assert run(other_device) != first
