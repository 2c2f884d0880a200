"""An ASGI app that takes one signed message at a time from a provider."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from asgi_sessions._errors import SessionsUnavailable
from asgi_sessions._model.device import device_from_scope, headers_of
from asgi_sessions._service.core import Core

from .refusal import KeysUnavailable, Refusal
from .verifying import LENGTH

#: Bytes of a body: a token, and what a form puts around it.
LARGEST = LENGTH + 16_384
_NOT_STORED = {"Cache-Control": "no-store"}
#: RFC 8935, 2.3: the language of the description.
_IN_ENGLISH = {"Content-Language": "en"}


class Receiver(ABC):
    """What all such apps have in common.

    Args:
        core: the steps of a session's life.
        media_type: of the body.
    """

    def __init__(self, core: Core, media_type: str) -> None:
        self._core = core
        self._media_type = media_type

    @abstractmethod
    async def take(self, body: bytes) -> Response:
        """Do what a message says.

        Raises:
            Refusal: if it does not count.
            KeysUnavailable: if that cannot be told now.
            SessionsUnavailable: if the database does not answer.
        """

    @abstractmethod
    def refused(self, refusal: Refusal) -> Mapping[str, str]:
        """What the provider is told, as JSON."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        response = await self._respond(scope, receive)
        response.headers.update(_NOT_STORED)
        await response(scope, receive, send)

    async def _respond(self, scope: Scope, receive: Receive) -> Response:
        if scope.get("method") != "POST":
            return JSONResponse({"detail": "use POST"}, 405, headers={"Allow": "POST"})
        try:
            return await self.take(await self._body(scope, receive))
        except Refusal as refusal:
            self._tell(scope, refusal.reason)
            return JSONResponse(self.refused(refusal), 400, headers=_IN_ENGLISH)
        except KeysUnavailable as error:
            self._tell(scope, error.reason)
            return _later(error.retry_after)
        except SessionsUnavailable as error:
            self._core.events.unavailable(error)
            return _later(error.retry_after)

    async def _body(self, scope: Scope, receive: Receive) -> bytes:
        headers = Headers(raw=list(headers_of(scope)))
        given = headers.get("content-type", "").partition(";")[0].strip().lower()
        if given != self._media_type:
            raise Refusal(f"no {self._media_type}")
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal("cut short")
            body += message.get("body", b"")
            if len(body) > LARGEST:
                raise Refusal("too long")
            more = message.get("more_body", False)
        return body

    def _tell(self, scope: Scope, reason: str) -> None:
        self._core.events.signal_refused(
            reason, lambda: self._core.address(device_from_scope(scope))
        )


def _later(seconds: int) -> Response:
    return JSONResponse({"detail": "try again later"}, 503, headers={"Retry-After": str(seconds)})
