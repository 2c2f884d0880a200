"""A server in Node logs in for its people, with the lines of docs/recipes.md."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest

from asgi_sessions import Session, Sessions
from tests.servers.machine import Machine
from tests.servers.process import LOOPBACK
from tests.support import KEY
from tests.support.pages import the_block
from tests.support.repository import DOCS

pytestmark = pytest.mark.servers

PAGE = DOCS / "recipes.md"
#: Where the browser is, which talks to the server in Node alone.
CLIENT = "127.0.0.2"
TRUSTED = "https://www.example"


async def of_ada(database: str) -> list[Session]:
    async with Sessions(database, secret_key=KEY) as sessions:
        return await sessions.list_sessions("ada")


def test_a_session_is_that_of_the_browser_and_foreign_pages_reach_nothing(tmp_path: Path) -> None:
    with Machine(tmp_path) as machine:
        database = machine.database("sessions")
        beginning = the_block(PAGE, "python", "from starlette.testclient")
        app = the_block(PAGE, "python", "NODE =").replace("sqlite:///sessions.db", database)
        machine.write("main.py", beginning + app)
        script = machine.write("server.mjs", the_block(PAGE, "js", "createServer"))
        api, node = machine.port(), machine.port()
        machine.start("uvicorn", "main:app", "--port", str(api))
        machine.start("node", script, API=f"http://{LOOPBACK}:{api}", PORT=str(node))
        machine.wait()

        with httpx.Client(
            transport=httpx.HTTPTransport(local_address=CLIENT),
            base_url=f"http://{LOOPBACK}:{node}",
            headers={"user-agent": "Firefox", "origin": TRUSTED},
        ) as browser:
            login = browser.post("/login", data={"name": "ada"})
            assert login.text == "Hello, ada"
            (session,) = asyncio.run(of_ada(database))
            assert (session.ip_address, session.user_agent) == (CLIENT, "Firefox")

            # Its Secure attribute would have httpx keep it from a plain connection.
            browser.headers["cookie"] = login.headers["set-cookie"].partition(";")[0]
            assert browser.get("/").text == "Hello, ada"
            hostile = {"origin": "https://evil.example"}
            assert browser.post("/login", headers=hostile).status_code == 403
            hostile["sec-fetch-site"] = "cross-site"
            assert browser.post("/logout", headers=hostile).status_code == 403
            assert browser.get("/").text == "Hello, ada"
            assert browser.post("/logout").status_code == 200
            assert browser.get("/").text == "Hello, stranger"
