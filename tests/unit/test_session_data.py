"""The dict of `request.session`: what may be in it, what has changed, and Starlette's beside it.

What stores it is tested with databases.
"""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Callable, ItemsView, KeysView, ValuesView
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from json import dumps
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import TimestampSigner
from starlette.middleware.sessions import Session as StarlettesSession

from asgi_sessions import (
    MISSING,
    ConfigurationError,
    InvalidSession,
    Lifetimes,
    SessionData,
    SessionDict,
    Sessions,
    StarletteCookie,
)
from asgi_sessions._model.session_data import (
    KEYS_AT_ONCE,
    Changes,
    Snapshot,
    Visitor,
    check,
    decode,
    encode,
    is_blank,
    limit,
)
from asgi_sessions._store.data import Owner
from tests.support import KEY

NOON = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LARGE = 16_384


class Text(str):
    """As Markup and others are."""

    __slots__ = ()


class Level(IntEnum):
    HIGH = 3


def nested(depth: int) -> list[Any]:
    """So many lists in one another."""
    value: list[Any] = []
    for _ in range(depth - 1):
        value = [value]
    return value


def itself() -> list[Any]:
    """A list that holds itself."""
    value: list[Any] = []
    value.append(value)
    return value


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "key",
    [
        *("a", "_state_google_x", "é", "e\u0301", "😀", "a.b", "$", "'", "[0]", "%s", ":p_id", "?"),
        *(" ", "-1", "\u2028", "\u00a0", "x" * 128, "😀" * 128),
    ],
)
def test_a_key_is_nearly_any_text(key: str) -> None:
    data = SessionDict()
    data[key] = 1
    assert data == {key: 1}


@pytest.mark.parametrize(
    "key",
    ["", "x" * 129, 'a"b', "a\\b", "\x00", "a\nb", "\x1f", "\x7f", "\x85", "\ud800", "a\udfff"],
)
def test_a_key_that_some_database_would_not_give_back_is_refused(key: str) -> None:
    data = SessionDict()
    with pytest.raises(ValueError, match="of session data: use 1 to 128 characters"):
        data[key] = 1
    assert data == {}
    assert (data.accessed, data.modified) == (False, False)


@pytest.mark.parametrize("key", [1, None, b"a", ("a",), 1.5, True])
def test_a_key_that_is_no_text_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="a key of session data must be text"):
        SessionDict()[key] = 1


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("é", '"é"'),
        ("\\u0000", '"\\\\u0000"'),
        (Text("x"), '"x"'),
        (Level.HIGH, "3"),
        ((1, [2]), "[1,[2]]"),
        ({1: 1.5, None: "x"}, '{"1":1.5,"null":"x"}'),
        (2**63 - 1, "9223372036854775807"),
        (-(2**63), "-9223372036854775808"),
        ({"a": [2**62], "b": {}}, '{"a":[4611686018427387904],"b":{}}'),
        ("12345678901234567890", '"12345678901234567890"'),
        (1e15, "1000000000000000.0"),
        (1e16, "10000000000000000.0"),
        ([-1e22, "1e+16"], '[-10000000000000000000000.0,"1e+16"]'),
        ({'a"1e+16': 1.5e300}, None),
        (5e-324, "5e-324"),
        (nested(30), "[" * 30 + "]" * 30),
        (["[" * 100], None),
        ("a\u2028b\x7f\x85", '"a\u2028b\x7f\x85"'),
    ],
)
def test_a_value_is_what_json_has(value: object, text: str | None) -> None:
    written = check("k", value)
    if text is not None:
        assert written == text
    assert encode(decode(f'{{"k":{written}}}')["k"]) == encode(value)


@pytest.mark.parametrize("value", [b"x", {1, 2}, NOON, object(), 1j, [{"a": b"x"}], {(1, 2): 3}])
def test_a_value_that_is_no_json_is_a_type_error_that_names_the_key(value: object) -> None:
    data = SessionDict()
    with pytest.raises(TypeError, match=r"session\['cart'\] is no JSON"):
        data["cart"] = value
    assert data == {}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (math.nan, "a number that is none"),
        ([math.inf], "a number that is none"),
        ({"a": {"b": -math.inf}}, "a number that is none"),
        (itself(), "or itself"),
        ("a\x00b", "no database takes"),
        ("\\\x00", "no database takes"),
        ({"a\x00": 1}, "no database takes"),
        ("\ud83d", "no database takes"),
        (["a", {"\udc00": 1}], "no database takes"),
        (2**63, "more than 64 bits"),
        ([{"a": -(2**63) - 1}], "more than 64 bits"),
        ((1, (2**64,)), "more than 64 bits"),
        (nested(31), "more than 30 lists and dicts"),
        ({"a": [nested(29)]}, "more than 30 lists and dicts"),
        (nested(100_000), "or itself"),
    ],
)
def test_a_value_that_some_database_would_not_give_back_is_refused(value: object, why: str) -> None:
    data = SessionDict({"cart": 1})
    with pytest.raises(ValueError, match=rf"session\['cart'\].*{why}"):
        data["cart"] = value
    assert data == {"cart": 1}


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    # -0.0 is 0.0 for PostgreSQL
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
def test_what_is_taken_is_read_back_as_it_was(value: Any) -> None:
    try:
        text = check("k", value)
    except ValueError:
        assert "\\u0000" in dumps(value) or "\\ud" in dumps(value)
        return
    assert encode(decode(f'{{"k":{text}}}')["k"]) == encode(value)


# --- as Starlette's -------------------------------------------------------------------------------

Operation = Callable[[dict[str, Any]], object]

_KEYS = st.sampled_from(["a", "b", "c"])
_VALUES = st.integers(0, 3) | st.lists(st.integers(0, 1), max_size=2)
_ITEMS = st.dictionaries(_KEYS, _VALUES, max_size=3)


def operation(name: str, *arguments: object, **named: object) -> tuple[str, Operation]:
    def run(data: dict[str, Any]) -> object:
        return getattr(data, name)(*arguments, **named)

    return f"{name}{arguments}{named}", run


def merging(items: dict[str, Any]) -> tuple[str, Operation]:
    def run(data: dict[str, Any]) -> object:
        same = data
        data |= items
        assert data is same
        return None

    return f"|= {items}", run


OPERATIONS = st.one_of(
    st.builds(operation, st.just("__setitem__"), _KEYS, _VALUES),
    st.builds(operation, st.sampled_from(["get", "__contains__", "pop", "setdefault"]), _KEYS),
    st.builds(operation, st.sampled_from(["get", "pop", "setdefault"]), _KEYS, _VALUES),
    st.builds(operation, st.sampled_from(["__getitem__", "__delitem__"]), _KEYS),
    st.builds(
        operation,
        st.sampled_from(["clear", "popitem", "copy", "keys", "items", "values", "__len__"]),
    ),
    st.builds(operation, st.sampled_from(["mark_accessed", "mark_modified"])),
    st.builds(operation, st.just("update"), _ITEMS),
    st.builds(operation, st.just("update"), _ITEMS.map(lambda items: [*items.items()])),
    _ITEMS.map(lambda items: operation("update", **items)),
    _ITEMS.map(lambda items: operation("update", {"a": 0}, **items)),
    st.builds(operation, st.sampled_from(["__or__", "__ror__", "__eq__"]), _ITEMS),
    st.builds(merging, _ITEMS),
)


@settings(deadline=None)
@given(before=_ITEMS, steps=st.lists(OPERATIONS, max_size=8))
def test_it_does_what_starlettes_does(
    before: dict[str, Any], steps: list[tuple[str, Operation]]
) -> None:
    ours, theirs = SessionDict(before), StarlettesSession(before)
    for name, run in steps:
        flags = (theirs.accessed, theirs.modified)
        answers: list[object] = []
        for data in (ours, theirs):
            try:
                answer = run(data)
            except KeyError:
                answer = KeyError
            if isinstance(answer, KeysView | ItemsView | ValuesView):
                answer = [*answer]
            answers.append(answer)
        assert answers[0] == answers[1], name
        if answers[1] is KeyError:  # Starlette's is marked by `del` of a key that is not there
            theirs.accessed, theirs.modified = flags
        assert dict(ours) == dict(theirs), name
        assert [*ours] == [*theirs], name
        assert (ours.accessed, ours.modified) == (theirs.accessed, theirs.modified), name


def test_update_takes_any_name() -> None:
    data = SessionDict()
    data.update(self=1, others=2)
    assert data == {"self": 1, "others": 2}


def test_an_update_that_is_refused_changes_nothing() -> None:
    data = SessionDict({"a": 1})
    for change in (
        lambda: data.update({"a": 2, "b": b"x"}),
        lambda: data.update([("a", 2), ("b", {1})]),
        lambda: data.update(a=2, b=object()),
        lambda: data.__ior__({"a": 2, "b": b"x"}),
        lambda: data.setdefault("b", b"x"),
    ):
        with pytest.raises(TypeError, match=r"session\['b'\] is no JSON"):
            change()
        assert data == {"a": 1}
        assert not data.modified


def test_it_shows_nothing_of_what_is_in_it() -> None:
    data = SessionDict({"a-key": "a-value"})
    for shown in (repr(data), str(data), f"{data}", f"{[data]}", f"{data!r}"):
        assert "a-key" not in shown
        assert "a-value" not in shown
    assert repr(data) == "<session data, 1 keys>"
    visitor = Visitor("0190-sid", b"a-hash", NOON, NOON, '{"a-key":1}')
    assert "a-key" not in repr(visitor)
    assert "a-hash" not in repr(visitor)
    assert repr(Owner("0190-sid", b"a-hash")) == "Owner(sid='0190-sid')"


def test_a_copy_is_a_plain_dict() -> None:
    data = SessionDict({"a": 1})
    assert type(data.copy()) is dict
    assert type(data | {"b": b"anything"}) is dict


@pytest.mark.anyio
async def test_nobody_has_an_id_outside_of_a_request() -> None:
    await SessionDict().regenerate_id()


# --- what has changed -----------------------------------------------------------------------------


def changed(before: dict[str, Any], after: dict[str, Any]) -> Changes | None:
    return Snapshot(encode(before)).changes(after, LARGE)


def test_nothing_changed_is_none() -> None:
    assert changed({}, {}) is None
    assert changed({"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]}) is None
    assert changed({"a": 1, "b": 2}, {"b": 2, "a": 1}) is None  # the order does not count
    assert changed({"a": [1]}, {"a": (1,)}) is None


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [
        (1, True, "true"),
        (True, 1, "1"),
        (1, 1.0, "1.0"),
        (1.0, 1, "1"),
        (0, False, "false"),
        ("1", 1, "1"),
        (None, False, "false"),
        ([], {}, "{}"),
        ([1, {"x": [2]}], [1, {"x": [3]}], '[1,{"x":[3]}]'),
        ([1, 2], [2, 1], "[2,1]"),
        ("é", "e\u0301", '"e\u0301"'),
    ],
)
def test_a_value_that_is_equal_and_not_the_same_counts(
    before: object, after: object, text: str
) -> None:
    assert changed({"k": before, "l": 1}, {"k": after, "l": 1}) == ({"k": text}, [])


def test_what_is_new_and_what_is_gone() -> None:
    assert changed({}, {"a": 1}) == ({"a": "1"}, [])
    assert changed({"a": 1, "b": 2}, {"b": 2}) == ({}, ["a"])
    assert changed({"a": 1}, {}) == ({}, ["a"])
    assert changed({"a": 1, "b": 1}, {"b": 2, "c": None}) == ({"b": "2", "c": "null"}, ["a"])


def test_a_change_inside_of_a_value_is_checked() -> None:
    for inside, kind, why in (
        (b"x", TypeError, r"session\['a'\] is no JSON"),
        (math.nan, ValueError, r"session\['a'\] holds a number"),
        (2**64, ValueError, r"session\['a'\] holds a whole number"),
        ("\x00", ValueError, r"session\['a'\] holds text"),
    ):
        with pytest.raises(kind, match=why):
            changed({"a": {"b": 1}, "c": 2}, {"a": {"b": inside}, "c": 2})


def test_what_is_there_already_is_not_checked_again() -> None:
    before = {"large": 2**70, "": 1}  # somebody else has written it
    assert changed(before, {**before, "a": 1}) == ({"a": "1"}, [])


@given(before=st.dictionaries(_KEYS, JSON), after=st.dictionaries(_KEYS, JSON))
def test_the_changes_make_of_the_one_the_other(
    before: dict[str, Any], after: dict[str, Any]
) -> None:
    try:
        new = Snapshot(encode(before)).changes(after, 10**6)
    except ValueError:
        return  # for instance NUL
    made = before if new is None else new.made_in(decode(encode(before)))
    assert {k: encode(v) for k, v in made.items()} == {k: encode(v) for k, v in after.items()}


def test_hundreds_of_keys_are_several_pieces() -> None:
    few = Changes({"a": "1"}, ["b"])
    assert few.parts() == [few]
    many = Changes({f"k{i}": "1" for i in range(600)}, [f"r{i}" for i in range(300)])
    parts = many.parts()
    assert [len(p.written) for p in parts] == [64] * 9 + [24]
    assert [len(p.removed) for p in parts] == [64] * 4 + [44] + [0] * 5
    assert {k for part in parts for k in part.written} == many.written.keys()
    assert [k for part in parts for k in part.removed] == many.removed
    assert all(len(part.written) <= KEYS_AT_ONCE for part in parts)


def test_the_limit_counts_bytes_of_all() -> None:
    data = {"a": "é" * 10}
    size = len(encode(data).encode())
    limit(data, size)
    with pytest.raises(InvalidSession, match=f"{size} bytes of JSON") as refused:
        limit(data, size - 1)
    assert [*refused.value.errors] == ["data"]
    with pytest.raises(InvalidSession):
        Snapshot(encode({"b": "x" * 10})).changes({"b": "x" * 10, "a": 1}, 10)
    # What has become less may always be saved.
    assert Snapshot(encode({"b": "x" * 10, "a": 1})).changes({"b": "x" * 10}, 10) == ({}, ["a"])


@pytest.mark.parametrize(
    ("data", "blank"),
    [
        ({}, True),
        ({"_messages": []}, True),
        ({"a": {}, "b": []}, True),
        ({"a": None}, False),
        ({"a": 0}, False),
        ({"a": ""}, False),
        ({"a": [[]]}, False),
        ({"a": [], "b": 1}, False),
    ],
)
def test_what_is_nothing_to_keep(data: dict[str, Any], *, blank: bool) -> None:
    assert is_blank(data) is blank


def test_no_text_is_no_data() -> None:
    assert decode(None) == {} == decode("{}")
    assert decode(' {"a": 1} ') == {"a": 1}  # as somebody else may have written it
    assert repr(MISSING) == "MISSING"


def test_a_visitor_lives_as_long_as_its_lifetimes_say() -> None:
    lifetimes = Lifetimes(absolute=timedelta(days=2), idle=timedelta(days=1))
    visitor = Visitor("sid", b"", NOON, NOON + timedelta(hours=30), "{}")
    for hours, alive in ((31, True), (47, True), (48, False)):
        assert visitor.live(NOON + timedelta(hours=hours), lifetimes) is alive
    early = visitor._replace(last_seen_at=NOON)
    assert early.live(NOON + timedelta(hours=23), lifetimes)
    assert not early.live(NOON + timedelta(hours=24), lifetimes)


# --- Starlette's cookie ---------------------------------------------------------------------------


def signed(text: bytes, key: str = KEY) -> str:
    """As Starlette signs it."""
    return TimestampSigner(key).sign(b64encode(text)).decode()


def test_a_cookie_of_starlettes_is_read() -> None:
    cookie = StarletteCookie(KEY)
    assert cookie.read(signed(b'{"user": {"name": "Ann"}, "n": [1]}')) == {
        "user": {"name": "Ann"},
        "n": [1],
    }


@pytest.mark.parametrize(
    "value",
    [
        "",
        "null",
        "a.b.c",
        "\xff",
        signed(b'{"a": 1}', "another key, which has signed it"),
        signed(b'{"a": 1}') + "x",
        signed(b"{}"),
        signed(b"[1]"),
        signed(b"null"),
        signed(b"{"),
        signed(b"\xff"),
        TimestampSigner(KEY).sign(b"no base64!").decode(),
    ],
    ids=[
        f"cookie {number}" for number in range(12)
    ],  # what is signed has the time in it, and each process must name it alike
)
def test_a_cookie_that_is_bad_or_holds_nothing_is_none(value: str) -> None:
    assert StarletteCookie(KEY).read(value) is None


def test_an_old_cookie_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    value = signed(b'{"a": 1}')
    now = TimestampSigner(KEY).get_timestamp()
    for age, there in ((60, True), (61, False)):
        monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda _, age=age: now + age)
        read = StarletteCookie(KEY, max_age=timedelta(minutes=1)).read(value)
        assert (read is not None) is there


def test_it_is_cleared_where_it_was_set() -> None:
    assert StarletteCookie(KEY).clearing() == (
        b"session=; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Path=/; HttpOnly"
    )
    cookie = StarletteCookie(KEY, name="s", path="/app", domain="example.com")
    assert cookie.clearing().startswith(b"s=; Max-Age=0; ")
    assert cookie.clearing().endswith(b"; Path=/app; HttpOnly; Domain=example.com")


def test_its_key_is_not_shown() -> None:
    assert KEY not in repr(SessionData(starlette_cookie=StarletteCookie(KEY)))


# --- options --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (lambda: SessionData(max_bytes=1), "max_bytes=1"),
        (lambda: SessionData(max_bytes=True), "max_bytes=True"),
        (lambda: SessionData(max_bytes=1.5), "max_bytes=1.5"),  # type: ignore[arg-type]
        (lambda: SessionData(carry="cart"), "carry='cart'"),
        (lambda: SessionData(carry=[1]), r"carry=\[1\]"),  # type: ignore[list-item]
        (lambda: SessionData(carry={"cart"}), "carry="),  # type: ignore[arg-type]
        (lambda: SessionData(starlette_cookie="key"), "StarletteCookie"),  # type: ignore[arg-type]
        (lambda: StarletteCookie(""), "secret_key"),
        (lambda: StarletteCookie(KEY, max_age=60), "max_age=60"),  # type: ignore[arg-type]
        (lambda: Sessions("sqlite://", secret_key=KEY, data="yes"), "data='yes'"),  # type: ignore[arg-type]
        (lambda: Sessions("sqlite://", secret_key=KEY, data=1), "data=1"),  # type: ignore[arg-type]
        (
            lambda: Sessions("sqlite://", secret_key=KEY, visitor_lifetimes=timedelta(1)),  # type: ignore[arg-type]
            "visitor_lifetimes=",
        ),
        (lambda: Sessions("sqlite:///x.db", secret_key=KEY).data, r"pass Sessions\(data=True\)"),
    ],
)
def test_an_option_that_cannot_be_one_is_an_error(make: Callable[[], object], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        make()


def test_a_login_keeps_all_or_what_is_named() -> None:
    data = {"cart": 1, "theme": 2}
    assert SessionData().kept(data) == data
    assert SessionData(carry=["cart", "other"]).kept(data) == {"cart": 1}
    assert SessionData(carry=()).kept(data) == {}
