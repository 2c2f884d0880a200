"""Bad input: whatever is sent or vouched for, no exception, no 5xx and no access.

Most of it is thrown at two middlewares with the same key: one on a real database, one on a
database that cannot be opened and answers 503 as soon as it is asked.
"""

from __future__ import annotations

import asyncio
import string
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address, ip_network
from itertools import pairwise, product
from types import SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Boolean, DateTime, LargeBinary, MetaData, String
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import (
    ConfigurationError,
    InvalidSession,
    Person,
    Session,
    SessionMiddleware,
    Sessions,
    changeset,
    person_from_scope,
)
from asgi_sessions._model.cookies import VALUE_LENGTH, CookieSettings, for_caches
from asgi_sessions._model.device import (
    USER_AGENT_LENGTH,
    StoreIP,
    address_to_store,
    clean_address,
    clean_user_agent,
)
from asgi_sessions._model.tokens import (
    KEY_LENGTH,
    KEY_VARIETY,
    SID_PATTERN,
    Keys,
    Token,
    digest,
    new_secret,
    new_sid,
)
from asgi_sessions._pages.logout import crosses_sites
from asgi_sessions._store.tables import sessions_table
from asgi_sessions.testing import logged_in_cookie
from tests.support import KEY, OLD_KEY, Clock
from tests.support.inside import touched

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
SECOND = timedelta(seconds=1)
GRACE = timedelta(seconds=60)
LOG_IN = "ann"


# --- a world to throw things at ----------------------------------------------------------------


class Answer(NamedTuple):
    """What came back, and what the app behind the middleware saw of the session."""

    status: int
    headers: list[tuple[bytes, bytes]]
    sid: str | None
    session: Session | None
    reason: str | None


class World:
    """The middleware on a database, its twin without one, and an event loop for both."""

    def __init__(self, runner: asyncio.Runner, directory: str) -> None:
        self.runner = runner
        self.clock = Clock()
        self.sessions = Sessions(
            f"sqlite:///{directory}/sessions.db", secret_key=KEY, clock=self.clock
        )
        self.nowhere = Sessions(
            f"sqlite:///{directory}/missing/sessions.db", secret_key=KEY, clock=self.clock
        )
        self.app = SessionMiddleware(self._handler, sessions=self.sessions)
        self.app_nowhere = SessionMiddleware(self._handler, sessions=self.nowhere)
        self._names = 0

    def run(self, work: Any) -> Any:
        return self.runner.run(work)

    def new_person(self) -> str:
        """Somebody whom no other test knows."""
        self._names += 1
        return f"person-{self._names}"

    async def _handler(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Does what the scope's key `do` says, then answers 200 (or accepts and closes)."""
        await receive()
        if "do" in scope:
            await scope["do"](scope)
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept", "headers": []})
            await send({"type": "websocket.close", "code": 1000})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    async def ask(self, app: ASGIApp, scope: Scope) -> Answer:
        """One request or WebSocket."""
        sent: list[Message] = []

        async def receive() -> Message:
            if scope["type"] == "websocket":
                return {"type": "websocket.connect"}
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)
        await touched()
        start = sent[0]
        accepted = start["type"] == "websocket.accept"
        status = 101 if accepted else start.get("status", start.get("code"))
        state = scope["state"]
        headers = list(start.get("headers", ()))
        return Answer(status, headers, state["sid"], state["session"], state["session_end_reason"])

    async def present(self, value: str | bytes, *, nowhere: bool = False) -> Answer:
        """A request with this value as our cookie."""
        raw = value.encode("latin-1") if isinstance(value, str) else value
        return await self.ask(
            self.app_nowhere if nowhere else self.app, request((b"cookie", NAME + b"=" + raw))
        )

    async def do(self, action: Callable[[Scope], Any], value: str | None = None) -> str:
        """A request that calls one of the functions of `Sessions`; the cookie that it set."""
        scope = request(*[(b"cookie", NAME + b"=" + value.encode())] if value else [])
        scope["do"] = action
        answer = await self.ask(self.app, scope)
        assert answer.status == 200
        (cookie,) = (value for name, value in answer.headers if name == b"set-cookie")
        return cookie.decode().partition(";")[0].partition("=")[2]

    async def log_in(self, person: str) -> str:
        """A session; the value of its cookie."""
        (value,) = (await logged_in_cookie(self.sessions, person)).values()
        return value

    async def renew(self, value: str) -> str:
        """A new secret; the value of its cookie."""
        return await self.do(self.sessions.renew_session, value)

    async def count(self, person: str) -> int:
        """How many rows a person has."""
        return len(await self.sessions.list_sessions(person, include_ended=True))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with asyncio.Runner() as runner:
        world = World(runner, str(tmp_path_factory.mktemp("bad-input")))
        world.run(world.sessions.create_tables())
        yield world
        world.run(world.sessions.disconnect())
        world.run(world.nowhere.disconnect())


@pytest.fixture(scope="module")
def valid(world: World) -> str:
    """The cookie of a session that stays live. Nothing that a test does may change that."""
    value: str = world.run(world.log_in(LOG_IN))
    return value


def request(*headers: tuple[bytes, bytes], **facts: object) -> Scope:
    return {"type": "http", "method": "GET", "path": "/", "headers": list(headers), **facts}


def sid_of(value: str) -> str:
    return value.partition(".")[0]


def gives_nothing(answer: Answer) -> bool:
    """No access, no 5xx, and no word about a session: nothing to set and nothing to clear."""
    nothing = (answer.sid, answer.session, answer.reason) == (None, None, None)
    expected = [(b"vary", b"Cookie")] if answer.status == 200 else []
    return nothing and answer.status in (200, 101) and answer.headers == expected


def lets_in(answer: Answer, value: str) -> bool:
    return answer.status == 200 and answer.sid == sid_of(value)


async def still_live(world: World, value: str) -> bool:
    return lets_in(await world.present(value), value)


# --- arbitrary values --------------------------------------------------------------------------

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


# --- the Cookie header -------------------------------------------------------------------------

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

#: Of the sizes that a server lets through, and of some that it does not.
HUGE = [
    [b"; ".join([NAME + b"=" + b"a" * 100] * 10_000)],
    [NAME + b"=" + b"\xff" * 1_000_000],
    [b"%b=%d" % (NAME, i) for i in range(5_000)],
    [b";" * 1_000_000],
    [b"; ".join(b"%b=%036d.%043d.%043d" % (NAME, i, i, i) for i in range(1_000))],
    [
        b"; ".join(
            b"%b=0190b6c2-8d5e-7000-8000-%012d.%043d.%043d" % (NAME, i, i, i) for i in range(1_000)
        )
    ],
]


@MANY
@given(lines=cookie_headers)
def test_whatever_the_cookie_headers_hold_gives_no_access_and_asks_no_database(
    world: World, lines: list[bytes]
) -> None:
    scope = request(*[(b"cookie", line) for line in lines])
    assert gives_nothing(world.run(world.ask(world.app_nowhere, scope)))


@pytest.mark.parametrize("lines", HUGE, ids=range(len(HUGE)))
def test_huge_cookie_headers_give_no_access_and_ask_no_database(
    world: World, lines: list[bytes]
) -> None:
    scope = request(*[(b"cookie", line) for line in lines])
    assert gives_nothing(world.run(world.ask(world.app_nowhere, scope)))


@MANY
@given(lines=cookie_headers, around=st.tuples(segments, segments), place=st.integers(0, 4))
def test_a_valid_cookie_wins_over_whatever_else_has_its_name(
    world: World, valid: str, lines: list[bytes], around: tuple[bytes, bytes], place: int
) -> None:
    lines.insert(place, b"%b; %b=%b; %b" % (around[0], NAME, valid.encode(), around[1]))
    headers = [(b"cookie", line) for line in lines]
    assume(valid in CookieSettings().reader()(headers))  # what follows the eighth is not looked at
    assert lets_in(world.run(world.ask(world.app, request(*headers))), valid)


@pytest.mark.parametrize("lines", HUGE, ids=range(len(HUGE)))
@pytest.mark.parametrize("first", [True, False])
def test_a_valid_cookie_wins_over_huge_ones(
    world: World, valid: str, lines: list[bytes], first: bool
) -> None:
    ours = NAME + b"=" + valid.encode()
    lines = [ours, *lines] if first else [*lines, ours]
    headers = [(b"cookie", line) for line in lines]
    answer = world.run(world.ask(world.app, request(*headers)))
    if valid in CookieSettings().reader()(headers):
        assert lets_in(answer, valid)
    else:  # what follows the eighth is not looked at
        assert not first
        assert answer.sid is None
        assert world.run(still_live(world, valid))


@pytest.fixture(scope="module")
def dead(world: World) -> list[str]:
    """Cookies that verify and lead to no live session: logged out, revoked, expired, unknown."""

    async def make() -> list[str]:
        logged_out, revoked = [await world.log_in(world.new_person()) for _ in range(2)]
        await world.sessions.end_session_by_id(sid_of(logged_out), reason="logout")
        await world.sessions.end_session_by_id(sid_of(revoked))
        world.clock.turn(timedelta(days=-40))
        expired = await world.log_in(world.new_person())
        world.clock.turn(timedelta(days=40))
        unknown = Keys(KEY, (), purpose="default").sign(
            Token("0190b6c2-8d5e-7000-8000-000000000000", "A" * 43)
        )
        return [logged_out, revoked, expired, unknown]

    values: list[str] = world.run(make())
    return values


@MANY
@given(data=st.data())
def test_a_live_cookie_wins_over_dead_ones_that_verify(
    world: World, valid: str, dead: list[str], data: st.DataObject
) -> None:
    values = data.draw(st.permutations([valid, *data.draw(st.lists(st.sampled_from(dead)))]))
    scope = request(*[(b"cookie", NAME + b"=" + value.encode()) for value in values])
    answer = world.run(world.ask(world.app, scope))
    assert lets_in(answer, valid)
    assert answer.reason is None


@MANY
@given(data=st.data())
def test_dead_cookies_let_nobody_in_and_are_not_cleared(
    world: World, dead: list[str], data: st.DataObject
) -> None:
    values = data.draw(st.lists(st.sampled_from(dead), min_size=1))
    scope = request(*[(b"cookie", NAME + b"=" + value.encode()) for value in values])
    answer = world.run(world.ask(world.app, scope))
    assert (answer.status, answer.sid, answer.session) == (200, None, None)
    assert b"set-cookie" not in dict(answer.headers)


# --- tampered cookies --------------------------------------------------------------------------


def refused(world: World, values: Iterable[str], valid: str) -> int:
    """Present each value where there is no database; how many there were."""
    tried = 0

    async def present() -> None:
        nonlocal tried
        for value in values:
            if value != valid:
                tried += 1
                answer = await world.present(value, nowhere=True)
                assert gives_nothing(answer), value
        # That the twin has no database would otherwise prove nothing.
        assert (await world.present(valid, nowhere=True)).status == 503
        assert await still_live(world, valid)

    world.run(present())
    return tried


def test_a_cookie_with_any_byte_changed_to_any_other_is_refused(world: World, valid: str) -> None:
    changed = (
        valid[:i] + chr(byte) + valid[i + 1 :]
        for i in range(len(valid))
        for byte in range(256)
        # A semicolon ends the value: a cut, as in the next test.
        if chr(byte) != valid[i] and chr(byte) != ";"
    )
    assert refused(world, changed, valid) == len(valid) * 254


def test_a_cookie_cut_or_shifted_anywhere_is_refused(world: World, valid: str) -> None:
    length = len(valid)
    cuts = [valid[i:j] for i, j in product(range(length), range(1, length + 1)) if i < j]
    swaps = [
        valid[:i] + valid[i + 1] + valid[i] + valid[i + 2 :]
        for i in range(length - 1)
        if valid[i] != valid[i + 1]
    ]
    gaps = [valid[:i] + valid[j:] for i, j in pairwise(range(length + 1))]
    assert refused(world, cuts + swaps + gaps, valid) > length**2 / 2


def test_a_cookie_with_a_byte_more_anywhere_is_refused(world: World, valid: str) -> None:
    extended = [
        valid[:i] + chr(byte) + valid[i:]
        for i in range(len(valid) + 1)
        for byte in range(256)
        if chr(byte) != ";"
        # White space around a pair is no part of it (RFC 6265, 5.4), a quotation mark is.
        and not (chr(byte) in " \t" and i == len(valid))
    ]
    assert refused(world, extended, valid) > 30_000


@MANY
@given(tail=st.one_of(token_like, st.text(st.characters(max_codepoint=255), max_size=600)))
def test_an_extended_cookie_is_refused(world: World, valid: str, tail: str) -> None:
    tail = tail.replace(";", "").rstrip(" \t")
    refused(world, [valid + tail, tail + valid, valid + "." + tail], valid)


@MANY
@given(data=st.data())
def test_a_cookie_edited_in_several_places_is_refused(
    world: World, valid: str, data: st.DataObject
) -> None:
    pieces = st.text(string.ascii_letters + string.digits + "-_.", max_size=4)
    value = valid
    for _ in range(data.draw(st.integers(1, 4))):
        i = data.draw(st.integers(0, len(value)))
        value = value[:i] + data.draw(pieces) + value[i + data.draw(st.integers(0, 4)) :]
    refused(world, [value], valid)


def test_parts_swapped_between_two_sessions_are_refused(world: World, valid: str) -> None:
    other = world.run(world.log_in(LOG_IN))
    older = world.run(world.log_in(LOG_IN))
    newer = world.run(world.renew(older))
    values = [valid, other, older, newer]
    parts = list(zip(*(value.split(".") for value in values), strict=True))
    mixed = {
        ".".join(mix)
        for order in ((0, 1, 2), (1, 0, 2), (0, 2, 1))
        for mix in product(*(parts[i] for i in order))
    } - set(values)
    # 3 sids (`older` and `newer` share theirs), 4 secrets, 4 signatures; all but the 4 real ones.
    assert refused(world, sorted(mixed), valid) == 3 * (3 * 4 * 4) - 4
    for value in (other, newer):
        assert world.run(still_live(world, value))


def test_a_sid_in_any_other_case_is_refused(world: World, valid: str) -> None:
    flipped = [
        valid[:i] + valid[i].swapcase() + valid[i + 1 :]
        for i in range(len(valid))
        if valid[i].isalpha()
    ]
    sid, _, rest = valid.partition(".")
    whole = [f"{sid.upper()}.{rest}", valid.upper(), valid.lower(), valid.swapcase()]
    keys = Keys(KEY, (), purpose="default")
    assert refused(world, flipped + whole, valid) >= len(flipped) + 3
    # Not even when it is signed: one session has one spelling.
    secret = rest.partition(".")[0]
    refused(world, [keys.sign(Token(sid.upper(), secret))], valid)
    assert world.run(world.sessions.get_by_id(sid.upper())) is None
    assert world.run(world.sessions.end_session_by_id(sid.upper())) is None
    assert world.run(still_live(world, valid))


@MANY
@given(
    key=st.one_of(st.text(min_size=KEY_LENGTH), st.binary(min_size=KEY_LENGTH)).filter(
        lambda key: len(set(key)) >= KEY_VARIETY
    )
)
@example(key=OLD_KEY)
@example(key=KEY + " ")
@example(key=KEY.upper())
def test_a_cookie_signed_with_another_key_is_refused(
    world: World, valid: str, key: str | bytes
) -> None:
    sid, secret, _ = valid.split(".")
    refused(world, [Keys(key, (), purpose="default").sign(Token(sid, secret))], valid)


@MANY
@given(app_id=texts)
@example(app_id="")
@example(app_id="Default")
def test_the_cookie_of_another_app_with_the_same_key_is_refused(
    world: World, valid: str, app_id: str
) -> None:
    sid, secret, _ = valid.split(".")
    try:
        keys = Keys(KEY, (), purpose=app_id)
    except UnicodeEncodeError:  # `Sessions` refuses such an app_id before it gets here
        return
    if app_id != "default":
        refused(world, [keys.sign(Token(sid, secret))], valid)


@MANY
@given(late=st.integers(-60, 3_600))
@example(late=-60)
@example(late=0)
@example(late=1)
def test_an_old_cookie_is_good_until_60_s_after_the_new_one_was_seen_and_theft_from_then_on(
    world: World, late: int
) -> None:
    async def present() -> None:
        old = await world.log_in(world.new_person())
        new = await world.renew(old)
        assert await still_live(world, old)  # the answer may be on its way
        assert await still_live(world, new)
        world.clock.turn(GRACE + late * SECOND)
        if late <= 0:
            assert await still_live(world, old)
            assert await still_live(world, new)
            return
        answer = await world.present(old)
        assert (answer.status, answer.sid, answer.reason) == (200, None, "reuse")
        # Whoever of the two was the thief: both are out, and stay out.
        for value in (old, new):
            answer = await world.present(value)
            assert (answer.status, answer.sid, answer.reason) == (200, None, "reuse")

    world.run(present())


@MANY
@given(random=st.binary(min_size=32, max_size=32))
def test_a_made_up_secret_lets_nobody_in_even_if_its_signature_holds(
    world: World, random: bytes
) -> None:
    async def present() -> None:
        value = await world.log_in(world.new_person())
        token = Token(sid_of(value), new_secret(lambda _: random))
        answer = await world.present(Keys(KEY, (), purpose="default").sign(token))
        assert (answer.status, answer.sid, answer.reason) == (200, None, "reuse")

    world.run(present())


@MANY
@given(tail=st.binary(min_size=10, max_size=10))
def test_a_sid_that_nobody_has_lets_nobody_in_even_if_its_signature_holds(
    world: World, tail: bytes
) -> None:
    token = Token(new_sid(world.clock.now, lambda _: tail), "A" * 43)
    answer = world.run(world.present(Keys(KEY, (), purpose="default").sign(token)))
    assert (answer.status, answer.sid, answer.reason) == (200, None, None)
    assert b"set-cookie" not in dict(answer.headers)


# --- arbitrary scopes --------------------------------------------------------------------------

header_names = st.sampled_from(
    [b"cookie", b"Cookie", b"user-agent", b"host", b"origin", b"sec-fetch-site", b"x-forwarded-for"]
)
headers = st.lists(
    st.tuples(header_names | st.binary(max_size=20), cookie_lines | st.binary(max_size=700)),
    max_size=6,
)
addresses = st.one_of(
    st.ip_addresses().map(str),
    texts,
    st.sampled_from(["", "testclient", "fe80::1%eth0", "::ffff:192.0.2.1", "[::1]", "1.2.3.4:5"]),
)
clients = st.one_of(
    st.none(),
    st.just(()),
    st.just([]),
    st.tuples(addresses | scalars, scalars),
    st.lists(addresses, min_size=1, max_size=3),
    addresses,
)
paths = st.text(max_size=20)


def scopes(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {"type": st.just(kind)},
        optional={
            "asgi": junk,
            "method": st.sampled_from(["GET", "POST", "OPTIONS", "options", ""]) | scalars,
            "scheme": scalars,
            "path": paths | scalars,
            "raw_path": scalars,
            "root_path": scalars,
            "query_string": st.binary() | scalars,
            "headers": headers,
            "client": clients,
            "server": junk,
            "state": st.dictionaries(
                st.sampled_from(["sid", "session", "session_end_reason", "x"]), junk
            )
            | junk,
            "extensions": st.dictionaries(texts, junk, max_size=2),
            "user": st.none()
            | st.just(SimpleNamespace(is_authenticated=False, id="ann"))
            | st.just({"is_authenticated": False, "id": "ann"}),
            "subprotocols": st.lists(texts, max_size=2),
        },
    )


def nobody(scope: Mapping[str, Any]) -> bool:
    state = scope.get("state")
    return not (isinstance(state, Mapping) and state.get("person") is not None)


@MANY
@given(scope=scopes("http").filter(nobody))
@example(scope={"type": "http"})
def test_a_request_with_an_odd_scope_has_no_session_and_asks_no_database(
    world: World, scope: Scope
) -> None:
    assert gives_nothing(world.run(world.ask(world.app_nowhere, scope)))


@MANY
@given(scope=scopes("websocket").filter(nobody))
@example(scope={"type": "websocket"})
def test_a_websocket_with_an_odd_scope_has_no_session_and_asks_no_database(
    world: World, scope: Scope
) -> None:
    assert gives_nothing(world.run(world.ask(world.app_nowhere, scope)))


@MANY
@given(scope=scopes("http"))
@example(scope={"type": "http"})
@example(scope={"type": "http", "method": "OPTIONS"})
def test_a_person_with_an_odd_scope_has_a_session_unless_it_is_never_started(
    world: World, scope: Scope
) -> None:
    person = world.new_person()
    scope["state"] = {"person": {"id": person}}
    answer = world.run(world.ask(world.app, scope))
    assert answer.status == 200
    if scope.get("method") == "OPTIONS":
        assert answer.session is None
    else:
        assert answer.session is not None
        assert answer.session.person_id == person


@MANY
@given(scope=scopes("http"))
@example(scope={"type": "http"})
def test_a_login_with_an_odd_scope_takes_place(world: World, scope: Scope) -> None:
    person = world.new_person()
    scope.pop("state", None)
    started: list[Session] = []

    async def log_in(scope: Scope) -> None:
        started.append(await world.sessions.start_session(scope, {"id": person}))

    scope["do"] = log_in
    answer = world.run(world.ask(world.app, scope))
    assert answer.status == 200
    assert answer.sid == started[0].sid
    assert answer.session is not None
    assert b"set-cookie" in dict(answer.headers)


@MANY
@given(scope=scopes("http").filter(nobody))
@example(scope={"type": "http", "method": "POST"})
def test_the_logout_route_answers_any_scope(world: World, scope: Scope) -> None:
    endpoint = world.nowhere.end_session_endpoint()
    app = SessionMiddleware(endpoint, sessions=world.nowhere)
    answer = world.run(world.ask(app, scope))
    assert answer.status in ({200, 403} if scope.get("method") == "POST" else {405})
    assert answer.sid is None


@MANY
@given(kind=texts.filter(lambda kind: kind not in ("http", "websocket")), scope=scopes("http"))
@example(kind="lifespan", scope={})
def test_what_is_neither_request_nor_websocket_passes_untouched(
    world: World, kind: str, scope: Scope
) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(dict(scope))

    async def never() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        raise AssertionError

    scope = {**scope, "type": kind}
    before = dict(scope)
    world.run(SessionMiddleware(app, sessions=world.nowhere)(scope, never, send))
    assert seen == [before]


# --- arbitrary persons -------------------------------------------------------------------------

STORED = ("app_id", "auth_provider", "acr", "amr")
FACTS = ("authenticated_at", "auth_time", "iat", "sid", *STORED)
ids = st.one_of(junk, st.uuids(), st.text(min_size=1, max_size=300))
facts = st.dictionaries(st.sampled_from(FACTS), junk | integers | moments, max_size=4)
named = st.dictionaries(st.sampled_from(["id", "identity", "sub"]), ids, max_size=3)


class Shy:
    """As Starlette's BaseUser, whose `identity` is there but not implemented."""

    @property
    def identity(self) -> str:
        raise NotImplementedError

    @property
    def id(self) -> str:
        raise AttributeError


persons = st.one_of(
    junk.filter(lambda value: value is not None),
    st.builds(lambda *parts: {k: v for part in parts for k, v in part.items()}, named, facts),
    st.builds(lambda one, two: SimpleNamespace(**one, **two), named, facts),
    st.just(Shy()),
    st.sampled_from([object(), Shy, int, len, Ellipsis]),
)


def id_of(person: Any) -> Any:
    """As DESIGN §5 has it: `id`, `identity` or `sub`, of a mapping or an object."""
    if isinstance(person, str | int | UUID) and not isinstance(person, bool):
        return person
    for name in ("id", "identity", "sub"):
        try:
            value = person[name] if isinstance(person, Mapping) else getattr(person, name)
        except (AttributeError, KeyError, NotImplementedError):
            continue
        if value is not None:
            return value
    return None


def storable(person_id: object) -> bool:
    """As DESIGN §3 has it: text up to 255 characters, none of them a control character, of a str,
    an int or a UUID.
    """
    if isinstance(person_id, bool) or not isinstance(person_id, str | int | UUID):
        return False
    if isinstance(person_id, int) and abs(person_id) >= 10**255:
        return False
    text = str(person_id)
    controls = any(unicodedata.category(c) in ("Cc", "Zl", "Zp") for c in text)
    return 0 < len(text.strip()) <= len(text) <= 255 and not controls and is_text(text)


@MANY
@given(person=persons, where=st.sampled_from(["state", "user", "middleware"]))
@example(person={"id": "\ud800"}, where="user")
@example(person={"id": "a" * 256}, where="state")
@example(person={"id": "a\0"}, where="state")
@example(person={"id": True}, where="state")
@example(person={"id": b"ann"}, where="user")
@example(person={"id": {"id": "ann"}}, where="user")
@example(person=b"ann", where="user")
@example(person=True, where="state")
@example(person={"id": None, "sub": ""}, where="state")
def test_a_person_is_let_in_by_a_usable_id_and_signed_out_otherwise(
    world: World, person: Any, where: str
) -> None:
    scope = request()
    app: ASGIApp = world.app
    if where == "state":
        scope["state"] = {"person": person}
    elif where == "user":
        scope["user"] = person
    else:
        app = SessionMiddleware(world._handler, sessions=world.sessions, person=lambda _: person)
    person_id = id_of(person)
    if person_id is None:
        with pytest.raises(ConfigurationError, match="has no id: looked for"):
            world.run(world.ask(app, scope))
        return
    answer = world.run(world.ask(app, scope))
    if answer.status == 401:  # a `person` that cannot be taken out of the scope
        assert where not in ("state", "user")
        assert not storable(person_id)
        return
    assert answer.status == 200
    if answer.session is None:
        # Neither in nor vouched for: no handler can take them for somebody.
        assert answer.sid is None
        assert "person" not in scope["state"]
        assert person_from_scope(scope) is None
    else:
        assert answer.session.person_id == str(person_id)
        assert answer.session.app_id
    if not storable(person_id):
        assert answer.session is None
    elif not isinstance(person, dict | SimpleNamespace):  # nothing but an id
        assert answer.session is not None


@MANY
@given(junk_facts=facts)
@example(junk_facts={"iat": 10**400})
@example(junk_facts={"auth_time": float("nan")})
@example(junk_facts={"iat": True})
@example(
    junk_facts={"authenticated_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))}
)
@example(
    junk_facts={"authenticated_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))}
)
@example(junk_facts={"authenticated_at": datetime(2026, 1, 1)})  # noqa: DTZ001 -- naive
@example(junk_facts={"app_id": "\0"})
@example(junk_facts={"acr": "\0"})
@example(junk_facts={"amr": [None, {}, "\ud800", b""]})
@example(junk_facts={"sid": {"$ne": None}})
@example(junk_facts={"sid": "' OR 1=1 --"})
def test_odd_facts_about_a_person_break_nothing(world: World, junk_facts: dict[str, Any]) -> None:
    person = world.new_person()
    scope = request(user={"id": person, **junk_facts})
    answer = world.run(world.ask(world.app, scope))
    assert answer.status == 200
    if answer.session is not None:
        assert answer.session.person_id == person
        known_since = answer.session.authenticated_at
        assert known_since is None or known_since <= world.clock.now
    if not junk_facts.keys() & STORED:
        assert answer.session is not None


#: Python does not spell integers of more than 4,300 digits: a ValueError, even in a test's report.
UNSPEAKABLE = 10**5000


@pytest.mark.parametrize("name", ["id", "app_id", "auth_provider", "acr", "sid", "iat"])
def test_an_integer_that_python_does_not_spell_breaks_nothing(world: World, name: str) -> None:
    person = {"id": world.new_person(), name: UNSPEAKABLE}
    answer = world.run(world.ask(world.app, request(user=person)))
    assert answer.status == 200
    assert (answer.session is not None) is (name in ("sid", "iat"))
    assert clean_address(UNSPEAKABLE) is None
    assert not changeset(None, {"person_id": "ann", "app_id": "x", name: UNSPEAKABLE}).valid or (
        name in ("sid", "iat")
    )


@MANY
@given(mangle=st.sampled_from([str, str.upper, "{}\0".format, " {}".format, "{}.x".format]))
def test_naming_the_sid_of_somebody_else_leads_to_a_session_of_ones_own(
    world: World, valid: str, mangle: Callable[[str], str]
) -> None:
    person = world.new_person()
    answer = world.run(
        world.ask(world.app, request(user={"id": person, "sid": mangle(sid_of(valid))}))
    )
    assert answer.session is not None
    assert (answer.session.person_id, answer.sid != sid_of(valid)) == (person, True)


@MANY
@given(person=persons | st.none())
@example(person=None)
@example(person=Person(None))
@example(person=Person("ann", app_id=""))
@example(person=Person("ann", sid="\ud800"))
@example(person={"id": "ann", "iat": 10**400})
def test_a_login_or_insert_of_an_unusable_person_is_refused_by_an_error_of_ours(
    world: World, person: object
) -> None:
    async def log_in(scope: Scope) -> None:
        for start in (world.sessions.start_session, world.sessions.insert):
            try:
                session = await start(scope, person)
            except (ConfigurationError, InvalidSession):
                pass
            else:
                assert storable(session.person_id)

    scope = request()
    scope["do"] = log_in
    assert world.run(world.ask(world.app, scope)).status == 200


@MANY
@given(person=persons)
@example(
    person=Person(
        "ann", authenticated_at=datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
    )
)
def test_reading_a_person_gives_a_person_or_a_configuration_error(person: object) -> None:
    try:
        read = Person.of(person)
    except ConfigurationError:
        assert id_of(person) is None
    else:
        assert read.id is id_of(person)
        assert read.authenticated_at is None or read.authenticated_at.tzinfo is not None


# --- questions with odd arguments --------------------------------------------------------------


@MANY
@given(sid=texts | token_like | st.uuids().map(str))
@example(sid="")
@example(sid="\ud800")
@example(sid="%")
@example(sid="0190B6C2-8D5E-7000-8000-000000000000")
def test_a_sid_that_cannot_be_one_is_known_to_be_unknown_without_the_database(
    world: World, sid: str
) -> None:
    sessions = world.sessions if SID_PATTERN.fullmatch(sid) else world.nowhere
    assert world.run(sessions.get_by_id(sid)) is None
    assert world.run(sessions.end_session_by_id(sid)) is None
    assert world.run(sessions.end_session_by_id(sid, person_id="ann")) is None


@MANY
@given(before=texts | token_like | st.uuids().map(str))
@example(before="")
@example(before="\0")
def test_a_list_from_something_that_is_no_sid_on_is_refused(world: World, before: str) -> None:
    if SID_PATTERN.fullmatch(before):
        listed = world.run(world.sessions.list_sessions(LOG_IN, before=before))
        assert all(session.sid < before for session in listed)
    else:
        with pytest.raises(InvalidSession, match="before must be a sid"):
            world.run(world.nowhere.list_sessions(LOG_IN, before=before))


@MANY
@given(person_id=junk)
@example(person_id=None)
@example(person_id="\ud800")
def test_asking_for_the_sessions_of_an_unusable_id_is_refused(
    world: World, valid: str, person_id: object
) -> None:
    if person_id == LOG_IN:
        return
    if storable(person_id):
        world.run(world.sessions.list_sessions(person_id))
        world.run(world.sessions.end_all_sessions(person_id))
        foreign = world.run(world.sessions.end_session_by_id(sid_of(valid), person_id=person_id))
        assert foreign is None
    else:
        with pytest.raises(InvalidSession):
            world.run(world.nowhere.list_sessions(person_id))
        with pytest.raises(InvalidSession):
            world.run(world.nowhere.end_all_sessions(person_id))
        if person_id is not None:
            with pytest.raises(InvalidSession):
                world.run(world.nowhere.end_session_by_id(sid_of(valid), person_id=person_id))
    assert world.run(still_live(world, valid))


@MANY
@given(except_sid=texts)
@example(except_sid="\ud800")
@example(except_sid="\0")
def test_ending_all_sessions_but_one_that_cannot_be_ends_all(world: World, except_sid: str) -> None:
    async def end_all() -> None:
        person = world.new_person()
        value = await world.log_in(person)
        try:
            assert await world.sessions.end_all_sessions(person, except_sid=except_sid) == 1
        except InvalidSession:  # as good an answer; but never that the database is down
            return
        assert not await still_live(world, value)

    world.run(end_all())


@MANY
@given(size=integers)
@example(size=0)
@example(size=2**63)
def test_a_list_or_purge_of_any_size_works_or_is_refused(world: World, size: int) -> None:
    async def ask() -> None:
        asking: list[Callable[[], Any]] = [
            lambda: world.sessions.list_sessions(LOG_IN, limit=size),
            lambda: world.sessions.purge(batch_size=size),
        ]
        for question in asking:
            try:
                await question()
            except ConfigurationError:
                assert not 1 <= size <= 10_000
            else:
                assert size >= 1

    world.run(ask())


@MANY
@given(reason=texts)
@example(reason="")
@example(reason="x" * 50)
@example(reason="x" * 51)
def test_a_reason_that_cannot_be_stored_ends_nothing(world: World, reason: str) -> None:
    async def end() -> None:
        value = await world.log_in(world.new_person())
        try:
            session = await world.sessions.end_session_by_id(sid_of(value), reason=reason)
        except InvalidSession:
            assert await still_live(world, value)
        else:
            assert session is not None
            assert session.end_reason == reason
            assert len(reason) <= 50

    world.run(end())


# --- keys and tokens ---------------------------------------------------------------------------

keys = st.one_of(
    st.text(min_size=KEY_LENGTH, max_size=80), st.binary(min_size=KEY_LENGTH, max_size=80)
).filter(lambda key: len(set(key)) >= KEY_VARIETY)
tokens = st.builds(
    lambda moment, tail, secret: Token(
        new_sid(moment, lambda _: tail), new_secret(lambda _: secret)
    ),
    st.datetimes(min_value=datetime(1970, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.binary(min_size=10, max_size=10),
    st.binary(min_size=32, max_size=32),
)


@MANY
@given(token=tokens, key=keys, old=st.lists(keys, max_size=3), purpose=st.text(max_size=20))
def test_what_a_key_signs_it_verifies_as_an_old_one_too(
    token: Token, key: str | bytes, old: list[str | bytes], purpose: str
) -> None:
    value = Keys(key, old, purpose=purpose).sign(token)
    assert len(value) == 124
    assert value.isascii()
    assert Keys(key, (), purpose=purpose).verify(value) == (token.sid, digest(token.secret))
    assert Keys(OLD_KEY, [*old, key], purpose=purpose).verify(value) == (
        token.sid,
        digest(token.secret),
    )
    assert Keys(key, (), purpose=purpose + "x").verify(value) is None
    assert Keys(OLD_KEY, (), purpose=purpose).verify(value) is None


@MANY
@given(value=texts | token_like)
def test_what_no_key_signed_does_not_verify(value: str) -> None:
    assert Keys(KEY, [OLD_KEY], purpose="default").verify(value) is None


@MANY
@given(key=texts | st.binary(max_size=50) | junk)
@example(key="key" * 10)
@example(key=b"key" * 10)
@example(key="ключ" * 7)
@example(key="x" * KEY_LENGTH + "\ud800")
def test_a_key_is_taken_or_refused_without_being_told(key: Any) -> None:
    long_enough = (
        isinstance(key, str | bytes) and len(key) >= KEY_LENGTH and len(set(key)) >= KEY_VARIETY
    )

    told = None
    try:
        made = [Keys(key, (), purpose=""), Keys(KEY, [key], purpose="")]
    except ConfigurationError as fault:
        told = str(fault)
    else:
        assert not any(repr(key) in repr(one) for one in made)
    assert long_enough or told is not None
    if told is not None:
        assert not long_enough or not is_text(key)
        assert "secret_key and old_secret_keys" in told
        assert not isinstance(key, str) or len(key) < 10 or key not in told


def is_text(value: str | bytes) -> bool:
    return isinstance(value, bytes) or value.encode(errors="replace").decode() == value


@MANY
@given(
    first=st.tuples(texts, texts, texts | st.none(), st.none() | addresses),
    second=st.tuples(texts, texts, texts | st.none(), st.none() | addresses),
)
@example(first=("a", "bc", None, None), second=("ab", "c", None, None))
@example(first=("a", "b", None, ""), second=("a", "b", "", None))
@example(first=("a", "b", "-", None), second=("a", "b", None, "-"))
def test_different_devices_have_different_keys(
    first: tuple[str | None, ...], second: tuple[str | None, ...]
) -> None:
    try:
        one, two = (
            Keys(KEY, [OLD_KEY], purpose="").device_keys(*facts) for facts in (first, second)
        )
    except UnicodeEncodeError:  # gone from what `Core` passes
        return
    assert (set(one) & set(two) == set()) is (first != second)


@MANY
@given(
    moments=st.lists(
        st.datetimes(
            min_value=datetime(1970, 1, 1),  # noqa: DTZ001 -- the zone follows
            timezones=st.sampled_from([UTC, timezone(timedelta(hours=-5))]),
        ),
        min_size=2,
        max_size=5,
    ),
    tails=st.lists(st.binary(min_size=10, max_size=10), min_size=5, max_size=5),
)
def test_a_sid_is_a_uuid_of_version_7_in_the_order_of_time(
    moments: list[datetime], tails: list[bytes]
) -> None:
    made = [
        (moment, new_sid(moment, lambda _, tail=tail: tail))  # type: ignore[misc]
        for moment, tail in zip(sorted(moments), tails, strict=False)
    ]
    for _, sid in made:
        assert SID_PATTERN.fullmatch(sid)
        assert (UUID(sid).version, UUID(sid).variant) == (7, "specified in RFC 4122")
    for (earlier, first), (later, second) in pairwise(made):
        if later - earlier >= timedelta(milliseconds=1):
            assert first < second
        assert first[:13] <= second[:13]


# --- the cookie on the wire --------------------------------------------------------------------

cookie_settings = st.builds(
    CookieSettings,
    name=st.text(string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~", min_size=1).filter(
        lambda name: not name.lower().startswith(("__host-", "__secure-"))
    ),
    secure=st.just(value=True),
    samesite=st.sampled_from(["lax", "strict", "none"]),
    domain=st.sampled_from([None, "example.com"]),
    path=st.sampled_from(["/", "/app"]),
    partitioned=st.booleans(),
)
#: cookie-octets of RFC 6265.
octets = st.text(st.sampled_from(sorted({*map(chr, range(0x21, 0x7F))} - set('",;\\'))), min_size=1)


@MANY
@given(
    cookie=cookie_settings,
    value=octets,
    max_age=st.none() | st.integers(0, 400 * 86_400),
    around=st.tuples(segments, segments),
)
def test_a_cookie_that_is_written_is_read(
    cookie: CookieSettings, value: str, max_age: int | None, around: tuple[bytes, bytes]
) -> None:
    pair, *attributes = cookie.render(value, max_age=max_age).split(b"; ")
    assert {b"HttpOnly", b"Secure", b"Path=" + cookie.path.encode()} <= set(attributes)
    assert (b"Max-Age=%d" % (max_age or 0) in attributes) is (max_age is not None)
    line = b"; ".join((around[0], pair, around[1]))
    assert value in cookie.reader()([(b"accept", b"*/*"), (b"cookie", line)])


@MANY
@given(lines=cookie_headers)
@example(lines=[b"%b=%b; %b=%b" % (NAME, b"a" * VALUE_LENGTH, NAME, b"b" * (VALUE_LENGTH + 1))])
@example(lines=[NAME + b"=a", NAME + b"=b; " + NAME + b"=a"])
def test_what_is_read_is_each_value_of_our_name_once_and_none_that_is_too_long(
    lines: list[bytes],
) -> None:
    pairs = [pair.strip(b" \t") for line in lines for pair in line.split(b";")]
    sent = [pair[len(NAME) + 1 :] for pair in pairs if pair.startswith(NAME + b"=")]
    read = CookieSettings().reader()([(b"cookie", line) for line in lines])
    known = dict.fromkeys(value.decode("latin-1") for value in sent if 0 < len(value) <= 512)
    assert read == list(known)[:8]


response_headers = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from([b"vary", b"Vary", b"VARY"]),
            st.sampled_from(
                [
                    b"",
                    b"*",
                    b"cookie",
                    b"Accept",
                    b"Accept, COOKIE ,x",
                    b"Accept-Encoding",
                    b"x-cookie",
                ]
            ),
        ),
        st.tuples(st.sampled_from([b"cache-control", b"Cache-Control"]), st.binary(max_size=20)),
        st.tuples(
            st.sampled_from([b"set-cookie", b"Set-Cookie"]),
            st.sampled_from(
                [
                    NAME + b"=theirs; Path=/",
                    b" " + NAME + b"=theirs",
                    NAME + b"=",
                    NAME + b"2=another",
                    b"other=" + NAME + b"=1",
                    b"session=x; HttpOnly",
                ]
            ),
        ),
        st.tuples(st.binary(max_size=10), st.binary(max_size=10)),
    ),
    max_size=8,
)


def names(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def is_ours(set_cookie: bytes) -> bool:
    """As a browser reads it (RFC 6265, 5.2)."""
    return set_cookie.partition(b";")[0].partition(b"=")[0].strip(b" \t") == NAME


@MANY
@given(headers=response_headers, writes=st.booleans(), vary=st.booleans())
def test_one_response_never_has_two_cookies_of_ours_and_varies_if_it_must(
    headers: list[tuple[bytes, bytes]], writes: bool, vary: bool
) -> None:
    cookie = CookieSettings().render("ours", max_age=None) if writes else None
    before = list(headers)
    written = headers if cookie is None else CookieSettings().write(headers, cookie)
    if vary:
        written = for_caches(written, private=False)
    assert headers == before
    if cookie is not None:
        assert [value for value in names(written, b"set-cookie") if is_ours(value)] == [cookie]
        assert names(written, b"cache-control") == [b"no-store"]
    others = [value for value in names(before, b"set-cookie") if not is_ours(value)]
    assert [value for value in names(written, b"set-cookie") if not is_ours(value)] == others
    fields = [
        [field.strip().lower() for value in names(response, b"vary") for field in value.split(b",")]
        for response in (before, written)
    ]
    assert set(fields[0]) <= set(fields[1])
    if not vary:
        assert fields[0] == fields[1]
    elif b"*" not in fields[0]:
        assert fields[1].count(b"cookie") == max(fields[0].count(b"cookie"), 1)
    touched = (b"vary", b"set-cookie", b"cache-control")
    assert [pair for pair in written if pair[0].lower() not in touched] == [
        pair for pair in before if pair[0].lower() not in touched
    ]


@MANY
@given(
    options=st.fixed_dictionaries(
        {},
        optional={
            "name": texts,
            "secure": st.booleans(),
            "samesite": texts,
            "domain": texts,
            "path": texts,
            "partitioned": st.booleans(),
        },
    )
)
def test_cookie_options_work_or_are_refused_and_inject_nothing(options: dict[str, Any]) -> None:
    try:
        cookie = CookieSettings(**options)
    except ConfigurationError:
        return
    rendered = cookie.render("value", max_age=1)
    assert rendered.isascii()
    assert bytes(rendered).count(b";") == rendered.count(b"; ")
    assert b"\n" not in rendered
    assert b"\r" not in rendered


# --- the device --------------------------------------------------------------------------------


@MANY
@given(text=st.text(characters, max_size=1200))
@example(text="x" * 10_000)
@example(text=" " * 499 + "x")
@example(text="\x1b[31mred\r\n\0\ud800\u202e")
def test_a_user_agent_is_cut_and_harmless(text: str) -> None:
    clean = clean_user_agent(text)
    if clean is None:
        assert text[:USER_AGENT_LENGTH].strip() == ""
        return
    assert 0 < len(clean) <= USER_AGENT_LENGTH
    assert clean.isprintable()
    assert clean.encode().decode() == clean
    assert clean_user_agent(clean) == clean
    if text.isprintable():
        assert clean == text[:500].strip()


@MANY
@given(address=st.one_of(st.ip_addresses(), texts, junk))
@example(address="::ffff:192.0.2.1")
@example(address="fe80::1%eth0")
@example(address="192.0.2.1:80")
def test_an_address_has_one_spelling_and_nonsense_none(address: object) -> None:
    clean = clean_address(address)
    if clean is not None:
        assert clean == str(ip_address(clean))
        assert len(clean) <= 45
        assert clean_address(clean) == clean
    if not isinstance(address, str | int):
        try:
            ip_address(str(address))
        except ValueError:
            assert clean is None
        else:
            assert clean is not None


@MANY
@given(
    address=st.none() | st.ip_addresses().map(str),
    how=st.sampled_from(["full", "truncated", "none"]),
)
def test_no_more_of_an_address_is_kept_than_was_asked(address: str | None, how: StoreIP) -> None:
    address = clean_address(address)
    kept = address_to_store(address, how)
    if address is None or how == "none":
        assert kept is None
    elif how == "full":
        assert kept == address
    else:
        assert kept is not None
        network = ip_network(f"{kept}/{24 if '.' in kept else 48}")  # raises if host bits are set
        assert ip_address(address) in network
        assert address_to_store(kept, how) == kept


# --- the changeset -----------------------------------------------------------------------------

COLUMNS = sessions_table("sessions", MetaData()).c

plausible = st.one_of(
    junk,
    moments,
    st.binary(min_size=32, max_size=32),
    st.text(characters, min_size=1, max_size=600),
    st.ip_addresses().map(str),
    st.sampled_from(["login", "scope", "ann", "0190b6c2-8d5e-7000-8000-000000000000"]),
)
attributes = st.dictionaries(st.sampled_from([*COLUMNS.keys(), "unknown"]), plausible, max_size=12)
LIVE = Session(
    id="0190b6c2-8d5e-7000-8000-000000000000",
    person_id="ann",
    app_id="default",
    auth_provider=None,
    origin="login",
    user_agent=None,
    ip_address=None,
    started_at=Clock().now,
    last_seen_at=Clock().now,
    idle_expires_at=Clock().now + timedelta(hours=1),
    authenticated_at=None,
    expires_at=Clock().now + timedelta(days=1),
    ended_at=None,
    end_reason=None,
    remember=True,
)
ENDED = replace(LIVE, ended_at=Clock().now, end_reason="logout")


def fits(name: str, value: object) -> bool:
    """Whether a column takes a value as it is, in any database."""
    if value is None:
        return True
    kind = COLUMNS[name].type
    if isinstance(kind, String):
        short = isinstance(value, str) and kind.length is not None and len(value) <= kind.length
        return short and "\0" not in str(value) and bool(str(value).encode())
    if isinstance(kind, LargeBinary):
        return isinstance(value, bytes) and len(value) == 32
    if isinstance(kind, DateTime):
        return isinstance(value, datetime) and value.tzinfo is UTC
    return isinstance(kind, Boolean) and isinstance(value, bool)


@MANY
@given(attrs=attributes, session=st.sampled_from([None, LIVE, ENDED]), ids=st.booleans())
@example(
    attrs={"started_at": datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))},
    session=None,
    ids=True,
)
@example(
    attrs={"ended_at": datetime.max.replace(tzinfo=timezone(timedelta(hours=-14)))},
    session=LIVE,
    ids=True,
)
@example(attrs={"user_agent": "x" * 10_000, "end_reason": "x" * 51}, session=LIVE, ids=True)
@example(attrs={"ended_at": Clock().now, "end_reason": "revoked"}, session=ENDED, ids=False)
def test_a_changeset_tells_the_faults_and_what_it_passes_can_be_stored(
    attrs: dict[str, Any], session: Session | None, ids: bool
) -> None:
    if ids:
        attrs = {"person_id": "ann", "app_id": "default", **attrs}
    made = changeset(session, attrs)
    assert made.valid is (made.errors == {})
    assert all(messages and all(messages) for messages in made.errors.values())
    assert made.errors.keys() <= {*attrs, "person_id", "app_id"}
    assert made.changes.keys() <= attrs.keys() & set(COLUMNS.keys())
    assert all(fits(name, value) for name, value in made.changes.items())
    # What has been cast stays as it is.
    assert changeset(session, made.changes).changes == made.changes
    if session is None:
        named = {name for name in ("person_id", "app_id") if attrs.get(name) is not None}
        assert {"person_id", "app_id"} - named <= made.errors.keys()
    elif session.ended_at is not None and made.valid:
        assert not {"ended_at", "end_reason"} & made.changes.keys()
    if isinstance(agent := attrs.get("user_agent"), str) and session is None:
        assert made.changes["user_agent"] == clean_user_agent(agent)


# --- the logout route --------------------------------------------------------------------------

ORIGINS = ["https://example.com", "https://evil.example", "null", "", "https://EXAMPLE.com", "x"]


@MANY
@given(
    headers=st.lists(st.tuples(header_names, st.binary(max_size=30)), max_size=5),
    same_site=st.booleans(),
)
def test_whatever_its_headers_hold_a_post_is_refused_or_not(
    headers: list[tuple[bytes, bytes]], same_site: bool
) -> None:
    refused = crosses_sites(Headers(raw=headers), same_site=same_site)
    sent = dict(reversed(headers))  # the first of each counts
    fetch_site, origin = sent.get(b"sec-fetch-site"), sent.get(b"origin")
    if fetch_site is not None:
        own = {b"same-origin", b"none", *([b"same-site"] if same_site else [])}
        assert refused is (fetch_site not in own)
    else:
        # The made-up ones are no origins of this host.
        assert refused is (origin is not None)


@MANY
@given(
    fetch_site=st.sampled_from([None, "same-origin", "same-site", "cross-site", "none", "", "x"]),
    origin=st.sampled_from([None, *ORIGINS]) | texts,
    host=st.sampled_from([None, "example.com", "Example.com", "evil.example", ""]),
    same_site=st.booleans(),
)
@example(fetch_site=None, origin="null", host="example.com", same_site=False)
@example(fetch_site=None, origin="null", host=None, same_site=False)
@example(fetch_site=None, origin="", host="", same_site=False)
@example(fetch_site=None, origin="https://", host="", same_site=False)
@example(fetch_site="cross-site", origin="https://example.com", host="example.com", same_site=True)
def test_a_post_passes_from_its_own_site_or_from_what_is_no_browser(
    fetch_site: str | None, origin: str | None, host: str | None, same_site: bool
) -> None:
    sent = {"sec-fetch-site": fetch_site, "origin": origin, "host": host}
    headers = Headers(
        raw=[
            (name.encode(), value.encode("latin-1", "replace"))
            for name, value in sent.items()
            if value is not None
        ]
    )
    if fetch_site is not None:
        passes = fetch_site in ("same-origin", "none") or (same_site and fetch_site == "same-site")
    elif origin is None:
        passes = True
    else:
        passes = bool(host) and origin.lower() in (f"https://{host}".lower(), f"http://{host}")
    assert crosses_sites(headers, same_site=same_site) is not passes


@MANY
@given(target=texts | st.text(st.sampled_from("/\\:.@?#ahttps \t\n"), max_size=20))
@example(target="//evil.example")
@example(target="/\\evil.example")
@example(target="https:evil.example")
@example(target="javascript:alert(1)")
@example(target="/a\r\nset-cookie: x")
def test_a_logout_leads_only_where_its_developer_wrote(world: World, target: str) -> None:
    try:
        endpoint = world.nowhere.end_session_endpoint(redirect_to=target)
    except ConfigurationError:
        return
    assert target.startswith(("/", "http://", "https://"))
    assert not target.startswith(("//", "/\\"))
    app = SessionMiddleware(endpoint, sessions=world.nowhere)
    answer = world.run(world.ask(app, request(method="POST")))
    assert answer.status == 303
    location = dict(answer.headers)[b"location"]
    assert not set(location) & set(b"\r\n \t\\")
