"""Load on an app in several processes, every answer of which is checked against the model."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

from asgi_sessions import Session, Sessions
from tests.cluster.app import CAP
from tests.cluster.model import Model, Told
from tests.servers.process import LOOPBACK, ServerError, wait_until
from tests.support import KEY
from tests.support.repository import ROOT

COOKIE = "__Host-sid"
#: Nobody waits longer for an answer: the app's own timeout is 5 s, and a retry may be under way.
PATIENCE = 20.0
#: Seconds that a client waits between an answer and its next request, on average.
THINKING = 0.02


@dataclass
class Answer:
    """What a browser gets; the times of the question and of the answer."""

    status: int
    cookie: str | None
    body: Any
    asked: float
    now: float


class Connection:
    """HTTP/1.1 over one connection that stays open, a request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def request(self, method: str, path: str, cookie: str | None = None) -> Answer:
        """Ask, and wait for the answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(LOOPBACK, self._port)
        reader, writer = self._streams
        lines = [f"{method} {path} HTTP/1.1", "host: app", "user-agent: browser"]
        if cookie is not None:
            lines.append(f"cookie: {COOKIE}={cookie}")
        asked = time.monotonic()
        writer.write("\r\n".join([*lines, "", ""]).encode())
        async with asyncio.timeout(PATIENCE):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = [line.partition(": ")[::2] for line in head[1:-2]]
            headers = [(name.lower(), value) for name, value in headers]
            fields = dict(headers)
            if fields.get("transfer-encoding") == "chunked":  # a 503, whose words do not matter
                body = await reader.readuntil(b"\r\n0\r\n\r\n")
            else:
                body = await reader.readexactly(int(fields["content-length"]))
        now = time.monotonic()
        cookies = [value for name, value in headers if name == "set-cookie"]
        status = int(head[0].split()[1])
        if len(cookies) > 1 or (status == 503 and (cookies or "retry-after" not in fields)):
            raise AssertionError(f"{method} {path}: {head}")
        return Answer(
            status,
            cookies[0].partition("=")[2].partition(";")[0] if cookies else None,
            json.loads(body) if fields["content-type"] == "application/json" else body.decode(),
            asked,
            now,
        )

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


class App:
    """Processes of the app, each with its own URL of the database, and the `options` of app.py."""

    def __init__(self, urls: Sequence[str], table: str, directory: Path, *options: float) -> None:
        self._urls = urls
        self._options = [str(option) for option in options]
        self._table = table
        self._directory = directory
        self._processes: list[asyncio.subprocess.Process] = []
        self.ports: list[int] = []

    async def __aenter__(self) -> Self:
        try:
            for number, url in enumerate(self._urls):
                with (self._directory / f"app-{number}.log").open("wb") as log:
                    process = await asyncio.create_subprocess_exec(
                        *(
                            sys.executable,
                            "-m",
                            "tests.cluster.app",
                            url,
                            self._table,
                            *self._options,
                        ),
                        cwd=ROOT,
                        stdout=asyncio.subprocess.PIPE,
                        stderr=log,
                    )
                self._processes.append(process)
            for process in self._processes:
                assert process.stdout is not None
                line = await process.stdout.readline()
                if not line:
                    raise ServerError(  # noqa: TRY301 -- what has started is ended below
                        f"the app did not start: see {self._directory}"
                    )
                self.ports.append(int(line))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in self._processes:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
        for process in self._processes:
            await process.wait()


@dataclass
class Report:
    """What happened, in figures."""

    requests: Counter[str] = field(default_factory=Counter)
    #: Answers that were not 503, and how many were.
    answered: int = 0
    unavailable: int = 0
    #: The longest that anybody has waited, and that nobody was answered but by 503.
    slowest: float = 0
    longest_gap: float = 0
    #: What was done to the servers.
    struck: Counter[str] = field(default_factory=Counter)
    _last: float = field(default_factory=time.monotonic)

    def note(self, kind: str, answer: Answer) -> None:
        """Count an answer."""
        self.requests[kind] += 1
        self.slowest = max(self.slowest, answer.now - answer.asked)
        if answer.status == 503:
            self.unavailable += 1
        else:
            self.answered += 1
            self.longest_gap = max(self.longest_gap, answer.now - self._last)
            self._last = answer.now

    def lines(self, model: Model) -> list[str]:
        """For people."""
        return [
            f"{self.requests.total()} requests: {_counted(self.requests)}",
            f"{len(model.told)} sessions; done to the servers: {_counted(self.struck)}",
            (
                f"{self.unavailable} answers 503, the slowest answer after {self.slowest:.1f} s, "
                f"no other answer for {self.longest_gap:.1f} s at most"
            ),
            (
                f"sessions lost: {len(model.lost)}, false logouts: {model.false_logouts}, "
                f"ended sessions alive: {len(model.revived)}, wrong in all: {len(model.faults)}"
            ),
        ]


def _counted(counter: Counter[str]) -> str:
    return ", ".join(f"{number} {kind}" for kind, number in counter.most_common())


class Person:
    """Somebody with an id, until a doubt hangs over it: then they take another.

    An end of all sessions that was not answered (503) may still be carried out, and hit a later
    login of the same person. So later logins are another person's, and certain again.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._number = 0

    @property
    def id(self) -> str:
        """Who they are now."""
        return f"{self._name}.{self._number}"

    def change(self, doubtful: str) -> None:
        """Become somebody else, unless that has been done."""
        if doubtful == self.id:
            self._number += 1


class Client(Protocol):
    """Somebody with connections to the processes of the app."""

    async def step(self) -> None:
        """Do something."""

    def close(self) -> None:
        """Hang up."""


class Load:
    """Browsers and administrators, at work until told to stop."""

    def __init__(
        self,
        ports: Sequence[int],
        *,
        seed: int,
        people: int = 12,
        crowds: int = 2,
        administrators: int = 2,
        thinking: float = THINKING,
        keep: float | None = None,
    ) -> None:
        self._ports = ports
        self._thinking = thinking
        self._administrators = administrators
        self.purges = keep is not None
        self._random = random.Random(seed)  # noqa: S311 -- no secret
        # A second less: the clocks of processes are read at different moments.
        self.model = Model(CAP) if keep is None else Model(CAP, keep - 1)
        self.report = Report()
        self._people = [Person(f"person-{number}") for number in range(people)]
        self._crowds = [Person(f"crowd-{number}") for number in range(crowds)]
        self._stopping = False
        self.browsers: list[Browser] = []
        #: What the app has logged, if something was wrong.
        self.log = ""

    async def ask(
        self,
        connections: Sequence[Connection],
        kind: str,
        method: str,
        path: str,
        cookie: str | None = None,
    ) -> Answer:
        """A request to one of the processes."""
        connection = self._random.choice(connections)
        answer = await connection.request(method, path, cookie)
        self.report.note(kind, answer)
        if answer.status not in {200, 503}:
            self.model.wrong(f"{method} {path}: {answer}")
        return answer

    def connect(self) -> list[Connection]:
        """A connection to each process."""
        return [Connection(port) for port in self._ports]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """At work meanwhile."""
        for person in self._people:
            self.browsers += [Browser(self, person) for _ in range(2)]
        for crowd in self._crowds:  # more than a person may have sessions
            self.browsers += [Browser(self, crowd) for _ in range(CAP + 2)]
        everybody = self._people + self._crowds
        administrators = [Administrator(self, everybody) for _ in range(self._administrators)]
        clients: list[Client] = [*self.browsers, *administrators]
        try:
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(self._work(client))
                yield
                self._stopping = True
            for browser in self.browsers:
                await browser.see_all()
        finally:
            for client in clients:
                client.close()

    async def _work(self, client: Client) -> None:
        while not self._stopping:
            await client.step()
            await asyncio.sleep(self._random.uniform(0, 2 * self._thinking))

    async def progress(self, answers: int = 300, *, within: float = 60) -> None:
        """Return when so many more requests have been answered, and not by 503."""
        enough = self.report.answered + answers

        async def made() -> bool:
            return self.report.answered >= enough

        await wait_until(made, f"{answers} answers", timeout=within)

    async def refusals(self) -> None:
        """Return when somebody else has been answered 503."""
        before = self.report.unavailable

        async def refused() -> bool:
            return self.report.unavailable > before

        await wait_until(refused, "an answer 503", timeout=60)

    async def check_rows(self, urls: Sequence[str], table: str) -> None:
        """When all is over: what the servers have, compared with what was told."""
        model = self.model
        first: dict[str, Session | None] = {}
        for url in urls:
            async with Sessions(url, secret_key=KEY, table_name=table) as sessions:
                found = await asyncio.gather(*map(sessions.get_by_id, model.told))
                rows = dict(zip(model.told, found, strict=True))
                for sid, row in rows.items():
                    reason = None if row is None else row.end_reason
                    model.saw_row(
                        model.told[sid], reason, there=row is not None, now=time.monotonic()
                    )
                if first and rows != first:
                    model.wrong(f"{url} has other rows than {urls[0]}")
                first = rows
                for person in model.people:
                    live = await sessions.list_sessions(person)
                    model.saw_end([session.sid for session in live], person)

    def choose(self, weights: dict[Callable[[], Awaitable[None]], float]) -> Awaitable[None]:
        """One of them."""
        (step,) = self._random.choices(list(weights), list(weights.values()))
        return step()

    def pick(self, things: Sequence[Any]) -> Any:
        """Any of them."""
        return self._random.choice(things)


class Browser:
    """A client with a cookie, which knows what it has been told."""

    def __init__(self, load: Load, person: Person) -> None:
        self._load = load
        self._model = load.model
        self._person = person
        self._connections = load.connect()
        self.cookie: str | None = None
        self.told: Told | None = None
        #: Cookies of sessions that have ended.
        self._old: list[tuple[Told, str]] = []

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.close()

    async def step(self) -> None:
        """Do something."""
        if self.told is None:
            await self._load.choose({self._login: 4, self._replay: 1})
        elif "logout" in self.told.may:  # asked for, and not answered
            await self._logout()
        else:
            await self._load.choose(
                {
                    self.see: 80,
                    self._see_twice: 5,
                    self._renew: 4,
                    self._logout: 6,
                    self._login: 1,
                }
            )

    async def see_all(self) -> None:
        """When all is over: its session, and what it remembers of others."""
        if self.told is not None:
            await self.see()
        for told, cookie in self._old:
            self._check(told, await self._ask("replay", "GET", "/", cookie))

    async def _ask(self, kind: str, method: str, path: str, cookie: str | None) -> Answer:
        return await self._load.ask(self._connections, kind, method, path, cookie)

    async def _login(self) -> None:
        person, before = self._person.id, self.told
        self._model.asks_login(person, time.monotonic())
        if before is not None:
            before.may_end("replaced", time.monotonic())
        answer = await self._ask("login", "POST", f"/login?person={person}", self.cookie)
        if answer.status == 503:
            self._person.change(person)
            return
        sid = answer.body["sid"]
        if before is not None:
            before.must_be_over(answer.now)
        self._forget()
        if answer.cookie is not None:
            self.told = self._model.login_answered(sid, person, answer.asked, answer.now)
            self.cookie = answer.cookie
        elif not self._model.may_be_undelivered(person, answer.asked):
            self._model.wrong(f"a login as {person} got no cookie")

    async def see(self) -> None:
        """A request with the cookie."""
        told, cookie = self.told, self.cookie
        assert told is not None
        answer = await self._ask("resume", "GET", "/", cookie)
        self._check(told, answer)
        if answer.cookie is not None:
            self._model.wrong(f"{told} got a cookie by a mere request")

    async def _see_twice(self) -> None:
        told, cookie = self.told, self.cookie
        assert told is not None
        both = await asyncio.gather(
            *(connection.request("GET", "/", cookie) for connection in self._connections[:2])
        )
        for answer in both:
            self._load.report.note("resume", answer)
            self._check(told, answer)

    def _check(self, told: Told, answer: Answer) -> None:
        """Compare with what is known; a session that has ended is forgotten."""
        if answer.status != 200:
            return
        sid, reason = answer.body["sid"], answer.body["reason"]
        if sid not in {None, told.sid}:
            self._model.wrong(f"{told} was taken for {sid}")
        live = sid is not None
        self._model.saw(told, live=live, reason=reason, asked=answer.asked, now=answer.now)
        if not live and told is self.told:
            self._forget()

    def _forget(self) -> None:
        if self.told is not None and self.cookie is not None:
            self._old = [*self._old[-9:], (self.told, self.cookie)]
        self.told = self.cookie = None

    async def _replay(self) -> None:
        """A cookie of the past."""
        if self._old:
            told, cookie = self._load.pick(self._old)
            self._check(told, await self._ask("replay", "GET", "/", cookie))

    async def _renew(self) -> None:
        told = self.told
        assert told is not None
        answer = await self._ask("renew", "POST", "/renew", self.cookie)
        if answer.status == 200 and answer.body == {"sid": None, "reason": None}:
            # It was live when the request came, so that no reason was looked for.
            answer.body["reason"] = next(iter(told.may), None)
        self._check(told, answer)
        if answer.cookie is not None and self.told is told:
            self.cookie = answer.cookie

    async def _logout(self) -> None:
        told = self.told
        assert told is not None
        told.may_end("logout", time.monotonic())
        answer = await self._ask("logout", "POST", "/logout", self.cookie)
        if answer.status == 200:
            told.must_be_over(answer.now)
            self._forget()


class Administrator:
    """Ends other people's sessions, and looks at their lists."""

    def __init__(self, load: Load, people: Sequence[Person]) -> None:
        self._load = load
        self._model = load.model
        self._people = people
        self._connections = load.connect()

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.close()

    async def step(self) -> None:
        """Do something."""
        steps: dict[Callable[[], Awaitable[None]], float] = {
            self._revoke: 4,
            self._revoke_all: 1,
            self._list: 5,
        }
        if self._load.purges:
            steps[self._purge] = 0.1
        await self._load.choose(steps)

    async def _purge(self) -> None:
        await self._ask("purge", "POST", "/purge")

    async def _ask(self, kind: str, method: str, path: str) -> Answer:
        return await self._load.ask(self._connections, kind, method, path)

    async def _revoke(self) -> None:
        known = [browser.told for browser in self._load.browsers if browser.told is not None]
        if not known:
            await asyncio.sleep(0.01)
            return
        told = self._load.pick(known)
        told.may_end("revoked", time.monotonic())
        answer = await self._ask("revoke", "POST", f"/revoke?sid={told.sid}")
        if answer.status == 200:
            reason = answer.body["reason"]
            self._model.saw(told, live=False, reason=reason, asked=answer.asked, now=answer.now)

    async def _revoke_all(self) -> None:
        person = self._load.pick(self._people)
        who = person.id
        mine, doubt = self._model.asks_end_of_all(who, "revoked", time.monotonic())
        answer = await self._ask("revoke all", "POST", f"/revoke_all?person={who}")
        if answer.status == 200:
            self._model.end_of_all_answered(mine, doubt, answer.now)
        else:
            person.change(who)

    async def _list(self) -> None:
        person = self._load.pick(self._people).id
        answer = await self._ask("list", "GET", f"/list?person={person}")
        if answer.status == 200:
            self._model.saw_list(person, answer.body, asked=answer.asked, now=answer.now)
