"""For the tests of your app: people who are logged in, and a clock that you turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from ._model.device import Device, clean_address, clean_user_agent
from ._service.identity import identify
from ._sessions import Sessions

__all__ = ["Clock", "logged_in_cookie"]


class Clock:
    """A clock that stands still until it is turned: ``Sessions(..., clock=Clock())``.

    Attributes:
        now: the time it shows, aware.

    Args:
        now: where it starts.
    """

    def __init__(self, now: datetime = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)) -> None:
        self.now: datetime = now

    def __call__(self) -> datetime:
        """The time it shows."""
        return self.now

    def turn(self, by: timedelta) -> None:
        """Turn it on, or back."""
        self.now += by


async def logged_in_cookie(
    sessions: Sessions,
    person: object,
    *,
    user_agent: str = "testclient",
    ip_address: str | None = None,
    remember: bool = True,
) -> dict[str, str]:
    """Log a person in without a login form: the cookie that their browser has then, by its name.

    It fits what clients take for cookies: ``client.cookies.update(...)`` of Starlette, FastAPI,
    Litestar and httpx. Their requests have to be for https, unless `cookie_secure` is False.

    Args:
        sessions: of the app.
        person: an object or mapping with an id; see `Person`.
        user_agent: of the device.
        ip_address: of the device.
        remember: as in `Sessions.start_session`.

    Raises:
        ConfigurationError: if the person has no id.
        InvalidSession: if an attribute cannot be stored.
    """
    core = sessions._core
    device = Device(
        clean_user_agent(user_agent), None if ip_address is None else clean_address(ip_address)
    )
    started = await core.start(
        device, identify(person, core.settings, login=True), remember=remember
    )
    assert started.token is not None  # noqa: S101 -- for the type checker: a login has its own
    return {sessions.cookie_name: core.settings.keys.sign(started.token)}
