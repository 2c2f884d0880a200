"""Reads what a connection brings for its session: a token, or cookies. What holds no signature of
ours goes no further.
"""

from __future__ import annotations

from functools import partial

from starlette.types import Scope

from asgi_sessions._model.bearer import other_subprotocols, tokens_of
from asgi_sessions._model.device import device_from_scope
from asgi_sessions._model.tokens import Presented
from asgi_sessions._pages.cross_origin import foreign_origin
from asgi_sessions._service.core import Core

from .context import RequestContext


class Reader:
    """Reads tokens and cookies.

    Args:
        core: the steps of a session's life.
    """

    def __init__(self, core: Core) -> None:
        settings = core.settings
        self._core = core
        self._bearer = settings.bearer
        self._data = settings.session_data is not None
        # Whether other cookies count, too: a visitor's, and the mark of the device.
        self._others = self._data or settings.device_marks is not None
        self._trusted = settings.trusted_origins
        self._cookies = settings.cookie.reader()
        self._verify = settings.keys.verify

    def read(self, scope: Scope, context: RequestContext) -> list[Presented] | None:
        """What is said by those whose signature holds; None if nothing of ours came. The secrets
        themselves are in no variable any more when the app runs.

        A client that sends a token of ours means that one: its cookies count for nothing, whatever
        the token is worth.
        """
        if self._bearer and (sent := tokens_of(scope)):
            context.bearer = True
            if scope["type"] == "websocket":
                scope["subprotocols"], context.names_subprotocol = other_subprotocols(scope)
            token = self._verify(sent[0], "bearer") if len(set(sent)) == 1 else None
            if token is None:
                self._note_forged(sent, scope)
            return [] if token is None else [token]
        headers = scope.get("headers", ())
        values = self._cookies(headers)
        if scope["type"] == "websocket" and (values or self._others):
            context.foreign = foreign_origin(headers, self._trusted)
        if not values or context.foreign:
            return None
        tokens, forged = [], []
        for value in values:
            token = self._verify(value)
            if token is not None:
                tokens.append(token)
            elif self._data and (visit := self._verify(value, "visitor")):
                context.visits = (*context.visits, visit)
            else:
                forged.append(value)
        if forged:
            self._note_forged(forged, scope)
        return tokens

    def _note_forged(self, values: list[str], scope: Scope) -> None:
        self._core.note_forged(values, partial(device_from_scope, scope))
