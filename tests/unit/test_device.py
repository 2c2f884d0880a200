"""The device as the server sees it: never a reason to refuse a login.

What reads it is private and pure.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import Sessions
from asgi_sessions._model.device import (
    Device,
    StoreIP,
    address_to_store,
    device_from_scope,
    headers_of,
)
from tests.conftest import MakeSessions
from tests.support import Browser, make_app

REPLACED = "\N{REPLACEMENT CHARACTER}"

#: The header as sent, and what is kept of it.
AGENTS: list[tuple[bytes | None, str | None]] = [
    (b"Mozilla/5.0 (X11; Linux x86_64)", "Mozilla/5.0 (X11; Linux x86_64)"),
    (None, None),
    (b"", None),
    (b"   ", None),
    (b" Firefox ", "Firefox"),
    (b"x" * 499, "x" * 499),
    (b"x" * 500, "x" * 500),
    (b"x" * 501, "x" * 500),
    (b"x" * 60_000, "x" * 500),
    ("🦉".encode() * 501, "🦉" * 500),
    ("Фаерфокс".encode(), "Фаерфокс"),
    (b"caf\xe9", f"caf{REPLACED}"),  # Latin-1
    (b"\xff\xfe\xfd", REPLACED * 3),
    (b"a\x00b", f"a{REPLACED}b"),
    (b"a\x1b[31mb", f"a{REPLACED}[31mb"),
    (b"a\r\nb\tc", f"a{REPLACED}{REPLACED}b{REPLACED}c"),
    ("a\u202eb".encode(), f"a{REPLACED}b"),  # right-to-left override
    (b"a\xed\xa0\x80b", f"a{REPLACED * 3}b"),  # a surrogate
    (b"x" * 499 + b" y", "x" * 499),
    (b"'; DROP TABLE sessions; --", "'; DROP TABLE sessions; --"),
]

#: `scope["client"]`, and what is kept of it.
CLIENTS: list[tuple[Any, str | None]] = [
    (("192.0.2.1", 4711), "192.0.2.1"),
    (["192.0.2.1", 4711], "192.0.2.1"),
    (None, None),
    ((), None),
    (("", 0), None),  # a UNIX socket
    ((None, None), None),
    (("/run/app.sock", None), None),
    (("testclient", 50000), None),
    (("localhost", 50000), None),
    (("192.0.2.256", 4711), None),
    # What proxies write, and Hypercorn's ProxyFix hands on as it is.
    (("192.0.2.1:4711", 0), "192.0.2.1"),
    (("[2001:db8::1]:443", 0), "2001:db8::1"),
    (("[2001:DB8::1%25eth0]:443", 0), "2001:db8::1"),
    (("[::ffff:192.0.2.1]:443", 0), "192.0.2.1"),
    (("192.0.2.1:", 0), None),
    (("192.0.2.1:123456", 0), None),
    (("192.0.2.1:x", 0), None),
    (("192.0.2.256:80", 0), None),
    (("[192.0.2.1", 0), None),
    (("2001:db8::1]", 0), None),
    (("[[2001:db8::1]]", 0), None),
    (("[2001:db8::1]443", 0), None),
    (("[]:80", 0), None),
    (("[nonsense]:80", 0), None),
    (("192.0.2.1\n", 0), None),
    (("\u0661.0.2.1:80", 0), None),
    ((b"192.0.2.1", 4711), None),
    (("192.0.2.1\0", 4711), None),
    (("x" * 5000, 4711), None),
    (("2001:db8::1", 4711), "2001:db8::1"),
    (("2001:DB8:0:0:0:0:0:1", 4711), "2001:db8::1"),
    (("[2001:db8::1]", 4711), "2001:db8::1"),
    (("::1", 4711), "::1"),
    (("::ffff:192.0.2.1", 4711), "192.0.2.1"),
    (("::ffff:c000:201", 4711), "192.0.2.1"),
    (("fe80::1%eth0", 4711), "fe80::1"),
    (("fe80::1%25eth0", 4711), "fe80::1"),
    (("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", 1), "ffff:" * 7 + "ffff"),
]


class From:
    """Puts a device into the scope, whatever was there."""

    def __init__(
        self, app: ASGIApp, *, agent: bytes | None = b"Firefox", client: object = None
    ) -> None:
        self.app = app
        self.agent = agent
        self.client = client

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [header for header in scope["headers"] if header[0] != b"user-agent"]
        if self.agent is not None:
            headers.append((b"user-agent", self.agent))
        await self.app({**scope, "headers": headers, "client": self.client}, receive, send)


# --- as read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "kept"), AGENTS)
def test_of_a_user_agent_what_can_be_stored_is_kept(sent: bytes | None, kept: str | None) -> None:
    headers = [] if sent is None else [(b"user-agent", sent)]
    assert device_from_scope({"headers": headers}) == Device(kept, None)


@pytest.mark.parametrize(("client", "kept"), CLIENTS)
def test_of_an_address_its_one_spelling_is_kept(client: object, kept: str | None) -> None:
    assert device_from_scope({"headers": [], "client": client}) == Device(None, kept)


def test_a_scope_may_say_nothing_of_its_device() -> None:
    assert device_from_scope({}) == Device(None, None)


# --- as stored ------------------------------------------------------------------------------------

STORED: list[tuple[str | None, StoreIP, str | None]] = [
    ("192.0.2.77", "full", "192.0.2.77"),
    ("192.0.2.77", "truncated", "192.0.2.0"),
    ("192.0.2.77", "none", None),
    ("2001:db8:1:2:3:4:5:6", "full", "2001:db8:1:2:3:4:5:6"),
    ("2001:db8:1:2:3:4:5:6", "truncated", "2001:db8:1::"),
    ("2001:db8:1:2:3:4:5:6", "none", None),
    ("::ffff:192.0.2.77", "truncated", "192.0.2.0"),
    ("nonsense", "full", None),
    ("nonsense", "truncated", None),
    (None, "full", None),
    (None, "truncated", None),
]


@pytest.mark.parametrize(("address", "store_ip", "stored"), STORED)
def test_as_much_of_an_address_is_stored_as_allowed(
    address: str | None, store_ip: StoreIP, stored: str | None
) -> None:
    device = device_from_scope({"client": (address, 4711)})
    assert address_to_store(device.ip_address, store_ip) == stored


# --- through start_session ------------------------------------------------------------------------


@pytest.mark.parametrize(("sent", "kept"), AGENTS)
async def test_no_user_agent_breaks_a_login(
    sessions: Sessions, sent: bytes | None, kept: str | None
) -> None:
    browser = Browser(From(make_app(sessions), agent=sent))
    sid = await browser.login("ada")
    (session,) = await sessions.list_sessions("ada")
    assert (session.sid, session.user_agent) == (sid, kept)
    assert (await browser.see())["sid"] == sid


@pytest.mark.parametrize(("client", "kept"), CLIENTS)
async def test_no_address_breaks_a_login(
    sessions: Sessions, client: object, kept: str | None
) -> None:
    browser = Browser(From(make_app(sessions), client=client))
    sid = await browser.login("ada")
    (session,) = await sessions.list_sessions("ada")
    assert (session.sid, session.ip_address) == (sid, kept)
    assert (await browser.see())["sid"] == sid


@pytest.mark.parametrize(("address", "store_ip", "stored"), STORED)
async def test_the_row_has_as_much_of_the_address_as_allowed(
    make_sessions: MakeSessions, address: str | None, store_ip: StoreIP, stored: str | None
) -> None:
    sessions = await make_sessions(store_ip=store_ip)
    await Browser(From(make_app(sessions), client=(address, 4711))).login("ada")
    (session,) = await sessions.list_sessions("ada")
    assert session.ip_address == stored


# --- and found again ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "again",
    [("2001:db8::1", 1), ("2001:DB8:0::1", 2), ("2001:db8::1%eth0", 3)],
)
async def test_a_device_is_the_same_under_any_spelling_of_its_address(
    sessions: Sessions, again: tuple[str, int]
) -> None:
    app = make_app(sessions)
    first = await Browser(From(app, client=("2001:db8::1", 4711))).see_as("ada")
    second = await Browser(From(app, client=again)).see_as("ada")
    assert first["sid"] == second["sid"]


@pytest.mark.parametrize("store_ip", ["full", "truncated", "none"])
async def test_devices_are_told_apart_by_the_whole_address_whatever_is_stored(
    make_sessions: MakeSessions, store_ip: StoreIP
) -> None:
    app = make_app(await make_sessions(store_ip=store_ip))
    seen = [
        await Browser(From(app, client=(address, 4711))).see_as("ada")
        for address in ("192.0.2.1", "192.0.2.2", "192.0.2.1")
    ]
    assert seen[0]["sid"] == seen[2]["sid"] != seen[1]["sid"]


async def test_a_device_that_tells_nothing_is_found_again_too(sessions: Sessions) -> None:
    app = From(make_app(sessions), agent=None, client=None)
    first, second = await Browser(app).see_as("ada"), await Browser(app).see_as("ada")
    assert first["sid"] == second["sid"]
    assert (await Browser(app).see_as("bob"))["sid"] != first["sid"]


# --- headers of a scope ---------------------------------------------------------------------------


def test_the_headers_of_a_scope_that_cannot_be_written_are_read_all_the_same() -> None:
    scope = MappingProxyType({"headers": iter([(b"a", b"b")])})
    assert headers_of(scope) == [(b"a", b"b")]
    assert headers_of({}) == ()
