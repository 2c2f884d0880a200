"""Devices for tests without a browser: a key, and how a browser uses it."""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import httpx
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from starlette.types import ASGIApp

from tests.support import Browser

PATH = "/.session/dbsc"
BOUND = "__Host-sid-bound"
#: What a browser sends along when it asks by itself.
BY_ITSELF = {"sec-fetch-site": "same-origin", "origin": "https://test"}


def b64(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def number(value: int, size: int) -> str:
    return b64(value.to_bytes(size, "big"))


class Device:
    """A key that signs proofs, right ones and others."""

    def __init__(self, algorithm: str = "ES256", *, bits: int = 2048, curve: str = "P-256") -> None:
        self.algorithm = algorithm
        self._bits = bits
        curves = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1}
        self._ec = ec.generate_private_key(curves[curve]())
        self._curve = curve

    @cached_property
    def _rsa(self) -> rsa.RSAPrivateKey | None:
        """Made when it is asked for: a large one takes a second, and few processes need it."""
        if self.algorithm != "RS256":
            return None
        return rsa.generate_private_key(65537, self._bits)

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key."""
        if self._rsa is not None:
            numbers = self._rsa.public_key().public_numbers()
            size = (numbers.n.bit_length() + 7) // 8
            return {"kty": "RSA", "n": number(numbers.n, size), "e": number(numbers.e, 3)}
        point = self._ec.public_key().public_numbers()
        size = (self._ec.key_size + 7) // 8
        return {
            "kty": "EC",
            "crv": self._curve,
            "x": number(point.x, size),
            "y": number(point.y, size),
        }

    def sign(self, data: bytes) -> bytes:
        if self._rsa is not None:
            return self._rsa.sign(data, padding.PKCS1v15(), hashes.SHA256())
        r, s = decode_dss_signature(self._ec.sign(data, ec.ECDSA(hashes.SHA256())))
        size = (self._ec.key_size + 7) // 8
        return r.to_bytes(size, "big") + s.to_bytes(size, "big")

    def jwt(self, header: object, payload: object) -> str:
        """A token of whatever."""
        said = ".".join(
            b64(part if isinstance(part, bytes) else json.dumps(part).encode())
            for part in (header, payload)
        )
        return f"{said}.{b64(self.sign(said.encode()))}"

    def proof(self, challenge: str, *, register: bool = False, **header: object) -> str:
        """As a browser has it; with other words in the header, if given."""
        words: dict[str, object] = {"alg": self.algorithm, "typ": "dbsc+jwt"}
        if register:
            words["jwk"] = self.jwk
        return self.jwt(words | header, {"jti": challenge})


class DeviceBrowser(Browser):
    """A browser that binds its session, when it is told to."""

    def __init__(self, app: ASGIApp, *, device: Device | None = None, **options: Any) -> None:
        super().__init__(app, **options)
        self.device = device or Device()
        self.offer: str | None = None
        self.challenge: str | None = None
        self.sid = ""
        #: What it calls the session, once that is bound.
        self.identifier = ""

    async def log_in(self, person: str = "ann") -> None:
        """Log in; the offer to bind is kept."""
        response = await self.post(f"/login?person={person}")
        self.sid = response.json()["sid"]
        self.offer = offered(response)

    async def register(
        self, proof: str | None = None, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """Answer the offer."""
        if proof is None:
            assert self.offer is not None
            proof = self.device.proof(self.offer, register=True)
        given = {**BY_ITSELF, "secure-session-response": proof, **(headers or {})}
        response = self._noted(await self.post(f"{PATH}/register", headers=given))
        if response.status_code == 200:
            self.identifier = response.json()["session_identifier"]
        return response

    async def bound(self, person: str = "ann") -> str:
        """Log in, bind, and come with the bound cookie for the first time; the sid."""
        await self.log_in(person)
        response = await self.register()
        assert response.status_code == 200, response.text
        assert (await self.see())["sid"] == self.sid
        return self.sid

    async def ask(self, proof: str | None = None, **headers: str) -> httpx.Response:
        """One request for a refresh, with a proof or without."""
        given = {**BY_ITSELF, "sec-secure-session-id": self.identifier}
        if proof is not None:
            given["secure-session-response"] = proof
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self._noted(await self.post(f"{PATH}/refresh", headers=given))

    async def refresh(self) -> httpx.Response:
        """As Chromium does: with the challenge it has, and with the one that it gets instead."""
        response = await self.ask(self.challenge and self.device.proof(self.challenge))
        if response.status_code == 403 and self.challenge:
            response = await self.ask(self.device.proof(self.challenge))
        return response

    def forget(self, name: str = BOUND) -> str:
        """Drop a cookie; what it was."""
        value: str = self.cookies[name]
        self.cookies.delete(name, domain="test.local" if name not in self.cookies else None)
        return value

    def _noted(self, response: httpx.Response) -> httpx.Response:
        if (challenge := challenged(response)) is not None:
            self.challenge = challenge
        return response


def offered(response: httpx.Response) -> str | None:
    """The challenge with which a response offers to bind the session."""
    header = response.headers.get("secure-session-registration")
    if header is None:
        return None
    match = re.fullmatch(r'\(ES256 RS256\);path="([^"]+)";challenge="([^"]+)"', header)
    assert match is not None, header
    assert match[1].endswith(f"{PATH}/register")
    return match[2]


def challenged(response: httpx.Response) -> str | None:
    """The challenge that a response brings."""
    header = response.headers.get("secure-session-challenge")
    if header is None:
        return None
    match = re.fullmatch(r'"([^"]+)";id="[0-9a-f-]{36}\.[\w-]{43}"', header)
    assert match is not None, header
    return match[1]
