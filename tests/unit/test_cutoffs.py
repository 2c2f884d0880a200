"""The rule of the cut-off, which is pure: nobody outside makes one by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from asgi_sessions._model.decisions import Cutoff, is_cut_off

SECOND = timedelta(seconds=1)
NOW = datetime(2026, 5, 1, tzinfo=UTC)


def test_a_clock_that_is_set_back_moves_no_cut_back() -> None:
    cut = Cutoff("ann", "shop").cut([], NOW, None)
    again = cut.cut([cut], NOW - timedelta(days=300), "a sid")
    assert again.cut_at == NOW
    assert is_cut_off([again], NOW, None)
    assert not is_cut_off([again], NOW + SECOND, None)


def test_a_proof_that_is_seen_again_moves_nothing() -> None:
    seen = Cutoff("ann", "shop").prove(NOW)
    assert seen.prove(NOW - SECOND) == seen
    assert not is_cut_off([seen], None, None)
