"""Starlette's own middleware, and starsessions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import starsessions
from redis.asyncio import Redis
from starlette.middleware import Middleware
from starlette.requests import Request
from starsessions.stores.redis import RedisStore

from benchmarks.apps import cookie, make
from benchmarks.load import App

from .peer import MOST, PREFIX, Stores


@asynccontextmanager
async def signed_cookie(stores: Stores) -> AsyncIterator[App]:
    """Everything in the cookie."""
    yield cookie()


@asynccontextmanager
async def in_redis(stores: Stores) -> AsyncIterator[App]:
    """Starsessions with its Redis store."""

    def who(request: Request) -> str | None:
        person: str | None = request.session.get("person")
        return person

    async def login(request: Request) -> None:
        request.session["person"] = request.query_params["person"]
        starsessions.regenerate_session_id(request)

    async def logout(request: Request) -> None:
        request.session.clear()

    async with Redis.from_url(stores.redis_url(), max_connections=MOST) as connection:
        store = RedisStore(connection=connection, prefix=f"{PREFIX}starsessions:")
        yield make(
            who,
            login,
            logout,
            Middleware(starsessions.SessionMiddleware, store=store, lifetime=14 * 86400),
            Middleware(starsessions.SessionAutoloadMiddleware),
        )
