"""Sids, secrets and signatures: pure, time and randomness are arguments.

They are private, so that nobody makes a cookie but the package.
"""

from __future__ import annotations

import secrets
import string
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from uuid import RFC_4122, UUID

import pytest
from itsdangerous import Signer

from asgi_sessions import ConfigurationError
from asgi_sessions._model.tokens import (
    SID_PATTERN,
    Keys,
    Presented,
    Token,
    digest,
    new_secret,
    new_sid,
)
from tests.support import KEY, OLD_KEY

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
BASE64 = string.ascii_uppercase + string.ascii_lowercase + string.digits + "-_"
TOKEN = Token(new_sid(NOON, secrets.token_bytes), new_secret(secrets.token_bytes))
PRESENTED = Presented(TOKEN.sid, digest(TOKEN.secret))


def keys(secret_key: str = KEY, *old: str, purpose: str = "shop") -> Keys:
    return Keys(secret_key, old, purpose=purpose)


# --- sids -----------------------------------------------------------------------------------------


def test_a_sid_is_the_example_of_rfc_9562() -> None:
    # Appendix A.6, but for the 12 bits that here are the fraction of the millisecond.
    moment = datetime(2022, 2, 22, 14, 22, 22, tzinfo=timezone(timedelta(hours=-5)))
    sid = new_sid(moment, lambda size: bytes.fromhex("18C4DC0C0C07398F"))
    assert sid == "017f22e2-79b0-7000-98c4-dc0c0c07398f"
    later = new_sid(moment + timedelta(microseconds=500), bytes)
    assert later == "017f22e2-79b0-7800-8000-000000000000"


@pytest.mark.parametrize("fill", [b"\x00", b"\xff"])
def test_a_sid_is_a_uuid_of_version_7_whatever_the_random_bits(fill: bytes) -> None:
    uuid = UUID(new_sid(NOON, lambda size: fill * size))
    assert (uuid.version, uuid.variant) == (7, RFC_4122)
    assert uuid.int >> 80 == int(NOON.timestamp()) * 1000


def test_a_sid_has_62_random_bits() -> None:
    ones = UUID(new_sid(NOON, lambda size: b"\xff" * size)).int
    zeros = UUID(new_sid(NOON, lambda size: b"\x00" * size)).int
    assert (ones ^ zeros).bit_count() == 62


def test_sids_sort_by_time() -> None:
    step = timedelta(microseconds=1)
    moments = [NOON, NOON + step, NOON + timedelta(days=1), NOON + timedelta(days=9999)]
    sids = [new_sid(moment, secrets.token_bytes) for moment in moments]
    assert sids == sorted(sids)


def test_two_sids_of_one_moment_differ() -> None:
    assert new_sid(NOON, secrets.token_bytes) != new_sid(NOON, secrets.token_bytes)


def test_a_sid_looks_like_one() -> None:
    assert SID_PATTERN.fullmatch(TOKEN.sid)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        TOKEN.sid.upper(),
        TOKEN.sid.replace("-", ""),
        f"{TOKEN.sid}\n",
        f"{{{TOKEN.sid}}}",
        "0f8fad5b-d9cb-469f-a165-70867728950e",  # version 4
        "017f22e2-79b0-7cc3-c8c4-dc0c0c07398f",  # another variant
    ],
    ids=["nothing", "1", "upper", "no hyphens", "a line", "braces", "version 4", "variant"],
)
def test_what_is_no_sid_does_not_look_like_one(text: str) -> None:
    assert SID_PATTERN.fullmatch(text) is None


# --- secrets --------------------------------------------------------------------------------------


def test_a_secret_is_256_random_bits_as_text() -> None:
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return bytes(range(size))

    assert new_secret(random) == "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert asked == [32]


def test_two_secrets_differ() -> None:
    assert new_secret(secrets.token_bytes) != new_secret(secrets.token_bytes)


def test_the_digest_is_the_plain_sha_256() -> None:
    assert digest("abc").hex() == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_token_does_not_show_its_secret() -> None:
    assert repr(TOKEN) == f"Token(sid='{TOKEN.sid}')"
    assert str(TOKEN) == repr(TOKEN)


# --- signatures -----------------------------------------------------------------------------------


def test_what_was_signed_verifies() -> None:
    assert keys().verify(keys().sign(TOKEN)) == PRESENTED


def test_a_value_is_sid_secret_and_signature() -> None:
    value = keys().sign(TOKEN)
    sid, secret, signature = value.split(".")
    assert (sid, secret) == (TOKEN.sid, TOKEN.secret)
    assert len(signature) == 43
    assert len(value) == 124


def test_a_value_is_signed_as_itsdangerous_signs() -> None:
    signer = Signer(
        KEY, salt="asgi_sessions.cookie.shop", key_derivation="hmac", digest_method=sha256
    )
    assert signer.unsign(keys().sign(TOKEN)) == f"{TOKEN.sid}.{TOKEN.secret}".encode()


def test_bytes_are_as_good_a_key_as_text() -> None:
    value = keys().sign(TOKEN)
    assert Keys(KEY.encode(), [], purpose="shop").verify(value) == PRESENTED


def test_an_old_key_verifies_and_signs_no_more() -> None:
    rotated = keys(KEY, OLD_KEY)
    assert rotated.verify(keys(OLD_KEY).sign(TOKEN)) == PRESENTED
    assert rotated.sign(TOKEN) == keys(KEY).sign(TOKEN)


def test_each_of_several_old_keys_verifies() -> None:
    oldest = "the very first key that ever signed.."
    rotated = keys(KEY, OLD_KEY, oldest)
    assert rotated.verify(keys(oldest).sign(TOKEN)) == PRESENTED
    assert rotated.verify(keys(OLD_KEY).sign(TOKEN)) == PRESENTED


def test_the_parts_of_two_values_cannot_be_exchanged() -> None:
    other = Token(new_sid(NOON, secrets.token_bytes), new_secret(secrets.token_bytes))
    mine, theirs = keys().sign(TOKEN).split("."), keys().sign(other).split(".")
    for part in range(3):
        mixed = [*mine]
        mixed[part] = theirs[part]
        assert keys().verify(".".join(mixed)) is None


@pytest.mark.parametrize("position", range(124))
def test_no_character_can_be_changed(position: int) -> None:
    value = keys().sign(TOKEN)
    for character in ("0", "1", "A", "-", ".", "é", "\0"):
        if value[position] != character:
            assert keys().verify(value[:position] + character + value[position + 1 :]) is None


def test_a_signature_has_one_spelling() -> None:
    # Of the last of 43 characters two bits decode to nothing: three others mean the same bytes.
    value = keys().sign(TOKEN)
    last = BASE64.index(value[-1])
    same_bytes = [value[:-1] + BASE64[last ^ bits] for bits in (1, 2, 3)]
    assert [keys().verify(spelling) for spelling in same_bytes] == [None, None, None]


@pytest.mark.parametrize(
    "shape",
    [
        "",
        "{sid}",
        "{sid}.{secret}",
        "{secret}.{signature}",
        "{sid}.{secret}.",
        ".{sid}.{secret}.{signature}",
        "{sid}.{secret}.{signature}=",
        "{sid}.{secret}.{signature}A",
        "{sid}.{secret}.{signature}\n",
        " {sid}.{secret}.{signature}",
        '"{sid}.{secret}.{signature}"',
        "{sid}{secret}{signature}",
        "{sid}:{secret}:{signature}",
        "{sid}.{secret}.{signature}.{signature}",
        "{secret}.{sid}.{signature}",
    ],
)
def test_another_shape_does_not_verify(shape: str) -> None:
    sid, secret, signature = keys().sign(TOKEN).split(".")
    assert keys().verify(shape.format(sid=sid, secret=secret, signature=signature)) is None


# --- keys -----------------------------------------------------------------------------------------


def test_keys_show_how_many_they_are_and_nothing_else() -> None:
    assert repr(keys(KEY, OLD_KEY)) == "<2 keys>"


@pytest.mark.parametrize(
    ("secret_key", "old"), [("hush", []), (KEY, ["hush"]), (KEY, "hush"), (b"hush", [])]
)
def test_a_refused_key_is_not_shown(secret_key: str | bytes, old: list[str] | str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Keys(secret_key, old, purpose="shop")
    assert "hush" not in str(caught.value)
    assert caught.value.__cause__ is None


# --- devices --------------------------------------------------------------------------------------


def test_a_device_has_a_key_by_each_key_the_newest_first() -> None:
    new, old = keys(KEY, OLD_KEY).device_keys("ada", "Firefox")
    assert [new] == keys(KEY).device_keys("ada", "Firefox")
    assert [old] == keys(OLD_KEY).device_keys("ada", "Firefox")
    assert new != old
    assert len(new) == len(old) == 32


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("ab", "c"), ("a", "bc")),
        (("a", None), ("a", "")),
        (("a", None), ("a", "-")),
        ((None, "a"), ("a", None)),
        (("1:a",), ("a",)),
        (("a1:b",), ("a", "b")),
        (("é",), ("e\u0301",)),
    ],
)
def test_different_facts_are_different_devices(
    one: tuple[str | None, ...], other: tuple[str | None, ...]
) -> None:
    assert keys().device_keys(*one) != keys().device_keys(*other)
