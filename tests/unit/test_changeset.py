"""The gate in front of the table: what is cast, what is refused, and in which words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest

from asgi_sessions import Changeset, InvalidSession, Session, Sessions, changeset
from tests.support import Clock

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SID = "019b7a3c-5c00-7000-8000-000000000000"
IDS = ["person_id", "app_id"]
MOMENTS = [
    *("started_at", "last_seen_at", "authenticated_at"),
    *("expires_at", "ended_at", "secret_seen_at"),
]

LIVE = Session(
    id=SID,
    person_id="ada",
    app_id="shop",
    auth_provider=None,
    origin="login",
    user_agent="Firefox",
    ip_address="192.0.2.1",
    started_at=NOON,
    last_seen_at=NOON,
    idle_expires_at=NOON + timedelta(days=14),
    authenticated_at=NOON,
    expires_at=NOON + timedelta(days=30),
    ended_at=None,
    end_reason=None,
    remember=True,
)
ENDED = replace(LIVE, ended_at=NOON, end_reason="logout")


def new(**attrs: Any) -> Changeset:
    """A changeset for a new session that would be valid without `attrs`."""
    return changeset(None, {"person_id": "ada", "app_id": "shop", **attrs})


# --- a new session --------------------------------------------------------------------------------


def test_a_new_session_needs_a_person_and_an_app() -> None:
    made = changeset(None, {})
    assert not made.valid
    assert made.errors == {"app_id": ["is missing"], "person_id": ["is missing"]}


@pytest.mark.parametrize("field", IDS)
def test_none_is_missing(field: str) -> None:
    assert new(**{field: None}).errors == {field: ["is missing"]}


def test_a_valid_changeset_has_changes_and_no_errors() -> None:
    made = changeset(None, {"person_id": "ada", "app_id": "shop"})
    assert made.valid
    assert made.changes == {"person_id": "ada", "app_id": "shop"}
    assert made.errors == {}
    assert made.session is None


def test_unknown_attributes_are_left_out() -> None:
    assert set(new(is_admin=True, idle_expires_at=NOON).changes) == {"person_id", "app_id"}


def test_all_faults_are_told_at_once() -> None:
    made = changeset(None, {"person_id": "", "remember": "yes", "origin": "thin air"})
    assert made.errors == {
        "app_id": ["is missing"],
        "person_id": ["must not be empty"],
        "remember": ["must be True or False"],
        "origin": ["must be 'login' or 'scope'"],
    }


def test_what_is_refused_is_not_among_the_changes() -> None:
    assert "person_id" not in new(person_id="").changes


def test_the_attributes_given_stay_as_they_are() -> None:
    attrs = {"person_id": 7, "app_id": "shop"}
    changeset(None, attrs)
    assert attrs == {"person_id": 7, "app_id": "shop"}


def test_a_valid_changeset_hands_out_its_changes() -> None:
    assert new().checked() == {"person_id": "ada", "app_id": "shop"}


def test_an_invalid_changeset_raises_its_errors() -> None:
    made = new(person_id="")
    with pytest.raises(InvalidSession, match=r"^person_id must not be empty$") as caught:
        made.checked()
    assert caught.value.errors == made.errors


# --- ids ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", IDS)
@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("ada", "ada"),
        ("Ada Lovelace", "Ada Lovelace"),
        ("алиса", "алиса"),
        ("🦉", "🦉"),
        (7, "7"),
        (0, "0"),
        (-1, "-1"),
        (UUID(SID), SID),
    ],
)
def test_an_id_is_stored_as_text(field: str, given: object, stored: str) -> None:
    assert new(**{field: given}).changes[field] == stored


@pytest.mark.parametrize("field", IDS)
@pytest.mark.parametrize("letter", ["a", "é", "🦉"])
def test_an_id_of_255_characters_is_fine(field: str, letter: str) -> None:
    assert new(**{field: letter * 255}).changes[field] == letter * 255


@pytest.mark.parametrize("field", IDS)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "must not be empty"),
        (" \t", "must not be empty"),
        ("a" * 256, "must have at most 255 characters, has 256"),
        (10**255, "must have at most 255 characters, has 256"),
        ("a\0b", "must not hold a NUL character"),
        ("a\ud800b", "must not hold a lone surrogate"),
        (True, "must be a str, an int or a UUID, not bool"),
        (1.5, "must be a str, an int or a UUID, not float"),
        (b"ada", "must be a str, an int or a UUID, not bytes"),
        (["ada"], "must be a str, an int or a UUID, not list"),
    ],
)
def test_an_id_that_cannot_be_one_is_refused(field: str, given: object, message: str) -> None:
    made = new(**{field: given})
    assert not made.valid
    assert made.errors == {field: [message]}


# --- the other columns ----------------------------------------------------------------------------


@pytest.mark.parametrize("field", MOMENTS)
def test_a_moment_becomes_utc(field: str) -> None:
    in_tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    cast = new(**{field: in_tokyo}).changes[field]
    assert cast == NOON
    assert cast.tzinfo is UTC


@pytest.mark.parametrize("field", MOMENTS)
@pytest.mark.parametrize("given", [NOON.replace(tzinfo=None), "2026-01-01", 1767268800, ""])
def test_a_moment_without_a_zone_is_refused(field: str, given: object) -> None:
    assert new(**{field: given}).errors == {field: ["must be a timezone-aware datetime"]}


@pytest.mark.parametrize("field", MOMENTS)
@pytest.mark.parametrize("given", [NOON.replace(year=1000), NOON.replace(year=9998)])
def test_a_moment_may_be_long_ago_or_far_away(field: str, given: datetime) -> None:
    assert new(**{field: given}).changes[field] == given


@pytest.mark.parametrize("field", MOMENTS)
@pytest.mark.parametrize(
    "given",
    [
        *(NOON.replace(year=999), NOON.replace(year=9999), datetime.min.replace(tzinfo=UTC)),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=9))),  # in UTC it is no year
    ],
)
def test_a_moment_that_not_every_database_stores_is_refused(field: str, given: datetime) -> None:
    assert new(**{field: given}).errors == {field: ["must be in the years 1000 to 9998"]}


@pytest.mark.parametrize("field", ["device_key", "live_device_key", "secret_hash"])
@pytest.mark.parametrize("given", [b"", b"x" * 31, b"x" * 33, "x" * 32])
def test_a_digest_has_32_bytes(field: str, given: object) -> None:
    assert new(**{field: b"x" * 32}).valid
    assert new(**{field: given}).errors == {field: ["must be the 32 bytes of a SHA-256 digest"]}


@pytest.mark.parametrize("given", [SID, SID.upper(), UUID(SID)])
def test_a_sid_has_one_spelling(given: object) -> None:
    assert new(id=given).changes["id"] == SID


@pytest.mark.parametrize("given", ["", "1", f"{SID}0", 7])
def test_a_sid_is_a_uuid(given: object) -> None:
    assert new(id=given).errors == {"id": ["must be a UUID"]}


@pytest.mark.parametrize("given", ["logout", "x" * 50])
def test_a_reason_is_the_apps_own_word(given: str) -> None:
    assert new(end_reason=given).changes["end_reason"] == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "must not be empty"),
        ("x" * 51, "must have at most 50 characters, has 51"),
        (7, "must be a str, not int"),
    ],
)
def test_a_reason_is_a_short_text(given: object, message: str) -> None:
    assert new(end_reason=given).errors == {"end_reason": [message]}


@pytest.mark.parametrize("given", [1, 0, "true"])
def test_remember_is_a_bool(given: object) -> None:
    assert new(remember=given).errors == {"remember": ["must be True or False"]}


@pytest.mark.parametrize("given", ["text", 7, bytes(641)])
def test_what_is_kept_of_a_device_is_bytes_and_fits(given: object) -> None:
    assert new(binding=given).errors == {"binding": ["must be bytes, at most 640"]}
    assert new(binding=bytes(640)).valid


def test_a_device_never_makes_a_session_invalid() -> None:
    made = new(user_agent="x\0" * 600, ip_address="the moon")
    assert made.valid
    assert len(made.changes["user_agent"]) == 500
    assert made.changes["ip_address"] is None


# --- how a person was authenticated ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        (["pwd", "otp"], "pwd otp"),
        (("pwd",), "pwd"),
        ("pwd  otp", "pwd otp"),
        (["x" * 127, "y" * 127], f"{'x' * 127} {'y' * 127}"),
        (None, None),
        ([], None),
        (" ", None),
    ],
)
def test_methods_are_one_text(given: object, stored: str | None) -> None:
    assert new(amr=given).checked()["amr"] == stored


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        (7, "must be a list of str, not int"),
        (b"pwd", "must be a list of str, not bytes"),
        ({"pwd": True}, "must be a list of str, not dict"),
        ([7], "must be a str, not int"),
        (["pwd", ""], "must not be empty"),
        (["one time"], "must not hold a method with a space in it"),
        (["a\0b"], "must not hold a NUL character"),
        (["x" * 128, "y" * 127], "must have at most 255 characters, has 256"),
    ],
)
def test_methods_that_could_not_be_told_apart_again_are_refused(given: object, fault: str) -> None:
    assert new(amr=given).errors == {"amr": [fault]}


@pytest.mark.parametrize("given", ["", 7, "x" * 256, "a\0b"])
def test_an_assurance_is_text(given: object) -> None:
    assert set(new(acr=given).errors) == {"acr"}
    assert new(acr="urn:mace:incommon:iap:silver").valid


def test_the_same_methods_are_no_change() -> None:
    twice = replace(LIVE, acr="2", amr=("pwd", "otp"))
    assert changeset(twice, {"acr": "2", "amr": ["pwd", "otp"]}).changes == {}
    assert changeset(twice, {"amr": ["pwd"]}).changes == {"amr": "pwd"}
    assert changeset(twice, {"amr": []}).changes == {"amr": None}
    assert changeset(LIVE, {"amr": []}).changes == {}


# --- a session that is there ----------------------------------------------------------------------


def test_an_update_needs_neither_person_nor_app() -> None:
    assert changeset(LIVE, {}) == Changeset(LIVE)
    assert changeset(LIVE, {}).valid


def test_only_what_differs_is_a_change() -> None:
    attrs = {"person_id": "ada", "app_id": "shop", "user_agent": "Chrome", "remember": True}
    assert changeset(LIVE, attrs).changes == {"user_agent": "Chrome"}


def test_another_spelling_of_the_same_is_no_change() -> None:
    numbered = replace(LIVE, person_id="7")
    in_tokyo = NOON.astimezone(timezone(timedelta(hours=9)))
    attrs = {"person_id": 7, "id": UUID(SID), "started_at": in_tokyo}
    assert changeset(numbered, attrs).changes == {}


@pytest.mark.parametrize("field", IDS)
def test_a_session_cannot_lose_its_person_or_app(field: str) -> None:
    assert changeset(LIVE, {field: None}).errors == {field: ["is missing"]}


def test_a_live_session_can_be_ended() -> None:
    made = changeset(LIVE, {"ended_at": NOON, "end_reason": "logout"})
    assert made.valid
    assert made.changes == {"ended_at": NOON, "end_reason": "logout"}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("ended_at", NOON + timedelta(seconds=1)),
        ("ended_at", None),
        ("end_reason", "revoked"),
        ("end_reason", None),
    ],
)
def test_an_ended_session_keeps_its_end(field: str, value: object) -> None:
    errors = changeset(ENDED, {field: value}).errors
    assert errors == {field: ["is set already: the first end counts"]}


def test_to_end_an_ended_session_just_as_it_ended_changes_nothing() -> None:
    made = changeset(ENDED, {"ended_at": NOON, "end_reason": "logout"})
    assert made.valid
    assert made.changes == {}


# --- through the front door -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "stored"), [("a" * 255, "a" * 255), (7, "7"), (UUID(SID), SID), ("🦉", "🦉")]
)
async def test_a_person_can_log_in_under_any_id(
    sessions: Sessions, clock: Clock, given: object, stored: str
) -> None:
    session = await sessions.insert({"type": "http", "headers": []}, {"id": given})
    assert session.person_id == stored
    assert await sessions.list_sessions(given) == [session]


@pytest.mark.parametrize("given", ["", "a" * 256, "a\0b", "a\ud800b", True])
async def test_a_login_under_an_impossible_id_names_the_field(
    sessions: Sessions, given: object
) -> None:
    with pytest.raises(InvalidSession) as caught:
        await sessions.insert({"type": "http", "headers": []}, {"id": given})
    assert set(caught.value.errors) == {"person_id"}
