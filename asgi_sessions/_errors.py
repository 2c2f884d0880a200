"""What can go wrong, as one tree.

* SessionsError
    * ConfigurationError    the developer's: raised where the mistake was made, names the mend
    * InvalidSession        the data's: a row that may not be written
    * ImpersonationRefused  the person's: they may not act for another one from where they are
    * SessionsUnavailable   the database's: nothing is known about the session, nobody is logged out

A session that does not exist is never an error: it is ``None``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class SessionsError(Exception):
    """Base of everything this package raises on purpose. Never raised itself."""


class ConfigurationError(SessionsError, ValueError):
    """Options or calls that cannot work. The message says what is wrong and how to fix it."""


class InvalidSession(SessionsError, ValueError):
    """A row that `changeset` refuses to write.

    Attributes:
        errors: the messages by field, as in `Changeset.errors`.
    """

    def __init__(self, errors: Mapping[str, Sequence[str]]) -> None:
        self.errors: dict[str, list[str]] = {
            field: list(messages) for field, messages in errors.items()
        }
        texts = (f"{field} {message}" for field, ms in self.errors.items() for message in ms)
        super().__init__("; ".join(texts))


class ImpersonationRefused(SessionsError):
    """Nobody acts for another person from here. The message says why, and what to do; the session
    is as it was.

    Attributes:
        reason: ``no_session``, ``not_a_login``, ``not_fresh``, ``acting`` (for somebody already),
            ``self`` or ``not_renewable``.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class SessionsUnavailable(SessionsError):
    """The database cannot be asked right now. The cookie stays as it is.

    Attributes:
        retry_after: seconds after which asking again makes sense.
    """

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        self.retry_after = retry_after
        super().__init__(message)
