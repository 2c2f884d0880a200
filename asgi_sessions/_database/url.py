"""The options in the query of a database URL: each is honoured, or refused by its name.

`databases` reads a few of them and drops the others in silence, `sslmode` too: then what was to be
encrypted is not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, NamedTuple, Protocol
from urllib.parse import SplitResult, parse_qsl

from asgi_sessions._errors import ConfigurationError


class Place(Protocol):
    """A URL, taken apart: `databases.DatabaseURL` is one."""

    @property
    def components(self) -> SplitResult: ...

    @property
    def dialect(self) -> str: ...

    @property
    def driver(self) -> str: ...

    @property
    def database(self) -> str: ...


class Option(NamedTuple):
    """An option of a URL.

    Attributes:
        read: what the driver is to be given. Raises `ValueError` with what to write instead.
        keyword: the option of `databases.Database` that says the same.
        known: whether `databases` reads it from a URL.
        honoured: False for one that the driver does not have, or that must not be.
    """

    read: Callable[[str], Any]
    keyword: str = ""
    known: bool = False
    honoured: bool = True


class Rules(NamedTuple):
    """What the URL of one driver may say.

    Attributes:
        driver: its name.
        options: by their names.
        combine: the options for `databases.Database` that all of them together make. Raises
            `ValueError` with what to write instead.
        reads: whether what `databases` passes on from a URL is read, given the options beside it.
    """

    driver: str
    options: Mapping[str, Option]
    combine: Callable[[Place, Mapping[str, Any]], dict[str, Any]]
    reads: Callable[[Place, Mapping[str, Any]], bool] = lambda *_: True


def read(url: Place, rules: Rules, pool: Mapping[str, Any]) -> dict[str, Any]:
    """The options for a `databases.Database` of our own, beside its URL.

    Args:
        url: the URL.
        rules: what it may say.
        pool: options of ours, for what the URL does not say.

    Raises:
        ConfigurationError: for options that the driver cannot honour, all in one message.
    """
    given, errors = _given(url)
    values: dict[str, Any] = {}
    for name, text in given.items():
        option = rules.options.get(name)
        try:
            values[name] = (_unknown(name, rules) if option is None else option).read(text)
        except ValueError as error:
            errors.append(f"{name}: {error}")
    ours = {name: value for name, value in pool.items() if name not in given}
    options: dict[str, Any] = {}
    if not errors:
        try:
            options = ours | rules.combine(url, values)
            _sizes(ours | values)
        except ValueError as error:
            errors.append(str(error))
    _refuse(errors, rules)
    return options


def _sizes(values: Mapping[str, Any]) -> None:
    least, most = values.get("min_size", 0), values.get("max_size", 0)
    if least > most:
        raise ValueError(f"min_size: {least} is more than max_size ({most}); give both")


def refuse_unread(url: Place, options: Mapping[str, Any], rules: Rules) -> None:
    """Refuse what the URL of an app's own database says and nobody reads: neither `databases`,
    nor does an option beside the URL say it.

    Raises:
        ConfigurationError: with the names of such options.
    """
    given, errors = _given(url)
    for name in given:
        option = rules.options.get(name) or _unknown(name, rules)
        beside = option.keyword in options
        if option.keyword == "server_settings" and beside:  # of the server, by their names
            beside = name in options["server_settings"]
        if not (beside or option.known) or not rules.reads(url, options):
            errors.append(
                f"{name}: `databases` does not read it from a URL; give it beside the URL, "
                f"databases.Database(url, {option.keyword}=...), or give Sessions the URL"
                if option.keyword
                else f"{name}: `databases` does not read it from a URL; leave it out"
            )
    _refuse(errors, rules)


def _refuse(errors: list[str], rules: Rules) -> None:
    if errors:
        raise ConfigurationError(
            f"options of the database URL ({rules.driver}): {'; '.join(errors)}"
        )


def _given(url: Place) -> tuple[dict[str, str], list[str]]:
    """The options by name, as they are written; and what is wrong with how they are."""
    place, errors = url.components, []
    given: dict[str, str] = {}
    # Half of a password is not shown.
    if place.fragment or ("@" in place.query and "@" not in place.netloc):
        return given, ["in a name, a password or a value write # as %23, ? as %3F and @ as %40"]
    for name, text in parse_qsl(place.query, keep_blank_values=True):
        if not text:
            errors.append(f"{name}: it has no value; give one, or leave it out")
        elif name in given:
            errors.append(f"{name}: it is there twice, and one would be dropped")
        elif name in _HOSTS and place.hostname:
            errors.append(f"{name}: the URL has a host before its path; leave one of them out")
        else:
            given[name] = text
    return given, errors


#: `databases` takes the host from these if the URL has none before its path.
_HOSTS = ("host", "unix_sock")


def _unknown(name: str, rules: Rules) -> Option:
    """An option that the driver does not have. Its value is not shown: it may be a password."""
    near = get_close_matches(name, [n for n, o in rules.options.items() if o.honoured], 1)
    fix = f"do you mean {near[0]}?" if near else "leave it out"
    return instead(f"{rules.driver} has no such option in a URL; {fix}")


# --- how values are read --------------------------------------------------------------------------


def instead(fix: str) -> Option:
    """An option that is not honoured, with what to write instead."""

    def refuse(_: str) -> object:
        raise ValueError(fix)

    return Option(refuse, honoured=False)


def whole(least: int) -> Callable[[str], int]:
    """A whole number."""

    def number(text: str) -> int:
        if not text.removeprefix("-").isdecimal() or int(text) < least:
            raise ValueError(f"use a whole number, {least} or more")
        return int(text)

    return number


def word(*words: str) -> Callable[[str], str]:
    """One of these."""

    def one(text: str) -> str:
        if text not in words:
            raise ValueError(f"use {', '.join(words[:-1])} or {words[-1]}")
        return text

    return one


def true_or_false(text: str) -> bool:
    """As `databases` reads it."""
    return word("true", "false")(text.lower()) == "true"


def true(fix: str) -> Callable[[str], bool]:
    """What can only be true, with what to write instead of false."""

    def only_true(text: str) -> bool:
        if not true_or_false(text):
            raise ValueError(fix)
        return True

    return only_true
