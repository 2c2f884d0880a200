"""What stands around every page: its language, the time zone, the app's links and form fields."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, tzinfo
from inspect import isawaitable
from typing import Any, TypeAlias, TypeVar
from zoneinfo import ZoneInfo

from starlette.types import Scope

from asgi_sessions._errors import ConfigurationError

from .logout import target_fault
from .negotiation import languages
from .texts import Catalogue, Language, is_tag

T = TypeVar("T")
#: What an app says once for all, or for each request: by a function of the scope.
Said: TypeAlias = T | Callable[[Scope], T | Awaitable[T]]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What `DevicesPage` says of these."""

    language: Language
    time_zone: tzinfo
    links: Mapping[str, str]
    form_fields: Mapping[str, str]
    base: str
    home_url: str | None


@dataclass(frozen=True, kw_only=True)
class Framing:
    """What an app has said of it; see `Sessions.routes`."""

    catalogue: Catalogue
    language: Said[str | None]
    time_zone: Said[str | tzinfo | None]
    links: Said[Mapping[str, str] | None]
    form_fields: Said[Mapping[str, str] | None]
    home_url: str | None

    async def of(self, scope: Scope, base: str, accept_language: str) -> Frame:
        """What stands around the page of a request.

        Args:
            scope: its.
            base: how its URL leads to the list.
            accept_language: its header.

        Raises:
            ConfigurationError: if a function of the app's gives what cannot be.
        """
        language = await _asked(self.language, scope)
        zone = await _asked(self.time_zone, scope)
        links = await _asked(self.links, scope) or {}
        fields = await _asked(self.form_fields, scope) or {}
        for fault in faults(links, fields):
            raise ConfigurationError(fault)
        return Frame(
            language=self.catalogue.first(
                [language] if is_tag(language) else languages(accept_language)
            ),
            time_zone=zone_of(zone) or UTC,  # a person who has made one up gets a page, too
            links=links,
            form_fields=fields,
            base=base,
            home_url=self.home_url,
        )


async def _asked(said: Any, scope: Scope) -> Any:  # noqa: ANN401 -- each option has a type of its own
    """What an app says to a request."""
    if callable(said):
        said = said(scope)
        if isawaitable(said):
            return await said
    return said


def zone_of(zone: object) -> tzinfo | None:
    """A time zone, or the one of this name; None if there is none such."""
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone) if isinstance(zone, str) else None
    except (LookupError, OSError, ValueError):  # what it raises for names that are none
        return None


def faults(links: object, fields: object) -> Iterator[str]:
    """What is wrong with the links and form fields of an app."""
    for name, given in (("links", links), ("form_fields", fields)):
        if not isinstance(given, Mapping) or not all(
            isinstance(text, str) for pair in given.items() for text in pair
        ):
            what = "texts to URLs" if name == "links" else "names to values"
            yield f"{name}={given!r}: use a mapping of {what}, or a function of the scope"
        elif name == "links":
            for text, url in given.items():
                yield from target_fault(f"links[{text!r}]", url)
