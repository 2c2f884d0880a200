"""What an app decides about the routes of `Sessions.routes`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta, tzinfo
from functools import cached_property
from typing import Any

from asgi_sessions._errors import ConfigurationError

from .frame import Framing, Said, faults, zone_of
from .html import DevicesPage
from .logout import target_fault
from .texts import Catalogue, Translate, is_tag

#: A function that makes the page: HTML in which everything foreign is escaped.
Template = Callable[[DevicesPage], str]

#: Of each answer that is about a person, or depends on who asks for what.
PRIVATE = {"Cache-Control": "no-store", "Vary": "Accept"}
#: Of our own pages. Nothing but our style is let in (ASVS 3.4.3), and forms lead nowhere else, by
#: no redirect either: browsers ask for each whether the policy has its origin.
PAGE = {
    "Cache-Control": "no-store",
    "Vary": "Accept, Accept-Language",
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "same-origin",  # with none at all, forms would come from "null"
    "X-Content-Type-Options": "nosniff",
}


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
    home_url: str | None = None
    template: Template | None = None
    translate: Translate | None = None
    language: Said[str | None] = None
    time_zone: Said[str | tzinfo | None] = None
    links: Said[Mapping[str, str] | None] = None
    form_fields: Said[Mapping[str, str] | None] = None

    def __post_init__(self) -> None:
        errors = list(_errors(vars(self)))
        try:
            self.framing  # noqa: B018 -- the catalogue has errors of its own
        except ConfigurationError as error:
            errors.append(str(error))
        if errors:
            raise ConfigurationError("; ".join(errors))

    @cached_property
    def framing(self) -> Framing:
        """What stands around the pages.

        Raises:
            ConfigurationError: for texts that cannot be.
        """
        return Framing(
            catalogue=Catalogue(self.translate),
            language=self.language,
            time_zone=self.time_zone,
            links=self.links,
            form_fields=self.form_fields,
            home_url=self.home_url,
        )


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
    language, zone, links, fields = (
        given[name] for name in ("language", "time_zone", "links", "form_fields")
    )
    if language is not None and not callable(language) and not is_tag(language):
        yield f"language={language!r}: use a tag such as 'de', a function of the scope, or None"
    if zone is not None and not callable(zone) and zone_of(zone) is None:
        yield (
            f"time_zone={zone!r}: use a name such as 'Europe/Berlin', a tzinfo, a function of the"
            " scope, or None (a name needs a database of time zones: the system's, or tzdata)"
        )
    yield from faults(*({} if one is None or callable(one) else one for one in (links, fields)))
