"""The cut-off: all sessions of a person were ended, and what was proved before opens nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asgi_sessions import ALL_APPS, Sessions
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app
from tests.support.inside import store_of

SECOND = timedelta(seconds=1)
#: How far ahead of ours another layer's clock may be.
SKEW = timedelta(minutes=5)


def device(sessions: Sessions, agent: str = "Firefox") -> Browser:
    """A client of the app without cookies, by its User-Agent."""
    return Browser(make_app(sessions), agent=agent)


async def remembered(sessions: Sessions) -> list[Any]:
    """All cut-offs, as rows."""
    table = sessions.metadata.tables[f"{sessions.table.name}_cutoffs"]
    return list(await sessions.database.fetch_all(table.select()))


# --- the same token again -------------------------------------------------------------------------


@pytest.mark.parametrize("dated", [True, False], ids=["dated", "without a date"])
async def test_an_old_token_opens_nothing_on_any_device(
    sessions: Sessions, clock: Clock, *, dated: bool
) -> None:
    claims: dict[str, object] = {"iat": clock.now.timestamp()} if dated else {}
    assert (await device(sessions).see_as("ann", **claims))["sid"] is not None
    clock.turn(SECOND)
    assert await sessions.end_all_sessions("ann") == 1
    for agent in ("Firefox", "curl", "another"):
        seen = await device(sessions, agent).see_as("ann", **claims)
        assert seen == {"sid": None, "person_id": None, "reason": "revoked", "user": False}
    assert await sessions.list_sessions("ann") == []
    assert (await device(sessions).see_as("bob", **claims))["sid"] is not None


async def test_it_holds_when_the_rows_are_gone(make_sessions: MakeSessions, clock: Clock) -> None:
    sessions = await make_sessions(keep_ended=timedelta(days=1))
    assert (await device(sessions).see_as("ann"))["sid"] is not None
    await sessions.end_all_sessions("ann")
    clock.turn(timedelta(days=399))
    assert await sessions.purge() == 1
    assert await sessions.list_sessions("ann", include_ended=True) == []
    assert not (await device(sessions).see_as("ann"))["user"]
    clock.turn(timedelta(days=2))
    await sessions.purge()
    assert await remembered(sessions) == []
    assert (await device(sessions).see_as("ann"))["sid"] is not None


async def test_a_newer_token_opens_the_door_again(sessions: Sessions, clock: Clock) -> None:
    await device(sessions).see_as("ann")
    await sessions.end_all_sessions("ann")
    clock.turn(SECOND)
    new = {"iat": clock.now.timestamp()}
    clock.turn(SECOND)
    sid = (await device(sessions).see_as("ann", **new))["sid"]
    assert sid is not None
    # The old token finds the new row by its device, and is no better for that.
    assert not (await device(sessions).see_as("ann"))["user"]
    assert (await device(sessions).see_as("ann", **new))["sid"] == sid
    # One that names it was made when it was there.
    assert (await device(sessions, "curl").see_as("ann", sid=sid))["sid"] == sid


async def test_a_login_of_the_apps_own_needs_no_newer_token(sessions: Sessions) -> None:
    browser = device(sessions)
    await sessions.end_all_sessions("ann")
    sid = await browser.login("ann")
    assert (await browser.see())["sid"] == sid
    assert (await browser.see_as("ann"))["sid"] == sid


async def test_the_session_that_was_spared_goes_on(sessions: Sessions, clock: Clock) -> None:
    here, there = device(sessions), device(sessions, "curl")
    sid = (await here.see_as("ann"))["sid"]
    await there.see_as("ann")
    clock.turn(SECOND)
    assert (await here.post("/end-others", headers={"x-person": '{"id": "ann"}'})).json() == 1
    assert (await here.see_as("ann"))["sid"] == sid
    assert (await device(sessions).see_as("ann"))["sid"] == sid  # by its device alone
    for agent in ("curl", "another"):
        assert not (await device(sessions, agent).see_as("ann"))["user"]


async def test_one_that_was_spared_and_has_ended_opens_nothing(
    sessions: Sessions, clock: Clock
) -> None:
    sid = (await device(sessions).see_as("ann"))["sid"]
    await sessions.end_all_sessions("ann", except_sid=sid)
    await sessions.end_session_by_id(sid, reason="logout")
    clock.turn(SECOND)
    assert not (await device(sessions).see_as("ann"))["user"]
    (only,) = await sessions.list_sessions("ann", include_ended=True)
    assert only.sid == sid


async def test_with_auto_start_off_it_holds_as_well(make_sessions: MakeSessions) -> None:
    sessions = await make_sessions(auto_start=False)
    assert (await device(sessions).see_as("ann"))["user"]
    await sessions.end_all_sessions("ann")
    assert not (await device(sessions).see_as("ann"))["user"]


# --- proofs that are dated ahead of the clock -----------------------------------------------------


@pytest.mark.parametrize("claim", ["iat", "auth_time"])
@pytest.mark.parametrize("way", ["vouched for", "with its cookie", "logged in"])
async def test_a_provider_whose_clock_is_ahead_opens_nothing(
    sessions: Sessions, clock: Clock, way: str, claim: str
) -> None:
    ahead: dict[str, object] = {claim: (clock.now + timedelta(seconds=120)).timestamp()}
    browser = device(sessions)
    if way == "logged in":
        await sessions.insert({"headers": []}, {"id": "ann", **ahead})
    elif way == "with its cookie":
        await browser.see_as("ann")
        await browser.see_as("ann", **ahead)
    else:
        await browser.see_as("ann", **ahead)
        await device(sessions, "curl").see_as("ann", **ahead)
    clock.turn(SECOND)
    await sessions.end_all_sessions("ann")
    clock.turn(timedelta(minutes=3))
    for agent in ("Firefox", "another"):
        assert not (await device(sessions, agent).see_as("ann", **ahead))["user"]
    later = {claim: clock.now.timestamp()}
    assert (await device(sessions).see_as("ann", **later))["sid"] is not None


async def test_a_proof_far_in_the_future_is_none(sessions: Sessions, clock: Clock) -> None:
    await sessions.end_all_sessions("ann")
    far = datetime(9967, 1, 1, tzinfo=UTC).timestamp()
    assert not (await device(sessions).see_as("ann", auth_time=far))["user"]
    beyond = (clock.now + SKEW + SECOND).timestamp()
    assert not (await device(sessions).see_as("ann", iat=beyond))["user"]


async def test_a_proof_of_now_is_written_down_nowhere(sessions: Sessions, clock: Clock) -> None:
    await device(sessions).see_as("ann", iat=clock.now.timestamp())
    assert await remembered(sessions) == []


# --- readmitted -----------------------------------------------------------------------------------


async def test_who_is_readmitted_comes_in_with_what_they_have(
    sessions: Sessions, clock: Clock
) -> None:
    browser = device(sessions)
    await browser.see_as("ann")
    await sessions.end_all_sessions("ann")
    clock.turn(SECOND)
    assert not (await browser.see_as("ann"))["user"]
    await sessions.readmit("ann")
    assert (await device(sessions).see_as("ann"))["sid"] is not None  # the same device
    assert (await device(sessions, "another").see_as("ann"))["sid"] is not None
    sid = (await browser.see_as("ann"))["sid"]  # with the cookie of its revoked session
    assert sid is not None
    clock.turn(SECOND)
    await sessions.end_all_sessions("ann")
    assert not (await device(sessions, "third").see_as("ann"))["user"]
    assert not (await browser.see_as("ann"))["user"]


async def test_who_is_cut_off_in_the_moment_of_their_readmission_is_cut_off(
    sessions: Sessions,
) -> None:
    await sessions.readmit("ann")
    await sessions.end_all_sessions("ann")
    assert not (await device(sessions).see_as("ann"))["user"]
    await sessions.readmit("ann")
    assert (await device(sessions).see_as("ann"))["sid"] is not None


# --- apps -----------------------------------------------------------------------------------------


async def test_it_holds_in_its_app_or_in_all(make_sessions: MakeSessions, clock: Clock) -> None:
    shop, staff = await make_sessions(app_id="shop"), await make_sessions(app_id="staff")
    await shop.end_all_sessions("ann")
    assert not (await device(shop).see_as("ann"))["user"]
    assert (await device(staff).see_as("ann"))["sid"] is not None
    clock.turn(SECOND)
    await staff.end_all_sessions("ann", app_id=ALL_APPS)
    assert not (await device(staff).see_as("ann"))["user"]
    clock.turn(SECOND)
    await staff.readmit("ann")
    assert (await device(staff, "another").see_as("ann"))["sid"] is not None
    assert not (await device(shop).see_as("ann"))["user"]
    clock.turn(SECOND)
    await staff.readmit("ann", app_id=ALL_APPS)
    assert (await device(shop).see_as("ann"))["sid"] is not None


async def test_a_cut_in_all_apps_is_later_than_a_proof_ahead_of_the_clock_in_one(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    shop = await make_sessions(app_id="shop")
    ahead = {"iat": (clock.now + timedelta(seconds=120)).timestamp()}
    await device(shop).see_as("ann", **ahead)
    await shop.end_all_sessions("ann", app_id=ALL_APPS)
    clock.turn(timedelta(minutes=3))
    assert not (await device(shop).see_as("ann", **ahead))["user"]


async def test_all_sessions_end_while_one_is_started(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut-off is written after the question for it, and before the new row."""
    store = store_of(sessions)
    insert_once = store.insert_once

    async def late(*args: Any, **options: Any) -> Any:
        await sessions.end_all_sessions("ann")
        return await insert_once(*args, **options)

    monkeypatch.setattr(store, "insert_once", late)
    seen = await device(sessions).see_as("ann")
    assert seen == {"sid": None, "person_id": None, "reason": "revoked", "user": False}
    assert await sessions.list_sessions("ann") == []


async def test_an_old_proof_that_finds_the_session_of_a_new_one_does_not_end_it(
    sessions: Sessions, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While it is looked at, all sessions end, and the same device comes with a new one."""
    store, browser = store_of(sessions), device(sessions)
    insert_once, old = store.insert_once, clock.now.timestamp()
    new: dict[str, Any] = {}

    async def late(*args: Any, **options: Any) -> Any:
        monkeypatch.setattr(store, "insert_once", insert_once)
        await sessions.end_all_sessions("ann")
        clock.turn(timedelta(minutes=1))
        new.update(await browser.see_as("ann", iat=clock.now.timestamp()))
        return await insert_once(*args, **options)

    monkeypatch.setattr(store, "insert_once", late)
    seen = await browser.see_as("ann", iat=old)
    assert seen == {"sid": None, "person_id": None, "reason": "revoked", "user": False}
    assert [session.id for session in await sessions.list_sessions("ann")] == [new["sid"]]
