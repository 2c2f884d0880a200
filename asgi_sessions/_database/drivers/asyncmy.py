"""MariaDB and MySQL, by asyncmy."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.mysql import asyncmy

from .base import Raw
from .mysql import MySQLDriver


class AsyncmyDriver(MySQLDriver):
    """asyncmy."""

    def __init__(self) -> None:
        super().__init__(asyncmy.dialect())

    def socket(self, raw: Raw) -> Any:  # noqa: ANN401 -- of asyncio, of uvloop
        transport = getattr(raw, "_transport", None)  # there is no public one
        return None if transport is None else transport.get_extra_info("socket")
