"""An app as the template for full stacks with FastAPI makes it: SQLModel, one engine, an
`AsyncSession` for each request.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import Field, SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from asgi_sessions import SessionMiddleware, Sessions
from asgi_sessions.fastapi import CurrentSession


class Account(SQLModel, table=True):
    """A row of the app's own."""

    name: str = Field(primary_key=True, max_length=50)
    password: str = Field(max_length=200)  # a real one is hashed


class Given(SQLModel):
    """What a form brings."""

    name: str
    password: str


class NewPassword(SQLModel):
    """What another form brings."""

    password: str


async def database(request: Request) -> AsyncIterator[AsyncSession]:
    """A session of SQLAlchemy for a request."""
    async with AsyncSession(request.app.state.engine) as session:
        yield session


Database = Annotated[AsyncSession, Depends(database)]


def make_app(engine: AsyncEngine, sessions: Sessions) -> FastAPI:
    """The app.

    Args:
        engine: its only one.
        sessions: on that engine.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.run_sync(SQLModel.metadata.create_all)
        async with sessions:
            await sessions.create_tables()
            yield

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(SessionMiddleware, sessions=sessions)

    app.state.engine = engine

    @app.post("/sign-up", status_code=201)
    async def sign_up(request: Request, given: Given, database: Database) -> None:
        database.add(Account(**given.model_dump()))
        await sessions.start_session(request, given.name, connection=database)
        try:
            await database.commit()
        except IntegrityError:
            raise HTTPException(409, "the name is taken") from None

    @app.post("/log-in", status_code=204)
    async def log_in(request: Request, given: Given, database: Database) -> None:
        known = await database.get(Account, given.name)
        if known is None or known.password != given.password:
            raise HTTPException(401)
        await sessions.start_session(request, given.name, connection=database)
        await database.commit()

    @app.get("/me")
    async def me(session: CurrentSession, database: Database) -> str:
        found = await database.exec(select(Account).where(Account.name == session.person_id))
        return found.one().name

    @app.put("/password", status_code=204)
    async def change_password(
        request: Request, session: CurrentSession, given: NewPassword, database: Database
    ) -> None:
        mine = await database.get_one(Account, session.person_id)
        mine.password = given.password
        await sessions.end_other_sessions(request, connection=database)
        await sessions.renew_session(request, connection=database)
        await database.commit()

    @app.post("/log-out", status_code=204)
    async def log_out(request: Request, database: Database) -> None:
        await sessions.end_session(request, connection=database)
        await database.commit()

    return app
