"""What the files of this directory are given alike."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite alone: the routes ask no database in a way of their own."""
    return f"sqlite:///{tmp_path}/sessions.db"
