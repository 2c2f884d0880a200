"""Processes of an app that a test commands."""

from __future__ import annotations

import asyncio
import itertools
import json
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from typing import Any

from tests.support.repository import ROOT

#: Seconds until a test gives up; what is waited for takes milliseconds.
PATIENCE = 20


class Process:
    """A process of its own, which runs tests/races/worker.py."""

    def __init__(self) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.races.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        self._numbers = itertools.count()
        self._answers: dict[int, Future[Any]] = {}
        self._stops: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def alive(self) -> bool:
        return self._popen.poll() is None

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            word = json.loads(line)
            if "at" in word:
                self._stops.put(word["at"])
            elif "fault" in word:
                self._answers.pop(word["id"]).set_exception(RuntimeError(word["fault"]))
            else:
                self._answers.pop(word["id"]).set_result(word["answer"])

    def begin(self, do: str, **values: object) -> asyncio.Future[Any]:
        """Give a command; the future brings its answer."""
        assert self._popen.stdin is not None
        number = next(self._numbers)
        answer = self._answers[number] = Future[Any]()
        self._popen.stdin.write(json.dumps({"id": number, "do": do, **values}) + "\n")
        self._popen.stdin.flush()
        return asyncio.wrap_future(answer)

    async def do(self, do: str, **values: object) -> Any:
        """Give a command and wait for its answer."""
        return await asyncio.wait_for(self.begin(do, **values), PATIENCE)

    async def stopped(self) -> str:
        """The statement at which the process has stopped."""
        return await asyncio.to_thread(self._stops.get, timeout=PATIENCE)

    def kill(self) -> None:
        """SIGKILL."""
        self._popen.kill()
        self._popen.wait()
        self._reader.join()
        for stream in (self._popen.stdin, self._popen.stdout):
            assert stream is not None
            stream.close()
