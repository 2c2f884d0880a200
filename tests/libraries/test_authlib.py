"""Authlib keeps OAuth's state, the nonce and PKCE's verifier in ``request.session``."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions
from tests.conftest import MakeSessions
from tests.support import Browser, set_cookies
from tests.support.libraries import need

need("authlib")
from tests.libraries.provider import CLIENT_ID, CLIENT_SECRET, ISSUER, Client, Provider  # noqa: E402 -- it is made with Authlib


class Cache:
    """What Authlib may keep the state in, beside a marker in the session."""

    def __init__(self) -> None:
        self._kept: dict[str, str] = {}

    async def get(self, key: str) -> str | None:
        return self._kept.get(key)

    async def set(self, key: str, value: str, _: int) -> None:
        self._kept[key] = value

    async def delete(self, key: str) -> None:
        self._kept.pop(key, None)


class Shop:
    """An app whose people log in at a provider.

    Args:
        sessions: its sessions.
        cache: given to Authlib.

    Attributes:
        app: the shop.
        meeting: where logins that begin wait for one another, once their session is loaded.
    """

    def __init__(self, sessions: Sessions, cache: Cache | None = None) -> None:
        from authlib.integrations.starlette_client import OAuth, OAuthError

        self.provider = Provider(Client(("https://test/callback",)))
        self.meeting: asyncio.Barrier | None = None
        oauth: Any = OAuth(cache=cache)
        oauth.register(
            "provider",
            client_id=CLIENT_ID,
            client_secret=CLIENT_SECRET,
            server_metadata_url=f"{ISSUER}/.well-known/openid-configuration",
            client_kwargs={
                "scope": "openid",
                "code_challenge_method": "S256",
                "transport": httpx2.ASGITransport(self.provider.app),
            },
        )

        async def home(request: Request) -> Response:
            session = request.state.session
            return JSONResponse(
                {"person_id": session and session.person_id, "data": request.session}
            )

        async def fill(request: Request) -> Response:
            request.session["cart"] = ["apple"]
            return JSONResponse(None)

        async def login(request: Request) -> Any:
            if self.meeting is not None:
                await self.meeting.wait()
            return await oauth.provider.authorize_redirect(request, request.url_for("callback"))

        async def callback(request: Request) -> Response:
            try:
                token = await oauth.provider.authorize_access_token(request)
            except OAuthError as error:
                return JSONResponse({"error": error.error}, 400)
            await sessions.start_session(request, {"id": token["userinfo"]["sub"]})
            return RedirectResponse("/", 303)

        self.app = Starlette(
            routes=[
                Route("/", home),
                Route("/cart", fill, methods=["POST"]),
                Route("/login", login),
                Route("/callback", callback),
            ]
        )
        self.app.add_middleware(SessionMiddleware, sessions=sessions)

    async def agreed(self, begun: httpx.Response) -> str:
        """What the provider sends the browser back to, after a login has begun."""
        assert begun.status_code == 302
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.provider.app)) as client:
            answer = await client.post(begun.headers["location"], data={"name": "ada"})
            return str(answer.headers["location"])


@pytest.mark.parametrize("cached", [False, True], ids=["session", "cache"])
async def test_a_login_at_a_provider(make_sessions: MakeSessions, cached: bool) -> None:
    sessions = await make_sessions(data=True)
    shop = Shop(sessions, Cache() if cached else None)
    browser = Browser(shop.app)
    await browser.post("/cart")
    begun = await browser.get("/login")
    before = browser.cookies[sessions.cookie_name]
    done = await browser.get(await shop.agreed(begun))
    assert done.status_code == 303, done.text
    assert len(set_cookies(done)) == 1

    home = (await browser.get("/")).json()
    assert home == {"person_id": "ada", "data": {"cart": ["apple"]}}  # nothing is left of OAuth
    planted = Browser(shop.app)
    planted.cookies.set(sessions.cookie_name, before)
    assert (await planted.get("/")).json() == {"person_id": None, "data": {}}


async def test_a_state_counts_once_and_in_its_own_browser(make_sessions: MakeSessions) -> None:
    shop = Shop(await make_sessions(data=True))
    browser, other = Browser(shop.app), Browser(shop.app)
    address = await shop.agreed(await browser.get("/login"))
    await other.get("/login")
    assert (await other.get(address)).json() == {"error": "mismatching_state"}
    assert (await browser.get(address)).status_code == 303
    assert (await browser.get(address)).json() == {"error": "mismatching_state"}


async def test_a_code_is_no_good_without_the_verifier_of_the_session(
    make_sessions: MakeSessions,
) -> None:
    shop = Shop(await make_sessions(data=True))
    browser, other = Browser(shop.app), Browser(shop.app)
    (theirs,) = parse_qs(urlsplit(await shop.agreed(await other.get("/login"))).query)["code"]
    begun = await browser.get("/login")
    (state,) = parse_qs(urlsplit(begun.headers["location"]).query)["state"]
    answer = await browser.get("/callback", params={"code": theirs, "state": state})
    assert answer.json() == {"error": "invalid_grant"}


async def test_logins_that_begin_at_once_in_two_tabs_both_end_well(
    make_sessions: MakeSessions,
) -> None:
    shop = Shop(await make_sessions(data=True))
    browser = Browser(shop.app)
    await browser.post("/cart")
    shop.meeting = asyncio.Barrier(2)
    begun = await asyncio.gather(browser.get("/login"), browser.get("/login"))
    first, second = [await shop.agreed(one) for one in begun]
    assert (await browser.get(first)).status_code == 303
    assert (await browser.get(second)).status_code == 303
    assert (await browser.get("/")).json() == {"person_id": "ada", "data": {"cart": ["apple"]}}
