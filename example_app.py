"""A small app that shows its people where they are logged in: ``python example_app.py``.

People log in with a form, or come with a token that somebody else has issued. Either way each
request has a session that they can see and end. Needs argon2-cffi, python-multipart and uvicorn.
"""

from __future__ import annotations

import logging
import os
import secrets
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from html import escape
from pathlib import Path
from string import Template

import uvicorn
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import make_url
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import Scope

from asgi_sessions import Incident, Person, Session, SessionEvent, SessionMiddleware, Sessions

# --- people: your table of them, in small -----------------------------------------------------

PASSWORDS = {"ann": "apple-tree", "ben": "blue-boat", "cleo": "cloud-nine"}
TOKENS = {f"{name}-demo-token": name for name in PASSWORDS}

hasher = PasswordHasher()
hashes = {name: hasher.hash(password) for name, password in PASSWORDS.items()}
nobody = hasher.hash(secrets.token_urlsafe())


def password_fits(name: str, password: str) -> bool:
    """Whether this is their password. Unknown names take as long as known ones."""
    try:
        return hasher.verify(hashes.get(name, nobody), password)
    except VerifyMismatchError:
        return False


def person_of_token(scope: Scope) -> Person | None:
    """Whom the token in ``Authorization: Bearer`` vouches for, whoever has issued it."""
    scheme, _, token = Headers(scope=scope).get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or token not in TOKENS:
        return None
    return Person(TOKENS[token], auth_provider="a token")


# --- the handlers -------------------------------------------------------------------------------


async def home(request: Request) -> Response:
    """Who you are; without a session, the login form."""
    session: Session | None = request.state.session
    if session is None:
        return login_page(request)
    return page(HOME, name=session.person_id.capitalize(), sid=session.sid)


async def login(request: Request) -> Response:
    """Show the form; check what it brings."""
    if request.method != "POST":
        return login_page(request)
    if crosses_sites(request.headers):
        return JSONResponse({"detail": "cross-site request refused"}, 403)
    async with request.form() as form:
        name, password = str(form.get("name", "")), str(form.get("password", ""))
        remember = "remember" in form
    # Beside the event loop, for it takes its time. A real app also counts failures.
    if not await run_in_threadpool(password_fits, name, password):
        return login_page(request, name=name, error="Name and password do not fit.")
    sessions: Sessions = request.app.state.sessions
    await sessions.start_session(request, Person(name), remember=remember)
    return RedirectResponse("/", 303)


def crosses_sites(headers: Headers) -> bool:
    """Whether another site's page sent this, to log its visitor in as it likes (ASVS 3.5.1)."""
    if (site := headers.get("sec-fetch-site")) is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")  # older browsers send this alone; who sends none is no browser
    return origin is not None and origin.partition("://")[2] != headers.get("host")


async def me(request: Request) -> Response:
    """The same for programs: 401 with the reason for whoever is out."""
    session: Session | None = request.state.session
    answer = {
        "person": session and session.person_id,
        "sid": request.state.sid,
        "origin": session and session.origin,
        "reason": request.state.session_end_reason,
    }
    headers = {"Cache-Control": "no-store"}
    if session is None:
        refused = "authorization" in request.headers
        headers["WWW-Authenticate"] = 'Bearer error="invalid_token"' if refused else "Bearer"
    return JSONResponse(answer, 401 if session is None else 200, headers)


def create_app(sessions: Sessions) -> Starlette:
    """The app on these sessions."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with sessions:
            await sessions.create_tables()
            await sessions.purge()  # a real app does so every day
            yield

    app = Starlette(
        routes=[
            Route("/", home),
            Route("/login", login, methods=["GET", "POST"]),
            Route("/logout", sessions.end_session_endpoint(redirect_to="/")),
            # Where people see their sessions and end them.
            Mount("/sessions", sessions.routes(login_url="/login", home_url="/")),
            Route("/api/me", me),
        ],
        lifespan=lifespan,
    )
    app.add_middleware(
        SessionMiddleware,
        sessions=sessions,
        person=person_of_token,
        sign_out=lambda _: None,  # the handlers look at no token: there is nothing to take back
    )
    app.state.sessions = sessions
    return app


# --- the pages: plain HTML of examples/demo, no script ------------------------------------------

PAGES = Path(__file__).parent / "examples" / "demo"
LOGIN = Template((PAGES / "login.html").read_text("utf-8"))
HOME = Template((PAGES / "home.html").read_text("utf-8"))
STYLE = (PAGES / "style.css").read_text("utf-8")
STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()

HEADERS = {
    "Cache-Control": "no-store",  # the page must not come back with the Back button
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'self'; "
    f"frame-ancestors 'none'; img-src data:; style-src 'self' 'sha256-{STYLE_HASH}'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

# Those that a browser may find; any other is shown as it is.
REASONS = {
    "revoked": "ended from another device",
    "expired": "expired",
    "reuse": "ended because its cookie was used twice: it may have been stolen",
}


def page(template: Template, *, status: int = 200, **texts: str) -> Response:
    """A page with these texts in it; all of them are escaped here."""
    escaped = {name: escape(text) for name, text in texts.items()}
    return HTMLResponse(template.substitute(escaped, style=STYLE), status, HEADERS)


def login_page(request: Request, *, name: str = "", error: str = "") -> Response:
    """The form, with what went wrong, or why the session that the browser came with is over."""
    session: Session | None = request.state.session
    reason = request.state.session_end_reason
    note = error
    if reason and not note:
        note = f"Your session on this device is over: {REASONS.get(reason, reason)}."
    hint = "Log in from two browsers and end one from the other."
    if session is not None:
        hint = f"You are {session.person_id.capitalize()}; another login here ends that session."
    people = "\n".join(f"{known} {password}" for known, password in PASSWORDS.items())
    status = 403 if error else 200
    return page(LOGIN, status=status, note=note, hint=hint, name=name, people=people)


# --- serving it ---------------------------------------------------------------------------------


def tell_by_mail(event: SessionEvent | Incident) -> None:
    """Of a login on a new device. A coroutine that sends mail would run beside the request."""
    if isinstance(event, SessionEvent) and event.new_device:
        session = event.session
        logging.getLogger("mail").info(
            "To %s: new login with %s from %s. If it was not you, end it at /sessions/.",
            *(session.person_id, session.device, session.ip_address),
        )


def kept_secret(database_url: str) -> str:
    """A key beside the database file, made at the first start, so that logins survive the next."""
    url = make_url(database_url)
    directory = Path(url.database or "").parent if url.get_backend_name() == "sqlite" else Path()
    path = directory / ".demo-secret"
    if not path.exists():
        path.touch(0o600, exist_ok=False)  # for its owner alone, before there is anything in it
        path.write_text(secrets.token_urlsafe(32), "ascii")
    return path.read_text("ascii")


def what_to_try(at: str) -> str:
    """The first steps."""
    people = "\n".join(f"  {name:6}{password}" for name, password in PASSWORDS.items())
    return f"""
Open {at} in two browsers, log in and end one from the other. Name and password:
{people}

With curl, people who log in:
  curl -c ann.jar -d name=ann -d password=apple-tree -d remember=1 {at}/login
  curl -b ann.jar {at}/api/me
  curl -b ann.jar -c ann.jar -X POST {at}/logout

With curl, people whom another layer vouches for. Ask twice: the sid stays. End it in the
browser and ask again: it is out although the token is still good.
  curl -H "Authorization: Bearer ann-demo-token" {at}/api/me
  curl -A "my phone" -H "Authorization: Bearer ann-demo-token" {at}/api/me
"""


def main() -> None:
    """Serve the app on this machine."""
    port = int(os.environ.get("PORT", "8000"))
    database_url = os.environ.get("DATABASE_URL", "sqlite:///demo.db")
    sessions = Sessions(
        database_url,
        secret_key=os.environ.get("SECRET_KEY") or kept_secret(database_url),
        cookie_secure=False,  # some browsers drop Secure cookies on http; leave it out on https
        on_event=tell_by_mail,
    )
    # Each start and end of a session is logged, and what would be a mail.
    logging.basicConfig(level="INFO", format="%(levelname)s:     %(message)s")
    print(what_to_try(f"http://127.0.0.1:{port}"), flush=True)  # noqa: T201 -- to the person
    # There is no proxy in front, so nobody may name their own address.
    uvicorn.run(create_app(sessions), host="127.0.0.1", port=port, proxy_headers=False)


if __name__ == "__main__":
    main()
