"""What OpenTelemetry is told: read back with the memory reader of its SDK.

What stands between a lane and its work, and the fake instruments, are private.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from anyio import create_task_group
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from starlette.requests import Request

from asgi_sessions import Sessions, SessionsUnavailable, _metrics
from asgi_sessions._metrics import Metrics
from tests.support import KEY, Browser, Clock, make_app
from tests.support.acting import acting_routes
from tests.support.data import Visit
from tests.support.inside import store_of, touched
from tests.support.repository import DOCS

#: Name: unit, kind.
INSTRUMENTS = {
    "asgi_sessions.batch.duration": "s",
    "asgi_sessions.batch.size": "{job}",
    "asgi_sessions.cookie.forged": "{cookie}",
    "asgi_sessions.data.dropped": "{save}",
    "asgi_sessions.lookups": "{lookup}",
    "asgi_sessions.request.unavailable": "{request}",
    "asgi_sessions.session.ended": "{session}",
    "asgi_sessions.session.renewed": "{session}",
    "asgi_sessions.session.started": "{session}",
    "asgi_sessions.touch.failed": "{touch}",
}


class Meters:
    """What an app's collector sees."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider(metric_readers=[self._reader])

    def metrics(self) -> dict[str, Any]:
        """The metrics by name."""
        data = self._reader.get_metrics_data()
        if data is None:
            return {}
        (resource,) = data.resource_metrics
        (scope,) = resource.scope_metrics
        assert scope.scope.name == "asgi_sessions"
        return {metric.name: metric for metric in scope.metrics}

    def points(self, name: str) -> dict[tuple[str, ...], Any]:
        """The points of a metric by the values of their attributes."""
        metric = self.metrics().get(f"asgi_sessions.{name}")
        points = [] if metric is None else metric.data.data_points
        return {tuple((point.attributes or {}).values()): point for point in points}

    def counts(self, name: str) -> dict[tuple[str, ...], int]:
        """The values of a counter."""
        return {attributes: point.value for attributes, point in self.points(name).items()}


@pytest.fixture
def meters(monkeypatch: pytest.MonkeyPatch) -> Meters:
    """In place of those of the process."""
    meters = Meters()
    monkeypatch.setattr(_metrics, "METRICS", Metrics(meters.provider.get_meter("asgi_sessions")))
    return meters


@pytest.fixture
async def sessions(
    anyio_backend: str, meters: Meters, tmp_path: Path, clock: Clock
) -> AsyncIterator[Sessions]:
    """On SQLite: no database is measured in another way."""
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Sessions(url, secret_key=KEY, clock=clock) as sessions:
        await sessions.create_tables()
        yield sessions


async def test_steps_are_counted_by_origin_and_reason(sessions: Sessions, meters: Meters) -> None:
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    await browser.login("ann")
    await browser.post("/renew")
    await browser.post("/logout")
    await Browser(make_app(sessions)).see_as("bob")
    assert meters.counts("session.started") == {("login",): 2, ("scope",): 1}
    staff = Browser(make_app(sessions, *acting_routes(sessions)))
    await staff.login("staff")
    await staff.post("/act?person=ann")
    assert meters.counts("session.started")["impersonation",] == 1
    assert meters.counts("session.renewed") == {(): 1}
    assert meters.counts("session.ended") == {("replaced",): 1, ("logout",): 1}
    (ended, *_) = meters.points("session.ended").values()
    assert list(ended.attributes) == ["asgi_sessions.end_reason"]
    (started, *_) = meters.points("session.started").values()
    assert list(started.attributes) == ["asgi_sessions.origin"]


async def test_a_theft_is_counted_once_as_an_end(
    sessions: Sessions, meters: Meters, clock: Clock
) -> None:
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    thief = Browser(make_app(sessions))
    thief.cookies.update(browser.cookies)
    await browser.post("/renew")
    await browser.see()
    clock.turn(timedelta(minutes=2))
    await thief.see()
    assert meters.counts("session.ended") == {("reuse",): 1}


async def test_batches_are_measured_by_their_kind(sessions: Sessions, meters: Meters) -> None:
    async with create_task_group() as group:
        for _ in range(20):
            group.start_soon(Browser(make_app(sessions)).login, "ann")
    sids = [session.id for session in await sessions.list_sessions("ann")]
    before = meters.counts("lookups")[()]
    async with create_task_group() as group:
        for sid in sids:
            group.start_soon(sessions.get_by_id, sid)
    assert meters.counts("lookups")[()] - before == 20

    sizes, durations = meters.points("batch.size"), meters.points("batch.duration")
    assert sizes.keys() == durations.keys() == {("look-up",), ("start",), ("other",)}
    assert sizes["look-up",].sum == meters.counts("lookups")[()]
    assert sizes["look-up",].max == 20
    assert sizes["start",].sum == 20
    assert sizes["start",].count < 20
    assert sizes["start",].explicit_bounds == (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
    assert durations["start",].count == sizes["start",].count
    assert 0 < durations["start",].sum < 60
    assert durations["start",].explicit_bounds[0] == 0.001
    assert list(sizes["start",].attributes) == ["asgi_sessions.batch.kind"]


async def mishaps(sessions: Sessions, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two forged cookies, a lost touch, two requests that meet an outage."""
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    (cookie,) = browser.cookies.values()
    forger = Browser(make_app(sessions))
    forger.cookies.set("__Host-sid", cookie[:-10] + "A" * 10)
    await forger.see()
    await forger.see()

    async def fails(*_: object, **__: object) -> None:
        raise SessionsUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(store_of(sessions), "touch", fails)
        clock.turn(timedelta(minutes=2))
        await browser.see()
        await touched()

    await sessions.database.execute("DROP TABLE sessions")
    assert (await browser.get("/")).status_code == 503
    assert (await browser.get("/")).status_code == 503


async def test_outages_lost_touches_and_forged_cookies_are_counted(
    sessions: Sessions, meters: Meters, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await mishaps(sessions, clock, monkeypatch)
    assert meters.counts("cookie.forged") == {(): 2}
    assert meters.counts("touch.failed") == {(): 1}
    assert meters.counts("request.unavailable") == {(): 2}
    failed = meters.points("batch.size")["look-up", "OperationalError"]
    assert failed.count == 4  # each was tried once more
    assert list(failed.attributes) == ["asgi_sessions.batch.kind", "error.type"]
    assert meters.counts("lookups")[()] < meters.points("batch.size")["look-up",].sum + failed.sum


async def test_no_attribute_tells_of_a_person_a_session_or_an_address(
    sessions: Sessions, meters: Meters
) -> None:
    browser = Browser(make_app(sessions), agent="Netscape", address="192.0.2.77")
    sid = await browser.login("ann-the-person")
    await browser.post("/logout")
    everything = "".join(metric.to_json() for metric in meters.metrics().values())
    for private in (sid, "ann-the-person", "192.0.2.77", "Netscape"):
        assert private not in everything


async def test_the_instruments_are_those_of_the_page(sessions: Sessions, meters: Meters) -> None:
    metrics = _metrics.METRICS
    assert metrics is not None
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    await browser.post("/renew")
    await browser.see()
    await browser.post("/logout")
    for count in (metrics.unavailable, metrics.touch_failed, metrics.forged, metrics.data_dropped):
        count(1)
    seen = meters.metrics()
    assert {name: metric.unit for name, metric in sorted(seen.items())} == INSTRUMENTS
    page = (DOCS / "metrics.md").read_text()
    for name, metric in seen.items():
        kind = "histogram" if hasattr(metric.data.data_points[0], "bucket_counts") else "counter"
        assert f"| `{name}` | {kind} | `{metric.unit}` | {metric.description}" in page


# --- off ------------------------------------------------------------------------------------------


async def test_without_opentelemetry_nothing_stands_between_a_lane_and_its_work(
    anyio_backend: str, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_metrics, "METRICS", None)
    url = f"sqlite:///{tmp_path}/sessions.db"
    async with Sessions(url, secret_key=KEY, clock=clock) as sessions:
        await sessions.create_tables()
        store = store_of(sessions)
        assert store.engines.here.lookups._kinds["look-up"][0] == store._look_up
        assert sessions._core.events._metrics is None
        browser = Browser(make_app(sessions))
        await browser.login("ann")
        await browser.post("/renew")
        await browser.post("/logout")
        await Browser(make_app(sessions)).get("/", headers={"cookie": f"__Host-sid={'a' * 30}"})
        await mishaps(sessions, clock, monkeypatch)


async def test_without_opentelemetry_data_are_dropped_in_silence(
    anyio_backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_metrics, "METRICS", None)
    async with Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY, data=True) as sessions:
        await sessions.create_tables()
        visit = Visit(sessions)
        await visit.login("ann")

        async def step(request: Request) -> None:
            await sessions.end_all_sessions("ann")
            request.session["a"] = 1
            assert not await sessions.data.save(request)

        await visit.does(step)


def test_without_the_extra_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(_metrics.METRICS, Metrics)
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    assert _metrics._of_the_app() is None


def test_the_instruments_are_those_of_the_provider_that_an_app_sets_later() -> None:
    """In a process of its own: the provider of a process cannot be taken back."""
    program = """
import asyncio, tempfile
from asgi_sessions import Sessions
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

async def use(directory):
    sessions = Sessions(f"sqlite:///{directory}/s.db", secret_key="abcdefgh" * 4)
    reader = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider(metric_readers=[reader]))
    async with sessions:
        await sessions.create_tables()
        await sessions.insert({"type": "http", "headers": []}, {"id": "ann"})
    (scope,) = reader.get_metrics_data().resource_metrics[0].scope_metrics
    print(scope.scope.name, *sorted(metric.name for metric in scope.metrics))

with tempfile.TemporaryDirectory() as directory:
    asyncio.run(use(directory))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == [
        "asgi_sessions",
        "asgi_sessions.batch.duration",
        "asgi_sessions.batch.size",
        "asgi_sessions.session.started",
    ]
