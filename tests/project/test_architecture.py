"""docs/architecture.md lists each module with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import asgi_sessions

PACKAGE = Path(asgi_sessions.__file__).parent
PAGE = PACKAGE.parent / "docs" / "architecture.md"
HEADING = "### Each module"


def first_sentence(path: Path) -> str:
    """What the docstring of a module begins with, up to the first blank line."""
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return " ".join(docstring.split("\n\n")[0].split())


def index() -> str:
    """The list as it has to be."""
    rooms: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.name != "__init__.py":
            room = path.parent.relative_to(PACKAGE).as_posix()
            line = f"| `{path.name}` | {first_sentence(path)} |"
            rooms.setdefault("the top" if room == "." else f"`{room}/`", []).append(line)
    tables = [
        "\n".join([f"| {room} | |", "|---|---|", *lines]) for room, lines in sorted(rooms.items())
    ]
    return "\n\n".join(tables)


def test_each_module_is_listed() -> None:
    match = re.search(rf"^{HEADING}\n\n(.*?)\n\n##", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert match is not None
    assert match[1] == index()
