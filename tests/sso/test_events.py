"""Shared Signals (SSF, CAEP, RISC 1.0) by push (RFC 8935): what an event ends, tells, or is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from asgi_sessions import ConfigurationError, Person, SessionEvent, Sessions
from asgi_sessions.ssf import EventReceiver
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app
from tests.support.sso import CLIENT, ISSUER, LOGOUT, Provider, key, post, public, push, sign

SCOPE = {"type": "http", "headers": []}
CAEP, RISC, SSF = "caep/event-type", "risc/event-type", "ssf/event-type"
ADA = {"format": "iss_sub", "iss": ISSUER, "sub": "ada"}


@pytest.fixture
def provider(clock: Clock) -> Provider:
    return Provider(clock)


def receiver(sessions: Sessions) -> EventReceiver:
    return EventReceiver(sessions, issuer=ISSUER, audience=CLIENT, keys=public(key()))


async def logged_in(sessions: Sessions, sid: str | None = None, subject: str = "ada") -> str:
    person = Person(subject, issuer=ISSUER, subject=subject, provider_sid=sid)
    return (await sessions.insert(SCOPE, person)).sid


async def live(sessions: Sessions, person: str = "ada") -> set[str]:
    return {one.sid for one in await sessions.list_sessions(person)}


async def take(app: EventReceiver, token: str) -> None:
    answer = await push(app, token)
    assert (answer.status_code, answer.content) == (202, b""), answer.text


async def test_a_word_that_no_row_can_have_means_nobody(
    make_sessions: MakeSessions, provider: Provider
) -> None:
    sessions = await make_sessions()
    sid, app = await logged_in(sessions), receiver(sessions)
    for kind in ("session-revoked", "token-claims-change"):
        for word in ("\ud800", "a\0b"):
            subject = {"format": "opaque", "id": word}
            await take(app, provider.event(f"{CAEP}/{kind}", subject))
    assert await live(sessions) == {sid}


async def test_an_event_ends_what_it_names(make_sessions: MakeSessions, provider: Provider) -> None:
    """By person and by session, on each database; the rest goes on."""
    sessions = await make_sessions()
    app = receiver(sessions)
    others = await logged_in(sessions, "tablet", "bob")
    device = {"format": "opaque", "id": "that one"}
    session = {"format": "opaque", "id": "phone"}
    for name, subject in (
        ("phone", session),
        ("watch", {"format": "complex", "session": {**session, "id": "watch"}}),
        ("tv", {"format": "complex", "session": {**session, "id": "tv"}, "user": ADA, "d": device}),
    ):
        phone, laptop = await logged_in(sessions, name), await logged_in(sessions, "laptop")
        await take(app, provider.event(f"{CAEP}/session-revoked", subject))
        ended = await sessions.get_by_id(phone)
        assert ended is not None
        assert ended.end_reason == "revoked"
        assert await live(sessions) == {laptop}
        await sessions.end_session_by_id(laptop)
    for kind, subject in (
        (f"{CAEP}/session-revoked", ADA),
        (f"{CAEP}/credential-change", ADA),
        (f"{RISC}/account-disabled", {"format": "opaque", "id": "ada"}),
        (f"{RISC}/account-purged", {"format": "complex", "user": ADA, "device": device}),
        (f"{CAEP}/session-revoked", {"format": "complex", "user": {**ADA}}),
        (
            f"{CAEP}/session-revoked",
            {"format": "complex", "user": {"format": "opaque", "id": "ada"}},
        ),
    ):
        await logged_in(sessions)
        await logged_in(sessions)
        await take(app, provider.event(kind, subject))
        assert await live(sessions) == set(), (kind, subject)
    # as it was before the standard was final
    await logged_in(sessions)
    older = {"subject": {"subject_type": "iss_sub", "iss": ISSUER, "sub": "ada"}}
    await take(app, provider.event(f"{RISC}/account-disabled", event=older))
    assert await live(sessions) == set()
    assert await live(sessions, "bob") == {others}


#: Subjects that name nobody here.
NOBODY: list[object] = [
    {**ADA, "iss": "https://other.example"},
    {"format": "iss_sub", "sub": "ada"},
    {"format": "iss_sub", "iss": ISSUER, "sub": 7},
    {"format": "email", "email": "ada"},
    {"format": "account", "uri": "acct:ada"},
    {"format": "opaque"},
    {"format": "complex"},
    {"format": "complex", "session": {"format": "opaque", "id": "unknown"}, "user": ADA},
    {"format": "complex", "session": {"format": "opaque"}, "user": ADA},
    {"format": "complex", "session": "phone", "user": ADA},
    {"format": "complex", "session": ADA},
    {"format": "complex", "device": {"format": "opaque", "id": "ada"}},
    {"format": "complex", "tenant": {"format": "opaque", "id": "ada"}},
    {"format": "complex", "user": {"format": "email", "email": "ada"}},
    {"format": "complex", "user": {**ADA, "iss": "https://other.example"}},
    {"format": "aliases", "identifiers": [ADA]},
    {"format": ["iss_sub"], "iss": ISSUER, "sub": "ada"},
    "ada",
    None,
]


async def test_a_subject_in_other_words_names_nobody(plain: Sessions, provider: Provider) -> None:
    mine, app = await logged_in(plain, "phone"), receiver(plain)
    for subject in NOBODY:
        await take(app, provider.event(f"{CAEP}/session-revoked", subject))
        assert await live(plain) == {mine}, subject


async def test_other_events_are_taken_and_end_nothing(plain: Sessions, provider: Provider) -> None:
    mine, app = await logged_in(plain, "phone"), receiver(plain)
    for kind in (
        f"{SSF}/verification",
        f"{SSF}/stream-updated",
        f"{CAEP}/device-compliance-change",
    ):
        await take(app, provider.event(kind, ADA, event={"state": "s"}))
    assert await live(plain) == {mine}


async def test_changes_are_told_for_each_live_session(
    make_sessions: MakeSessions, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "asgi_sessions.sessions")
    told: list[Any] = []
    sessions = await make_sessions(on_event=told.append)
    app = receiver(sessions)
    sids = {await logged_in(sessions, "phone"), await logged_in(sessions, "laptop")}
    await sessions.end_session_by_id(await logged_in(sessions))
    told.clear()
    changed = {"claims": {"role": "guest"}}
    await take(app, provider.event(f"{CAEP}/token-claims-change", ADA, event=changed))
    assert {event.session.sid for event in told} == sids
    assert {(type(event), event.kind) for event in told} == {(SessionEvent, "claims_changed")}
    assert [event.signal for event in told] == [changed, changed]
    told.clear()
    lower = {"current_level": "nist-aal1", "change_direction": "decrease"}
    phone = {"format": "complex", "session": {"format": "opaque", "id": "phone"}}
    await take(app, provider.event(f"{CAEP}/assurance-level-change", phone, event=lower))
    assert [(event.kind, event.signal) for event in told] == [("assurance_changed", lower)]
    assert await live(sessions) == sids
    said = f"told by the provider of session {told[0].session.sid}: assurance_changed"
    assert caplog.records[-1].getMessage() == said


async def test_the_same_token_again_ends_no_later_login(
    make_sessions: MakeSessions, provider: Provider, clock: Clock
) -> None:
    here, there = await make_sessions(), await make_sessions()
    token = provider.event(f"{CAEP}/session-revoked", ADA)
    await take(receiver(here), token)
    clock.turn(timedelta(days=30))
    later = await logged_in(here)
    await take(receiver(here), token)
    await take(receiver(there), token)
    assert await live(here) == {later}


async def test_what_was_proved_before_opens_nothing(plain: Sessions, provider: Provider) -> None:
    claims = {"iss": ISSUER, "sub": "ada"}
    await take(receiver(plain), provider.event(f"{RISC}/account-disabled", ADA))
    assert not (await Browser(make_app(plain)).see_as("ada", **claims))["user"]
    assert (await Browser(make_app(plain)).see_as("bob", iss=ISSUER, sub="bob"))["user"]


async def test_what_is_no_event_is_refused_in_the_words_of_the_standard(
    plain: Sessions, provider: Provider
) -> None:
    mine, app = await logged_in(plain, "phone"), receiver(plain)

    def event(**claims: object) -> str:
        return provider.event(f"{CAEP}/session-revoked", ADA, **claims)

    good = event()
    unsigned = sign(provider.claims(exp=None), key("P-256", "another"), typ="secevent+jwt")
    forged = f"{good.rpartition('.')[0]}.{'A' * 86}"
    for token, code, description in (
        (event(iss="https://other.example"), "invalid_issuer", "another issuer"),
        (event(aud="another"), "invalid_audience", "for somebody else"),
        (unsigned, "invalid_key", "signed with an unknown key"),
        (forged, "invalid_key", "an invalid signature"),
        (event(events={}), "invalid_request", "no security event token"),
        (event(events=None), "invalid_request", "no security event token"),
        (event(events={"e": "x"}), "invalid_request", "an event that is no object"),
        (event(exp=1), "invalid_request", "expired"),
        (event(jti=None), "invalid_request", "without an id of its own"),
        (event(iat=1), "invalid_request", "issued too long ago"),
        (provider.logout_token(sub="ada"), "invalid_request", "another type of token"),
        (sign(provider.claims(), typ=None), "invalid_request", "another type of token"),
        ("junk", "invalid_request", "no signed JWT"),
        ("jünk", "invalid_request", "no signed JWT"),
    ):
        answer = await push(app, token)
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/json"
        assert answer.headers["content-language"] == "en"
        assert answer.json() == {"err": code, "description": description}
    answer = await post(app, good, **{"content-type": "application/jwt"})
    assert answer.json()["err"] == "invalid_request"
    assert await live(plain) == {mine}
    # with what older transmitters add
    await take(app, event(aud=["another", CLIENT], sub="bob", exp=9e9))
    assert await live(plain) == set()


async def test_a_logout_token_is_none(plain: Sessions, provider: Provider) -> None:
    """Nor an event one, so that neither can be used at the other's route."""
    mine, app = await logged_in(plain), receiver(plain)
    token = sign(provider.claims(exp=None, sub_id=ADA, events={LOGOUT: {}}), typ="secevent+jwt")
    await take(app, token)
    assert await live(plain) == {mine}


def test_arguments_that_cannot_be_are_refused(plain: Sessions) -> None:
    with pytest.raises(ConfigurationError, match=r"'' is no aud.*; keys= has no public key"):
        EventReceiver(plain, issuer=ISSUER, audience="", keys={"keys": []})
