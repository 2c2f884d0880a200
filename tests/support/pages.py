"""The pages of docs, as a reader has them: their tables, and the code that somebody types."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
import textwrap
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, NamedTuple

from asgi_sessions import Sessions
from tests.support.repository import DOCS

ASVS = "OWASP ASVS 5.0, chapter V7"


_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A block of code on a page, and the line before it."""

    language: str
    line: int
    source: str


def blocks(page: Path, language: str) -> list[Block]:
    """The blocks in a language."""
    content = page.read_text()
    found = (
        Block(match[2], content.count("\n", 0, match.start()) + 1, textwrap.dedent(match[3]))
        for match in _FENCE.finditer(content)
    )
    return [block for block in found if block.language == language]


def the_block(page: Path, language: str, word: str) -> str:
    """The only block that has this word."""
    (found,) = [block.source for block in blocks(page, language) if word in block.source]
    return found


def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return _FENCE.sub("", page.read_text())


def section(page: Path, heading: str) -> str:
    """What stands under a heading."""
    (_, *rest) = re.split(rf"^#+ {re.escape(heading)}$", page.read_text(), flags=re.MULTILINE)
    assert rest, f"{page.name} has no heading {heading!r}"
    return re.split(r"^#+ ", rest[0], flags=re.MULTILINE)[0]


def table(page: Path, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    lines = [line for line in section(page, heading).splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def faults() -> list[list[str]]:
    """The rows of the page on Auth.Session: number, fault there, what holds here."""
    headings = ("Lookup and start", "User-Agent and address", "Validity", "Ending")
    return [row for heading in headings for row in table(DOCS / "auth_session.md", heading)]


class Reader:
    """Somebody who types the Python of a page into one module, from top to bottom."""

    def __init__(self, page: Path) -> None:
        self.page = page
        self.module = ModuleType(f"page_{page.stem}")
        vars(self.module)["__builtins__"] = builtins  # as exec would; Python 3.13 misses them
        self.sessions: list[Sessions] = []

    def __getitem__(self, name: str) -> Any:
        return vars(self.module)[name]

    async def run(self, *chosen: Block) -> None:
        """Run these blocks, or all of the page."""
        for block in chosen or blocks(self.page, "python"):
            code = compile(
                "\n" * block.line + block.source,
                str(self.page),
                "exec",
                flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
                dont_inherit=True,
            )
            result = FunctionType(code, vars(self.module))()
            if inspect.iscoroutine(result):
                await result
            made = [value for value in vars(self.module).values() if isinstance(value, Sessions)]
            self.sessions += [sessions for sessions in made if sessions not in self.sessions]
