"""Odd scopes, odd persons, odd arguments: no exception, no 5xx and no access."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from asgi_sessions import (
    ConfigurationError,
    InvalidSession,
    Person,
    Session,
    SessionMiddleware,
    changeset,
    person_from_scope,
)
from asgi_sessions._model.device import clean_address
from asgi_sessions._model.tokens import SID_PATTERN
from tests.support.odd_input import (
    MANY,
    addresses,
    cookie_lines,
    header_names,
    integers,
    is_text,
    junk,
    moments,
    scalars,
    texts,
    token_like,
)
from tests.support.twins import LOG_IN, World, gives_nothing, request, sid_of, still_live

SECOND = timedelta(seconds=1)
GRACE = timedelta(seconds=60)


# --- arbitrary scopes --------------------------------------------------------------------------

headers = st.lists(
    st.tuples(header_names | st.binary(max_size=20), cookie_lines | st.binary(max_size=700)),
    max_size=6,
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
