"""What a browser calls the session: its sid, and a signature, so that an invented identifier is
refused without a look-up. Pure.
"""

from __future__ import annotations

from itsdangerous import BadSignature

from asgi_sessions._model.tokens import Keys


class Identifiers:
    """Makes and recognises session identifiers (W3C webappsec-dbsc).

    Args:
        keys: sign them.
    """

    def __init__(self, keys: Keys) -> None:
        self._signer = keys.signer("dbsc.session")

    def of(self, sid: str) -> str:
        """The identifier of a session whose device registers."""
        return self._signer.sign(sid).decode("ascii")

    def sid(self, identifier: str | None) -> str | None:
        """The sid in an identifier that was made here; None for anything else."""
        try:
            return self._signer.unsign(identifier or "").decode("ascii")
        except BadSignature:
            return None
