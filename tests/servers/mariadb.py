"""MariaDB servers of the tests' own, alone or as nodes of a Galera cluster."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tests.servers.process import (
    LOOPBACK,
    Server,
    ServerError,
    find_binary,
    free_port,
    options,
    run,
)

#: As Debian's package has it (character set), small, and quick to start. SIGKILL loses nothing: a
#: commit is in the kernel's hands before it is confirmed, and only the loss of the machine would
#: need `innodb_flush_log_at_trx_commit=1`.
_SETTINGS = {
    "bind-address": LOOPBACK,
    "character-set-server": "utf8mb4",
    "collation-server": "utf8mb4_general_ci",
    "innodb-buffer-pool-size": "64M",
    "innodb-flush-log-at-trx-commit": "2",
    "innodb-log-file-size": "16M",
    "max-connections": "300",
    "performance-schema": "OFF",
    "skip-log-bin": "1",
    "skip-name-resolve": "1",
}

_GALERA_LIBRARIES = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib/galera-4/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
)


def mariadb_binary(name: str, package: str = "mariadb-server") -> str:
    """A program of the MariaDB at TEST_MARIADB, else of the one installed."""
    return find_binary(name, package, given="TEST_MARIADB")


def base(variable: str) -> list[str]:
    """Where the files that belong to the programs are, if the variable says so."""
    folder = os.environ.get(variable)
    return [f"--basedir={folder}"] if folder else []


#: A user without a password and without rights, for health checks.
CHECK_USER = "health"

_FIRST_STATEMENTS = f"""
FLUSH PRIVILEGES;
CREATE USER root@'%' IDENTIFIED BY '';
GRANT ALL ON *.* TO root@'%' WITH GRANT OPTION;
CREATE USER {CHECK_USER}@'%' IDENTIFIED BY '';
CREATE DATABASE test;
"""


@dataclass(eq=False)
class Galera:
    """What makes a server a node of a cluster."""

    #: The node's name.
    name: str
    #: The ports of the group's messages, of incremental and of full state transfers.
    port: int = field(default_factory=free_port)
    ist_port: int = field(default_factory=free_port)
    sst_port: int = field(default_factory=free_port)
    #: All nodes, itself too.
    members: list[Galera] = field(default_factory=list)
    #: Seconds without a sign of life after which a node is held for dead. All commits wait as
    #: long, and a little longer. Less than 1.5 makes views fail to form: timers have a second's
    #: resolution.
    suspect: float = 1.5
    #: wsrep_sync_wait: which statements first wait until all that was committed anywhere before
    #: them has arrived: 1 reads, 2 updates and deletes, 4 inserts, 7 all, 0 none.
    sync_wait: int = 0
    #: The nodes to copy from, the most wanted first; a trailing comma admits others. A node that
    #: is copied from does not serve meanwhile.
    donors: str = ""

    def settings(self) -> dict[str, str]:
        """The server's settings."""
        library = next((path for path in _GALERA_LIBRARIES if Path(path).exists()), None)
        if library is None:
            raise ServerError("Galera is not installed (on Debian: apt-get install galera-4)")
        find_binary("rsync", "rsync")  # state transfers need it
        provider = {
            "base_host": LOOPBACK,
            "base_port": self.port,
            "gmcast.listen_addr": f"tcp://{LOOPBACK}:{self.port}",
            "ist.recv_addr": f"{LOOPBACK}:{self.ist_port}",
            "evs.keepalive_period": "PT0.5S",
            "evs.join_retrans_period": "PT0.5S",
            "evs.suspect_timeout": f"PT{self.suspect}S",
            "evs.inactive_timeout": "PT10S",
            "evs.install_timeout": "PT5S",
            "gcache.size": "32M",
            "gcache.recover": "yes",
        }
        return {
            "binlog-format": "ROW",
            "innodb-autoinc-lock-mode": "2",
            "wsrep-on": "ON",
            "wsrep-provider": library,
            "wsrep-provider-options": ";".join(f"{key}={provider[key]}" for key in provider),
            "wsrep-cluster-name": f"asgi_sessions_{self.members[0].port}",
            "wsrep-cluster-address": "gcomm://"
            + ",".join(f"{LOOPBACK}:{member.port}" for member in self.members),
            "wsrep-node-name": self.name,
            "wsrep-node-address": f"{LOOPBACK}:{self.port}",
            "wsrep-sst-method": "rsync",
            "wsrep-sst-receive-address": f"{LOOPBACK}:{self.sst_port}",
            "wsrep-sst-donor": self.donors,
            "wsrep-sync-wait": str(self.sync_wait),
        }


class MariaDBServer(Server):
    """A server with a user `root` without a password, and an empty database `test`."""

    account: ClassVar[str] = "mysql"

    def __init__(
        self,
        port: int | None = None,
        directory: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        galera: Galera | None = None,
    ) -> None:
        super().__init__(port, directory)
        self.settings = _SETTINGS | dict(settings or {})
        self.galera = galera

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.url_at(self.port)

    def url_at(self, port: int, scheme: str = "mysql") -> str:
        """The same through a proxy's port, or with another driver."""
        return f"{scheme}://root@{LOOPBACK}:{port}/test"

    async def init(self) -> None:
        """The system's tables, the users and the database."""
        await super().init()
        await self.copy_made(self._install, *options(self.settings))

    async def _install(self, data: Path) -> None:
        await run(
            mariadb_binary("mariadb-install-db"),
            "--no-defaults",
            *base("TEST_MARIADB"),
            f"--datadir={data}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            *options(self.settings),
            account=self.account,
        )
        await run(
            mariadb_binary("mariadbd"),
            "--no-defaults",
            *base("TEST_MARIADB"),
            f"--datadir={data}",
            *options(self.settings),
            "--bootstrap",
            given=_FIRST_STATEMENTS,
            account=self.account,
        )

    def command(self) -> list[str]:
        """The server, in the foreground."""
        return [
            mariadb_binary("mariadbd"),
            "--no-defaults",
            *base("TEST_MARIADB"),
            f"--datadir={self.data}",
            f"--port={self.port}",
            f"--socket={self.directory}/socket",
            f"--pid-file={self.directory}/pid",
            *options(self.settings),
            *(options(self.galera.settings()) if self.galera else ()),
        ]

    async def is_ready(self) -> bool:
        """Whether it answers queries; of a node: whether it is in step with its cluster."""
        try:
            if self.galera is None:
                await self.sql("SELECT 1")
                return True
            status = await self.status()
        except ServerError:
            return False
        return status["wsrep_ready"] == "ON" and status["wsrep_local_state_comment"] == "Synced"

    async def sql(self, *statements: str) -> str:
        """Run statements; what they answer, columns parted by tabs."""
        return (
            await run(
                *(mariadb_binary("mariadb", "mariadb-client"), "--no-defaults", "--protocol=tcp"),
                *(f"--host={LOOPBACK}", f"--port={self.port}", "--user=root", "--database=test"),
                *("--connect-timeout=5", "--batch", "--raw", "--skip-column-names"),
                f"--execute={';'.join(statements)}",
            )
        ).strip()

    async def status(self) -> dict[str, str]:
        """What a node says of its cluster: the variables wsrep_*."""
        rows = (await self.sql("SHOW STATUS LIKE 'wsrep%'")).splitlines()
        return {name: value for name, _, value in (row.partition("\t") for row in rows)}

    async def recovered_position(self) -> str:
        """After a crash: how far the node's data have got (`uuid:seqno`)."""
        assert self.galera is not None
        log = self.directory / "recovery.log"
        await run(*self.command(), "--wsrep-recover", f"--log-error={log}", account=self.account)
        found = re.findall(r"WSREP: Recovered position:? *(\S+)", log.read_text(errors="replace"))
        if not found:
            raise ServerError(f"{self!r} does not know its position:\n{log.read_text()}")
        log.unlink()
        return str(found[-1])

    async def rejoin(self) -> None:
        """Start a node that has been killed; it fetches what it has missed from another.

        The position is looked up first, as Debian's unit does (galera_recovery): without it, the
        node would ask for a full copy.
        """
        await self.start(f"--wsrep-start-position={await self.recovered_position()}")
