"""The page on single sign-on does what it says."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any

import pytest
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_sessions import SessionEvent, Sessions
from asgi_sessions.testing import logged_in_cookie
from tests.support import Browser
from tests.support.pages import Reader
from tests.support.repository import DOCS

pytestmark = pytest.mark.parametrize("page", [DOCS / "single_sign_on.md"])


async def test_its_app_logs_in_and_goes_on_to_the_provider(reader: Reader) -> None:
    await reader.run()
    app, sessions, issuer = reader["app"], reader["sessions"], reader["ISSUER"]
    await sessions.create_tables()

    async def callback(request: Request) -> Response:
        userinfo = {"iss": issuer, "sub": "ada", "sid": "phone", "nonce": "n"}
        answer: Response = await reader["logged_in"](
            request, {"userinfo": userinfo, "id_token": "a.b.c"}
        )
        return answer

    app.router.routes.append(Route("/callback", callback))
    browser = Browser(app)
    assert (await browser.get("/invoices")).status_code == 401
    assert (await browser.get("/callback")).headers["location"] == "/"

    # a token for a service, which knows what is published
    token = (await browser.get("/invoices")).json()["authorization"].removeprefix("Bearer ")
    published = (await browser.get("/.well-known/jwks.json")).json()
    assert reader["person_of"](token, published) == "ada"
    (session,) = await sessions.list_sessions("ada")
    other = reader["TokenIssuer"](sessions, issuer="https://evil", key=reader["private_key"])
    billing = "https://billing.example.com"
    scope = await scope_of(sessions, app)
    assert reader["person_of"](reader["tokens"].token(scope, audience=billing), published) == "ada"
    for tokens, audience in ((reader["tokens"], "https://stock"), (other, billing)):
        with pytest.raises(JoseError):
            reader["person_of"](tokens.token(scope, audience=audience), published)

    # out, here and there
    answer = await browser.post("/logout")
    assert answer.headers["location"] == (
        f"{issuer}/protocol/openid-connect/logout"
        "?post_logout_redirect_uri=https%3A%2F%2Fapp.example.com%2F&client_id=shop"
        "&id_token_hint=a.b.c"
    )
    ended = await sessions.get_by_id(session.sid)
    assert ended.end_reason == "logout"
    assert (await browser.post("/logout")).headers["location"] == "/"
    # a provider may refuse a hint that is none
    assert "id_token_hint" not in reader["to_the_provider"](ended, {})

    # what the app makes of a lower assurance
    later = await sessions.insert({"type": "http"}, "ada")
    for direction, lives in (("increase", True), ("decrease", False)):
        signal = {"change_direction": direction}
        await reader["on_event"](SessionEvent("assurance_changed", later, signal=signal))
        assert (await sessions.get_by_id(later.sid)).ended_at is None or not lives
    assert (await sessions.get_by_id(later.sid)).end_reason == "revoked"


async def test_a_provider_that_says_no_level_has_proved_none(reader: Reader) -> None:
    """The second factor of this morning is not one of just now, because a password is."""
    await reader.run()
    app, sessions, issuer = reader["app"], reader["sessions"], reader["ISSUER"]
    await sessions.create_tables()
    claims = {"iss": issuer, "sub": "ada", "sid": "phone", "auth_time": 1_700_000_000}
    said = [{**claims, "acr": "2"}]

    async def callback(request: Request) -> Response:
        token = {"userinfo": said.pop(0), "id_token": "a.b.c"}
        answer: Response = await reader["come_back"](request, token)
        return answer

    routes = [Route("/callback", callback), Route("/payout", reader["payout"])]
    app.router.routes.extend(routes)
    browser = Browser(app)
    for acr in ("2", "0"):
        await browser.get("/callback")
        assert (await browser.get("/payout")).headers["location"] == "/step-up"
        (session,) = await sessions.list_sessions("ada")
        assert session.acr == acr
        is_of_now = session.authenticated_at > session.started_at - timedelta(minutes=1)
        assert is_of_now == (acr == "0")
        said.append({**claims, "auth_time": session.started_at.timestamp()})


async def scope_of(sessions: Sessions, app: Any) -> Any:
    """The scope of a request of ada's, as a handler of the app gets it."""
    seen: list[Any] = []

    async def keep(request: Request) -> Response:
        seen.append(request.scope)
        return Response()

    app.router.routes.append(Route("/keep", keep))
    browser = Browser(app)
    browser.cookies.update(await logged_in_cookie(sessions, "ada"))
    await browser.get("/keep")
    app.router.routes.pop()
    await sessions.end_session_by_id(seen[0]["state"]["sid"])
    return seen[0]


async def test_its_proxies_say_who_is_there(reader: Reader) -> None:
    await reader.run()
    sessions, issuer = reader["sessions"], reader["ISSUER"]
    await sessions.create_tables()
    claims = {"iss": issuer, "sub": "ada", "sid": "phone", "auth_time": 1_700_000_000}
    payload = urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    envoy = reader["behind_envoy"]
    async with Browser(envoy) as browser:
        assert (await browser.get("/")).json() is None
        sid = (await browser.get("/", headers={"x-jwt-payload": payload})).json()
    (session,) = await sessions.list_sessions("ada")
    assert session.sid == sid
    assert session.authenticated_at.timestamp() == claims["auth_time"]
    person = reader["person_of_oauth2_proxy"]
    assert person({"type": "http", "headers": []}) is None
    found = person({"type": "http", "headers": [(b"x-forwarded-user", b"ada")]})
    assert (found.id, found.issuer, found.subject) == ("ada", issuer, "ada")
