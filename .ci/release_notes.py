"""Print what the changelog says about a release, once its tag, version and date agree.

Run it where pyproject.toml and CHANGELOG.md are, with the tag: ``release_notes.py v0.2.0``.
"""

import re
import sys
import tomllib
from pathlib import Path


def notes(tag: str, version: str, changelog: str) -> str:
    """The section of a version; ends the program where it must not be released.

    Args:
        tag: what has been tagged.
        version: of pyproject.toml.
        changelog: the text of CHANGELOG.md.
    """
    if tag != f"v{version}":
        sys.exit(f"the tag {tag} is not v{version}, the version of pyproject.toml")
    sections = re.split(r"^## ", changelog, flags=re.MULTILINE)[1:]
    for section in sections:
        heading, _, text = section.partition("\n")
        if heading.startswith("[Unreleased]") and text.strip():
            sys.exit("CHANGELOG.md has changes under [Unreleased]: they belong to this version")
        if heading.startswith(f"[{version}]"):
            if not re.fullmatch(r"\[.+\] - \d{4}-\d{2}-\d{2}", heading):
                sys.exit(f"CHANGELOG.md gives no date of {version}: {heading!r}")
            return text.strip()
    sys.exit(f"CHANGELOG.md has no section [{version}]")


(_, tag) = sys.argv
version = tomllib.loads(Path("pyproject.toml").read_text())["project"]["version"]
print(notes(tag, version, Path("CHANGELOG.md").read_text()))
