"""MariaDB and MySQL, by aiomysql."""

from __future__ import annotations

from typing import Any

from sqlalchemy.dialects.mysql import aiomysql

from .base import Raw
from .mysql import MySQLDriver


class AiomysqlDriver(MySQLDriver):
    """aiomysql."""

    def __init__(self) -> None:
        super().__init__(aiomysql.dialect())

    def socket(self, raw: Raw) -> Any:  # noqa: ANN401 -- of asyncio, of uvloop
        transport = getattr(raw, "_writer", None)  # there is no public one
        return None if transport is None else transport.get_extra_info("socket")
