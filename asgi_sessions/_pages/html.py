"""The devices page as HTML. The texts of its refusals stand in `devices.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from html import escape
from importlib.resources import files

from starlette.types import Scope

from asgi_sessions._model.session import Session

#: Served as a file of its own, so that a strict Content-Security-Policy lets it in.
STYLE = files("asgi_sessions").joinpath("_pages/page.css").read_text("utf-8")
#: Part of its URL, so that browsers may keep it.
_STYLE_VERSION = sha256(STYLE.encode()).hexdigest()[:12]

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60))
#: After so long, "40 days ago" says less than the date.
_LONG_AGO = timedelta(days=30)

_REASONS = {
    "logout": "logged out",
    "revoked": "ended from another device",
    "replaced": "replaced by a new login in the same browser",
    "person_changed": "somebody else logged in in the same browser",
    "limit": "ended because there were too many",
    "expired": "expired",
    "reuse": "ended because its cookie was used twice: it may have been stolen",
    "not_delivered": "ended because the login did not go through",
    "actor_left": "ended when whoever acted for you left",
}


@dataclass(frozen=True, kw_only=True)
class DevicesPage:
    """What a template of the page of `Sessions.routes` is given. What is in the sessions comes
    from clients: a template has to escape it.

    Attributes:
        current: the session that asks.
        live: the person's sessions in this app: `current` first, then by when they were last seen.
        ended: those that ended of late, the last one first; None unless they were asked for.
        closed: how many the person has ended just now; None if they come from elsewhere.
        base: what the targets of links and forms begin with. Forms post to ``{base}{sid}/end``
            and ``{base}end-others``; ``{base}?ended=1`` shows the ended ones.
        home_url: where the rest of the app is, if that was said.
        now: when the page is made.
        scope: of the request.
    """

    current: Session
    live: Sequence[Session]
    ended: Sequence[Session] | None
    closed: int | None
    base: str
    home_url: str | None
    now: datetime
    scope: Scope

    def ago(self, moment: datetime) -> str:
        """Such as "2 hours ago"; the date where it is longer than 30 days."""
        age = self.now - moment
        if age > _LONG_AGO:
            return f"on {moment.day} {moment:%B %Y}"
        for unit, seconds in _UNITS:
            count = int(age.total_seconds() // seconds)
            if count > 0:
                return f"{count} {unit}{'s' if count > 1 else ''} ago"
        return "just now"

    def reason(self, session: Session) -> str:
        """Why a session ended, in words; a word of the app's own as it is."""
        return _REASONS.get(session.end_reason or "", session.end_reason or "ended")


def devices_page(page: DevicesPage) -> str:
    """The page as HTML."""
    others = len(page.live) - 1
    parts = [
        "<h1>Where you are logged in</h1>",
        '<p class="soft">End what you do not recognise, and change your password.</p>',
    ]
    if page.closed is not None:
        parts.append(f'<p class="note" role="status">{_ended(page.closed)}</p>')
    parts.append(f'<ul role="list" aria-label="Live sessions">{_items(page, page.live)}\n</ul>')
    links = []
    if others:
        links.append(_button(f"{page.base}end-others", "End all other sessions"))
    if page.ended is None:
        links.append(f'<a href="{escape(page.base)}?ended=1">Show recently ended sessions</a>')
    if page.home_url is not None:
        links.append(_home(page.home_url))
    parts.append(f'<div class="row">{" ".join(links)}</div>')
    if page.ended is not None:
        parts.append("<h2>Recently ended</h2>")
        listed = f'<ul role="list" aria-label="Ended sessions">{_items(page, page.ended)}\n</ul>'
        parts.append(listed if page.ended else '<p class="soft">None.</p>')
    return document("Where you are logged in", "\n".join(parts), page.base)


def message_page(title: str, text: str, base: str, home_url: str | None) -> str:
    """A page that says one thing."""
    home = "" if home_url is None else f'\n<div class="row">{_home(home_url)}</div>'
    return document(title, f"<h1>{escape(title)}</h1>\n<p>{escape(text)}</p>{home}", base)


def document(title: str, body: str, base: str) -> str:
    """A whole page; `body` is HTML in which everything foreign is escaped."""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="stylesheet" href="{escape(base)}style.css?{_STYLE_VERSION}">
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _items(page: DevicesPage, sessions: Sequence[Session]) -> str:
    return "".join(_item(page, session) for session in sessions)


def _item(page: DevicesPage, session: Session) -> str:
    here = session.sid == page.current.sid
    where = [escape(session.ip_address or "unknown address")]
    if session.auth_provider:
        where.append(f"via {escape(session.auth_provider)}")
    if session.bound:
        where.append("bound to the device")
    if session.actor_id is not None:
        who, why = escape(session.actor_id), escape(session.actor_reason or "")
        where.append(f"{who} acts for you: {why}")
    started = _time(page, session.started_at)
    if session.ended_at is not None:
        why = f"{escape(page.reason(session))} {_time(page, session.ended_at)}"
        when, button = [f"Logged in {started}", why], ""
    else:
        when = [f"Last seen {_time(page, session.last_seen_at)}", f"logged in {started}"]
        label = "Log out" if here else "End"
        # Those who hear the page, not see it, are told which one.
        what = f"{label}: {session.device}, {session.ip_address or 'unknown address'}"
        button = _button(f"{page.base}{session.sid}/end", label, what)
    mark = ' <span class="badge">this device</span>' if here else ""
    name = f'<strong title="{escape(session.user_agent or "")}">{escape(session.device)}</strong>'
    kind = "" if session.ended_at is None else ' class="over"'
    return f"\n<li{kind}><div>{name}{mark}{_line(where)}{_line(when)}</div>{button}</li>"


def _line(facts: Sequence[str]) -> str:
    """A line that breaks between its facts rather than in them."""
    return f'\n<p class="soft">{" · ".join(f"<span>{fact}</span>" for fact in facts)}</p>'


def _time(page: DevicesPage, moment: datetime) -> str:
    exact = f"{moment:%Y-%m-%d %H:%M:%S} UTC"
    return f'<time datetime="{moment.isoformat()}" title="{exact}">{page.ago(moment)}</time>'


def _button(action: str, label: str, name: str | None = None) -> str:
    """A form of one button: what changes something is a POST."""
    spoken = "" if name is None else f' aria-label="{escape(name)}"'
    return f'<form method="post" action="{escape(action)}"><button{spoken}>{label}</button></form>'


def _home(url: str) -> str:
    return f'<a href="{escape(url)}">Back</a>'


def _ended(count: int) -> str:
    return "1 session was ended." if count == 1 else f"{count} sessions were ended."
