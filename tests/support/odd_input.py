"""Values, headers and cookies that nobody would expect, for Hypothesis to draw from."""

from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

#: Made-up inputs of each test that is decorated with `@MANY` (its explicit examples come on top).
EXAMPLES = 100

MANY = settings(
    max_examples=EXAMPLES,
    deadline=None,  # a busy machine is no fault of the package
    database=None,
    derandomize=True,  # the same inputs each time; `pytest --hypothesis-seed` has no say
    suppress_health_check=[HealthCheck.too_slow],
)

NAME = b"__Host-sid"
#: Bytes of a value that are looked at.
VALUE_LENGTH = 512

characters = st.characters(exclude_categories=())  # lone surrogates too

texts = st.text(characters, max_size=300)

#: Where conversions break: int to float at 310 digits; int to str at 4,300, see `UNSPEAKABLE`.
integers = st.one_of(
    st.integers(),
    st.sampled_from([0, -1, 2**31, 2**63, 2**64, 10**254, 10**255, 10**310, -(10**310)]),
)

zones = st.sampled_from(
    [None, UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-14, minutes=-30))]
)

moments = st.one_of(
    st.datetimes(timezones=zones),
    st.builds(
        lambda moment, zone: moment.replace(tzinfo=zone),
        st.sampled_from([datetime.min, datetime.max]),  # noqa: DTZ901 -- the zone follows
        zones,
    ),
)

scalars = st.one_of(
    st.none(),
    st.booleans(),
    integers,
    st.floats(),
    texts,
    st.sampled_from(["", " ", "\0", "a\0b", "\ud800", "x" * 255, "x" * 256, "é" * 255]),
    st.binary(max_size=50),
    st.uuids(),
    moments,
    st.decimals(),
)

junk = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)

token_like = st.text(string.ascii_letters + string.digits + "-_.", max_size=200)

segments = st.one_of(
    st.binary(max_size=80),
    st.binary(max_size=200).map(lambda garbage: NAME + b"=" + garbage),
    token_like.map(lambda garbage: NAME + b"=" + garbage.encode()),
    st.sampled_from(
        [
            NAME,
            NAME + b"=",
            b"=" + NAME,
            NAME + b"==",
            NAME + b'=""',
            NAME + b"=" + b"a" * VALUE_LENGTH,
            NAME + b"=" + b"." * (VALUE_LENGTH + 1),
            NAME.lower() + b"=a",
            NAME + b" =a",
            b"sid=a",
            b"\0",
            b";;=;=",
        ]
    ),
)

cookie_lines = st.lists(segments, max_size=8).map(b"; ".join)

cookie_headers = st.lists(cookie_lines, max_size=4)

header_names = st.sampled_from(
    [b"cookie", b"Cookie", b"user-agent", b"host", b"origin", b"sec-fetch-site", b"x-forwarded-for"]
)

addresses = st.one_of(
    st.ip_addresses().map(str),
    texts,
    st.sampled_from(["", "testclient", "fe80::1%eth0", "::ffff:192.0.2.1", "[::1]", "1.2.3.4:5"]),
)


def is_text(value: str | bytes) -> bool:
    return isinstance(value, bytes) or value.encode(errors="replace").decode() == value
