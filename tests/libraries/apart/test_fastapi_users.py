"""An app of fastapi-users on SQLAlchemy, moved over: the page. Its adapter needs SQLAlchemy 2.0."""

import re

import pytest

from tests.support.libraries import need
from tests.support.pages import Reader, blocks
from tests.support.repository import DOCS

need("fastapi_users", apart=True)
pytest.importorskip("fastapi_users_db_sqlalchemy")

PAGE = DOCS / "fastapi_users.md"


@pytest.mark.parametrize("page", [PAGE])
async def test_an_app_of_theirs_moves_over_and_a_new_password_ends_the_others(
    reader: Reader,
) -> None:
    await reader.run(*blocks(PAGE, "py"))
    await reader["engine"].dispose()


def test_it_takes_five_lines() -> None:
    app, *_ = blocks(PAGE, "py")
    assert re.findall(r"  # (\d)$", app.source, re.MULTILINE) == ["1", "2", "3", "4", "5"]
