"""Races between two processes of an app, each stopped where the other may step in.

R1 to R19 are the races of docs/databases.md. A gate in a process stops a statement; somebody
else's lock on the rows makes two statements meet in the database itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, NamedTuple

import pytest
from starlette.types import Receive, Scope, Send

from asgi_sessions import AAL1, SessionData, SessionMiddleware, Sessions
from tests.conftest import MakeSessions
from tests.support import KEY, Clock
from tests.support.asgi import call, http, log_in, respond
from tests.support.data import data_of
from tests.support.devices import BY_ITSELF, PATH, Device
from tests.support.engines import POLL, EngineURL, Onlooker
from tests.support.processes import PATIENCE, Process
from tests.support.rows import fill

IDLE = int(AAL1.idle.total_seconds())


class Race(NamedTuple):
    """Two processes of an app, and somebody else."""

    a: Process
    b: Process
    others: Onlooker
    #: The database, the driver and the table, as ``open`` in tests/races/worker.py takes them.
    place: dict[str, Any]

    async def login(self, person: str = "ann") -> tuple[str, str]:
        """A session that process `a` has started: its sid and its cookie."""
        answer = await self.a.do("request", method="POST", path=f"/login?person={person}")
        return answer["sid"], answer["cookie"]

    async def turn(self, seconds: float) -> None:
        """Turn both clocks."""
        for process in (self.a, self.b):
            await process.do("turn", seconds=seconds)

    async def events(self, kind: str) -> list[Any]:
        """What both were told."""
        return [event for one in (self.a, self.b) for event in await one.do("events", kind=kind)]

    async def collide(
        self, word: str, first: dict[str, Any], second: dict[str, Any], *, waiting: int = 2
    ) -> tuple[Any, Any]:
        """Let two commands meet at rows that somebody else has locked; what they answer.

        Args:
            word: in the statements with which they meet.
            first: of the process `a`.
            second: of the process `b`.
            waiting: how many of them wait for the lock.
        """
        commands = []
        for process, command in ((self.a, first), (self.b, second)):
            await process.do("shut", word=word)
            commands.append(process.begin(**command))
            await process.stopped()
        with self.others.locked() as wait_for:
            for process in (self.a, self.b):
                await process.do("go")
            await asyncio.to_thread(wait_for, waiting)
        answers = await asyncio.wait_for(asyncio.gather(*commands), PATIENCE)
        return answers[0], answers[1]

    def fill(self, count: int) -> set[str]:
        """Give Ann so many rows more; their sids."""
        table = Sessions("sqlite:///never.db", secret_key=KEY, table_name=self.others.table).table
        with self.others.engine.connect() as connection:
            return set(fill(connection, table, Clock(), count=count))

    async def meet(self, words: tuple[str, str], *commands: dict[str, Any]) -> list[Any]:
        """Stop both processes before a statement with their word, then let both go; their answers.
        For those that wait for no lock.
        """
        under_way = []
        for process, word, command in zip((self.a, self.b), words, commands, strict=True):
            await process.do("shut", word=word)
            under_way.append(process.begin(**command))
            await process.stopped()
        for process in (self.a, self.b):
            await process.do("go")
        async with asyncio.timeout(PATIENCE):
            return await asyncio.gather(*under_way)

    async def as_far_as_possible(self, command: asyncio.Future[Any]) -> None:
        """Wait until a command has its answer, or waits for a lock; SQLite tells of none."""
        if self.others.engine.dialect.name == "sqlite":
            return
        async with asyncio.timeout(PATIENCE):
            while not command.done() and self.others.waiting() == 0:
                await asyncio.wait([command], timeout=POLL)


MakeRace = Callable[..., Awaitable[Race]]


@pytest.fixture(scope="session")
def processes() -> Iterator[list[Process]]:
    """Those at hand: starting one costs a second."""
    at_hand: list[Process] = []
    yield at_hand
    for process in at_hand:
        process.kill()


@pytest.fixture
async def make_race(
    anyio_backend: str, processes: list[Process], database_url: str, table_name: str
) -> AsyncIterator[MakeRace]:
    """A factory of races; `options` are those of ``open`` in tests/races/worker.py."""
    processes[:] = [process for process in processes if process.alive]
    while len(processes) < 2:
        processes.append(Process())
    others = Onlooker(database_url, table_name)
    driver = database_url.driver if isinstance(database_url, EngineURL) else None

    async def make(**options: object) -> Race:
        place = {"url": database_url, "driver": driver, "table_name": table_name}
        race = Race(processes[0], processes[1], others, place)
        for process in (race.a, race.b):
            await process.do("open", **place, **options)
        return race

    yield make
    for process in processes:
        try:
            await process.do("close")
        except Exception:  # noqa: BLE001 -- a failed test may leave it stopped
            process.kill()
    for table in ("{}", "{}_data", "{}_visitors"):
        others.run(f"DROP TABLE IF EXISTS {table}")
    others.close()


@pytest.fixture
async def race(make_race: MakeRace) -> Race:
    """A race with the defaults."""
    return await make_race()


REQUEST = {"do": "request"}
RENEW = {"do": "request", "method": "POST", "path": "/renew"}
LOGOUT = {"do": "request", "method": "POST", "path": "/end-session"}
LOGIN = {"do": "request", "method": "POST", "path": "/login?person=ann"}


# --- R1, R4, R5: what is under way does not undo what has happened --------------------------------


async def test_r1_a_touch_under_way_does_not_revive_an_ended_session(race: Race) -> None:
    sid, cookie = await race.login()
    await race.turn(61)
    await race.a.do("shut", word="UPDATE")
    request = race.a.begin("request", cookie=cookie)
    assert "last_seen_at" in await race.a.stopped()
    assert await race.b.do("end", sid=sid) == "revoked"
    ended = await race.b.do("row", sid=sid)
    await race.a.do("go")
    answer = await request
    assert (answer["status"], answer["sid"], answer["cookie"]) == (200, sid, None)
    assert await race.b.do("row", sid=sid) == ended
    assert (await race.a.do("request", cookie=cookie))["reason"] == "revoked"


async def test_r1_a_touch_and_an_end_that_meet_leave_the_session_ended(race: Race) -> None:
    sid, cookie = await race.login()
    await race.turn(61)
    answer, reason = await race.collide(
        "UPDATE",
        {**REQUEST, "cookie": cookie},
        {"do": "end", "sid": sid},
        waiting=1,  # a touch leaves out what is locked
    )
    assert (answer["status"], answer["cookie"], reason) == (200, None, "revoked")
    assert (await race.b.do("row", sid=sid))["end_reason"] == "revoked"
    assert await race.a.do("live") == []
    assert await race.a.do("touch_failures") == 0


async def test_r1_an_end_under_way_holds_after_a_touch(race: Race) -> None:
    sid, cookie = await race.login()
    await race.turn(61)
    await race.b.do("shut", word="UPDATE")
    end = race.b.begin("end", sid=sid)
    await race.b.stopped()
    assert (await race.a.do("request", cookie=cookie))["sid"] == sid
    await race.b.do("go")
    assert await end == "revoked"
    assert (await race.a.do("request", cookie=cookie))["sid"] is None


async def test_r1_a_renewal_under_way_does_not_revive_an_ended_session(race: Race) -> None:
    sid, cookie = await race.login()
    await race.a.do("shut", word="UPDATE")
    renewal = race.a.begin(**RENEW, cookie=cookie)
    await race.a.stopped()
    await race.b.do("end", sid=sid)
    ended = await race.b.do("row", sid=sid)
    await race.a.do("go")
    answer = await renewal
    assert (answer["status"], answer["sid"], answer["cookie"]) == (200, None, None)
    assert await race.b.do("row", sid=sid) == ended
    assert await race.events("renewed") == []


async def test_r1_a_renewal_and_an_end_that_meet_leave_the_session_ended(race: Race) -> None:
    sid, cookie = await race.login()
    answer, reason = await race.collide(
        "UPDATE", {**RENEW, "cookie": cookie}, {"do": "end", "sid": sid}
    )
    assert (answer["status"], reason) == (200, "revoked")
    for presented in filter(None, (cookie, answer["cookie"])):
        seen = await race.b.do("request", cookie=presented)
        assert (seen["sid"], seen["reason"], seen["cookie"]) == (None, "revoked", None)


async def test_r1_a_secret_that_arrives_does_not_revive_an_ended_session(race: Race) -> None:
    sid, cookie = await race.login()
    new = (await race.a.do(**RENEW, cookie=cookie))["cookie"]
    await race.a.do("shut", word="secret_seen_at=")
    request = race.a.begin("request", cookie=new)
    await race.a.stopped()
    await race.b.do("end", sid=sid)
    ended = await race.b.do("row", sid=sid)
    await race.a.do("go")
    answer = await request
    assert (answer["status"], answer["sid"], answer["cookie"]) == (200, sid, None)
    assert await race.b.do("row", sid=sid) == ended
    for presented in (cookie, new):
        assert (await race.a.do("request", cookie=presented))["reason"] == "revoked"


async def test_r1_a_login_that_is_ended_before_it_is_answered_sends_no_cookie(race: Race) -> None:
    await race.a.do("shut", word="INSERT", before=False, behind=True)
    login = race.a.begin(**LOGIN)
    await race.a.stopped()  # the row is written, not committed
    await race.a.do("shut", word="WHERE")
    await race.a.do("go")
    await race.a.stopped()  # the row is there, the answer is not out
    (sid,) = await race.b.do("live")
    assert await race.b.do("end_all", person="ann") == 1
    ended = await race.b.do("row", sid=sid)
    await race.a.do("go")
    answer = await login
    assert (answer["status"], answer["cookie"]) == (200, None)
    assert await race.b.do("row", sid=sid) == ended
    assert await race.events("ended") == [["ended", sid, "revoked"]]


async def test_r4_a_secret_that_arrives_late_leaves_its_successor_alone(race: Race) -> None:
    sid, first = await race.login()
    second = (await race.a.do(**RENEW, cookie=first))["cookie"]
    await race.a.do("shut", word="secret_seen_at=")
    slow = race.a.begin("request", cookie=second)
    await race.a.stopped()
    await race.turn(1)
    third = (await race.b.do(**RENEW, cookie=second))["cookie"]
    after = await race.b.do("row", sid=sid)
    await race.a.do("go")
    assert (await slow)["sid"] == sid
    assert await race.b.do("row", sid=sid) == after
    await race.turn(600)  # nobody has seen the third yet
    for presented in (second, third):
        assert (await race.b.do("request", cookie=presented))["sid"] == sid
    assert (await race.a.do("request", cookie=first))["reason"] == "reuse"


async def test_r4_a_slow_request_does_not_bring_the_old_secret_back(race: Race) -> None:
    sid, cookie = await race.login()
    await race.turn(61)
    await race.a.do("shut", word="UPDATE")
    slow = race.a.begin("request", cookie=cookie)
    await race.a.stopped()
    renewed = await race.b.do(**RENEW, cookie=cookie)
    after = await race.b.do("row", sid=sid)
    await race.a.do("go")
    assert (await slow)["sid"] == sid
    assert await race.b.do("row", sid=sid) == after
    assert (await race.a.do("request", cookie=renewed["cookie"]))["sid"] == sid


async def test_r5_the_grace_of_a_secret_ends_with_its_session(race: Race) -> None:
    sid, cookie = await race.login()
    await race.b.do(**RENEW, cookie=cookie)
    await race.a.do("shut", word="SELECT")
    late = race.a.begin("request", cookie=cookie)
    await race.a.stopped()
    await race.b.do("end", sid=sid)
    await race.a.do("go")
    answer = await late
    assert (answer["sid"], answer["reason"]) == (None, "revoked")
    assert await race.events("reuse_detected") == []


# --- R2, R3, R10: secrets -------------------------------------------------------------------------


async def test_r2_two_renewals_that_meet_make_one_secret_and_both_go_on(race: Race) -> None:
    sid, cookie = await race.login()
    renewal = {**RENEW, "cookie": cookie}
    answers = await race.collide("UPDATE", renewal, renewal)
    assert [(answer["status"], answer["sid"]) for answer in answers] == [(200, sid)] * 2
    (new,) = [answer["cookie"] for answer in answers if answer["cookie"]]
    assert len(await race.events("renewed")) == 1
    for process in (race.a, race.b):
        for presented in (cookie, new, cookie):
            assert (await process.do("request", cookie=presented))["sid"] == sid
    await race.turn(60)
    assert (await race.a.do("request", cookie=cookie))["sid"] == sid
    assert (await race.a.do("request", cookie=new))["sid"] == sid


async def test_r2_a_renewal_that_comes_second_changes_nothing(race: Race) -> None:
    sid, cookie = await race.login()
    await race.a.do("shut", word="UPDATE")
    second = race.a.begin(**RENEW, cookie=cookie)
    await race.a.stopped()
    first = await race.b.do(**RENEW, cookie=cookie)
    row = await race.b.do("row", sid=sid)
    await race.a.do("go")
    answer = await second
    assert (answer["status"], answer["sid"], answer["cookie"]) == (200, sid, None)
    assert await race.b.do("row", sid=sid) == row
    assert (await race.a.do("request", cookie=first["cookie"]))["sid"] == sid


async def test_r3_a_renewal_whose_response_is_lost_leaves_ten_minutes(race: Race) -> None:
    sid, cookie = await race.login()
    assert (await race.a.do(**RENEW, cookie=cookie))["cookie"] not in (None, cookie)
    await race.turn(600)  # and the browser never gets it
    for process in (race.a, race.b):
        # The secret before is a bridge: good for requests, but not to renew the session.
        assert (await process.do("request", cookie=cookie))["sid"] == sid
        assert (await process.do(**RENEW, cookie=cookie))["cookie"] is None
    await race.turn(1)
    for process in (race.a, race.b):
        seen = await process.do("request", cookie=cookie)
        assert (seen["sid"], seen["reason"]) == (None, "superseded")
    assert (await race.b.do("row", sid=sid))["ended_at"] is None  # nobody else has shown up


async def test_r10_a_superseded_secret_ends_the_session_once_wherever_it_is_replayed(
    race: Race,
) -> None:
    sid, stolen = await race.login()
    new = (await race.a.do(**RENEW, cookie=stolen))["cookie"]
    await race.b.do("request", cookie=new)
    await race.turn(60.000001)
    replay = {**REQUEST, "cookie": stolen}
    for answer in await race.collide("UPDATE", replay, replay):
        assert (answer["sid"], answer["reason"], answer["cookie"]) == (None, "reuse", None)
    assert await race.events("reuse_detected") == [["reuse_detected", sid, "reuse"]]
    assert await race.events("ended") == [["ended", sid, "reuse"]]
    for process in (race.a, race.b):
        seen = await process.do("request", cookie=new)
        assert (seen["sid"], seen["reason"]) == (None, "reuse")


async def test_r10_the_replay_of_a_logged_out_cookie_is_no_theft(race: Race) -> None:
    _, cookie = await race.login()
    new = (await race.a.do(**RENEW, cookie=cookie))["cookie"]
    await race.b.do(**LOGOUT, cookie=new)
    await race.turn(61)
    for presented in (cookie, new):
        answer = await race.a.do("request", cookie=presented)
        assert (answer["sid"], answer["reason"]) == (None, "logout")
    assert await race.events("reuse_detected") == []


# --- R6: two ends ---------------------------------------------------------------------------------


async def test_r6_two_logouts_that_meet_are_both_answered_and_told_once(race: Race) -> None:
    sid, cookie = await race.login()
    logout = {**LOGOUT, "cookie": cookie}
    for answer in await race.collide("UPDATE", logout, logout):
        assert (answer["status"], answer["cookie"]) == (200, "")
    assert await race.events("ended") == [["ended", sid, "logout"]]


async def test_r6_of_two_ends_that_meet_the_first_holds(race: Race) -> None:
    sid, _ = await race.login()
    reasons = await race.collide(
        "UPDATE",
        {"do": "end", "sid": sid, "reason": "lost"},
        {"do": "end", "sid": sid, "reason": "stolen"},
    )
    assert reasons[0] == reasons[1]
    assert await race.events("ended") == [["ended", sid, reasons[0]]]


async def test_r6_an_end_tells_of_the_end_that_another_wrote_down_since(race: Race) -> None:
    sid, _ = await race.login()
    await race.turn(IDLE)
    await race.a.do("shut", word="SELECT", before=False, behind=True)
    first = race.a.begin("end", sid=sid)
    await race.a.stopped()
    second = race.b.begin("end", sid=sid)
    await race.as_far_as_possible(second)
    await race.a.do("go")
    assert [await first, await second] == ["expired"] * 2
    assert await race.events("ended") == [["ended", sid, "expired"]]


async def test_r6_ends_of_all_sessions_that_meet_count_each_once(race: Race) -> None:
    sids = {(await race.login())[0] for _ in range(5)}
    end_all = {"do": "end_all", "person": "ann"}
    counts = await race.collide("UPDATE", end_all, end_all)
    assert sum(counts) == 5
    assert {sid for _, sid, _ in await race.events("ended")} == sids
    assert len(await race.events("ended")) == 5


async def test_r6_ends_of_many_sessions_that_meet_count_each_once(race: Race) -> None:
    sids = {(await race.login())[0]} | race.fill(600)
    end_all = {"do": "end_all", "person": "ann"}
    counts = await race.collide("UPDATE", end_all, end_all)
    assert sum(counts) == 601
    assert sorted(sid for _, sid, _ in await race.events("ended")) == sorted(sids)
    assert race.others.count("ended_at IS NULL") == 0


async def test_r6_an_end_of_many_sessions_and_a_logout_that_meet_count_each_once(
    race: Race,
) -> None:
    sid, cookie = await race.login()
    sids = {sid} | race.fill(300)
    count, answer = await race.collide(
        "UPDATE", {"do": "end_all", "person": "ann"}, {**LOGOUT, "cookie": cookie}
    )
    assert count in {300, 301}
    assert (answer["status"], answer["cookie"]) == (200, "")
    assert sorted(sid for _, sid, _ in await race.events("ended")) == sorted(sids)


async def test_r6_a_login_while_many_sessions_end_lives_and_waits_for_nobody(race: Race) -> None:
    """It starts when the end has begun, and is answered before that is."""
    await race.login()
    race.fill(600)
    await race.a.do("shut", word="UPDATE")
    end = race.a.begin("end_all", person="ann")
    await race.a.stopped()  # the first of them are about to end
    if race.others.engine.dialect.name == "sqlite":  # one transaction writes at a time
        sid = (await race.b.do(**LOGIN))["sid"]
    else:
        sid = (await race.a.do(**LOGIN))["sid"]
    assert not end.done()
    await race.a.do("go")
    assert await end == 601
    assert await race.b.do("live") == [sid]


# --- R7: first requests ---------------------------------------------------------------------------


async def first_requests(race: Race, asking: str) -> list[dict[str, Any]]:
    """The answers to ten first requests of a device, five in each process, which have asked and
    found nothing live when they go on to start.
    """
    requests = []
    for process in (race.a, race.b):
        await process.do("shut", word=asking, before=False, behind=True)
        requests += [process.begin("request", person="ann") for _ in range(5)]
        await process.stopped()
    for process in (race.a, race.b):
        await process.do("go")
    return await asyncio.wait_for(asyncio.gather(*requests), PATIENCE)


async def test_r7_parallel_first_requests_make_one_row_and_one_cookie(race: Race) -> None:
    answers = await first_requests(race, "ORDER BY")
    assert {answer["status"] for answer in answers} == {200}
    (sid,) = {answer["sid"] for answer in answers}
    (cookie,) = [answer["cookie"] for answer in answers if answer["cookie"]]
    assert race.others.count() == 1
    assert await race.events("started") == [["started", sid, None]]
    assert (await race.b.do("request", cookie=cookie, person="ann"))["sid"] == sid


async def test_r7_parallel_first_requests_after_the_last_session_ran_out_make_one_row(
    race: Race,
) -> None:
    old = (await race.a.do("request", person="ann"))["sid"]
    await race.turn(IDLE)
    answers = await first_requests(race, "live_device_key")
    (sid,) = {answer["sid"] for answer in answers}
    assert sid != old
    assert len([answer["cookie"] for answer in answers if answer["cookie"]]) == 1
    assert await race.a.do("live") == [sid]
    assert race.others.count() == 2
    assert await race.events("ended") == [["ended", old, "expired"]]


async def test_r7_a_first_request_makes_a_row_though_another_has_ended_the_overdue_one(
    race: Race,
) -> None:
    old = (await race.a.do("request", person="ann"))["sid"]
    await race.turn(IDLE)
    await race.a.do("shut", word="UPDATE")
    first = race.a.begin("request", person="ann")
    await race.a.stopped()  # about to end what is overdue
    second = race.b.begin("request", person="ann")
    await race.as_far_as_possible(second)
    await race.a.do("go")
    (sid,) = {(await first)["sid"], (await second)["sid"]}
    assert sid != old
    assert await race.a.do("live") == [sid]
    assert await race.events("ended") == [["ended", old, "expired"]]


async def test_r7_a_first_request_outlives_the_end_of_the_row_it_met(race: Race) -> None:
    await race.a.do("shut", word="INSERT", behind=True)
    first = race.a.begin("request", person="ann")
    await race.a.stopped()
    other = (await race.b.do("request", person="ann"))["sid"]
    await race.a.do("go")
    await race.a.stopped()
    await race.b.do("shut", word="UPDATE")
    end = race.b.begin("end", sid=other, reason="logout")
    await race.b.stopped()
    await race.b.do("go")
    await race.as_far_as_possible(end)
    await race.a.do("go")
    answer = await first
    assert await end == "logout"
    assert answer["status"] == 200
    assert answer["sid"] is not None
    assert other not in await race.a.do("live")


# --- R8: the cap ----------------------------------------------------------------------------------


@pytest.mark.parametrize("swapped", [False, True], ids=["a first", "b first"])
@pytest.mark.parametrize("cap", [1, 2])
async def test_r8_two_logins_that_meet_stay_within_the_cap(
    make_race: MakeRace, cap: int, swapped: bool
) -> None:
    race = await make_race(max_sessions_per_person=cap)
    if swapped:
        race = Race(race.b, race.a, race.others, race.place)
    before = [(await race.login())[0] for _ in range(cap)]
    await race.turn(1)
    await race.a.do("shut", word="INSERT", before=False, behind=True)
    first = race.a.begin(**LOGIN)
    await race.a.stopped()  # its row is written, not committed
    second = race.b.begin(**LOGIN)
    await race.as_far_as_possible(second)
    await race.a.do("go")
    made = [answer["sid"] for answer in await asyncio.gather(first, second)]
    live = await race.a.do("live")
    assert len(live) == cap
    assert set(live) <= set(made)
    ended = await race.events("ended")
    assert {sid for _, sid, _ in ended} == {*before, *made} - set(live)
    assert {reason for _, _, reason in ended} == {"limit"}
    assert len(ended) == 2


async def test_r8_sessions_that_are_used_while_logins_count_do_not_make_them_end_more(
    make_race: MakeRace,
) -> None:
    race = await make_race()
    before = []
    for _ in range(4):
        before.append(await race.login())
        await race.turn(1)
    for process in (race.a, race.b):
        await process.do("close")
    race = await make_race(max_sessions_per_person=3)  # one less than there are
    await race.turn(70)
    await race.a.do("shut", word="ORDER BY", before=False, behind=True)
    logins = [race.a.begin(**LOGIN)]
    await race.a.stopped()  # it has counted: the first two are too many
    for _, cookie in before[:2]:
        use = race.b.begin(**REQUEST, cookie=cookie)
        await race.as_far_as_possible(use)
    logins.append(race.b.begin(**LOGIN))  # to which the last two would be
    await race.as_far_as_possible(logins[1])
    await race.a.do("go")
    made = {answer["sid"] for answer in await asyncio.wait_for(asyncio.gather(*logins), PATIENCE)}
    live = set(await race.a.do("live"))
    assert len(live) == 3
    assert made < live
    ended = await race.events("ended")
    assert {sid for _, sid, _ in ended} == {sid for sid, _ in before} - live
    assert [reason for _, _, reason in ended] == ["limit"] * 3


async def test_r8_a_storm_of_logins_leaves_as_many_as_the_cap(make_race: MakeRace) -> None:
    race = await make_race(max_sessions_per_person=3)
    made: set[str] = set()
    for number in range(1, 21):
        logins = [process.begin(**LOGIN) for _ in range(6) for process in (race.a, race.b)]
        answers = await asyncio.wait_for(asyncio.gather(*logins), PATIENCE)
        made |= {answer["sid"] for answer in answers}
        assert len(made) == 12 * number
        live = await race.a.do("live")
        assert len(live) == 3, f"in round {number}"
        assert set(live) < made
        assert len(await race.events("ended")) == 12 * number - 3
        await race.turn(1)


async def test_r8_logins_of_somebody_with_very_many_sessions_leave_as_many_as_the_cap(
    make_race: MakeRace,
) -> None:
    race = await make_race(max_sessions_per_person=3)
    before = race.fill(700)
    await race.turn(1)
    logins = [process.begin(**LOGIN) for _ in range(2) for process in (race.a, race.b)]
    answers = await asyncio.wait_for(asyncio.gather(*logins), PATIENCE)
    made = {answer["sid"] for answer in answers}
    assert len(made) == 4
    live = await race.a.do("live")
    assert len(live) == 3
    assert set(live) < made
    ended = await race.events("ended")
    assert sorted(sid for _, sid, _ in ended) == sorted((before | made) - set(live))
    assert {reason for _, _, reason in ended} == {"limit"}


async def test_r8_a_login_is_not_over_the_cap_because_its_clock_is_slow(
    make_race: MakeRace,
) -> None:
    race = await make_race(max_sessions_per_person=2)
    older, _ = await race.login()
    await race.turn(1)
    newer, _ = await race.login()
    await race.b.do("turn", seconds=-600)
    made = await race.b.do(**LOGIN)
    assert set(await race.a.do("live")) == {newer, made["sid"]}
    assert (await race.a.do("row", sid=older))["end_reason"] == "limit"


# --- R9, R12, R13: one browser, another session ---------------------------------------------------


async def test_r9_two_requests_as_somebody_else_end_the_old_session_once(race: Race) -> None:
    old, cookie = await race.login("ann")
    request = {**REQUEST, "cookie": cookie, "person": "bob"}
    answers = await race.collide("UPDATE", request, request)
    (sid,) = {answer["sid"] for answer in answers}
    assert {answer["person_id"] for answer in answers} == {"bob"}
    assert len([answer["cookie"] for answer in answers if answer["cookie"]]) == 1
    assert await race.events("ended") == [["ended", old, "person_changed"]]
    assert await race.a.do("live", person="ann") == []
    assert await race.a.do("live", person="bob") == [sid]


async def test_r12_the_loser_of_a_race_leaves_the_cookie_of_the_winner(race: Race) -> None:
    _, cookie = await race.login()
    await race.a.do("shut", word="SELECT")
    loser = race.a.begin("request", cookie=cookie)
    await race.a.stopped()
    winner = await race.b.do(**LOGIN, cookie=cookie)
    await race.a.do("go")
    answer = await loser
    assert (answer["sid"], answer["reason"], answer["cookie"]) == (None, "replaced", None)
    assert (await race.a.do("request", cookie=winner["cookie"]))["sid"] == winner["sid"]


@pytest.mark.parametrize("behind", [False, True], ids=["before the insert", "after the insert"])
async def test_r13_a_login_that_dies_midway_leaves_all_as_it_was(
    make_race: MakeRace, behind: bool
) -> None:
    race = await make_race(max_sessions_per_person=2)
    (other, _), (sid, cookie) = [await race.login() for _ in range(2)]
    await race.a.do("shut", word="INSERT", before=not behind, behind=behind)
    race.a.begin(**LOGIN, cookie=cookie).cancel()
    await race.a.stopped()
    race.a.kill()
    assert set(await race.b.do("live")) == {sid, other}
    assert (await race.b.do("request", cookie=cookie))["sid"] == sid
    again = await race.b.do(**LOGIN, cookie=cookie)
    assert set(await race.b.do("live")) == {other, again["sid"]}
    assert race.others.count() == 3


# --- R11: the table cannot be asked ---------------------------------------------------------------


async def test_r11_a_lookup_that_fails_is_no_logout(race: Race) -> None:
    sid, cookie = await race.login()
    race.others.run("ALTER TABLE {0} RENAME TO {0}_away")
    try:
        for process in (race.a, race.b):
            answer = await process.do("request", cookie=cookie)
            assert (answer["status"], answer["cookie"]) == (503, None)
        assert (await race.a.do("request"))["status"] == 200
    finally:
        race.others.run("ALTER TABLE {0}_away RENAME TO {0}")
    for process in (race.a, race.b):
        assert (await process.do("request", cookie=cookie))["sid"] == sid


async def test_r11_a_touch_that_fails_is_counted_and_harms_nobody(race: Race) -> None:
    sid, cookie = await race.login()
    await race.turn(61)
    await race.a.do("shut", word="UPDATE")
    request = race.a.begin("request", cookie=cookie)
    await race.a.stopped()
    race.others.run("ALTER TABLE {0} RENAME TO {0}_away")
    try:
        await race.a.do("go")
        answer = await request
    finally:
        race.others.run("ALTER TABLE {0}_away RENAME TO {0}")
    assert (answer["status"], answer["sid"]) == (200, sid)
    assert await race.a.do("touch_failures") == 1
    assert (await race.a.do("request", cookie=cookie))["sid"] == sid
    assert await race.a.do("touch_failures") == 1


async def test_r11_connections_that_were_cut_while_idle_are_made_anew(race: Race) -> None:
    sid, cookie = await race.login()
    for command in (RENEW, REQUEST):
        await race.a.do(**command, cookie=cookie)
    await race.a.do("live")
    race.others.cut(await race.a.do("connections"))
    assert await race.a.do("live") == [sid]
    assert (await race.a.do("request", cookie=cookie))["sid"] == sid
    again = await race.a.do(**LOGIN, cookie=cookie)
    assert await race.a.do("live") == [again["sid"]]


@pytest.mark.parametrize("behind", [False, True], ids=["before the insert", "after the insert"])
async def test_r11_a_login_whose_connection_is_cut_midway_takes_place_once(
    race: Race, behind: bool
) -> None:
    sid, cookie = await race.login()
    sids = [sid]
    for number in range(2, 9):  # more often than a pool has connections
        await race.a.do("shut", word="INSERT", before=not behind, behind=behind)
        login = race.a.begin(**LOGIN, cookie=cookie)
        await race.a.stopped()
        race.others.cut(await race.a.do("connections"))
        await race.a.do("go")
        answer = await login
        assert answer["status"] == 200
        sid, cookie = answer["sid"], answer["cookie"]
        assert await race.b.do("live") == [sid]
        assert race.others.count() == number
        sids.append(sid)
    assert await race.events("ended") == [["ended", sid, "replaced"] for sid in sids[:-1]]
    assert (await race.a.do("request", cookie=cookie))["sid"] == sids[-1]


async def test_r11_what_waited_too_long_for_a_lock_leaves_nothing_broken(
    make_race: MakeRace,
) -> None:
    race = await make_race()
    sid, cookie = await race.login()
    await race.a.do("close")  # a table may take longer to make than this one waits
    await race.a.do("open", **race.place, made=True, patience=0.4)
    with race.others.locked():
        for command in (LOGOUT, RENEW):
            answer = await race.a.do(**command, cookie=cookie)
            assert (answer["status"], answer["cookie"]) == (503, None)
        assert (await race.a.do("request", cookie=cookie))["sid"] == sid
    # PostgreSQL may have carried the first one out by now, though nobody waits for its answer.
    answer = await race.a.do(**LOGOUT, cookie=cookie)
    assert (answer["status"], answer["cookie"]) == (200, "")
    assert (await race.b.do("row", sid=sid))["end_reason"] == "logout"
    again, _ = await race.login()
    assert await race.b.do("live") == [again]


# --- R14: clocks ----------------------------------------------------------------------------------


@pytest.mark.parametrize("skew", [-600, 600])
async def test_r14_a_clock_that_is_wrong_by_minutes_loses_nobody(race: Race, skew: int) -> None:
    sid, cookie = await race.login()
    await race.b.do("turn", seconds=skew)
    assert (await race.b.do("request", cookie=cookie))["sid"] == sid
    assert await race.b.do("live") == [sid]
    await race.turn(61)
    seen = []
    for process in (race.a, race.b, race.a):
        assert (await process.do("request", cookie=cookie))["sid"] == sid
        seen.append((await process.do("row", sid=sid))["last_seen_at"])
    assert seen == sorted(seen)  # it never goes back
    assert await race.b.do("end", sid=sid) == "revoked"
    assert (await race.a.do("request", cookie=cookie))["reason"] == "revoked"


@pytest.mark.parametrize("skew", [-59, 59])
async def test_r14_a_secret_keeps_its_grace_if_clocks_differ_by_less(race: Race, skew: int) -> None:
    sid, cookie = await race.login()
    await race.b.do("turn", seconds=skew)
    new = (await race.a.do(**RENEW, cookie=cookie))["cookie"]
    await race.b.do("request", cookie=new)
    await race.turn(1)
    for process in (race.a, race.b):
        assert (await process.do("request", cookie=cookie))["sid"] == sid


async def test_r14_the_moment_of_the_timeout_is_too_late_in_a_lookup_and_in_a_list(
    race: Race,
) -> None:
    sid, cookie = await race.login()
    await race.a.do("turn", seconds=IDLE)
    await race.b.do("turn", seconds=IDLE - 0.000001)
    assert await race.a.do("live") == []
    assert await race.b.do("live") == [sid]
    assert (await race.b.do("row", sid=sid))["ended_at"] is None
    assert (await race.a.do("request", cookie=cookie))["reason"] == "expired"


# --- R15: devices that register, and prove themselves ---------------------------------------------


def register(device: Device, cookie: str, challenge: str) -> dict[str, Any]:
    """The command by which a browser binds its session."""
    proof = device.proof(challenge, register=True)
    headers = {**BY_ITSELF, "secure-session-response": proof}
    path = f"{PATH}/register"
    return {"do": "request", "method": "POST", "path": path, "cookie": cookie, "headers": headers}


def refresh(device: Device, identifier: str, challenge: str) -> dict[str, Any]:
    """The command by which a browser proves its device."""
    headers = {
        **BY_ITSELF,
        "sec-secure-session-id": identifier,
        "secure-session-response": device.proof(challenge),
    }
    return {"do": "request", "method": "POST", "path": f"{PATH}/refresh", "headers": headers}


class Registered(NamedTuple):
    """A session whose device has registered: what its browser holds, and what it is asked next."""

    sid: str
    cookie: str
    proof: str
    identifier: str
    challenge: str


async def registered(race: Race, device: Device) -> Registered:
    """A login and a registration."""
    login = await race.a.do("request", method="POST", path="/login?person=ann")
    answer = await race.a.do(**register(device, login["cookie"], login["challenge"]))
    assert answer["bound"]
    return Registered(
        login["sid"],
        login["cookie"],
        answer["proof"],
        answer["session_identifier"],
        answer["challenge"],
    )


async def test_r15_of_two_devices_that_register_one_is_bound(race: Race) -> None:
    login = await race.a.do("request", method="POST", path="/login?person=ann")
    first, second = Device(), Device()
    answers = await race.collide(
        "SET binding",
        register(first, login["cookie"], login["challenge"]),
        register(second, login["cookie"], login["challenge"]),
    )
    assert sorted(answer["status"] for answer in answers) == [200, 403]
    assert sorted(answer["bound"] for answer in answers) == [False, True]
    winner, loser = (first, second) if answers[0]["bound"] else (second, first)
    (answer,) = [answer for answer in answers if answer["bound"]]
    identifier, challenge = answer["session_identifier"], answer["challenge"]
    assert not (await race.a.do(**refresh(loser, identifier, challenge)))["bound"]
    assert (await race.b.do(**refresh(winner, identifier, challenge)))["bound"]
    assert len(await race.events("bound")) == 1


async def test_r15_a_registration_that_was_replayed_binds_once(race: Race) -> None:
    login = await race.a.do("request", method="POST", path="/login?person=ann")
    command = register(Device(), login["cookie"], login["challenge"])
    answers = await race.collide("SET binding", command, command)
    # Nobody knows which of the two answers arrives.
    assert [answer["status"] for answer in answers] == [200, 200]
    assert answers[0]["session_identifier"] == answers[1]["session_identifier"]
    row = await race.a.do("row", sid=login["sid"])
    assert (await race.b.do(**command))["status"] == 200
    assert await race.a.do("row", sid=login["sid"]) == row
    for answer in answers:
        seen = await race.b.do("request", cookie=login["cookie"], proof=answer["proof"])
        assert seen["sid"] == login["sid"]
    assert (await race.b.do(**command))["status"] == 403
    assert len(await race.events("bound")) == 1


async def test_r15_of_the_first_bound_cookies_one_puts_the_binding_in_force(race: Race) -> None:
    device = Device()
    mine = await registered(race, device)
    command = {"do": "request", "cookie": mine.cookie, "proof": mine.proof}
    answers = await race.collide("SET binding", command, command)
    assert [answer["sid"] for answer in answers] == [mine.sid] * 2
    for process in (race.a, race.b):
        assert (await process.do("request", cookie=mine.cookie))["reason"] == "not_bound"
    assert len(await race.events("bound")) == 1


async def test_r15_a_first_bound_cookie_under_way_does_not_revive_an_ended_session(
    race: Race,
) -> None:
    mine = await registered(race, Device())
    await race.a.do("shut", word="SET binding")
    request = race.a.begin(do="request", cookie=mine.cookie, proof=mine.proof)
    await race.a.stopped()
    await race.b.do("end", sid=mine.sid)
    ended = await race.b.do("row", sid=mine.sid)
    await race.a.do("go")
    await request
    assert await race.b.do("row", sid=mine.sid) == ended
    assert (await race.a.do("request", cookie=mine.cookie, proof=mine.proof))["sid"] is None
    assert await race.events("bound") == []


async def test_r15_a_proof_is_good_once_wherever_it_is_shown(race: Race) -> None:
    device = Device()
    mine = await registered(race, device)
    command = refresh(device, mine.identifier, mine.challenge)
    answers = await race.collide("SET binding", command, command)
    assert sorted(answer["status"] for answer in answers) == [200, 403]
    assert sorted(answer["bound"] for answer in answers) == [False, True]
    assert not (await race.b.do(**command))["bound"]


async def test_r15_two_tabs_that_prove_their_device_are_both_let_in(race: Race) -> None:
    device = Device()
    mine = await registered(race, device)
    answer = await race.b.do(**refresh(device, mine.identifier, "none of yours"))
    answers = await race.collide(
        "binding",
        refresh(device, mine.identifier, mine.challenge),
        refresh(device, mine.identifier, answer["challenge"]),
    )
    assert [answer["bound"] for answer in answers] == [True, True]


async def test_r15_a_registration_under_way_does_not_revive_an_ended_session(race: Race) -> None:
    login = await race.a.do("request", method="POST", path="/login?person=ann")
    await race.a.do("shut", word="SET binding")
    registration = race.a.begin(**register(Device(), login["cookie"], login["challenge"]))
    await race.a.stopped()
    await race.b.do("end", sid=login["sid"])
    ended = await race.b.do("row", sid=login["sid"])
    await race.a.do("go")
    answer = await registration
    assert (answer["status"], answer["bound"]) == (403, False)
    assert await race.b.do("row", sid=login["sid"]) == ended


async def test_r15_a_refresh_under_way_does_not_outlive_its_session(race: Race) -> None:
    device = Device()
    mine = await registered(race, device)
    await race.a.do("shut", word="SET binding")
    renewal = race.a.begin(**refresh(device, mine.identifier, mine.challenge))
    await race.a.stopped()
    await race.b.do("end", sid=mine.sid)
    await race.a.do("go")
    answer = await renewal
    assert (answer["status"], answer["bound"]) == (401, False)


# --- R16: an end of all sessions, and a first request ---------------------------------------------


async def test_r16_a_start_under_way_does_not_outlive_the_end_of_all_sessions(race: Race) -> None:
    await race.a.do("shut", word="INSERT")
    first = race.a.begin("request", person="ann")
    await race.a.stopped()  # it has found nothing, and nothing that cuts it off
    assert await race.b.do("end_all", person="ann") == 0
    await race.a.do("go")
    answer = await first
    assert (answer["status"], answer["sid"], answer["user"]) == (200, None, False)
    assert await race.b.do("live") == []
    ((_, _, reason),) = await race.events("ended")
    assert reason == "revoked"


async def test_r16_an_end_of_all_sessions_under_way_keeps_first_requests_out(race: Race) -> None:
    await race.login()
    await race.a.do("shut", word="expires_at >")
    end = race.a.begin("end_all", person="ann")
    await race.a.stopped()  # it is about to end the rows
    answer = await race.b.do("request", person="ann")
    assert (answer["sid"], answer["user"]) == (None, False)
    await race.a.do("go")
    assert await end == 1


async def test_r16_two_ends_of_all_sessions_under_way_are_both_answered(race: Race) -> None:
    await race.login()
    commands = []
    for process in (race.a, race.b):
        await process.do("shut", word="_cutoffs", before=True, behind=False)
        commands.append(process.begin("end_all", person="ann"))
        await process.stopped()
    for process in (race.a, race.b):
        await process.do("go")
    assert sum(await asyncio.wait_for(asyncio.gather(*commands), PATIENCE)) == 1
    assert not (await race.a.do("request", person="ann"))["user"]


# --- R17: changes of data side by side ------------------------------------------------------------


@pytest.fixture
async def shop(make_race: MakeRace) -> Race:
    """A race of sessions that have data."""
    return await make_race(data=True)


def word_of_a_lock(race: Race) -> str:
    """In the first statement of a change that depends on what is there."""
    return "SET id=" if race.others.engine.dialect.name == "sqlite" else "FOR "


SAVE = "_data (id"


async def test_r17_changes_of_different_keys_that_meet_are_both_kept(shop: Race) -> None:
    _, cookie = await shop.login()
    for value in (1, 2):  # the row of the data is made, and then changed
        await shop.meet(
            (SAVE, SAVE),
            {"do": "change", "cookie": cookie, "steps": [["set", "a", value], ["set", "b", value]]},
            {"do": "change", "cookie": cookie, "steps": [["set", "c", value]]},
        )
        assert await shop.a.do("data") == [{"a": value, "b": value, "c": value}]


async def test_r17_of_changes_of_one_key_the_last_one_holds(shop: Race) -> None:
    _, cookie = await shop.login()
    await shop.a.do("shut", word=SAVE)
    first = shop.a.begin("change", cookie=cookie, steps=[["set", "a", "last"], ["set", "n", {}]])
    await shop.a.stopped()
    await shop.b.do("change", cookie=cookie, steps=[["set", "a", "first"], ["set", "n", {"x": 1}]])
    await shop.a.do("go")
    await first
    assert await shop.b.do("data") == [{"a": "last", "n": {}}]


async def test_r17_a_key_that_was_removed_stays_removed(shop: Race) -> None:
    _, cookie = await shop.login()
    await shop.a.do("change", cookie=cookie, steps=[["set", "gone", {"x": 1}], ["set", "a", 1]])
    await shop.a.do("shut", word=SAVE)
    slow = shop.a.begin("change", cookie=cookie, steps=[["set", "a", 2]])
    await shop.a.stopped()  # it has loaded the key
    assert (await shop.b.do("change", cookie=cookie, steps=[["pop", "gone"]]))["answers"] == [
        {"x": 1}
    ]
    await shop.a.do("go")
    assert (await slow)["data"] == {"gone": {"x": 1}, "a": 2}
    assert await shop.b.do("data") == [{"a": 2}]


@pytest.mark.parametrize("who", ["session", "visitor"])
async def test_r17_a_nonce_is_handed_out_once(shop: Race, who: str) -> None:
    cookie = (await shop.login())[1] if who == "session" else None
    begun = await shop.a.do("change", cookie=cookie, steps=[["set", "nonce", "x"]])
    pop: dict[str, Any] = {
        "do": "change",
        "cookie": cookie or begun["cookie"],
        "steps": [["pop", "nonce"]],
    }
    word, commands = word_of_a_lock(shop), []
    for process in (shop.a, shop.b):  # both have seen it
        await process.do("shut", word=word)
        commands.append(process.begin(**pop))
        await process.stopped()
    for process in (shop.a, shop.b):
        await process.do("go")
    answers = await asyncio.wait_for(asyncio.gather(*commands), PATIENCE)
    assert sorted(str(answer["answers"]) for answer in answers) == ["['x']", "[None]"]
    assert await shop.a.do("data", kind="data" if cookie else "visitors") == [{}]


async def test_r17_every_increment_counts_and_every_item_is_kept(shop: Race) -> None:
    _, cookie = await shop.login()
    commands = [
        process.begin(
            "change",
            cookie=cookie,
            steps=[
                ["increment", "n"],
                ["append", "l", [name, number]],
                ["set", f"{name}{number}", 1],
            ],
        )
        for name, process in (("a", shop.a), ("b", shop.b))
        for number in range(10)
    ]
    answers = [answer["answers"] for answer in await asyncio.gather(*commands)]
    assert sorted(count for count, _ in answers) == [*range(1, 21)]
    (data,) = await shop.a.do("data")
    assert data.pop("n") == 20
    assert sorted(data.pop("l")) == [[name, n] for name in "ab" for n in range(10)]
    assert data == {f"{name}{n}": 1 for name in "ab" for n in range(10)}


async def test_r17_keys_that_eight_connections_write_are_all_kept(
    make_sessions: MakeSessions, database_url: str
) -> None:
    everybody = [await make_sessions(data=SessionData(max_bytes=100_000)) for _ in range(8)]
    _, cookie = await log_in(everybody[0])

    # By an engine they come the same way to the same statements.
    count = 10 if isinstance(database_url, EngineURL) else 60

    async def write(number: int, sessions: Sessions) -> None:
        turns = iter(range(count))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            turn = next(turns)
            scope["session"][f"{number}.{turn}"] = turn
            await respond(send)

        for _ in range(count):
            sent = await call(SessionMiddleware(app, sessions=sessions), http(cookie=cookie))
            assert sent[0]["status"] == 200

    await asyncio.gather(*(write(*one) for one in enumerate(everybody)))
    (data,) = (await data_of(everybody[0])).values()
    assert data == {f"{number}.{turn}": turn for number in range(8) for turn in range(count)}


# --- R18: a save of data, and what ends its owner -------------------------------------------------


async def test_r18_a_save_under_way_leaves_no_data_of_an_ended_session(shop: Race) -> None:
    sid, cookie = await shop.login()
    await shop.a.do("change", cookie=cookie, steps=[["set", "a", 1]])
    for steps, word in (([["set", "b", 2]], SAVE), ([["increment", "a"]], word_of_a_lock(shop))):
        await shop.a.do("shut", word=word)
        slow = shop.a.begin("change", cookie=cookie, steps=steps)
        await shop.a.stopped()
        await shop.b.do("end", sid=sid)
        ended = await shop.b.do("row", sid=sid)
        await shop.a.do("go")
        answer = await slow
        assert (answer["status"], answer["cookie"]) == (200, None)
        assert answer["answers"] in ([], [None])
        assert await shop.b.do("row", sid=sid) == ended
        assert await shop.b.do("data") == []
        sid, cookie = await shop.login()


async def test_r18_a_save_and_an_end_that_meet_leave_no_data(shop: Race) -> None:
    sid, cookie = await shop.login()
    answer, reason = await shop.meet(
        (SAVE, "ended_at IS NULL"),
        {"do": "change", "cookie": cookie, "steps": [["set", "a", 1]]},
        {"do": "end", "sid": sid},
    )
    assert (answer["status"], reason) == (200, "revoked")
    assert await shop.b.do("data") == []
    assert (await shop.b.do("row", sid=sid))["end_reason"] == "revoked"


async def test_r18_an_end_under_way_holds_after_a_save(shop: Race) -> None:
    sid, cookie = await shop.login()
    await shop.a.do("change", cookie=cookie, steps=[["set", "a", 1]])
    await shop.a.do("shut", word="DELETE")
    end = shop.a.begin("end", sid=sid)
    await shop.a.stopped()  # the row has ended, in its transaction
    save = shop.b.begin("change", cookie=cookie, steps=[["set", "b", 2]])
    await shop.as_far_as_possible(save)
    await shop.a.do("go")
    assert await end == "revoked"
    assert (await asyncio.wait_for(save, PATIENCE))["status"] == 200
    assert await shop.b.do("data") == []


async def test_r18_a_save_of_a_visitor_under_way_does_not_outlive_a_login(shop: Race) -> None:
    cookie = (await shop.a.do("change", steps=[["set", "cart", 1]]))["cookie"]
    await shop.a.do("shut", word="UPDATE")
    slow = shop.a.begin("change", cookie=cookie, steps=[["set", "late", 1]])
    await shop.a.stopped()
    login = await shop.b.do("change", cookie=cookie, steps=[["login", "ann"]])
    assert login["data"] == {"cart": 1}
    await shop.a.do("go")
    answer = await slow
    assert (answer["status"], answer["cookie"]) == (200, None)
    assert await shop.b.do("data", kind="visitors") == []
    assert await shop.b.do("data") == [{"cart": 1}]


async def test_r18_a_login_takes_what_was_saved_before_it(shop: Race) -> None:
    visitor = (await shop.a.do("change", steps=[["set", "cart", 1]]))["cookie"]
    for cookie in (visitor, (await shop.login("bob"))[1]):
        person = "ann" if cookie is visitor else "bob"
        await shop.a.do("shut", word="INSERT")
        login = shop.a.begin("change", cookie=cookie, steps=[["login", person], ["set", "mine", 1]])
        await shop.a.stopped()  # it has loaded what was there
        await shop.b.do("change", cookie=cookie, steps=[["set", "late", person]])
        await shop.a.do("go")
        await login
        assert {"late": person, "mine": 1}.items() <= (await shop.b.do("data"))[-1].items()
        await shop.b.do("end_all", person=person)


async def test_r18_two_logins_of_a_visitor_leave_no_visitor(shop: Race) -> None:
    cookie = (await shop.a.do("change", steps=[["set", "nonce", 1]]))["cookie"]
    await shop.a.do("shut", word="DELETE")
    first = shop.a.begin("change", cookie=cookie, steps=[["login", "ann"]])
    await shop.a.stopped()  # the data are those of the session, in its transaction
    second = shop.b.begin("change", cookie=cookie, steps=[["login", "ann"]])
    await shop.as_far_as_possible(second)
    await shop.a.do("go")
    assert (await asyncio.wait_for(first, PATIENCE))["data"] == {"nonce": 1}
    # On SQLite the second one comes when the first is over, and the visitor is no more.
    each = [{"nonce": 1}, {} if shop.others.engine.dialect.name == "sqlite" else {"nonce": 1}]
    assert (await asyncio.wait_for(second, PATIENCE))["data"] == each[1]
    assert await shop.b.do("data") == [*filter(None, each)]
    assert await shop.b.do("data", kind="visitors") == []


# --- R19: somebody acts for another person --------------------------------------------------------

ACT = {"do": "request", "method": "POST", "path": "/act?person=ann"}
BACK = {"do": "request", "method": "POST", "path": "/back"}


async def acting(race: Race) -> tuple[str, str, str]:
    """Staff act for Ann: the sid in which they do, its cookie, and the sid of their own."""
    own, cookie = await race.login("staff")
    answer = await race.a.do(**ACT, cookie=cookie)
    assert answer["actor_id"] == "staff"
    return answer["sid"], answer["cookie"], own


async def test_r19_an_impersonation_under_way_does_not_outlive_the_session_it_comes_from(
    race: Race,
) -> None:
    own, cookie = await race.login("staff")
    await race.a.do("shut", word="UPDATE")
    act = race.a.begin(**ACT, cookie=cookie)
    await race.a.stopped()
    await race.b.do("end", sid=own)
    await race.a.do("go")
    answer = await act
    assert (answer["status"], answer["refused"], answer["cookie"]) == (403, "no_session", None)
    assert await race.b.do("live") == []
    assert [sid for _, sid, _ in await race.events("started")] == [own]


async def test_r19_an_impersonation_and_the_end_of_the_session_it_comes_from_that_meet(
    race: Race,
) -> None:
    own, cookie = await race.login("staff")
    answer, reason = await race.collide(
        "UPDATE", {**ACT, "cookie": cookie}, {"do": "end", "sid": own}
    )
    assert reason == "revoked"
    assert await race.b.do("live", person="staff") == []
    if answer["cookie"] is not None:
        seen = await race.b.do("request", cookie=answer["cookie"])
        assert (seen["sid"], seen["reason"]) == (None, "actor_left")
    assert await race.b.do("live") == []


async def test_r19_two_impersonations_that_meet_make_one(race: Race) -> None:
    own, cookie = await race.login("staff")
    act = {**ACT, "cookie": cookie}
    answers = await race.collide("UPDATE", act, act)
    assert sorted(answer["status"] for answer in answers) == [200, 403]
    (acting,) = [answer["cookie"] for answer in answers if answer["cookie"]]
    assert len(await race.b.do("live")) == 1
    assert (await race.b.do("request", cookie=acting))["person_id"] == "ann"
    assert (await race.b.do(**BACK, cookie=acting))["sid"] == own


async def test_r19_of_two_ways_back_that_meet_one_has_the_session(race: Race) -> None:
    sid, cookie, own = await acting(race)
    back = {**BACK, "cookie": cookie}
    answers = await race.collide("UPDATE", back, back)
    assert [answer["status"] for answer in answers] == [200, 200]
    (new,) = [answer["cookie"] for answer in answers if answer["cookie"]]
    assert sorted([answer["sid"] or "" for answer in answers]) == ["", own]
    for process in (race.a, race.b):
        assert (await process.do("request", cookie=new))["sid"] == own
        assert (await process.do("request", cookie=cookie))["reason"] == "actor_left"
    assert await race.events("ended") == [["ended", sid, "actor_left"]]
    assert len(await race.events("renewed")) == 1


@pytest.mark.parametrize("which", ["acting", "own"])
async def test_r19_a_way_back_and_an_end_that_meet(race: Race, which: str) -> None:
    """Whichever comes first, what has ended opens nothing, and nothing is left that waits."""
    sid, cookie, own = await acting(race)
    ended = sid if which == "acting" else own
    answer, reason = await race.collide(
        "UPDATE", {**BACK, "cookie": cookie}, {"do": "end", "sid": ended}
    )
    assert answer["status"] == 200
    assert (await race.b.do("request", cookie=cookie))["sid"] is None
    assert await race.b.do("live") == []
    live = await race.b.do("live", person="staff")
    if which == "own" or reason == "revoked":
        assert live == []
    else:
        assert live == [own]
    seen = await race.b.do("request", cookie=answer["cookie"])
    assert [seen["sid"]] == (live or [None])


async def test_r19_a_way_back_under_way_does_not_revive_the_session_that_waits(race: Race) -> None:
    sid, cookie, own = await acting(race)
    await race.a.do("shut", word="UPDATE")
    back = race.a.begin(**BACK, cookie=cookie)
    await race.a.stopped()
    await race.b.do("end", sid=own)
    before = await race.b.do("row", sid=own)
    await race.a.do("go")
    answer = await back
    assert (answer["sid"], answer["cookie"]) == (None, None)
    assert await race.b.do("row", sid=own) == before
    assert (await race.b.do("row", sid=sid))["end_reason"] == "actor_left"
