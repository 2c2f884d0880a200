"""Why what claims to come from a provider does not count."""

from __future__ import annotations

from typing import Literal

#: The words of RFC 8935, 2.4.
Code = Literal["invalid_request", "invalid_key", "invalid_issuer", "invalid_audience"]


class Refusal(Exception):
    """A message that does not count. Nothing of what it says is in this.

    Attributes:
        code: for programs.
        reason: for people: the log, and whoever has sent it.
    """

    def __init__(self, reason: str, code: Code = "invalid_request") -> None:
        self.code: Code = code
        self.reason = reason
        super().__init__(reason)


class KeysUnavailable(Exception):
    """The keys of the provider cannot be had right now: the same message may count later.

    Attributes:
        reason: what went wrong, for the log.
        retry_after: seconds after which asking again makes sense.
    """

    def __init__(self, reason: str, retry_after: int) -> None:
        self.reason = f"no keys of the provider: {reason}"
        self.retry_after = retry_after
        super().__init__(self.reason)
