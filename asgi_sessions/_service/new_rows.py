"""The values of a new row, and the token of its cookie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from math import ceil
from typing import Any

from asgi_sessions._model.changeset import checked
from asgi_sessions._model.device import OTHER_DEVICES, Device, address_to_store
from asgi_sessions._model.lifetimes import Lifetimes
from asgi_sessions._model.person import Person
from asgi_sessions._model.tokens import Token, digest, new_secret, new_sid

from .options import Settings


class NewRows:
    """Makes the rows of new sessions.

    Args:
        settings: the options.
        random: returns so many random bytes.
    """

    def __init__(self, settings: Settings, random: Callable[[int], bytes]) -> None:
        self._settings = settings
        self._random = random

    def make(
        self,
        device: Device,
        person: Person,
        origin: str,
        now: datetime,
        *,
        remember: bool,
        bearer: bool = False,
        lifetimes: Lifetimes | None = None,
    ) -> tuple[dict[str, Any], Token, list[bytes]]:
        """The values of all columns, the token of the cookie, and the keys of the device.

        Args:
            device: on which the session starts.
            person: whose it is, as `identify` spells them.
            origin: ``login`` or ``scope``.
            now: the moment.
            remember: whether the cookie outlives the browser.
            bearer: whether its client sends a token in place of the cookie.
            lifetimes: its own; None for those of the options.
        """
        keys = self.device_keys(device, person)
        token = Token(new_sid(now, self._random), new_secret(self._random))
        authenticated_at = person.authenticated_at or (now if origin == "login" else None)
        # The rest is of our own making, or has been cast where it came in.
        given = checked(
            started_at=now,
            expires_at=(lifetimes or self._settings.terms.of(remember=remember)).expires_at(now),
            idle_seconds=None if lifetimes is None else ceil(lifetimes.idle.total_seconds()),
            remember=remember,
            amr=person.amr,
        )
        values = {
            "id": token.sid,
            "person_id": person.id,
            "app_id": person.app_id,
            "auth_provider": person.auth_provider,
            "origin": origin,
            "user_agent": device.user_agent,
            "ip_address": address_to_store(device.ip_address, self._settings.store_ip),
            "device_key": keys[0],
            "live_device_key": keys[0] if origin == "scope" else None,
            "secret_hash": digest(token.secret),
            "previous_secret_hash": None,
            "secret_seen_at": None,
            "last_seen_at": now,
            "authenticated_at": authenticated_at,
            "ended_at": None,
            "end_reason": None,
            "acr": person.acr,
            "binding": None,
            "renewed_at": None,
            "bearer": bearer,
            "actor_id": None,
            "actor_sid": None,
            "actor_reason": None,
            "issuer": person.issuer,
            "subject": person.subject,
            "provider_sid": person.provider_sid,
            **given,
        }
        return values, token, keys

    def device_keys(self, device: Device, person: Person) -> list[bytes]:
        """What rows of a person on a device are found by, by each key, the newest first."""
        return self._settings.keys.device_keys(
            person.app_id, str(person.id), device.user_agent, device.ip_address
        )


def of_other_devices(keys: Sequence[bytes]) -> dict[str, Any]:
    """The columns of the device, for the row that a person's other devices share."""
    return {
        "user_agent": OTHER_DEVICES.user_agent,
        "ip_address": OTHER_DEVICES.ip_address,
        "device_key": keys[0],
        "live_device_key": keys[0],
    }
