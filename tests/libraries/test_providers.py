"""Providers of OpenID Connect as processes of their own, and an app that two of them vouch to."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import repeat
from pathlib import Path
from typing import Any
from urllib.request import parse_http_list, parse_keqv_list

import httpx
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import ClientConnection, connect

from asgi_sessions import Person, SessionMiddleware, Sessions
from asgi_sessions.oidc import BackChannelLogout
from tests.support import KEY
from tests.support.libraries import need
from tests.support.processes import PATIENCE
from tests.support.providers import PLAIN, Provider
from tests.support.serving import served

need("authlib")
from tests.libraries.provider import (  # noqa: E402 -- it is made with Authlib
    CLIENT_ID,
    CLIENT_SECRET,
    SECOND_FACTOR,
)

RECENTLY = timedelta(minutes=10)
CHALLENGE = 'Bearer error="insufficient_user_authentication", acr_values="2", max_age=600'


def registered(sessions: Sessions, provider: Provider) -> Mount:
    """The routes of an app that have to do with one provider."""
    from authlib.integrations.starlette_client import OAuth, OAuthError

    oauth: Any = OAuth()
    oauth.register(
        "provider",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        server_metadata_url=f"{provider.issuer}/.well-known/openid-configuration",
        client_kwargs={
            "scope": "openid",
            "code_challenge_method": "S256",
            **PLAIN,
        },
    )

    async def login(request: Request) -> Any:
        return await oauth.provider.authorize_redirect(
            request, f"{provider.app}/callback", **request.query_params
        )

    async def callback(request: Request) -> Response:
        try:
            claims = (await oauth.provider.authorize_access_token(request))["userinfo"]
        except OAuthError as error:
            return JSONResponse({"error": error.error}, 400)
        except httpx2.TransportError:
            return JSONResponse({"error": "temporarily_unavailable"}, 503)
        proved_at = datetime.fromtimestamp(claims["auth_time"], UTC)
        acr, amr = claims["acr"], claims["amr"]
        there = [claims["sub"], claims["sid"]]
        if sessions.current(request) and request.session.get("there") == there:
            await sessions.renew_session(request, acr=acr, amr=amr, authenticated_at=proved_at)
        else:
            # The same account, whichever of its providers vouches for it.
            person = Person(
                claims["sub"],
                authenticated_at=proved_at,
                acr=acr,
                amr=amr,
                issuer=claims["iss"],
                subject=claims["sub"],
                provider_sid=claims["sid"],
            )
            await sessions.start_session(request, person)
        request.session["there"] = there
        return RedirectResponse("/me", 303)

    logout = BackChannelLogout(
        sessions,
        issuer=provider.issuer,
        client_id=CLIENT_ID,
        keys=f"{provider.issuer}/keys",
    )
    path = httpx.URL(provider.app).path
    return Mount(
        path,
        routes=[
            Route("/login", login),
            Route("/callback", callback),
            Route("/backchannel-logout", logout),
        ],
    )


def make_app(sessions: Sessions, providers: list[Provider]) -> Starlette:
    async def me(request: Request) -> Response:
        session = sessions.current(request)
        return JSONResponse(
            {"sid": session and session.sid, "reason": request.state.session_end_reason}
        )

    async def payout(request: Request) -> Response:
        session = sessions.current(request)
        if session is None or session.acr != "2" or not sessions.is_fresh(request, RECENTLY):
            return Response(status_code=401, headers={"WWW-Authenticate": CHALLENGE})
        return PlainTextResponse("done")

    async def live(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text(str(websocket.state.sid))
        await websocket.receive()

    routes = [
        Route("/me", me),
        Route("/payout", payout, methods=["POST"]),
        WebSocketRoute("/live", live),
    ]
    app = Starlette(routes=[*routes, *(registered(sessions, one) for one in providers)])
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


class Device(httpx.AsyncClient):
    """A browser of somebody: it has its cookies of the app and of the providers."""

    def __init__(self, app: str) -> None:
        super().__init__(base_url=app, follow_redirects=True, **PLAIN)

    async def log_in(self, path: str, person: str = "ada", code: str = "", **asked: str) -> Any:
        """Log in by the provider that is registered at a path; what the app says who it is."""
        page = await self.get(f"{path}/login", params=asked)
        if page.url.path == "/authorize":  # it asks
            page = await self.post(page.url, data={"name": person, "code": code})
        return page.json()["sid"]

    async def sid(self) -> Any:
        return (await self.get("/me")).json()["sid"]

    async def is_in(self) -> bool:
        return await self.sid() is not None

    def live(self) -> connect:
        cookies = "; ".join(f"{one.name}={one.value}" for one in self.cookies.jar)
        url = self.base_url.copy_with(scheme="ws", path="/live")
        return connect(str(url), additional_headers={"Cookie": cookies}, proxy=None)


async def closed(websocket: ClientConnection) -> int | None:
    """The code with which a WebSocket is closed."""
    await asyncio.wait_for(websocket.wait_closed(), PATIENCE)
    return websocket.close_code


class Place:
    """Where a test happens: an app at an address, and two providers at theirs."""

    def __init__(self, listening: socket.socket) -> None:
        self.listening = listening
        self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        self.one, self.two = (Provider(self.url + path) for path in ("/one", "/two"))

    def device(self) -> Device:
        return Device(self.url)

    def stop(self) -> None:
        for provider in (self.one, self.two):
            provider.stop()


@pytest.fixture(scope="module")
def there() -> Iterator[Place]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        place = Place(listening)
        yield place
        place.stop()


@pytest.fixture
async def sessions(anyio_backend: str, tmp_path: Path) -> AsyncIterator[Sessions]:
    """By the clock of the machine, which the providers look at."""
    url = f"sqlite:///{tmp_path}/s.db"
    async with Sessions(url, secret_key=KEY, data=True, cookie_secure=False) as sessions:
        await sessions.create_tables()
        yield sessions


@pytest.fixture
async def place(sessions: Sessions, there: Place) -> AsyncIterator[Place]:
    """With an app that serves these sessions."""
    app = make_app(sessions, [there.one, there.two])
    async with served(app, there.listening.dup()):
        yield there


async def test_whoever_logs_out_at_a_provider_is_out_here_and_a_websocket_is_closed(
    place: Place,
) -> None:
    async with place.device() as desk, place.device() as phone, place.device() as eve:
        await desk.log_in("/one")
        await phone.log_in("/one")
        await eve.log_in("/one", "eve")
        async with desk.live() as at_desk, phone.live() as at_phone:
            assert await at_desk.recv() == await desk.sid()
            await desk.post(f"{place.one.issuer}/logout")
            assert await closed(at_desk) == 1008
            assert [await desk.is_in(), await phone.is_in()] == [False, True]
            # Logged out there, too: it asks again.
            assert (await desk.get("/one/login")).url.path == "/authorize"

            await desk.log_in("/one")
            await desk.post(f"{place.one.issuer}/logout", data={"everywhere": "1"})
            assert await closed(at_phone) == 1008
        assert [await one.is_in() for one in (desk, phone, eve)] == [False, False, True]
        await desk.log_in("/one")
        assert await desk.is_in()


async def test_sessions_by_two_providers_stay_apart(sessions: Sessions, place: Place) -> None:
    """Both call them ada, and the app takes them for the same person."""
    async with place.device() as desk, place.device() as phone:
        await desk.log_in("/one")
        await phone.log_in("/two")
        assert len(await sessions.list_sessions("ada")) == 2
        assert await place.one.operator(do="log_out", person="ada") == [200]
        assert [await desk.is_in(), await phone.is_in()] == [False, True]

        # The other one's word, at its own place and at the wrong one.
        token = await place.one.operator(do="logout_token", whom={"sub": "ada"})
        for path, status in (("/one", 200), ("/two", 400)):
            answer = await phone.post(f"{path}/backchannel-logout", data={"logout_token": token})
            assert answer.status_code == status
        assert await phone.is_in()
        assert await place.two.operator(do="log_out", person="ada") == [200]
        assert not await phone.is_in()


async def test_keys_that_change_while_logout_tokens_arrive_lose_none(place: Place) -> None:
    names = [f"person-{number}" for number in range(8)]
    async with AsyncExitStack() as stack:
        devices = [await stack.enter_async_context(place.device()) for _ in names]
        await asyncio.gather(*map(Device.log_in, devices, repeat("/one"), names))
        # The app has just read the keys for the first time, which is when another look is refused
        # soonest. From here on, every other token is signed by a key that it does not know.
        assert await place.one.operator(do="log_out", person=names[0]) == [200]
        before = await place.one.operator(do="look")
        asked = [{"do": "logout_token", "whom": {"sub": name}} for name in names[1:]]
        tokens = [await place.one.operator(**one) for one in asked[::2]]
        await place.one.operator(do="rotate")
        tokens += [await place.one.operator(**one) for one in asked[1::2]]
        answers = await asyncio.gather(
            *(
                devices[0].post("/one/backchannel-logout", data={"logout_token": token})
                for token in tokens
            )
        )
        assert [answer.status_code for answer in answers] == [200] * len(tokens)
        assert not any([await one.is_in() for one in devices])
        after = await place.one.operator(do="look")
        assert after["keys_read"] - before["keys_read"] == 1  # however many tokens ask for it
        await devices[0].log_in("/one", names[0])  # by the new key
        assert await devices[0].is_in()


async def test_a_provider_that_is_down_lets_nobody_in_and_puts_nobody_out(place: Place) -> None:
    async with place.device() as desk, place.device() as phone, place.device() as stranger:
        for one in (desk, phone):
            await one.log_in("/one")
        # The app has its keys, as of an earlier logout.
        assert await place.one.operator(do="log_out", person="nobody") == []
        await stranger.log_in("/one", "eve")
        assert await place.one.operator(do="log_out", person="eve") == [200]
        token = await place.one.operator(do="logout_token", whom={"sub": "ada"})
        begun = await stranger.get("/one/login", follow_redirects=False)
        state = httpx.URL(begun.headers["location"]).params["state"]
        place.one.stop()

        refused = await stranger.get("/one/callback", params={"code": "any", "state": state})
        assert refused.status_code == 503
        assert await stranger.log_in("/two", "eve")  # the other one still does
        assert [await desk.is_in(), await phone.is_in()] == [True, True]
        answer = await stranger.post("/one/backchannel-logout", data={"logout_token": token})
        assert answer.status_code == 200
        assert [await desk.is_in(), await phone.is_in()] == [False, False]

        place.one.start()
        assert await desk.log_in("/one")


async def test_a_second_factor_at_the_provider_is_a_proof_here(
    sessions: Sessions, place: Place
) -> None:
    async with place.device() as desk:
        sid = await desk.log_in("/one")
        refused = await desk.post("/payout")
        scheme, _, challenge = refused.headers["www-authenticate"].partition(" ")
        asked = parse_keqv_list(parse_http_list(challenge))
        assert (refused.status_code, scheme) == (401, "Bearer")
        assert asked.pop("error") == "insufficient_user_authentication"
        (before,) = await sessions.list_sessions("ada")
        assert (before.acr, before.amr) == ("1", ("pwd",))

        # A provider that is asked for nothing new says when it saw them last.
        assert await desk.log_in("/one") == sid
        (session,) = await sessions.list_sessions("ada")
        assert session.authenticated_at == before.authenticated_at

        assert await desk.log_in("/one", code=SECOND_FACTOR, **asked) == sid
        (session,) = await sessions.list_sessions("ada")
        assert (session.acr, session.amr) == ("2", ("pwd", "otp"))
        assert (await desk.post("/payout")).text == "done"

        page = await desk.get("/one/login", params={"prompt": "login"})
        assert page.url.path == "/authorize"  # asked, however lately they have proved it

        # With another session there, it is another one here: each has an end of its own.
        for cookie in [one for one in desk.cookies.jar if one.name.startswith("provider")]:
            desk.cookies.delete(cookie.name)
        other = await desk.log_in("/one")
        assert other not in (None, sid)
        await desk.post(f"{place.one.issuer}/logout")
        assert not await desk.is_in()

        # So it is if somebody else comes back from there.
        await desk.log_in("/one", code=SECOND_FACTOR)
        eve = await desk.log_in("/one", "eve", prompt="login")
        (session,) = await sessions.list_sessions("eve")
        assert (session.sid, session.acr) == (eve, "1")
        assert await sessions.list_sessions("ada") == []
