"""What of a header Accept is looked at: up to a bound, which no answer shows."""

from __future__ import annotations

from typing import Any

from asgi_sessions._pages.negotiation import prefers_html


def test_of_accept_one_kilobyte_is_looked_at() -> None:
    long = "text/html," + "a/b," * 1000
    assert prefers_html(long)
    assert prefers_html("text/html," + "," * 60_000)
    assert not prefers_html("," * 2000 + "text/html")
    # The last part that fits may have been cut: it does not count.
    start = "application/json;q=0.5,"
    cut = f"{start}{'x' * (1024 - len(start) - 10)},text/html;q=0.4"
    assert cut[:1024].endswith(",text/html")
    assert not prefers_html(cut)
    assert not prefers_html("x" * 2000)


def test_a_long_accept_costs_no_more_than_a_short_one() -> None:
    parts: list[str] = []

    class Counting(str):
        """Tells what is taken apart."""

        __slots__ = ()

        def __getitem__(self, key: Any) -> str:
            piece = str.__getitem__(self, key)
            parts.append(piece)
            return piece

    prefers_html(Counting("," * 60_000))
    assert [len(piece) for piece in parts] == [1024]
