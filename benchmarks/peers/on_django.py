"""Django's sessions, in the database and in the database behind a cache; views are async."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from types import ModuleType
from typing import Any

import django
from asgiref.sync import sync_to_async
from databases import DatabaseURL
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.handlers.asgi import ASGIHandler
from django.db import connection, connections
from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.apps import KEY
from benchmarks.drivers import POOL
from benchmarks.load import App

from .peer import MOST, PREFIX, Stores


async def _me(request: HttpRequest) -> HttpResponse:
    person = await request.session.aget("person")
    return HttpResponse(b"ok", status=200 if person else 401)


async def _who(request: HttpRequest) -> HttpResponse:
    return HttpResponse(await request.session.aget("person", ""))


async def _login(request: HttpRequest) -> HttpResponse:
    await request.session.aset("person", request.GET["person"])
    return HttpResponse(b"ok")


async def _logout(request: HttpRequest) -> HttpResponse:
    await request.session.aflush()
    return HttpResponse(b"ok")


_numbers = count(1)


async def _write(request: HttpRequest) -> HttpResponse:
    await request.session.aset("count", next(_numbers))
    return HttpResponse(b"ok")


async def _nobody(request: HttpRequest) -> HttpResponse:
    return HttpResponse(b"ok")


urls = ModuleType("benchmark_urls")
setattr(  # noqa: B010 -- a module made here
    urls,
    "urlpatterns",
    [
        path("me", _me),
        path("who", _who),
        path("write", _write),
        path("login", _login),
        path("logout", _logout),
        path("bare", _nobody),
    ],
)


def bare() -> App:
    """Django alone."""
    _configure(None)
    settings.MIDDLEWARE = []
    handler: App = get_asgi_application()

    async def app(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 -- as App
        await handler({**scope, "path": "/bare", "raw_path": b"/bare"}, receive, send)

    return app


def _configure(stores: Stores | None) -> None:
    if settings.configured:
        return
    if stores is None:
        raise LookupError("Django has not been told its database")
    url = DatabaseURL(stores.places["postgresql"].url)
    settings.configure(
        SECRET_KEY=KEY,
        ALLOWED_HOSTS=["*"],
        ROOT_URLCONF=urls,
        INSTALLED_APPS=["django.contrib.sessions"],
        SESSION_COOKIE_SECURE=True,
        USE_TZ=True,
        LOGGING_CONFIG=None,
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.postgresql",
                "NAME": url.database,
                "USER": url.username,
                "PASSWORD": url.password,
                "HOST": url.hostname,
                "PORT": url.port or 5432,
                # Its one way to keep connections with ASGI.
                "OPTIONS": {"pool": {"min_size": POOL, "max_size": POOL, "timeout": 60}},
            }
        },
        CACHES={
            "default": {
                "BACKEND": "django.core.cache.backends.redis.RedisCache",
                "LOCATION": stores.redis or "redis://",
                "KEY_PREFIX": PREFIX + "django",
                "OPTIONS": {"max_connections": MOST},
            }
        },
    )
    django.setup()


@asynccontextmanager
async def _in(stores: Stores, engine: str) -> AsyncIterator[App]:
    _configure(stores)
    await sync_to_async(_make_table)()
    settings.MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware"]
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    handler: ASGIHandler = get_asgi_application()
    try:
        yield handler
    finally:
        await sync_to_async(_close)()


def _make_table() -> None:
    from django.contrib.sessions.models import Session  # noqa: PLC0415 -- needs the settings

    if Session._meta.db_table not in connection.introspection.table_names():  # noqa: SLF001 -- public there
        with connection.schema_editor() as editor:
            editor.create_model(Session)


def _close() -> None:
    connections.close_all()
    connection.close_pool()


@asynccontextmanager
async def in_db(stores: Stores) -> AsyncIterator[App]:
    """``db``, in PostgreSQL."""
    async with _in(stores, "db") as app:
        yield app


@asynccontextmanager
async def in_cached_db(stores: Stores) -> AsyncIterator[App]:
    """``cached_db``, in PostgreSQL behind Redis."""
    async with _in(stores, "cached_db") as app:
        yield app
