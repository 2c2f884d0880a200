"""What is logged and told: each record of the page, once, and never a secret.

The texts that are chosen from a dictionary are private: the page has each of them.
"""

from __future__ import annotations

import ast
import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from starlette.authentication import SimpleUser
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import asgi_sessions
from asgi_sessions import (
    Incident,
    SessionEvent,
    SessionMiddleware,
    Sessions,
    SessionsError,
    SessionsUnavailable,
)
from asgi_sessions._connection.notices import TEXTS as NOTICES
from asgi_sessions.dbsc import DBSC
from asgi_sessions.ssf import EventReceiver
from tests.conftest import MakeSessions
from tests.support import KEY, OLD_KEY, Browser, Clock, make_app
from tests.support.asgi import until
from tests.support.devices import DeviceBrowser
from tests.support.engines import Onlooker, app_engine, kind
from tests.support.inside import check_what_is_open, opened, run_beside, settled, store_of
from tests.support.listening import Server, stopped
from tests.support.pages import Reader, table
from tests.support.repository import DOCS
from tests.support.sso import CLIENT, ISSUER, Provider, key, public, push

PAGE = DOCS / "logging.md"
KINDS = [
    kind for event in (SessionEvent, Incident) for kind in get_args(get_type_hints(event)["kind"])
]
MINUTE = timedelta(seconds=60)
#: What any record has.
PLAIN = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}

Told = list[SessionEvent | Incident]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    """Records of each level are seen."""
    caplog.set_level(logging.DEBUG, "asgi_sessions")


def take_away(onlooker: Onlooker) -> None:
    onlooker.run("ALTER TABLE {0} RENAME TO {0}_away")


def bring_back(onlooker: Onlooker) -> None:
    onlooker.run("ALTER TABLE {0}_away RENAME TO {0}")


def ours(caplog: pytest.LogCaptureFixture, name: str = "asgi_sessions") -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name.startswith(name)]


def facts(record: logging.LogRecord) -> dict[str, Any]:
    """What a record has besides what any has."""
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


def incidents(told: Told) -> list[Incident]:
    return [event for event in told if isinstance(event, Incident)]


def forged(sessions: Sessions, browser: Browser, *, sent: str = "") -> str:
    """Give the browser a cookie that no key has signed; its value."""
    value = sent or browser.cookies[sessions.cookie_name]
    head, _, signature = value.rpartition(".")
    value = f"{head}.{signature[::-1]}"
    browser.cookies.clear()
    browser.cookies[sessions.cookie_name] = value
    return value


# --- sessions -------------------------------------------------------------------------------------


async def test_each_step_of_a_session_is_logged_with_its_facts(
    make_sessions: MakeSessions, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append, app_id="shop")
    browser, thief = [Browser(make_app(sessions)) for _ in range(2)]
    sid = await browser.login("ann")
    thief.cookies.update(browser.cookies)
    await browser.post("/renew")
    await browser.see()
    clock.turn(MINUTE + timedelta(microseconds=1))
    assert (await thief.see())["reason"] == "reuse"
    records = ours(caplog)
    common: dict[str, object] = {"sid": sid, "person_id": "ann", "app_id": "shop"}
    common |= {"actor_id": None, "actor_reason": None}
    assert [(r.name, r.levelname, r.getMessage(), facts(r)) for r in records] == [
        (name, level, message, {**common, "event": event, "reason": reason})
        for name, level, message, event, reason in [
            ("asgi_sessions.sessions", "INFO", f"session started: {sid}", "started", None),
            ("asgi_sessions.sessions", "INFO", f"session renewed: {sid}", "renewed", None),
            (
                "asgi_sessions.security",
                "WARNING",
                f"session reuse detected: {sid}",
                "reuse_detected",
                "reuse",
            ),
            ("asgi_sessions.sessions", "INFO", f"session ended (reuse): {sid}", "ended", "reuse"),
        ]
    ]
    steps = [event for event in told if isinstance(event, SessionEvent)]
    assert steps == told
    assert [(e.kind, e.session.sid, e.session.end_reason) for e in steps] == [
        ("started", sid, None),
        ("renewed", sid, None),
        ("reuse_detected", sid, "reuse"),
        ("ended", sid, "reuse"),
    ]


# --- new devices ----------------------------------------------------------------------------------


def news(told: Told) -> list[tuple[str, bool]]:
    """Who has started a session, and whether on a new device; what was told is forgotten."""
    events = [event for event in told if isinstance(event, SessionEvent)]
    assert not [event for event in events if event.new_device and event.kind != "started"]
    told.clear()
    return [
        (event.session.person_id, event.new_device) for event in events if event.kind == "started"
    ]


async def test_a_device_is_new_until_its_person_has_been_seen_on_it(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    for expected in (True, False, False):
        browser = Browser(app)  # keeps no cookie from before
        await browser.login("ann")
        await browser.post("/logout")
        assert news(told) == [("ann", expected)]
    await Browser(app).login("ben")
    await Browser(app, agent="Phone").login("ann")
    await Browser(app, address="192.0.2.2").login("ann")
    await Browser(make_app(await make_sessions(on_event=told.append, app_id="other"))).login("ann")
    assert news(told) == [("ben", True), ("ann", True), ("ann", True), ("ann", True)]

    # With another key it is the same device ...
    rotated = await make_sessions(on_event=told.append, secret_key=OLD_KEY, old_secret_keys=[KEY])
    await Browser(make_app(rotated)).login("ann")
    assert news(told) == [("ann", False)]

    # ... and once its rows are gone, nobody knows it.
    for _ in range(2):
        clock.turn(timedelta(days=91))
        await sessions.purge()
    told.clear()
    await Browser(app).login("ann")
    assert news(told) == [("ann", True)]


async def test_a_cookie_of_theirs_shows_that_a_device_is_known(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    before = Browser(app, agent="Firefox/1")
    await before.login("ann")

    def moved(*, agent: str) -> Browser:
        browser = Browser(app, agent=agent, address="198.51.100.9")
        browser.cookies.update(before.cookies)
        return browser

    live = moved(agent="Firefox/2")
    await live.login("ann")  # over the session that lives
    clock.turn(timedelta(days=31))
    await moved(agent="Firefox/3").login("ann")  # with the cookie of one that is over
    await moved(agent="Firefox/4").login("ben")
    await moved(agent="Firefox/5").see_as("ann")
    assert news(told) == [
        ("ann", True),
        ("ann", False),
        ("ann", False),
        ("ben", True),
        ("ann", False),
    ]


async def test_a_device_is_new_to_whom_another_layer_vouches_for_too(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    first, *_ = await asyncio.gather(*(Browser(app).see_as("ann") for _ in range(3)))
    assert news(told) == [("ann", True)]
    await sessions.end_session_by_id(first["sid"], reason="logout")
    clock.turn(MINUTE)
    assert (await Browser(app).see_as("ann"))["sid"] != first["sid"]
    assert news(told) == [("ann", False)]


async def test_nobody_looks_for_devices_unless_somebody_is_told(
    sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_of(sessions), "by_device", None)
    await Browser(make_app(sessions)).login("ann")


# --- forged cookies -------------------------------------------------------------------------------


async def test_a_forged_cookie_is_told_with_its_client_and_without_its_value(
    make_sessions: MakeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    browser = Browser(make_app(sessions), address="198.51.100.7")
    sid = await browser.login("ann")
    told.clear()
    value = forged(sessions, browser)
    assert (await browser.see())["sid"] is None
    (record,) = ours(caplog, "asgi_sessions.security")
    assert (record.levelname, facts(record)) == (
        "WARNING",
        {"event": "forged_cookie", "count": 1, "client": "198.51.100.7"},
    )
    assert told == [Incident("forged_cookie", 1, client="198.51.100.7")]
    for part in (value, *value.split(".")):
        assert part not in record.getMessage() + repr(told) + repr(vars(record))
    assert sid not in record.getMessage()


async def test_of_many_forged_cookies_one_in_a_minute_is_told_with_their_number(
    make_sessions: MakeSessions, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    browser = Browser(app)
    await browser.login("ann")
    value = forged(sessions, browser)
    for number in range(7):
        visitor = Browser(app, address=f"192.0.2.{number}")
        visitor.cookies.update(browser.cookies)
        await visitor.see()
        clock.turn(timedelta(seconds=10))
    assert incidents(told) == [
        Incident("forged_cookie", 1, client="192.0.2.0"),
        Incident("forged_cookie", 6, client="192.0.2.6"),
    ]
    assert [facts(r)["count"] for r in ours(caplog, "asgi_sessions.security")] == [1, 6]
    # Two in one request, and a clock that was set back.
    clock.turn(-10 * MINUTE)
    other = value[:-1] + ("A" if value[-1] != "A" else "B")
    cookies = f"{sessions.cookie_name}={value}; {sessions.cookie_name}={other}"
    await Browser(app).see(cookie=cookies)
    assert incidents(told)[2:] == [Incident("forged_cookie", 2, client="192.0.2.1")]


@pytest.mark.parametrize(
    ("store_ip", "client"), [("full", "192.0.2.77"), ("truncated", "192.0.2.0"), ("none", None)]
)
async def test_the_client_is_told_as_far_as_its_address_may_be_stored(
    make_sessions: MakeSessions, store_ip: str, client: str | None
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append, store_ip=store_ip)
    browser = Browser(make_app(sessions), address="192.0.2.77")
    await browser.login("ann")
    forged(sessions, browser)
    await browser.see()
    assert incidents(told) == [Incident("forged_cookie", 1, client=client)]


async def test_a_forged_cookie_beside_a_good_one_is_told_and_takes_nothing_away(
    make_sessions: MakeSessions,
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    browser, victim = Browser(app), Browser(app)
    await browser.login("ann")
    bad = forged(sessions, browser)
    sid = await victim.login("bob")
    name, good = sessions.cookie_name, victim.cookies[sessions.cookie_name]
    assert (await Browser(app).see(cookie=f"{name}={bad}; {name}={good}"))["sid"] == sid
    assert [incident.kind for incident in incidents(told)] == ["forged_cookie"]


async def test_what_no_longer_verifies_is_told_but_what_never_was_ours_is_not(
    make_sessions: MakeSessions,
) -> None:
    told: Told = []
    before = await make_sessions(secret_key=OLD_KEY)
    browser = Browser(make_app(before))
    await browser.login("ann")
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    for junk in ("", "x", "a.b.c", "0" * 500, browser.cookies[sessions.cookie_name] + "x"):
        await Browser(app).see(cookie=f"{sessions.cookie_name}={junk}")
    assert told == []
    await Browser(app).see(cookie=f"{sessions.cookie_name}={browser.cookies[sessions.cookie_name]}")
    assert [incident.kind for incident in incidents(told)] == ["forged_cookie"]  # a lost key


# --- the database ---------------------------------------------------------------------------------


async def test_an_outage_is_told_when_it_begins_and_when_it_is_over(
    make_sessions: MakeSessions,
    clock: Clock,
    onlooker: Onlooker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append)
    app = make_app(sessions)
    browser = Browser(app)
    await browser.login("ann")
    caplog.clear()
    told.clear()
    for _ in range(2):  # it can come again
        take_away(onlooker)
        for _ in range(3):
            assert (await browser.get("/")).status_code == 503
            clock.turn(timedelta(seconds=0.5))
        assert (await Browser(app).get("/")).status_code == 200  # asks no database
        bring_back(onlooker)
        for _ in range(2):
            await browser.see()
    kinds = [(incident.kind, incident.count) for incident in incidents(told)]
    assert kinds == [("outage_begun", 1), ("outage_over", 3)] * 2
    assert [type(incident.error) for incident in incidents(told)][:2] == [
        SessionsUnavailable,
        type(None),
    ]
    records = ours(caplog)
    assert {record.name for record in records} == {"asgi_sessions.database"}
    assert [record.levelname for record in records] == ["ERROR", "WARNING"] * 2
    assert facts(records[1]) == {"event": "outage_over", "count": 3, "seconds": 1.5}
    assert records[1].getMessage() == "sessions available again: 3 requests affected in 1.5 s"
    assert records[0].exc_info is not None


async def test_touches_that_fail_are_counted_and_one_in_a_minute_is_told(
    make_sessions: MakeSessions,
    clock: Clock,
    onlooker: Onlooker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: Told = []
    sessions = await make_sessions(on_event=told.append, touch_interval=timedelta(0))

    async def leave(request: Request) -> Response:
        take_away(onlooker)  # after the look-up, before the touch
        return Response()

    browser = Browser(make_app(sessions, Route("/leave", leave)))
    sid = await browser.login("ann")
    for _ in range(4):
        clock.turn(timedelta(seconds=25))
        assert (await browser.get("/leave")).status_code == 200
        await settled(sessions)
        bring_back(onlooker)
        assert (await browser.see())["sid"] == sid
    failed = incidents(told)
    assert [(incident.kind, incident.count) for incident in failed] == [
        ("touch_failed", 1),
        ("touch_failed", 3),
    ]
    assert all(isinstance(incident.error, SessionsUnavailable) for incident in failed)
    records = [r for r in ours(caplog, "asgi_sessions.database") if "touch" in r.getMessage()]
    assert [(r.levelname, facts(r)) for r in records] == [
        ("WARNING", {"event": "touch_failed", "count": count}) for count in (1, 3)
    ]


# --- handlers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("later", [False, True], ids=["at once", "later"])
async def test_a_handler_that_fails_harms_no_request(
    make_sessions: MakeSessions,
    clock: Clock,
    onlooker: Onlooker,
    caplog: pytest.LogCaptureFixture,
    later: bool,
) -> None:
    def fails(event: SessionEvent | Incident) -> None:
        raise ValueError("the mail server is away")

    async def fails_later(event: SessionEvent | Incident) -> None:
        fails(event)

    sessions = await make_sessions(
        on_event=fails_later if later else fails, touch_interval=timedelta(0)
    )
    browser = Browser(make_app(sessions))
    sid = await browser.login("ann")
    cookie = browser.cookies[sessions.cookie_name]
    assert (await browser.post("/renew")).json()["sid"] == sid
    take_away(onlooker)
    assert (await browser.get("/")).status_code == 503
    bring_back(onlooker)
    clock.turn(timedelta(seconds=1))
    assert (await browser.see())["sid"] == sid
    clock.turn(2 * MINUTE)
    thief = Browser(make_app(sessions))
    assert (await thief.see(cookie=f"{sessions.cookie_name}={cookie}"))["reason"] == "reuse"
    forged(sessions, thief, sent=cookie)
    assert (await thief.see())["sid"] is None
    await sessions.disconnect()
    failed = [r for r in ours(caplog) if r.getMessage().startswith("on_event failed")]
    assert {(r.name, r.levelname) for r in failed} == {("asgi_sessions", "ERROR")}
    assert [facts(r)["event"] for r in failed] == [
        *("started", "renewed", "outage_begun", "outage_over", "reuse_detected", "ended"),
        "forged_cookie",
    ]
    assert caplog.text.count("ValueError: the mail server is away") == len(failed)


async def test_a_handler_that_never_ends_does_not_keep_the_app_from_ending(
    make_sessions: MakeSessions, caplog: pytest.LogCaptureFixture
) -> None:
    cancelled: list[str] = []

    async def hang(event: SessionEvent | Incident) -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            cancelled.append(event.kind)
            raise

    sessions = await make_sessions(on_event=hang, timeout=timedelta(seconds=1))
    before = asyncio.all_tasks()
    async with Browser(make_app(sessions)) as browser:
        await browser.login("ann")
        await browser.post("/logout")
    async with asyncio.timeout(5):
        await sessions.disconnect()
    assert sorted(cancelled) == ["ended", "started"]
    assert asyncio.all_tasks() <= before
    assert "2 handlers of on_event did not finish in time" in caplog.text


async def test_a_handler_may_use_the_sessions_that_tell_it(make_sessions: MakeSessions) -> None:
    ended: list[int] = []

    async def one_at_a_time(event: SessionEvent | Incident) -> None:
        if isinstance(event, SessionEvent) and event.kind == "started":
            session = event.session
            ended.append(await sessions.end_all_sessions(session.person_id, except_sid=session.sid))

    sessions: Sessions = await make_sessions(on_event=one_at_a_time)
    app = make_app(sessions)
    first, second = Browser(app, agent="A"), Browser(app, agent="B")
    await first.login("ann")
    await settled(sessions)
    sid = await second.login("ann")
    await settled(sessions)
    assert ended == [0, 1]
    assert [session.sid for session in await sessions.list_sessions("ann")] == [sid]
    assert (await first.see())["reason"] == "revoked"


# --- the page -------------------------------------------------------------------------------------


def logged_by_the_package() -> set[tuple[str, str]]:
    """The levels and messages of each call of a logger in its source."""
    found = set()
    for path in Path(asgi_sessions.__file__).parent.rglob("*.py"):
        tree = ast.parse(path.read_text())
        constants = {
            target.id: node.value.value
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
            for target in node.targets
            if isinstance(target, ast.Name)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                level = {"exception": "error"}.get(node.func.attr, node.func.attr)
                if node.args and level in {"debug", "info", "warning", "error", "critical", "log"}:
                    (message, *_) = node.args
                    text = message.value if isinstance(message, ast.Constant) else None
                    if isinstance(message, ast.Name):
                        text = constants[message.id]
                    if isinstance(message, ast.Subscript):  # one of a dictionary's
                        texts = [*NOTICES.values()]
                    else:
                        texts = [str(text)]
                    found |= {(level.upper(), one) for one in texts}
    return found


def rows() -> list[tuple[str, str, str, set[str]]]:
    """Logger, level, message and fields of each record on the page."""
    return [
        (
            logger.strip("`"),
            level,
            message.strip("`"),
            {field.strip(" `") for field in fields.split(",") if field.strip()},
        )
        for logger, level, message, fields, _ in table(PAGE, "Records")
    ]


def test_the_page_has_each_record_that_the_package_can_write() -> None:
    shown = {(level, message) for _, level, message, _ in rows()}
    steps = {message for _, message in shown if message.startswith("session ")} & {
        f"session {step}: %s" for step in ("started", "renewed", "bound", "ended (%s)")
    }
    assert len(steps) == 4
    in_source = logged_by_the_package()
    assert ("INFO", "session %s%s: %s") in in_source
    assert {pair for pair in shown if pair[1] not in steps} == {
        pair for pair in in_source if pair[1] != "session %s%s: %s"
    }


async def among_other_layers(sessions: Sessions, with_data: Sessions) -> None:
    """Have other layers do what is told of them once."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["session"] = "a database session"
        scope["user"] = SimpleUser("eve")

    async def hide(scope: Scope, receive: Receive, send: Send) -> None:
        scope["session"] = {}

    async def nothing(*_: Any) -> Any: ...

    state: dict[str, Any] = {}
    for _ in range(2):  # of two requests with one state, told once
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": state}
        await SessionMiddleware(app, sessions=sessions)(scope, nothing, nothing)
    middleware = SessionMiddleware(app, sessions=sessions)
    for _ in range(2):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "state": state}
        await middleware(scope, nothing, nothing)
    middleware = SessionMiddleware(hide, sessions=with_data)
    for _ in range(2):
        scope = {"type": "http", "method": "GET", "path": "/", "headers": []}
        await middleware(scope, nothing, nothing)

    async def login(scope: Scope, receive: Receive, send: Send) -> None:
        await sessions.start_session(scope, "eve")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    headers = [(b"host", b"192.168.1.7:8000")]
    plain = {"type": "http", "scheme": "http", "method": "POST", "path": "/", "headers": headers}
    await SessionMiddleware(login, sessions=sessions)(plain, nothing, nothing)
    stubborn = SessionMiddleware(app, sessions=sessions, person=lambda _: {"id": "x" * 256})
    await stubborn({"type": "http", "method": "GET", "path": "/", "headers": []}, nothing, nothing)


async def test_each_record_is_as_the_page_has_it(
    make_sessions: MakeSessions,
    clock: Clock,
    database_url: str,
    onlooker: Onlooker,
    caplog: pytest.LogCaptureFixture,
) -> None:
    handled: list[str] = []

    async def handle(event: SessionEvent | Incident) -> None:
        handled.append(event.kind)
        if event.kind == "renewed":
            raise ValueError("the mail server is away")
        if event.kind == "forged_cookie":
            await asyncio.get_running_loop().create_future()

    sessions = await make_sessions(
        on_event=handle,
        touch_interval=timedelta(0),
        timeout=timedelta(seconds=1),
        dbsc=DBSC(on_skipped={"server_error"}),
        data=True,
    )

    async def write(request: Request) -> Response:
        async def body() -> AsyncIterator[bytes]:
            request.session["a"] = 1  # too late for a cookie
            yield b""

        return StreamingResponse(body())

    async def leave(request: Request) -> Response:
        take_away(onlooker)
        return Response()

    async def fail(request: Request) -> Response:
        await sessions.start_session(request, "cho")
        take_away(onlooker)
        return Response(status_code=500)

    driver = {"sqlite": "aiosqlite", "postgresql": "asyncpg"}.get(kind(database_url), "aiomysql")
    engine = app_engine(database_url, f"{kind(database_url)}+{driver}")
    connection = await engine.connect()

    async def late(request: Request) -> Response:
        await sessions.start_session(request, "eli", connection=connection)
        return Response()

    routes = [
        Route("/leave", leave),
        Route("/write", write),
        *(Route(f"/{f.__name__}", f, methods=["POST"]) for f in (fail, late)),
    ]
    app = make_app(sessions, *routes)
    browser, thief = Browser(app), Browser(app)
    await browser.login("ann")
    cookie = browser.cookies[sessions.cookie_name]
    thief.cookies.update(browser.cookies)
    await browser.post("/renew")
    await browser.see()
    chrome = Browser(app, agent="(Windows NT 10.0) Chrome/150.0.0.0 Safari/537.36")
    for _ in range(20):  # offers that nobody takes up, within two minutes
        await chrome.login("dan")
        clock.turn(2 * MINUTE / 20)
    device = DeviceBrowser(app)
    await device.bound("dan")
    device.forget()
    await device.see()
    await device.see(secure_session_skipped="server_error")
    await sessions.end_session_by_id(device.sid)
    await device.refresh()
    clock.turn(2 * MINUTE)
    await thief.see()
    await Browser(app).see_as("x" * 256)
    await Browser(app).get("/write")
    sid = await browser.login("ann")
    await browser.get("/leave")
    await settled(sessions)
    assert (await browser.get("/")).status_code == 503
    closed = opened(sessions, sid, caplog.clear)
    await check_what_is_open(sessions)
    closed()
    server = Server()  # the one that notifies is not there, and then is
    server.faults = [OSError("refused")]
    listener = server.listener()
    await until(lambda: server.ready)
    await stopped(listener)
    bring_back(onlooker)
    await browser.see()
    assert (await Browser(app).post("/fail")).status_code == 500
    bring_back(onlooker)
    await among_other_layers(sessions, await make_sessions(data=True))
    await Browser(app).post("/late")
    await connection.commit()
    await until(lambda: "committed" in caplog.text)
    await connection.close()
    await engine.dispose()

    provider = Provider(clock)
    claims = {"id": "fay", "iss": ISSUER, "sub": "fay"}
    await sessions.insert({"type": "http", "headers": []}, claims)
    receiver = EventReceiver(sessions, issuer=ISSUER, audience=CLIENT, keys=public(key()))
    person = {"format": "iss_sub", "iss": ISSUER, "sub": "fay"}
    for change in ("token-claims-change", "assurance-level-change"):
        await push(receiver, provider.event(f"caep/event-type/{change}", person))
    await push(receiver, "junk")

    async def broken() -> None:
        raise SessionsError("nobody expects it")

    def fail_to_close() -> None:
        raise OSError("the pipe is broken")

    await run_beside(sessions, broken())
    closed = opened(sessions, device.sid, fail_to_close)
    await check_what_is_open(sessions)
    closed()
    forged(sessions, thief, sent=cookie)
    await thief.see()
    await sessions.disconnect()

    assert set(handled) == {*KINDS}
    seen: dict[tuple[str, str, str], set[str]] = {}
    for record in ours(caplog):
        message = str(record.msg)
        if message == "session %s%s: %s":
            step = facts(record)["event"]
            message = f"session {step}{' (%s)' if step == 'ended' else ''}: %s"
        seen[record.name, record.levelname, message] = set(facts(record))
    assert seen == {(logger, level, message): fields for logger, level, message, fields in rows()}


def test_the_page_has_each_kind_of_event() -> None:
    kinds = [kind.strip("`") for _, kind, _ in table(PAGE, "Events")]
    assert kinds == KINDS


@pytest.mark.parametrize("page", [PAGE])
async def test_the_handler_of_the_page_counts_what_it_is_told(
    reader: Reader, onlooker: Onlooker
) -> None:
    await reader.run()
    sessions: Sessions = reader["sessions"]
    await sessions.create_tables()
    browser = Browser(make_app(sessions))
    await browser.login("ann")
    forged(sessions, browser)
    await browser.see()
    assert reader["counts"] == {"started": 1, "forged_cookie": 1}
