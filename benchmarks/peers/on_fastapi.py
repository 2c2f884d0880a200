"""fastapi-users with its `DatabaseStrategy` on SQLAlchemy."""

# Not with `from __future__ import annotations`: FastAPI reads those of functions in a function.
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any
from uuid import UUID, uuid5

from fastapi import Depends, FastAPI, Response
from fastapi.responses import PlainTextResponse
from fastapi_users import BaseUserManager, FastAPIUsers, UUIDIDMixin
from fastapi_users.authentication import AuthenticationBackend, CookieTransport
from fastapi_users.authentication.strategy.db import DatabaseStrategy
from fastapi_users_db_sqlalchemy import SQLAlchemyBaseUserTableUUID, SQLAlchemyUserDatabase
from fastapi_users_db_sqlalchemy.access_token import (
    SQLAlchemyAccessTokenDatabase,
    SQLAlchemyBaseAccessTokenTableUUID,
)
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase

from benchmarks.drivers import POOL
from benchmarks.load import App

from .peer import Stores

#: Names of people become ids of users.
SPACE = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
#: People that there are: ``person-0`` and so on.
PEOPLE = 20_000

OK = PlainTextResponse("ok")


class Base(DeclarativeBase):
    """Of the tables."""


class User(SQLAlchemyBaseUserTableUUID, Base):
    """A person."""


class AccessToken(SQLAlchemyBaseAccessTokenTableUUID, Base):
    """A session."""


class Manager(UUIDIDMixin, BaseUserManager[User, UUID]):
    """Of people."""


def bare() -> App:
    """FastAPI alone, with a dependency as small as can be."""
    app = FastAPI(openapi_url=None)

    async def user() -> str:
        return "nobody"

    @app.get("/me")
    async def me(user: Annotated[str, Depends(user)]) -> Response:
        return OK

    return app


@asynccontextmanager
async def in_sql(stores: Stores) -> AsyncIterator[App]:
    """In PostgreSQL."""
    url = stores.places["postgresql"].url.replace("postgresql:", "postgresql+asyncpg:")
    engine = create_async_engine(url, pool_size=POOL, max_overflow=0)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        people = [
            {"id": uuid5(SPACE, f"person-{i}"), "email": f"person-{i}", "hashed_password": "-"}
            for i in range(PEOPLE)
        ]
        await connection.execute(insert(User), people)
    try:
        yield _app(async_sessionmaker(engine, expire_on_commit=False))
    finally:
        await engine.dispose()


def _app(open_session: async_sessionmaker[AsyncSession]) -> App:
    """As its documentation builds one."""

    async def session() -> AsyncIterator[AsyncSession]:
        async with open_session() as opened:
            yield opened

    InSession = Annotated[AsyncSession, Depends(session)]  # noqa: N806 -- a type

    async def manager(session: InSession) -> AsyncIterator[Manager]:
        yield Manager(SQLAlchemyUserDatabase(session, User))

    def strategy(session: InSession) -> Any:  # noqa: ANN401 -- made of three type variables
        tokens = SQLAlchemyAccessTokenDatabase(session, AccessToken)
        return DatabaseStrategy(tokens, lifetime_seconds=14 * 86400)

    backend = AuthenticationBackend[User, UUID](
        name="database",
        transport=CookieTransport(cookie_max_age=14 * 86400),
        get_strategy=strategy,
    )
    users = FastAPIUsers[User, UUID](manager, [backend])
    Current = Annotated[User, Depends(users.current_user(active=True))]  # noqa: N806 -- a type
    current_token = users.authenticator.current_user_token(active=True)
    Strategy = Annotated[Any, Depends(strategy)]  # noqa: N806 -- a type

    app = FastAPI(openapi_url=None)

    @app.get("/me")
    async def me(user: Current) -> Response:
        return OK

    @app.get("/who")
    async def who(user: Current) -> Response:
        return PlainTextResponse(user.email)

    @app.post("/login")
    async def login(person: str, strategy: Strategy) -> Response:
        # Its own route looks the person up and checks the password first, which ours leaves to
        # the app.
        response: Response = await backend.login(strategy, User(id=uuid5(SPACE, person)))
        return response

    @app.post("/logout")
    async def logout(
        user_token: Annotated[tuple[User, str], Depends(current_token)], strategy: Strategy
    ) -> Response:
        response: Response = await backend.logout(strategy, *user_token)
        return response

    return app
