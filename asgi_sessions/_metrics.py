"""OpenTelemetry metrics, where ``opentelemetry-api`` is installed (the extra ``metrics``).

`METRICS` is None without it, and nothing is measured. With it, the instruments are those of the
global MeterProvider, whenever the app sets one. Names, units and attributes follow
OpenTelemetry's semantic conventions; no attribute tells of a person, a session or an address.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter

Run = Callable[[Any, list[Any]], Awaitable[Sequence[Any]]]

#: Boundaries of buckets: seconds as for calls of databases (semantic conventions), jobs by powers.
_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10)
_JOBS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The instruments.

    Args:
        meter: makes them.
    """

    def __init__(self, meter: Meter) -> None:
        self._sizes = meter.create_histogram(
            "asgi_sessions.batch.size",
            "{job}",
            "Jobs that the database was asked to do together.",
            explicit_bucket_boundaries_advisory=_JOBS,
        )
        self._durations = meter.create_histogram(
            "asgi_sessions.batch.duration",
            "s",
            "How long the database took for a batch.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

        def counter(name: str, unit: str, description: str) -> Callable[..., None]:
            return meter.create_counter(f"asgi_sessions.{name}", unit, description).add

        self._looked_up = counter("lookups", "{lookup}", "Look-ups of sessions that were answered.")
        self._started = counter("session.started", "{session}", "Sessions that started.")
        self._renewed = counter("session.renewed", "{session}", "Sessions given a new secret.")
        self._ended = counter("session.ended", "{session}", "Sessions that ended.")
        #: Called with a number.
        self.unavailable = counter(
            "request.unavailable", "{request}", "Requests that met an outage of the database."
        )
        self.touch_failed = counter("touch.failed", "{touch}", "Uses that were not noted.")
        self.data_dropped = counter(
            "data.dropped", "{save}", "Data that were not saved, since their session had ended."
        )
        self.forged = counter("cookie.forged", "{cookie}", "Cookies with an invalid signature.")

    def session(self, kind: str, origin: str, end_reason: str | None) -> None:
        """Count a step in a session's life."""
        if kind == "started":
            self._started(1, {"asgi_sessions.origin": origin})
        elif kind == "ended":
            self._ended(1, {"asgi_sessions.end_reason": end_reason or "expired"})
        elif kind == "renewed":
            self._renewed(1)

    def measured(self, kind: str, run: Run) -> Run:
        """Measure each batch of a kind, those that fail too."""

        async def run_measured(held: Any, jobs: list[Any]) -> Sequence[Any]:  # noqa: ANN401 -- as Batcher
            attributes = {"asgi_sessions.batch.kind": kind}
            began = perf_counter()
            try:
                answers = await run(held, jobs)
            except BaseException as error:
                attributes["error.type"] = type(error).__qualname__
                raise
            else:
                if kind == "look-up":
                    self._looked_up(len(jobs))
                return answers
            finally:
                self._sizes.record(len(jobs), attributes)
                self._durations.record(perf_counter() - began, attributes)

        return run_measured


def _of_the_app() -> Metrics | None:
    try:
        from opentelemetry.metrics import get_meter  # noqa: PLC0415 -- an extra
    except ImportError:
        return None
    return Metrics(get_meter("asgi_sessions"))


METRICS = _of_the_app()
