"""Answers that the middleware gives in place of the app: the database is down, or the person is
signed out.
"""

from __future__ import annotations

from starlette.types import Scope, Send

from asgi_sessions._errors import SessionsUnavailable
from asgi_sessions._model.carrier import Carriers, raw_header

from .revocable import POLICY_VIOLATION


class Answers:
    """Answers requests; a WebSocket is closed where the server cannot answer it.

    Args:
        carriers: by what clients bring their sessions.
    """

    def __init__(self, carriers: Carriers) -> None:
        self._vary = raw_header(carriers.vary)
        self._challenge = raw_header(carriers.challenge)

    async def unavailable(self, scope: Scope, send: Send, error: SessionsUnavailable) -> None:
        """Answer 503; the cookie stays as it is (ASVS 16.5.2)."""
        retry = (b"retry-after", b"%d" % error.retry_after)
        close = (1013, "try again later")
        await self._answer(scope, send, 503, b"Service Unavailable", header=retry, close=close)

    async def signed_out(self, scope: Scope, send: Send, reason: str | None) -> None:
        """Answer 401, with the reason why the person's session has ended."""
        text = b"Signed out" if reason is None else f"Signed out: {reason}".encode()
        close = (POLICY_VIOLATION, "signed out")
        await self._answer(scope, send, 401, text, header=self._challenge, close=close)

    async def _answer(
        self,
        scope: Scope,
        send: Send,
        status: int,
        text: bytes,
        *,
        header: tuple[bytes, bytes],
        close: tuple[int, str],
    ) -> None:
        prefix = ""
        if scope["type"] == "websocket":
            if "websocket.http.response" not in scope.get("extensions", {}):
                await send({"type": "websocket.close", "code": close[0], "reason": close[1]})
                return
            prefix = "websocket."
        headers = [
            (b"content-type", b"text/plain; charset=utf-8"),
            header,
            (b"cache-control", b"no-store"),
            self._vary,
        ]
        await send({"type": f"{prefix}http.response.start", "status": status, "headers": headers})
        await send({"type": f"{prefix}http.response.body", "body": text})
