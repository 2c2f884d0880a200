"""What an app calls as ``sessions.data``: changes of one key that are right whatever others do."""

from __future__ import annotations

from collections.abc import Callable
from json import loads
from typing import Any

from starlette.types import Scope

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.session_data import MISSING, encode, encode_in_order
from asgi_sessions._store.data import GONE

from .context import Conn, RequestContext
from .data import Change, RequestData


class DataMethods:
    """Changes of one key of ``request.session`` that are right whatever other requests do: each
    works on the value that is in the database at that moment, once across all processes, and shows
    in ``request.session`` of the same request.

    ``conn`` is a request or WebSocket of Starlette, FastAPI or Litestar, or an ASGI scope. On a
    session that has ended meanwhile they change nothing. Each raises `SessionsUnavailable` if the
    database does not answer, `TypeError` and `ValueError` as an assignment does, and
    `InvalidSession` if there is too much.
    """

    def __init__(
        self, data_of: Callable[[Conn], tuple[RequestContext, Scope, RequestData]]
    ) -> None:
        self._of = data_of

    async def pop(self, conn: Conn, key: str, default: Any = None) -> Any:  # noqa: ANN401 -- JSON
        """Remove a key, and return its value, which no other request gets, or `default`. For nonces
        and OAuth's state.
        """

        def pop(old: object) -> tuple[object, object]:
            return MISSING, default if old is MISSING else old

        answer = await self._change(conn, key, pop)
        return default if answer is GONE else answer

    async def increment(self, conn: Conn, key: str, by: float = 1) -> Any:  # noqa: ANN401 -- JSON
        """Add to a number, which begins with 0; the sum, or None if the session has ended."""

        def increment(old: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- JSON
            number = 0 if old is MISSING else old
            if isinstance(number, bool) or not isinstance(number, int | float):
                raise TypeError(f"session[{key!r}] is no number: increment() cannot add to it")
            return number + by, number + by

        answer = await self._change(conn, key, increment)
        return None if answer is GONE else answer

    async def append(
        self,
        conn: Conn,
        key: str,
        value: Any,  # noqa: ANN401 -- JSON
        *,
        keep: int | None = None,
    ) -> list[Any] | None:
        """Add to a list, which begins empty; the list, or None if the session has ended.

        Args:
            conn: the connection.
            key: of the list.
            value: the item that is added at its end.
            keep: how many items stay in the list, the last ones; None for all.
        """
        if keep is not None and keep < 1:
            raise ConfigurationError(f"append(keep={keep}): use 1 and more, or None")

        def append(old: Any) -> tuple[Any, Any]:  # noqa: ANN401 -- JSON
            if old is not MISSING and not isinstance(old, list):
                raise TypeError(f"session[{key!r}] is no list: append() cannot add to it")
            new = [*([] if old is MISSING else old), value]
            new = new if keep is None else new[-keep:]
            return new, new

        answer = await self._change(conn, key, append)
        return None if answer is GONE else list(answer)

    async def replace(self, conn: Conn, key: str, value: Any, *, expected: Any) -> bool:  # noqa: ANN401 -- JSON
        """Assign a value if the present one is as expected; whether it has been assigned.

        Args:
            conn: the connection.
            key: of the value.
            value: the new one.
            expected: the value that has to be there; `MISSING` if there must be none.
        """

        def replace(old: object) -> tuple[object, object]:
            same = _canonical(old) == _canonical(expected)
            return (value if same else old), same

        answer = await self._change(conn, key, replace)
        return answer is True

    async def save(self, conn: Conn) -> bool:
        """Write what has changed, without waiting for the end of a WebSocket or a stream.

        Returns:
            Whether it is written.
        """
        context, scope, data = self._of(conn)
        changes = data.changes(scope)
        return changes is None or await data.save(context, scope, changes)

    async def _change(self, conn: Conn, key: str, change: Change) -> Any:  # noqa: ANN401 -- JSON
        context, scope, data = self._of(conn)
        return await data.change(context, scope, key, change)


def _canonical(value: object) -> str | None:
    """The text by which values are compared: databases give back keys in an order of their own."""
    return None if value is MISSING else encode_in_order(loads(encode(value)))
