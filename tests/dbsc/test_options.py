"""The options of `DBSC`, and its page.

The reasons of refusals, which the page explains, are a private type.
"""

from __future__ import annotations

import sys
from datetime import timedelta
from importlib import import_module
from typing import Any, get_args

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from asgi_sessions import ConfigurationError, Sessions
from asgi_sessions._dbsc.refusal import Reason
from asgi_sessions.dbsc import DBSC, SkipReason
from tests.support import KEY, Browser, make_app
from tests.support.dbsc import LIFE, SECOND, World
from tests.support.devices import PATH
from tests.support.pages import table
from tests.support.repository import DOCS

PAGE = DOCS / "dbsc.md"


def test_the_defaults_are_those_of_the_page() -> None:
    dbsc = DBSC()
    assert (dbsc.cookie_lifetime, dbsc.path, dbsc.on_skipped) == (LIFE, PATH, "refuse")


@pytest.mark.parametrize(
    "options",
    [
        {"cookie_lifetime": 600},
        {"cookie_lifetime": timedelta(seconds=3)},
        {"cookie_lifetime": timedelta(days=2)},
        {"path": None},
        {"path": ""},
        {"path": "dbsc"},
        {"path": "/dbsc/"},
        {"path": '/a"b'},
        {"path": "/a b"},
        {"on_skipped": "allow"},
        {"on_skipped": {"whatever"}},
        {"on_skipped": 7},
        {"on_skipped": "unreachable"},
    ],
)
def test_a_wrong_option_is_refused_with_its_mend(options: dict[str, Any]) -> None:
    ((name, value),) = options.items()
    with pytest.raises(ConfigurationError) as caught:
        DBSC(**options)
    assert f"{name}={value!r}: use " in str(caught.value)


def test_all_wrong_options_are_told_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        DBSC(cookie_lifetime=SECOND, path="", on_skipped="never")  # type: ignore[arg-type]
    assert all(
        f"{name}=" in str(caught.value) for name in ("cookie_lifetime", "path", "on_skipped")
    )


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({"cookie_secure": False}, "dbsc needs cookie_secure=True"),
        ({"cookie_domain": "example.com"}, "dbsc needs cookie_domain=None"),
        ({"cookie_path": "/app"}, "dbsc needs cookie_path='/'"),
        ({"cookie_partitioned": True}, "dbsc needs cookie_partitioned=False"),
        ({"dbsc": True}, "dbsc=True: use asgi_sessions.dbsc.DBSC(), or None"),
    ],
)
def test_options_that_leave_no_bound_cookie_are_refused(
    options: dict[str, Any], needed: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Sessions("sqlite:///s.db", **{"secret_key": KEY, "dbsc": DBSC(), **options})
    assert needed in str(caught.value)


def test_without_its_libraries_the_module_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("asgi_sessions")]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("joserfc", "joserfc.errors", "cryptography"):
        monkeypatch.setitem(sys.modules, name, None)
    import_module("asgi_sessions")  # which needs none of them
    with pytest.raises(ImportError, match=r"install asgi-login-sessions\[dbsc\]"):
        import_module("asgi_sessions.dbsc")


def test_the_page_explains_each_reason() -> None:
    reasons = [row[0].strip("`") for row in table(PAGE, "What is logged")]
    assert reasons == sorted(get_args(Reason))


def test_each_reason_of_a_browser_is_known() -> None:
    assert DBSC(on_skipped=get_args(SkipReason)).on_skipped == get_args(SkipReason)


async def test_another_app_in_the_same_process_is_left_alone(world: World) -> None:
    async def other(request: Request) -> Response:
        return JSONResponse({"path": request.url.path})

    app = make_app(world.sessions, Route("/other{rest:path}", other))
    browser = Browser(app)
    response: httpx.Response = await browser.get(f"/other{PATH}/register")
    assert response.json() == {"path": f"/other{PATH}/register"}
