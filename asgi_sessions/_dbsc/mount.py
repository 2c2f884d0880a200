"""Where the routes are: below the path at which the app is mounted, as far as it is told. Pure."""

from __future__ import annotations


def mount(root_path: str) -> str:
    """Where the app is mounted, without a slash at the end, which some servers are started with."""
    return root_path.rstrip("/")


def within(root_path: str, path: str) -> str:
    """The path of a request below that."""
    inner = path.removeprefix(root_path)
    # Of "/shop/" and "/cart", servers make "/shop/cart" or "/shop//cart".
    return f"/{inner.lstrip('/')}" if root_path.endswith("/") else inner
