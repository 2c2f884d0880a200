"""Random lives of sessions, against a reference model written from DESIGN §5 and §6.

Browsers with a cookie jar, API clients without, a thief with every cookie that was ever issued,
and a clock. After each step the table must say what the model says.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from asgi_sessions import ANYBODY, Lifetimes, Session, Sessions
from tests.support import KEY, Browser, Clock, make_app, set_cookies, vouched

#: Lives that are run, and steps of each: of each seed so few that hypothesis makes up each of
#: them afresh; later it would vary what it had.
SEEDS = 10
EXAMPLES = 10
STEPS = 50

IDLE = timedelta(hours=1)
ABSOLUTE = timedelta(minutes=90)
KEEP = timedelta(days=2)
TOUCH = GRACE = timedelta(seconds=60)
UNSEEN_GRACE = timedelta(minutes=10)
#: Each request takes that long, so that no two rows have the same time.
TICK = timedelta(milliseconds=1)
MOMENT = timedelta(microseconds=1)

NAME = "__Host-sid"
PEOPLE = ["ann", "bob"]
REVOKED = ("revoked", "reuse", "limit")

Device = tuple[str, str]


# --- the reference -----------------------------------------------------------------------------


@dataclass(eq=False)
class Life:
    """A session as DESIGN has it: its row, and the cookies that were issued for it."""

    person: str
    device: Device
    origin: str
    started: datetime
    authenticated: datetime | None
    seen: datetime
    sid: str = ""
    current: str = ""
    previous: str | None = None
    renewed: datetime | None = None
    arrived: datetime | None = None
    ended: datetime | None = None
    reason: str | None = None

    @property
    def key(self) -> tuple[datetime, str]:
        """Names it even before its sid is known: of one person nothing else starts just then."""
        return self.started, self.origin

    def over(self) -> datetime:
        """When it ended, or will if it is not used again."""
        return self.ended or min(self.started + ABSOLUTE, self.seen + IDLE)

    def live(self, now: datetime) -> bool:
        return self.ended is None and now < self.over()

    def end(self, reason: str, now: datetime) -> None:
        if self.live(now):  # the first end wins
            self.ended, self.reason = now, reason

    def superseded(self, cookie: str, now: datetime) -> bool:
        if cookie == self.previous:
            return self.arrived is not None and now > self.arrived + GRACE
        return cookie != self.current

    def bridged(self, cookie: str | None) -> bool:
        """Whether somebody brings the secret before the current one."""
        return cookie is not None and cookie == self.previous

    def lapsed(self, cookie: str, now: datetime) -> bool:
        """Whether the secret before the current one has waited too long for that to be seen."""
        return (
            self.bridged(cookie)
            and self.arrived is None
            and self.renewed is not None
            and now > self.renewed + UNSEEN_GRACE
        )


@dataclass
class Asked:
    """A request: its cookie, its device, whom another layer vouches for."""

    device: Device
    cookie: str | None = None
    person: str | None = None
    since: datetime | None = None
    claim: Life | None = None
    may_start: bool = True


@dataclass
class Seen:
    """What the app sees, and what the request has brought about."""

    life: Life | None = None
    named: Life | None = None
    reason: str | None = None
    signed_out: bool = False
    cookie: str | None = None
    fresh: list[Life] = field(default_factory=list)


class Model:
    """DESIGN §5 and §6."""

    def __init__(self, cap: int | None) -> None:
        self.cap = cap
        self.lives: list[Life] = []
        self.issued: dict[str, Life] = {}
        #: When all sessions of a person were ended, and which one was spared.
        self.cut: dict[str, tuple[datetime, Life | None]] = {}

    def resolve(self, asked: Asked, now: datetime) -> Seen:
        """The decision table, its rows from below."""
        seen = Seen()
        life = self.issued.get(asked.cookie or "")
        if life not in self.lives:  # no cookie of ours, or a row that was purged
            self.find(asked, seen, now)
            return seen
        assert life is not None
        assert asked.cookie is not None
        same = life.person == asked.person
        if not life.live(now):
            seen.reason = life.reason or "expired"
            if same and seen.reason in REVOKED and not self.since(asked, life):
                seen.signed_out = True
            else:
                self.find(asked, seen, now)
        elif life.superseded(asked.cookie, now):
            life.end("reuse", now)
            seen.reason = "reuse"
            seen.signed_out = same
            if not same:
                self.find(asked, seen, now)
        elif life.lapsed(asked.cookie, now):
            seen.reason = "superseded"
            self.find(asked, seen, now)
        elif same or (asked.person is None and life.origin == "login"):
            seen.life = seen.named = life
        elif asked.person is None:
            seen.named = life  # kept, but not in use
        else:
            life.end("person_changed", now)
            seen.reason = "person_changed"
            self.find(asked, seen, now)
        return seen

    def find(self, asked: Asked, seen: Seen, now: datetime) -> None:
        """Without a session of one's own: by sid claim, else by device, else a new one."""
        if asked.person is None:
            return
        claim = asked.claim
        if claim is not None and (claim not in self.lives or claim.person != asked.person):
            claim = None  # nobody's, or not theirs
        life = claim or self.newest(asked)
        named = claim is not None and claim.live(now)
        if not named and self.cut_off(asked, life, now):
            seen.reason, seen.signed_out = "revoked", True
            return
        if life is not None and life.live(now):
            seen.life = seen.named = life
            return
        if life is not None and not self.since(asked, life):
            reason = life.reason or "expired"
            # A token that names its session lives and dies with it.
            if claim is not None or reason in REVOKED:
                seen.reason, seen.signed_out = reason, True
                return
        if not asked.may_start:
            return
        newest = self.newest(asked)
        if newest is None or not newest.live(now):
            newest = self.start(asked.person, asked, "scope", asked.since, now)
            seen.fresh.append(newest)
        seen.life = seen.named = newest

    def cut_off(self, asked: Asked, life: Life | None, now: datetime) -> bool:
        """Whether nothing was proved since all sessions of the person were ended."""
        when, spared = self.cut.get(asked.person or "", (None, None))
        if when is None or (life is not None and life is spared and life.live(now)):
            return False
        return asked.since is None or asked.since <= when

    def newest(self, asked: Asked) -> Life | None:
        mine = (asked.person, asked.device, "scope")
        lives = [life for life in self.lives if (life.person, life.device, life.origin) == mine]
        return max(lives, key=lambda life: life.started, default=None)

    @staticmethod
    def since(asked: Asked, life: Life) -> bool:
        """Whether the person has authenticated since the session ended."""
        return asked.since is not None and asked.since > life.over()

    def start(
        self, person: str, asked: Asked, origin: str, since: datetime | None, now: datetime
    ) -> Life:
        life = Life(person, asked.device, origin, now, since, now)
        others = [one for one in self.of(person) if one.live(now) and one.origin == "login"]
        if self.cap is not None and origin == "login":
            for surplus in sorted(others, key=lambda other: other.seen)[: -self.cap + 1 or None]:
                surplus.end("limit", now)
        self.lives.append(life)
        return life

    def log_in(self, person: str, asked: Asked, seen: Seen, now: datetime) -> None:
        if seen.named is not None:
            seen.named.end("replaced", now)
        seen.life = self.start(person, asked, "login", now, now)
        seen.fresh.append(seen.life)

    def renew(self, asked: Asked, seen: Seen, now: datetime) -> None:
        life = seen.life
        if life is None:
            return
        mine = self.issued.get(asked.cookie or "") is life
        if mine and life.bridged(asked.cookie):
            return  # nothing that was proved since counts for it
        # The last one that whoever renews is known to hold.
        life.previous = asked.cookie if mine else life.current
        life.arrived = None
        life.renewed = life.authenticated = life.seen = now
        seen.fresh.append(life)

    def used(self, asked: Asked, seen: Seen, now: datetime) -> None:
        """After the response: what was in use has been seen, and its new cookie has arrived."""
        life = seen.life
        if life is None:
            return
        arrived = (
            life.previous is not None and life.arrived is None and asked.cookie == life.current
        )
        if arrived:
            life.arrived = now
        if arrived or now - life.seen >= TOUCH:
            life.seen = now

    def of(self, person: str) -> list[Life]:
        return [life for life in self.lives if life.person == person]

    def end_all(self, person: str, but: Life | None, now: datetime) -> int:
        ending = [life for life in self.of(person) if life is not but and life.live(now)]
        for life in ending:
            life.end("revoked", now)
        self.cut[person] = (now, but)
        return len(ending)

    def purge(self, now: datetime) -> int:
        kept = [life for life in self.lives if life.over() >= now - KEEP]
        removed = len(self.lives) - len(kept)
        self.lives = kept
        return removed


# --- the clients -------------------------------------------------------------------------------


class Client:
    """One device; `keeps` says whether it has a cookie jar."""

    def __init__(self, app: Any, device: Device, *, keeps: bool) -> None:
        self.browser = Browser(app, agent=device[0], address=device[1])
        self.device = device
        self.keeps = keeps

    @property
    def cookie(self) -> str | None:
        return self.browser.cookies.get(NAME)

    def forget(self, cookie: str | None) -> None:
        """As if the last answer had been lost: back to the cookie from before."""
        self.browser.cookies.clear()
        if cookie is not None:
            self.browser.cookies.set(NAME, cookie, domain="test.local", path="/")


FIREFOX, SAFARI, CURL, THIEF = (
    ("Firefox", "192.0.2.1"),
    ("Safari", "2001:db8::1"),
    ("curl", "192.0.2.3"),
    ("Firefox", "198.51.100.66"),
)
#: Two browsers and an API client are on the same device.
CLIENTS = [(FIREFOX, True), (FIREFOX, True), (SAFARI, True), (FIREFOX, False), (CURL, False)]

number = st.integers(0, 999)
maybe_number = st.none() | number
people = st.sampled_from(PEOPLE)
somebody = st.none() | people
maybe_somebody = st.none() | somebody
seldom = st.sampled_from([False, False, False, True])
#: When the person whom another layer vouches for has authenticated: unknown, now, before.
since = st.sampled_from([None, None, timedelta(0), timedelta(minutes=-5), timedelta(hours=-2)])
durations = st.one_of(
    st.sampled_from([1, 30, 59, 60, 61]).map(lambda seconds: timedelta(seconds=seconds)),
    st.sampled_from([5, 20, 40, 59]).map(lambda minutes: timedelta(minutes=minutes)),
    st.sampled_from([5, 20, 40, 59]).map(lambda minutes: timedelta(minutes=minutes)),
    st.sampled_from([IDLE, ABSOLUTE - IDLE, ABSOLUTE, KEEP]),
)


class Lives(RuleBasedStateMachine):
    """Does the same to the package and to the model, and compares."""

    runner: ClassVar[asyncio.Runner]
    directory: ClassVar[Path]
    files = count()
    #: What came about in all lives, so that a run that meets nothing is noticed.
    happened: ClassVar[Counter[str]] = Counter()

    @initialize(cap=st.sampled_from([None, None, 1, 2]))
    def set_up(self, cap: int | None) -> None:
        self.steps = 0
        self.clock = Clock()
        self.model = Model(cap)
        self.sessions = Sessions(
            f"sqlite:///{self.directory}/{next(self.files)}.db",
            secret_key=KEY,
            clock=self.clock,
            lifetimes=Lifetimes(idle=IDLE, absolute=ABSOLUTE),
            keep_ended=KEEP,
            max_sessions_per_person=cap,
        )
        self.run(self.sessions.create_tables())
        app = make_app(self.sessions)
        self.clients = [Client(app, device, keeps=keeps) for device, keeps in CLIENTS]
        self.thief = Client(app, THIEF, keeps=False)

    def teardown(self) -> None:
        if hasattr(self, "sessions"):  # hypothesis may stop before
            self.happened.update(life.reason for life in self.model.lives if life.reason)
            for client in (*self.clients, self.thief):
                self.run(client.browser.aclose())
            self.run(self.sessions.disconnect())

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    @property
    def now(self) -> datetime:
        return self.clock.now

    def client(self, number: int, *, keeps: bool | None = None) -> Client:
        """Any of them; most often one whose cookie is good for something."""
        clients = [client for client in self.clients if keeps in (None, client.keeps)]
        good = [
            client
            for client in clients
            if (life := self.model.issued.get(client.cookie or "")) and life.live(self.now)
        ]
        pool = good * 3 + clients
        return pool[number % len(pool)]

    def needed(self, client: Client) -> str | None:
        """Who has to be vouched for, so that the cookie is good for something."""
        life = self.model.issued.get(client.cookie or "")
        return None if life is None or life.origin == "login" else life.person

    def life(self, number: int | None) -> Life | None:
        """Any of them; most often a live one."""
        live = [life for life in self.model.lives if life.live(self.now)]
        pool = live * 3 + self.model.lives
        return pool[number % len(pool)] if pool and number is not None else None

    def superseded(self) -> list[str]:
        """The old cookies of live sessions."""
        issued = self.model.issued.items()
        return [value for value, life in issued if life.live(self.now) and value != life.current]

    # --- one request ---------------------------------------------------------------------------

    def ask(
        self,
        client: Client,
        path: str = "/",
        *,
        method: str = "POST",
        cookie: str | None = None,
        person: str | None = None,
        ago: timedelta | None = None,
        claim: Life | None = None,
        lost: bool = False,
    ) -> None:
        """Send it, have the model do the same, compare what the app has seen."""
        now = self.now
        kept = client.cookie
        when = None if person is None or ago is None else now + ago
        asked = Asked(
            client.device, cookie or kept, person, when, claim, may_start=method != "OPTIONS"
        )
        seen = self.model.resolve(asked, now)
        used = seen.life
        headers = {} if cookie is None else {"cookie": f"{NAME}={cookie}"}
        if person is not None:
            facts = {"iso": when.isoformat()} if when is not None else {}
            headers |= vouched(person, **facts, **({"sid": claim.sid} if claim else {}))
        response = self.run(client.browser.request(method, path, headers=headers))
        assert response.status_code == 200, response.text
        body = response.json()
        client.forget(client.cookie)  # without its Max-Age: the jar has a clock of its own
        self.clock.turn(TICK)

        clears, counted = False, None
        if path.startswith("/login"):
            self.model.log_in(path.partition("=")[2], asked, seen, now)
        elif path == "/renew":
            self.model.renew(asked, seen, now)
        elif path == "/logout":
            if seen.named is not None:
                seen.named.end("logout", now)
            seen.life, clears = None, True
        elif path == "/end-others":
            life = seen.life
            counted = 0 if life is None else self.model.end_all(life.person, life, now)

        if counted is not None:
            assert body == counted
        else:
            self.compare(seen, body, vouched_for=person is not None)
        self.take(seen, set_cookies(response), clears=clears)
        for life in seen.fresh:
            life.sid = life.sid or self.sid(life)
        if seen.life is used:
            self.model.used(asked, seen, now)
        self.happened["asked"] += 1
        self.happened["signed out" if seen.signed_out else "in" if used else "not in"] += 1
        if lost or not client.keeps:
            client.forget(kept)

    def sid(self, life: Life) -> str:
        """Of one that began and ended within a request, or that its answer does not name."""
        listed = self.run(self.sessions.list_sessions(life.person, include_ended=True))
        (sid,) = (row.sid for row in listed if (row.started_at, row.origin) == life.key)
        return str(sid)

    @staticmethod
    def compare(seen: Seen, body: dict[str, Any], *, vouched_for: bool) -> None:
        life = seen.life
        if life is None:
            assert body["sid"] is None
            assert body["person_id"] is None
        else:
            life.sid = life.sid or body["sid"]  # a new one's is the package's choice
            assert (body["sid"], body["person_id"]) == (life.sid, life.person)
        assert body["reason"] == seen.reason
        assert body["user"] is (vouched_for and not seen.signed_out)

    def take(self, seen: Seen, cookies: list[str], *, clears: bool) -> None:
        """The cookie: none on a plain resume, else one; and what it is good for."""
        if clears:
            assert [cookie.partition(";")[0] for cookie in cookies] == [f"{NAME}="]
            return
        assert len(cookies) == bool(seen.fresh)
        if cookies:
            life = seen.fresh[-1]
            value = cookies[0].partition(";")[0].partition("=")[2]
            assert value not in self.model.issued
            life.current = value
            self.model.issued[value] = life

    # --- what may happen -----------------------------------------------------------------------

    @rule(
        who=number,
        path=st.sampled_from(["/", "/", "/", "/logout", "/end-others"]),
        person=maybe_somebody,
        ago=since,
        lost=seldom,
    )
    def a_browser_asks(
        self, *, who: int, path: str, person: str | None, ago: timedelta | None, lost: bool
    ) -> None:
        client = self.client(who, keeps=True)
        method = "GET" if path == "/" else "POST"
        self.ask(client, path, method=method, person=person, ago=ago, lost=lost)

    @rule(
        who=number,
        path=st.sampled_from(["/", "/", "/", "/logout", "/end-others"]),
        options=seldom,
        person=people,
        ago=since,
        claim=maybe_number,
    )
    def a_client_without_cookies_asks(
        self,
        *,
        who: int,
        path: str,
        options: bool,
        person: str,
        ago: timedelta | None,
        claim: int | None,
    ) -> None:
        client, named = self.client(who, keeps=False), self.life(claim)
        path = "/" if options else path
        method = "OPTIONS" if options else "GET" if path == "/" else "POST"
        self.ask(client, path, method=method, person=person, ago=ago, claim=named)

    @rule(who=number, person=people, vouched_for=maybe_somebody, lost=seldom)
    def somebody_logs_in(
        self, *, who: int, person: str, vouched_for: str | None, lost: bool
    ) -> None:
        self.ask(self.client(who), f"/login?person={person}", person=vouched_for, lost=lost)

    @rule(
        who=number,
        person=maybe_somebody,
        ago=since,
        answers=st.sampled_from(["arrives", "arrives", "unused", "lost", "lost, lost"]),
    )
    def a_client_renews(
        self, *, who: int, person: str | None, ago: timedelta | None, answers: str
    ) -> None:
        """And uses what it got; or does not get it, not even when it tries again."""
        client = self.client(who)
        person = person or self.needed(client)
        lost = answers.startswith("lost")
        self.ask(client, "/renew", person=person, ago=ago, lost=lost)
        if answers == "lost, lost":
            self.clock.turn(GRACE)
            self.ask(client, "/renew", person=person, ago=ago, lost=lost)
        if answers != "unused":
            self.ask(client, method="GET", person=person, ago=ago)

    @rule(who=number, busy=st.booleans(), early=st.booleans(), asks=st.booleans())
    def a_browser_comes_back_at_the_end(
        self, *, who: int, busy: bool, early: bool, asks: bool
    ) -> None:
        """When its session is over, or all but over: of idleness, or however busy it was."""
        client = self.client(who, keeps=True)
        life = self.model.issued.get(client.cookie or "")
        if life is None or not life.live(self.now):
            return
        while busy and self.now + IDLE / 2 < life.started + ABSOLUTE:
            self.clock.turn(IDLE / 2)
            self.ask(client, method="GET", person=self.needed(client))
        self.clock.now = max(self.now, life.over() - (MOMENT if early else timedelta(0)))
        if asks:
            self.ask(client, method="GET", person=self.needed(client))

    @precondition(lambda self: self.model.issued)
    @rule(which=number, person=somebody, path=st.sampled_from(["/", "/", "/renew", "/logout"]))
    def a_thief_replays_a_cookie(self, which: int, person: str | None, path: str) -> None:
        issued = list(self.model.issued)
        self.replay(issued[which % len(issued)], person, path)

    @precondition(lambda self: self.superseded())
    @rule(
        which=number,
        person=somebody,
        path=st.sampled_from(["/", "/", "/renew", "/logout"]),
        late=st.sampled_from([None, timedelta(0), MOMENT, MOMENT]),
    )
    def a_thief_replays_a_cookie_from_before_it_was_renewed(
        self, *, which: int, person: str | None, path: str, late: timedelta | None
    ) -> None:
        """At once, or when its grace is all but over, or is over."""
        old = self.superseded()
        cookie = old[which % len(old)]
        arrived = self.model.issued[cookie].arrived
        if arrived is not None and late is not None:
            self.clock.now = max(self.now, arrived + GRACE + late)
        self.replay(cookie, person, path)

    def replay(self, cookie: str, person: str | None, path: str) -> None:
        method = "GET" if path == "/" else "POST"
        self.ask(self.thief, path, method=method, cookie=cookie, person=person)

    @precondition(lambda self: self.model.lives)
    @rule(which=number, owner=maybe_somebody, every=seldom)
    def sessions_are_ended_from_elsewhere(
        self, *, which: int, owner: str | None, every: bool
    ) -> None:
        """One of them; or all of a person's, but for that one if it is theirs."""
        life = self.life(which)
        assert life is not None
        if every:
            whose = owner or life.person
            number = self.run(self.sessions.end_all_sessions(whose, except_sid=life.sid))
            assert number == self.model.end_all(whose, life, self.now)
            return
        ended = self.run(self.sessions.end_session_by_id(life.sid, person_id=owner or ANYBODY))
        if owner not in (None, life.person):
            assert ended is None  # as if there were no such session
            return
        life.end("revoked", self.now)
        assert ended is not None
        assert ended.end_reason == (life.reason or "expired")

    @rule(by=durations, which=maybe_number, early=st.booleans(), purge=seldom)
    def time_passes(self, *, by: timedelta, which: int | None, early: bool, purge: bool) -> None:
        """So much; or until a session is over, or all but over."""
        life = self.life(which)
        if life is None or not life.live(self.now):
            self.clock.turn(by)
        else:
            self.clock.now = life.over() - (MOMENT if early else timedelta(0))
        if purge:
            removed = self.run(self.sessions.purge())
            assert removed == self.model.purge(self.now)
            self.happened["purged"] += removed

    # --- what must hold ------------------------------------------------------------------------

    @invariant()
    def the_table_says_what_the_model_says(self) -> None:
        """Of one person all sessions, of the other those that live; next time the other way."""
        self.steps += 1
        whose, who_else = PEOPLE[self.steps % 2], PEOPLE[self.steps % 2 - 1]
        listed = self.run(self.sessions.list_sessions(whose, include_ended=True, limit=1000))
        lives = {life.key: life for life in self.model.of(whose)}
        assert {(row.started_at, row.origin) for row in listed} == lives.keys()
        assert listed == sorted(listed, key=lambda row: row.started_at, reverse=True)
        for row in listed:
            self.same(row, lives[row.started_at, row.origin], self.now)
        live = [life for life in self.model.of(who_else) if life.live(self.now)]
        listed = self.run(self.sessions.list_sessions(who_else))
        assert [row.started_at for row in reversed(listed)] == [life.started for life in live]
        logins = [life for life in live if life.origin == "login"]
        assert self.model.cap is None or len(logins) <= self.model.cap

    @staticmethod
    def same(row: Session, life: Life, now: datetime) -> None:
        assert row.sid == life.sid
        assert (row.user_agent, row.ip_address) == life.device
        assert row.live(now) is life.live(now)
        assert row.last_seen_at == life.seen
        assert row.authenticated_at == life.authenticated
        if life.ended is None and not life.live(now):  # written down when it is noticed
            assert (row.ended_at, row.end_reason) in [(None, None), (life.over(), "expired")]
        else:
            assert (row.ended_at, row.end_reason) == (life.ended, life.reason)


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("model")


def test_lives_of_sessions_are_as_the_model_has_them(
    runner: asyncio.Runner, directory: Path
) -> None:
    Lives.runner, Lives.directory = runner, directory
    for number in range(SEEDS):  # the same lives each time
        run_state_machine_as_test(
            seed(number)(Lives),
            settings=settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],  # with Phase.shrink, a failure takes minutes
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
    assert Lives.happened.keys() >= {
        *("asked", "in", "not in", "signed out", "purged"),
        *("logout", "revoked", "replaced", "person_changed", "limit", "reuse"),
    }
