"""A logout here that goes on to the provider (OpenID Connect RP-Initiated Logout 1.0)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from asgi_sessions import ConfigurationError, Session, Sessions
from tests.support import KEY, Browser, make_app

END = "https://id.example/logout"


async def test_a_function_of_the_session_says_where_a_logout_leads(plain: Sessions) -> None:
    ended: list[Session | None] = []

    def plainly(session: Session | None) -> str | None:
        ended.append(session)
        return None if session is None else f"{END}?{urlencode({'logout_hint': 'ada'})}"

    async def async_with_more(session: Session | None, base: str = END) -> str:
        ended.append(session)
        return base

    app = make_app(
        plain,
        Route("/plain", plain.end_session_endpoint(redirect_to=plainly, clear_site_data=["cache"])),
        Route("/async", plain.end_session_endpoint(redirect_to=async_with_more)),
    )
    browser = Browser(app)
    sid = await browser.login("ada")
    answer = await browser.post("/plain")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{END}?logout_hint=ada")
    assert answer.headers["clear-site-data"] == '"cache"'
    assert not browser.cookies
    (session,) = ended
    assert session is not None
    assert (session.sid, session.end_reason) == (sid, "logout")
    # nobody was there, which may lead elsewhere
    assert (await browser.post("/plain")).json() == {"message": "session ended"}
    assert (await browser.post("/async")).headers["location"] == END
    assert ended[1:] == [None, None]
    # not for other sites, which would learn the hint
    cross = {"sec-fetch-site": "cross-site"}
    assert (await browser.post("/plain", headers=cross)).status_code == 403
    assert len(ended) == 3


@pytest.mark.parametrize("data", [True, False])
async def test_what_the_session_held_is_there_to_be_used(tmp_path: Path, *, data: bool) -> None:
    """The hint of the ID token, though the data are gone with the session."""

    def leave(session: Session | None, held: Mapping[str, Any]) -> str:
        return f"{END}?{urlencode({'id_token_hint': held.get('id_token', '')})}"

    url = f"sqlite:///{tmp_path}/s.db"
    async with Sessions(url, secret_key=KEY, data=data) as sessions:
        await sessions.create_tables()

        async def callback(request: Request) -> Response:
            await sessions.start_session(request, "ada")
            if data:
                request.session["id_token"] = "a.b.c"
            return Response()

        logout = sessions.end_session_endpoint(redirect_to=leave)
        app = make_app(
            sessions,
            Route("/callback", callback, methods=["POST"]),
            Route("/leave", logout),
        )
        browser = Browser(app)
        await browser.post("/callback")
        for hint in ("a.b.c" if data else "", ""):
            answer = await browser.post("/leave")
            query = parse_qsl(urlsplit(answer.headers["location"]).query, keep_blank_values=True)
            assert query == [("id_token_hint", hint)]
        assert await sessions.list_sessions("ada") == []


async def test_a_function_that_leads_nowhere_is_a_fault_after_the_logout(plain: Sessions) -> None:
    endpoint = plain.end_session_endpoint(redirect_to=lambda _: "//evil.example")
    browser = Browser(make_app(plain, Route("/leave", endpoint)))
    await browser.login("ada")
    with pytest.raises(ConfigurationError, match=r"redirect_to\(\.\.\.\)='//evil.example'"):
        await browser.post("/leave")
    assert await plain.list_sessions("ada") == []
    with pytest.raises(ConfigurationError, match="or a function of the session"):
        plain.end_session_endpoint(redirect_to="//evil.example")
