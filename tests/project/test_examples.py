"""The apps in examples/: the same story in each; what the FastAPI one promises in its document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import hypothesis
import pytest
import schemathesis
from fastapi import FastAPI
from fastapi.testclient import TestClient
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth

from asgi_sessions import Session, Sessions
from asgi_sessions.fastapi import fresh_session
from asgi_sessions.testing import Clock, logged_in_cookie
from examples import fastapi_app, litestar_app, starlette_app
from tests.project.test_end_to_end import Device, Server, others
from tests.support import KEY, Browser, set_cookies

EXAMPLES = Path(__file__).parents[2] / "examples"
HTML = {"accept": "text/html"}
ANN = {"name": "ann", "password": "apple-tree"}
Fresh = Annotated[Session, fresh_session(timedelta(minutes=10))]

#: What is answered to strangers, to people who are logged in, and to those who have just logged in.
ANSWERS = {
    "GET /login": (200, 200, 200),
    "POST /login": (403, 403, 403),
    "GET /me": (401, 200, 200),
    "DELETE /account": (401, 403, 204),
}


class Example(NamedTuple):
    """An example, served."""

    sessions: Sessions
    browser: Callable[..., Browser]
    document: str


@pytest.fixture
def sessions(tmp_path: Path, clock: Clock) -> Sessions:
    """Those of an example, on an empty database."""
    return Sessions(f"sqlite:///{tmp_path}/example.db", secret_key=KEY, clock=clock)


@pytest.fixture(params=["starlette", "fastapi", "litestar"])
async def example(
    request: pytest.FixtureRequest, anyio_backend: str, sessions: Sessions
) -> AsyncIterator[Example]:
    """An example with its lifespan running."""
    app: Any
    lifespan: AbstractAsyncContextManager[Any]
    document = "none"
    if request.param == "starlette":
        app = starlette_app.create_app(sessions)
        lifespan = app.router.lifespan_context(app)
    elif request.param == "fastapi":
        app = fastapi_app.create_app(sessions)
        lifespan, document = app.router.lifespan_context(app), "/openapi.json"
    else:
        app = litestar_app.create_app(sessions)
        lifespan, document = app.lifespan(), "/schema/openapi.json"
    async with lifespan:
        yield Example(sessions, lambda **options: Browser(app, **options), document)


async def log_in(browser: Browser) -> str:
    """Log in with the form; the sid."""
    response = await browser.post("/login", data=ANN)
    assert (response.status_code, response.headers["location"]) == (303, "/sessions/")
    assert set_cookies(response)
    sid: str = (await browser.get("/me")).json()["sid"]
    return sid


async def is_in(browser: Browser) -> bool:
    return (await browser.get("/me")).status_code == 200


async def test_an_example_logs_in_and_out(example: Example) -> None:
    browser = example.browser()
    form = await browser.get("/login")
    assert form.status_code == 200
    assert form.headers["content-type"] == "text/html; charset=utf-8"
    assert '<form method="post">' in form.text
    sid = await log_in(browser)
    (session,) = await example.sessions.list_sessions("ann")
    assert session.sid == sid
    assert (await browser.get("/me")).json() == {"person": "ann", "sid": sid}
    out = await browser.post("/logout")
    assert (out.status_code, out.headers["location"]) == (303, "/login")
    assert not browser.cookies
    assert not await is_in(browser)


@pytest.mark.parametrize(
    "form",
    [{**ANN, "password": "wrong"}, {**ANN, "name": "nobody"}, {"name": "", "password": ""}, {}],
    ids=["wrong password", "unknown name", "empty", "nothing"],
)
async def test_an_example_lets_nobody_in_without_the_password(
    example: Example, form: dict[str, str]
) -> None:
    browser = example.browser()
    response = await browser.post("/login", data=form)
    assert 400 <= response.status_code < 500
    assert not browser.cookies
    assert await example.sessions.list_sessions("ann", include_ended=True) == []


@pytest.mark.parametrize("path", ["/login", "/logout", "/sessions/end-others", "/sessions/{}/end"])
@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_an_example_refuses_what_another_site_posts(
    example: Example, path: str, site: str
) -> None:
    here, phone = example.browser(), example.browser(agent="Phone")
    sids = await log_in(here), await log_in(phone)
    headers = {"sec-fetch-site": site}
    response = await here.post(path.format(sids[1]), data=ANN, headers=headers)
    assert response.status_code == 403
    assert not set_cookies(response)
    assert {one.sid for one in await example.sessions.list_sessions("ann")} == set(sids)


async def test_an_example_lists_and_ends_one(example: Example) -> None:
    here, phone = example.browser(), example.browser(agent="<b>Phone")
    sid, lost = await log_in(here), await log_in(phone)
    listed = (await here.get("/sessions/")).json()["sessions"]
    assert [(one["sid"], one["current"]) for one in listed] == [(sid, True), (lost, False)]
    page = (await here.get("/sessions/", headers=HTML)).text
    assert "&lt;b&gt;Phone" in page
    assert "<b>Phone" not in page
    eve = example.browser()
    eve.cookies.update(await logged_in_cookie(example.sessions, "eve"))
    assert (await eve.post(f"/sessions/{lost}/end")).status_code == 404
    assert (await here.get(f"/sessions/{lost}/end")).status_code == 405
    assert await is_in(phone)
    ended = await here.post(f"/sessions/{lost}/end", headers=HTML)
    assert (ended.status_code, ended.headers["location"]) == (303, "../?closed=1")
    refused = await phone.get("/me")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Cookie"
    assert '"reason":"revoked"' in refused.text
    assert await is_in(here)


async def test_an_example_ends_the_others(example: Example) -> None:
    here, *elsewhere = (example.browser(agent=agent) for agent in ("Desk", "Phone", "Tablet"))
    for browser in (here, *elsewhere):
        await log_in(browser)
    assert (await here.post("/sessions/end-others")).json() == {"ended": 2}
    assert [await is_in(browser) for browser in (here, *elsewhere)] == [True, False, False]


async def test_an_example_sends_strangers_to_the_form(example: Example) -> None:
    stranger = example.browser()
    response = await stranger.get("/sessions/", headers=HTML)
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert (await stranger.get("/me")).status_code == 401


@pytest.mark.parametrize("example", ["fastapi", "litestar"], indirect=True)
async def test_the_document_of_an_example_names_the_cookie_and_who_asks_for_it(
    example: Example,
) -> None:
    document = (await example.browser().get(example.document)).json()
    cookie = document["components"]["securitySchemes"]["session"]
    assert (cookie["type"], cookie["in"], cookie["name"]) == ("apiKey", "cookie", "__Host-sid")
    guarded = set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation.get("security"):
                guarded.add(f"{method} {path}")
                assert "401" in operation["responses"]
    assert guarded == {"get /me"}


@pytest.mark.parametrize("name", ["starlette_app.py", "fastapi_app.py", "litestar_app.py"])
def test_an_example_runs_as_its_first_lines_say(tmp_path: Path, name: str) -> None:
    server = Server(tmp_path, EXAMPLES / name)
    try:
        server.start()
        with Device(server, "desk") as desk, Device(server, "phone") as phone:
            for device in (desk, phone):
                page = device.post("/login", data=ANN, headers=HTML, follow_redirects=True).text
                assert "Where you are logged in" in page
            (sid,) = others(desk.get("/sessions/").text)
            assert desk.delete(f"/sessions/{sid}").status_code == 204
            assert phone.get("/me").status_code == 401
            assert desk.get("/me").json()["person"] == "ann"
        server.stop()
    finally:
        server.kill()
    assert "Traceback" not in server.log.read_text()


def test_an_example_is_short() -> None:
    for path in EXAMPLES.glob("*.py"):
        longest = 120 if path.name == "sso_app.py" else 80
        assert len(path.read_text().splitlines()) < longest, path
    assert len((EXAMPLES.parent / "example_app.py").read_text().splitlines()) < 250


def with_a_step_that_asks_for_a_fresh_login(app: FastAPI, sessions: Sessions) -> FastAPI:
    """The example, and what it need not show: the other guard has to be described as well."""

    @app.delete("/account", status_code=204)
    async def delete_account(session: Fresh) -> None:
        await sessions.end_all_sessions(session.person_id)

    return app


@pytest.mark.parametrize("who", ["stranger", "logged in", "fresh"])
def test_the_fastapi_example_keeps_what_its_document_promises(
    sessions: Sessions, clock: Clock, who: str
) -> None:
    app = with_a_step_that_asks_for_a_fresh_login(fastapi_app.create_app(sessions), sessions)
    schema = schemathesis.openapi.from_dict(app.openapi())
    # That check would take our cookie for a wrong one, which has to be refused.
    unfit = [] if who == "stranger" else [ignored_auth]
    answers: dict[str, set[int]] = defaultdict(set)
    with TestClient(app, base_url="https://test", follow_redirects=False) as client:
        portal = client.portal
        assert portal is not None

        def ask(case: schemathesis.Case[Any]) -> None:
            question = case.as_transport_kwargs(base_url=str(client.base_url))
            if not isinstance(question.get("data"), dict):  # a form
                question["content"] = question.pop("data", None)  # as httpx calls it
            client.cookies.clear()
            client.cookies.update(question.pop("cookies"))
            if who != "stranger":  # each time anew, for a question may log out
                client.cookies.update(portal.call(logged_in_cookie, sessions, "ann"))
                clock.turn(timedelta(hours=who != "fresh"))
            response = client.request(**question)
            answers[case.operation.label].add(response.status_code)
            case.validate_response(response, excluded_checks=unfit)

        few = hypothesis.settings(max_examples=10, deadline=None, derandomize=True, database=None)
        for result in schema.get_all_operations():
            assert isinstance(result, Ok)
            few(hypothesis.given(case=result.ok().as_strategy())(ask))()
    column = ["stranger", "logged in", "fresh"].index(who)
    assert answers == {label: {codes[column]} for label, codes in ANSWERS.items()}
