"""What happens at the edges of batchers, drivers and sockets.

Batchers and drivers are private. No request meets their edges at will.
"""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import aiosqlite
import pytest
from databases import Database, DatabaseURL
from sqlalchemy import MetaData, Select, Table, column, select
from starlette.applications import Starlette

from asgi_sessions import (
    ConfigurationError,
    SessionMiddleware,
    Sessions,
    SessionsError,
    SessionsUnavailable,
)
from asgi_sessions._database.batcher import Batcher
from asgi_sessions._database.connection import Connection
from asgi_sessions._database.drivers import aiosqlite as aiosqlite_driver
from asgi_sessions._database.drivers.aiomysql import AiomysqlDriver
from asgi_sessions._database.drivers.aiosqlite import AiosqliteDriver
from asgi_sessions._database.drivers.asyncpg import AsyncpgDriver
from asgi_sessions._database.pools.app_connection import AppLease
from asgi_sessions._database.pools.databases import driver_of
from asgi_sessions._database.statement import Statement, TruncatedResult
from asgi_sessions._model.row import Row
from asgi_sessions._store.starting import Starts
from tests.support import KEY, Browser, make_app, vouched


class Fault(Exception):
    """A driver's."""

    sqlstate = "42P07"


class Bench:
    """A batcher whose connection is a word and whose jobs are functions."""

    def __init__(self, *, hold: bool = True, keep: bool = False, halve: bool = False) -> None:
        self.log: list[str] = []
        self.batcher: Batcher[str] = Batcher(
            self.acquire,
            self.release,
            lambda held: self.log.append(f"left {held}"),
            {"job": (self.run, 2)},
            is_transient=lambda fault: "again" in str(fault),
            reason=self.reason,
            hold=hold,
            keep=keep,
            timeout=5,
            halve=halve,
            stale=lambda _: False,
        )

    def put(self, job: Any) -> asyncio.Future[Any]:
        return self.batcher.submit("job", job)

    async def acquire(self) -> str:
        self.log.append("acquired")
        return "it"

    async def release(self, held: str, *, broken: bool) -> None:
        self.log.append("broken" if broken else "released")

    async def reason(self, held: str, fault: Exception) -> None: ...

    async def run(self, held: str, jobs: list[Any]) -> Sequence[Any]:
        return [job() for job in jobs]


def failing(*faults: Exception) -> Any:
    left = list(faults)

    def job() -> str:
        if left:
            raise left.pop(0)
        return "done"

    return job


async def test_a_batcher_that_is_closed_finishes_what_waits() -> None:
    bench = Bench()
    answers = [bench.put(lambda: 1), bench.put(lambda: 2), bench.put(lambda: 3)]
    await bench.batcher.close()
    assert [await answer for answer in answers] == [1, 2, 3]
    assert bench.log == ["acquired", "released"]
    await bench.batcher.close()  # once more does no harm
    again = bench.put(lambda: 4)
    assert await again == 4
    waiting = bench.put(lambda: 5)
    await bench.batcher.close()
    assert await waiting == 5


async def test_a_connection_whose_settings_cannot_be_made_goes_to_nobody(
    plain: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[bool] = []
    engine = plain._core.store.engines.here
    release = engine._release

    async def fail(raw: object) -> bool:
        raise OSError

    async def note(connection: Any, *, broken: bool) -> None:
        dropped.append(broken)
        await release(connection, broken=broken)

    monkeypatch.setattr(engine, "_release", note)
    with monkeypatch.context() as patch:
        patch.setattr(engine.driver, "by_index", fail)
        with pytest.raises(SessionsUnavailable):
            await plain.list_sessions("ann")
    assert set(dropped) == {True}  # also of the second attempt
    assert await plain.list_sessions("ann") == []


async def batches(*bursts: int, halve: bool, later: int) -> list[int]:
    """How many jobs go together: of those that are there when the batcher wakes, each time, and
    of those that come while it has the first of them.
    """
    bench, sizes, coming = Bench(halve=halve), [], [later]
    more: list[asyncio.Future[Any]] = []

    async def run(held: str, jobs: list[Any]) -> Sequence[Any]:
        sizes.append(len(jobs))
        more.extend(bench.put(None) for _ in range(coming.pop() if coming else 0))
        await asyncio.sleep(0)
        return jobs

    bench.batcher._kinds = {"job": (run, 64)}
    for jobs in bursts:
        await asyncio.gather(*(bench.put(None) for _ in range(jobs)))
        await asyncio.gather(*more)
        await asyncio.sleep(0)
    await bench.batcher.close()
    return sizes


@pytest.mark.parametrize(
    ("halve", "bursts", "later", "sizes"),
    [
        (True, [31], 0, [31]),  # few
        (True, [40], 0, [20, 20]),
        (True, [40], 20, [20, 40]),  # it has not slept in between
        (True, [40, 40], 0, [20, 20, 20, 20]),  # it has
        (True, [200], 0, [64, 64, 64, 8]),
        (False, [40], 0, [40]),
    ],
)
async def test_a_batcher_that_wakes_takes_half_of_many(
    *, halve: bool, bursts: list[int], later: int, sizes: list[int]
) -> None:
    assert await batches(*bursts, halve=halve, later=later) == sizes


async def test_a_batcher_that_was_never_used_is_closed() -> None:
    bench = Bench()
    await bench.batcher.close()
    bench.batcher.leave()
    assert bench.log == []


async def test_a_batcher_that_does_not_hold_gives_back_when_it_is_idle() -> None:
    bench = Bench(hold=False)
    assert await bench.put(lambda: 1) == 1
    await asyncio.sleep(0)
    assert bench.log == ["acquired", "released"]
    await bench.batcher.close()


@pytest.mark.parametrize("keep", [False, True])
async def test_a_batcher_may_keep_its_connection_between_two_jobs(*, keep: bool) -> None:
    bench = Bench(hold=False, keep=keep)
    with bench.batcher.kept():
        for number in range(2):
            with bench.batcher.kept():
                assert await bench.put(lambda: 1) == 1
                await asyncio.sleep(0)
            assert bench.log == (["acquired"] if keep else ["acquired", "released"] * (number + 1))
    await asyncio.sleep(0)
    assert bench.log[-1] == "released"
    await bench.batcher.close()


def test_what_keeps_a_lane_may_outlive_its_loop() -> None:
    loop = asyncio.new_event_loop()

    async def keep() -> Any:
        bench = Bench(hold=False, keep=True)
        kept = bench.batcher.kept()
        kept.__enter__()
        await bench.put(lambda: 1)
        return kept, bench

    kept, bench = loop.run_until_complete(keep())
    loop.close()
    kept.__exit__(None, None, None)
    assert bench.log == ["acquired"]


async def test_a_batcher_can_be_left_with_its_connection() -> None:
    bench = Bench()
    assert await bench.put(lambda: 1) == 1
    bench.batcher.leave()
    assert bench.log == ["acquired", "left it"]
    await bench.batcher.close()


async def test_a_batcher_whose_loop_ends_does_its_last_kind_and_nothing_else() -> None:
    bench, begun = Bench(), asyncio.Event()

    async def for_ever(held: str, jobs: list[Any]) -> Sequence[Any]:
        begun.set()
        return [await asyncio.get_running_loop().create_future() for _ in jobs]

    bench.batcher._kinds = {"job": (for_ever, 2), "touch": (bench.run, 2)}
    bench.batcher._waiting["touch"] = deque()
    bench.batcher._last = "touch"
    cut_in_half = bench.put(1)
    await begun.wait()
    bench.batcher.submit("touch", lambda: bench.log.append("touched"))
    assert bench.batcher._task is not None
    bench.batcher._task.cancel()
    await bench.batcher.ended()
    with pytest.raises(SessionsUnavailable):
        await cut_in_half
    assert bench.log == ["acquired", "broken", "acquired", "touched", "released"]


def test_a_connection_of_sqlite_can_be_left_where_no_loop_runs(tmp_path: Path) -> None:
    async def connect() -> aiosqlite.Connection:
        return await aiosqlite.connect(tmp_path / "sessions.db")

    connection = asyncio.run(connect())
    AiosqliteDriver().leave(connection)
    connection._thread.join(10)
    assert not connection._thread.is_alive()


def test_who_asks_in_a_loop_that_is_closed_is_refused_in_silence() -> None:
    async def ask() -> None:
        bench = Bench()

        async def never() -> str:
            await asyncio.get_running_loop().create_future()
            raise AssertionError

        bench.batcher._acquire = never
        asker = asyncio.ensure_future(bench.put(lambda: 1))
        task = asyncio.ensure_future(asyncio.wait([asker]))
        setattr(task, "_log_destroy_pending", False)  # noqa: B010 -- in no stub
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    loop = asyncio.new_event_loop()
    loop.run_until_complete(ask())
    loop.close()  # in the middle of it
    del loop
    gc.collect()  # what is raised here is an error of the test


async def test_a_fault_is_tried_once_more_and_longer_if_it_asks_for_it() -> None:
    bench = Bench()
    assert await bench.put(failing(Fault())) == "done"
    assert await bench.put(failing(Fault("again"), Fault("again"), Fault("again"))) == "done"
    with pytest.raises(SessionsUnavailable, match="Fault"):
        await bench.put(failing(Fault(), Fault()))
    await bench.batcher.close()


async def test_one_job_of_a_batch_that_cannot_be_answered_fails_no_other() -> None:
    bench = Bench()
    bad = bench.put(failing(*[Fault("no")] * 9))
    good = bench.put(lambda: "done")  # in the same batch
    assert await good == "done"
    with pytest.raises(SessionsUnavailable, match="Fault"):
        await bad
    await bench.batcher.close()


async def test_a_batch_is_not_taken_apart_while_the_database_is_away() -> None:
    bench = Bench()
    asked = 0

    async def refuse() -> str:
        nonlocal asked
        asked += 1
        raise ConnectionRefusedError

    bench.batcher._acquire = refuse
    jobs = [bench.put(lambda: "done"), bench.put(lambda: "done")]
    for job in jobs:
        with pytest.raises(SessionsUnavailable, match="ConnectionRefusedError"):
            await job
    assert asked == 2  # once, and once again
    await bench.batcher.close()


async def test_an_error_of_ours_is_told_as_it_is() -> None:
    bench = Bench()
    ours = SessionsError("ours")
    for job in (failing(ours), failing(Fault(), ours)):
        with pytest.raises(SessionsError) as caught:
            await bench.put(job)
        assert caught.value is ours
    await bench.batcher.close()


async def test_an_asker_that_has_gone_is_not_answered() -> None:
    bench = Bench()
    gone, stays = bench.put(lambda: 1), bench.put(lambda: 2)
    gone.cancel()
    assert await stays == 2
    failed = bench.put(failing(Fault(), Fault()))
    failed.cancel()
    await bench.batcher.close()


class Raw:
    """A driver's connection that only notes what is done to it."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def terminate(self) -> None:
        self.done.append("terminated")

    def close(self) -> None:
        self.done.append("closed")


async def test_a_connection_whose_loop_is_gone_is_broken_off() -> None:
    raw = Raw()
    AsyncpgDriver().leave(raw)
    AiomysqlDriver().leave(raw)
    AiosqliteDriver().abandon(raw)
    assert raw.done == ["terminated", "closed"]


def test_an_answer_that_lacks_rows_is_noticed() -> None:
    rows: Select[tuple[str]] = select(column("id"))
    statement = Statement(rows, AiomysqlDriver().dialect, packed=rows)
    assert [*statement.rows([('["a"],["b"]', 2)])] == [["a"], ["b"]]
    assert [*statement.rows([(None, 0)])] == []
    with pytest.raises(TruncatedResult, match="of 2 rows the database has sent 1"):
        statement.rows([('["a"]', 2)])
    with pytest.raises(TruncatedResult, match="of 2 rows the database has sent 0"):
        statement.rows([(None, 2)])
    with pytest.raises(TruncatedResult, match="Unterminated"):
        statement.rows([('["a"],["b', 2)])


class Backend:
    """asyncpg's connection, as far as it tells its server's processes apart."""

    def __init__(self, *, pooled: bool) -> None:
        self.asked = 0
        self._found = "SELECT 0" if pooled else "SELECT 1"

    def get_server_pid(self) -> int:
        return 4711

    async def execute(self, sql: str) -> str:
        assert sql == "SELECT 1 WHERE pg_backend_pid() = 4711"
        self.asked += 1
        return self._found


@pytest.mark.parametrize("owned", [True, False])
async def test_a_pooler_is_refused_where_statements_would_be_prepared(owned: bool) -> None:
    with pytest.raises(ConfigurationError, match="statement_cache_size=0"):
        await AsyncpgDriver().prepare(Backend(pooled=True), owned=owned, timeout=5)


async def test_a_pooler_is_taken_once_somebody_has_decided() -> None:
    url = "postgresql://host/name"
    for decided in (0, 100):
        driver = driver_of(Database(url, statement_cache_size=decided))
        await driver.prepare(Backend(pooled=True), owned=False, timeout=5)


async def test_a_server_is_asked_once_whether_it_is_one() -> None:
    driver, direct = AsyncpgDriver(), Backend(pooled=False)
    for _ in range(2):
        await driver.prepare(direct, owned=True, timeout=5)
    assert direct.asked == 1


def test_faults_are_told_apart() -> None:
    assert AsyncpgDriver().already_exists(Fault())
    assert not AiosqliteDriver().already_exists(Fault())
    assert not AiosqliteDriver().is_transient(Fault())
    assert AiomysqlDriver().is_transient(Fault(1213, "Deadlock found"))
    assert not AiomysqlDriver().is_transient(Fault())
    assert AiomysqlDriver().unknown(Fault(1064, "You have an error in your SQL syntax"))
    assert not AiomysqlDriver().unknown(Fault())
    assert not AsyncpgDriver().unknown(Fault())


def test_a_driver_that_is_not_supported_is_refused() -> None:
    database = SimpleNamespace(url=DatabaseURL("postgresql+aiopg://host/name"))
    with pytest.raises(ConfigurationError, match="not supported"):
        driver_of(cast(Database, database))


def test_a_url_of_a_driver_that_is_not_supported_is_refused_with_those_that_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    backends = Database.SUPPORTED_BACKENDS  # aiopg need not be here
    monkeypatch.setitem(backends, "postgresql+aiopg", backends["postgresql"])
    with pytest.raises(ConfigurationError, match="aiopg is not supported: use sqlite"):
        Sessions("postgresql+aiopg://host/name", secret_key=KEY)


async def test_a_table_that_is_a_view_is_no_table(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    async with Database(url) as database:
        await database.execute("CREATE VIEW sessions AS SELECT 1 AS id")
    async with Sessions(url, secret_key=KEY) as sessions:
        with pytest.raises(ConfigurationError, match="columns missing: person_id"):
            await sessions.create_tables()


async def test_a_device_whose_row_is_there_and_gone_each_time_is_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def none(*_: object) -> dict[bytes, Row]:
        return {}

    monkeypatch.setattr(Starts, "_live", none)
    async with Sessions(f"sqlite:///{tmp_path}/app.db", secret_key=KEY) as sessions:
        await sessions.create_tables()
        async with Browser(make_app(sessions)) as browser:
            answer = await browser.get("/", headers=vouched("ann"))
        assert answer.status_code == 503
        assert await sessions.list_sessions("ann", include_ended=True) == []


class Stoppable:
    """aiosqlite's connection, as far as it is told to stop."""

    def __init__(self, *, breaks: bool = False) -> None:
        self.stopped = threading.Event()
        self._breaks = breaks

    def stop(self) -> None:
        self.stopped.set()
        if self._breaks:
            raise RuntimeError("it has stopped before")


async def test_a_sqlite_connection_of_another_loop_is_stopped_from_a_thread_without_one() -> None:
    raw = Stoppable()
    AiosqliteDriver().leave(raw)
    assert await asyncio.to_thread(raw.stopped.wait, 5)


async def test_an_opening_that_fails_after_it_was_given_up_is_forgotten(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, full = asyncio.Event(), asyncio.Event()

    async def opening() -> Any:
        begun.set()
        await full.wait()
        raise OSError("the disk is full")

    task = asyncio.create_task(AiosqliteDriver().opened(opening()))
    await begun.wait()
    task.cancel()
    full.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    del task
    gc.collect()  # else nobody would say that the failure was overlooked
    assert caplog.records == []


def test_what_is_open_when_the_interpreter_ends_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Thread(target=int)
    over.start()
    left = [Stoppable(breaks=True), Stoppable()]
    monkeypatch.setattr(aiosqlite_driver, "main_thread", lambda: over)
    monkeypatch.setattr(aiosqlite_driver, "_open", left)
    aiosqlite_driver._stop_after_main()
    assert all(raw.stopped.is_set() for raw in left)


def test_the_middleware_asks_for_sessions() -> None:
    with pytest.raises(ConfigurationError, match="pass the Sessions of your app"):
        SessionMiddleware(Starlette(), sessions=None)  # type: ignore[arg-type]


async def test_tables_that_cannot_be_made_are_an_outage() -> None:
    database = Database("sqlite:////nowhere/at/all.db")
    sessions = Sessions(database, secret_key=KEY)
    with pytest.raises(SessionsUnavailable):
        await sessions.create_tables()
    await sessions.disconnect()


class FullDisk(AiosqliteDriver):
    """A driver whose database can make nothing."""

    async def fetch(self, raw: object, sql: str, params: Sequence[Any]) -> Sequence[Any]:
        raise OSError("the disk is full")


async def test_a_table_that_cannot_be_made_is_not_taken_for_one_that_is_there() -> None:
    connection = Connection(AppLease(None), FullDisk(), {})
    with pytest.raises(OSError, match="full"):
        await connection.create("CREATE TABLE sessions (id TEXT)")


class Forbidden(AiomysqlDriver):
    """A driver whose user may not look at a table."""

    async def fetch(self, raw: object, sql: str, params: Sequence[Any]) -> Sequence[Any]:
        raise PermissionError(1142, "SHOW command denied")


async def test_a_table_that_may_not_be_looked_at_is_not_taken_for_a_missing_one() -> None:
    with pytest.raises(PermissionError):
        await Forbidden().columns(None, Table("sessions", MetaData()))
