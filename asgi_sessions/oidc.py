"""For OpenID Connect: the provider ends sessions here. Needs ``asgi-login-sessions[sso]``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from urllib.parse import parse_qsl

from starlette.responses import Response

from ._service.provider import ProviderSteps
from ._sessions import Sessions

try:
    from ._sso.algorithms import ALGORITHMS
    from ._sso.key_source import Keys
    from ._sso.logout_token import TYPES, named_by
    from ._sso.receiver import Receiver
    from ._sso.refusal import Refusal
    from ._sso.verifying import verifier_of
except ModuleNotFoundError as _fault:  # of the libraries that the extra brings
    raise ImportError(
        f"asgi_sessions.oidc needs {_fault.name}: install asgi-login-sessions[sso]",
        name=_fault.name,
    ) from _fault

__all__ = ["BackChannelLogout"]

#: How long ago a logout token may have been issued; providers mean minutes.
_OLDEST = timedelta(days=1)
#: Fields of a form. Those beside the token are for others.
_FIELDS = 32


class BackChannelLogout(Receiver):
    """An ASGI app for the route that a provider posts its logout tokens to (OpenID Connect
    Back-Channel Logout 1.0): the ``backchannel_logout_uri`` of the app's registration there.

    A token with a ``sid`` ends the sessions that were started with it, as their `provider_sid`, and
    no others; one with a ``sub`` alone all of that person. They end as ``revoked``, in the `app_id`
    of `sessions`, with the sockets and streams that are open on them, and what was proved before
    opens nothing any more. The answer is 200, also when there was nothing to end; 400 to what is no
    such token, or comes a second time; 503 while the keys or the database cannot be had.

    Args:
        sessions: whose sessions end.
        issuer: the provider's ``iss``, to the letter; what sessions have as their `issuer`.
        client_id: the app's name at the provider, for which the token must be, and for nobody else.
        keys: the URL of the provider's JWK set (its metadata's ``jwks_uri``; https, or http on
            your own machine), or the set itself, or an async function that returns it. They are
            kept for an hour, looked for again at a name that nobody knows (three times in 30 s at
            most), and as they are while the provider does not answer.
        algorithms: those that count, of ``RS256``, ``ES256``, ``EdDSA``, ``PS256`` and ``Ed25519``.

    Raises:
        ConfigurationError: if an argument cannot be one.
    """

    media_type = "application/x-www-form-urlencoded"

    def __init__(
        self,
        sessions: Sessions,
        *,
        issuer: str,
        client_id: str,
        keys: Keys,
        algorithms: Sequence[str] = ALGORITHMS,
    ) -> None:
        core = self._core = sessions._core
        self._steps = ProviderSteps(core, issuer)
        self._verifier = verifier_of(
            core,
            keys,
            issuer=issuer,
            audience=client_id,
            algorithms=algorithms,
            types=TYPES,
            alone=True,
            oldest=_OLDEST,
        )

    async def take(self, body: bytes) -> Response:
        """Do what a logout token says."""
        said = await self._verifier.verified(_token_in(body))
        named, token = named_by(said.claims), f"logout:{said.jti}"
        if await self._steps.has_seen(token):
            raise Refusal("seen before")
        await self._steps.end(named, said.issued_at, token)
        await self._steps.note(token)
        return Response()

    def refused(self, refusal: Refusal) -> Mapping[str, str]:
        """As OAuth has it, which is what the standard points to."""
        return {"error": "invalid_request", "error_description": refusal.reason}


def _token_in(body: bytes) -> str:
    try:
        fields = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            max_num_fields=_FIELDS,
        )
    except ValueError:
        raise Refusal("a form that cannot be read") from None
    tokens = [value for name, value in fields if name == "logout_token"]
    if not tokens or tokens[1:]:
        raise Refusal("a form without one logout_token")
    return tokens[0]
