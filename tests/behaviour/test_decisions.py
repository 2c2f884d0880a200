"""The decision table: each cell tried through the middleware, the page asserted against it.

The tables that the cells come from are private. docs/decisions.md is what is public of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import Sessions
from asgi_sessions._model.decisions import BY_COOKIE, BY_FINDING, Cookie, Decision, Found, Then, Who
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app, set_cookies, vouched
from tests.support.acting import acting_routes
from tests.support.engines import run
from tests.support.inside import store_of
from tests.support.repository import DOCS

PAGE = DOCS / "decisions.md"

# --- the cookies ----------------------------------------------------------------------------------


class World:
    """A browser whose cookie leads to what the row of the table says."""

    def __init__(self, sessions: Sessions, clock: Clock) -> None:
        self.sessions = sessions
        self.clock = clock

        async def fresh(request: Request) -> Response:
            return JSONResponse(sessions.is_fresh(request, timedelta(days=1)))

        routes = (Route("/fresh", fresh), *acting_routes(sessions))
        self.browser = Browser(make_app(sessions, *routes))
        self.old: str | None = None

    async def none(self) -> None:
        pass

    async def invalid(self) -> None:
        self.browser.cookies.set(self.sessions.cookie_name, "x" * 124)

    async def live_login(self) -> None:
        self.old = await self.browser.login("ann")

    async def live_scope(self) -> None:
        self.old = (await self.browser.see_as("ann"))["sid"]

    async def unproven(self) -> None:
        self.old = await self.browser.login("ann")
        store = store_of(self.sessions)
        row = await store.by_sid(self.old)
        assert row is not None
        assert await store.bind(row, b"a device", now=self.clock.now)

    async def _renewed(self, **vouched_for: str) -> None:
        """Renew the session, and keep the cookie from before."""
        cookie = self.browser.cookies[self.sessions.cookie_name]
        await self.browser.post("/renew", headers=vouched_for)
        self.kept = self.browser.cookies[self.sessions.cookie_name]
        self.browser.cookies.clear()
        self.browser.cookies.set(self.sessions.cookie_name, cookie)

    async def _seen(self) -> None:
        """Let the new cookie be seen."""
        with_new = Browser(make_app(self.sessions))
        with_new.cookies.set(self.sessions.cookie_name, self.kept)
        await with_new.see()

    async def bridge_login(self) -> None:
        self.old = await self.browser.login("ann")
        await self._renewed()
        await self._seen()
        self.clock.turn(timedelta(seconds=59))

    async def bridge_scope(self) -> None:
        await self.live_scope()
        await self._renewed(**vouched("ann"))

    async def lapsed(self) -> None:
        self.old = await self.browser.login("ann")
        await self._renewed()
        self.clock.turn(timedelta(minutes=10, microseconds=1))

    async def superseded(self) -> None:
        self.old = await self.browser.login("ann")
        await self._renewed()
        await self._seen()
        self.clock.turn(timedelta(seconds=60, microseconds=1))

    async def waiting(self) -> None:
        self.old = await self.browser.login("ann")
        cookie = self.browser.cookies[self.sessions.cookie_name]
        await self.browser.post("/act?person=carl")
        self.browser.cookies.clear()
        self.browser.cookies.set(self.sessions.cookie_name, cookie)

    async def orphaned(self) -> None:
        await self.browser.login("eve")
        self.old = (await self.browser.post("/act?person=ann")).json()["sid"]
        await run(self.sessions, self.sessions.end_all_statement("eve"))

    async def _ended(self, reason: str) -> None:
        self.old = await self.browser.login("ann")
        await self.sessions.end_session_by_id(self.old, reason=reason)

    async def revoked(self) -> None:
        await self._ended("revoked")

    async def reuse(self) -> None:
        await self._ended("reuse")

    async def limit(self) -> None:
        await self._ended("limit")

    async def ended_otherwise(self) -> None:
        await self._ended("logout")

    async def expired(self) -> None:
        self.old = await self.browser.login("ann")
        self.clock.turn(timedelta(days=14))

    async def unknown(self) -> None:
        self.old = await self.browser.login("ann")
        await self.sessions.end_session_by_id(self.old)
        self.clock.turn(timedelta(days=91))
        assert await self.sessions.purge() >= 1


WORLDS: dict[Cookie, list[Callable[[World], Awaitable[None]]]] = {
    Cookie.NONE: [World.none],
    Cookie.INVALID: [World.invalid],
    Cookie.LIVE_LOGIN: [World.live_login],
    Cookie.LIVE_SCOPE: [World.live_scope],
    Cookie.UNPROVEN: [World.unproven],
    Cookie.BRIDGE_LOGIN: [World.bridge_login],
    Cookie.BRIDGE_SCOPE: [World.bridge_scope],
    Cookie.WAITING: [World.waiting],
    Cookie.ORPHANED: [World.orphaned],
    Cookie.LAPSED: [World.lapsed],
    Cookie.SUPERSEDED: [World.superseded],
    Cookie.REVOKED: [World.revoked, World.reuse, World.limit],
    Cookie.DEAD: [World.ended_otherwise, World.expired, World.unknown],
}

#: The table as the design has it, written down once more.
EXPECTED: dict[tuple[Cookie, Who], tuple[str | None, str]] = {
    (Cookie.NONE, Who.NOBODY): (None, "no session"),
    (Cookie.NONE, Who.SAME): (None, "start"),
    (Cookie.INVALID, Who.NOBODY): (None, "no session"),
    (Cookie.INVALID, Who.SAME): (None, "start"),
    (Cookie.LIVE_LOGIN, Who.NOBODY): (None, "resume"),
    (Cookie.LIVE_LOGIN, Who.SAME): (None, "resume"),
    (Cookie.LIVE_LOGIN, Who.OTHER): ("person_changed", "start"),
    (Cookie.LIVE_SCOPE, Who.NOBODY): (None, "no session"),
    (Cookie.LIVE_SCOPE, Who.SAME): (None, "resume"),
    (Cookie.LIVE_SCOPE, Who.OTHER): ("person_changed", "start"),
    (Cookie.UNPROVEN, Who.NOBODY): (None, "no session"),
    (Cookie.UNPROVEN, Who.SAME): (None, "signed out"),
    (Cookie.UNPROVEN, Who.OTHER): ("person_changed", "start"),
    (Cookie.BRIDGE_LOGIN, Who.NOBODY): (None, "bridge"),
    (Cookie.BRIDGE_LOGIN, Who.SAME): (None, "bridge"),
    (Cookie.BRIDGE_LOGIN, Who.OTHER): ("person_changed", "start"),
    (Cookie.BRIDGE_SCOPE, Who.NOBODY): (None, "no session"),
    (Cookie.BRIDGE_SCOPE, Who.SAME): (None, "bridge"),
    (Cookie.BRIDGE_SCOPE, Who.OTHER): ("person_changed", "start"),
    (Cookie.WAITING, Who.NOBODY): (None, "no session"),
    (Cookie.WAITING, Who.SAME): (None, "start"),
    (Cookie.WAITING, Who.OTHER): (None, "start"),
    (Cookie.ORPHANED, Who.NOBODY): ("actor_left", "no session"),
    (Cookie.ORPHANED, Who.SAME): ("actor_left", "start"),
    (Cookie.ORPHANED, Who.OTHER): ("actor_left", "start"),
    (Cookie.LAPSED, Who.NOBODY): (None, "no session"),
    (Cookie.LAPSED, Who.SAME): (None, "start"),
    (Cookie.LAPSED, Who.OTHER): (None, "start"),
    (Cookie.SUPERSEDED, Who.NOBODY): ("reuse", "no session"),
    (Cookie.SUPERSEDED, Who.SAME): ("reuse", "signed out"),
    (Cookie.SUPERSEDED, Who.OTHER): ("reuse", "start"),
    (Cookie.REVOKED, Who.NOBODY): (None, "no session"),
    (Cookie.REVOKED, Who.SAME): (None, "signed out"),
    (Cookie.REVOKED, Who.SAME_SINCE): (None, "start"),
    (Cookie.REVOKED, Who.OTHER): (None, "start"),
    (Cookie.DEAD, Who.NOBODY): (None, "no session"),
    (Cookie.DEAD, Who.SAME): (None, "start"),
    (Cookie.DEAD, Who.SAME_SINCE): (None, "start"),
    (Cookie.DEAD, Who.OTHER): (None, "start"),
}

CELLS = [
    pytest.param(cookie, arrange, who, id=f"{arrange.__name__}-{who.name.lower()}")
    for cookie, arranges in WORLDS.items()
    for arrange in arranges
    for who in Who
    if (cookie, who) in EXPECTED
]


def test_the_table_has_the_cells_of_the_design_and_no_other() -> None:
    assert {(cookie, who) for cookie, row in BY_COOKIE.items() for who in row} == set(EXPECTED)


@pytest.mark.parametrize(("cookie", "arrange", "who"), CELLS)
async def test_each_cell_does_as_it_says(
    sessions: Sessions,
    clock: Clock,
    cookie: Cookie,
    arrange: Callable[[World], Awaitable[None]],
    who: Who,
) -> None:
    world = World(sessions, clock)
    await arrange(world)
    end, then = EXPECTED[cookie, who]
    clock.turn(timedelta(seconds=1))
    person = {
        Who.NOBODY: {},
        Who.SAME: vouched("ann"),
        Who.SAME_SINCE: vouched("ann", iso=clock.now.isoformat()),
        Who.OTHER: vouched("bob"),
    }[who]

    response = await world.browser.get("/", headers=person)
    seen = response.json()

    match then:
        case "no session":
            assert seen["sid"] is None
            assert not seen["user"]
        case "resume" | "bridge":
            assert seen["sid"] == world.old
            # Whoever comes with the secret from before a renewal has proved nothing.
            if cookie is not Cookie.LIVE_SCOPE:
                fresh = await world.browser.get("/fresh", headers=person)
                assert fresh.json() is (then == "resume")
            assert seen["person_id"] == "ann"
        case "signed out":
            assert seen["sid"] is None
            assert not seen["user"]
            assert seen["reason"] in ("revoked", "reuse", "limit", "not_bound")
        case "start":
            assert seen["sid"] not in (None, world.old)
            assert seen["person_id"] == ("bob" if who is Who.OTHER else "ann")
            assert seen["user"]
            started = await sessions.get_by_id(seen["sid"])
            assert started is not None
            assert started.origin == "scope"
    # A cookie only for what has started; a dead or superseded one is never cleared in passing.
    assert len(set_cookies(response)) == (1 if then == "start" else 0)
    if end is not None:
        old = await sessions.get_by_id(world.old)
        assert old is not None
        assert old.end_reason == end
        assert old.ended_at == clock.now
        assert seen["reason"] == end


async def test_a_dead_cookie_tells_why_it_is_dead(sessions: Sessions, clock: Clock) -> None:
    for arrange, reason in (
        (World.revoked, "revoked"),
        (World.ended_otherwise, "logout"),
        (World.expired, "expired"),
        (World.unknown, None),
    ):
        world = World(sessions, clock)
        await arrange(world)
        seen = await world.browser.see()
        assert (seen["sid"], seen["reason"]) == (None, reason)


async def test_signed_out_ends_with_an_explicit_login(sessions: Sessions, clock: Clock) -> None:
    world = World(sessions, clock)
    await world.revoked()
    assert not (await world.browser.see_as("ann"))["user"]
    sid = await world.browser.login("ann")
    assert (await world.browser.see_as("ann"))["sid"] == sid
    assert (await world.browser.see())["sid"] == sid


async def test_signed_out_reaches_a_client_that_keeps_no_cookie(
    sessions: Sessions, clock: Clock
) -> None:
    browser = Browser(make_app(sessions))
    sid = (await browser.see_as("ann"))["sid"]
    browser.cookies.clear()
    assert (await browser.see_as("ann"))["sid"] == sid
    await sessions.end_session_by_id(sid)
    for _ in range(2):
        browser.cookies.clear()
        seen = await browser.see_as("ann")
        assert (seen["sid"], seen["user"], seen["reason"]) == (None, False, "revoked")
    other_device = Browser(make_app(sessions), agent="Safari")
    assert (await other_device.see_as("ann"))["sid"] is not None
    clock.turn(timedelta(seconds=1))
    browser.cookies.clear()
    again = await browser.see_as("ann", auth_time=clock.now.timestamp())
    assert again["sid"] not in (None, sid)


async def test_a_person_in_the_state_is_signed_out_like_one_in_the_scope(
    sessions: Sessions,
) -> None:
    browser = Browser(make_app(sessions, vouch_in_state=True))
    sid = (await browser.see_as("ann"))["sid"]
    await sessions.end_session_by_id(sid)
    assert await browser.see_as("ann") == {
        "sid": None,
        "person_id": None,
        "reason": "revoked",
        "user": False,
    }


# --- found without a cookie -------------------------------------------------------------------

FOUND: dict[tuple[Found, Who], str] = {
    (Found.LIVE, Who.SAME): "resume",
    (Found.REVOKED, Who.SAME): "signed out",
    (Found.REVOKED, Who.SAME_SINCE): "start",
    (Found.DEAD_CLAIM, Who.SAME): "signed out",
    (Found.DEAD_CLAIM, Who.SAME_SINCE): "start",
    (Found.DEAD, Who.SAME): "start",
    (Found.DEAD, Who.SAME_SINCE): "start",
    (Found.NOTHING, Who.SAME): "start",
    (Found.CUT_OFF, Who.SAME): "signed out",
    (Found.CUT_OFF, Who.SAME_SINCE): "signed out",
}


def test_the_second_table_has_the_cells_of_the_design_and_no_other() -> None:
    assert {(found, who) for found, row in BY_FINDING.items() for who in row} == set(FOUND)


@pytest.mark.parametrize(
    ("found", "who", "by_claim"),
    [
        pytest.param(found, who, by_claim, id=f"{found.name}-{who.name}-{by_claim}".lower())
        for found, who in FOUND
        for by_claim in (True, False)
        if by_claim is not {Found.DEAD: True, Found.DEAD_CLAIM: False}.get(found)
    ],
)
async def test_each_cell_of_the_second_table_does_as_it_says(
    sessions: Sessions, clock: Clock, found: Found, who: Who, *, by_claim: bool
) -> None:
    browser = Browser(make_app(sessions))
    old = ""
    if found is not Found.NOTHING:
        old = (await browser.see_as("ann"))["sid"]
    if found is Found.REVOKED:
        await sessions.end_session_by_id(old)
    if found in (Found.DEAD, Found.DEAD_CLAIM):
        await sessions.end_session_by_id(old, reason="logout")
    clock.turn(timedelta(seconds=1))
    claims: dict[str, object] = {"sid": old} if by_claim else {}
    if who is Who.SAME_SINCE:
        claims["iat"] = clock.now.timestamp()
    if found is Found.CUT_OFF:
        clock.turn(timedelta(seconds=1))
        await sessions.end_all_sessions("ann")
    browser.cookies.clear()
    agent = "another one" if by_claim else "Firefox"  # then the device finds nothing
    response = await browser.get("/", headers={**vouched("ann", **claims), "user-agent": agent})
    seen = response.json()
    match FOUND[found, who]:
        case "resume":
            assert seen["sid"] == old
            assert not set_cookies(response)
        case "signed out":
            assert (seen["sid"], seen["user"]) == (None, False)
        case "start":
            assert seen["sid"] not in (None, old)
            assert len(set_cookies(response)) == 1


async def test_a_claim_that_names_a_foreign_or_unknown_session_counts_for_nothing(
    sessions: Sessions,
) -> None:
    app = make_app(sessions)
    foreign = (await Browser(app).see_as("ann"))["sid"]
    for claim in (foreign, "01a20eba-8a57-7c3b-b1ae-d92c17869afd", "a sid of the issuer's", ""):
        seen = await Browser(app).see_as("bob", sid=claim)
        assert seen["person_id"] == "bob"
        assert seen["sid"] not in (None, foreign)


async def test_a_claim_may_name_a_session_that_the_app_inserted(sessions: Sessions) -> None:
    inserted = await sessions.insert({"headers": [], "client": None}, {"id": "ann"})
    browser = Browser(make_app(sessions))
    assert (await browser.see_as("ann", sid=inserted.sid))["sid"] == inserted.sid
    await sessions.end_session_by_id(inserted.sid, reason="logout")
    assert not (await browser.see_as("ann", sid=inserted.sid))["user"]


# --- who may start --------------------------------------------------------------------------------


async def test_auto_start_can_be_switched_off_or_asked(make_sessions: MakeSessions) -> None:
    never = await make_sessions(auto_start=False)
    seen = await Browser(make_app(never)).see_as("ann")
    assert (seen["sid"], seen["user"]) == (None, True)

    def browsers_only(scope: Mapping[str, object]) -> bool:
        return "Mozilla" in str(scope["headers"])

    asked = await make_sessions(auto_start=browsers_only)
    app = make_app(asked)
    assert (await Browser(app, agent="curl").see_as("ann"))["sid"] is None
    assert (await Browser(app, agent="Mozilla").see_as("ann"))["sid"] is not None


async def test_a_person_of_another_app_is_another_person(sessions: Sessions) -> None:
    browser = Browser(make_app(sessions))
    first = (await browser.see_as("ann"))["sid"]
    second = (await browser.see_as("ann", app_id="shop"))["sid"]
    assert second not in (None, first)
    old, new = await sessions.get_by_id(first), await sessions.get_by_id(second)
    assert old is not None
    assert new is not None
    assert (old.end_reason, new.app_id) == ("person_changed", "shop")


# --- the page -------------------------------------------------------------------------------------


def as_markdown(table: Mapping[Any, Mapping[Who, Decision]], corner: str) -> str:
    """The table as docs/decisions.md shows it."""
    columns = [who for who in Who if any(who in row for row in table.values())]
    lines = ["| " + " | ".join([corner, *(who.value for who in columns)]) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for state, row in table.items():
        cells = []
        for who in columns:
            decision = row.get(who)
            if decision is None:
                cells.append("\N{EN DASH}")
            elif decision.end is None:
                cells.append(decision.then.value)
            else:
                cells.append(f"end it (`{decision.end}`); {decision.then.value}")
        lines.append("| " + " | ".join([str(state.value), *cells]) + " |")
    return "\n".join(lines)


def test_the_page_shows_the_tables() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert as_markdown(BY_COOKIE, "cookie → row") in page
    assert as_markdown(BY_FINDING, "no cookie → row") in page
    for then in Then:
        assert f"**{then.value}**" in page
