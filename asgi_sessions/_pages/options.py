"""What an app decides about the routes of `Sessions.routes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from asgi_sessions._errors import ConfigurationError

from .html import DevicesPage
from .logout import target_fault

#: A function that makes the page: HTML in which everything foreign is escaped.
Template = Callable[[DevicesPage], str]

#: Of each answer that is about a person, or depends on who asks for what.
PRIVATE = {"Cache-Control": "no-store", "Vary": "Accept"}


@dataclass(frozen=True, kw_only=True)
class RouteOptions:
    """See `Sessions.routes`.

    Raises:
        ConfigurationError: for options that cannot be; all errors in one message.
    """

    html: bool
    fresh_for: timedelta | None
    login_url: str | None
    confirm_url: str | None
    home_url: str | None
    template: Template | None

    def __post_init__(self) -> None:
        errors = list(_errors(vars(self)))
        if errors:
            raise ConfigurationError("; ".join(errors))

    def page_headers(self) -> dict[str, str]:
        """Those of our own pages. Nothing but our style is let in (ASVS 3.4.3)."""
        # Chrome applies form-action to the redirects that follow, too.
        urls = [urlsplit(url) for url in (self.login_url, self.confirm_url) if url is not None]
        origins = {f"{url.scheme}://{url.netloc}" for url in urls if url.netloc}
        targets = " ".join(["'self'", *sorted(origins)])
        return {
            **PRIVATE,
            "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
            f"form-action {targets}; base-uri 'none'; frame-ancestors 'none'",
            "Referrer-Policy": "same-origin",  # with none at all, forms would come from "null"
            "X-Content-Type-Options": "nosniff",
        }


def _errors(given: dict[str, Any]) -> Iterator[str]:
    if not isinstance(given["html"], bool):
        yield f"html={given['html']!r}: use True or False"
    fresh_for = given["fresh_for"]
    if fresh_for is not None and not (
        isinstance(fresh_for, timedelta) and fresh_for > timedelta(0)
    ):
        yield f"fresh_for={fresh_for!r}: use a datetime.timedelta of more than 0, or None"
    for name in ("login_url", "confirm_url", "home_url"):
        yield from target_fault(name, given[name])
    if given["template"] is not None and not callable(given["template"]):
        yield f"template={given['template']!r}: use a function of a DevicesPage, or None"
