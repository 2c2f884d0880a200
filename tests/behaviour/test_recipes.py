"""What the code of docs/recipes.md does, beyond that it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.routing import Route

from tests.support import Browser
from tests.support.pages import Reader, blocks
from tests.support.repository import DOCS

PAGE = DOCS / "recipes.md"


@pytest.mark.parametrize("page", [PAGE])
async def test_a_server_keeps_a_token_of_the_browser_that_it_tells_of(
    reader: Reader, page: Path
) -> None:
    await reader.run(*blocks(page, "python")[:3])
    app, sessions = reader["app"], reader["sessions"]
    await sessions.create_tables()
    app.router.routes.append(Route("/login-for", reader["login_for"], methods=["POST"]))
    node = Browser(app, agent="node")
    told = {"person": "ada", "address": "198.51.100.7", "agent": "Firefox"}
    answer = await node.post("/login-for", json=told)
    (session,) = await sessions.list_sessions("ada")
    assert (session.ip_address, session.user_agent) == ("198.51.100.7", "Firefox")
    assert not node.cookies
    bearer = {"authorization": f"Bearer {answer.json()['token']}"}
    assert (await node.get("/me", headers=bearer)).json() == {"person": "ada"}
    assert (await node.post("/logout", headers=bearer)).is_success
    assert (await node.get("/me", headers=bearer)).json() == {"person": None}
