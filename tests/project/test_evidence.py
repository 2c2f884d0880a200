"""docs/evidence.md names the tests of what other pages claim; those pages name none."""

from __future__ import annotations

import re

import pytest

from tests.support.pages import ASVS, faults, table
from tests.support.repository import DOCS, PAGES, ROOT

PAGE = DOCS / "evidence.md"
SECURITY, DATABASES = DOCS / "security.md", DOCS / "databases.md"
#: The files whose tests are all evidence.
ALL = ("test_auth_session.py", "test_differences.py", "test_races.py", "test_security.py")

_NAMED = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")


def claims(heading: str) -> list[str]:
    """The claims under a heading of the page."""
    return [claim for claim, _ in table(PAGE, heading)]


def cases_in(file: str) -> list[str]:
    """The tests that a file has."""
    return re.findall(r"^(?:async )?def (test_\w+)\(", (ROOT / file).read_text(), re.MULTILINE)


def test_each_test_that_is_named_exists() -> None:
    for file, test in _NAMED.findall(PAGE.read_text()):
        assert (ROOT / file).is_file(), file
        assert not test or test in cases_in(file), f"{file}::{test}"


def test_each_line_is_a_claim_with_its_tests() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert lines
    for line in lines:
        claim, tests = (cell.strip() for cell in line.strip("|").split("|"))
        if (claim, tests) != ("claim", "tests"):
            assert claim
            named = tests.split("<br>")
            assert all(map(_NAMED.fullmatch, named)), line
            assert len(named) == len({*named}), line


@pytest.mark.parametrize("name", ALL)
def test_each_test_of_what_can_go_wrong_is_named(name: str) -> None:
    named = _NAMED.findall(PAGE.read_text())
    (file,) = {file for file, _ in named if file.endswith(f"/{name}")}
    assert {test for other, test in named if other == file} == {*cases_in(file)}


@pytest.mark.parametrize("heading", ["What must never happen", "Threats"])
def test_each_threat_has_evidence(heading: str) -> None:
    assert claims(heading) == [threat for threat, _ in table(SECURITY, heading)]


def test_what_asvs_asks_for_has_evidence_where_the_page_says_so() -> None:
    rows = [row for row in table(SECURITY, ASVS) if "(evidence.md#" in row[-1]]
    assert claims(ASVS) == [f"{number} {asks}" for number, _, asks, _, _ in rows]


def test_each_difference_between_databases_has_evidence() -> None:
    rows = table(DATABASES, "Where databases differ")
    assert claims("Where databases differ") == [difference for difference, _ in rows]


def test_each_race_has_evidence() -> None:
    rows = table(DATABASES, "Races")
    assert claims("Races") == [f"{number}: {race}" for number, race, _ in rows]
    for claim, tests in table(PAGE, "Races"):
        number = claim.partition(":")[0].lower()
        assert all(test.startswith(f"test_{number}_") for _, test in _NAMED.findall(tests)), claim


def test_each_function_of_auth_session_has_evidence() -> None:
    functions = [there for there, _, _ in table(DOCS / "auth_session.md", "The seven functions")]
    assert claims("The seven functions")[: len(functions)] == functions


def test_each_fault_of_auth_session_that_applies_has_evidence() -> None:
    headings = ("Lookup and start", "User-Agent and address", "Validity", "Ending")
    rows = [row for heading in headings for row in table(PAGE, heading)]
    applies = [row for row in faults() if not row[2].startswith("Does not apply")]
    assert [claim for claim, _ in rows] == [f"{number}: {here}" for number, _, here in applies]
    for (_, tests), (number, _, _) in zip(rows, applies, strict=True):
        assert f"::test_{number.lower()}_" in tests


def test_no_other_page_names_a_test() -> None:
    for page in PAGES:
        assert page == PAGE or "::test_" not in page.read_text(), page.name
