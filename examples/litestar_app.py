"""An API in Litestar, with its people and their sessions in one database.

``python examples/litestar_app.py``, then http://127.0.0.1:8000/schema. Needs litestar, argon2-cffi
and uvicorn.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import uvicorn
from anyio import to_thread
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from databases import Database
from litestar import Litestar, Request, asgi, delete, get, post, put
from litestar.exceptions import NotAuthorizedException, NotFoundException
from litestar.params import FromPath, JSONBody
from sqlalchemy import Column, MetaData, String, Table
from sqlalchemy.schema import CreateTable

from asgi_sessions import Sessions
from asgi_sessions.litestar import (
    CurrentSession,
    OptionalSession,
    SessionsPlugin,
    requires_fresh_session,
)

hasher = PasswordHasher()
nobody = hasher.hash(secrets.token_urlsafe())

metadata = MetaData()
people = Table(
    "people",
    metadata,
    Column("name", String(50), primary_key=True),
    Column("password_hash", String(200), nullable=False),
)

AnyRequest = Request[Any, Any, Any]


@dataclass
class Login:
    """A name and its password."""

    name: str
    password: str


@dataclass
class Password:
    """What somebody proves with who they are."""

    password: str


@dataclass
class Device:
    """Where somebody is logged in."""

    sid: str
    user_agent: str | None
    ip_address: str | None
    last_seen_at: datetime
    current: bool


def create_app(database: Database, sessions: Sessions) -> Litestar:
    """The app on a database and the sessions in it."""

    async def check(name: str, password: str) -> None:
        """Raise a 401 unless it is their password. Unknown names take as long as known ones."""
        query = people.select().where(people.c.name == name)
        row = await database.fetch_one(query)
        known = nobody if row is None else row["password_hash"]
        try:
            await to_thread.run_sync(hasher.verify, known, password)
        except VerifyMismatchError:
            raise NotAuthorizedException("name and password do not fit") from None

    @asynccontextmanager
    async def lifespan(_: Litestar) -> AsyncIterator[None]:
        async with database:
            await sessions.create_tables()
            await database.execute(CreateTable(people, if_not_exists=True))
            if await database.fetch_one(people.select()) is None:
                ann = {"name": "ann", "password_hash": hasher.hash("apple-tree")}
                await database.execute(people.insert().values(ann))
            yield

    @get("/")
    async def greet(optional_session: OptionalSession) -> dict[str, str]:
        """Say hello to whoever it is."""
        return {"hello": optional_session.person_id if optional_session else "stranger"}

    @post("/login", status_code=200, raises=[NotAuthorizedException])
    async def log_in(request: AnyRequest, data: JSONBody[Login]) -> dict[str, str]:
        """Log in with name and password; the cookie follows."""
        await check(data.name, data.password)
        person = {"id": data.name, "amr": ["pwd"]}
        return {"sid": (await sessions.start_session(request, person)).sid}

    @get("/sessions")
    async def devices(current_session: CurrentSession) -> list[Device]:
        """Where you are logged in."""
        return [
            Device(
                one.sid,
                one.user_agent,
                one.ip_address,
                one.last_seen_at,
                current=one.sid == current_session.sid,
            )
            for one in await sessions.list_sessions(current_session.person_id)
        ]

    @delete("/sessions/{sid:str}", raises=[NotFoundException])
    async def end(sid: FromPath[str], current_session: CurrentSession) -> None:
        """End one of them; somebody else's looks like one that never was."""
        if await sessions.end_session_by_id(sid, person_id=current_session.person_id) is None:
            raise NotFoundException("you have no such session")

    @post("/confirm", status_code=204)
    async def confirm(
        request: AnyRequest, data: JSONBody[Password], current_session: CurrentSession
    ) -> None:
        """Give the password again, for what needs a fresh session."""
        await check(current_session.person_id, data.password)
        await sessions.renew_session(request, amr=["pwd"])

    @put("/password", status_code=204, guards=[requires_fresh_session(timedelta(minutes=10))])
    async def change_password(
        request: AnyRequest, data: JSONBody[Password], current_session: CurrentSession
    ) -> None:
        """Change the password, and end all other sessions: both of it or nothing."""
        name, sid = current_session.person_id, current_session.sid
        password_hash = await to_thread.run_sync(hasher.hash, data.password)
        mine = people.update().where(people.c.name == name)
        async with database.transaction():
            await database.execute(mine.values(password_hash=password_hash))
            await database.execute(sessions.end_all_statement(name, except_sid=sid))
        await sessions.renew_session(request)

    logout = asgi("/logout", copy_scope=True)(sessions.end_session_endpoint())
    return Litestar(
        [greet, log_in, devices, end, confirm, change_password, logout],
        lifespan=[lifespan],
        plugins=[SessionsPlugin(sessions)],
    )


def main() -> None:
    """Serve the app on this machine."""
    database = Database(os.environ.get("DATABASE_URL", "sqlite:///litestar-demo.db"))
    sessions = Sessions(
        database,
        secret_key=os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32),
        # Plain http, where some browsers drop Secure cookies. Leave it out on https.
        cookie_secure=False,
    )
    print("http://127.0.0.1:8000/schema: log in as ann, apple-tree", flush=True)  # noqa: T201
    uvicorn.run(create_app(database, sessions), host="127.0.0.1", port=8000, proxy_headers=False)


if __name__ == "__main__":
    main()
