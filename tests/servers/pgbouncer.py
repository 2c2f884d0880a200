"""PgBouncer in transaction mode, in front of a PostgreSQL server."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from tests.servers.postgres import postgres_binary
from tests.servers.process import LOOPBACK, Server, ServerError, find_binary, run

#: What differs from PgBouncer's defaults; docs/databases.md shows the same.
SETTINGS = {
    "pool_mode": "transaction",
    # After a failed connection to the server, clients wait so long before the next is tried. The
    # default of 15 s would be the length of every outage, however short the server's own.
    "server_login_retry": "1",
}


class PgBouncer(Server):
    """A pool in front of the server, and for the user (and password), of a URL."""

    account: ClassVar[str] = "postgres"  # it will not run as root

    def __init__(
        self,
        server_url: str,
        port: int | None = None,
        directory: Path | None = None,
        *,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(port, directory)
        self.settings = SETTINGS | dict(settings or {})
        self._server = urlsplit(server_url)

    @property
    def url(self) -> str:
        """The database's URL, through the pool."""
        return self.url_at(self.port)

    def url_at(self, port: int, scheme: str = "postgresql") -> str:
        """The same through a proxy's port, or with another driver."""
        user = self._server.netloc.rpartition("@")[0]
        return f"{scheme}://{user}@{LOOPBACK}:{port}{self._server.path}"

    async def init(self) -> None:
        """Write its configuration."""
        await super().init()
        server = self._server
        user, password = unquote(server.username or ""), unquote(server.password or "")
        settings = {
            "listen_addr": LOOPBACK,
            "listen_port": str(self.port),
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": str(self.directory / "users"),
            "admin_users": user,
            **self.settings,
        }
        secret = f" password={password}" if password else ""
        lines = [
            "[databases]",
            f"* = host={server.hostname} port={server.port or 5432}{secret}",
            "[pgbouncer]",
            *(f"{name} = {value}" for name, value in settings.items()),
        ]
        (self.directory / "config").write_text("\n".join(lines) + "\n")
        (self.directory / "users").write_text(f'"{user}" "{password}"\n')
        self.own(self.directory / "config", self.directory / "users")

    def command(self) -> list[str]:
        """The pool, in the foreground."""
        return [find_binary("pgbouncer", "pgbouncer"), str(self.directory / "config")]

    async def is_ready(self) -> bool:
        """Whether it listens."""
        try:
            await self.admin("SHOW VERSION")
        except ServerError:
            return False
        return True

    async def admin(self, command: str) -> str:
        """Ask its console: SHOW POOLS, PAUSE, RESUME, RECONNECT; columns parted by |."""
        user = unquote(self._server.username or "")
        return (
            await run(
                *(postgres_binary("psql"), "--no-psqlrc", "--no-align", "--tuples-only", "--quiet"),
                f"--dbname=host={LOOPBACK} port={self.port} user={user} dbname=pgbouncer",
                f"--command={command}",
            )
        ).strip()
