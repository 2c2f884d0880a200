"""Who is logged in: read from whatever another layer left in the scope."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from starlette.authentication import BaseUser, SimpleUser, UnauthenticatedUser

from asgi_sessions import ConfigurationError, Person, Sessions, person_from_scope
from tests.support import Browser, make_app

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
NOON_IN_SECONDS = 1767268800  # since 1970
NO_METHODS: list[Any] = [None, [], "", " ", 7, b"pwd", {"pwd": True}]
SOME_UUID = UUID("0f8fad5b-d9cb-469f-a165-70867728950e")


class Nameless(BaseUser):
    """Of Starlette's kind; `identity` is left to raise NotImplementedError."""

    @property
    def is_authenticated(self) -> bool:
        return True


@dataclass
class Account:
    """A row of an app's own table of people."""

    id: int
    name: str = "Ada"


# --- the id ---------------------------------------------------------------------------------------


class UserOfOldStarlette(SimpleUser):
    """As SimpleUser is below Starlette 1.7."""

    @property
    def identity(self) -> str:
        raise NotImplementedError


@pytest.mark.parametrize("person", ["ada", 7, 0, SOME_UUID])
def test_a_bare_id_is_a_person(person: object) -> None:
    assert Person.of(person) == Person(person)


def test_a_person_stays_as_they_are() -> None:
    person = Person("ada", "shop", "google", NOON, "s")
    assert Person.of(person) == person


def test_a_person_of_a_class_of_the_apps_is_one_of_ours() -> None:
    class Member(Person):
        """Who is in the club."""

    person = Person.of(Member("ada", "shop", issuer="https://id.example", subject="7"))
    assert type(person) is Person
    assert person == Person("ada", "shop", issuer="https://id.example", subject="7")


@pytest.mark.parametrize(
    ("person", "expected"),
    [
        ({"id": 7}, 7),
        ({"identity": "ada"}, "ada"),
        ({"sub": "auth0|ada"}, "auth0|ada"),
        (MappingProxyType({"sub": SOME_UUID}), SOME_UUID),
        (SimpleNamespace(id=7), 7),
        (SimpleNamespace(identity="ada"), "ada"),
        (SimpleNamespace(sub="auth0|ada"), "auth0|ada"),
        (SimpleUser("ada"), "ada"),
        (UserOfOldStarlette("ada"), "ada"),
        (Account(7), 7),
    ],
)
def test_the_id_is_found_in_mappings_and_objects(person: object, expected: object) -> None:
    assert Person.of(person).id == expected


@pytest.mark.parametrize(
    "person", [{"id": 1, "identity": 2, "sub": 3}, {"id": None, "identity": 1, "sub": 3}]
)
def test_the_id_is_looked_for_in_one_order(person: dict[str, Any]) -> None:
    assert Person.of(person).id == 1
    assert Person.of(SimpleNamespace(**person)).id == 1


def test_an_id_of_zero_is_an_id() -> None:
    assert Person.of({"id": 0, "sub": 3}).id == 0


@pytest.mark.parametrize(
    ("person", "kind", "looked_for"),
    [
        ({}, "dict", "keys id, identity, sub"),
        ({"name": "Ada"}, "dict", "keys id, identity, sub"),
        ({"id": None}, "dict", "keys id, identity, sub"),
        (object(), "object", "attributes id, identity, sub"),
        (Nameless(), "Nameless", "attributes id, identity, sub"),
        (None, "NoneType", "attributes id, identity, sub"),
        (True, "bool", "attributes id, identity, sub"),
        (1.5, "float", "attributes id, identity, sub"),
        (b"ada", "bytes", "attributes id, identity, sub"),
        (["ada"], "list", "attributes id, identity, sub"),
    ],
)
def test_a_person_without_an_id_is_refused_with_the_places_and_the_mend(
    person: object, kind: str, looked_for: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Person.of(person)
    message = str(caught.value)
    assert f"({kind}) has no id: looked for the {looked_for}" in message
    assert "Give it one, or pass SessionMiddleware(person=...)" in message


# --- the other facts ------------------------------------------------------------------------------


def test_what_a_person_does_not_say_is_unknown() -> None:
    assert Person.of({"id": "ada"}) == Person(
        "ada", app_id=None, auth_provider=None, authenticated_at=None, sid=None
    )


def test_all_facts_are_read_from_keys_and_from_attributes() -> None:
    facts = {
        "id": "ada",
        "app_id": "shop",
        "auth_provider": "google",
        "authenticated_at": NOON,
        "sid": "s",
        "acr": "silver",
        "amr": ["pwd", "otp"],
    }
    expected = Person("ada", "shop", "google", NOON, "s", "silver", ("pwd", "otp"))
    assert Person.of(facts) == expected
    assert Person.of(SimpleNamespace(**facts)) == expected


def test_facts_become_text() -> None:
    person = Person.of({"id": 7, "app_id": 3, "auth_provider": 5, "sid": SOME_UUID})
    assert person == Person(7, "3", "5", None, str(SOME_UUID))


def test_an_empty_provider_is_unknown() -> None:
    assert Person.of({"id": 7, "auth_provider": ""}).auth_provider is None


def test_an_empty_assurance_is_unknown() -> None:
    assert Person.of({"id": 7, "acr": ""}).acr is None
    assert Person.of(Person(7, acr="")).acr is None


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["pwd", "otp"], ("pwd", "otp")),
        (("pwd",), ("pwd",)),
        ("pwd otp", ("pwd", "otp")),  # as some providers send it
        ([7], ("7",)),
        *[(given, ()) for given in NO_METHODS],
    ],
)
def test_methods_are_read_from_lists_and_from_text(given: Any, read: tuple[str, ...]) -> None:
    assert Person.of({"id": 7, "amr": given}).amr == read
    assert Person.of(Person(7, amr=given)).amr == read


@pytest.mark.parametrize(
    "claims",
    [
        {"auth_time": NOON_IN_SECONDS},
        {"auth_time": float(NOON_IN_SECONDS)},
        {"auth_time": NOON_IN_SECONDS, "iat": NOON_IN_SECONDS + 99},
        {"authenticated_at": NOON, "auth_time": 1, "iat": 2},
        {"authenticated_at": NOON_IN_SECONDS},
    ],
)
def test_the_time_of_authentication_is_read_from_claims(claims: dict[str, Any]) -> None:
    assert Person.of({"sub": "ada", **claims}).authenticated_at == NOON


def test_when_a_token_was_issued_proves_nothing_but_dates_it() -> None:
    person = Person.of({"sub": "ada", "iat": NOON_IN_SECONDS})
    assert person.authenticated_at is None
    assert (person.issued_at, person.proof) == (NOON, NOON)
    both = Person.of({"sub": "ada", "iat": NOON_IN_SECONDS + 99, "auth_time": NOON_IN_SECONDS})
    assert both.proof == NOON


@pytest.mark.parametrize(
    "garbage",
    [
        *(NOON.replace(tzinfo=None), "2026-01-01T12:00:00Z", True, "", [], {}),
        *(float("nan"), float("inf"), -float("inf"), 1e300, -1e300, 10**18, -(10**400)),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))),  # in UTC it is no year
        *(datetime(999, 12, 31, tzinfo=UTC), datetime(9999, 1, 1, tzinfo=UTC), -62135596800),
    ],
)
@pytest.mark.parametrize("claim", ["authenticated_at", "auth_time", "iat"])
def test_garbage_proves_no_authentication(claim: str, garbage: object) -> None:
    assert Person.of({"id": "ada", claim: garbage}).authenticated_at is None


def test_a_time_without_a_zone_proves_no_authentication_in_a_person_either() -> None:
    person = Person("ada", authenticated_at=NOON.replace(tzinfo=None))
    assert Person.of(person).authenticated_at is None


# --- in the scope ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"state": {}},
        {"state": {"person": None}},
        {"state": None, "user": None},
        {"state": SimpleNamespace(person="ada")},
        {"user": UnauthenticatedUser()},
        {"user": {"id": "ada", "is_authenticated": False}},
    ],
)
def test_nobody_is_in_the_scope(scope: dict[str, Any]) -> None:
    assert person_from_scope(scope) is None


@pytest.mark.parametrize(
    "scope",
    [
        {"state": {"person": "ada"}},
        {"state": {"person": {"id": "ada"}}},
        {"user": SimpleUser("ada")},
        {"user": {"sub": "ada"}},
        {"user": {"sub": "ada", "is_authenticated": True}},
        {"user": "ada"},
        {"state": {"person": "ada"}, "user": SimpleUser("bob")},
        {"state": {"person": "ada"}, "user": UnauthenticatedUser()},
        {"state": {}, "user": SimpleUser("ada")},
    ],
)
def test_somebody_is_in_the_scope_and_the_state_comes_first(scope: dict[str, Any]) -> None:
    person = person_from_scope(scope)
    assert person is not None
    assert replace(person, subject=None) == Person("ada")


@pytest.mark.parametrize(
    ("scope", "where"),
    [
        ({"state": {"person": {"name": "Ada"}}}, r'scope\["state"\]\["person"\] \(dict\)'),
        ({"user": Nameless()}, r'scope\["user"\] \(Nameless\)'),
    ],
)
def test_somebody_without_an_id_is_refused_with_the_place(
    scope: dict[str, Any], where: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{where} has no id"):
        person_from_scope(scope)


# --- through the front door -----------------------------------------------------------------------


async def test_the_facts_are_on_the_session(sessions: Sessions) -> None:
    token: dict[str, Any] = {"sub": "ada", "app_id": "shop", "auth_provider": "google"}
    token["auth_time"] = NOON_IN_SECONDS - 60
    session = await sessions.insert({"type": "http", "headers": []}, token)
    assert (session.person_id, session.app_id) == ("ada", "shop")
    assert session.auth_provider == "google"
    assert session.authenticated_at == datetime(2026, 1, 1, 11, 59, tzinfo=UTC)


async def test_a_login_authenticates_now_unless_the_person_says_when(sessions: Sessions) -> None:
    session = await sessions.insert({"type": "http", "headers": []}, "ada")
    assert session.authenticated_at == NOON


async def test_nobody_authenticates_in_the_future(sessions: Sessions) -> None:
    person = {"id": "ada", "auth_time": NOON_IN_SECONDS + 60}
    session = await sessions.insert({"type": "http", "headers": []}, person)
    assert session.authenticated_at == NOON


async def test_a_token_with_a_garbled_sid_is_a_person_like_any_other(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    seen = await browser.see_as("ada", sid="no uuid")
    assert (seen["person_id"], seen["user"]) == ("ada", True)
