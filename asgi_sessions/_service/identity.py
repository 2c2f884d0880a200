"""Who a person is in the words of the table: their id, their app, and what proves them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from asgi_sessions._errors import ConfigurationError, InvalidSession
from asgi_sessions._model.changeset import changeset, checked
from asgi_sessions._model.person import Person

from .options import Settings

#: How far a proof may be dated ahead of the clock, as those of a provider whose clock is ahead.
#: One that is further ahead is taken for undated.
SKEW = timedelta(minutes=5)


def identify(person: object, settings: Settings, *, login: bool = False) -> Person:
    """The person with id and app as the table spells them.

    Args:
        person: any object or mapping with an id.
        settings: the app they are logged in to, the issuer whose subjects are ids, the clock.
        login: whether the app starts a session for them, so that the ``sid`` of an issuer's claims
            can be none of ours: it names the session that they have at the issuer.

    Raises:
        ConfigurationError: if there is no id, or only the subject of a foreign issuer.
        InvalidSession: if an id cannot be stored.
    """
    given, person = person, Person.of(person)
    if login and person.issuer is not None and not isinstance(given, Person):
        person = replace(person, sid=None, provider_sid=person.sid)
    if person.id is None and person.subject is not None:
        person = replace(person, id=_id_of_subject(person, settings))
    latest = settings.now() + SKEW
    if person.proof is not None and person.proof > latest:
        person = replace(person, authenticated_at=None, issued_at=None)
    app_id = settings.app_id if person.app_id is None else person.app_id
    facts = {
        "person_id": person.id,
        "app_id": app_id,
        "auth_provider": person.auth_provider,
        "acr": person.acr,
        "amr": person.amr,
    }
    if person.issuer is not None:  # without it, its words mean nobody
        facts |= {
            "issuer": person.issuer,
            "subject": person.subject,
            "provider_sid": person.provider_sid,
        }
    cast = changeset(None, facts).checked()
    return Person(
        cast["person_id"],
        cast["app_id"],
        cast["auth_provider"],
        person.authenticated_at,
        person.sid,
        cast["acr"],
        person.amr,
        person.issued_at,
        cast.get("issuer"),
        cast.get("subject"),
        cast.get("provider_sid"),
    )


def moment_of_proof(authenticated_at: datetime | None, settings: Settings) -> datetime:
    """When a renewal says that the person has proved who they are: never later than now.

    Args:
        authenticated_at: as whoever saw the proof dates it; None for now.
        settings: the clock.

    Raises:
        InvalidSession: if it is no aware datetime, or further ahead of the clock than `SKEW`.
    """
    now = settings.now()
    if authenticated_at is None:
        return now
    moment: datetime = checked(authenticated_at=authenticated_at)["authenticated_at"]
    if moment > now + SKEW:
        late = f"must not be more than 5 minutes ahead of the clock, which says {now:%H:%M:%S} UTC"
        raise InvalidSession({"authenticated_at": [late]})
    return min(moment, now)


def _id_of_subject(person: Person, settings: Settings) -> str | None:
    """A subject is unique only with its issuer: those of another one are other people."""
    if person.issuer != settings.issuer:
        raise ConfigurationError(
            f"the claims of issuer {person.issuer!r} name their person by sub alone, which "
            "another issuer may use for somebody else: pass Person(id=...) with the id that "
            "your app has for them, or Sessions(issuer=...) if nobody else vouches for people"
        )
    return person.subject
