"""A process of its own for the races. It obeys commands, a JSON object a line.

Each command names itself by ``id``, and is answered by an object with that id; commands run side
by side. A gate stops the process in front of a statement: that is told by ``{"at": statement}``.

Statements are stopped in the private driver, and connections are counted where they are held.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import Incident, SessionEvent, Sessions, SessionsError
from asgi_sessions._database.drivers.base import Driver
from asgi_sessions.dbsc import DBSC
from tests.support import KEY, Browser, Clock, make_app, set_cookies, vouched
from tests.support.acting import acting_routes
from tests.support.data import data_of
from tests.support.devices import BOUND, challenged, offered
from tests.support.engines import app_engine
from tests.support.inside import driver_of
from tests.support.rows import table_of

Tell = Callable[[Mapping[str, Any]], None]
Run = Callable[[Any, str, Sequence[Any]], Awaitable[Any]]

WHO_AM_I = {"postgresql": "SELECT pg_backend_pid()", "mysql": "SELECT CONNECTION_ID()"}


class Gate:
    """Stops the next statement that holds a word, in front of it or behind it or both. Those of
    the table of cut-offs pass, unless the word names that.
    """

    def __init__(self, driver: Driver, tell: Tell) -> None:
        self._tell = tell
        self._word: str | None = None
        self._before = self._behind = False
        self._passes = asyncio.Semaphore(0)
        for name in ("fetch", "execute", "run"):
            setattr(driver, name, self._guarded(getattr(driver, name)))

    def shut(self, word: str, *, before: bool, behind: bool) -> None:
        self._word, self._before, self._behind = word, before, behind

    def let_go(self) -> None:
        self._passes.release()

    def _guarded(self, run: Run) -> Run:
        async def guarded(raw: object, sql: str, params: Sequence[Any]) -> object:
            word, beside = self._word, "_cutoffs"
            if word is None or word not in sql or (beside in sql and beside not in word):
                return await run(raw, sql, params)
            self._word = None
            if self._before:
                await self._stop(sql)
            answer = await run(raw, sql, params)
            if self._behind:
                await self._stop(sql)
            return answer

        return guarded

    async def _stop(self, sql: str) -> None:
        self._tell({"at": sql})
        await self._passes.acquire()


class Worker:
    """The commands are the methods whose names have no underscore in front."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._sessions: Sessions | None = None

    async def _obey(self, command: dict[str, Any]) -> None:
        number = command.pop("id")
        try:
            answer = {"answer": await getattr(self, command.pop("do"))(**command)}
        except SessionsError as fault:
            answer = {"fault": f"{type(fault).__name__}: {fault} ({fault.__cause__!r})"}
        self._tell({"id": number, **answer})

    async def open(
        self,
        url: str,
        table_name: str,
        max_sessions_per_person: int | None = None,
        patience: float = 5,
        *,
        notify: bool = False,
        driver: str | None = None,
        data: bool = False,
        made: bool = False,
    ) -> None:
        """Be another process of the app on this table, which may be there (`made`). Times are in
        seconds.
        """
        self._clock = Clock()
        self._events: list[tuple[str, str, str | None]] = []
        self._sessions = Sessions(
            url if driver is None else app_engine(url, driver),
            secret_key=KEY,
            table_name=table_name,
            clock=self._clock,
            max_sessions_per_person=max_sessions_per_person,
            timeout=timedelta(seconds=patience),
            notify=notify,
            on_event=self._note,
            dbsc=DBSC(),
            data=data,
        )
        self._app = make_app(
            self._sessions,
            Route("/data", self._change, methods=["POST"]),
            *acting_routes(self._sessions),
        )
        self._gate = Gate(driver_of(self._sessions), self._tell)
        if not made:
            await self._sessions.create_tables()

    def _note(self, event: SessionEvent | Incident) -> None:
        if isinstance(event, SessionEvent):
            self._events.append((event.kind, event.session.id, event.session.end_reason))

    async def close(self) -> None:
        if self._sessions is not None:
            await self._sessions.disconnect()
            self._sessions = None

    async def turn(self, seconds: float) -> None:
        self._clock.turn(timedelta(seconds=seconds))

    async def shut(self, word: str, *, before: bool = True, behind: bool = False) -> None:
        """Stop the next statement that holds this word."""
        self._gate.shut(word, before=before, behind=behind)

    async def go(self) -> None:
        """Let what has been stopped go on."""
        self._gate.let_go()

    async def request(
        self,
        method: str = "GET",
        path: str = "/",
        *,
        cookie: str | None = None,
        proof: str | None = None,
        person: str | None = None,
        agent: str = "Firefox",
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """What a browser gets: the status, the app's words, the cookies that are set, and what
        its device is asked.
        """
        assert self._sessions is not None
        name = self._sessions.cookie_name
        async with Browser(self._app, agent=agent) as browser:
            given = {**(headers or {}), **({} if person is None else vouched(person))}
            if cookie is not None:
                given["cookie"] = f"{name}={cookie}" + (f"; {proof}" if proof else "")
            response = await browser.request(method, path, headers=given)
        lines, proofs = set_cookies(response, name), set_cookies(response, BOUND)
        assert len(lines) <= 1
        return {
            **(response.json() if "json" in response.headers.get("content-type", "") else {}),
            "status": response.status_code,
            "cookie": lines[0].partition("=")[2].partition(";")[0] if lines else None,
            "bound": bool(proofs),
            "proof": proofs[0].partition(";")[0] if proofs else None,
            "challenge": offered(response) or challenged(response),
        }

    async def change(
        self, steps: Sequence[Sequence[Any]], cookie: str | None = None
    ) -> dict[str, Any]:
        """What becomes of `request.session` by these steps: what each gave, and the whole."""
        headers = {"x-steps": json.dumps(steps)}
        return await self.request("POST", "/data", cookie=cookie, headers=headers)

    async def _change(self, request: Request) -> Response:
        assert self._sessions is not None
        answers = []
        for step, *given in json.loads(request.headers["x-steps"]):
            if step == "set":
                request.session[given[0]] = given[1]
            elif step == "login":
                await self._sessions.start_session(request, {"id": given[0]})
            else:
                answers.append(await getattr(self._sessions.data, step)(request, *given))
        return JSONResponse({"answers": answers, "data": request.session})

    async def data(self, kind: str = "data") -> list[Any]:
        """The data of all sessions, or of all visitors."""
        assert self._sessions is not None
        return [*(await data_of(self._sessions, kind)).values()]

    async def end(self, sid: str, reason: str = "revoked") -> str | None:
        """End a session by its sid; the reason that holds."""
        assert self._sessions is not None
        session = await self._sessions.end_session_by_id(sid, reason=reason)
        return None if session is None else session.end_reason

    async def end_all(self, person: str) -> int:
        assert self._sessions is not None
        return await self._sessions.end_all_sessions(person)

    async def live(self, person: str = "ann") -> list[str]:
        """The sids of a person's live sessions, newest first."""
        assert self._sessions is not None
        return [session.id for session in await self._sessions.list_sessions(person)]

    async def row(self, sid: str) -> dict[str, Any]:
        """A row with its times as text and its digests in hex."""
        assert self._sessions is not None
        (row,) = [row for row in await table_of(self._sessions) if row["id"] == sid]
        return {
            name: value.hex() if isinstance(value, bytes) else value and str(value)
            for name, value in row.items()
        }

    async def events(self, kind: str) -> list[tuple[str, str, str | None]]:
        """What was told so far, of this kind."""
        return [event for event in self._events if event[0] == kind]

    async def connections(self) -> list[int]:
        """The server's numbers of the connections that are held; SQLite has none."""
        assert self._sessions is not None
        link = self._sessions._core.store.engines.here
        question = WHO_AM_I.get(link.driver.dialect.name)
        numbers = []
        for batcher in link._batchers:
            if batcher._held is not None and question is not None:
                with suppress(Exception):  # one that was cut, and has not been used since
                    numbers.append((await link.driver.fetch(batcher._held.raw, question, ()))[0][0])
        return numbers

    async def touch_failures(self) -> int:
        assert self._sessions is not None
        return self._sessions._core.events.touch_failures


async def main() -> None:
    loop = asyncio.get_running_loop()

    def tell(word: Mapping[str, Any]) -> None:
        sys.stdout.write(json.dumps(word) + "\n")
        sys.stdout.flush()

    worker = Worker(tell)
    under_way: set[asyncio.Task[None]] = set()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        task = loop.create_task(worker._obey(json.loads(line)))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
    await worker.close()


if __name__ == "__main__":
    asyncio.run(main())
