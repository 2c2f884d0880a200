"""What DBSC reads of headers, and the record of a binding: private and pure."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asgi_sessions._dbsc import headers
from asgi_sessions._dbsc.record import REMEMBERED, DeviceRecord


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (b"abc", "abc"),
        (b"  abc\t", "abc"),
        (b"abc;v=1", "abc"),
        (b'"abc"', "abc"),
        (b'"a\\"b\\\\c" ; v="1"', 'a"b\\c'),
        (b'""', ""),
        (b"", None),
        (b'"abc', None),
        (b'abc"', None),
        (b'"a"b"', None),
        (b'"a\\b"', None),
        (b"a, b", None),
        (b"a b", None),
        (b'"a\x7f"', None),
        ("\u00e9".encode(), None),
    ],
)
def test_a_text_is_read_quoted_or_bare(value: bytes, read: str | None) -> None:
    assert headers.text([(b"sec-secure-session-id", value)], headers.SESSION_ID) == read


@settings(max_examples=50, deadline=None)
@given(
    enforced_at=st.integers(0, 2**63),
    used=st.lists(st.binary(min_size=16, max_size=16), min_size=4, max_size=4),
    key=st.binary(min_size=1, max_size=550),
)
def test_a_record_is_read_as_it_was_written(
    enforced_at: int, used: list[bytes], key: bytes
) -> None:
    record = DeviceRecord(enforced_at, tuple(sorted(used)), key)
    assert DeviceRecord.read(record.write()) == record
    assert len(record.write()) <= 640


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=16, max_size=16), unique=True, max_size=12))
def test_no_challenge_is_fresh_twice_in_whatever_order(serials: list[bytes]) -> None:
    record = DeviceRecord(0, (bytes(16),) * REMEMBERED, b"")
    accepted: list[bytes] = []
    for serial in serials * 2:
        if record.fresh(serial):
            accepted.append(serial)
            record = record.using(serial)
    assert len(set(accepted)) == len(accepted)
    assert set(accepted) >= set(sorted(serials)[-1:]) - {bytes(16)}
