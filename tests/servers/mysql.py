"""MySQL servers of the tests' own. Debian's stable releases have none: TEST_MYSQL says where."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from tests.servers.mariadb import MariaDBServer, base
from tests.servers.process import ServerError, find_binary, options, run

#: Small, on this port alone, and waiting for no disk.
_SETTINGS = {
    "bind-address": "127.0.0.1",
    "innodb-buffer-pool-size": "64M",
    "innodb-flush-log-at-trx-commit": "2",
    "max-connections": "300",
    "mysqlx": "0",
    "performance-schema": "OFF",
    "secure-file-priv": "NULL",  # no directory of the system's
    "skip-log-bin": "1",
    "skip-name-resolve": "1",
}

_FIRST_STATEMENTS = """\
CREATE USER root@'%' IDENTIFIED BY '';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
CREATE DATABASE test;
"""


class MySQLServer(MariaDBServer):
    """As MariaDB's."""

    def __init__(self, port: int | None = None, directory: Path | None = None) -> None:
        super().__init__(port, directory)
        self.settings = _SETTINGS

    async def _install(self, data: Path) -> None:
        first = data.parent / "first.sql"
        first.write_text(_FIRST_STATEMENTS)
        await run(
            *_mysqld(data, self.settings),
            *("--initialize-insecure", f"--init-file={first}"),
            account=self.account,
        )

    def command(self) -> list[str]:
        """The server, in the foreground."""
        return [
            *_mysqld(self.data, self.settings),
            f"--port={self.port}",
            f"--socket={self.directory}/socket",
            f"--pid-file={self.directory}/pid",
        ]


def _mysqld(data: Path, settings: Mapping[str, str]) -> list[str]:
    if "TEST_MYSQL" not in os.environ:  # the mysqld of the PATH may be MariaDB's
        raise ServerError("TEST_MYSQL does not say where MySQL is")
    program = find_binary("mysqld", "mysql-server-core", given="TEST_MYSQL")
    return [
        *(program, "--no-defaults", *base("TEST_MYSQL"), f"--datadir={data}"),
        *options(settings),
    ]
