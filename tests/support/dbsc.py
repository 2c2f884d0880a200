"""An app whose sessions may be bound to devices, and proofs as no browser makes them."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from joserfc.jwk import OctKey
from joserfc.jws import serialize_compact

from asgi_sessions import Incident, SessionEvent, SessionMiddleware, Sessions
from asgi_sessions._dbsc.record import DeviceRecord
from tests.support import Clock, make_app
from tests.support.devices import PATH, Device, DeviceBrowser, b64
from tests.support.inside import driver_of, store_of

SECOND = timedelta(seconds=1)

#: How long a challenge may be answered.
LIFETIME = timedelta(minutes=5)

LIFE = timedelta(minutes=10)

SID = "__Host-sid"

#: Proofs whose challenges are remembered, so that none of them is good twice.
REMEMBERED = 4
RSA = Device("RS256")


@dataclass
class World:
    """An app whose sessions may be bound, and what was told of them."""

    sessions: Sessions
    clock: Clock
    caplog: pytest.LogCaptureFixture
    told: list[SessionEvent | Incident] = field(default_factory=list)

    def browser(self, **options: Any) -> DeviceBrowser:
        return DeviceBrowser(make_app(self.sessions), **options)

    def reasons(self) -> list[str]:
        """Why devices were refused so far, as the log has it."""
        return [
            vars(record)["reason"]
            for record in self.caplog.records
            if vars(record).get("event") == "device_refused"
        ]

    async def record(self, sid: str) -> DeviceRecord:
        """What the server keeps of a binding, which nobody outside reads."""
        row = await store_of(self.sessions).by_sid(sid)
        assert row is not None
        assert row.binding is not None
        return DeviceRecord.read(row.binding)

    async def is_bound(self, sid: str) -> bool:
        session = await self.sessions.get_by_id(sid)
        assert session is not None
        return session.bound


MakeWorld = Callable[..., Awaitable[World]]


def without(*parts: int) -> Callable[[str], str]:
    return lambda jwt: ".".join("" if i in parts else p for i, p in enumerate(jwt.split(".")))


def hs256(device: Device, challenge: str) -> str:
    """Signed with the public key as if it were a secret: what careless verifiers take."""
    header = {"alg": "HS256", "typ": "dbsc+jwt", "jwk": device.jwk}
    key = OctKey.import_key(json.dumps(device.jwk))
    return serialize_compact(
        header, json.dumps({"jti": challenge}), key, algorithms=["HS256"], registry=None
    )


def unsigned(device: Device, challenge: str) -> str:
    header = {"alg": "none", "typ": "dbsc+jwt", "jwk": device.jwk}
    return f"{b64(json.dumps(header).encode())}.{b64(json.dumps({'jti': challenge}).encode())}.AA"


def zeros(jwt: str) -> str:
    return f"{jwt.rpartition('.')[0]}.{b64(bytes(64))}"


def changed(challenge: str) -> str:
    """With another time."""
    return ("B" if challenge[3] == "A" else "A").join((challenge[:3], challenge[4:]))


def statements(world: World) -> list[str]:
    """What the database is asked from now on."""
    driver: Any = driver_of(world.sessions)
    asked: list[str] = []

    def counting(do: Callable[..., Any]) -> Callable[..., Any]:
        async def counted(raw: object, sql: str, params: Sequence[Any]) -> Any:
            asked.append(sql)
            return await do(raw, sql, params)

        return counted

    driver.fetch, driver.execute = counting(driver.fetch), counting(driver.execute)
    return asked


async def asked(world: World, route: str, given: list[tuple[bytes, bytes]]) -> int:
    """The status of a raw request: httpx would refuse what a stranger may send."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("the app is not asked")

    scope = {
        "type": "http",
        "method": "POST",
        "path": f"{PATH}/{route}",
        "headers": given,
        "client": ("192.0.2.1", 1),
    }
    await SessionMiddleware(app, sessions=world.sessions)(scope, receive, send)
    status: int = sent[0]["status"]
    return status
