"""Who a person is in the words of the table: their id, their app, and what proves them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.changeset import changeset
from asgi_sessions._model.person import Person

from .options import Settings

#: How far a proof may be dated ahead of the clock, as those of a provider whose clock is ahead.
#: One that is further ahead is taken for undated.
SKEW = timedelta(minutes=5)


def identify(person: object, settings: Settings) -> Person:
    """The person with id and app as the table spells them.

    Args:
        person: any object or mapping with an id.
        settings: the app they are logged in to, the issuer whose subjects are ids, the clock.

    Raises:
        ConfigurationError: if there is no id, or only the subject of a foreign issuer.
        InvalidSession: if an id cannot be stored.
    """
    person = Person.of(person)
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


def _id_of_subject(person: Person, settings: Settings) -> str | None:
    """A subject is unique only with its issuer: those of another one are other people."""
    if person.issuer != settings.issuer:
        raise ConfigurationError(
            f"the claims of issuer {person.issuer!r} name their person by sub alone, which "
            "another issuer may use for somebody else: pass Person(id=...) with the id that "
            "your app has for them, or Sessions(issuer=...) if nobody else vouches for people"
        )
    return person.subject
