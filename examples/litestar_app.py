"""Login, a page of one's devices and logout in Litestar: ``python examples/litestar_app.py``.

Open http://127.0.0.1:8000/sessions/ in two browsers, log in to both as ann with the password
apple-tree, and end one session from the other. Needs litestar and uvicorn.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from typing import Any

import uvicorn
from litestar import Litestar, MediaType, Request, asgi, get, post
from litestar.exceptions import PermissionDeniedException
from litestar.params import URLEncodedBody
from litestar.response import Redirect

from asgi_sessions import Sessions
from asgi_sessions.litestar import CurrentSession, SessionsPlugin

PASSWORDS = {"ann": "apple-tree"}  # a real app keeps hashes, as example_app.py does
FORM = """<!doctype html><html lang="en"><title>Log in</title><form method="post">
<p><label>Name <input name="name" autocomplete="username"></label></p>
<p><label>Password <input name="password" type="password"></label></p>
<p><button>Log in</button></p></form></html>"""


@dataclass
class Login:
    """What the form brings."""

    name: str
    password: str


@get("/login", media_type=MediaType.HTML)
async def form() -> str:
    """The form to log in with."""
    return FORM


@get("/me")
async def me(current_session: CurrentSession) -> dict[str, str]:
    """Who it is; without a session, the answer is a 401 that says why."""
    return {"person": current_session.person_id, "sid": current_session.sid}


def create_app(sessions: Sessions) -> Litestar:
    """The app on these sessions."""

    @post("/login", status_code=303, raises=[PermissionDeniedException])
    async def login(request: Request[Any, Any, Any], data: URLEncodedBody[Login]) -> Redirect:
        """Check what the form brings. A real app also slows down who guesses."""
        # No other site may log its visitors in. For older browsers see example_app.py.
        if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
            raise PermissionDeniedException("cross-site request refused")
        if PASSWORDS.get(data.name) != data.password:
            raise PermissionDeniedException("name and password do not fit")
        await sessions.start_session(request, {"id": data.name})
        return Redirect("/sessions/", status_code=303)

    logout = asgi("/logout", copy_scope=True)(sessions.end_session_endpoint(redirect_to="/login"))
    routes = sessions.routes(login_url="/login", home_url="/me")
    devices = asgi("/sessions", is_mount=True, copy_scope=True)(routes)
    return Litestar(
        [form, login, me, logout, devices],
        on_startup=[sessions.create_tables],
        plugins=[SessionsPlugin(sessions)],
    )


if __name__ == "__main__":
    url = os.environ.get("DATABASE_URL", "sqlite:///litestar-demo.db")
    key = os.environ.get("SECRET_KEY") or secrets.token_urlsafe(32)  # a new one logs everybody out
    own = Sessions(url, secret_key=key, cookie_secure=False)  # False is for plain http alone
    port = int(os.environ.get("PORT", "8000"))
    uvicorn.run(create_app(own), host="127.0.0.1", port=port, proxy_headers=False)
