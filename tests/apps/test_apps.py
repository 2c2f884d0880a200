"""Apps as others build them, each with one engine, one pool and one transaction for a request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from litestar import Litestar
from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import SQLModel

from asgi_sessions import Sessions
from tests.apps import alchemy, fullstack
from tests.conftest import ENGINES, name_of
from tests.support import KEY, Browser
from tests.support.engines import EngineURL, app_engine, own_database

pytestmark = pytest.mark.anyio

Make = Callable[[AsyncEngine, Sessions], Any]
ANN = {"name": "ann", "password": "apple-tree"}


@pytest.fixture(params=ENGINES, ids=name_of)
async def engine(
    request: pytest.FixtureRequest, anyio_backend: str, tmp_path: Path
) -> AsyncIterator[AsyncEngine]:
    """The app's engine, on a database of its own."""
    given: EngineURL = request.param
    with own_database(given, tmp_path) as url:
        engine = app_engine(url, given.driver)
        yield engine
        await engine.dispose()


@asynccontextmanager
async def running(app: Any) -> AsyncIterator[Any]:
    """The app between its start and its end."""
    lifespan = app.lifespan() if isinstance(app, Litestar) else app.router.lifespan_context(app)
    async with lifespan:
        yield app


@pytest.mark.parametrize(
    "make", [fullstack.make_app, alchemy.make_app], ids=["sqlmodel", "litestar"]
)
async def test_the_same_story(engine: AsyncEngine, make: Make) -> None:
    sessions = Sessions(engine, secret_key=KEY)
    async with running(make(engine, sessions)) as app:
        here, phone = Browser(app), Browser(app, agent="phone")
        assert (await here.post("/sign-up", json=ANN)).status_code == 201
        assert (await here.get("/me")).text.strip('"') == "ann"

        taken = await phone.post("/sign-up", json=ANN)
        assert (taken.status_code, "set-cookie" in taken.headers) == (409, False)
        assert len(await sessions.list_sessions("ann")) == 1
        assert (await phone.post("/log-in", json={**ANN, "password": "no"})).status_code == 401
        assert (await phone.post("/log-in", json=ANN)).status_code == 204
        assert (await phone.get("/me")).status_code == 200

        new = {"password": "pear-tree"}
        assert (await here.put("/password", json=new)).status_code == 204
        assert (await phone.get("/me")).status_code == 401
        assert (await here.get("/me")).status_code == 200
        assert (await here.post("/log-out")).status_code in {201, 204}
        assert (await here.get("/me")).status_code == 401
        assert await sessions.list_sessions("ann") == []
    checked_out = getattr(engine.sync_engine.pool, "checkedout", lambda: 0)
    assert checked_out() == 0  # what was held has been given back


@pytest.mark.parametrize(
    "app", [SQLModel.metadata, alchemy.Member.metadata], ids=["sqlmodel", "litestar"]
)
def test_the_tables_of_sessions_go_into_the_apps_metadata(app: MetaData, tmp_path: Path) -> None:
    both = MetaData()
    sessions = Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)
    for table in (*app.sorted_tables, *sessions.metadata.sorted_tables):
        table.to_metadata(both)
    assert {"sessions", "sessions_cutoffs"} < both.tables.keys()
