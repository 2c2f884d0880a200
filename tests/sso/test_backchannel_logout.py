"""OpenID Connect Back-Channel Logout 1.0: what a logout token ends, and what is none."""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import pytest
from joserfc.jwk import OctKey
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_sessions import ConfigurationError, Incident, InvalidSession, Person, Session, Sessions
from asgi_sessions.oidc import BackChannelLogout
from asgi_sessions.testing import logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, make_app
from tests.support.asgi import ENDED, Peer, behind, echo, websocket
from tests.support.inside import store_of
from tests.support.sso import CLIENT, ISSUER, LOGOUT, Provider, key, log_out, post, public, sign

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
SCOPE = {"type": "http", "headers": []}


def endpoint(sessions: Sessions, **options: Any) -> BackChannelLogout:
    given = {"issuer": ISSUER, "client_id": CLIENT, "keys": public(key()), **options}
    return BackChannelLogout(sessions, **given)


@pytest.fixture
def provider(clock: Clock) -> Provider:
    return Provider(clock)


def person(id_: int, sid: str | None = None, **facts: Any) -> Person:
    """Who has logged in at the provider."""
    return Person(id_, **{"issuer": ISSUER, "subject": f"s{id_}", "provider_sid": sid, **facts})


async def live(sessions: Sessions, *people: int) -> list[str | None]:
    """The sids of the live sessions of some people."""
    return [one.sid for id_ in people for one in await sessions.list_sessions(id_)]


async def refused(app: BackChannelLogout, token: str) -> str:
    answer = await log_out(app, token)
    assert answer.status_code == 400
    told: dict[str, str] = answer.json()
    assert told.pop("error") == "invalid_request"
    return told["error_description"]


# --- what it ends, on each database ---------------------------------------------------------------


async def test_a_logout_ends_what_the_token_names_and_nothing_else(
    make_sessions: MakeSessions, provider: Provider, clock: Clock
) -> None:
    events: list[Any] = []
    sessions = await make_sessions(on_event=events.append)
    elsewhere = await make_sessions(app_id="bank")
    app = endpoint(sessions)
    phone = await sessions.insert(SCOPE, person(1, "phone"))
    laptop = await sessions.insert(SCOPE, person(1, "laptop"))
    password = await sessions.insert(SCOPE, 1)
    linked = await sessions.insert(SCOPE, person(1, issuer="https://other.example"))
    other = await sessions.insert(SCOPE, person(2, "phone", issuer="https://other.example"))
    bank = await elsewhere.insert(SCOPE, person(1, "phone"))
    clock.turn(SECOND)
    events.clear()

    # by the session, though it is known by its person, too
    assert (await log_out(app, provider.logout_token(sid="phone", sub="s1"))).status_code == 200
    assert [(event.kind, event.session.sid) for event in events] == [("ended", phone.sid)]
    assert events[0].session.end_reason == "revoked"
    # nobody has it any more, or ever had
    for sid in ("phone", "unknown"):
        answer = await log_out(app, provider.logout_token(sid=sid, sub="s1"))
        assert (answer.status_code, answer.content) == (200, b"")
    assert {laptop.sid, password.sid, linked.sid} == {*await live(sessions, 1)}
    # by the person
    assert (await log_out(app, provider.logout_token(sub="s1"))).status_code == 200
    assert {password.sid, linked.sid} == {*await live(sessions, 1)}
    assert await live(sessions, 2) == [other.sid]
    assert await elsewhere.get_by_id(bank.sid) == bank
    assert (await log_out(app, provider.logout_token(sub="nobody"))).status_code == 200


async def test_it_ends_many_and_what_starts_meanwhile_stays(
    make_sessions: MakeSessions, provider: Provider, clock: Clock
) -> None:
    sessions = await make_sessions()
    for _ in range(70):
        await sessions.insert(SCOPE, person(1))
    clock.turn(SECOND)
    assert (await log_out(endpoint(sessions), provider.logout_token(sub="s1"))).status_code == 200
    assert await live(sessions, 1) == []
    await sessions.insert(SCOPE, person(1))  # a login needs no newer proof
    assert len(await live(sessions, 1)) == 1


async def test_a_token_that_comes_again_is_refused_in_every_process(
    make_sessions: MakeSessions, provider: Provider, clock: Clock
) -> None:
    here, there = await make_sessions(), await make_sessions()
    token = provider.logout_token(sub="s1")
    assert (await log_out(endpoint(here), token)).status_code == 200
    clock.turn(SECOND)
    later = await here.insert(SCOPE, person(1))
    for sessions in (here, there):
        assert await refused(endpoint(sessions), token) == "seen before"
    assert await live(here, 1) == [later.sid]
    clock.turn(timedelta(days=399))
    await here.purge()
    assert await refused(endpoint(here), token) == "issued too long ago"


async def test_what_was_proved_before_opens_nothing_on_any_device(
    make_sessions: MakeSessions, provider: Provider, clock: Clock
) -> None:
    """Not in the words of the provider, by a token that names the session, or the person alone; nor
    where nobody here has ever seen them, or the provider's clock is ahead.
    """
    sessions = await make_sessions()
    app, site = endpoint(sessions), make_app(sessions)

    def device(name: str) -> Browser:
        return Browser(site, agent=name)

    ahead = int((clock.now + 2 * MINUTE).timestamp())
    claims = {"iss": ISSUER, "sub": "s1", "sid": "phone", "iat": ahead}
    mine = device("Firefox")
    sid = (await mine.see_as(1, **claims))["sid"]
    assert sid is not None
    assert (await log_out(app, provider.logout_token(sub="s1", iat=ahead))).status_code == 200
    assert (await mine.see_as(1, **claims))["reason"] == "revoked"  # with its cookie
    for agent in ("Firefox", "curl"):
        seen = await device(agent).see_as(1, **claims)
        assert seen == {"sid": None, "person_id": None, "reason": "revoked", "user": False}
    undated = {name: value for name, value in claims.items() if name != "iat"}
    assert not (await device("curl").see_as(1, **undated))["user"]
    # of one session, a person who was never here, and another who is
    theirs = {"iss": ISSUER, "sub": "s2", "sid": "tablet", "iat": ahead}
    assert (await log_out(app, provider.logout_token(sid="tablet", iat=ahead))).status_code == 200
    assert not (await device("curl").see_as(2, **theirs))["user"]
    assert (await device("curl").see_as(2, **{**theirs, "sid": "pc"}))["sid"] is not None
    assert (await device("wget").see_as(3, **{**claims, "sub": "s3"}))["sid"] is not None
    # a newer proof, or somebody who decides so
    assert (await device("curl").see_as(1, **{**claims, "iat": ahead + 1}))["sid"] is not None
    clock.turn(5 * MINUTE)
    await sessions.readmit(1)
    assert (await device("wget").see_as(1, **undated))["sid"] is not None


async def test_a_login_with_what_the_provider_has_ended_is_none(
    make_sessions: MakeSessions, provider: Provider, clock: Clock
) -> None:
    """The browser goes on as it came, with the cart and the session that it had."""
    sessions = await make_sessions(data=True)

    async def log_in(request: Request) -> Response:
        claims = {"id": 1, "iss": ISSUER, "sub": "s1", **request.query_params}
        request.session["cart"] = 1
        try:
            await sessions.start_session(request, claims)
        except InvalidSession as error:
            return Response(str(error), 400)
        return Response()

    await log_out_everywhere(sessions, provider.logout_token(sid="phone"))
    app = make_app(sessions, Route("/callback", log_in))
    visitor, bob = Browser(app), Browser(app)
    sid = await bob.login("bob")
    for browser in (visitor, bob):
        answer = await browser.get("/callback?sid=phone")
        assert answer.text == "provider_sid has been ended by the provider"
    assert (await bob.see())["sid"] == sid
    assert await sessions.list_sessions(1, include_ended=True) == []
    dated = Person(1, issuer=ISSUER, subject="s1", provider_sid="phone", issued_at=clock.now)
    with pytest.raises(InvalidSession, match="ended by the provider"):
        await sessions.insert(SCOPE, dated)
    assert (await visitor.get("/callback?sid=laptop")).status_code == 200


async def test_a_logout_that_comes_between_is_not_missed(
    make_sessions: MakeSessions, provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its end of all rows has found none, because the login was about to write it."""
    sessions = await make_sessions()
    store = store_of(sessions)
    insert = store.insert

    async def late(*args: Any, **kwargs: Any) -> Any:
        await log_out_everywhere(sessions, provider.logout_token(sid="phone"))
        return await insert(*args, **kwargs)

    monkeypatch.setattr(store, "insert", late)
    with pytest.raises(InvalidSession, match="ended by the provider"):
        await sessions.insert(SCOPE, person(1, "phone"))
    (session,) = await sessions.list_sessions(1, include_ended=True)
    assert session.end_reason == "revoked"


async def test_a_token_that_comes_twice_at_once_ends_no_later_login(
    make_sessions: MakeSessions, provider: Provider, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process has found that nobody has seen it, and goes on when all of it is done."""
    here, there = await make_sessions(), await make_sessions()
    before = await here.insert(SCOPE, person(1))
    clock.turn(SECOND)
    token, store = provider.logout_token(sub="s1"), store_of(there)
    find, later = store.find, list[Session]()

    async def slow(*args: Any) -> Any:
        found = await find(*args)
        if not later:
            later.append(before)
            assert (await log_out(endpoint(here), token)).status_code == 200
            clock.turn(SECOND)
            later[:] = [await here.insert(SCOPE, person(1))]
        return found

    monkeypatch.setattr(store, "find", slow)
    await log_out(endpoint(there), token)
    assert await live(here, 1) == [one.sid for one in later] != [before.sid]


async def test_words_that_no_row_can_have_end_nothing(
    make_sessions: MakeSessions, provider: Provider
) -> None:
    """Of some, a database does not even take the question, and that is no outage."""
    sessions = await make_sessions()
    mine = await sessions.insert(SCOPE, person(1, "phone"))
    for word in ("\ud800", "a\0b", "x" * 256):
        for name in ("sub", "sid"):
            await log_out_everywhere(sessions, provider.logout_token(**{name: word}))
    assert await live(sessions, 1) == [mine.sid]


async def log_out_everywhere(sessions: Sessions, token: str) -> None:
    assert (await log_out(endpoint(sessions), token)).status_code == 200


async def test_tokens_of_native_clients_end_as_well(
    make_sessions: MakeSessions, provider: Provider
) -> None:
    sessions = await make_sessions(bearer=True)

    async def issue(request: Request) -> Response:
        claims = {"id": 1, "iss": ISSUER, "sub": "s1", "sid": "phone"}
        return Response((await sessions.start_token(request, claims)).token)

    client = Browser(make_app(sessions, Route("/issue", issue)))
    headers = {"authorization": f"Bearer {(await client.get('/issue')).text}"}
    assert (await client.get("/", headers=headers)).json()["person_id"] == "1"
    assert (await log_out(endpoint(sessions), provider.logout_token(sid="phone"))).is_success
    assert (await client.get("/", headers=headers)).json()["sid"] is None


async def test_open_sockets_end_at_once(plain: Sessions, provider: Provider) -> None:
    ((name, value),) = (await logged_in_cookie(plain, person(1, "phone"))).items()
    scope = websocket(cookie=f"{name}={value}")
    async with Peer(behind(plain, echo), scope) as peer:
        assert (await peer.gets())["type"] == "websocket.accept"
        await peer.gets()
        await log_out(endpoint(plain), provider.logout_token(sid="phone"))
        assert await peer.gets() == ENDED


# --- what is no logout token (2.4, 2.6), on SQLite ------------------------------------------------


#: Claims that make a good token a bad one, and what is said of it.
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"iss": "https://id.example/"}, "another issuer"),
    ({"iss": None}, "another issuer"),
    ({"aud": "another"}, "for somebody else"),
    ({"aud": None}, "for somebody else"),
    ({"aud": {CLIENT: 1}}, "for somebody else"),
    ({"aud": [CLIENT, "another"]}, "for others besides"),
    ({"iat": None}, "without a time of its issue"),
    ({"iat": "now"}, "without a time of its issue"),
    ({"iat": True}, "without a time of its issue"),
    ({"iat": 1e300}, "without a time of its issue"),
    ({"exp": None}, "without an end of its own"),
    ({"exp": 1e300}, "expired"),
    ({"nbf": 9e9}, "not valid yet"),
    ({"nbf": []}, "not valid yet"),
    ({"jti": None}, "without an id of its own"),
    ({"jti": 7}, "without an id of its own"),
    ({"events": None}, "no logout token"),
    ({"events": [LOGOUT]}, "no logout token"),
    ({"events": {LOGOUT: None}}, "no logout token"),
    ({"events": {"http://schemas.openid.net/event/other": {}}}, "no logout token"),
    ({"nonce": "n"}, "no logout token: it has a nonce"),
    ({"nonce": ""}, "no logout token: it has a nonce"),
    ({"sub": None}, "neither sid nor sub"),
    ({"sid": 7}, "a sid or a sub that is no text"),
    ({"sid": ""}, "a sid or a sub that is no text"),
    ({"sid": "s", "sub": 7}, "a sid or a sub that is no text"),
]


async def test_each_claim_has_to_be_right(plain: Sessions, provider: Provider) -> None:
    mine = await plain.insert(SCOPE, person(1))
    app = endpoint(plain)
    for claims, reason in WRONG:
        token = provider.logout_token(**{"sub": "s1", **claims})
        assert await refused(app, token) == reason, claims
    assert await live(plain, 1) == [mine.sid]


async def test_each_time_has_to_be_right(plain: Sessions, provider: Provider, clock: Clock) -> None:
    app, token = endpoint(plain), provider.logout_token(sub="s1")
    clock.turn(-6 * MINUTE)
    assert await refused(app, token) == "issued in the future"
    clock.turn(14 * MINUTE)
    assert await refused(app, token) == "expired"
    clock.turn(timedelta(days=1))
    assert await refused(app, token) == "issued too long ago"
    clock.turn(-timedelta(days=1) - 8 * MINUTE)
    assert (await log_out(app, token)).status_code == 200


async def test_the_type_is_one_of_a_logout_token(plain: Sessions, provider: Provider) -> None:
    app = endpoint(plain)
    for kind in (None, "JWT", "logout+jwt", "application/logout+JWT"):
        token = sign(provider.claims(sub="s1"), typ=kind)
        assert (await log_out(app, token)).status_code == 200, kind


async def test_each_algorithm_that_is_named_counts(plain: Sessions, provider: Provider) -> None:
    for algorithm, kind, another in (
        ("ES256", "P-256", "RS256"),
        ("RS256", "2048", "PS256"),
        ("PS256", "2048", "RS256"),
        ("EdDSA", "Ed25519", "ES256"),
        ("Ed25519", "Ed25519", "ES256"),
    ):
        token = sign(provider.claims(sub="s1"), key(kind), algorithm)
        keys = public(key(kind))
        app = endpoint(plain, keys=keys, algorithms=[another])
        assert await refused(app, token) == "another algorithm"
        assert (await log_out(endpoint(plain, keys=keys), token)).status_code == 200
        if kind == "2048":  # a key may be for one of its algorithms alone
            keys["keys"][0]["alg"] = another
            assert await refused(endpoint(plain, keys=keys), token) == "signed with an unknown key"


def forgeries(provider: Provider) -> dict[str, str]:
    """Tokens that the provider has not signed, by why they do not count."""
    claims = provider.claims(sub="s1")
    good = sign(claims)
    head, payload, signature = good.split(".")
    # What everybody knows, taken for a secret.
    k = urlsafe_b64encode(json.dumps(public(key())).encode()).decode().rstrip("=")
    published = OctKey.import_key({"kty": "oct", "k": k})
    none = _b64({"alg": "none", "typ": "logout+jwt"})
    return {
        "no signed JWT: none": f"{none}.{payload}.",
        "another algorithm: none": f"{none}.{payload}.{signature}",
        "another algorithm: None": f"{_b64({'alg': 'None'})}.{payload}.{signature}",
        "another algorithm: HMAC": sign(claims, published, "HS256", kid="one"),
        "another algorithm: ES384": sign(claims, key("P-384"), "ES384"),
        "a JWT that cannot be read: crit": sign(claims, crit=["exp"], exp=1),
        "a JWT that cannot be read: no object": f"{_b64(['alg'])}.{payload}.{signature}",
        "a JWT that cannot be read: no JSON": f"e30x.{payload}.{signature}",
        "a JWT that cannot be read: a list": sign([]),
        "a JWT that cannot be read: text": sign("no JSON"),
        "a JWT that cannot be read: deep": sign("[" * 40_000),
        "another type of token: of access": sign(claims, typ="at+jwt"),
        "another type of token: an event": sign(claims, typ="secevent+jwt"),
        "another type of token: a number": sign(claims, typ=7),
        "a kid that is no text": sign(claims, kid=7),
        "an invalid signature: another key": sign(claims, key("P-256", "another"), kid="one"),
        "an invalid signature: cut": good[:-4],
        "an invalid signature: changed": f"{head}.{payload[:-4]}AAAA.{signature}",
        "signed with an unknown key": sign(claims, key("P-256", "another")),
        "no signed JWT: encrypted": f"{good}.a.b",
        "no signed JWT: detached": f"{head}..{signature}",
        "no signed JWT: padded": f"{good}=",
        "no signed JWT: empty": "",
        "no signed JWT: too long": f"{head}.{'x' * 66_000}.{signature}",
    }


def _b64(content: object) -> str:
    return urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


async def test_what_the_provider_has_not_signed_ends_nothing(
    plain: Sessions, provider: Provider
) -> None:
    mine = await plain.insert(SCOPE, person(1))
    app = endpoint(plain)
    for why, token in forgeries(provider).items():
        assert await refused(app, token) == why.partition(":")[0], why
    assert await live(plain, 1) == [mine.sid]


async def test_a_signature_of_any_length_is_just_a_bad_one(
    plain: Sessions, provider: Provider
) -> None:
    for algorithm, kind in (("ES256", "P-256"), ("PS256", "2048"), ("EdDSA", "Ed25519")):
        app = endpoint(plain, keys=public(key(kind)))
        head = sign(provider.claims(sub="s1"), key(kind), algorithm).rpartition(".")[0]
        for size in (1, 2, 3, 86, 87, 342, 343, 1024, 1366):
            assert await refused(app, f"{head}.{'A' * size}") == "an invalid signature"
        assert await refused(app, f"{head}.{'A' * 2048}") == "a JWT that cannot be read"


async def test_without_a_kid_the_only_key_that_fits_counts(
    plain: Sessions, provider: Provider
) -> None:
    token = sign(provider.claims(sub="s1"), kid=None)
    assert (await log_out(endpoint(plain, keys=public(key(), key("2048"))), token)).is_success
    token = sign(provider.claims(sub="s1"), kid=None)
    app = endpoint(plain, keys=public(key(), key("P-256", "two")))
    assert await refused(app, token) == "signed with an unknown key"


# --- the request and the answer (2.5, 2.8) --------------------------------------------------------


async def test_the_request_is_a_form_with_one_token(plain: Sessions, provider: Provider) -> None:
    mine = await plain.insert(SCOPE, person(1))
    app, token = endpoint(plain), provider.logout_token(sub="s1")
    form = "application/x-www-form-urlencoded"
    twice = urlencode([("logout_token", token), ("logout_token", token)])
    for content, kind, reason in (
        (urlencode({"token": token}), form, "a form without one logout_token"),
        (twice, form, "a form without one logout_token"),
        ("", form, "a form without one logout_token"),
        ("logout_token", form, "a form that cannot be read"),
        ("a=1&" * 50 + urlencode({"logout_token": token}), form, "a form that cannot be read"),
        (b"logout_token=\xff", form, "a form that cannot be read"),
        (urlencode({"logout_token": "x" * 90_000}), form, "too long"),
        (urlencode({"logout_token": token}), "text/plain", f"no {form}"),
        (json.dumps({"logout_token": token}), "application/json", f"no {form}"),
    ):
        answer = await post(app, content, **{"content-type": kind})
        assert (answer.status_code, answer.json()["error_description"]) == (400, reason)
    assert await live(plain, 1) == [mine.sid]
    typed = {"content-type": "Application/X-WWW-Form-Urlencoded; charset=utf-8"}
    assert (await post(app, urlencode({"logout_token": token}), **typed)).status_code == 200

    async with Browser(app) as browser:
        answer = await browser.get("/")
        assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
        assert answer.headers["cache-control"] == "no-store"


async def test_who_goes_away_has_said_nothing(plain: Sessions) -> None:
    sent: list[Any] = []
    incoming = [{"type": "http.request", "body": b"logout", "more_body": True}]

    async def receive() -> Any:
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST"}
    scope["headers"] = [(b"content-type", b"application/x-www-form-urlencoded")]  # type: ignore[assignment]
    await endpoint(plain)(scope, receive, send)
    assert sent[0]["status"] == 400


async def test_an_outage_is_no_answer(plain: Sessions, provider: Provider) -> None:
    """The provider is to come again: the same token counts then."""
    app, token = endpoint(plain), provider.logout_token(sid="phone")
    await plain.insert(SCOPE, person(1, "phone"))
    engines, table = plain._core.store.engines, plain.table.name

    async def rename(old: str, new: str) -> None:
        async def work(connection: Any) -> None:
            await connection.driver.fetch(connection.raw, f"ALTER TABLE {old} RENAME TO {new}", ())

        await engines.write(work)

    await rename(table, "away")
    answer = await log_out(app, token)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    await rename("away", table)
    assert (await log_out(app, token)).status_code == 200
    assert await live(plain, 1) == []


async def test_refusals_are_told_and_say_nothing_of_what_came(
    make_sessions: MakeSessions, provider: Provider, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []
    app = endpoint(await make_sessions(on_event=told.append))
    for sub in ("s1", "s2"):
        await log_out(app, provider.logout_token(sub=sub, aud="another"))
    await log_out(app, "junk")
    assert told == [
        Incident("signal_refused", 1, client="127.0.0.1", reason="for somebody else"),
        Incident("signal_refused", 1, client="127.0.0.1", reason="no signed JWT"),
    ]
    records = [one for one in caplog.records if one.name == "asgi_sessions.security"]
    assert [one.getMessage() for one in records] == [
        f"1 signals of a provider refused ({why}); the latest from 127.0.0.1"
        for why in ("for somebody else", "no signed JWT")
    ]


# --- the arguments --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"issuer": ""}, "'' is no iss"),
        ({"issuer": None, "client_id": b"shop"}, "None is no iss.*b'shop' is no aud"),
        ({"algorithms": ["HS256"]}, "algorithms=.*RS256, ES256, EdDSA, PS256"),
        ({"algorithms": ["none"]}, "algorithms="),
        ({"algorithms": []}, "algorithms="),
        ({"algorithms": "RS256"}, "algorithms="),
    ],
)
def test_arguments_that_cannot_be_are_refused(
    plain: Sessions, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        endpoint(plain, **options)


async def test_logouts_at_once_are_all_answered(plain: Sessions, provider: Provider) -> None:
    app = endpoint(plain)
    for number in range(4):
        await plain.insert(SCOPE, person(number, f"p{number}"))
    tokens = [provider.logout_token(sid=f"p{number % 4}") for number in range(12)]
    answers = await asyncio.gather(*(log_out(app, token) for token in tokens))
    assert {answer.status_code for answer in answers} == {200}
    assert await live(plain, *range(4)) == []
