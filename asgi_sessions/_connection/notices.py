"""Warns, of each thing once, that another layer and the middleware do not get along."""

from __future__ import annotations

import re
from typing import Literal

from starlette.types import Scope

from asgi_sessions._model.device import headers_of
from asgi_sessions._service.events import logger

Notice = Literal[
    "shared_state",
    "state_overwritten",
    "session_hidden",
    "person_behind",
    "cookie_over_http",
    "not_signed_out",
]

#: What is logged.
TEXTS: dict[Notice, str] = {
    "shared_state": (
        "the server gives the requests of a connection one scope['state'], in which they see one "
        "another's; here each request gets its own"
    ),
    "state_overwritten": (
        "another layer has written to request.state.session, which is not the session any more: "
        "read sessions.current(request), or give one of the two another name"
    ),
    "session_hidden": (
        "a layer behind SessionMiddleware has put a request.session of its own in the place of "
        "ours, which goes on without it: a mounted app without that layer shares ours"
    ),
    "person_behind": (
        "a layer behind SessionMiddleware puts a user into the scope, for whom no session is kept "
        "and none can be ended: let that layer run before SessionMiddleware"
    ),
    "cookie_over_http": (
        "a login came over plain http, where browsers drop its Secure cookie: serve https; behind "
        "a proxy that does, have the server read X-Forwarded-Proto; only in development, pass "
        "cookie_secure=False"
    ),
    "not_signed_out": (
        "SessionMiddleware(person=...) still finds somebody who was signed out, who is refused "
        "with 401: pass sign_out=..., a function that takes them out of the scope"
    ),
}

#: Hosts that browsers trust without https.
_LOOPBACK = re.compile(
    rb"(localhost|[a-z0-9.-]+\.localhost|127\.[0-9.]+|\[::1\])(:\d+)?", re.IGNORECASE
)


class Notices:
    """What one middleware has warned of."""

    def __init__(self) -> None:
        self._given: set[Notice] = set()

    def give(self, notice: Notice) -> None:
        """Warn, unless that was done before."""
        if notice not in self._given:
            self._given.add(notice)
            logger.warning(TEXTS[notice], extra={"event": notice})


def drops_secure_cookies(scope: Scope) -> bool:
    """Whether the browser of a request drops a Secure cookie: over plain http it takes one from its
    own machine alone.
    """
    if scope.get("scheme") != "http":
        return False
    hosts = [value for name, value in headers_of(scope) if name == b"host"]
    return bool(hosts) and not _LOOPBACK.fullmatch(hosts[0])
