"""Who is logged in: any object or mapping with an id, read into a `Person`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from starlette.authentication import AuthCredentials, BaseUser, SimpleUser, UnauthenticatedUser

from asgi_sessions._errors import ConfigurationError

from .changeset import YEARS
from .lifetimes import plain_utc

ID_NAMES = ("id", "identity", "sub")

#: The key of a scope for a user who is there because of a session of ours, and for no other reason.
SESSION_USER = "asgi_sessions.user"


@dataclass(frozen=True, slots=True)
class Person:
    """The facts about a person that a session keeps.

    Args:
        id: str, int or UUID; stored as text of at most 255 characters.
        app_id: the app they are logged in to; None for the `app_id` of `Sessions`.
        auth_provider: what authenticated them, for instance ``"google"``.
        authenticated_at: when they last proved who they are (aware); None if unknown. A token's
            ``auth_time``.
        sid: the session of ours that their token names, if it names one. A provider's own ``sid``
            (OpenID Connect) is another thing, and must not be passed here; in claims with an
            ``iss`` that are passed to `Sessions.start_session`, it is known for that.
        acr: how well they were authenticated, in the words of who did it; None if unknown.
        amr: the methods that were used, such as ``("pwd", "otp")`` (RFC 8176).
        issued_at: when their token was issued, its ``iat``. That proves nothing about the person,
            so it never makes a session fresh; but a token that was issued after a session had
            ended lets its person in again.
        issuer: who says so, a token's ``iss``.
        subject: whom the issuer means, a token's ``sub``: unique only together with `issuer`.
        provider_sid: the session that they have at the issuer, an ID token's ``sid``: by it the
            provider can end what was started with it.
    """

    id: object
    app_id: str | None = None
    auth_provider: str | None = None
    authenticated_at: datetime | None = None
    sid: str | None = None
    acr: str | None = None
    amr: Sequence[str] = ()
    issued_at: datetime | None = None
    issuer: str | None = None
    subject: str | None = None
    provider_sid: str | None = None

    def __post_init__(self) -> None:
        # Cleaned here, so that whoever has a `Person` need not look again.
        for name, clean in _CLEANING.items():
            value = getattr(self, name)
            if value is not None or name == "amr":  # nearly all are None, and stay so
                object.__setattr__(self, name, clean(value))

    @property
    def proof(self) -> datetime | None:
        """When whoever vouches for them last had a reason to; None if nobody has dated that."""
        return self.authenticated_at or self.issued_at

    @classmethod
    def of(cls, person: object, *, where: str = "the person given") -> Person:
        """Read any object or mapping; a bare str, int or UUID is taken for the id itself.

        The id is looked for as `id`, `identity` and `sub`. `authenticated_at` is a token's
        ``auth_time``, `issued_at` its ``iat`` (seconds since 1970, RFC 7519 and OpenID Connect).
        Claims with an ``iss`` and no id but their ``sub`` make a person without an id: whether
        that issuer's subjects may be taken for ids, `Sessions` knows.

        Raises:
            ConfigurationError: if there is no id; it says where it was looked for.
        """
        if type(person) is Person:
            return person
        if isinstance(person, Person):
            return cls(*(getattr(person, field.name) for field in fields(Person)))
        if isinstance(person, str | int | UUID) and not isinstance(person, bool):
            return cls(person)
        read = _reader(person)
        person_id, subject = _first(read, *ID_NAMES[:-1]), read(ID_NAMES[-1])
        issuer = _text(read("iss")) or None
        if person_id is None and isinstance(person, SimpleUser):
            person_id = person.username  # its `identity` from Starlette 1.7 on
        if person_id is None and issuer is None:
            person_id = subject
        if person_id is None and subject is None:
            looked = "keys" if isinstance(person, Mapping) else "attributes"
            raise ConfigurationError(
                f"{where} ({type(person).__name__}) has no id: looked for the {looked} "
                f"{', '.join(ID_NAMES)}. Give it one, or pass SessionMiddleware(person=...) a "
                "function that returns Person(id=...)"
            )
        return cls(
            person_id,
            app_id=read("app_id"),
            auth_provider=read("auth_provider"),
            authenticated_at=_first(read, "authenticated_at", "auth_time"),
            sid=read("sid"),
            acr=read("acr"),
            amr=read("amr"),
            issued_at=_first(read, "issued_at", "iat"),
            issuer=issuer,
            subject=subject,
        )


def sign_out_of_scope(scope: MutableMapping[str, Any]) -> None:
    """Take out of the scope what `person_from_scope` reads: the default of `SessionMiddleware`.

    A user of Starlette's kind becomes its `UnauthenticatedUser`, with no credentials. Any other
    kind of user becomes None: an app that has None for nobody would let in whatever is true.
    """
    state = scope.get("state")
    if isinstance(state, MutableMapping):
        state.pop("person", None)
    if "user" in scope:
        scope["user"] = UnauthenticatedUser() if isinstance(scope["user"], BaseUser) else None
    if "auth" in scope:
        scope["auth"] = AuthCredentials() if isinstance(scope["auth"], AuthCredentials) else None


def is_vouched_for(scope: Mapping[str, Any]) -> bool:
    """Whether a layer has put an authenticated user into the scope, other than ours."""
    user = scope.get("user")
    if user is None or user is scope.get(SESSION_USER):
        return False
    authenticated = _reader(user, default=True)("is_authenticated")
    return bool(authenticated() if callable(authenticated) else authenticated)


def person_from_scope(scope: Mapping[str, Any]) -> Person | None:
    """The person whom another layer authenticated: the default of `SessionMiddleware`.

    ``scope["state"]["person"]`` first, then ``scope["user"]`` unless its `is_authenticated`
    is false, or `SessionAuthBackend` has put it there.

    Raises:
        ConfigurationError: if somebody is there but has no id.
    """
    state = scope.get("state")
    if state is not None and (type(state) is dict or isinstance(state, Mapping)):
        person = state.get("person")
        if person is not None:
            return Person.of(person, where='scope["state"]["person"]')
    if scope.get("user") is None or not is_vouched_for(scope):
        return None
    return Person.of(scope["user"], where='scope["user"]')


def _reader(person: object, *, default: object = None) -> Callable[[str], Any]:
    """A function that reads what stands under a name; the default where nothing does."""
    if isinstance(person, Mapping):
        return person.get if default is None else lambda name: person.get(name, default)
    return partial(_attribute, person, default=default)


def _attribute(person: object, name: str, *, default: object) -> Any:  # noqa: ANN401 -- anything a foreign object holds
    try:
        return getattr(person, name, default)
    except NotImplementedError:  # starlette.authentication.BaseUser.identity
        return default


def _first(read: Callable[[str], Any], *names: str) -> Any:  # noqa: ANN401 -- anything a foreign object holds
    for name in names:
        value = read(name)
        if value is not None:
            return value
    return None


def _text(value: object) -> Any:  # noqa: ANN401 -- text, or what will be refused
    try:
        return None if value is None else str(value)
    except ValueError:
        return value  # an integer of more digits than Python spells


def _methods(value: object) -> tuple[str, ...]:
    """The items of a list, the words of a text; anything else names no method."""
    if value is None:  # as with nearly everybody
        return ()
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, Iterable) and not isinstance(value, bytes | Mapping):
        return tuple(map(_text, value))
    return ()


def _moment(value: object) -> datetime | None:
    """An aware datetime, or epoch seconds; anything else proves no authentication."""
    try:
        if isinstance(value, datetime) and value.tzinfo is not None:
            moment = plain_utc(value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            moment = datetime.fromtimestamp(value, UTC)
        else:
            return None
    except (OverflowError, OSError, ValueError):
        return None  # no moment of our calendar
    return moment if moment.year in YEARS else None


def _word(value: object) -> Any:  # noqa: ANN401 -- as _text
    return _text(value) or None


#: What becomes of what a `Person` is made with.
_CLEANING: dict[str, Callable[[object], Any]] = {
    "app_id": _text,
    "auth_provider": _word,
    "authenticated_at": _moment,
    "sid": _text,
    "acr": _word,
    "amr": _methods,
    "issued_at": _moment,
    "issuer": _word,
    "subject": _word,
    "provider_sid": _word,
}
