"""Errors are one tree: whose fault it is decides the branch."""

from __future__ import annotations

import inspect
import re

import pytest

from asgi_sessions import (
    ConfigurationError,
    InvalidSession,
    SessionsError,
    SessionsUnavailable,
    _errors,
)

ERRORS = [ConfigurationError, InvalidSession, SessionsUnavailable]


@pytest.mark.parametrize("error", ERRORS)
def test_one_base_catches_everything(error: type[Exception]) -> None:
    assert error.__bases__[0] is SessionsError


def test_the_base_is_an_exception_and_nothing_more_special() -> None:
    assert SessionsError.__bases__ == (Exception,)


@pytest.mark.parametrize("error", [ConfigurationError, InvalidSession])
def test_a_wrong_value_is_a_value_error_too(error: type[Exception]) -> None:
    assert issubclass(error, ValueError)


def test_an_outage_is_nobodys_wrong_value() -> None:
    assert not issubclass(SessionsUnavailable, ValueError)


def test_no_error_is_a_kind_of_another() -> None:
    for error in ERRORS:
        assert [one for one in ERRORS if issubclass(error, one)] == [error]


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = re.findall(r"^( *)\* (\w+)", _errors.__doc__ or "", flags=re.MULTILINE)
    defined = [
        ("" if value is SessionsError else "    ", name)
        for name, value in vars(_errors).items()
        if inspect.isclass(value) and issubclass(value, Exception)
    ]
    assert drawn == defined


def test_an_invalid_session_tells_its_faults_by_field() -> None:
    error = InvalidSession({"person_id": ["is missing"], "app_id": ["is odd", "is long"]})
    assert error.errors == {"person_id": ["is missing"], "app_id": ["is odd", "is long"]}
    assert str(error) == "person_id is missing; app_id is odd; app_id is long"


def test_the_faults_of_an_invalid_session_are_its_own() -> None:
    given = {"person_id": ["is missing"]}
    error = InvalidSession(given)
    given["person_id"].append("is somebody else's")
    assert error.errors == {"person_id": ["is missing"]}


def test_an_outage_says_when_to_ask_again() -> None:
    assert SessionsUnavailable("no answer").retry_after == 1
    error = SessionsUnavailable("no answer", retry_after=30)
    assert (str(error), error.retry_after) == ("no answer", 30)
