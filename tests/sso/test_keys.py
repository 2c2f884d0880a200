"""Where the keys of a provider come from, and what becomes of them while it does not answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from asgi_sessions import ConfigurationError, Sessions
from asgi_sessions.oidc import BackChannelLogout
from tests.support import Clock
from tests.support.sso import CLIENT, ISSUER, Provider, key, log_out, public, sign

SECOND = timedelta(seconds=1)


@pytest.fixture
def provider(clock: Clock) -> Provider:
    return Provider(clock)


def endpoint(sessions: Sessions, keys: Any) -> BackChannelLogout:
    return BackChannelLogout(sessions, issuer=ISSUER, client_id=CLIENT, keys=keys)


class KeysServer:
    """The provider's own server, on a port of this machine.

    Attributes:
        asked: how often it was.
        answer: what it sends, after the head; None to hang up.
        head: of its answers.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.answer: bytes | None = b""
        self.head = b"HTTP/1.1 200 OK\r\n"
        self.headers: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.headers = (await reader.readuntil(b"\r\n\r\n")).lower().splitlines()
        self.asked += 1
        if self.answer is not None:
            writer.write(self.head + b"connection: close\r\n\r\n" + self.answer)
            await writer.drain()
        writer.close()

    def publish(self, *of: Any) -> None:
        self.answer = json.dumps(public(*of)).encode()


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[KeysServer, str]]:
    keys = KeysServer()
    server = await asyncio.start_server(keys.serve, "127.0.0.1", 0)
    async with server:
        yield keys, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/keys"


async def test_keys_are_fetched_kept_and_looked_for_again(
    plain: Sessions, provider: Provider, clock: Clock
) -> None:
    async def answer(kid: str = "one") -> int:
        token = sign(provider.claims(sid="unknown"), key("P-256", kid))
        return (await log_out(app, token)).status_code

    async with serving() as (server, url):
        app = endpoint(plain, url)
        server.publish(key())
        # at once, once
        assert await asyncio.gather(*(answer() for _ in range(5))) == [200] * 5
        assert server.asked == 1
        assert b"accept-encoding: identity" in server.headers
        # a name that nobody knows: asked for, three times in half a minute
        assert [await answer("two") for _ in range(3)] == [400, 400, 503]
        assert server.asked == 3
        clock.turn(29 * SECOND)
        assert await answer("two") == 503
        # the provider has changed its key: at once
        server.publish(key(), key("P-256", "two"))
        clock.turn(SECOND)
        assert [await answer("two"), await answer()] == [200, 200]
        assert server.asked == 4
        # and has dropped the old one: after an hour
        server.publish(key("P-256", "two"))
        clock.turn(timedelta(minutes=59))
        assert await answer() == 200
        clock.turn(timedelta(minutes=1))
        assert await answer() == 400
        assert server.asked == 5
    # it is down: what is known goes on, and what is not is asked for later
    for _ in range(3):
        clock.turn(timedelta(days=1))
        assert await answer("two") == 200
    assert await answer("three") == 503


async def test_an_answer_that_is_no_jwk_set_changes_nothing(
    plain: Sessions, provider: Provider, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as (server, url):
        app = endpoint(plain, url)
        good = json.dumps(public(key())).encode()
        for head, content, said in (
            (b"200 OK\r\n", None, "RemoteProtocolError"),
            (b"404 Not Found\r\n", good, "not 200"),
            (b"302 Found\r\nlocation: /elsewhere\r\n", good, "not 200"),
            (b"200 OK\r\n", b"<html>", "JSONDecodeError"),
            (b"200 OK\r\n", b"[]", "no JWK set"),
            (b"200 OK\r\n", b'{"keys": {}}', "no JWK set"),
            (b"200 OK\r\n", b'{"keys": []}', "no key in it"),
            (b"200 OK\r\n", good + b" " * 300_000, "too large"),
        ):
            server.head, server.answer = b"HTTP/1.1 " + head, content
            clock.turn(timedelta(minutes=1))
            response = await log_out(app, provider.logout_token(sid="unknown"))
            assert (response.status_code, response.headers["retry-after"]) == (503, "10")
            assert said in caplog.records[-1].getMessage()
        assert server.asked == 8
        server.answer = good
        clock.turn(timedelta(minutes=1))
        token = provider.logout_token(sid="unknown")
        assert (await log_out(app, token)).status_code == 200


async def test_a_function_of_the_app_may_give_them(
    plain: Sessions, provider: Provider, clock: Clock
) -> None:
    given: list[Any] = [OSError("no answer"), public(key())]

    async def keys() -> Any:
        if isinstance(given[0], Exception):
            raise given.pop(0)
        return given[0]

    app = endpoint(plain, keys)
    assert (await log_out(app, provider.logout_token(sid="x"))).status_code == 503
    clock.turn(10 * SECOND)
    assert (await log_out(app, provider.logout_token(sid="x"))).status_code == 200


async def test_who_goes_away_leaves_the_keys_to_the_others(
    plain: Sessions, provider: Provider
) -> None:
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def keys() -> Any:
        asked.set()
        await go_on.wait()
        return public(key())

    app = endpoint(plain, keys)
    first = asyncio.create_task(log_out(app, provider.logout_token(sid="x")))
    await asked.wait()
    second = asyncio.create_task(log_out(app, provider.logout_token(sid="x")))
    await asyncio.sleep(0)
    first.cancel()
    go_on.set()
    assert (await second).status_code == 200
    with pytest.raises(asyncio.CancelledError):
        await first


def test_keys_that_cannot_be_had_are_refused(plain: Sessions) -> None:
    for url in (
        "http://id.example/keys",
        "http://127.0.0.1.example/keys",
        "ftp://id.example/keys",
        "https:///keys",
        "https://user@id.example/keys",
        "https://id.example:x/keys",
        "https://[::/keys",
        "https://id.example/a b",
        "/keys",
        "",
    ):
        with pytest.raises(ConfigurationError, match="use the https URL of a JWK set"):
            endpoint(plain, url)
    for url in (
        "https://id.example/keys",
        "http://localhost:8080/keys",
        "http://id.localhost/keys",
        "http://[::1]/keys",
    ):
        endpoint(plain, url)


def test_a_set_without_a_key_that_verifies_is_refused(plain: Sessions) -> None:
    """Secret keys, weak ones, those for another use, and what is none."""
    (good,) = public(key())["keys"]
    (strong,) = public(key("2048"))["keys"]
    weak = {**strong, "n": "_" * 170}  # 1020 bits
    for jwk in (
        {"kty": "oct", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"},
        weak,
        {**strong, "e": "AQAAAAAAAAAB"},
        {**strong, "n": "no number!"},
        {**good, "use": "enc"},
        {**good, "key_ops": ["sign"]},
        {**good, "key_ops": "verify"},
        {**good, "alg": "ES384"},
        {**good, "crv": "P-384"},
        {**good, "crv": ["P-256"]},
        {**good, "x": 7},
        {**good, "x": "AAAA"},
        {"kty": "ML-DSA"},
        "P-256",
    ):
        for keys in ({"keys": [jwk]}, {"keys": jwk}, jwk if isinstance(jwk, dict) else {}):
            with pytest.raises(ConfigurationError, match="has no public key that verifies"):
                endpoint(plain, keys)
    endpoint(plain, {"keys": ["P-256", weak, good]})


async def test_nobody_is_verified_with_a_key_that_has_a_name_of_no_text(
    plain: Sessions, provider: Provider
) -> None:
    (jwk,) = public(key())["keys"]
    app = endpoint(plain, {"keys": [{**jwk, "kid": 1}]})
    assert (await log_out(app, provider.logout_token(sid="x"))).status_code == 400
    token = sign(provider.claims(sid="x"), kid=None)
    assert (await log_out(app, token)).status_code == 200
