"""For Shared Signals (SSF, CAEP, RISC): a provider tells at once what happens to somebody. Needs
``asgi-login-sessions[sso]``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from starlette.responses import Response

from ._service.provider import ProviderSteps
from ._sessions import Sessions

try:
    from ._sso.algorithms import ALGORITHMS
    from ._sso.key_source import Keys
    from ._sso.receiver import Receiver
    from ._sso.refusal import Refusal
    from ._sso.security_event import TYPES, signals_of
    from ._sso.verifying import verifier_of
except ModuleNotFoundError as _fault:  # of the libraries that the extra brings
    raise ImportError(
        f"asgi_sessions.ssf needs {_fault.name}: install asgi-login-sessions[sso]",
        name=_fault.name,
    ) from _fault

__all__ = ["EventReceiver"]

#: How long ago an event may have been issued: a stream that was paused has kept it. Tokens are
#: remembered for longer.
_OLDEST = timedelta(days=90)


class EventReceiver(Receiver):
    """An ASGI app for the route that a transmitter pushes its security event tokens to (RFC 8935):
    the ``endpoint_url`` of the stream.

    ``session-revoked``, ``credential-change``, ``account-disabled`` and ``account-purged`` end the
    sessions of whom they name, as `asgi_sessions.oidc.BackChannelLogout` does. Of
    ``token-claims-change`` and ``assurance-level-change`` the app is told, by a `SessionEvent` of
    the kind ``claims_changed`` or ``assurance_changed`` for each live session of theirs. Subjects
    count in the formats ``iss_sub``, ``opaque`` and ``complex``, in the words of this issuer.

    The answer is 202 to each token that comes from the transmitter, also if it means nothing here
    or has come before; 400 to all else, with the error object of the standard; 503 while the keys
    or the database cannot be had.

    Args:
        sessions: whose sessions end.
        issuer: the transmitter's ``iss``, to the letter; what sessions have as their `issuer`.
        audience: the ``aud`` of the stream: the app's name there.
        keys: as for `asgi_sessions.oidc.BackChannelLogout`.
        algorithms: as there.

    Raises:
        ConfigurationError: if an argument cannot be one.
    """

    media_type = "application/secevent+jwt"

    def __init__(
        self,
        sessions: Sessions,
        *,
        issuer: str,
        audience: str,
        keys: Keys,
        algorithms: Sequence[str] = ALGORITHMS,
    ) -> None:
        core = self._core = sessions._core
        self._steps = ProviderSteps(core, issuer)
        self._verifier = verifier_of(
            core,
            keys,
            issuer=issuer,
            audience=audience,
            algorithms=algorithms,
            types=TYPES,
            alone=False,
            oldest=_OLDEST,
        )

    async def take(self, body: bytes) -> Response:
        """Do what a security event token says."""
        try:
            text = body.decode("ascii").strip()
        except UnicodeDecodeError:
            raise Refusal("no signed JWT") from None
        said = await self._verifier.verified(text)
        signals, token = signals_of(said.claims), f"event:{said.jti}"
        if not await self._steps.has_seen(token):
            for named, tells, event in signals:
                if tells is None:
                    await self._steps.end(named, said.issued_at, token)
                else:
                    await self._steps.tell(tells, named, event)
            await self._steps.note(token)
        return Response(status_code=202)

    def refused(self, refusal: Refusal) -> Mapping[str, str]:
        """As RFC 8935, 2.3, has it."""
        return {"err": refusal.code, "description": refusal.reason}
