"""A small app that shows its people where they are logged in: ``python example_app.py``.

People log in with a form, or come with a token that another layer checks. Either way each request
has a session that they can see and end. Needs argon2-cffi, python-multipart and uvicorn.
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

import uvicorn
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from sqlalchemy import make_url
from starlette.applications import Starlette
from starlette.authentication import (
    AuthCredentials,
    AuthenticationBackend,
    AuthenticationError,
    SimpleUser,
)
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import Incident, Session, SessionEvent, SessionMiddleware, Sessions

# --- people: your table of them, in small -----------------------------------------------------

PASSWORDS = {"ann": "apple-tree", "ben": "blue-boat", "cleo": "cloud-nine"}
TOKENS = {f"{name}-demo-token": name for name in PASSWORDS}

hasher = PasswordHasher()
hashes = {name: hasher.hash(password) for name, password in PASSWORDS.items()}
nobody = hasher.hash(secrets.token_urlsafe())


class User(SimpleUser):
    """A person; `identity` is what a session knows them by."""

    @property
    def identity(self) -> str:
        """The id."""
        return self.username


class TokenUser(User):
    """A person whom a token vouches for, as their list of sessions says."""

    auth_provider = "a token"


def password_fits(name: str, password: str) -> bool:
    """Whether this is their password. Unknown names take as long as known ones."""
    try:
        return hasher.verify(hashes.get(name, nobody), password)
    except VerifyMismatchError:
        return False


class BearerTokens(AuthenticationBackend):
    """The other layer: takes people's word from ``Authorization: Bearer``, whoever issued it."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, User] | None:
        """The person of a token; None without one."""
        scheme, _, token = conn.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        if token not in TOKENS:
            raise AuthenticationError("unknown token")
        return AuthCredentials(["authenticated"]), TokenUser(TOKENS[token])


def token_refused(_: HTTPConnection, fault: Exception) -> Response:
    """The answer to a token that nobody issued."""
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return JSONResponse({"detail": str(fault)}, 401, headers)


# --- the handlers -------------------------------------------------------------------------------


async def home(request: Request) -> Response:
    """Who you are; without a session, the login form."""
    session: Session | None = request.state.session
    return login_page(request) if session is None else home_page(session)


async def login(request: Request) -> Response:
    """Show the form; check what it brings."""
    if request.method != "POST":
        return login_page(request)
    async with request.form() as form:
        name, password = str(form.get("name", "")), str(form.get("password", ""))
        remember = "remember" in form
    # Beside the event loop, for it takes its time. A real app also counts failures.
    if not await run_in_threadpool(password_fits, name, password):
        return login_page(request, name=name, error="Name and password do not fit.")
    sessions: Sessions = request.app.state.sessions
    await sessions.start_session(request, User(name), remember=remember)
    return RedirectResponse("/", 303)


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
        return JSONResponse(answer, 401, {**headers, "WWW-Authenticate": "Bearer"})
    return JSONResponse(answer, headers=headers)


class RefuseCrossSite:
    """No other site may post in a visitor's name (ASVS 3.5.1). SameSite=Lax is the second lock."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        app = self.app
        changes = scope["type"] == "http" and scope["method"] not in ("GET", "HEAD", "OPTIONS")
        if changes and crosses_sites(Headers(scope=scope)):
            app = JSONResponse({"detail": "cross-site request refused"}, 403)
        await app(scope, receive, send)


def crosses_sites(headers: Headers) -> bool:
    """Whether a browser sent this from the page of another site."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")  # older browsers send this alone; who sends none is no browser
    return origin is not None and origin.partition("://")[2] != headers.get("host")


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
        middleware=[
            Middleware(RefuseCrossSite),
            # What authenticates comes first, so that the sessions know whom it vouches for.
            Middleware(AuthenticationMiddleware, backend=BearerTokens(), on_error=token_refused),
            Middleware(SessionMiddleware, sessions=sessions),
        ],
        lifespan=lifespan,
    )
    app.state.sessions = sessions
    return app


# --- the pages: plain HTML, no script -----------------------------------------------------------

# Beside the style of the page of sessions, which these share.
STYLE = """
:root { --on-accent: #fff; --bad-ground: #fde8e8; }
@media (prefers-color-scheme: dark) { :root { --on-accent: #0d1a33; --bad-ground: #41202a; } }
code { font: .8125rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
form { margin-top: 1.5rem; }
.main { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
.over { margin: 0 0 1.5rem; background: var(--bad-ground); color: var(--bad); }
.login {
  max-width: 24rem; margin-bottom: 1.5rem; padding: 1.25rem; background: var(--card);
  border: 1px solid var(--line); border-radius: .625rem;
}
label { display: block; margin-bottom: 1rem; font-weight: 600; }
label.check { font-weight: 400; }
input:not([type=checkbox]) {
  display: block; width: 100%; margin-top: .25rem; padding: .5rem .625rem; color: inherit;
  background: var(--ground); border: 1px solid var(--soft); border-radius: .5rem;
  font: inherit; font-weight: 400;
}
"""

HEADERS = {
    "Cache-Control": "no-store",  # the page must not come back with the Back button
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; img-src data:; "
    f"style-src 'self' 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
}

REASONS = {
    "logout": "you have logged out",
    "revoked": "ended from another device",
    "replaced": "replaced by a new login in the same browser",
    "expired": "expired",
    "reuse": "ended because its cookie was used twice: it may have been stolen",
}


def page(title: str, body: str, *, status: int = 200) -> Response:
    """A whole page; `body` is HTML in which everything foreign is escaped."""
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/sessions/style.css">
<style>{STYLE}</style>
<main>
{body}
</main>
</html>
""",
        status,
        HEADERS,
    )


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
    people = "".join(f"<br><code>{name} {word}</code>" for name, word in PASSWORDS.items())
    body = f"""{f'<p class="note over" role="alert">{escape(note)}</p>' if note else ""}
<h1>Log in</h1>
<p class="soft">{escape(hint)}</p>
<form class="login" method="post" action="/login">
  <label>Name <input name="name" value="{escape(name)}" autocomplete="username"
    autocapitalize="none" maxlength="50" required autofocus></label>
  <label>Password <input name="password" type="password" autocomplete="current-password"
    maxlength="200" required></label>
  <label class="check"><input name="remember" type="checkbox" value="1"> Remember me</label>
  <button class="main">Log in</button>
</form>
<p class="soft">Demo people and their passwords:{people}</p>"""
    return page("Log in", body, status=403 if error else 200)


def home_page(session: Session) -> Response:
    """Who you are, and where to go."""
    body = f"""<h1>Hello, {escape(session.person_id.capitalize())}</h1>
<p class="soft">This session: <code>{escape(session.sid)}</code></p>
<p><a href="/sessions/">Where you are logged in</a></p>
<p><a href="/login">Log in as somebody else</a></p>
<form method="post" action="/logout"><button class="main">Log out</button></form>"""
    return page("Your session", body)


# --- mail ---------------------------------------------------------------------------------------


def tell_by_mail(event: SessionEvent | Incident) -> None:
    """Of a login on a device where the person has not been seen. A real app sends a mail; make it
    a coroutine then, it runs beside the request.
    """
    if isinstance(event, SessionEvent) and event.new_device:
        session = event.session
        logging.getLogger("mail").info(
            "To %s: new login with %s from %s. If it was not you, end it at /sessions/.",
            *(session.person_id, session.device, session.ip_address),
        )


# --- serving it ---------------------------------------------------------------------------------


def kept_secret(database_url: str) -> str:
    """A key beside the database file, made at the first start, so that logins survive the next."""
    url = make_url(database_url)
    directory = Path(url.database or "").parent if url.get_backend_name() == "sqlite" else Path()
    path = directory / ".demo-secret"
    try:
        opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)  # for its owner alone
    except FileExistsError:
        return path.read_text("ascii")
    with os.fdopen(opened, "w", encoding="ascii") as file:
        file.write(key := secrets.token_urlsafe(32))
    return key


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
        # Plain http, where some browsers drop Secure cookies. Leave it out on https.
        cookie_secure=False,
        on_event=tell_by_mail,
    )
    logging.basicConfig(format="%(levelname)s:     %(message)s")
    logging.getLogger("asgi_sessions").setLevel("INFO")  # each start and end of a session
    logging.getLogger("mail").setLevel("INFO")
    print(what_to_try(f"http://127.0.0.1:{port}"), flush=True)  # noqa: T201 -- to the person
    # There is no proxy in front, so nobody may name their own address.
    uvicorn.run(create_app(sessions), host="127.0.0.1", port=port, proxy_headers=False)


if __name__ == "__main__":
    main()
