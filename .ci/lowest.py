"""Print the lowest versions that pyproject.toml allows of all that the tests run on, as pip's
constraints; what those bring themselves is left to pip.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
_FLOOR = re.compile(r">=([\d.]+)")


def requirements(pyproject: dict[str, Any]) -> Iterator[str]:
    """Of the package, of its extras, and of the tests."""
    yield from pyproject["project"]["dependencies"]
    for extra in pyproject["project"]["optional-dependencies"].values():
        yield from extra
    groups = ["tests"]
    for group in groups:
        for one in pyproject["dependency-groups"][group]:
            if isinstance(one, str):
                yield one
            else:
                groups.append(one["include-group"])


def lowest(pyproject: dict[str, Any]) -> dict[str, str]:
    """The lowest version of each."""
    floors: dict[str, set[str]] = {}
    for requirement in requirements(pyproject):
        name = re.split(r"[^\w-]", requirement)[0]
        floors.setdefault(name, set()).update(_FLOOR.findall(requirement))
    for name, versions in floors.items():
        assert len(versions) == 1, f"{name} has to have one lowest version, not {versions}"
    return {name: version for name, (version,) in floors.items()}


for name, version in sorted(lowest(tomllib.loads(PYPROJECT.read_text())).items()):
    print(f"{name}=={version}")
