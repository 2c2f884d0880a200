"""Where a session may be bound to a device: what the core asks for, and nothing of how.

`asgi_sessions.dbsc` is the one implementation. It needs a library that the core does without.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

from starlette.types import Receive, Scope, Send

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.row import Row
from asgi_sessions._service.core import Core

from .context import RequestContext

Headers = list[tuple[bytes, bytes]]
Respond = Callable[[Scope, Receive, Send], Awaitable[None]]


class Binding(ABC):
    """Binds sessions to devices. A session is bound when its row says so (`Row.binding`): since
    the first time that its browser has shown that it can prove the device (`enforced_at`).
    """

    @abstractmethod
    def responder(self, scope: Scope) -> Respond | None:
        """What answers this request in place of the app."""

    @abstractmethod
    async def proven(
        self, scope: Mapping[str, Any], context: RequestContext, row: Row, now: datetime
    ) -> Row | None:
        """The row of a registered device, as it is after this request, if the device has proved
        itself a short while ago, or needs not; else None.
        """

    @abstractmethod
    def headers(self, context: RequestContext) -> Headers:
        """What a response that sets or clears the cookie has to say beside."""


class DeviceBinding(ABC):
    """What ``Sessions(dbsc=...)`` takes: `asgi_sessions.dbsc.DBSC`."""

    @abstractmethod
    def _unfit(self, options: Mapping[str, Any]) -> list[str]:
        """What speaks against it in the options of `Sessions`."""

    @abstractmethod
    def _attach(self, core: Core) -> Binding:
        """The binding for these sessions."""


def check_binding(dbsc: object, options: Mapping[str, Any]) -> None:
    """Refuse an option `dbsc` that cannot work beside the others.

    Raises:
        ConfigurationError: with every error and its mend.
    """
    if dbsc is None:
        return
    if not isinstance(dbsc, DeviceBinding):
        raise ConfigurationError(f"dbsc={dbsc!r}: use asgi_sessions.dbsc.DBSC(), or None")
    if errors := dbsc._unfit(options):
        raise ConfigurationError("; ".join(errors))
