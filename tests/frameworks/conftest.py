"""What the files of this directory are given alike."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """SQLite alone: no framework makes a difference to a database."""
    return f"sqlite:///{tmp_path}/sessions.db"
