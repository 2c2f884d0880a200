"""Check the types of the code on the pages, as somebody sees them who pastes it into an app.

Each block of Python is a module of its own, at its line of the page, and imports what it uses from
the blocks above it. Where a page defines something twice, one app for each framework, its readers
have several apps.
"""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).parents[1]
_FENCE = re.compile(r"^( *)```python\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda

#: For what stands outside of functions, where Python does not wait.
_AWAITED = """\
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

def awaited(one: Awaitable[T], /) -> T: ...  # type: ignore[empty-body]  # only typed
"""


def modules(page: Path) -> Iterator[tuple[str, str]]:
    """The modules of a page: name and source."""
    defined_by: dict[str, str] = {}
    content = page.read_text()
    for match in _FENCE.finditer(content):
        line = content.count("\n", 0, match.start()) + 1
        name = f"{page.stem}_{line}"
        source = textwrap.dedent(match[2])
        defined, used = _names(ast.parse(source))
        imports = [f"from {defined_by[one]} import {one}" for one in sorted(used & {*defined_by})]
        imports += ["from awaited import awaited"]
        # Handlers on the pages may do without types of their own, to be read with ease.
        loose = "# mypy: allow-untyped-defs, allow-untyped-calls" if page.stem != "README" else ""
        head = "; ".join(imports) + "\n" + loose + "\n" * (line - 1)
        yield name, head + _without_await(source)
        defined_by |= dict.fromkeys(defined, name)


def _names(module: ast.Module) -> tuple[set[str], set[str]]:
    """What a module defines, and what it uses before."""
    defined: set[str] = set()
    at_once: set[str] = set()
    later: set[str] = set()
    for statement in module.body:
        inside = {
            id(node)
            for function in ast.walk(statement)
            if isinstance(function, _FUNCTION)
            for body in (function.body if isinstance(function.body, list) else [function.body])
            for node in ast.walk(body)
        }
        new: set[str] = set()
        for node in ast.walk(statement):
            match node:
                case ast.Name(id=name, ctx=ast.Load()):
                    if id(node) in inside:
                        later.add(name)
                    elif name not in defined:
                        at_once.add(name)
                case ast.Name(id=name) if id(node) not in inside:
                    new.add(name)
                case ast.alias(name=name, asname=other) if id(node) not in inside:
                    new.add(other or name.partition(".")[0])
        if isinstance(statement, ast.ClassDef | _FUNCTION):
            new.add(statement.name)
        if isinstance(statement, ast.With | ast.For | ast.ClassDef | _FUNCTION):
            at_once -= new - defined  # it is its own
        defined |= new
    return defined, at_once | (later - defined)


def _without_await(source: str) -> str:
    """With each `await` outside of functions as a call."""
    lines = source.splitlines()
    module = ast.parse(source)
    inside = {
        id(node)
        for function in ast.walk(module)
        if isinstance(function, _FUNCTION)
        for node in ast.walk(function)
    }
    for node in ast.walk(module):
        if isinstance(node, ast.Await) and id(node) not in inside:
            assert node.end_lineno is not None
            at = node.end_lineno - 1
            lines[at] = f"{lines[at][: node.end_col_offset]}){lines[at][node.end_col_offset :]}"
            at = node.lineno - 1
            lines[at] = f"{lines[at][: node.col_offset]}awaited({lines[at][node.col_offset + 6 :]}"
    return "\n".join(lines) + "\n"


def main() -> int:
    """Check all pages with both checkers; how many of them have found something."""
    with TemporaryDirectory() as made:
        directory = Path(made)
        (directory / "awaited.py").write_text(_AWAITED)
        for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
            for name, source in modules(page):
                (directory / f"{name}.py").write_text(source)
        options = ["--config-file", str(ROOT / "pyproject.toml"), "--implicit-reexport"]
        mypy = [sys.executable, "-m", "mypy", *options, made]
        settings = {"extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
        (directory / "pyrightconfig.json").write_text(json.dumps(settings))
        pyright = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "-p", made]
        return sum(
            subprocess.run(command, cwd=ROOT, check=False).returncode != 0
            for command in (mypy, pyright)
        )


if __name__ == "__main__":
    sys.exit(main())
