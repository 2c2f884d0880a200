"""An API in FastAPI, with its people and their sessions in one database.

``python examples/fastapi_app.py``, then http://127.0.0.1:8000/docs. Needs fastapi, argon2-cffi and
uvicorn.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import Annotated

import uvicorn
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from databases import Database
from fastapi import FastAPI, HTTPException, Request
from pydantic import BaseModel, Field
from sqlalchemy import Column, MetaData, String, Table
from sqlalchemy.schema import CreateTable
from starlette.concurrency import run_in_threadpool
from starlette.routing import Route

from asgi_sessions import Session, SessionMiddleware, Sessions
from asgi_sessions.fastapi import (
    CurrentSession,
    OptionalSession,
    describe_sessions,
    fresh_session,
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


class Password(BaseModel):
    """What somebody proves with who they are."""

    password: str = Field(min_length=1, max_length=200)


class Login(Password):
    """A name and its password."""

    name: str = Field(pattern="^[a-z]{1,50}$")


class Device(BaseModel):
    """Where somebody is logged in."""

    sid: str
    user_agent: str | None
    ip_address: str | None
    last_seen_at: datetime
    current: bool


#: The session of somebody who has given the password in the last ten minutes.
Fresh = Annotated[Session, fresh_session(timedelta(minutes=10))]


def create_app(database: Database, sessions: Sessions) -> FastAPI:
    """The app on a database and the sessions in it."""

    async def check(name: str, password: str) -> None:
        """Raise a 401 unless it is their password. Unknown names take as long as known ones."""
        query = people.select().where(people.c.name == name)
        row = await database.fetch_one(query)
        known = nobody if row is None else row["password_hash"]
        try:
            await run_in_threadpool(hasher.verify, known, password)
        except VerifyMismatchError:
            raise HTTPException(401, "name and password do not fit") from None

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with database, sessions:
            await sessions.create_tables()
            await database.execute(CreateTable(people, if_not_exists=True))
            if await database.fetch_one(people.select()) is None:
                ann = {"name": "ann", "password_hash": hasher.hash("apple-tree")}
                await database.execute(people.insert().values(ann))
            yield

    logout = Route("/logout", sessions.end_session_endpoint())
    app = FastAPI(title="Where am I logged in?", lifespan=lifespan, routes=[logout])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    describe_sessions(app, sessions)

    @app.get("/")
    async def greet(session: OptionalSession) -> dict[str, str]:
        """Say hello to whoever it is."""
        return {"hello": session.person_id if session else "stranger"}

    @app.post("/login", responses={401: {"description": "Name and password do not fit"}})
    async def log_in(request: Request, given: Login) -> dict[str, str]:
        """Log in with name and password; the cookie follows."""
        await check(given.name, given.password)
        person = {"id": given.name, "amr": ["pwd"]}
        return {"sid": (await sessions.start_session(request, person)).sid}

    @app.get("/sessions")
    async def devices(session: CurrentSession) -> list[Device]:
        """Where you are logged in."""
        return [
            Device(
                sid=one.sid,
                user_agent=one.user_agent,
                ip_address=one.ip_address,
                last_seen_at=one.last_seen_at,
                current=one.sid == session.sid,
            )
            for one in await sessions.list_sessions(session.person_id)
        ]

    @app.delete("/sessions/{sid}", status_code=204, responses={404: {"description": "Not yours"}})
    async def end(sid: str, session: CurrentSession) -> None:
        """End one of them; somebody else's looks like one that never was."""
        if await sessions.end_session_by_id(sid, person_id=session.person_id) is None:
            raise HTTPException(404, "you have no such session")

    @app.post("/confirm", status_code=204)
    async def confirm(request: Request, given: Password, session: CurrentSession) -> None:
        """Give the password again, for what needs a fresh session."""
        await check(session.person_id, given.password)
        await sessions.renew_session(request, amr=["pwd"])

    @app.put("/password", status_code=204)
    async def change_password(request: Request, given: Password, session: Fresh) -> None:
        """Change the password, and end all other sessions: both of it or nothing."""
        password_hash = await run_in_threadpool(hasher.hash, given.password)
        mine = people.update().where(people.c.name == session.person_id)
        others = sessions.end_all_statement(session.person_id, except_sid=session.sid)
        async with database.transaction():
            await database.execute(mine.values(password_hash=password_hash))
            await database.execute(others)
        await sessions.renew_session(request)

    return app


def main() -> None:
    """Serve the app on this machine."""
    database = Database(os.environ.get("DATABASE_URL", "sqlite:///fastapi-demo.db"))
    sessions = Sessions(
        database,
        secret_key=os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32),
        # Plain http, where some browsers drop Secure cookies. Leave it out on https.
        cookie_secure=False,
    )
    print("http://127.0.0.1:8000/docs: log in as ann, apple-tree", flush=True)  # noqa: T201
    uvicorn.run(create_app(database, sessions), host="127.0.0.1", port=8000, proxy_headers=False)


if __name__ == "__main__":
    main()
