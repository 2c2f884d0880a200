"""What the page says, in the languages that it has: English, German, and those that an app adds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from types import MappingProxyType
from typing import Any

from asgi_sessions._errors import ConfigurationError

#: A text; of those with a count also a function of it, for languages that have many plurals.
Text = str | Callable[[int], str]
Texts = Mapping[str, Text]
#: Texts by their language, or a function from a language to its texts, or to None.
Translate = Mapping[str, Texts] | Callable[[str], Texts | None]

_TAG = re.compile(r"[A-Za-z]{2,8}([-_][A-Za-z0-9]{1,8}){0,3}", re.ASCII)
_MONTHS = 12
_SCRIPT, _REGION = 4, 2  # letters of these subtags (RFC 5646, 2.1.1)
_RIGHT_TO_LEFT = frozenset({"ar", "ckb", "dv", "fa", "he", "ps", "sd", "ug", "ur", "yi"})
_RIGHT_TO_LEFT_SCRIPTS = frozenset({"Arab", "Hebr", "Nkoo", "Syrc", "Thaa"})


def _plural(one: str, other: str) -> Callable[[int], str]:
    return lambda count: one if count == 1 else other.format(count=count)


#: Each name that there is. The refusals are named after the `detail` that programs get.
ENGLISH: Texts = MappingProxyType(
    {
        "title": "Where you are logged in",
        "advice": "End what you do not recognise, and change your password.",
        "live": "Live sessions",
        "ended": "Ended sessions",
        "recently_ended": "Recently ended",
        "none": "None.",
        "closed": _plural("1 session was ended.", "{count} sessions were ended."),
        # Of one session.
        "device": "{browser} on {system}",
        "unknown_device": "Unknown device",
        "other_devices": "Other devices",
        "this_device": "this device",
        "unknown_address": "unknown address",
        "via": "via {provider}",
        "bound": "bound to the device",
        "acts_for_you": "{actor} acts for you: {reason}",
        "last_seen": "Last seen {when}",
        "seen_and_logged_in": "logged in {when}",
        "logged_in": "Logged in {when}",
        "over": "{reason} {when}",
        # Buttons and links.
        "end": "End",
        "end_others": "End all other sessions",
        "log_out": "Log out",
        "log_in": "Log in",
        "show_ended": "Show recently ended sessions",
        "back": "Back",
        # Times.
        "just_now": "just now",
        "minutes_ago": _plural("1 minute ago", "{count} minutes ago"),
        "hours_ago": _plural("1 hour ago", "{count} hours ago"),
        "days_ago": _plural("1 day ago", "{count} days ago"),
        "date": "on {day} {month} {year}",
        "months": "January February March April May June July August September October November"
        " December",
        # Why sessions end.
        "reason_logout": "logged out",
        "reason_revoked": "ended from another device",
        "reason_replaced": "replaced by a new login in the same browser",
        "reason_person_changed": "somebody else logged in in the same browser",
        "reason_limit": "ended because there were too many",
        "reason_expired": "expired",
        "reason_reuse": "ended because its cookie was used twice: it may have been stolen",
        "reason_not_delivered": "ended because the login did not go through",
        "reason_actor_left": "ended when whoever acted for you left",
        "reason_unknown": "ended",
        # In place of the list.
        "logged_out": "Logged out",
        "logged_out_text": "You are logged out on this device.",
        "not_logged_in": "Not logged in",
        "not_logged_in_text": "Log in to see where else you are.",
        "log_in_again_first": "Log in again first",
        "log_in_again_first_text": "Your login is too old to end other sessions with it. Nothing"
        " was ended.",
        "cross_site_request_refused": "Cross-site request refused",
        "cross_site_request_refused_text": "Another site has sent you here. Nothing was ended.",
        "not_found": "Not found",
        "not_found_text": "You have no such session.",
        "method_not_allowed": "Method not allowed",
        "method_not_allowed_text": "This address takes {methods}.",
    }
)

GERMAN: Texts = MappingProxyType(
    {
        "title": "Wo Sie angemeldet sind",
        "advice": "Beenden Sie, was Sie nicht kennen, und ändern Sie dann Ihr Passwort.",
        "live": "Laufende Sitzungen",
        "ended": "Beendete Sitzungen",
        "recently_ended": "Kürzlich beendet",
        "none": "Keine.",
        "closed": _plural("1 Sitzung wurde beendet.", "{count} Sitzungen wurden beendet."),
        "device": "{browser} auf {system}",
        "unknown_device": "Unbekanntes Gerät",
        "other_devices": "Weitere Geräte",
        "this_device": "dieses Gerät",
        "unknown_address": "unbekannte Adresse",
        "via": "über {provider}",
        "bound": "an das Gerät gebunden",
        "acts_for_you": "{actor} handelt für Sie: {reason}",
        "last_seen": "Zuletzt aktiv {when}",
        "seen_and_logged_in": "angemeldet {when}",
        "logged_in": "Angemeldet {when}",
        "over": "{when} {reason}",
        "end": "Beenden",
        "end_others": "Alle anderen Sitzungen beenden",
        "log_out": "Abmelden",
        "log_in": "Anmelden",
        "show_ended": "Kürzlich beendete Sitzungen zeigen",
        "back": "Zurück",
        "just_now": "gerade eben",
        "minutes_ago": _plural("vor 1 Minute", "vor {count} Minuten"),
        "hours_ago": _plural("vor 1 Stunde", "vor {count} Stunden"),
        "days_ago": _plural("vor 1 Tag", "vor {count} Tagen"),
        "date": "am {day}. {month} {year}",
        "months": "Januar Februar März April Mai Juni Juli August September Oktober November"
        " Dezember",
        "reason_logout": "abgemeldet",
        "reason_revoked": "von einem anderen Gerät aus beendet",
        "reason_replaced": "durch eine neue Anmeldung im selben Browser ersetzt",
        "reason_person_changed": "durch die Anmeldung von jemand anderem im selben Browser beendet",
        "reason_limit": "beendet, weil es zu viele waren",
        "reason_expired": "abgelaufen",
        "reason_reuse": "beendet, weil ihr Cookie zweimal verwendet wurde: es ist womöglich"
        " gestohlen worden",
        "reason_not_delivered": "beendet, weil die Anmeldung nicht zustande kam",
        "reason_actor_left": "beendet, als gegangen war, wer für Sie handelte",
        "reason_unknown": "beendet",
        "logged_out": "Abgemeldet",
        "logged_out_text": "Sie sind auf diesem Gerät abgemeldet.",
        "not_logged_in": "Nicht angemeldet",
        "not_logged_in_text": "Melden Sie sich an, um zu sehen, wo Sie sonst noch angemeldet sind.",
        "log_in_again_first": "Bitte melden Sie sich erst neu an",
        "log_in_again_first_text": "Ihre Anmeldung liegt zu lange zurück, um damit andere"
        " Sitzungen zu beenden. Es wurde nichts beendet.",
        "cross_site_request_refused": "Anfrage von einer fremden Seite abgelehnt",
        "cross_site_request_refused_text": "Eine andere Website hat Sie hierher geschickt. Es"
        " wurde nichts beendet.",
        "not_found": "Nicht gefunden",
        "not_found_text": "Eine solche Sitzung haben Sie nicht.",
        "method_not_allowed": "Methode nicht erlaubt",
        "method_not_allowed_text": "Diese Adresse nimmt {methods} an.",
    }
)

_SHIPPED = {"en": ENGLISH, "de": GERMAN}


@dataclass(frozen=True)
class Language:
    """One language of the page.

    Attributes:
        tag: such as ``pt-BR`` (RFC 5646).
        texts: all that there are.
    """

    tag: str
    texts: Texts

    @property
    def direction(self) -> str:
        """``ltr`` or ``rtl``: how it is written."""
        first, *others = self.tag.split("-")
        script = next((one for one in others if len(one) == _SCRIPT and one.isalpha()), None)
        if script is not None:
            return "rtl" if script in _RIGHT_TO_LEFT_SCRIPTS else "ltr"
        return "rtl" if first in _RIGHT_TO_LEFT else "ltr"

    def text(self, name: str, **parts: object) -> str:
        """A text, not escaped, with its placeholders filled."""
        text = self.texts[name]
        return text.format(**parts) if isinstance(text, str) else text(int(str(parts["count"])))


class Catalogue:
    """The languages that the page has.

    Args:
        translate: those of the app, which come before ours, text by text.

    Raises:
        ConfigurationError: for texts that cannot be; all errors in one message.
    """

    def __init__(self, translate: Translate | None = None) -> None:
        self._translate: Callable[[str], Texts | None] = lambda _: None
        if callable(translate):
            self._translate = translate
        elif translate is not None:
            if not isinstance(translate, Mapping):
                raise ConfigurationError(
                    f"translate={translate!r}: use a mapping of languages to their texts, or a"
                    " function of a language"
                )
            errors = [error for tag, texts in translate.items() for error in faults(tag, texts)]
            if errors:
                raise ConfigurationError("; ".join(errors))
            self._translate = {canonical(tag): texts for tag, texts in translate.items()}.get

    def first(self, tags: Iterable[str]) -> Language:
        """The first of these languages that there is, or what is more general (RFC 4647, 3.4);
        else English.

        Raises:
            ConfigurationError: if the app's function gives texts that cannot be.
        """
        asked = (one for tag in (*tags, "en") for one in _general(canonical(tag)))
        return next(filter(None, map(self._language, asked)))

    def _language(self, tag: str) -> Language | None:
        shipped, given = _SHIPPED.get(tag), self._translate(tag)
        if given is None:
            return None if shipped is None else Language(tag, shipped)
        if errors := list(faults(tag, given)):
            raise ConfigurationError("; ".join(errors))
        return Language(tag, {**(shipped or ENGLISH), **given})


def is_tag(value: object) -> bool:
    """Whether this can be the tag of a language."""
    return isinstance(value, str) and _TAG.fullmatch(value) is not None


def canonical(tag: str) -> str:
    """A tag as it is usually written: ``pt-BR`` for ``PT_br`` (RFC 5646, 2.1.1)."""
    first, *others = tag.replace("_", "-").split("-")
    return "-".join(
        [
            first.lower(),
            *(
                one.upper()
                if len(one) == _REGION
                else one.title()
                if len(one) == _SCRIPT and one.isalpha()
                else one.lower()
                for one in others
            ),
        ]
    )


def _general(tag: str) -> Iterator[str]:
    """A tag, and it without its last subtags."""
    while tag:
        yield tag
        tag = tag.rpartition("-")[0]


def faults(tag: object, texts: object) -> Iterator[str]:
    """What is wrong with the texts of a language."""
    if not is_tag(tag):
        yield f"translate: {tag!r} is no language: use a tag such as 'fr' or 'pt-BR'"
    if not isinstance(texts, Mapping):
        yield f"translate: {tag!r} has {texts!r}: use a mapping of names to texts"
        return
    for name, text in texts.items():
        if name not in ENGLISH:
            yield f"translate: {tag!r} has a text {name!r}, and the page has none of that name"
        elif mend := _mend(name, text):
            yield f"translate: {tag!r} has {name}={text!r}: {mend}"


def _mend(name: str, text: Any) -> str | None:  # noqa: ANN401 -- what an app has given
    """How a text becomes right; None if it is."""
    counted = callable(ENGLISH[name])
    if counted and callable(text):
        return None
    if not isinstance(text, str):
        return "use a str" + (" or a function of the count" if counted else "")
    wanted = {"count"} if counted else _placeholders(ENGLISH[name])
    try:
        used = _placeholders(text)
    except ValueError:
        used = None
    if used != wanted and not (counted and used == set()):
        braced = ", ".join(f"{{{one}}}" for one in sorted(wanted)) or "none"
        return f"its placeholders are {braced}"
    if name == "months" and len(text.split()) != _MONTHS:
        return "name the twelve months, with spaces between them"
    return None


def _placeholders(text: object) -> set[str]:
    return {
        field + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "")
        for _, field, spec, conversion in Formatter().parse(str(text))
        if field is not None
    }
