"""Requests that other sites have a browser send: what passes `CrossOriginProtection`."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.types import Scope

from asgi_sessions import ConfigurationError, CrossOriginProtection
from tests.support.asgi import Peer, call, echo, http, respond, websocket
from tests.support.pages import table
from tests.support.repository import DOCS

#: `http` and `websocket` make requests to https://test.
TRUSTED = "https://front.example"


async def app(_: Scope, __: object, send: Any) -> None:
    await respond(send)


async def status(method: str, headers: dict[str, str], **options: Any) -> int:
    scope = http(method, **headers)
    sent = await call(CrossOriginProtection(app, **options), scope)
    answer: int = sent[0]["status"]
    return answer


def from_page(cell: str) -> str | None:
    """A header as the page has it: a word in backticks, or a dash for none."""
    return None if cell == "\N{EN DASH}" else cell.strip("`")


ROWS = table(DOCS / "cross_origin.md", "The decision")


@pytest.mark.parametrize("row", ROWS, ids="-".join)
async def test_each_row_of_the_page_is_so(row: list[str]) -> None:
    methods, site, origin, answer = row
    headers = {"sec_fetch_site": from_page(site), "origin": from_page(origin)}
    given = {name: value for name, value in headers.items() if value is not None}
    for method in methods.replace("`", "").split(", "):
        got = await status(method, given, trusted_origins=[TRUSTED])
        assert got == (200 if answer == "passes" else 403), method


@pytest.mark.parametrize(
    ("method", "site", "origin", "passes"),
    [  # the cases that Go 1.25 publishes for its CrossOriginProtection, with our host
        ("POST", "same-origin", None, True),
        ("POST", "none", None, True),
        ("POST", "cross-site", None, False),
        ("POST", "same-site", None, False),
        ("POST", None, None, True),
        ("POST", None, "https://test", True),
        ("POST", None, "https://attacker.example", False),
        ("POST", None, "null", False),
        ("GET", "cross-site", None, True),
        ("HEAD", "cross-site", None, True),
        ("OPTIONS", "cross-site", None, True),
        ("PUT", "cross-site", None, False),
        ("POST", None, TRUSTED, True),
        ("POST", "cross-site", TRUSTED, True),
        ("POST", "cross-site", "https://attacker.example", False),
    ],
)
async def test_it_agrees_with_gos(
    method: str, site: str | None, origin: str | None, *, passes: bool
) -> None:
    headers = {"sec_fetch_site": site, "origin": origin}
    given = {name: value for name, value in headers.items() if value is not None}
    assert await status(method, given, trusted_origins=[TRUSTED]) == (200 if passes else 403)


@pytest.mark.parametrize(
    ("origin", "passes"),
    [("https://test", True), (TRUSTED, True), ("https://evil.example", False), ("null", False)],
)
async def test_a_socket_is_opened_from_its_own_origin_alone(origin: str, *, passes: bool) -> None:
    scope = websocket()
    scope["headers"].append((b"origin", origin.encode()))
    protected = CrossOriginProtection(echo, trusted_origins=[TRUSTED])
    scope["state"] = {"sid": None}
    async with Peer(protected, scope) as peer:
        first = await peer.gets()
        if passes:
            assert first["type"] == "websocket.accept"
            await peer.gets()
            peer.says({"type": "websocket.disconnect", "code": 1001})
        else:
            assert first == {"type": "websocket.close", "code": 1008, "reason": "cross-origin"}


async def test_what_is_exempt_passes() -> None:
    cross = {"sec_fetch_site": "cross-site"}

    def is_webhook(scope: Any) -> bool:
        return bool(scope["path"] == "/")

    assert await status("POST", cross, exempt=is_webhook) == 200
    assert await status("POST", cross, exempt=lambda _: False) == 403


async def test_the_lifespan_passes() -> None:
    seen: list[str] = []

    async def lives(scope: Scope, receive: object, send: object) -> None:
        seen.append(scope["type"])

    await CrossOriginProtection(lives)({"type": "lifespan"}, None, None)  # type: ignore[arg-type]
    assert seen == ["lifespan"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"trusted_origins": "https://front.example"}, "use a list of origins"),
        ({"trusted_origins": ["https://front.example/"]}, "use a list of origins"),
        ({"trusted_origins": ["front.example"]}, "use a list of origins"),
        ({"trusted_origins": ["*"]}, "use a list of origins"),
        ({"exempt": ["/webhook"]}, "use a function of the scope"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match=why):
        CrossOriginProtection(app, **options)
