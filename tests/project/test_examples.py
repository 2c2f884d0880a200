"""The apps in examples/: the same story in each; what the FastAPI one promises in its document."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import hypothesis
import pytest
import schemathesis
from argon2 import PasswordHasher
from databases import Database
from fastapi.testclient import TestClient
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import ignored_auth

from asgi_sessions import Sessions
from asgi_sessions.testing import Clock, logged_in_cookie
from examples import fastapi_app, litestar_app
from tests.support import KEY, Browser, set_cookies

#: What is answered to strangers, to people who are logged in, and to those who have just logged in.
ANSWERS = {
    "GET /": (200, 200, 200),
    "POST /login": (401, 401, 401),
    "GET /sessions": (401, 200, 200),
    "DELETE /sessions/{sid}": (401, 404, 404),
    "POST /confirm": (401, 401, 401),
    "PUT /password": (401, 403, 204),
}
ANN = {"name": "ann", "password": "apple-tree"}


class Example(NamedTuple):
    """An example, served."""

    app: Any
    sessions: Sessions
    browser: Callable[..., Browser]
    detail: Callable[[dict[str, Any]], Any]
    document: str


def make(module: Any, directory: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Any:
    quick = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    monkeypatch.setattr(module, "hasher", quick)
    monkeypatch.setattr(module, "nobody", quick.hash("nobody's"))
    database = Database(f"sqlite:///{directory}/example.db")
    sessions = Sessions(database, secret_key=KEY, clock=clock)
    return module.create_app(database, sessions), sessions


@pytest.fixture(params=["fastapi", "litestar"])
async def example(
    request: pytest.FixtureRequest,
    anyio_backend: str,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Example]:
    """An example on an empty database, with its lifespan running."""
    lifespan: AbstractAsyncContextManager[Any]
    if request.param == "fastapi":
        app, sessions = make(fastapi_app, tmp_path, clock, monkeypatch)
        lifespan, where, document = app.router.lifespan_context(app), "detail", "/openapi.json"
    else:
        app, sessions = make(litestar_app, tmp_path, clock, monkeypatch)
        lifespan, where, document = app.lifespan(), "extra", "/schema/openapi.json"
    async with lifespan:
        yield Example(
            app,
            sessions,
            lambda **options: Browser(app, **options),
            lambda answer: answer[where],
            document,
        )


async def log_in(browser: Browser) -> str:
    response = await browser.post("/login", json=ANN)
    assert response.status_code == 200, response.text
    assert set_cookies(response)
    sid: str = response.json()["sid"]
    return sid


async def test_an_example_logs_in_and_out(example: Example) -> None:
    browser = example.browser()
    assert (await browser.get("/")).json() == {"hello": "stranger"}
    for wrong in ({**ANN, "password": "wrong"}, {**ANN, "name": "nobody"}):
        assert (await browser.post("/login", json=wrong)).status_code == 401
    assert not browser.cookies
    sid = await log_in(browser)
    assert (await browser.get("/")).json() == {"hello": "ann"}
    (session,) = await example.sessions.list_sessions("ann")
    assert (session.sid, session.amr) == (sid, ("pwd",))
    assert (await browser.post("/logout")).json() == {"message": "session ended"}
    assert (await browser.get("/")).json() == {"hello": "stranger"}


async def test_an_example_lists_and_ends(example: Example) -> None:
    here, phone = example.browser(), example.browser(agent="Phone")
    refused = await here.get("/sessions")
    assert refused.status_code == 401
    assert refused.headers["www-authenticate"] == "Cookie"
    assert example.detail(refused.json())["error"] == "login_required"
    sid, lost = await log_in(here), await log_in(phone)
    devices = {device["sid"]: device for device in (await here.get("/sessions")).json()}
    assert devices.keys() == {sid, lost}
    assert devices[lost]["user_agent"] == "Phone"
    assert [devices[one]["current"] for one in (sid, lost)] == [True, False]
    eve = example.browser()
    eve.cookies.update(await logged_in_cookie(example.sessions, "eve"))
    assert (await eve.delete(f"/sessions/{lost}")).status_code == 404
    assert (await here.delete(f"/sessions/{lost}")).status_code == 204
    out = await phone.get("/sessions")
    assert out.status_code == 401
    assert example.detail(out.json())["reason"] == "revoked"


async def test_an_example_changes_the_password_of_whoever_has_just_given_it(
    example: Example, clock: Clock
) -> None:
    here, phone = example.browser(), example.browser(agent="Phone")
    sid, _ = await log_in(here), await log_in(phone)
    (since,) = {s.authenticated_at for s in await example.sessions.list_sessions("ann")}
    clock.turn(timedelta(minutes=10, microseconds=1))
    new = {"password": "new-tree"}
    refused = await here.put("/password", json=new)
    assert refused.status_code == 403
    facts = example.detail(refused.json())
    assert since is not None
    assert facts == {
        "error": "insufficient_user_authentication",
        "error_description": facts["error_description"],
        "authenticated_at": since.isoformat(),
        "max_age": 600,
    }
    assert (await here.post("/confirm", json={"password": "wrong"})).status_code == 401
    assert (await here.post("/confirm", json={"password": ANN["password"]})).status_code == 204
    changed = await here.put("/password", json=new)
    assert changed.status_code == 204, changed.text
    assert set_cookies(changed)
    assert (await here.get("/")).json() == {"hello": "ann"}
    assert (await phone.get("/")).json() == {"hello": "stranger"}
    assert [one.sid for one in await example.sessions.list_sessions("ann")] == [sid]
    assert (await phone.post("/login", json=ANN)).status_code == 401
    assert (await phone.post("/login", json={**ANN, **new})).status_code == 200


async def test_a_change_of_the_password_that_fails_ends_nothing(
    example: Example, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, phone = example.browser(raise_app_exceptions=False), example.browser(agent="Phone")
    await log_in(here)
    await log_in(phone)
    execute = Database.execute
    done: list[str] = []

    async def fails_at_the_last(self: Database, query: Any, *values: Any) -> Any:
        result = await execute(self, query, *values)
        done.append(str(query))
        if len(done) == 2:
            raise RuntimeError("the power is out")
        return result

    monkeypatch.setattr(Database, "execute", fails_at_the_last)
    assert (await here.put("/password", json={"password": "new-tree"})).status_code == 500
    monkeypatch.undo()
    assert [statement.split()[1] for statement in done] == ["people", "sessions"]
    assert (await phone.get("/")).json() == {"hello": "ann"}
    assert len(await example.sessions.list_sessions("ann")) == 2
    assert (await phone.post("/login", json=ANN)).status_code == 200


async def test_the_document_of_an_example_names_the_cookie_and_who_asks_for_it(
    example: Example,
) -> None:
    document = (await example.browser().get(example.document)).json()
    cookie = document["components"]["securitySchemes"]["session"]
    assert (cookie["type"], cookie["in"], cookie["name"]) == ("apiKey", "cookie", "__Host-sid")
    guarded, fresh = set(), set()
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if operation.get("security"):
                guarded.add(f"{method} {path}")
                assert "401" in operation["responses"]
                if "403" in operation["responses"]:
                    fresh.add(f"{method} {path}")
    assert fresh == {"put /password"}
    assert guarded == {
        "get /sessions",
        "delete /sessions/{sid}",
        "post /confirm",
        "put /password",
    }


@pytest.mark.parametrize("who", ["stranger", "logged in", "fresh"])
def test_the_fastapi_example_keeps_what_its_document_promises(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    app, sessions = make(fastapi_app, tmp_path, clock, monkeypatch)
    schema = schemathesis.openapi.from_dict(app.openapi())
    # That check would take our cookie for a wrong one, which has to be refused.
    unfit = [] if who == "stranger" else [ignored_auth]
    answers: dict[str, set[int]] = defaultdict(set)
    with TestClient(app, base_url="https://test") as client:
        portal = client.portal
        assert portal is not None

        def ask(case: schemathesis.Case[Any]) -> None:
            question = case.as_transport_kwargs(base_url=str(client.base_url))
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
