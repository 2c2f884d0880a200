"""Cookies that are no good: no exception, no 5xx and no access.

Some are signed as whoever has the key would do it, by the private keys and tokens.
"""

from __future__ import annotations

import string
from datetime import timedelta
from itertools import pairwise, product

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from asgi_sessions._model.cookies import CookieSettings
from asgi_sessions._model.tokens import KEY_LENGTH, KEY_VARIETY, Keys, Token, new_secret, new_sid
from tests.support import KEY, OLD_KEY
from tests.support.odd_input import MANY, NAME, cookie_headers, segments, texts, token_like
from tests.support.twins import (
    LOG_IN,
    World,
    gives_nothing,
    lets_in,
    refused,
    request,
    sid_of,
    still_live,
)

SECOND = timedelta(seconds=1)
GRACE = timedelta(seconds=60)


# --- the Cookie header -------------------------------------------------------------------------


#: Of the sizes that a server lets through, and of some that it does not.
HUGE = [
    [b"; ".join([NAME + b"=" + b"a" * 100] * 10_000)],
    [NAME + b"=" + b"\xff" * 1_000_000],
    [b"%b=%d" % (NAME, i) for i in range(5_000)],
    [b";" * 1_000_000],
    [b"; ".join(b"%b=%036d.%043d.%043d" % (NAME, i, i, i) for i in range(1_000))],
    [
        b"; ".join(
            b"%b=0190b6c2-8d5e-7000-8000-%012d.%043d.%043d" % (NAME, i, i, i) for i in range(1_000)
        )
    ],
]


@MANY
@given(lines=cookie_headers)
def test_whatever_the_cookie_headers_hold_gives_no_access_and_asks_no_database(
    world: World, lines: list[bytes]
) -> None:
    scope = request(*[(b"cookie", line) for line in lines])
    assert gives_nothing(world.run(world.ask(world.app_nowhere, scope)))


@pytest.mark.parametrize("lines", HUGE, ids=range(len(HUGE)))
def test_huge_cookie_headers_give_no_access_and_ask_no_database(
    world: World, lines: list[bytes]
) -> None:
    scope = request(*[(b"cookie", line) for line in lines])
    assert gives_nothing(world.run(world.ask(world.app_nowhere, scope)))


@MANY
@given(lines=cookie_headers, around=st.tuples(segments, segments), place=st.integers(0, 4))
def test_a_valid_cookie_wins_over_whatever_else_has_its_name(
    world: World, valid: str, lines: list[bytes], around: tuple[bytes, bytes], place: int
) -> None:
    lines.insert(place, b"%b; %b=%b; %b" % (around[0], NAME, valid.encode(), around[1]))
    headers = [(b"cookie", line) for line in lines]
    assume(valid in CookieSettings().reader()(headers))  # what follows the eighth is not looked at
    assert lets_in(world.run(world.ask(world.app, request(*headers))), valid)


@pytest.mark.parametrize("lines", HUGE, ids=range(len(HUGE)))
@pytest.mark.parametrize("first", [True, False])
def test_a_valid_cookie_wins_over_huge_ones(
    world: World, valid: str, lines: list[bytes], first: bool
) -> None:
    ours = NAME + b"=" + valid.encode()
    lines = [ours, *lines] if first else [*lines, ours]
    headers = [(b"cookie", line) for line in lines]
    answer = world.run(world.ask(world.app, request(*headers)))
    if valid in CookieSettings().reader()(headers):
        assert lets_in(answer, valid)
    else:  # what follows the eighth is not looked at
        assert not first
        assert answer.sid is None
        assert world.run(still_live(world, valid))


@pytest.fixture(scope="module")
def dead(world: World) -> list[str]:
    """Cookies that verify and lead to no live session: logged out, revoked, expired, unknown."""

    async def make() -> list[str]:
        logged_out, revoked = [await world.log_in(world.new_person()) for _ in range(2)]
        await world.sessions.end_session_by_id(sid_of(logged_out), reason="logout")
        await world.sessions.end_session_by_id(sid_of(revoked))
        world.clock.turn(timedelta(days=-40))
        expired = await world.log_in(world.new_person())
        world.clock.turn(timedelta(days=40))
        unknown = Keys(KEY, (), purpose="default").sign(
            Token("0190b6c2-8d5e-7000-8000-000000000000", "A" * 43)
        )
        return [logged_out, revoked, expired, unknown]

    values: list[str] = world.run(make())
    return values


@MANY
@given(data=st.data())
def test_a_live_cookie_wins_over_dead_ones_that_verify(
    world: World, valid: str, dead: list[str], data: st.DataObject
) -> None:
    values = data.draw(st.permutations([valid, *data.draw(st.lists(st.sampled_from(dead)))]))
    scope = request(*[(b"cookie", NAME + b"=" + value.encode()) for value in values])
    answer = world.run(world.ask(world.app, scope))
    assert lets_in(answer, valid)
    assert answer.reason is None


@MANY
@given(data=st.data())
def test_dead_cookies_let_nobody_in_and_are_not_cleared(
    world: World, dead: list[str], data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.sampled_from(dead), min_size=1))
    scope = request(*[(b"cookie", NAME + b"=" + value.encode()) for value in values])
    answer = world.run(world.ask(world.app, scope))
    assert (answer.status, answer.sid, answer.session) == (200, None, None)
    assert b"set-cookie" not in dict(answer.headers)


# --- tampered cookies --------------------------------------------------------------------------


def test_a_cookie_with_any_byte_changed_to_any_other_is_refused(world: World, valid: str) -> None:
    changed = (
        valid[:i] + chr(byte) + valid[i + 1 :]
        for i in range(len(valid))
        for byte in range(256)
        # A semicolon ends the value: a cut, as in the next test.
        if chr(byte) != valid[i] and chr(byte) != ";"
    )
    assert refused(world, changed, valid) == len(valid) * 254


def test_a_cookie_cut_or_shifted_anywhere_is_refused(world: World, valid: str) -> None:
    length = len(valid)
    cuts = [valid[i:j] for i, j in product(range(length), range(1, length + 1)) if i < j]
    swaps = [
        valid[:i] + valid[i + 1] + valid[i] + valid[i + 2 :]
        for i in range(length - 1)
        if valid[i] != valid[i + 1]
    ]
    gaps = [valid[:i] + valid[j:] for i, j in pairwise(range(length + 1))]
    assert refused(world, cuts + swaps + gaps, valid) > length**2 / 2


def test_a_cookie_with_a_byte_more_anywhere_is_refused(world: World, valid: str) -> None:
    extended = [
        valid[:i] + chr(byte) + valid[i:]
        for i in range(len(valid) + 1)
        for byte in range(256)
        if chr(byte) != ";"
        # White space around a pair is no part of it (RFC 6265, 5.4), a quotation mark is.
        and not (chr(byte) in " \t" and i == len(valid))
    ]
    assert refused(world, extended, valid) > 30_000


@MANY
@given(tail=st.one_of(token_like, st.text(st.characters(max_codepoint=255), max_size=600)))
def test_an_extended_cookie_is_refused(world: World, valid: str, tail: str) -> None:
    tail = tail.replace(";", "").rstrip(" \t")
    refused(world, [valid + tail, tail + valid, valid + "." + tail], valid)


@MANY
@given(data=st.data())
def test_a_cookie_edited_in_several_places_is_refused(
    world: World, valid: str, data: st.DataObject
) -> None:
    pieces = st.text(string.ascii_letters + string.digits + "-_.", max_size=4)
    value = valid
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(value)))
        value = value[:i] + data.draw(pieces) + value[i + data.draw(st.integers(0, 4)) :]
    refused(world, [value], valid)


def test_parts_swapped_between_two_sessions_are_refused(world: World, valid: str) -> None:
    other = world.run(world.log_in(LOG_IN))
    older = world.run(world.log_in(LOG_IN))
    newer = world.run(world.renew(older))
    values = [valid, other, older, newer]
    parts = list(zip(*(value.split(".") for value in values), strict=True))
    mixed = {
        ".".join(mix)
        for order in ((0, 1, 2), (1, 0, 2), (0, 2, 1))
        for mix in product(*(parts[i] for i in order))
    } - set(values)
    # 3 sids (`older` and `newer` share theirs), 4 secrets, 4 signatures; all but the 4 real ones.
    assert refused(world, sorted(mixed), valid) == 3 * (3 * 4 * 4) - 4
    for value in (other, newer):
        assert world.run(still_live(world, value))


def test_a_sid_in_any_other_case_is_refused(world: World, valid: str) -> None:
    flipped = [
        valid[:i] + valid[i].swapcase() + valid[i + 1 :]
        for i in range(len(valid))
        if valid[i].isalpha()
    ]
    sid, _, rest = valid.partition(".")
    whole = [f"{sid.upper()}.{rest}", valid.upper(), valid.lower(), valid.swapcase()]
    keys = Keys(KEY, (), purpose="default")
    assert refused(world, flipped + whole, valid) >= len(flipped) + 3
    # Not even when it is signed: one session has one spelling.
    secret = rest.partition(".")[0]
    refused(world, [keys.sign(Token(sid.upper(), secret))], valid)
    assert world.run(world.sessions.get_by_id(sid.upper())) is None
    assert world.run(world.sessions.end_session_by_id(sid.upper())) is None
    assert world.run(still_live(world, valid))


@MANY
@given(
    key=st.one_of(st.text(min_size=KEY_LENGTH), st.binary(min_size=KEY_LENGTH)).filter(
        lambda key: len(set(key)) >= KEY_VARIETY
    )
)
@example(key=OLD_KEY)
@example(key=KEY + " ")
@example(key=KEY.upper())
def test_a_cookie_signed_with_another_key_is_refused(
    world: World, valid: str, key: str | bytes
) -> None:
    sid, secret, _ = valid.split(".")
    refused(world, [Keys(key, (), purpose="default").sign(Token(sid, secret))], valid)


@MANY
@given(app_id=texts)
@example(app_id="")
@example(app_id="Default")
def test_the_cookie_of_another_app_with_the_same_key_is_refused(
    world: World, valid: str, app_id: str
) -> None:
    sid, secret, _ = valid.split(".")
    try:
        keys = Keys(KEY, (), purpose=app_id)
    except UnicodeEncodeError:  # `Sessions` refuses such an app_id before it gets here
        return
    if app_id != "default":
        refused(world, [keys.sign(Token(sid, secret))], valid)


@MANY
@given(late=st.integers(-60, 3_600))
@example(late=-60)
@example(late=0)
@example(late=1)
def test_an_old_cookie_is_good_until_60_s_after_the_new_one_was_seen_and_theft_from_then_on(
    world: World, late: int
) -> None:
    async def present() -> None:
        old = await world.log_in(world.new_person())
        new = await world.renew(old)
        assert await still_live(world, old)  # the answer may be on its way
        assert await still_live(world, new)
        world.clock.turn(GRACE + late * SECOND)
        if late <= 0:
            assert await still_live(world, old)
            assert await still_live(world, new)
            return
        answer = await world.present(old)
        assert (answer.status, answer.sid, answer.reason) == (200, None, "reuse")
        # Whoever of the two was the thief: both are out, and stay out.
        for value in (old, new):
            answer = await world.present(value)
            assert (answer.status, answer.sid, answer.reason) == (200, None, "reuse")

    world.run(present())


@MANY
@given(random=st.binary(min_size=32, max_size=32))
def test_a_made_up_secret_lets_nobody_in_even_if_its_signature_holds(
    world: World, random: bytes
) -> None:
    async def present() -> None:
        value = await world.log_in(world.new_person())
        token = Token(sid_of(value), new_secret(lambda _: random))
        answer = await world.present(Keys(KEY, (), purpose="default").sign(token))
        assert (answer.status, answer.sid, answer.reason) == (200, None, "reuse")

    world.run(present())


@MANY
@given(tail=st.binary(min_size=10, max_size=10))
def test_a_sid_that_nobody_has_lets_nobody_in_even_if_its_signature_holds(
    world: World, tail: bytes
) -> None:
    token = Token(new_sid(world.clock.now, lambda _: tail), "A" * 43)
    answer = world.run(world.present(Keys(KEY, (), purpose="default").sign(token)))
    assert (answer.status, answer.sid, answer.reason) == (200, None, None)
    assert b"set-cookie" not in dict(answer.headers)
