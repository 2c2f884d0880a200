"""What the files for contributors and for CI say agrees with the rest of the repository."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # its types are a package of their own

from tests.conftest import ALONE, FIRST, LOAD
from tests.support.repository import ROOT

WORKFLOWS = ROOT / ".github/workflows"
HOOKS = ROOT / ".pre-commit-config.yaml"
FORMS = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").iterdir() if path.stem != "config"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

each_workflow = pytest.mark.parametrize(
    "workflow", sorted(WORKFLOWS.iterdir()), ids=lambda path: path.stem
)


def load(path: Path) -> Any:
    """What a YAML file says; the key ``on`` of a workflow is True in YAML 1.1."""
    return yaml.safe_load(path.read_text())


def steps(path: Path) -> Iterator[dict[str, Any]]:
    """The steps of all jobs of a workflow."""
    for job in load(path)["jobs"].values():
        yield from job.get("steps", ())


def targets() -> set[str]:
    """What `make` lists."""
    makefile = (ROOT / "Makefile").read_text()
    return set(re.findall(r"^([a-z]+):.*  ## ", makefile, re.MULTILINE))


def made(text: str) -> set[str]:
    """The targets that commands make."""
    return set(re.findall(r"\bmake ([a-z]+)\b", text))


# --- CI and the release ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted([*(ROOT / ".github").rglob("*.yml"), HOOKS]), ids=lambda path: path.name
)
def test_each_yaml_file_can_be_read(path: Path) -> None:
    assert isinstance(load(path), dict)


def test_ci_runs_on_each_version_of_python_that_the_package_names() -> None:
    named = set(re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE))
    matrix = load(WORKFLOWS / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    assert named
    assert named <= set(matrix["python"])
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert matrix["python"][0] == lowest
    everything = load(WORKFLOWS / "ci.yml")["jobs"]["everything"]
    assert everything["container"].startswith(f"python:{lowest}-")


def test_ci_gives_each_database_of_its_matrix_a_url_and_a_service() -> None:
    job = load(WORKFLOWS / "ci.yml")["jobs"]["test"]
    matrix = job["strategy"]["matrix"]
    (servers,) = matrix["include"]
    assert matrix["databases"] == ["SQLite", servers["databases"]]
    schemes = [url.partition(":")[0] for url in servers["urls"].split()]
    assert schemes == ["postgresql", "mysql", "mysql+asyncmy"]
    for name, service in job["services"].items():
        assert service["image"] == f"${{{{ matrix.{name} }}}}"
        assert servers[name]


@each_workflow
def test_a_workflow_pins_what_it_runs_and_has_few_rights(workflow: Path) -> None:
    content = load(workflow)
    assert content["permissions"] == {}
    for job in content["jobs"].values():
        assert job["permissions"]
    for step in steps(workflow):
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step["uses"])


@each_workflow
def test_a_workflow_runs_what_is_there(workflow: Path) -> None:
    commands = "\n".join(step.get("run", "") for step in steps(workflow))
    assert made(commands) <= targets()
    for script in re.findall(r"\.ci/[\w.]+", commands):
        assert (ROOT / script).is_file(), script


def test_what_builds_a_release_may_neither_sign_nor_publish() -> None:
    jobs = load(WORKFLOWS / "release.yml")["jobs"]
    assert jobs["build"]["permissions"] == {"contents": "read"}
    assert set(jobs["attest"]["needs"]) == {"ci", "build"}
    assert jobs["publish"]["needs"] == ["attest"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert jobs["publish"]["environment"] == "pypi"


# --- the notes of a release -----------------------------------------------------------------------

CHANGES = """\
# Changelog

## [Unreleased]

## [0.2.0] - 2027-01-31

### Added

- Something.

## [0.1.0] - not yet released

- Everything.
"""


def release_notes(directory: Path, version: str, tag: str, changes: str = CHANGES) -> str:
    """What the release of a version is told to say, or why it is refused."""
    (directory / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    (directory / "CHANGELOG.md").write_text(changes)
    done = subprocess.run(
        [sys.executable, str(ROOT / ".ci/release_notes.py"), tag],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (done.stderr == "")
    return done.stdout + done.stderr


def test_the_notes_of_a_release_are_its_section_of_the_changelog(tmp_path: Path) -> None:
    assert release_notes(tmp_path, "0.2.0", "v0.2.0") == "### Added\n\n- Something.\n"


@pytest.mark.parametrize(
    ("version", "tag", "changes", "why"),
    [
        ("0.2.0", "v0.2.1", CHANGES, "the tag v0.2.1 is not v0.2.0"),
        ("0.3.0", "v0.3.0", CHANGES, "no section [0.3.0]"),
        ("0.1.0", "v0.1.0", CHANGES, "no date of 0.1.0"),
        (
            "0.2.0",
            "v0.2.0",
            CHANGES.replace("[Unreleased]\n", "[Unreleased]\n\n- More.\n"),
            "under [Unreleased]",
        ),
    ],
)
def test_a_release_whose_tag_version_and_changelog_disagree_is_refused(
    tmp_path: Path, version: str, tag: str, changes: str, why: str
) -> None:
    assert why in release_notes(tmp_path, version, tag, changes)


# --- all tests run --------------------------------------------------------------------------------


def test_make_looks_for_tests_that_run_alone_where_they_are() -> None:
    makefile = (ROOT / "Makefile").read_text()
    (command,) = re.findall(r"^\t.* -m pytest .*-m alone .*$", makefile, re.MULTILINE)
    named = [ROOT / word for word in command.split() if word.startswith("tests/")]
    for name in ALONE:
        (path,) = (ROOT / "tests").rglob(f"{name}.py")
        assert any(path.is_relative_to(place) for place in named), path
    assert '-m "not alone"' in makefile


def test_what_is_named_to_begin_first_or_to_make_load_is_there() -> None:
    there = {path.stem for path in (ROOT / "tests").rglob("*")}
    assert there > {*FIRST, *LOAD}


def test_the_tests_of_each_library_run_where_it_is_installed() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    assert {"include-group": "libraries"} in groups["tests-servers"]
    makefile = (ROOT / "Makefile").read_text()
    assert '"$scratch/check" apart' in (ROOT / ".ci/run").read_text()
    assert "TEST_APART=1 $(VENV)/apart/bin/python -m pytest $$file" in makefile
    for group, room in (("libraries", "."), ("libraries-apart", "apart")):
        files = [path.read_text() for path in (ROOT / "tests/libraries" / room).glob("test_*.py")]
        needed = {
            name for text in files for name in re.findall(r'^need\("(\w+)"', text, re.MULTILINE)
        }
        named = {
            re.split(r"[^\w-]", one)[0].lower().removeprefix("python-").replace("-", "_")
            for one in groups[group]
            if isinstance(one, str)
        }
        assert needed == named


# --- for contributors -----------------------------------------------------------------------------


def test_the_hooks_before_a_commit_are_checks_of_make_check() -> None:
    recipe = (ROOT / "Makefile").read_text().partition("\ncheck:")[2].partition("\n\n")[0]
    checks = [line.strip().removeprefix("$(python) ") for line in recipe.splitlines()[1:]]
    repositories = load(HOOKS)["repos"]
    assert [one["repo"] for one in repositories] == ["local"]  # nothing is fetched
    for hook in repositories[0]["hooks"]:
        python, *command = shlex.split(hook["entry"])
        assert python == ".venv/bin/python"
        assert " ".join(word for word in command if word != "--force-exclude") in checks


def test_the_guide_for_contributors_names_what_is_there() -> None:
    guide = (ROOT / "CONTRIBUTING.md").read_text()
    assert made("\n".join(re.findall(r"^make .*$|`make .*?`", guide, re.MULTILINE))) <= targets()
    for path in re.findall(r"\b(?:tests|\.ci|\.github)/[\w./]+\w", guide):
        assert (ROOT / path).exists(), path
    for variable in re.findall(r"\bTEST_\w+", guide):
        assert any(variable in path.read_text() for path in (ROOT / "tests").rglob("*.py"))


@pytest.mark.parametrize("form", sorted(FORMS), ids=lambda form: form.stem)
def test_an_issue_form_asks_each_question_once(form: Path) -> None:
    content = load(form)
    assert content["name"]
    assert content["description"]
    asked = [part["id"] for part in content["body"] if part["type"] != "markdown"]
    assert asked
    assert len(set(asked)) == len(asked)


def test_who_reports_a_bug_is_told_where_vulnerabilities_go() -> None:
    notice = load(ROOT / ".github/ISSUE_TEMPLATE/bug.yml")["body"][0]
    assert notice["type"] == "markdown"
    (way,) = re.findall(r"Use \*(.*?)\*", (ROOT / "SECURITY.md").read_text())
    for text in (notice["attributes"]["value"], (ROOT / "CODE_OF_CONDUCT.md").read_text()):
        assert f"*{way}*" in text
