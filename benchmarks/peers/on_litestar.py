"""Litestar's server-side sessions, in Redis and through advanced-alchemy."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from advanced_alchemy.extensions.litestar import SQLAlchemyAsyncConfig
from advanced_alchemy.extensions.litestar.session import (
    SessionModelMixin,
    SQLAlchemyAsyncSessionBackend,
)
from litestar import Litestar, Request, Response, get, post
from litestar.enums import MediaType
from litestar.middleware import DefineMiddleware
from litestar.middleware.session.base import SessionMiddleware
from litestar.middleware.session.server_side import ServerSideSessionConfig
from litestar.stores.redis import RedisStore
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.drivers import POOL
from benchmarks.load import App

from .peer import MOST, PREFIX, Stores

Connection = Request[Any, Any, Any]


class LitestarSession(SessionModelMixin):
    """Its table."""

    __tablename__ = "litestar_sessions"


@get("/me", media_type=MediaType.TEXT)
async def _me(request: Connection) -> Response[str]:
    return Response("ok", status_code=200 if request.session.get("person") else 401)


@get("/who", media_type=MediaType.TEXT)
async def _who(request: Connection) -> str:
    return str(request.session.get("person", ""))


_numbers = count(1)


@get("/write", media_type=MediaType.TEXT)
async def _write(request: Connection) -> str:
    request.session["count"] = next(_numbers)
    return "ok"


@post("/login", status_code=200, media_type=MediaType.TEXT)
async def _login(request: Connection) -> str:
    request.set_session({"person": request.query_params["person"]})
    return "ok"


@post("/logout", status_code=200, media_type=MediaType.TEXT)
async def _logout(request: Connection) -> str:
    request.clear_session()
    return "ok"


@get("/me", media_type=MediaType.TEXT)
async def _nobody(request: Connection) -> Response[str]:
    return Response("ok", status_code=200)


_HANDLERS = [_me, _who, _write, _login, _logout]


def bare() -> App:
    """Litestar alone."""
    return Litestar([_nobody], openapi_config=None)


@asynccontextmanager
async def in_redis(stores: Stores) -> AsyncIterator[App]:
    """In Redis."""
    async with Redis.from_url(stores.redis_url(), max_connections=MOST) as connection:
        yield Litestar(
            _HANDLERS,
            middleware=[ServerSideSessionConfig(secure=True).middleware],
            stores={"sessions": RedisStore(connection, namespace=f"{PREFIX}litestar")},
            openapi_config=None,
        )


@asynccontextmanager
async def in_sql(stores: Stores) -> AsyncIterator[App]:
    """In PostgreSQL."""
    url = stores.places["postgresql"].url.replace("postgresql:", "postgresql+asyncpg:")
    engine = create_async_engine(url, pool_size=POOL, max_overflow=0)
    alchemy = SQLAlchemyAsyncConfig(engine_instance=engine)
    async with engine.begin() as connection:
        await connection.run_sync(LitestarSession.metadata.create_all)
    config = ServerSideSessionConfig(secure=True)
    backend = SQLAlchemyAsyncSessionBackend(config, alchemy, LitestarSession)
    try:
        yield Litestar(
            _HANDLERS,
            middleware=[DefineMiddleware(SessionMiddleware, backend=backend)],
            openapi_config=None,
        )
    finally:
        await engine.dispose()
