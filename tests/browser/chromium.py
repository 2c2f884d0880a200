"""A real browser for tests: Debian's Chromium, over TLS on loopback, driven by Playwright."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Playwright

from tests.support.certificates import Certificate

#: Device Bound Session Credentials with keys in software, as often as it is asked for.
DBSC_FEATURES = (
    "DeviceBoundSessions:RefreshQuota/false",
    "EnableBoundSessionCredentialsSoftwareKeysForManualTesting",
)
_QUIET = (
    "--no-sandbox",  # tests run as root in containers
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)


def browser_path() -> str:
    """Where the browser is. Without one the test is skipped, or fails if TEST_BROWSER=1."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if (path := shutil.which(name)) is not None:
            return path
    if os.environ.get("TEST_BROWSER") == "1":
        pytest.fail("TEST_BROWSER=1 is set, and no browser is found: install chromium")
    pytest.skip("no browser is found: install chromium")


def launch(playwright: Playwright, directory: Path) -> Browser:
    """A browser without a window; each of its contexts has cookies of its own."""
    return playwright.chromium.launch(
        executable_path=browser_path(),
        env={**os.environ, "HOME": str(directory)},  # or it leaves traces in the user's
    )


def open_profile(
    playwright: Playwright, directory: Path, certificate: Certificate, *, dbsc: bool = True
) -> BrowserContext:
    """A browser with a profile of its own."""
    features = [f"--enable-features={','.join(DBSC_FEATURES)}"] if dbsc else []
    directory.mkdir()
    return playwright.chromium.launch_persistent_context(
        directory,
        executable_path=browser_path(),
        env={**os.environ, "HOME": str(directory)},  # or it leaves traces in the user's
        args=[
            *_QUIET,
            *features,
            # Chromium binds no sessions over connections whose certificates it merely ignores.
            f"--ignore-certificate-errors-spki-list={certificate.pin}",
        ],
    )
