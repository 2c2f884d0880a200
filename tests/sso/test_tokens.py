"""Short tokens of a session, for services that cannot ask the database."""

from __future__ import annotations

import json
import subprocess
import traceback
from base64 import urlsafe_b64encode
from datetime import timedelta
from hashlib import sha256
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
)
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import update
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import ConfigurationError, Lifetimes, Person, Sessions
from asgi_sessions.dbsc import DBSC
from asgi_sessions.jwt import TokenIssuer
from asgi_sessions.testing import logged_in_cookie
from tests.conftest import MakeSessions
from tests.support import Browser, Clock, cookie_of, entered, make_app
from tests.support.asgi import Peer, behind, echo, websocket
from tests.support.devices import BOUND, DeviceBrowser
from tests.support.sso import AnyAlgorithm, key

MINUTE = timedelta(minutes=1)
ISSUER, SERVICE = "https://app.example.com", "https://billing.example.com"
PEMS = {kind: key(kind).as_pem(private=True) for kind in ("P-256", "Ed25519")}


def issuer(sessions: Sessions, of: Any = PEMS["P-256"], **options: Any) -> TokenIssuer:
    return TokenIssuer(sessions, issuer=ISSUER, key=of, **options)


def thumbprint(one: dict[str, str]) -> str:
    """RFC 7638: the members that make up the key, in order."""
    members = {name: one[name] for name in ("crv", "kty", "x", "y") if name in one}
    spelled = json.dumps(members, separators=(",", ":"))
    return urlsafe_b64encode(sha256(spelled.encode()).digest()).decode().rstrip("=")


async def published(tokens: TokenIssuer) -> Any:
    async with Browser(tokens.keys) as browser:
        answer = await browser.get("/.well-known/jwks.json")
    assert answer.headers["content-type"] == "application/jwk-set+json"
    return answer.json()


async def read(tokens: TokenIssuer, token: str | None, algorithm: str = "ES256") -> dict[str, Any]:
    """What a service finds that knows the published keys alone."""
    assert token is not None
    keys = KeySet.import_key_set(await published(tokens))
    found = jwt.decode(token, keys, registry=AnyAlgorithm(algorithms=[algorithm]))
    assert found.header == {"typ": "JWT", "alg": algorithm, "kid": found.header["kid"]}
    return dict(found.claims)


async def test_a_token_says_whose_session_it_is(plain: Sessions, clock: Clock) -> None:
    tokens = issuer(plain)
    proved = clock.now - MINUTE
    person = Person("ada", authenticated_at=proved, acr="aal2", amr=("pwd", "otp"))
    scope, sid = await entered(plain, person)
    now = int(clock.now.timestamp())
    claims = await read(tokens, tokens.token(scope, audience=SERVICE))
    ids = {claims.pop("jti")}
    assert claims == {
        "iss": ISSUER,
        "sub": "ada",
        "sid": sid,
        "aud": SERVICE,
        "iat": now,
        "exp": now + 300,
        "auth_time": int(proved.timestamp()),
        "acr": "aal2",
        "amr": ["pwd", "otp"],
    }
    several = tokens.token(scope, audience=[SERVICE, "stock"], lifetime=15 * MINUTE)
    claims = await read(tokens, several)
    assert (claims["aud"], claims["exp"]) == ([SERVICE, "stock"], now + 900)
    assert claims["jti"] not in ids

    vouched_for, _ = await entered(plain, {"id": "bob"})
    assert tokens.token((await entered(plain))[0], audience=SERVICE) is None
    assert not {"acr", "amr"} & {*await read(tokens, tokens.token(vouched_for, audience=SERVICE))}


async def test_a_token_says_who_acts_for_the_person(plain: Sessions) -> None:
    """As RFC 8693 has it, so that no service takes staff for the person."""
    cookie = await logged_in_cookie(plain, "ada")
    await plain.database.execute(update(plain.table).values(actor_id="eve", actor_reason="help"))
    tokens = issuer(plain)

    async def token(request: Request) -> Response:
        return JSONResponse(tokens.token(request, audience=SERVICE))

    browser = Browser(make_app(plain, Route("/token", token)))
    browser.cookies.update(cookie)
    claims = await read(tokens, (await browser.get("/token")).json())
    assert (claims["sub"], claims["act"]) == ("ada", {"sub": "eve"})


async def test_it_ends_with_its_session_at_the_latest(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    hour = Lifetimes(absolute=timedelta(hours=1), idle=timedelta(hours=1))
    sessions = await make_sessions(lifetimes=hour)
    tokens = issuer(sessions)
    scope, _ = await entered(sessions, "ada")
    started = int(clock.now.timestamp())
    clock.turn(58 * MINUTE)
    claims = await read(tokens, tokens.token(scope, audience=SERVICE))
    assert claims["exp"] == started + 3600
    clock.turn(2 * MINUTE)
    assert tokens.token(scope, audience=SERVICE) is None


async def test_none_is_issued_for_a_session_that_idles(plain: Sessions, clock: Clock) -> None:
    """One whose WebSocket hears something does not."""
    tokens, idle = issuer(plain), timedelta(days=14)
    scope, _ = await entered(plain, "ada")
    clock.turn(idle)
    assert tokens.token(scope, audience=SERVICE) is None

    ((name, value),) = (await logged_in_cookie(plain, "ada")).items()
    scope = websocket(cookie=f"{name}={value}")
    async with Peer(behind(plain, echo), scope) as peer:
        for _ in range(2):
            await peer.gets()
        for _ in range(2):
            clock.turn(idle - MINUTE)
            peer.says({"type": "websocket.receive", "text": "still here"})
            await peer.gets()
            assert tokens.token(scope, audience=SERVICE) is not None
        peer.says({"type": "websocket.disconnect", "code": 1000})


async def test_a_superseded_secret_claims_nothing(plain: Sessions) -> None:
    tokens = issuer(plain)

    async def token(request: Request) -> Response:
        return JSONResponse(tokens.token(request, audience=SERVICE))

    app = make_app(plain, Route("/token", token))
    browser, other = Browser(app), Browser(app)
    await browser.login("ada")
    other.cookies.set(plain.cookie_name, cookie_of(browser, plain))
    await browser.post("/renew")
    claims = [await read(tokens, (await one.get("/token")).json()) for one in (browser, other)]
    assert claims[0]["sid"] == claims[1]["sid"]
    assert ["auth_time" in one for one in claims] == [True, False]


async def test_no_token_is_issued_for_a_device_that_has_not_proved_itself(
    make_sessions: MakeSessions,
) -> None:
    """Though the request is let in, because its browser may skip the proof, or was under way."""
    sessions = await make_sessions(dbsc=DBSC(on_skipped={"server_error"}))
    tokens = issuer(sessions)

    async def token(request: Request) -> Response:
        return JSONResponse([request.state.sid, tokens.token(request, audience=SERVICE)])

    browser = DeviceBrowser(make_app(sessions, Route("/token", token)))
    sid = await browser.bound("ada")
    seen, mine = (await browser.get("/token")).json()
    assert seen == (await read(tokens, mine))["sid"] == sid
    browser.forget()
    browser.cookies.set(BOUND, "none")
    under_way, skipped = (
        {"sec-fetch-site": "same-origin"},
        {"secure-session-skipped": "server_error"},
    )
    for headers in (under_way, skipped):
        assert (await browser.get("/token", headers=headers)).json() == [sid, None]


@pytest.mark.parametrize(("kind", "algorithm"), [("P-256", "ES256"), ("Ed25519", "EdDSA")])
async def test_keys_rotate(plain: Sessions, kind: str, algorithm: str) -> None:
    scope, _ = await entered(plain, "ada")
    old, new = key(kind, "old"), key(kind, "new")
    before = issuer(plain, old.as_pem(private=True))
    token = before.token(scope, audience=SERVICE)
    # the old one as it was, or its public part alone
    for kept in (old.as_pem(private=True), old.as_pem(private=False), old.as_dict(private=False)):
        after = issuer(plain, new.as_dict(private=True), old_keys=[kept, kept])
        assert (await read(after, token, algorithm))["sub"] == "ada"
        await read(after, after.token(scope, audience=SERVICE), algorithm)
        keys = (await published(after))["keys"]
        assert [one["kid"] for one in keys] == [thumbprint(one) for one in keys]
        assert [one["x"] for one in keys] == [one.as_dict()["x"] for one in (new, old)]
        assert {*keys[0]} <= {"kty", "crv", "x", "y", "kid", "use", "alg"}
        assert (keys[0]["use"], keys[0]["alg"]) == ("sig", algorithm)
    with pytest.raises(JoseError, match="No key for kid"):
        await read(issuer(plain, new.as_pem(private=True)), token, algorithm)


async def test_the_keys_are_there_to_be_read(plain: Sessions) -> None:
    async with Browser(issuer(plain).keys) as browser:
        assert (await browser.get("/")).headers["cache-control"] == "public, max-age=300"
        assert (await browser.head("/")).status_code == 200
        answer = await browser.post("/")
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


def test_what_openssl_makes_is_a_key(plain: Sessions) -> None:
    for algorithm in (["-algorithm", "ed25519"], ["-algorithm", "EC", "-pkeyopt", _P256]):
        made = subprocess.run(["openssl", "genpkey", *algorithm], capture_output=True, check=True)
        issuer(plain, made.stdout)
        issuer(plain, made.stdout.decode())


_P256 = "ec_paramgen_curve:P-256"


def shown_of_ours(error: BaseException) -> str:
    """What a tool shows that prints the variables of each frame, and has got one of ours."""
    assert error.__context__ is None
    stack = traceback.walk_tb(error.__traceback__)
    frames = [frame.f_locals for frame, _ in stack if "asgi_sessions" in frame.f_code.co_filename]
    assert frames
    return repr(frames) + str(error)


def test_a_key_that_cannot_sign_is_refused_and_not_shown(plain: Sessions) -> None:
    private = json.loads(json.dumps(key().as_dict(private=True)))
    locked = key().private_key.private_bytes(  # type: ignore[union-attr]
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")
    )
    for wrong in (
        key().as_pem(private=False),
        key("P-384").as_pem(private=True),
        key("2048").as_pem(private=True),
        {"kty": "oct", "k": private["d"]},
        {**private, "d": "no number"},
        {**private, "x": "AAAA"},
        {**private, "use": "enc"},
        {**private, "alg": "ES384"},
        {**private, "key_ops": ["verify"]},
        # What it signs, nobody could verify.
        {**key("Ed25519").as_dict(private=True), "x": key("Ed25519", "two").as_dict()["x"]},
        private["d"],
        locked,
        b"",
        None,
        7,
    ):
        with pytest.raises(
            ConfigurationError, match=r"key=\.\.\.\) is not a private key"
        ) as caught:
            issuer(plain, wrong)
        assert private["d"] not in shown_of_ours(caught.value)
    with pytest.raises(
        ConfigurationError, match=r"one of TokenIssuer\(old_keys=\.\.\.\)"
    ) as caught:
        issuer(plain, private, old_keys=[private, b"junk"])
    assert private["d"] not in shown_of_ours(caught.value)
    for old in (PEMS["P-256"], private):
        with pytest.raises(ConfigurationError, match="use a list of keys") as caught:
            issuer(plain, private, old_keys=old)
        assert private["d"] not in shown_of_ours(caught.value)
    assert private["d"] not in repr(vars(issuer(plain, private)))
    for name in ("", None):
        with pytest.raises(ConfigurationError, match="use a URL"):
            TokenIssuer(plain, issuer=name, key=PEMS["P-256"])  # type: ignore[arg-type]


async def test_arguments_that_cannot_be_are_refused(plain: Sessions) -> None:
    tokens = issuer(plain)
    scope, _ = await entered(plain, "ada")
    lifetimes: tuple[Any, ...] = (15 * MINUTE + timedelta(microseconds=1), 0 * MINUTE, 300, None)
    for lifetime in lifetimes:
        with pytest.raises(ConfigurationError, match="up to 15 minutes"):
            tokens.token(scope, audience=SERVICE, lifetime=lifetime)
    audiences: tuple[Any, ...] = ("", [], [SERVICE, ""], [7])
    for audience in audiences:
        with pytest.raises(ConfigurationError, match="name a service"):
            tokens.token(scope, audience=audience)
    with pytest.raises(ConfigurationError, match="did not pass through"):
        tokens.token({"type": "http"}, audience=SERVICE)
