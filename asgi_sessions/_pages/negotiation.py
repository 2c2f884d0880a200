"""What a client would rather have: HTML or JSON (RFC 9110, 12.5.1), which language, or to be led by
htmx.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from .texts import is_tag

#: Characters that are looked at: browsers send 200, and each part takes its time.
_LENGTH = 1024
#: Languages that are looked for, those that somebody would rather have: each may ask the app.
_LANGUAGES = 8
_WEIGHT = re.compile(r"\s*q=([01](?:\.\d{0,3})?)\s*", re.IGNORECASE)


def prefers_html(accept: str) -> bool:
    """Whether an Accept header puts HTML above JSON, as those of browsers do. Who takes both
    alike, or says nothing, is a program. Of a longer header, what lies beyond 1 kB does not count.
    """
    weights = dict(_weighed(accept))
    return _weight(weights, "text/html") > _weight(weights, "application/json")


def languages(accept: str) -> list[str]:
    """The tags of an Accept-Language header (RFC 9110, 12.5.4), the best first, eight at most. Of a
    longer header, what lies beyond 1 kB does not count.
    """
    weights = {tag: weight for tag, weight in _weighed(accept) if weight > 0 and is_tag(tag)}
    return sorted(weights, key=weights.__getitem__, reverse=True)[:_LANGUAGES]


def _weighed(header: str) -> Iterator[tuple[str, float]]:
    """The parts of a header, in lower case, and their weights."""
    if len(header) > _LENGTH:
        header = header[:_LENGTH].rpartition(",")[0]  # the last part may have been cut
    for part in header.split(","):
        kind, *parameters = part.split(";")
        given = [match[1] for match in map(_WEIGHT.fullmatch, parameters) if match]
        yield kind.strip().lower(), float(given[0]) if given else 1.0


def _weight(weights: dict[str, float], kind: str) -> float:
    """By the most specific range that covers it."""
    ranges = (kind, f"{kind.partition('/')[0]}/*", "*/*")
    return next((weights[one] for one in ranges if one in weights), 0.0)


def htmx_redirect(headers: Mapping[str, str], url: str | None) -> dict[str, str]:
    """The header by which htmx leads the whole page to a URL. It follows a 303 by itself, and would
    put the login where a part of the page is. Nothing for other clients, and without a URL.
    """
    if url is None or headers.get("hx-request") != "true":
        return {}
    return {"HX-Redirect": url}
