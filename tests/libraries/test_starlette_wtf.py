"""starlette-wtf keeps the secret of its CSRF tokens in ``request.session``."""

from __future__ import annotations

import re

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from asgi_sessions import SessionMiddleware, Sessions
from tests.support import Browser, set_cookies
from tests.support.libraries import need

need("starlette_wtf")

FROM_HERE = {"referer": "https://test/login"}


def make_app(sessions: Sessions) -> Starlette:
    from starlette_wtf import CSRFProtectMiddleware, StarletteForm, csrf_protect
    from wtforms import StringField
    from wtforms.validators import DataRequired

    class Login(StarletteForm):
        name = StringField(validators=[DataRequired()])

    @csrf_protect
    async def login(request: Request) -> Response:
        form = await Login.from_formdata(request)
        if await form.validate_on_submit():
            await sessions.start_session(request, {"id": form.name.data})
            return RedirectResponse("/", 303)
        return PlainTextResponse(str(form.csrf_token))

    async def home(request: Request) -> Response:
        session = request.state.session
        return PlainTextResponse(session and session.person_id)

    app = Starlette(
        routes=[Route("/", home), Route("/login", login, methods=["GET", "POST"])],
    )
    app.add_middleware(CSRFProtectMiddleware, csrf_secret="of the tokens")
    app.add_middleware(SessionMiddleware, sessions=sessions)
    return app


async def token_of(browser: Browser) -> str:
    """The token in the form that a browser is shown."""
    (token,) = re.findall(r'value="(.*?)"', (await browser.get("/login")).text)
    return str(token)


async def test_a_form_is_taken_with_its_token_alone(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    token = await token_of(browser)
    without = await browser.post("/login", data={"name": "ada"}, headers=FROM_HERE)
    assert (without.status_code, without.text) == (403, "The CSRF token is missing.")
    form = {"name": "ada", "csrf_token": token}
    login = await browser.post("/login", data=form, headers=FROM_HERE)
    assert login.status_code == 303
    assert len(set_cookies(login)) == 1
    assert (await browser.get("/")).text == "ada"


async def test_the_token_of_another_browser_does_not_count(plain: Sessions) -> None:
    app = make_app(plain)
    browser, other = Browser(app), Browser(app)
    form = {"name": "ada", "csrf_token": await token_of(other)}
    refused = await browser.post("/login", data=form, headers=FROM_HERE)
    assert (refused.status_code, refused.text) == (403, "The CSRF session token is missing.")
    await browser.get("/login")
    refused = await browser.post("/login", data=form, headers=FROM_HERE)
    assert (refused.status_code, refused.text) == (403, "The CSRF tokens do not match.")


async def test_a_form_that_was_open_during_a_login_still_counts(plain: Sessions) -> None:
    browser = Browser(make_app(plain))
    form = {"name": "ada", "csrf_token": await token_of(browser)}
    assert (await browser.post("/login", data=form, headers=FROM_HERE)).status_code == 303
    assert (await browser.post("/login", data=form, headers=FROM_HERE)).status_code == 303
