"""Where the routes are: below the path at which the app is mounted, as far as it is told. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def mount(scope: Mapping[str, Any]) -> str:
    """Where the app is mounted, without a slash at the end, which some servers are started with."""
    root: str = scope.get("root_path", "")
    return root.rstrip("/")


def within(scope: Mapping[str, Any]) -> str:
    """The path of a request below that."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    inner = path.removeprefix(root)
    # Of "/shop/" and "/cart", servers make "/shop/cart" or "/shop//cart".
    return f"/{inner.lstrip('/')}" if root.endswith("/") else inner
