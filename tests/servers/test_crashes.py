"""Crashes: what a client has been told is true after SIGKILL at any moment, and SIGTERM loses
nothing that waits to be written.

TEST_CRASH_KILLS is the number of kills on each database (by default so many that four of them or
more make over a hundred), TEST_CRASH_SEED chooses their moments and what the clients do.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from asgi_sessions import AAL1
from tests.conftest import URLS, MakeSessions
from tests.servers.process import LOOPBACK, descendants, free_port, is_running, wait_until
from tests.support import set_cookies
from tests.support.engines import Onlooker
from tests.support.repository import ROOT

KILLS = int(os.environ.get("TEST_CRASH_KILLS", 1 + 104 // max(len(URLS), 4)))
SEED = os.environ.get("TEST_CRASH_SEED", "1")
#: Of so many kills one takes the supervisor and both workers at once.
ALL_AT_ONCE = 9
CLIENTS = 12
#: Nothing takes longer, whatever the machine does beside.
PATIENCE = 60
#: The grace period of uvicorn, in seconds.
GRACE = 5
AGENT = "Firefox"
#: Of no use to plain http; made once, as reading the authorities' certificates takes 20 ms of a
#: processor, and there are hundreds of clients.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
#: Seconds until somebody who got no answer asks again: without a pause, the clients would keep the
#: processors from the workers that start.
PAUSE = 0.02


async def until(condition: Callable[[], bool], what: str) -> None:
    async def holds() -> bool:
        return condition()

    await wait_until(holds, what, timeout=PATIENCE)


class Site:
    """uvicorn with two workers on a loopback port."""

    def __init__(self, url: str, table: str, directory: Path) -> None:
        self.port = free_port()
        self.url = f"http://{LOOPBACK}:{self.port}"
        self.log = directory / "uvicorn.log"
        #: Workers that have given answers and have not been killed.
        self.serving: set[int] = set()
        self._killed: set[int] = set()
        self._environment = {
            **os.environ,
            "CRASH_DATABASE_URL": str(url),
            "CRASH_TABLE_NAME": table,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    async def start(self, *, grace: int = GRACE) -> None:
        """Start it; return when it answers."""
        setpriv = shutil.which("setpriv")  # so that it ends with us, however we end
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *([setpriv, "--pdeathsig=TERM", "--"] if setpriv else []),
                    *(
                        sys.executable,
                        "-m",
                        "uvicorn",
                        "tests.servers.crash_app:app",
                        "--workers=2",
                    ),
                    *(f"--host={LOOPBACK}", f"--port={self.port}", "--no-access-log"),
                    f"--timeout-graceful-shutdown={grace}",
                ],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # so that all of it can be killed at once
            )
        async with self.client() as client, asyncio.timeout(PATIENCE):
            while True:
                assert self.process.poll() is None, self.log.read_text()
                try:
                    response = await client.get("/")
                except httpx.TransportError:
                    await asyncio.sleep(0.02)
                else:
                    assert response.status_code == 200
                    self.heard(response)
                    return

    def client(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"user-agent": AGENT},
            timeout=PATIENCE,
            trust_env=False,  # no proxy stands between
            verify=NO_TLS,
        )

    def heard(self, response: httpx.Response) -> None:
        pid = int(response.headers["x-pid"])
        if pid not in self._killed:
            self.serving.add(pid)

    def kill(self, pid: int) -> None:
        """SIGKILL for one worker; the supervisor starts another."""
        self.serving.discard(pid)
        self._killed.add(pid)
        os.kill(pid, signal.SIGKILL)

    async def kill_all(self) -> None:
        """SIGKILL for the supervisor and the workers, in one moment."""
        if self._process is None or self._process.poll() is not None:
            return
        pids = [self.process.pid, *descendants(self.process.pid)]
        self._killed |= self.serving
        self.serving.clear()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        await until(lambda: not any(is_running(pid) for pid in pids), "all of it has ended")

    async def told(self, line: str, times: int) -> None:
        """Wait until the log has this line so often."""
        await until(lambda: self.log.read_text().count(line) >= times, f"the log has {line!r}")


@pytest.fixture
async def site(
    make_sessions: MakeSessions, database_url: str, table_name: str, tmp_path: Path
) -> AsyncIterator[Site]:
    sessions = await make_sessions()  # makes the table, and drops it in the end
    await sessions.disconnect()
    site = Site(database_url, table_name, tmp_path)
    yield site
    await site.kill_all()


# --- the storm ------------------------------------------------------------------------------------


@dataclass
class Held:
    """A session whose cookie has reached the client.

    Attributes:
        cookie: the newest one that did.
        ends: what may stand in `end_reason`, as far as the client knows.
        checked: whether it was shown after the last start of the site.
    """

    cookie: str
    ends: tuple[str | None, ...] = (None,)
    checked: bool = False


class Client:
    """Somebody who logs in, looks around, renews and logs out, and remembers what was answered."""

    def __init__(self, site: Site, number: int, counts: Counter[str]) -> None:
        self.person = f"person-{number}"
        self.held: dict[str, Held] = {}
        #: Logins that were never answered: each may have left a row.
        self.unanswered = 0
        self._site = site
        self._http = site.client()
        self._counts = counts
        self._chance = random.Random(f"{SEED} {number}")  # noqa: S311 -- no secret
        self._sid: str | None = None

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(self, method: str, path: str) -> httpx.Response | None:
        """The answer as far as it came; None if no word of it did."""
        response = None
        try:
            async with self._http.stream(method, path) as response:
                self._site.heard(response)
                await response.aread()
        except httpx.TransportError:
            pass  # what stands in the headers holds, even if the rest never came
        if response is None:
            self._counts["requests without an answer"] += 1
            await asyncio.sleep(PAUSE)
            return None
        if response.status_code == 503:
            assert response.headers["retry-after"]
            assert set_cookies(response, "sid") == []
            self._counts["requests refused"] += 1
            return None
        assert response.status_code == 200
        return response

    async def step(self) -> None:
        """Do something."""
        if self._sid is None:
            await self._log_in()
            return
        held = self.held[self._sid]
        if held.ends != (None,):
            await self._find_out(self._sid)
            return
        (action,) = self._chance.choices(
            (self._look, self._renew, self._log_out, self._leave, self._log_in),
            (8, 2, 3, 3, 1),
        )
        await action()

    def _cookie(self, response: httpx.Response) -> str:
        """The cookie that has been set."""
        (line,) = set_cookies(response, "sid")
        cookie = line.partition("=")[2].partition(";")[0]
        assert self._http.cookies["sid"] == cookie
        return cookie

    async def _log_in(self) -> None:
        before = None if self._sid is None else self.held[self._sid]
        response = await self._ask("POST", f"/login?person={self.person}")
        if response is None:
            self.unanswered += 1
            if before is not None:
                before.ends = (None, "replaced")
            return
        if before is not None:
            before.ends = ("replaced",)
        cookie = self._cookie(response)
        self._sid = cookie.partition(".")[0]
        self.held[self._sid] = Held(cookie)
        self._counts["logins"] += 1

    async def _look(self) -> None:
        response = await self._ask("GET", "/")
        if response is not None:
            assert set_cookies(response, "sid") == []
            assert seen(response) in {self._sid, UNKNOWN}

    async def _renew(self) -> None:
        assert self._sid is not None
        response = await self._ask("POST", "/renew")
        # One after a renewal that was not answered is the second click, which gives no cookie.
        if response is not None and set_cookies(response, "sid"):
            self.held[self._sid].cookie = self._cookie(response)
            self._counts["renewals"] += 1

    async def _log_out(self) -> None:
        assert self._sid is not None
        response = await self._ask("POST", "/logout")
        if response is None:
            self.held[self._sid].ends = (None, "logout")
            return
        assert "sid" not in self._http.cookies
        self.held[self._sid].ends = ("logout",)
        self._counts["logouts"] += 1
        self._sid = None

    async def _leave(self) -> None:
        """Go to another browser: the session lives on."""
        self._http.cookies.clear()
        self._sid = None

    async def _find_out(self, sid: str) -> None:
        """Has been done what was not answered?"""
        response = await self._ask("GET", "/")
        if response is None or seen(response) is UNKNOWN:
            return
        held = self.held[sid]
        if seen(response) == sid:
            held.ends = (None,)
        else:
            assert seen(response) is None
            held.ends = held.ends[1:]
            await self._leave()

    async def show_cookies(self) -> None:
        """Show all cookies that have not been shown since the site was started."""
        for sid, held in self.held.items():
            if held.checked:
                continue
            held.checked = True
            headers = {"cookie": f"sid={held.cookie}"}
            async with self._site.client() as http:
                response = await http.get("/", headers=headers)
            self._site.heard(response)
            assert response.status_code == 200
            if len(held.ends) == 1:
                assert response.json()["sid"] == (sid if held.ends == (None,) else None)
            self._counts["cookies shown"] += 1


#: The part of the answer that tells did not come.
UNKNOWN = "unknown"


def seen(response: httpx.Response) -> str | None:
    """The sid that the app has seen."""
    try:
        sid: str | None = response.json()["sid"]
    except httpx.ResponseNotRead:
        return UNKNOWN
    return sid


async def strike(site: Site, kills: int, counts: Counter[str]) -> None:
    """Kill one worker after the other at random moments, and now and then everything."""
    chance = random.Random(SEED)  # noqa: S311 -- no secret
    for number in range(1, kills + 1):
        await until(lambda: bool(site.serving), "somebody serves")
        await asyncio.sleep(chance.uniform(0, 0.4))  # any moment is as good as another
        if number % ALL_AT_ONCE == 0:
            await site.kill_all()
            await site.start()
        else:
            site.kill(chance.choice(sorted(site.serving)))
        counts["kills"] += 1


async def go_on(client: Client, over: asyncio.Event) -> None:
    while not over.is_set():
        await client.step()


async def test_what_was_answered_holds_whoever_is_killed(
    site: Site, make_sessions: MakeSessions, capsys: pytest.CaptureFixture[str]
) -> None:
    counts: Counter[str] = Counter()
    clients = [Client(site, number, counts) for number in range(CLIENTS)]
    await site.start()
    over = asyncio.Event()
    async with asyncio.TaskGroup() as storm:
        for client in clients:
            storm.create_task(go_on(client, over))
        await strike(site, KILLS, counts)
        over.set()
    await asyncio.gather(*(client.show_cookies() for client in clients))
    sessions = await make_sessions()
    for client in clients:
        await client.close()
        rows = {
            row.id: row
            for row in await sessions.list_sessions(client.person, include_ended=True, limit=10_000)
        }
        assert client.held.keys() <= rows.keys(), "a session was lost"
        assert len(rows) <= len(client.held) + client.unanswered
        for row in rows.values():
            assert (row.ended_at is None) is (row.end_reason is None)
            assert row.user_agent == AGENT
            assert row.ip_address == LOOPBACK
            assert row.origin == "login"
            assert row.expires_at == row.started_at + AAL1.absolute
            assert row.started_at <= row.last_seen_at
            if row.id in client.held:
                assert row.end_reason in client.held[row.id].ends
    assert counts["kills"] == KILLS
    assert counts["logouts"]
    with capsys.disabled():
        print(f"\n{dict(counts)}, sessions lost: 0, false logouts: 0")  # noqa: T201 -- a figure


async def test_a_touch_that_waits_when_the_server_is_told_to_end_is_written(
    site: Site, make_sessions: MakeSessions, database_url: str, table_name: str
) -> None:
    sessions = await make_sessions()
    with closing(Onlooker(database_url, table_name)) as others:
        await site.start()
        async with site.client() as client:
            sid = (await client.post("/login?person=ann")).json()["sid"]
            asked = datetime.now(UTC)  # noqa: TID251 -- the server has the system's clock
            with others.shut() as until_waiting:
                assert (await client.get("/")).json()["sid"] == sid
                await asyncio.to_thread(until_waiting, 1)
                site.process.send_signal(signal.SIGTERM)
                await site.told("Waiting for", 1)
        assert await asyncio.to_thread(site.process.wait, PATIENCE) == 0
    row = await sessions.get_by_id(sid)
    assert row is not None
    assert row.last_seen_at >= asked
    assert row.ended_at is None
