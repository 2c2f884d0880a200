"""aiomysql that insists on TLS.

Where a server says that it has none, aiomysql goes on in plain text, password and all; and so says
whoever stands between the two. (asyncmy starts TLS whatever the server says.) Its pool cannot be
told how to connect, so we have a pool module of our own: the same code, with another `connect`.
"""

from __future__ import annotations

import getpass
from importlib.util import find_spec, module_from_spec
from typing import Any

import aiomysql
from databases.backends.mysql import MySQLBackend

#: CLIENT_SSL among a server's capabilities, and CR_SSL_CONNECTION_ERROR.
_HAS_TLS, _NO_TLS = 1 << 11, 2026


class _Connection(aiomysql.Connection):  # type: ignore[misc]  # aiomysql has no types
    async def _request_authentication(self) -> None:
        """What comes first that is not for everybody's ears."""
        if not self.server_capabilities & _HAS_TLS:
            raise aiomysql.OperationalError(
                _NO_TLS, "the server has no TLS, and the URL asks for it"
            )
        await super()._request_authentication()


async def _connect(**options: Any) -> _Connection:  # noqa: ANN401 -- the driver's
    connection = _Connection(**options)
    await connection._connect()  # noqa: SLF001 -- what its own `connect` does
    return connection


class EncryptedBackend(MySQLBackend):
    """The `databases.Database` of aiomysql, encrypted or not at all."""

    async def connect(self) -> None:
        """As its own, with the pool of ours."""
        url = self._database_url
        self._pool = await _pools.create_pool(
            host=url.hostname,
            port=url.port or 3306,
            user=url.username or getpass.getuser(),
            password=url.password,
            db=url.database,
            autocommit=True,
            **self._get_connection_kwargs(),
        )


def _own_pools() -> Any:  # noqa: ANN401 -- a module
    spec = find_spec("aiomysql.pool")
    assert spec is not None  # noqa: S101 -- for the type checker
    assert spec.loader is not None  # noqa: S101 -- as above
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    module.connect = _connect  # type: ignore[attr-defined]  # whatever the module has
    return module


_pools = _own_pools()
