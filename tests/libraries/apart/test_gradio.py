"""Gradio, mounted in an app of FastAPI's: ``auth_dependency`` asks the app who somebody is, and the
functions of its events read ``request.session``. With a LoginButton it has a session of its own.
"""

import asyncio
from typing import Any

import pytest
from fastapi import FastAPI, Request

from asgi_sessions import SessionMiddleware, Sessions
from tests.support import Browser
from tests.support.asgi import SECONDS
from tests.support.libraries import need
from tests.support.pages import Reader, blocks
from tests.support.repository import DOCS

need("gradio", apart=True)


def make_app(sessions: Sessions, *, button: bool = False) -> FastAPI:
    import gradio

    app = FastAPI()
    app.add_middleware(SessionMiddleware, sessions=sessions)

    @app.post("/login")
    async def login(request: Request, name: str) -> None:
        await sessions.start_session(request, {"id": name})
        request.session["name"] = name.title()

    @app.post("/logout")
    async def logout(request: Request) -> None:
        await sessions.end_session(request)

    @app.get("/")
    async def home(request: Request) -> dict[str, Any]:
        return request.session

    def who(request: Request) -> str | None:
        session = request.state.session
        return None if session is None else str(session.person_id)

    async def greet(greeting: str, request: gradio.Request) -> str:
        # request.session is a copy of Gradio's, to be read; and from the queue an event comes when
        # the request that has asked for it is answered.
        times = await sessions.data.increment(request.request, "greetings")
        return f"{greeting} {request.session['name']}, {request.username}: {times}"

    with gradio.Blocks(analytics_enabled=False) as blocks:
        if button:
            gradio.LoginButton()
        greeting, answer = gradio.Textbox(), gradio.Textbox()
        greeting.submit(greet, greeting, answer, api_name="greet", queue=False)
        greeting.change(greet, greeting, answer, api_name="queued")
    dependency = None if button else who
    gradio.mount_gradio_app(app, blocks, "/gradio", auth_dependency=dependency)
    return app


async def test_who_is_logged_in_to_the_app_is_to_gradio(plain: Sessions) -> None:
    app = make_app(plain)
    browser, replay = Browser(app), Browser(app)
    assert (await browser.get("/gradio/config")).status_code == 401
    await browser.post("/login", params={"name": "ada"})
    assert (await browser.get("/gradio/config")).status_code == 200
    assert (await browser.get("/gradio/")).status_code == 200
    replay.cookies.update(browser.cookies)
    called = await browser.post("/gradio/gradio_api/run/greet", json={"data": ["Hello"]})
    assert called.json()["data"] == ["Hello Ada, ada: 1"]
    assert (await browser.get("/")).json() == {"name": "Ada", "greetings": 1}
    event = {"data": ["Hello again"], "fn_index": 1, "session_hash": "a"}
    joined = await browser.post("/gradio/gradio_api/queue/join", json=event)
    assert joined.status_code == 200, joined.text
    async with asyncio.timeout(SECONDS), app.router.lifespan_context(app):
        told = await browser.get("/gradio/gradio_api/queue/data", params={"session_hash": "a"})
    assert "Hello again Ada, ada: 2" in told.text
    assert (await browser.get("/")).json() == {"name": "Ada", "greetings": 2}
    await plain.end_all_sessions("ada")
    assert (await browser.get("/gradio/config")).status_code == 401
    assert (await replay.get("/gradio/config")).status_code == 401


@pytest.mark.filterwarnings("ignore:Gradio does not support OAuth features outside:UserWarning")
async def test_the_login_at_hugging_face_has_a_session_of_its_own(
    plain: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = {"type": "user", "fullname": "Ada", "name": "ada", "avatarUrl": "https://test/ada.png"}
    monkeypatch.setattr("gradio.oauth.get_token", lambda: "made up")
    monkeypatch.setattr("gradio.oauth.whoami", lambda: person)
    browser = Browser(make_app(plain, button=True))
    await browser.post("/login", params={"name": "grace"})
    login = await browser.get("/gradio/login/callback")
    assert list(login.cookies) == ["session"]
    assert (await browser.get("/")).json() == {"name": "Grace"}
    await browser.get("/gradio/logout")
    assert (await browser.get("/")).json() == {"name": "Grace"}


@pytest.mark.parametrize("page", [DOCS / "libraries.md"])
async def test_the_code_of_the_page_runs(reader: Reader) -> None:
    beginning, *_ = blocks(reader.page, "python")
    (own,) = [block for block in blocks(reader.page, "py") if "import gradio" in block.source]
    await reader.run(beginning, own)
