"""Where the keys of a provider come from: a JWK set, the URL of one, or a function of the app's."""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import httpx

from asgi_sessions._errors import ConfigurationError

from .algorithms import PublicKey, public_keys
from .refusal import KeysUnavailable

#: Something that gives a JWK set.
Fetch = Callable[[], Awaitable[Mapping[str, Any]]]
Keys = str | Mapping[str, Any] | Fetch

#: How long keys are good without a look whether they still are.
FRESH = timedelta(hours=1)
#: How long to wait between two looks, on the average, and how many may follow at once: whoever
#: invents a key's name has the provider asked no more often. More than one, as keys may change just
#: after a look, and a provider need not send again what was not taken.
PAUSE, LOOKS = timedelta(seconds=10), 3
#: Seconds and bytes of an answer of the provider.
TIMEOUT, LARGEST = 5.0, 262_144

_URL = re.compile(r"https?://[!-~]+")


class KeySource:
    """The keys that are in force. Once there are some they stay, whatever becomes of the provider,
    until it has given others.

    Args:
        keys: a JWK set, the URL of one, or an async function that returns one.
        now: the clock.

    Raises:
        ConfigurationError: if this can give no keys.
    """

    def __init__(self, keys: Keys, now: Callable[[], datetime]) -> None:
        self._now = now
        self._keys: list[PublicKey] | None = None
        self._fetch: Fetch | None = None
        self._fetched_at: datetime | None = None
        self._tried_at: deque[datetime] = deque(maxlen=LOOKS)
        self._fetching: asyncio.Task[bool] | None = None
        self._fault = "asked a moment ago"
        if isinstance(keys, str):
            self._fetch = _fetch_from(keys)
        elif callable(keys):
            self._fetch = keys
        else:
            self._keys = _given(keys)

    async def find(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        """The keys of this name that are good for an algorithm; without a name, the only one.

        Raises:
            KeysUnavailable: if there may be one that nobody here knows yet.
        """
        looked = self._is_stale()
        answered = looked and await self._refreshed()
        found = self._matching(kid, algorithm)
        if found or self._fetch is None:
            return found
        if not looked:
            answered, found = await self._refreshed(), self._matching(kid, algorithm)
        # Asked just now, the provider has no such key.
        if not found and not answered:
            raise KeysUnavailable(self._fault, int(PAUSE.total_seconds()))
        return found

    def _matching(self, kid: str | None, algorithm: str) -> list[PublicKey]:
        fit = [key for key in self._keys or () if algorithm in key.algorithms]
        if kid is None:
            return fit if len(fit) == 1 else []
        return [key for key in fit if key.kid == kid]

    def _is_stale(self) -> bool:
        if self._fetch is None:
            return False
        # abs: a clock that was set back must not keep old keys for years.
        return self._fetched_at is None or abs(self._now() - self._fetched_at) >= FRESH

    async def _refreshed(self) -> bool:
        """Whether the keys are those that the provider has just now. Those who ask at the same time
        wait for one answer.
        """
        loop, task = asyncio.get_running_loop(), self._fetching
        if task is None or task.done() or task.get_loop() is not loop:
            now = self._now()
            tried = self._tried_at
            if len(tried) == LOOKS and abs(now - tried[0]) < LOOKS * PAUSE:
                return False
            tried.append(now)
            self._fault = "asked a moment ago"
            task = self._fetching = loop.create_task(self._ask())
        return await asyncio.shield(task)

    async def _ask(self) -> bool:
        assert self._fetch is not None  # noqa: S101 -- for the type checker
        try:
            async with asyncio.timeout(TIMEOUT):
                keys = public_keys(await self._fetch())
            if not keys:  # nobody means that: to forget what is known would be worse
                raise ValueError("no key in it verifies signatures")  # noqa: TRY301 -- as the rest
        except Exception as error:  # noqa: BLE001 -- a function of the app's may raise anything
            self._fault = f"{type(error).__name__}: {error}"
            return False
        self._keys, self._fetched_at = keys, self._now()
        return True


def _given(keys: object) -> list[PublicKey]:
    try:
        read = public_keys(keys)
    except ValueError:
        read = []
    if not read:
        raise ConfigurationError(
            "keys= has no public key that verifies signatures: pass a JWK set "
            '({"keys": [...]}) with RSA (2048 bits and more), P-256 or Ed25519 keys, its URL, or '
            "an async function that returns it"
        )
    return read


def _fetch_from(url: str) -> Fetch:
    if not _is_safe(url):
        raise ConfigurationError(
            f"keys={url!r}: use the https URL of a JWK set, as the provider's metadata has it in "
            "jwks_uri; http is for your own machine alone"
        )

    async def fetch() -> Any:  # noqa: ANN401 -- looked at by whoever has called
        # A connection of its own, once an hour. No redirects, and no compression: what is counted
        # is what it takes here.
        headers = {"accept": "application/jwk-set+json, application/json"}
        headers["accept-encoding"] = "identity"
        async with (
            httpx.AsyncClient(timeout=TIMEOUT) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ValueError("not 200")
            content = b""
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > LARGEST:
                    raise ValueError("too large")
        return json.loads(content)

    return fetch


def _is_safe(url: str) -> bool:
    if not _URL.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises for one that is none
    except ValueError:
        return False
    if not host or parts.username is not None:
        return False
    return parts.scheme == "https" or _is_loopback(host)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
