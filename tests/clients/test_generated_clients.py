"""Clients that others' generators make of the OpenAPI document list and log out on a real server.

TEST_CLIENTS=1 makes a machine without Node.js, or without a generator, a failure; else the tests
are skipped there.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from anyio import run_process
from fastapi import FastAPI

from asgi_sessions import SessionMiddleware, Sessions
from asgi_sessions.fastapi import describe_sessions, session_router
from asgi_sessions.testing import logged_in_cookie
from tests.support import KEY, entered
from tests.support.serving import served

UNKNOWN = "01890000-0000-7000-8000-000000000000"
HERE = Path(__file__).parent


def need(found: object, what: str) -> None:
    """Skip the test where something is missing, or fail if it has to be there."""
    if found:
        return
    if os.environ.get("TEST_CLIENTS") == "1":
        pytest.fail(f"TEST_CLIENTS=1 is set, and {what} is missing", pytrace=False)
    pytest.skip(f"{what} is missing")


@pytest.fixture
async def sessions(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Sessions]:
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Sessions(url, secret_key=KEY, cookie_secure=False, bearer=True) as sessions:
        await sessions.create_tables()
        yield sessions


@pytest.fixture
def app(sessions: Sessions) -> FastAPI:
    app = FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)
    app.include_router(session_router(sessions), prefix="/sessions")
    describe_sessions(app, sessions)
    return app


@pytest.fixture
def document(app: FastAPI, tmp_path: Path) -> Path:
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(app.openapi()))
    return file


@pytest.fixture
async def address(app: FastAPI, anyio_backend: str) -> AsyncIterator[str]:
    """Of the app, on a port of its own."""
    async with served(app) as host:
        yield f"http://{host}"


async def run(*command: str | Path, directory: Path, may_fail: bool = False) -> str | None:
    """What a command prints; None if it has failed, and may."""
    # What is fetched goes with the test: nothing is left in the user's home.
    cache = {"npm_config_cache": str(directory / "cache"), "npm_config_update_notifier": "false"}
    done = await run_process(
        [str(part) for part in command], cwd=directory, env=os.environ | cache, check=False
    )
    if may_fail and done.returncode != 0:
        return None
    assert done.returncode == 0, (done.stdout + done.stderr).decode()
    return done.stdout.decode()


async def cookie_of_ada(sessions: Sessions) -> str:
    """Of one of her two devices."""
    await logged_in_cookie(sessions, "ada")
    ((name, value),) = (await logged_in_cookie(sessions, "ada")).items()
    return f"{name}={value}"


async def reasons(sessions: Sessions) -> list[str | None]:
    return [one.end_reason for one in await sessions.list_sessions("ada", include_ended=True)]


async def test_a_client_in_typescript(
    sessions: Sessions, document: Path, address: str, tmp_path: Path
) -> None:
    need(shutil.which("npm"), "Node.js with npm")
    for name in ("package.json", "main.ts"):
        shutil.copy(HERE / name, tmp_path)
    quiet = ("--no-package-lock", "--ignore-scripts", "--no-audit", "--no-fund")
    installed = await run("npm", "install", *quiet, directory=tmp_path, may_fail=True)
    need(installed is not None, "npm's registry")
    programs = tmp_path / "node_modules" / ".bin"
    await run(programs / "openapi-typescript", document, "-o", "api.ts", directory=tmp_path)
    strict = ("--strict", "--target", "es2022", "--module", "nodenext", "--skipLibCheck")
    await run(programs / "tsc", *strict, "main.ts", directory=tmp_path)
    cookie = await cookie_of_ada(sessions)
    said = await run("node", "main.js", address, cookie, directory=tmp_path)
    assert json.loads(said or "") == {
        "devices": ["testclient"] * 2,
        "ended": 204,
        "count": 0,
        "message": "session ended",
        "why": {"detail": "not logged in", "reason": None},
    }
    assert sorted(map(str, await reasons(sessions))) == ["logout", "revoked"]


async def test_a_client_in_python(
    sessions: Sessions,
    document: Path,
    address: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    need(find_spec("openapi_python_client"), "openapi-python-client")
    (tmp_path / "config.yml").write_text("post_hooks: []\n")
    generate = (sys.executable, "-m", "openapi_python_client", "generate", "--path", document)
    options = ("--meta", "none", "--output-path", "shop_client", "--config", "config.yml")
    await run(*generate, *options, "--fail-on-warning", directory=tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    client: Any = import_module("shop_client")
    models: Any = import_module("shop_client.models")

    def operation(name: str) -> Callable[..., Any]:
        found: Callable[..., Any] = import_module(f"shop_client.api.sessions.{name}").asyncio
        return found

    await cookie_of_ada(sessions)
    scope, _ = await entered(sessions)
    token = (await sessions.start_token(scope, {"id": "ada"})).token
    async with client.AuthenticatedClient(address, token=token) as ada:
        listed = await operation("list_sessions")(client=ada)
        assert isinstance(listed, models.SessionList)
        assert [one.current for one in listed.sessions] == [True, False, False]
        assert all(one.expires_at > one.started_at for one in listed.sessions)
        unknown = await operation("end_session")(UNKNOWN, client=ada)
        assert unknown == models.NoSuchSession("not found")
        assert (await operation("end_other_sessions")(client=ada)).ended == 2
        assert await operation("logout")(client=ada) == models.LoggedOut("session ended")
    async with client.Client(address) as nobody:
        refused = await operation("list_sessions")(client=nobody)
        assert refused == models.NotLoggedIn("not logged in", reason=None)
    assert sorted(map(str, await reasons(sessions))) == ["logout", "revoked", "revoked"]
