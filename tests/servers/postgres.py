"""PostgreSQL servers of the tests' own, and streaming replicas of them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from tests.servers.process import (
    LOOPBACK,
    Server,
    ServerError,
    find_binary,
    options,
    run,
    wait_until,
)

_BINARIES = "/usr/lib/postgresql/*/bin"

#: Small and quick to start. What SIGKILL leaves is on the safe side: a commit is in the kernel's
#: hands before it is confirmed (`synchronous_commit` stays on), and `fsync` guards only against
#: the loss of the machine.
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "autovacuum": "off",  # tests of plans run ANALYZE themselves
    "shared_buffers": "32MB",
    "max_connections": "200",
    "dynamic_shared_memory_type": "mmap",  # in the data directory, so that it goes with it
    "wal_keep_size": "256MB",  # a replica that was away for a while can follow
    "wal_sender_timeout": "5s",
    "wal_receiver_status_interval": "1s",
    "wal_retrieve_retry_interval": "200ms",
    "log_min_messages": "warning",
}


def postgres_binary(name: str) -> str:
    """A program of the PostgreSQL at TEST_POSTGRESQL, else of the newest installed."""
    return find_binary(name, "postgresql", _BINARIES, given="TEST_POSTGRESQL")


class PostgresServer(Server):
    """A server with a superuser `postgres` without a password, and an empty database `test`.

    With `replica_of` it starts as a streaming replica (hot standby) of that running server.

    What a commit on the primary means to its replicas is the primary's `set_synchronous`: without
    it, what was committed in the last moments before a crash may be missing on the replica. With
    it, a commit is confirmed when a replica has it on disk, so that no confirmed commit is lost by
    promotion; and **nothing** is committed while no replica is there.
    """

    account: ClassVar[str] = "postgres"
    stop_signal: ClassVar[signal.Signals] = signal.SIGINT  # "fast": clients are disconnected
    end_signal: ClassVar[signal.Signals] = signal.SIGQUIT  # "immediate": shared memory is freed

    def __init__(
        self,
        port: int | None = None,
        directory: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
        replica_of: PostgresServer | None = None,
    ) -> None:
        super().__init__(port, directory)
        self.settings = _SETTINGS | dict(settings or {})
        self.replica_of = replica_of
        #: The name by which a primary knows it.
        self.name = f"server_{self.port}"

    @property
    def url(self) -> str:
        """The database's URL."""
        return self.url_at(self.port)

    def url_at(self, port: int, scheme: str = "postgresql") -> str:
        """The same through a proxy's port, or with another driver."""
        return f"{scheme}://postgres@{LOOPBACK}:{port}/test"

    async def init(self) -> None:
        """A copy of what initdb makes, or of the primary."""
        await super().init()
        if self.replica_of is None:
            await self.copy_made(self._initdb)
            return
        await run(
            postgres_binary("pg_basebackup"),
            f"--pgdata={self.data}",
            f"--dbname=host={LOOPBACK} port={self.replica_of.port} user=postgres "
            f"application_name={self.name}",
            "--write-recovery-conf",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--no-sync",
            account=self.account,
        )
        # Copied from the primary, this would make it wait for itself once it is promoted.
        with (self.data / "postgresql.auto.conf").open("a") as file:
            file.write("synchronous_standby_names = ''\n")

    async def _initdb(self, data: Path) -> None:
        await run(
            postgres_binary("initdb"),
            f"--pgdata={data}",
            "--username=postgres",
            "--auth=trust",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            account=self.account,
        )
        await run(
            *(postgres_binary("postgres"), "--single", "-F", "-D", str(data), "postgres"),
            given="CREATE DATABASE test\n",
            account=self.account,
        )

    def command(self) -> list[str]:
        """The server, in the foreground."""
        return [
            *(postgres_binary("postgres"), "-D", str(self.data), "-p", str(self.port)),
            *options(self.settings),
        ]

    async def is_ready(self) -> bool:
        """Whether it answers queries."""
        try:
            await self.sql("SELECT 1")
        except ServerError:
            return False
        return True

    async def sql(self, *statements: str, database: str = "test") -> str:
        """Run statements, each in its own transaction; what they answer, columns parted by |."""
        where = f"host={LOOPBACK} port={self.port} user=postgres dbname={database}"
        return (
            await run(
                *(postgres_binary("psql"), "--no-psqlrc", "--no-align", "--tuples-only", "--quiet"),
                *("--set=ON_ERROR_STOP=1", f"--dbname={where} connect_timeout=5"),
                *(f"--command={statement}" for statement in statements),
            )
        ).strip()

    async def promote(self) -> float:
        """Make the replica a primary; the seconds that took.

        The old primary must be dead, and stay so (its commits would be nobody's): `kill9` it first,
        later bring in a fresh server with `replica_of`.
        """
        await self.sql("SELECT pg_promote(wait => true)")
        self.replica_of = None
        return await wait_until(self.is_primary, f"{self!r} is promoted")

    async def is_primary(self) -> bool:
        """Whether it takes writes."""
        return await self.sql("SELECT pg_is_in_recovery()") == "f"

    async def set_synchronous(self, *replicas: PostgresServer) -> None:
        """Confirm no commit before one of these (running) replicas has it; none: don't wait."""
        names = ", ".join(replica.name for replica in replicas)
        await self.sql(
            f"ALTER SYSTEM SET synchronous_standby_names = '{names and f'ANY 1 ({names})'}'",
            "SELECT pg_reload_conf()",
        )

        async def in_step() -> bool:
            return await self.sql(
                "SELECT count(*) FROM pg_stat_replication "
                "WHERE state = 'streaming' AND sync_state IN ('sync', 'quorum')"
            ) == str(len(replicas))

        await wait_until(in_step, f"{len(replicas)} synchronous replicas of {self!r}")

    def clean_up(self) -> None:
        """Remove the shared memory segment that a SIGKILL leaves behind (postmaster.pid has it)."""
        with contextlib.suppress(OSError, IndexError, ValueError):
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            subprocess.run(
                [find_binary("ipcrm", "util-linux"), "-m", str(int(lines[6].split()[1]))],
                check=False,
                capture_output=True,
                env=os.environ,
            )
