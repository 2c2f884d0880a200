"""The clients notice what must not be: else their silence would mean nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from asgi_sessions import Sessions
from tests.cluster.load import App, Load
from tests.cluster.model import Model, Told
from tests.support import KEY
from tests.support.engines import Onlooker


@pytest.fixture
def model() -> Model:
    return Model(cap=2)


def log_in(model: Model, sid: str, person: str = "ann", *, at: float = 1) -> Told:
    model.asks_login(person, at)
    return model.login_answered(sid, person, at, at + 1)


def live(model: Model, told: Told, *, asked: float) -> None:
    model.saw(told, live=True, reason=None, asked=asked, now=asked + 1)


def over(model: Model, told: Told, reason: str | None, *, asked: float) -> None:
    model.saw(told, live=False, reason=reason, asked=asked, now=asked + 1)


def test_an_answer_of_a_live_session_is_right(model: Model) -> None:
    live(model, log_in(model, "a"), asked=5)
    assert model.faults == []


def test_a_live_session_that_is_over_is_a_false_logout(model: Model) -> None:
    over(model, log_in(model, "a"), "logout", asked=5)
    assert (model.lost, model.false_logouts, len(model.faults)) == ({"a"}, 1, 1)


def test_an_end_for_another_reason_than_was_asked_for_is_wrong(model: Model) -> None:
    told = log_in(model, "a")
    told.may_end("logout", 3)
    over(model, told, "reuse", asked=5)
    assert model.lost == {"a"}


def test_an_ended_session_without_a_row_is_lost(model: Model) -> None:
    told = log_in(model, "a")
    told.may_end("logout", 3)
    over(model, told, None, asked=5)
    model.saw_row(told, None, there=False, now=9)
    assert model.lost == {"a"}
    assert len(model.faults) == 2


def test_an_end_that_was_not_answered_leaves_both_open(model: Model) -> None:
    told = log_in(model, "a")
    told.may_end("logout", 3)
    live(model, told, asked=5)
    over(model, told, "logout", asked=7)
    assert model.faults == []
    live(model, told, asked=9)  # but over is over
    assert model.revived == {"a"}


def test_an_ended_session_is_over_for_requests_that_come_later(model: Model) -> None:
    told = log_in(model, "a")
    told.may_end("logout", 3)
    told.must_be_over(4)
    live(model, told, asked=3.5)  # it was under way
    assert model.faults == []
    live(model, told, asked=4.5)
    assert model.revived == {"a"}


def test_an_end_of_all_meets_those_told_before_and_those_under_way(model: Model) -> None:
    before = log_in(model, "a", at=1)
    model.asks_login("ann", 4)
    mine, doubt = model.asks_end_of_all("ann", "revoked", 5)
    under_way = model.login_answered("b", "ann", 4, 6)
    model.end_of_all_answered(mine, doubt, 7)
    after = log_in(model, "c", at=8)
    live(model, under_way, asked=9)
    over(model, under_way, "revoked", asked=9)
    over(model, before, "revoked", asked=9)
    assert model.faults == []
    over(model, after, "revoked", asked=9)
    assert model.lost == {"c"}


def test_the_cap_ends_nobody_while_there_is_room(model: Model) -> None:
    told = [log_in(model, sid, at=at) for at, sid in enumerate("ab", 1)]
    over(model, told[0], "limit", asked=5)
    assert model.lost == {"a"}
    third = log_in(model, "c", at=6)
    over(model, told[1], "limit", asked=8)
    live(model, third, asked=8)
    assert model.lost == {"a"}


def test_lists_are_checked_for_what_is_missing_and_for_what_is_too_many(model: Model) -> None:
    one, other = log_in(model, "a"), log_in(model, "b")
    model.saw_list("ann", ["a", "b"], asked=5, now=6)
    assert model.faults == []
    one.may_end("logout", 6)
    one.must_be_over(7)
    model.saw_list("ann", ["a"], asked=8, now=9)
    assert (model.revived, model.lost) == ({one.sid}, {other.sid})


def test_at_the_end_there_are_no_more_sessions_than_logins(model: Model) -> None:
    log_in(model, "a")
    model.saw_end(["a"], "ann")
    assert model.faults == []
    model.saw_end(["a", "x"], "ann")
    model.asks_login("ann", 5)  # and is not answered: so there may be one more
    model.saw_end(["a", "x"], "ann")
    assert len(model.faults) == 1
    model.saw_end(["a", "x", "y"], "ann")
    assert len(model.faults) == 3  # more than may be, and more than the cap


async def noticed(load: Load, condition: Callable[[], bool]) -> None:
    """Let the clients work until it is so."""
    for _ in range(20):
        if condition():
            return
        await load.progress(50)
    pytest.fail("a thousand answers, and nothing was noticed")


async def test_under_load_a_lost_session_and_one_that_comes_back_are_noticed(
    tmp_path: Path,
) -> None:
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Sessions(url, secret_key=KEY) as sessions:
        await sessions.create_tables()
    saboteur = Onlooker(url, "sessions")
    async with App([url, url], "sessions", tmp_path) as app:
        load = Load(app.ports, seed=1, people=4, crowds=0, thinking=0.005)
        async with load.running():
            await load.progress()
            assert load.model.faults == []
            saboteur.run("UPDATE {} SET ended_at = NULL WHERE end_reason = 'logout'")
            await noticed(load, lambda: bool(load.model.revived))
            assert load.model.false_logouts == 0
            saboteur.run("UPDATE {} SET ended_at = started_at, end_reason = 'stolen'")
            await noticed(load, lambda: load.model.false_logouts > 0)
    saboteur.close()
    assert load.model.lost
