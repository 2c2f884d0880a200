"""A hook of MkDocs: take pages into the site that stand outside of docs/.

On a forge, and in the source distribution, docs/security.md links to ../SECURITY.md. The site has
no directory above it, so the file joins the pages, and the link loses its two dots; links of that
file to docs/ lose their first part.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: What pages link to, and the pictures of these pages.
OUTSIDE = (
    "CHANGELOG.md",
    "CODE_OF_CONDUCT.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *(str(path.relative_to(ROOT)) for path in sorted(ROOT.glob("benchmarks/*.svg"))),
    "benchmarks/RESULTS.md",
)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files outside of docs/."""
    for name in OUTSIDE:
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Link to them where they are in the site."""
    return re.sub(r"\]\((\.\./|docs/)", "](", markdown)
