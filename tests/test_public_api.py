"""What the outside can rely on: names, signatures, documentation, types."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections.abc import Callable
from datetime import UTC, timedelta
from importlib.resources import files
from types import FunctionType
from typing import Any
from unittest.mock import ANY

import pytest

import asgi_sessions
from asgi_sessions import AAL1, Lifetimes, SessionMiddleware, Sessions, person_from_scope

#: DESIGN §7.
NAMES = {
    *("Sessions", "SessionMiddleware", "Session", "Person", "Changeset", "changeset"),
    *("person_from_scope", "Lifetimes", "AAL1", "AAL2", "AAL3", "BANKING"),
    *("SessionsError", "ConfigurationError", "InvalidSession", "SessionsUnavailable"),
}
#: What a handler of `on_event` is given.
ADDED_NAMES = {"Incident", "SessionEvent"}

REQUIRED = inspect.Parameter.empty
#: DESIGN §7, in its order. The clock is the system's: a test of its own.
OPTIONS = {
    "secret_key": REQUIRED,
    "old_secret_keys": (),
    "app_id": "default",
    "lifetimes": AAL1,
    "cookie_name": "sid",
    "cookie_secure": True,
    "cookie_samesite": "lax",
    "cookie_domain": None,
    "cookie_path": "/",
    "cookie_partitioned": False,
    "auto_start": True,
    "store_ip": "full",
    "touch_interval": timedelta(seconds=60),
    "max_sessions_per_person": None,
    "keep_ended": timedelta(days=90),
    "on_unavailable": "error",
    "on_event": None,
    "table_name": "sessions",
    "clock": ANY,
}
#: The first has its default from DESIGN §5.
ADDED_OPTIONS = {
    "socket_check_interval": timedelta(seconds=5),
    "timeout": timedelta(seconds=5),
    "dbsc": None,
}
#: What is imported by itself, because it needs more than the package does.
PUBLIC_MODULES = {"dbsc"}

PROPERTIES = {"database", "metadata", "table", "cookie_name"}
#: DESIGN §1 and §7.
COROUTINES = {
    "insert": "(self, conn, person)",
    "start_session": "(self, conn, person, *, remember=True)",
    "get": "(self, conn)",
    "get_by_id": "(self, sid_or_conn)",
    "update_session_end": "(self, conn, *, reason)",
    "end_session": "(self, conn, *, reason='logout')",
    "create_tables": "(self)",
    "connect": "(self)",
    "disconnect": "(self)",
    "renew_session": "(self, conn)",
    "list_sessions": (
        "(self, person_id, *, app_id=None, include_ended=False, limit=100, before=None)"
    ),
    "end_session_by_id": "(self, sid, *, person_id=None, reason='revoked')",
    "end_other_sessions": "(self, conn)",
    "end_all_sessions": "(self, person_id, *, app_id=None, except_sid=None)",
    "purge": "(self, *, batch_size=1000)",
}
PLAIN = {
    "ddl": "(self, dialect)",
    "lifespan": "(self, app)",
    "is_fresh": "(self, conn, max_age)",
    "end_session_endpoint": "(self, *, redirect_to=None)",
}

PUBLIC_OBJECTS = [getattr(asgi_sessions, name) for name in asgi_sessions.__all__]


def shape(function: Callable[..., Any]) -> str:
    """A signature without its annotations."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=REQUIRED) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=REQUIRED))


def members(thing: type) -> dict[str, Any]:
    """What a class has of its own and shows."""
    return {name: value for name, value in vars(thing).items() if not name.startswith("_")}


# --- names ----------------------------------------------------------------------------------------


def test_all_is_sorted() -> None:
    assert asgi_sessions.__all__ == sorted(asgi_sessions.__all__)


def test_all_lists_every_public_name_and_no_other() -> None:
    public = {
        name
        for name, value in vars(asgi_sessions).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(asgi_sessions.__all__) == public


def test_the_names_are_those_of_the_design_and_the_listed_additions() -> None:
    assert set(asgi_sessions.__all__) == NAMES | ADDED_NAMES


def test_every_module_is_private_but_those_of_extras() -> None:
    modules = [module.name for module in pkgutil.iter_modules(asgi_sessions.__path__)]
    assert modules
    assert {name for name in modules if not name.startswith("_")} == PUBLIC_MODULES


def test_the_package_says_that_it_is_typed() -> None:
    assert files(asgi_sessions).joinpath("py.typed").is_file()


# --- signatures -----------------------------------------------------------------------------------


def test_sessions_takes_a_database_and_options_by_keyword() -> None:
    database, *options = inspect.signature(Sessions).parameters.values()
    assert (database.name, database.default) == ("database", REQUIRED)
    assert database.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {option.kind for option in options} == {inspect.Parameter.KEYWORD_ONLY}


def test_the_options_of_sessions_are_those_of_the_design_then_the_listed_additions() -> None:
    _, *options = inspect.signature(Sessions).parameters.values()
    expected = OPTIONS | ADDED_OPTIONS
    assert [option.name for option in options] == list(expected)
    assert {option.name: option.default for option in options} == expected


def test_the_clock_is_the_systems_unless_another_is_given() -> None:
    clock = inspect.signature(Sessions).parameters["clock"].default
    earlier, later = clock(), clock()
    assert earlier <= later
    assert earlier.tzinfo is UTC


def test_sessions_has_the_members_of_the_design_and_no_other() -> None:
    assert set(members(Sessions)) == PROPERTIES | set(COROUTINES) | set(PLAIN)


@pytest.mark.parametrize(("name", "signature"), [*COROUTINES.items(), *PLAIN.items()])
def test_a_method_has_the_signature_of_the_design(name: str, signature: str) -> None:
    assert shape(getattr(Sessions, name)) == signature


@pytest.mark.parametrize("name", [*COROUTINES, *PLAIN])
def test_a_method_is_awaited_where_the_design_says_so(name: str) -> None:
    assert inspect.iscoroutinefunction(getattr(Sessions, name)) is (name in COROUTINES)


@pytest.mark.parametrize("name", sorted(PROPERTIES))
def test_what_is_read_without_a_call_is_a_property(name: str) -> None:
    assert isinstance(vars(Sessions)[name], property)


def test_the_middleware_takes_the_app_first_and_the_rest_by_keyword() -> None:
    app, sessions, person = inspect.signature(SessionMiddleware).parameters.values()
    assert (app.name, app.default) == ("app", REQUIRED)
    assert app.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert (sessions.name, sessions.default) == ("sessions", REQUIRED)
    assert (person.name, person.default) == ("person", person_from_scope)
    assert {sessions.kind, person.kind} == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("changeset", "(session, attrs)"),
        ("person_from_scope", "(scope)"),
        ("Lifetimes", "(*, idle, absolute)"),
        (
            "Person",
            "(id, app_id=None, auth_provider=None, authenticated_at=None, sid=None)",
        ),
    ],
)
def test_a_name_is_called_as_documented(name: str, signature: str) -> None:
    assert shape(getattr(asgi_sessions, name)) == signature


def test_a_changeset_shows_valid_changes_and_errors() -> None:
    made = asgi_sessions.changeset(None, {})
    assert (made.valid, made.changes) == (False, {})
    assert set(made.errors) == {"app_id", "person_id"}


# --- documentation --------------------------------------------------------------------------------


@pytest.mark.parametrize("documented", [Sessions, SessionMiddleware])
def test_every_argument_is_documented_in_the_order_of_the_signature(documented: type) -> None:
    text = inspect.getdoc(documented) or ""
    _, _, arguments = text.partition("Args:\n")
    arguments, _, _ = arguments.partition("\n\n")
    named = re.findall(r"^    (\w+): \S", arguments, flags=re.MULTILINE)
    assert named == list(inspect.signature(documented).parameters)


@pytest.mark.parametrize(
    "thing",
    [thing for thing in PUBLIC_OBJECTS if not isinstance(thing, Lifetimes)],
    ids=lambda thing: thing.__name__,
)
def test_every_public_object_is_documented_and_so_is_what_it_shows(
    thing: type | FunctionType,
) -> None:
    # A dataclass without a docstring gets its signature for one.
    assert thing.__doc__
    assert not thing.__doc__.startswith(f"{thing.__name__}(")
    if isinstance(thing, type):
        for name, member in members(thing).items():
            if inspect.isroutine(member) or isinstance(member, property):
                assert inspect.getdoc(member), f"{thing.__name__}.{name}"
