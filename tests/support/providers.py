"""Providers of OpenID Connect, each a process of its own: see tests/libraries/provider.py."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Any

import httpx

from tests.support.processes import PATIENCE
from tests.support.repository import ROOT

#: For clients of servers on this machine: to read certificates takes longer than all the rest.
PLAIN: dict[str, Any] = {"trust_env": False, "verify": False, "timeout": PATIENCE}


class Provider:
    """A provider at an address of its own; `app` is the address of the app that it knows."""

    def __init__(self, app: str) -> None:
        self.app = app
        self._port = 0
        self.start()
        self.issuer = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """With keys that nobody has seen, and nobody logged in; where it was before."""
        self._socket = socket.create_server(("127.0.0.1", self._port), backlog=64)
        self._port = self._socket.getsockname()[1]
        fd = self._socket.fileno()  # who comes before it is ready waits
        command = [sys.executable, "-m", "tests.libraries.provider", f"fd:{fd}", self.app]
        self._process = subprocess.Popen(command, cwd=ROOT, pass_fds=[fd])

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(PATIENCE)
        self._socket.close()

    async def operator(self, **asked: Any) -> Any:
        """What somebody does there who runs it."""
        async with httpx.AsyncClient(**PLAIN) as client:
            answer = await client.post(f"{self.issuer}/operator", json=asked)
            return answer.raise_for_status().json()
