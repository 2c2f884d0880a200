"""What the outside can rely on: names, signatures, documentation, types."""

from __future__ import annotations

import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, timedelta
from enum import Enum
from importlib import import_module
from importlib.resources import files
from types import FunctionType
from typing import Any
from unittest.mock import ANY

import pytest

import asgi_sessions
from asgi_sessions import (
    AAL1,
    Lifetimes,
    SessionMiddleware,
    Sessions,
    person_from_scope,
    sign_out_of_scope,
)
from tests.support.libraries import need

#: DESIGN §7.
NAMES = {
    *("Sessions", "SessionMiddleware", "Session", "Person", "Changeset", "changeset"),
    *("person_from_scope", "Lifetimes", "AAL1", "AAL2", "AAL3", "BANKING"),
    *("SessionsError", "ConfigurationError", "InvalidSession", "SessionsUnavailable"),
}
#: What a handler of `on_event` is given, and a template of `Sessions.routes`.
ADDED_NAMES = {"Incident", "SessionEvent", "DevicesPage"}
NAMES |= {"ALL_APPS", "ANYBODY", "sign_out_of_scope"}
#: DESIGN §14, and what it needs beside it.
NAMES |= {"CrossOriginProtection"}  # DESIGN §13
NAMES |= {"ImpersonationRefused"}  # DESIGN §12
NAMES |= {"IssuedToken", "Watch"}  # DESIGN §12, and what `watch` returns
NAMES |= {"SessionData", "SessionDict", "DataMethods", "MISSING", "StarletteCookie"}

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
    "end_streams": False,
    "notify": False,
    "timeout": timedelta(seconds=5),
    "dbsc": None,
    "browser_lifetimes": None,
    "exclude": (),
    "touch": None,
    "trusted_origins": (),
    "issuer": None,
    "max_scope_sessions": 50,
    "connection_max_idle": timedelta(minutes=4),
    "bearer": False,
    "data": False,
    "visitor_lifetimes": Lifetimes(absolute=timedelta(days=14), idle=timedelta(days=3)),
    "device_cookie": None,
}

PROPERTIES = {"database", "metadata", "table", "cookie_name", "data"}
#: DESIGN §1 and §7.
COROUTINES = {
    "insert": "(self, conn, person, *, connection=None)",
    "start_session": "(self, conn, person, *, remember=True, connection=None)",
    "get": "(self, conn)",
    "get_by_id": "(self, sid_or_conn)",
    "update_session_end": "(self, conn, *, reason)",
    "end_session": "(self, conn, *, reason='logout', connection=None)",
    "create_tables": "(self)",
    "connect": "(self)",
    "disconnect": "(self)",
    "renew_session": "(self, conn, *, acr=None, amr=(), authenticated_at=None, connection=None)",
    "list_sessions": (
        "(self, person_id, *, app_id=None, include_ended=False, limit=100, before=None)"
    ),
    "rotate_session": "(self, conn, *, connection=None)",
    "impersonate": (
        "(self, conn, person, *, reason, lifetime=datetime.timedelta(seconds=3600), "
        "connection=None)"
    ),
    "stop_impersonating": "(self, conn)",
    "end_session_by_id": (
        "(self, sid, *, person_id=<_Anybody.ANYBODY: 'anybody'>, app_id=None, reason='revoked', "
        "connection=None)"
    ),
    "end_other_sessions": "(self, conn, *, connection=None)",
    "end_all_sessions": "(self, person_id, *, app_id=None, except_sid=None, connection=None)",
    "readmit": "(self, person_id, *, app_id=None)",
    "purge": "(self, *, batch_size=1000)",
    "start_token": "(self, conn, person, *, lifetimes=None, connection=None)",
    "renew_token": "(self, conn, *, acr=None, amr=(), authenticated_at=None, connection=None)",
    "authenticate": "(self, headers)",
}
PLAIN = {
    "ddl": "(self, dialect)",
    "end_all_statement": "(self, person_id, *, app_id=None, except_sid=None, reason='revoked')",
    "lifespan": "(self, app)",
    "is_fresh": "(self, conn, max_age)",
    "current": "(self, conn)",
    "no_touch": "(self, conn)",
    "watch": "(self, session, close)",
    "end_session_endpoint": "(self, *, redirect_to=None, clear_site_data=())",
    "routes": (
        "(self, *, html=True, fresh_for=None, login_url=None, confirm_url=None, home_url=None,"
        " template=None, translate=None, language=None, time_zone=None, links=None,"
        " form_fields=None)"
    ),
}

#: Modules that are imported by their names.
PUBLIC_MODULES = {
    *("dbsc", "fastapi", "fastapi_users", "jwt", "litestar", "oidc", "ssf", "starlette", "testing"),
}
PUBLIC_OBJECTS = [getattr(asgi_sessions, name) for name in asgi_sessions.__all__]


def shape(function: Callable[..., Any]) -> str:
    """A signature without its annotations."""
    signature = inspect.signature(function)
    bare = [p.replace(annotation=REQUIRED) for p in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=REQUIRED))


def members(thing: type) -> dict[str, Any]:
    """What a class shows of its own, and of the classes of the package that it is made of."""
    classes = [one for one in thing.__mro__ if one.__module__.startswith("asgi_sessions")]
    return {
        name: value
        for one in reversed(classes)
        for name, value in vars(one).items()
        if not name.startswith("_")
    }


# --- names ----------------------------------------------------------------------------------------


def test_all_lists_every_public_name_and_no_other() -> None:
    public = {
        name
        for name, value in vars(asgi_sessions).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert set(asgi_sessions.__all__) == public


def test_the_names_are_those_of_the_design_and_the_listed_additions() -> None:
    assert set(asgi_sessions.__all__) == NAMES | ADDED_NAMES


def test_the_public_modules_are_those_for_frameworks_and_for_tests() -> None:
    modules = [module.name for module in pkgutil.iter_modules(asgi_sessions.__path__)]
    assert {name for name in modules if not name.startswith("_")} == PUBLIC_MODULES


@pytest.mark.parametrize("name", sorted(PUBLIC_MODULES))
def test_a_public_module_lists_its_names_and_documents_them(name: str) -> None:
    if name == "fastapi_users":
        need(name)
    module = import_module(f"asgi_sessions.{name}")
    assert module.__doc__
    assert module.__all__ == sorted(module.__all__)
    own = {n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__}
    assert {n for n in own if not n.startswith("_")} <= set(module.__all__)
    for shown in own & set(module.__all__):
        assert inspect.getdoc(getattr(module, shown)), shown


def test_the_package_imports_no_framework_that_it_can_do_without() -> None:
    code = "import sys, asgi_sessions.testing, asgi_sessions.starlette; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"fastapi", "litestar", "pydantic"} & set(done.stdout.split())


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
    parameters = inspect.signature(SessionMiddleware).parameters
    app, sessions, person, sign_out, on_signed_out = parameters.values()
    assert (app.name, app.default) == ("app", REQUIRED)
    assert app.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert (sessions.name, sessions.default) == ("sessions", REQUIRED)
    assert (person.name, person.default) == ("person", person_from_scope)
    assert (sign_out.name, sign_out.default) == ("sign_out", sign_out_of_scope)
    assert (on_signed_out.name, on_signed_out.default) == ("on_signed_out", "anonymous")
    kinds = {one.kind for one in (sessions, person, sign_out, on_signed_out)}
    assert kinds == {inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize(
    ("name", "signature"),
    [
        ("changeset", "(session, attrs)"),
        ("person_from_scope", "(scope)"),
        ("Lifetimes", "(*, idle, absolute)"),
        (
            "Person",
            (
                "(id, app_id=None, auth_provider=None, authenticated_at=None, sid=None,"
                " acr=None, amr=(), issued_at=None, issuer=None, subject=None, provider_sid=None)"
            ),
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
    [thing for thing in PUBLIC_OBJECTS if not isinstance(thing, Lifetimes | Enum)],
    ids=lambda thing: getattr(thing, "__name__", repr(thing)),
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
