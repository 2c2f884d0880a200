"""Somebody with `request.session`: requests of one browser, and the tables as they are then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from json import loads
from typing import Any

from sqlalchemy import select
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import SessionMiddleware, Sessions
from tests.support import Vouch, vouched
from tests.support.asgi import call, cookies, field, http, respond
from tests.support.engines import run
from tests.support.inside import driver_of, settled

Step = Callable[[Request], Awaitable[Any]]


class Visit:
    """One browser, whose requests do what they are told.

    Attributes:
        cookie: the Cookie header that it sends.
        sent: what the app has answered last.
        session: `request.session` of the last request.
    """

    def __init__(self, sessions: Sessions, cookie: str | None = None) -> None:
        self.sessions = sessions
        self.cookie = cookie
        self.sent: list[Message] = []
        self.session: Any = None

    async def does(
        self,
        step: Step,
        *,
        method: str = "GET",
        status: int = 200,
        person: str | None = None,
        app: Callable[[ASGIApp], ASGIApp] = lambda app: app,
        path: str = "/",
    ) -> Any:
        """Have a request do this before its response begins; what it gave."""
        answer: Any = None

        async def serve(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal answer
            self.session = scope.get("session")
            answer = await step(Request(scope, receive, send))
            await respond(send, status)

        headers = {} if person is None else vouched(person)
        headers = {name.replace("-", "_"): value for name, value in headers.items()}
        scope = http(method, path, cookie=self.cookie, **headers)
        layered = Vouch(SessionMiddleware(app(serve), sessions=self.sessions))
        self.sent = []
        self.sent = await call(layered, scope)
        await settled(self.sessions)
        self.keep()
        return answer

    def keep(self) -> None:
        """Keep the cookie that was set, as a browser does."""
        for cookie in cookies(self.sent):
            self.cookie = cookie if cookie.partition("=")[2] else None

    async def has(self, change: Callable[[Any], Any] = dict, **how: Any) -> Any:
        """Do something with `request.session`; what it gave, or what is in it."""

        async def step(request: Request) -> Any:
            return change(request.session)

        return await self.does(step, **how)

    async def login(self, person: str = "ann", **how: Any) -> str:
        """Log in; the sid."""

        async def step(request: Request) -> str:
            return (await self.sessions.start_session(request, {"id": person})).id

        sid: str = await self.does(step, **how)
        return sid

    async def logout(self, **how: Any) -> None:
        await self.does(self.sessions.end_session, **how)

    @property
    def status(self) -> int:
        """Of the last answer."""
        status: int = self.sent[0]["status"]
        return status

    @property
    def set_cookies(self) -> list[str]:
        """Those of the last answer."""
        return field(self.sent[0], "set-cookie")


async def rows(sessions: Sessions, kind: str) -> dict[str, dict[str, Any]]:
    """The columns of the rows of ``data`` or ``visitors``, by their ids."""
    table = sessions.metadata.tables[f"{sessions.table.name}_{kind}"]
    found = await run(sessions, select(table))
    for row in found:
        if isinstance(row["data"], str):  # `databases` leaves asyncpg's JSON as it is
            row["data"] = loads(row["data"])
    return {row["id"]: row for row in found}


async def data_of(sessions: Sessions, kind: str = "data") -> dict[str, dict[str, Any]]:
    """The data of each session, or of each visitor."""
    return {sid: row["data"] for sid, row in (await rows(sessions, kind)).items()}


@contextmanager
def watched(sessions: Sessions, look: Callable[[str], object]) -> Iterator[None]:
    """Have `look` see each statement before it is run, but those of transactions."""
    driver = driver_of(sessions)
    originals = {name: getattr(driver, name) for name in ("fetch", "execute", "run")}
    inside = False  # `run` may call `execute`

    def with_look(work: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def run(raw: object, sql: str, *given: object) -> object:
            nonlocal inside
            if inside or not sql.startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                return await work(raw, sql, *given)
            look(sql)
            inside = True
            try:
                return await work(raw, sql, *given)
            finally:
                inside = False

        return run

    for name, work in originals.items():
        setattr(driver, name, with_look(work))
    try:
        yield
    finally:
        for name in originals:
            delattr(driver, name)


@contextmanager
def statements(sessions: Sessions) -> Iterator[list[str]]:
    """The statements that are run meanwhile."""
    seen: list[str] = []
    with watched(sessions, seen.append):
        yield seen


@contextmanager
def broken(sessions: Sessions, *words: str) -> Iterator[None]:
    """The database does not answer statements in which all of these are."""

    def look(sql: str) -> None:
        if all(word in sql for word in words):
            raise OSError("the database is away")

    with watched(sessions, look):
        yield
