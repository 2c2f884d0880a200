"""Who is measured side by side."""

from __future__ import annotations

from benchmarks import apps

from . import on_django, on_fastapi, on_litestar, on_starlette
from .peer import Peer

PEERS = [
    Peer(
        "Starlette SessionMiddleware",
        "cookie",
        on_starlette.signed_cookie,
        apps.bare,
        "Keeps nothing on the server: no list of sessions, no end of one from elsewhere. A cookie"
        " that was copied stays good after the logout until it runs out.",
    ),
    Peer(
        "starsessions",
        "redis",
        on_starlette.in_redis,
        apps.bare,
        "Reads the session, and writes it and its cookie again at every request. No list of a"
        " person's sessions. Redis as measured answers before it has written to disk.",
    ),
    Peer(
        "Litestar server-side",
        "redis",
        on_litestar.in_redis,
        on_litestar.bare,
        "Reads the session, and writes it and its cookie again at every request. No list of a"
        " person's sessions. Redis as measured answers before it has written to disk.",
    ),
    Peer(
        "Litestar, advanced-alchemy",
        "postgresql",
        on_litestar.in_sql,
        on_litestar.bare,
        "Reads the row and writes its new expiry, then writes the session and its cookie again,"
        " at every request: two commits. No list of a person's sessions.",
    ),
    Peer(
        "fastapi-users DatabaseStrategy",
        "postgresql",
        on_fastapi.in_sql,
        on_fastapi.bare,
        "Loads the person as well: a second query, which other apps make in their handler. Its"
        " login here neither looks the person up nor checks a password. The token lies in the"
        " table as it is. No idle timeout.",
        keeps=False,
    ),
    Peer(
        "Django db",
        "postgresql",
        on_django.in_db,
        on_django.bare,
        "Its ORM runs in a thread. No idle timeout unless it saves every request, which is off"
        " as by default. No list of a person's sessions.",
    ),
    Peer(
        "Django cached_db",
        "postgresql+redis",
        on_django.in_cached_db,
        on_django.bare,
        "As Django db, but a logged-in request reads the cache alone: a row that was removed from"
        " the table stays good until the cache forgets it. Under ASGI its Redis client, which runs"
        " in a thread, connects anew for each request.",
    ),
]

OURS = (
    "Looks the row up at every request, with the idle timeout and the end checked; notes the use"
    " once a minute. A login keeps device, address and times, and ends the session that it"
    " replaces; a logout keeps the row with its reason."
)
