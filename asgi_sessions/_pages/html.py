"""The devices page as HTML."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from html import escape
from importlib.resources import files

from starlette.types import Scope

from asgi_sessions._model.device import OTHER_DEVICES
from asgi_sessions._model.device_name import device_name
from asgi_sessions._model.session import Session

from .frame import Frame
from .texts import ENGLISH

#: Served as a file of its own, so that a strict Content-Security-Policy lets it in.
STYLE = files("asgi_sessions").joinpath("_pages/page.css").read_text("utf-8")
#: Part of its URL, so that browsers may keep it.
_STYLE_VERSION = sha256(STYLE.encode()).hexdigest()[:12]

_UNITS = (("days_ago", 86_400), ("hours_ago", 3_600), ("minutes_ago", 60))
#: After so long, "40 days ago" says less than the date.
_LONG_AGO = timedelta(days=30)
#: Stands for a time in a text until it is HTML; no text has it.
_WHEN = "\0"


@dataclass(frozen=True, kw_only=True)
class DevicesPage(Frame):
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
        language: the page's: its ``tag`` such as ``de``, its ``direction`` (``ltr`` or ``rtl``),
            its texts by ``text(name)``, which are not escaped.
        time_zone: in which times are told.
        links: of the app's: texts and where they lead.
        form_fields: of the app's, for each form: their names and values.
    """

    current: Session
    live: Sequence[Session]
    ended: Sequence[Session] | None
    closed: int | None
    now: datetime
    scope: Scope

    def ago(self, moment: datetime) -> str:
        """Such as "2 hours ago"; the date where it is longer than 30 days."""
        text, age = self.language.text, self.now - moment
        if age > _LONG_AGO:
            day = moment.astimezone(self.time_zone)
            months = text("months").split()
            return text("date", day=day.day, month=months[day.month - 1], year=day.year)
        for name, seconds in _UNITS:
            count = int(age.total_seconds() // seconds)
            if count > 0:
                return text(name, count=count)
        return text("just_now")

    def exact(self, moment: datetime) -> str:
        """Such as "2026-01-01 12:00:00 UTC"."""
        return f"{moment.astimezone(self.time_zone):%Y-%m-%d %H:%M:%S %Z}"

    def device(self, session: Session) -> str:
        """What a session's device is called, such as "Firefox on Linux"."""
        text, agent = self.language.text, session.user_agent
        if agent == OTHER_DEVICES.user_agent:
            return text("other_devices")
        both = text("device", browser="{browser}", system="{system}")
        return device_name(agent, both=both, none=text("unknown_device"))

    def reason(self, session: Session) -> str:
        """Why a session ended, in words; a word of the app's own as it is."""
        name = f"reason_{session.end_reason or 'unknown'}"
        return self.language.text(name) if name in ENGLISH else session.end_reason or ""


def devices_page(page: DevicesPage) -> str:
    """The page as HTML."""
    said = _escaped(page)
    parts = [f"<h1>{said('title')}</h1>", f'<p class="soft">{said("advice")}</p>']
    if page.closed is not None:
        parts.append(f'<p class="note" role="status">{said("closed", count=page.closed)}</p>')
    parts.append(_list(page, "live", page.live))
    row = []
    if len(page.live) > 1:
        row.append(_button(page, "end-others", said("end_others")))
    if page.ended is None:
        row.append(_link(f"{page.base}?ended=1", page.language.text("show_ended")))
    parts.append(_row(page, row))
    if page.ended is not None:
        parts.append(f"<h2>{said('recently_ended')}</h2>")
        none = f'<p class="soft">{said("none")}</p>'
        parts.append(_list(page, "ended", page.ended) if page.ended else none)
    return document(page, "title", "\n".join(parts))


def message_page(
    frame: Frame, name: str, parts: Mapping[str, str], links: Mapping[str, str]
) -> str:
    """A page that says one thing.

    Args:
        frame: what stands around it.
        name: of the title among the texts; that of the text itself ends in ``_text``.
        parts: what the text's placeholders stand for.
        links: what else leads on: the names of the texts, and where they lead.
    """
    said = _escaped(frame)
    body = [f"<h1>{said(name)}</h1>", f"<p>{said(f'{name}_text', **parts)}</p>"]
    row = [_link(url, frame.language.text(text)) for text, url in links.items()]
    return document(frame, name, "\n".join([*body, _row(frame, row)]))


def document(frame: Frame, name: str, body: str) -> str:
    """A whole page.

    Args:
        frame: what stands around it.
        name: of the title among the texts.
        body: HTML in which everything foreign is escaped.
    """
    language = frame.language
    return f"""<!doctype html>
<html lang="{language.tag}" dir="{language.direction}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(language.text(name))}</title>
<link rel="stylesheet" href="{escape(frame.base)}style.css?{_STYLE_VERSION}">
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""


def _escaped(frame: Frame) -> Callable[..., str]:
    """The texts of a page, escaped."""
    return lambda name, **parts: escape(frame.language.text(name, **parts))


def _list(page: DevicesPage, name: str, sessions: Sequence[Session]) -> str:
    items = "".join(_item(page, session) for session in sessions)
    return f'<ul role="list" aria-label="{_escaped(page)(name)}">{items}\n</ul>'


def _item(page: DevicesPage, session: Session) -> str:
    said = _escaped(page)
    here = session.sid == page.current.sid
    device, address = (
        page.device(session),
        session.ip_address or page.language.text("unknown_address"),
    )
    where = [escape(address)]
    if session.auth_provider:
        where.append(said("via", provider=session.auth_provider))
    if session.bound:
        where.append(said("bound"))
    if session.actor_id is not None:
        actor, reason = session.actor_id, session.actor_reason or ""
        where.append(said("acts_for_you", actor=actor, reason=reason))
    if session.ended_at is not None:
        over = said("over", reason=page.reason(session), when=_WHEN)
        when = [_timed(page, said("logged_in", when=_WHEN), session.started_at)]
        when.append(_timed(page, over, session.ended_at))
        button = ""
    else:
        when = [_timed(page, said("last_seen", when=_WHEN), session.last_seen_at)]
        when.append(_timed(page, said("seen_and_logged_in", when=_WHEN), session.started_at))
        label = said("log_out" if here else "end")
        # Those who hear the page, not see it, are told which one.
        what = f"{label}: {escape(device)}, {escape(address)}"
        button = _button(page, f"{session.sid}/end", label, what)
    mark = f' <span class="badge">{said("this_device")}</span>' if here else ""
    name = f'<strong title="{escape(session.user_agent or "")}">{escape(device)}</strong>'
    kind = "" if session.ended_at is None else ' class="over"'
    return f"\n<li{kind}><div>{name}{mark}{_line(where)}{_line(when)}</div>{button}</li>"


def _line(facts: Sequence[str]) -> str:
    """A line that breaks between its facts rather than in them."""
    return f'\n<p class="soft">{" · ".join(f"<bdi>{fact}</bdi>" for fact in facts)}</p>'


def _timed(page: DevicesPage, said: str, moment: datetime) -> str:
    """A text with a time in it."""
    exact = escape(page.exact(moment))
    time = (
        f'<time datetime="{moment.isoformat()}" title="{exact}">{escape(page.ago(moment))}</time>'
    )
    return said.replace(_WHEN, time)


def _button(page: DevicesPage, action: str, label: str, name: str | None = None) -> str:
    """A form of one button: what changes something is a POST. Label and name are escaped."""
    spoken = "" if name is None else f' aria-label="{name}"'
    fields = "".join(
        f'<input type="hidden" name="{escape(field)}" value="{escape(value)}">'
        for field, value in page.form_fields.items()
    )
    action = escape(f"{page.base}{action}")
    return f'<form method="post" action="{action}">{fields}<button{spoken}>{label}</button></form>'


def _row(frame: Frame, row: Sequence[str]) -> str:
    """What leads on, with the app's own links."""
    links = [_link(url, text) for text, url in frame.links.items()]
    if frame.home_url is not None:
        links.append(_link(frame.home_url, frame.language.text("back")))
    return f'<div class="row">{" ".join([*row, *links])}</div>'


def _link(url: str, text: str) -> str:
    return f'<a href="{escape(url)}">{escape(text)}</a>'
