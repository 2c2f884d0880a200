"""HAProxy, with health checks that ask a database whether it should be asked."""

from __future__ import annotations

import asyncio
import csv
import struct
from pathlib import Path
from typing import ClassVar

from tests.servers.process import LOOPBACK, Server, find_binary, wait_until

_GLOBAL = """\
global
    stats socket {socket} mode 600 level admin
    maxconn 2000
    nbthread 1
defaults
    mode tcp
    timeout connect 1s
    timeout check 400ms
    timeout client 1h
    timeout server 1h
    retries 2
    option redispatch
    option clitcpka
    option srvtcpka
    default-server inter 250ms fastinter 100ms downinter 250ms fall 2 rise 3 \
on-marked-down shutdown-sessions
"""


class HAProxy(Server):
    """A balancer; `sections` is its configuration below `defaults`.

    A server that is marked down loses its connections at once. While all are down, clients are
    accepted and disconnected.
    """

    account: ClassVar[str] = "haproxy"

    def __init__(
        self, sections: str, port: int | None = None, directory: Path | None = None
    ) -> None:
        super().__init__(port, directory)
        self.sections = sections

    async def init(self) -> None:
        """Write its configuration."""
        await super().init()
        text = _GLOBAL.format(socket=self._socket) + self.sections
        (self.directory / "config").write_text(text)
        self.own(self.directory / "config")

    @property
    def _socket(self) -> Path:
        return self.directory / "socket"

    def command(self) -> list[str]:
        """The balancer, in the foreground."""
        return [find_binary("haproxy", "haproxy"), "-db", "-f", str(self.directory / "config")]

    async def is_ready(self) -> bool:
        """Whether it runs (its servers may not)."""
        try:
            return bool(await self.states())
        except OSError:
            return False

    async def states(self) -> dict[str, str]:
        """What it thinks of each server: {"section/server": "UP"}."""
        reader, writer = await asyncio.open_unix_connection(str(self._socket))
        try:
            writer.write(b"show stat\n")
            text = (await reader.read()).decode()
        finally:
            writer.close()
            await writer.wait_closed()
        return {
            f"{row['# pxname']}/{row['svname']}": row["status"]
            for row in csv.DictReader(text.splitlines())
            if row["svname"] != "FRONTEND"
        }

    async def wait_state(self, server: str, state: str) -> float:
        """Return when it thinks so of "section/server" ("section/BACKEND"); the seconds."""

        async def so() -> bool:
            return (await self.states())[server] == state  # not "UP 1/2", on its way down

        return await wait_until(so, f"{server} is {state} to {self!r}")


def mysql_check(user: str) -> str:
    """A health check that holds a Galera node for up only if it is in step with its cluster.

    HAProxy's own `mysql-check` logs in and out again. A node that has lost its cluster allows that,
    and so does one that is being copied from. So this one asks for the node's state, in the
    client's protocol, with a `user` who has no password.

    It switches wsrep_sync_wait off for itself: while the group decides that a node is dead, all
    nodes would let the question wait, and all would be marked down.
    """
    capabilities = 0x1 | 0x200 | 0x8000 | 0x80000  # long password, 4.1, its authentication, plugin
    login = struct.pack("<IIB23x", capabilities, 1 << 24, 45)  # 45: utf8mb4
    login += user.encode() + b"\0" + b"\0" + b"mysql_native_password\0"
    question = (
        b"SELECT CONCAT(VARIABLE_NAME, '=', VARIABLE_VALUE) FROM information_schema.GLOBAL_STATUS "
        b"WHERE VARIABLE_NAME IN ('wsrep_local_state', 'wsrep_ready') ORDER BY VARIABLE_NAME"
    )

    steps = (
        ("expect", "rbinary", "^......000A"),  # the server's greeting
        ("send-binary", _mysql_packet(1, login)),
        ("expect", "rbinary", "^......0200"),  # "OK"
        ("send-binary", _mysql_packet(0, b"\x03SET SESSION wsrep_sync_wait = 0")),
        ("expect", "rbinary", "^......0100"),
        ("send-binary", _mysql_packet(0, b"\x03" + question)),
        ("expect", "binary", b"WSREP_LOCAL_STATE=4".hex()),
        ("expect", "binary", b"WSREP_READY=ON".hex()),
        ("send-binary", _mysql_packet(0, b"\x01")),  # goodbye
    )
    return _tcp_check(*steps)


def postgres_check(user: str = "postgres", database: str = "postgres") -> str:
    """A health check that holds a server for up only if it is a primary.

    It logs in (`user` has no password) and asks pg_is_in_recovery().
    """

    def message(kind: bytes, body: bytes) -> str:
        return (kind + struct.pack(">I", len(body) + 4) + body).hex()

    startup = struct.pack(">I", 3 << 16)
    for word in ("user", user, "database", database, "application_name", "haproxy"):
        startup += word.encode() + b"\0"
    steps = (
        ("send-binary", message(b"", startup + b"\0")),
        ("expect", "binary", message(b"Z", b"I")),  # "ready for query"
        ("send-binary", message(b"Q", b"SELECT pg_is_in_recovery()\0")),
        ("expect", "binary", message(b"D", struct.pack(">HI", 1, 1) + b"f")),
        ("send-binary", message(b"X", b"")),  # goodbye
    )
    return _tcp_check(*steps)


def listen(name: str, port: int, body: str) -> str:
    """A section that listens on a loopback port."""
    return f"listen {name}\n    bind {LOOPBACK}:{port}\n{body}"


def _tcp_check(*steps: tuple[str, ...]) -> str:
    lines = ["option tcp-check", "tcp-check connect"]
    lines += [f"tcp-check {' '.join(step)}" for step in steps]
    return "".join(f"    {line}\n" for line in lines)


def _mysql_packet(number: int, payload: bytes) -> str:
    return (len(payload).to_bytes(3, "little") + bytes([number]) + payload).hex()
