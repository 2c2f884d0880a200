"""A real Firefox for tests: the one that is installed, driven by Playwright over WebDriver BiDi.

    python -m tests.browser.firefox PROGRAM [ARGUMENT]...

is Firefox to Playwright: it starts the program, and stands between the two, since Playwright asks
for a command that the extended support releases of Firefox do not have yet.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from tests.support.certificates import Certificate
from tests.support.repository import ROOT

#: What Playwright asks of every browser; without it pages look as they do by default.
_LACKING = "emulation.setMediaFeaturesOverride"
_LISTENS = re.compile(rb"WebDriver BiDi listening on (ws://127\.0\.0\.1:\d+)")


def browser_path() -> str:
    """Where the browser is. Without one the test is skipped, or fails if TEST_BROWSER=1."""
    for name in ("firefox-esr", "firefox"):
        if (path := shutil.which(name)) is not None:
            return path
    if os.environ.get("TEST_BROWSER") == "1":
        pytest.fail("TEST_BROWSER=1 is set, and no Firefox is found: install firefox-esr")
    pytest.skip("no Firefox is found: install firefox-esr")


def launch(playwright: Playwright, directory: Path) -> Browser:
    """A browser without a window; each of its contexts has cookies of its own."""
    return playwright.firefox.launch(**_options(directory))


def open_profile(
    playwright: Playwright, directory: Path, certificate: Certificate
) -> BrowserContext:
    """A browser with a profile of its own, which takes any certificate. The one of the test is
    named so that this is called as `chromium.open_profile` is.
    """
    del certificate
    directory.mkdir()
    return playwright.firefox.launch_persistent_context(
        directory / "profile", ignore_https_errors=True, **_options(directory)
    )


def _options(directory: Path) -> dict[str, Any]:
    program = directory / "firefox"
    command = f'"{sys.executable}" -m {__name__} "{browser_path()}" "$@"'
    program.write_text(f'#!/bin/sh\ncd "{ROOT}" && exec {command}\n')
    program.chmod(0o755)
    return {
        "channel": "moz-firefox",  # the one of Mozilla, not Playwright's own
        "executable_path": program,
        "env": {**os.environ, "HOME": str(directory)},  # or it leaves traces in the user's
    }


# --- between Playwright and Firefox ---------------------------------------------------------------


async def _stand_between(command: list[str]) -> int:
    firefox = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    assert firefox.stderr is not None

    async def relay(playwright: ServerConnection) -> None:
        assert playwright.request is not None
        async with connect(url + playwright.request.path, max_size=None) as browser:
            to_browser = asyncio.create_task(_commands(playwright, browser))
            async for message in browser:
                await playwright.send(message)
            to_browser.cancel()

    while (line := await firefox.stderr.readline()) and not (said := _LISTENS.search(line)):
        sys.stderr.buffer.write(line)
    if not line or said is None:
        return await firefox.wait()
    url = said[1].decode()
    async with serve(relay, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        sys.stderr.write(f"WebDriver BiDi listening on ws://127.0.0.1:{port}\n")
        sys.stderr.flush()
        while line := await firefox.stderr.readline():
            sys.stderr.buffer.write(line)
        return await firefox.wait()


async def _commands(playwright: ServerConnection, browser: ClientConnection) -> None:
    try:
        async for message in playwright:
            asked = json.loads(message)
            if asked["method"] == _LACKING:
                answer = {"type": "success", "id": asked["id"], "result": {}}
                await playwright.send(json.dumps(answer))
            else:
                await browser.send(message)
    except ConnectionClosed:
        pass
    await browser.close()


if __name__ == "__main__":
    sys.exit(asyncio.run(_stand_between(sys.argv[1:])))
