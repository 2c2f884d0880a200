"""An app as Litestar and advanced-alchemy make it: the plugin has the engine, and handlers ask for
its `AsyncSession`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from advanced_alchemy.base import DefaultBase
from advanced_alchemy.extensions.litestar import AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.extensions.litestar import SQLAlchemyPlugin as AlchemyPlugin
from litestar import Litestar, Request, get, post, put
from litestar.di import NamedDependency
from litestar.exceptions import ClientException, NotAuthorizedException
from litestar.params import JSONBody
from sqlalchemy import String
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from asgi_sessions import Sessions
from asgi_sessions.litestar import CurrentSession, SessionsPlugin

Database = NamedDependency[AsyncSession]


class Member(DefaultBase):  # type: ignore[misc]  # untyped with SQLAlchemy 2.1
    """A row of the app's own."""

    __tablename__ = "members"

    name: Mapped[str] = mapped_column(String(50), primary_key=True)
    password: Mapped[str] = mapped_column(String(200))  # a real one is hashed


@dataclass
class Given:
    """What a form brings."""

    name: str
    password: str


@dataclass
class NewPassword:
    """What another form brings."""

    password: str


def make_app(engine: AsyncEngine, sessions: Sessions) -> Litestar:
    """The app.

    Args:
        engine: its only one.
        sessions: on that engine.
    """

    @post("/sign-up")
    async def sign_up(
        request: Request[Any, Any, Any], data: JSONBody[Given], db_session: Database
    ) -> None:
        db_session.add(Member(name=data.name, password=data.password))
        await sessions.start_session(request, data.name, connection=db_session)
        try:
            await db_session.commit()
        except IntegrityError:
            raise ClientException("the name is taken", status_code=409) from None

    @post("/log-in", status_code=204)
    async def log_in(
        request: Request[Any, Any, Any], data: JSONBody[Given], db_session: Database
    ) -> None:
        known = await db_session.get(Member, data.name)
        if known is None or known.password != data.password:
            raise NotAuthorizedException
        await sessions.start_session(request, data.name, connection=db_session)
        await db_session.commit()

    @get("/me")
    async def me(current_session: CurrentSession, db_session: Database) -> str:
        return (await db_session.get_one(Member, current_session.person_id)).name

    @put("/password", status_code=204)
    async def change_password(
        request: Request[Any, Any, Any],
        current_session: CurrentSession,
        data: JSONBody[NewPassword],
        db_session: Database,
    ) -> None:
        mine = await db_session.get_one(Member, current_session.person_id)
        mine.password = data.password
        await sessions.end_other_sessions(request, connection=db_session)
        await sessions.renew_session(request, connection=db_session)
        await db_session.commit()

    @post("/log-out", status_code=204)
    async def log_out(request: Request[Any, Any, Any], db_session: Database) -> None:
        await sessions.end_session(request, connection=db_session)
        await db_session.commit()

    config = SQLAlchemyAsyncConfig(
        engine_instance=engine,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        create_all=True,
    )

    @asynccontextmanager
    async def tables(_: Litestar) -> AsyncIterator[None]:
        await sessions.create_tables()
        yield

    return Litestar(
        [sign_up, log_in, me, change_password, log_out],
        plugins=[AlchemyPlugin(config), SessionsPlugin(sessions)],
        lifespan=[tables],
    )
