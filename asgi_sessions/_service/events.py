"""What happened, reported to the log, the metrics and the app: never a secret (ASVS 16.2.5)."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeVar

from asgi_sessions import _metrics
from asgi_sessions._errors import ConfigurationError
from asgi_sessions._model.session import Session

from .background import BackgroundTasks
from .rate_limit import ByKind, RateLimit

T = TypeVar("T")

logger = logging.getLogger("asgi_sessions")
_life = logger.getChild("sessions")
_security = logger.getChild("security")
_database = logger.getChild("database")
_data = logger.getChild("data")

EventKind = Literal[
    "started",
    "ended",
    "renewed",
    "bound",
    "reuse_detected",
    "claims_changed",
    "assurance_changed",
]
#: What a provider may say of somebody, and the app decides what follows.
SignalKind = Literal["claims_changed", "assurance_changed"]
IncidentKind = Literal[
    "forged_cookie",
    "device_refused",
    "device_skipped",
    "signal_refused",
    "outage_begun",
    "outage_over",
    "touch_failed",
]


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """One step in a session's life, reported once it is in the database.

    Attributes:
        kind: ``started``, ``ended`` (`session.end_reason` says why), ``renewed``,
            ``bound`` (its browser has shown its device's proof for the first time; no other
            device can use it from now on),
            ``reuse_detected`` (a superseded secret was presented: the cookie was stolen), or, as
            the provider says of its person, ``claims_changed`` and ``assurance_changed``.
        session: the session as it is after the step.
        new_device: of ``started``: whether the person has not been seen on this device in this
            app. It is known if the browser brought a cookie of theirs, live or dead; if a row of
            theirs has its User-Agent and address, or at the address another version of the browser
            (rows are kept for `keep_ended`); or if it has their mark (`device_cookie`). Sessions
            that were ended as ``revoked`` or ``reuse`` do not make it known.
        signal: of what the provider says: its event, as it came; else empty.
    """

    kind: EventKind
    session: Session
    new_device: bool = False
    signal: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class Incident:
    """An event that is not a step in the life of a session. Of those that a client can trigger at
    any rate, and of touches that failed, one a minute is reported, whose `count` includes the
    suppressed ones; of those about devices, one a minute for each session and reason; of refused
    signals, for each reason.

    Attributes:
        kind: ``forged_cookie`` (it looks like ours, and its signature is invalid),
            ``device_refused`` (a bound session was used without a proof of its device, or a
            proof was none), ``device_skipped`` (let in without a proof, as `on_skipped` allows),
            ``signal_refused`` (a logout token or an event of a provider that does not count),
            ``outage_begun`` and ``outage_over`` (of the database), or ``touch_failed``
            (`last_seen_at` was not written; the session goes on).
        count: how many since the last was reported; of an outage that is over, how many requests
            it has affected.
        client: the address that the latest came from, as `store_ip` allows.
        sid: the session that the latest was about, if it names one.
        reason: why a device was refused, or has not proved itself; why a signal was refused.
        error: what the database said.
    """

    kind: IncidentKind
    count: int
    client: str | None = None
    sid: str | None = None
    reason: str | None = None
    error: Exception | None = None


_HANDLER_FAILED = "on_event failed for %s"
EventHandler = Callable[[SessionEvent | Incident], Awaitable[None] | None]


def check_handler(handler: object) -> None:
    """Refuse an option `on_event` that cannot be called.

    Raises:
        ConfigurationError: for such a one.
    """
    if handler is not None and not callable(handler):
        raise ConfigurationError(
            f"on_event={handler!r}: use a function of a SessionEvent or Incident"
        )


class Events:
    """Reports to the log, the metrics and the app's handler; a handler that fails harms nobody.

    Args:
        handler: called with each event; what it awaits runs beside the request.
        now: the clock.
        background: runs what a handler awaits.
    """

    def __init__(
        self,
        handler: EventHandler | None,
        now: Callable[[], datetime],
        background: BackgroundTasks,
    ) -> None:
        self._handler = handler
        self.now = now
        self._background = background
        self._metrics = _metrics.METRICS
        #: When the outage began that is not over.
        self.down_since: datetime | None = None
        self._affected = 0
        self.touch_failures = 0
        self._touches = RateLimit()
        self._forgeries = RateLimit()
        self._devices = ByKind()
        self._signals = ByKind()
        self._lost = RateLimit()

    # --- sessions -----------------------------------------------------------------------------

    @property
    def has_handler(self) -> bool:
        """Whether there is a handler."""
        return self._handler is not None

    def report(self, kind: EventKind, session: Session, *, new_device: bool = False) -> None:
        """Log the step and hand it to the handler."""
        facts = {
            "event": kind,
            "sid": session.id,
            "person_id": session.person_id,
            "app_id": session.app_id,
            "reason": session.end_reason,
            "actor_id": session.actor_id,
            "actor_reason": session.actor_reason,
        }
        if kind == "reuse_detected":
            _security.warning("session reuse detected: %s", session.id, extra=facts)
        else:
            why = f" ({session.end_reason})" if kind == "ended" else ""
            _life.info("session %s%s: %s", kind, why, session.id, extra=facts)
        if self._metrics is not None:
            origin = session.origin if session.actor_id is None else "impersonation"
            self._metrics.session(kind, origin, session.end_reason)
        self._hand_over(SessionEvent(kind, session, new_device))

    # --- incidents ----------------------------------------------------------------------------

    def forged_cookie(self, count: int, client: Callable[[], str | None]) -> None:
        """Cookies that look like ours with an invalid signature; `client` tells whose."""
        if self._metrics is not None:
            self._metrics.forged(count)
        if count := self._forgeries.due(self.now(), count):
            address = client()
            facts = {"event": "forged_cookie", "count": count, "client": address}
            _security.warning(
                "%d cookies with an invalid signature; the latest from %s",
                *(count, address),
                extra=facts,
            )
            self._hand_over(Incident("forged_cookie", count, client=address))

    def device_refused(
        self,
        reason: str,
        sid: str | None,
        client: Callable[[], str | None],
        *,
        routine: bool = False,
    ) -> None:
        """A bound session was used without its device, or a device's proof was none. Each session
        and reason counts for itself, so that nobody hides the alarm of another; what is `routine`
        is for the log alone.
        """
        if count := self._devices.due((reason, sid), self.now()):
            address = client()
            told = (count, reason, sid, address)
            facts = _device("device_refused", *told)
            if routine:
                _security.info(
                    "%d devices turned away (%s); the latest for session %s, from %s",
                    *told,
                    extra=facts,
                )
                return
            _security.warning(
                "%d devices refused (%s); the latest for session %s, from %s", *told, extra=facts
            )
            self._hand_over(
                Incident("device_refused", count, client=address, sid=sid, reason=reason)
            )

    def device_skipped(self, reason: str, sid: str, client: Callable[[], str | None]) -> None:
        """A bound session was used without its device, for a reason that is allowed."""
        if count := self._devices.due((reason, sid), self.now()):
            address = client()
            _security.warning(
                "%d requests let in without their device (%s); the latest for session %s, from %s",
                *(count, reason, sid, address),
                extra=_device("device_skipped", count, reason, sid, address),
            )
            self._hand_over(
                Incident("device_skipped", count, client=address, sid=sid, reason=reason)
            )

    def signalled(self, kind: SignalKind, session: Session, signal: Mapping[str, Any]) -> None:
        """A provider says something of the person of a session, which ends nothing by itself."""
        facts = {
            "event": kind,
            "sid": session.id,
            "person_id": session.person_id,
            "app_id": session.app_id,
        }
        _life.info("told by the provider of session %s: %s", session.id, kind, extra=facts)
        self._hand_over(SessionEvent(kind, session, signal=signal))

    def signal_refused(self, reason: str, client: Callable[[], str | None]) -> None:
        """What claims to come from a provider does not count."""
        if count := self._signals.due(reason, self.now()):
            address = client()
            facts = {
                "event": "signal_refused",
                "count": count,
                "reason": reason,
                "client": address,
            }
            _security.warning(
                "%d signals of a provider refused (%s); the latest from %s",
                *(count, reason, address),
                extra=facts,
            )
            self._hand_over(Incident("signal_refused", count, client=address, reason=reason))

    def unavailable(self, error: Exception) -> None:
        """The database did not answer a request: reported when an outage begins."""
        self._affected += 1
        if self._metrics is not None:
            self._metrics.unavailable(1)
        if self.down_since is None:
            self.down_since = self.now()
            facts = {"event": "outage_begun"}
            _database.error("sessions unavailable: %s", error, exc_info=error, extra=facts)
            self._hand_over(Incident("outage_begun", 1, error=error))

    def available(self, begun: datetime) -> None:
        """The database answered, after an outage that began then."""
        self.down_since = None
        affected, self._affected = self._affected, 0
        seconds = (self.now() - begun).total_seconds()
        facts = {"event": "outage_over", "count": affected, "seconds": seconds}
        _database.warning(
            "sessions available again: %d requests affected in %.1f s",
            *(affected, seconds),
            extra=facts,
        )
        self._hand_over(Incident("outage_over", affected))

    def touch_failed(self, error: Exception) -> None:
        """A touch was lost: counted, and no reason to end anything."""
        self.touch_failures += 1
        if self._metrics is not None:
            self._metrics.touch_failed(1)
        if count := self._touches.due(self.now(), 1):
            facts = {"event": "touch_failed", "count": count}
            _database.warning("%d touches failed; the latest: %s", count, error, extra=facts)
            self._hand_over(Incident("touch_failed", count, error=error))

    # --- data ---------------------------------------------------------------------------------

    def data_dropped(self) -> None:
        """Data were not saved, since their session had ended: usual, so it is only counted."""
        if self._metrics is not None:
            self._metrics.data_dropped(1)

    def data_lost(self, why: str) -> None:
        """Data were not saved, and the app would not notice by itself. `why` says the reason."""
        if count := self._lost.due(self.now(), 1):
            facts = {"event": "data_lost", "count": count}
            _data.warning("session data were not saved, %d times: %s", count, why, extra=facts)

    # --- beside requests ----------------------------------------------------------------------

    def _hand_over(self, event: SessionEvent | Incident) -> None:
        if self._handler is None:
            return
        try:
            result = self._handler(event)
            if result is not None:
                self._background.run(_awaited(result, event.kind))
        except Exception:
            logger.exception(_HANDLER_FAILED, event.kind, extra={"event": event.kind})


def _device(
    event: str, count: int, reason: str, sid: str | None, client: str | None
) -> dict[str, object]:
    """What a record about a device says."""
    return {"event": event, "count": count, "reason": reason, "sid": sid, "client": client}


async def _awaited(result: Awaitable[None], kind: str) -> None:
    try:
        await result
    except Exception:
        logger.exception(_HANDLER_FAILED, kind, extra={"event": kind})
