"""A machine as its operator sees it: a directory with an app, and what was started there."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from asgi_sessions import Sessions
from tests.servers.process import ENVIRONMENT, LOOPBACK, find_binary, free_port
from tests.support import KEY
from tests.support.repository import ROOT

PATIENCE = 30


class Machine:
    """`with` starts nothing, and ends whatever was started. Commands are looked for beside Python,
    then as operators find them.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports: set[int] = set()

    def write(self, name: str, text: str) -> str:
        """Write a file there; its path."""
        (self.directory / name).write_text(text)
        return str(self.directory / name)

    def database(self, name: str) -> str:
        """The URL of a database with its tables."""
        url = f"sqlite:///{self.directory}/{name}.db"
        asyncio.run(_make_tables(url))
        return url

    def port(self) -> int:
        """A port that something will listen on."""
        port = free_port()
        self._ports.add(port)
        return port

    def start(self, command: str, *arguments: str, **environment: str) -> None:
        """Start a program, with this package in reach."""
        program = Path(sys.executable).parent / command
        found = str(program) if program.exists() else find_binary(command, command)
        # It ends when we do, and can tell its workers.
        tied = [find_binary("setpriv", "util-linux"), "--pdeathsig=TERM", "--"]
        path = os.pathsep.join(map(str, [self.directory, ROOT]))
        given = {"HOME": str(self.directory), "PYTHONPATH": path, "SECRET_KEY": KEY}
        with (self.directory / f"{command}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [*tied, found, *arguments],
                    cwd=self.directory,
                    env={**ENVIRONMENT, **given, **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def wait(self) -> None:
        """Until all ports are listened on."""
        deadline = time.monotonic() + PATIENCE
        while self._ports:
            assert time.monotonic() < deadline, self.logs()
            assert all(one.poll() is None for one in self._processes), self.logs()
            self._ports = {port for port in self._ports if not _listens(port)}
            time.sleep(0.05)

    def logs(self) -> str:
        """What all of them have written."""
        return "\n".join(file.read_text() for file in self.directory.glob("*.log"))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, traceback: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(PATIENCE)
        if kind is None:
            assert "Traceback" not in self.logs()


async def _make_tables(database: str) -> None:
    async with Sessions(database, secret_key=KEY) as sessions:
        await sessions.create_tables()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port)):
        return True
    return False
