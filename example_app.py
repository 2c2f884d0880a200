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
from datetime import UTC, datetime
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
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_sessions import Session, SessionMiddleware, Sessions

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
        return AuthCredentials(["authenticated"]), User(TOKENS[token])


def token_refused(_: HTTPConnection, fault: Exception) -> Response:
    """The answer to a token that nobody issued."""
    headers = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
    return JSONResponse({"detail": str(fault)}, 401, headers)


# --- the handlers -------------------------------------------------------------------------------


async def home(request: Request) -> Response:
    """Who you are and where else you are logged in; without a session, the login form."""
    sessions: Sessions = request.app.state.sessions
    session: Session | None = request.state.session
    if session is None:
        return login_page(request)
    live = await sessions.list_sessions(session.person_id)
    sids = {one.sid for one in live}
    known = await sessions.list_sessions(session.person_id, include_ended=True)
    ended = [one for one in known if one.sid not in sids]
    return home_page(session, live, ended)


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


async def end_one(request: Request) -> Response:
    """End one of your own sessions; somebody else's looks like one that never was."""
    sessions: Sessions = request.app.state.sessions
    session: Session | None = request.state.session
    if session is not None:
        sid = request.path_params["sid"]
        if await sessions.end_session_by_id(sid, person_id=session.person_id) is None:
            return page("Not found", "<h1>You have no such session</h1>", status=404)
    return RedirectResponse("/", 303)


async def end_others(request: Request) -> Response:
    """End all of your sessions but this one."""
    sessions: Sessions = request.app.state.sessions
    await sessions.end_other_sessions(request)
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
            Route("/sessions/end-others", end_others, methods=["POST"]),
            Route("/sessions/{sid}/end", end_one, methods=["POST"]),
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

STYLE = """
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --card: #fff; --ink: #1c2330; --soft: #5c6675; --line: #dfe3e9;
  --accent: #2357c5; --on-accent: #fff; --good: #0f6b43; --good-ground: #dcf3e7;
  --bad: #a8232f; --bad-ground: #fde8e8;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #12161d; --card: #1b212b; --ink: #e7ebf1; --soft: #9aa6b6; --line: #2e3743;
    --accent: #8ab4ff; --on-accent: #0d1a33; --good: #7fd8ae; --good-ground: #173a2b;
    --bad: #ff9a9f; --bad-ground: #41202a;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; padding: 2rem 1rem 4rem; max-width: 44rem; background: var(--ground);
  color: var(--ink); font: 1rem/1.5 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif;
}
h1 { margin: 0 0 .25rem; font-size: 1.75rem; line-height: 1.2; }
h2 { margin: 2.5rem 0 .75rem; font-size: 1.125rem; }
p { margin: .125rem 0 0; }
code { font: .8125rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.soft { color: var(--soft); font-size: .875rem; }
a { color: var(--accent); }
time { white-space: nowrap; }
ul { margin: 0; padding: 0; list-style: none; }
li, .card {
  padding: .875rem 1rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .625rem;
}
li { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin-top: .5rem; }
li > div { flex: 1 1 16rem; min-width: 0; overflow-wrap: anywhere; }
.ended { padding-block: .5rem; background: none; border-style: dashed; }
.row { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: center; margin-top: 1rem; }
.badge {
  padding: .125rem .5rem; background: var(--good-ground); border-radius: 1rem;
  color: var(--good); font-size: .75rem; font-weight: 600; white-space: nowrap;
}
.note {
  margin: 0 0 1.5rem; padding: .75rem 1rem; background: var(--bad-ground);
  border-radius: .625rem; color: var(--bad);
}
button {
  padding: .5rem .875rem; background: var(--card); border: 1px solid var(--line);
  border-radius: .5rem; color: inherit; font: inherit; font-size: .875rem; cursor: pointer;
}
button:hover { border-color: currentColor; }
.end { color: var(--bad); }
.main { background: var(--accent); border-color: var(--accent); color: var(--on-accent); }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.login { max-width: 24rem; margin: 1.5rem 0; padding: 1.25rem; }
label { display: block; margin-bottom: 1rem; font-weight: 600; }
label.check { font-weight: 400; }
input:not([type=checkbox]) {
  display: block; width: 100%; margin-top: .25rem; padding: .5rem .625rem; color: inherit;
  background: var(--ground); border: 1px solid var(--soft); border-radius: .5rem;
  font: inherit; font-weight: 400;
}
"""

HEADERS = {
    "Cache-Control": "no-store",  # the list must not come back with the Back button
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'; img-src data:; "
    f"style-src 'sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

REASONS = {
    "logout": "logged out",
    "revoked": "ended from another device",
    "replaced": "replaced by a new login in the same browser",
    "person_changed": "somebody else came in the same browser",
    "expired": "expired",
    "reuse": "ended because its cookie was used twice: it may have been stolen",
    "not_delivered": "ended because its cookie never arrived",
}

BROWSERS = {"Edg": "Edge", "OPR/": "Opera", "Firefox/": "Firefox", "FxiOS/": "Firefox"}
BROWSERS |= {"CriOS/": "Chrome", "Chrome/": "Chrome", "Safari/": "Safari"}
SYSTEMS = {"iPhone": "iPhone", "iPad": "iPad", "Android": "Android", "Windows": "Windows"}
SYSTEMS |= {"Mac OS X": "macOS", "CrOS": "ChromeOS", "Linux": "Linux"}


def page(title: str, body: str, *, status: int = 200) -> Response:
    """A whole page; `body` is HTML in which everything foreign is escaped."""
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
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
    note = error or (reason and f"Your session on this device is over: {in_words(reason)}.")
    hint = "Log in from two browsers and end one from the other."
    if session is not None:
        hint = f"You are {session.person_id.capitalize()}; another login here ends that session."
    people = "".join(f"<br><code>{name} {word}</code>" for name, word in PASSWORDS.items())
    body = f"""{f'<p class="note" role="alert">{escape(note)}</p>' if note else ""}
<h1>Log in</h1>
<p class="soft">{escape(hint)}</p>
<form class="card login" method="post" action="/login">
  <label>Name <input name="name" value="{escape(name)}" autocomplete="username"
    autocapitalize="none" maxlength="50" required autofocus></label>
  <label>Password <input name="password" type="password" autocomplete="current-password"
    maxlength="200" required></label>
  <label class="check"><input name="remember" type="checkbox" value="1"> Remember me</label>
  <button class="main">Log in</button>
</form>
<p class="soft">Demo people and their passwords:{people}</p>"""
    return page("Log in", body, status=403 if error else 200)


def home_page(session: Session, live: list[Session], ended: list[Session]) -> Response:
    """The person's sessions."""
    now = datetime.now(UTC)  # noqa: TID251 -- "5 minutes ago" is the page's own affair
    others = button("/sessions/end-others", "End all others") if len(live) > 1 else ""
    body = f"""<h1>Hello, {escape(session.person_id.capitalize())}</h1>
<p class="soft">This session: <code>{escape(session.sid)}</code></p>
<div class="row">{button("/logout", "Log out", "main")}
  <a href="/login">Log in as somebody else</a></div>
<h2>Where you are logged in</h2>
<ul>{"".join(live_item(one, now, here=one.sid == session.sid) for one in live)}</ul>
<div class="row">{others}</div>"""
    if ended:
        latest = sorted(ended, key=over_at, reverse=True)[:10]
        items = "".join(ended_item(one, now) for one in latest)
        body += f"\n<h2>Recently ended</h2>\n<ul>{items}</ul>"
    return page("Your sessions", body)


def live_item(session: Session, now: datetime, *, here: bool) -> str:
    """A live session, with its button unless it is the one in use."""
    mark = '<span class="badge">this device</span>'
    end = button(f"/sessions/{session.sid}/end", "End", "end")
    return f"""
<li><div><strong>{device(session)}</strong> {mark if here else ""}
  <p class="soft">{escape(session.ip_address or "unknown address")} ·
    started {ago(session.started_at, now)} · last seen {ago(session.last_seen_at, now)}</p>
  <p class="soft"><code>{escape(session.sid)}</code></p></div>{"" if here else end}</li>"""


def ended_item(session: Session, now: datetime) -> str:
    """A session that is over, and why."""
    return f"""
<li class="ended"><div><strong>{device(session)}</strong>
  <p class="soft">{escape(in_words(session.end_reason or "expired"))},
    {ago(over_at(session), now)}</p></div></li>"""


def over_at(session: Session) -> datetime:
    """When it ended; one that ran out may not have been marked as ended yet."""
    return session.ended_at or min(session.expires_at, session.idle_expires_at)


def button(action: str, label: str, kind: str = "") -> str:
    """A form of one button: what changes something is a POST."""
    return (
        f'<form method="post" action="{escape(action)}"><button class="{kind}">{label}</button>'
        "</form>"
    )


def device(session: Session) -> str:
    """Such as "Firefox on Linux", or what the client calls itself. As HTML."""
    agent = session.user_agent or "Unknown device"
    browser = next((name for mark, name in BROWSERS.items() if mark in agent), None)
    system = next((name for mark, name in SYSTEMS.items() if mark in agent), None)
    short = agent if len(agent) <= 40 else f"{agent[:40]}…"  # noqa: PLR2004 -- a line on a phone
    name = f"{browser} on {system}" if browser and system else short
    kind = " (token)" if session.origin == "scope" else ""
    return f'<span title="{escape(agent)}">{escape(name)}</span>{kind}'


def in_words(reason: str) -> str:
    """Why a session ended."""
    return REASONS.get(reason, reason)


def ago(then: datetime, now: datetime) -> str:
    """How long ago, with the exact time on hovering. As HTML."""
    seconds = (now - then).total_seconds()
    text = "just now"
    for unit, size in (("minute", 60), ("hour", 3600), ("day", 86400)):
        if seconds >= 2 * size:
            text = f"{seconds // size:.0f} {unit}s ago"
    exact = f"{then:%Y-%m-%d %H:%M} UTC"
    return f'<time datetime="{then.isoformat()}" title="{exact}">{text}</time>'


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
Open {at} in two browsers and log in. Name and password:
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
    )
    logging.basicConfig(format="%(levelname)s:     %(message)s")
    logging.getLogger("asgi_sessions").setLevel("INFO")  # each start and end of a session
    print(what_to_try(f"http://127.0.0.1:{port}"), flush=True)  # noqa: T201 -- to the person
    # There is no proxy in front, so nobody may name their own address.
    uvicorn.run(create_app(sessions), host="127.0.0.1", port=port, proxy_headers=False)


if __name__ == "__main__":
    main()
