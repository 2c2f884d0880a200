"""Options that cannot work are refused at once, by name and with the mend.

What an option becomes is private. It is looked at for one thing alone, that it shows no key.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from databases import Database

from asgi_sessions import AAL3, BANKING, ConfigurationError, Lifetimes, Sessions
from tests.conftest import MakeSessions
from tests.support import KEY, OLD_KEY, Clock

URL = "sqlite:///sessions.db"  # nobody connects to it
SCOPE = {"type": "http", "headers": []}
HOUR = timedelta(hours=1)


def make(database: object = URL, **options: object) -> Sessions:
    """Sessions with the defaults but for `options`."""
    taken: dict[str, Any] = {"database": database, "secret_key": KEY, **options}
    return Sessions(**taken)


def refusal(database: object = URL, **options: object) -> str:
    """What the refusal of these options says."""
    with pytest.raises(ConfigurationError) as caught:
        make(database, **options)
    return str(caught.value)


# --- each option ----------------------------------------------------------------------------------

REFUSED: list[tuple[str, object, str]] = [
    ("secret_key", "", "make one with"),
    ("secret_key", "x" * 31, "make one with"),
    ("secret_key", b"x" * 31, "make one with"),
    ("secret_key", None, "make one with"),
    ("secret_key", 10**40, "make one with"),
    ("secret_key", "\ud800" * 32, "make one with"),
    ("old_secret_keys", ["x" * 31], "make one with"),
    ("old_secret_keys", [OLD_KEY, None], "make one with"),
    ("old_secret_keys", OLD_KEY, "takes a list of keys"),
    ("old_secret_keys", OLD_KEY.encode(), "takes a list of keys"),
    ("old_secret_keys", None, "takes a list of keys"),
    ("old_secret_keys", 7, "takes a list of keys"),
    ("app_id", "", "must not be empty"),
    ("app_id", "x" * 256, "at most 255 characters"),
    ("app_id", "a\0b", "must not hold a NUL"),
    ("app_id", "a\ud800b", "must not hold a lone surrogate"),
    ("app_id", 1.5, "must be a str"),
    ("app_id", None, "must not be empty"),
    ("lifetimes", None, "use AAL1 or Lifetimes(...)"),
    ("lifetimes", HOUR, "use AAL1 or Lifetimes(...)"),
    ("cookie_name", "", "use letters, digits, - and _"),
    ("cookie_name", None, "use letters, digits, - and _"),
    ("cookie_name", "my sid", "use letters, digits, - and _"),
    ("cookie_name", "sid;", "use letters, digits, - and _"),
    ("cookie_name", "größe", "use letters, digits, - and _"),
    ("cookie_name", "__Host-sid", "leave the prefix out"),
    ("cookie_name", "__secure-sid", "leave the prefix out"),
    ("cookie_samesite", "Lax", "use 'lax', 'strict' or 'none'"),
    ("cookie_samesite", None, "use 'lax', 'strict' or 'none'"),
    ("cookie_secure", "no", "use True or False"),
    ("cookie_partitioned", "no", "use True or False"),
    ("cookie_domain", "", "use one like 'example.com', or None"),
    ("cookie_domain", 5, "use one like 'example.com', or None"),
    ("cookie_domain", "https://example.com", "use one like 'example.com', or None"),
    ("cookie_domain", "a..b", "use one like 'example.com', or None"),
    ("cookie_domain", "example.com; Path=/", "use one like 'example.com', or None"),
    ("cookie_path", "", "must start with '/'"),
    ("cookie_path", None, "must start with '/'"),
    ("cookie_path", "app", "must start with '/'"),
    ("cookie_path", "/a b", "must start with '/', without spaces and ';'"),
    ("cookie_path", "/; Domain=evil.example", "must start with '/', without spaces and ';'"),
    ("auto_start", None, "use True, False or a function of the scope"),
    ("auto_start", "no", "use True, False or a function of the scope"),
    ("store_ip", None, "use 'full', 'truncated' or 'none'"),
    ("store_ip", "some", "use 'full', 'truncated' or 'none'"),
    ("touch_interval", 60, "use a datetime.timedelta"),
    ("touch_interval", -HOUR, "not negative"),
    ("touch_interval", timedelta(days=8), "pass a shorter touch_interval"),
    ("max_sessions_per_person", 0, "use None or 1 and more"),
    ("max_sessions_per_person", -1, "use None or 1 and more"),
    ("max_sessions_per_person", 2.5, "use None or 1 and more"),
    ("max_sessions_per_person", True, "use None or 1 and more"),
    ("keep_ended", 90, "use a datetime.timedelta"),
    ("keep_ended", None, "use a datetime.timedelta"),
    ("keep_ended", -HOUR, "not negative"),
    ("on_unavailable", None, "use 'error' or 'anonymous'"),
    ("on_unavailable", "ignore", "use 'error' or 'anonymous'"),
    ("on_event", "log", "use a function"),
    ("table_name", "", "use at most 46 letters, digits and _"),
    ("table_name", None, "use at most 46 letters, digits and _"),
    ("table_name", "x" * 47, "use at most 46 letters, digits and _"),
    ("table_name", "1st", "use at most 46 letters, digits and _"),
    ("table_name", "auth.", "use at most 46 letters, digits and _"),
    ("table_name", "a.b.c", "use at most 46 letters, digits and _"),
    ("table_name", 'x"; DROP TABLE people; --', "use at most 46 letters, digits and _"),
    ("clock", None, "use a function that returns an aware datetime"),
    ("clock", datetime(2026, 1, 1, tzinfo=UTC), "use a function that returns an aware datetime"),
    ("socket_check_interval", 5, "use a datetime.timedelta"),
    ("socket_check_interval", -HOUR, "of more than 0"),
    ("end_streams", "no", "use True or False"),
    ("end_streams", None, "use True or False"),
    ("notify", 1, "use True or False"),
    ("notify", True, "only PostgreSQL tells one process what another has done"),
    ("timeout", 5, "use a datetime.timedelta"),
    ("connection_max_idle", 240, "use a datetime.timedelta"),
    ("connection_max_idle", timedelta(0), "of more than 0"),
    ("timeout", timedelta(0), "of more than 0"),
    ("timeout", -HOUR, "of more than 0"),
]


@pytest.mark.parametrize(("option", "value", "mend"), REFUSED, ids=repr)
def test_an_impossible_option_is_refused_by_name_and_with_the_mend(
    option: str, value: object, mend: str
) -> None:
    message = refusal(**{option: value})
    assert option in message
    assert mend in message


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({"cookie_samesite": "none"}, "cookie_samesite='none' needs cookie_secure=True"),
        ({"cookie_partitioned": True}, "cookie_partitioned=True needs cookie_secure=True"),
    ],
)
def test_what_browsers_drop_without_https_is_refused(options: dict[str, object], mend: str) -> None:
    make(**options)
    assert mend in refusal(cookie_secure=False, **options)


def test_all_faults_come_in_one_message() -> None:
    wrong = {
        "secret_key": "short",
        "app_id": "",
        "lifetimes": None,
        "cookie_name": "my sid",
        "cookie_samesite": "Lax",
        "cookie_domain": "a..b",
        "cookie_path": "app",
        "auto_start": None,
        "store_ip": "some",
        "touch_interval": 60,
        "max_sessions_per_person": 0,
        "keep_ended": 90,
        "on_unavailable": "ignore",
        "table_name": "",
        "clock": None,
        "socket_check_interval": 5,
        "end_streams": "no",
        "notify": "no",
        "timeout": 5,
    }
    message = refusal(**wrong)
    assert [option for option in wrong if option not in message] == []
    assert len(message.split("; ")) >= len(wrong)


def test_no_fault_waits_until_the_others_are_mended() -> None:
    for url, said in (("nonsense", "invalid database URL"), (f"{URL}?timeout=3", "timeout: give")):
        message = refusal(url, secret_key="short", touch_interval=timedelta(days=8))
        for fault in (said, "secret_key", "at most half of the idle timeout"):
            assert fault in message


def test_the_least_and_the_most_that_works_is_taken() -> None:
    make(
        secret_key=b"abcdefgh" * 4,
        old_secret_keys=iter([OLD_KEY]),
        app_id=7,
        cookie_name="!#$%&'*+-.^_`|~sid",
        cookie_domain=".example.com",
        cookie_path="/app/",
        auto_start=lambda scope: True,
        touch_interval=timedelta(0),
        max_sessions_per_person=1,
        keep_ended=timedelta(0),
        table_name="x" * 46,
    )


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"secret_key": "hush-hush"},
        {"secret_key": b"hush-hush"},
        {"old_secret_keys": ["hush-hush"]},
        {"old_secret_keys": "hush-hush"},
        {"secret_key": ["hush-hush"]},
        {"secret_key": "hush-hush", "cookie_path": "app", "clock": None},
    ],
)
def test_a_refused_key_is_not_shown(options: dict[str, object]) -> None:
    assert "hush" not in refusal(**options)


def test_a_key_counts_by_its_length() -> None:
    assert "at least 32 characters" in refusal(secret_key="x" * 31)
    make(secret_key="abcdefgh" * 4)


# --- time -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("lifetimes", [AAL3, BANKING])
def test_half_of_the_idle_timeout_is_the_longest_touch_interval(lifetimes: Lifetimes) -> None:
    half = lifetimes.idle / 2
    make(lifetimes=lifetimes, touch_interval=half)
    message = refusal(lifetimes=lifetimes, touch_interval=half + timedelta(microseconds=1))
    assert "at most half of the idle timeout" in message
    assert str(lifetimes.idle) in message


def test_the_default_touch_interval_is_too_long_for_a_very_short_idle_timeout() -> None:
    short = Lifetimes(idle=timedelta(seconds=119), absolute=HOUR)
    assert "pass a shorter touch_interval" in refusal(lifetimes=short)
    make(lifetimes=short, touch_interval=timedelta(seconds=30))


async def test_a_clock_without_a_zone_is_refused_when_it_is_read(
    make_sessions: MakeSessions,
) -> None:
    sessions = await make_sessions(clock=lambda: datetime(2026, 1, 1))  # noqa: DTZ001 -- that is it
    with pytest.raises(ConfigurationError, match="clock must return an aware datetime: use"):
        await sessions.insert(SCOPE, "ada")


async def test_a_clock_of_another_zone_tells_the_time_in_utc(
    make_sessions: MakeSessions, clock: Clock
) -> None:
    tokyo = timezone(timedelta(hours=9))
    sessions = await make_sessions(clock=lambda: clock.now.astimezone(tokyo), lifetimes=AAL3)
    session = await sessions.insert(SCOPE, "ada")
    assert session.started_at == clock.now
    assert session.started_at.utcoffset() == timedelta(0)
    assert await sessions.list_sessions("ada") == [session]  # not nine hours idle


# --- the table ------------------------------------------------------------------------------------


def test_the_table_and_its_indexes_have_the_name_given() -> None:
    sessions = make(table_name="logins")
    assert sessions.table.name == "logins"
    assert list(sessions.metadata.tables) == ["logins", "logins_cutoffs"]
    assert all("_logins_" in str(index.name) for index in sessions.table.indexes)


def test_the_table_may_be_in_a_schema() -> None:
    table = make(table_name="auth.logins").table
    assert (table.schema, table.name) == ("auth", "logins")
    assert all("_logins_" in str(index.name) for index in table.indexes)


def test_names_of_indexes_fit_into_the_63_bytes_of_postgresql() -> None:
    longest = make(table_name="x" * 46)
    assert max(len(str(index.name)) for index in longest.table.indexes) <= 63


async def test_two_tables_in_one_database_are_strangers(make_sessions: MakeSessions) -> None:
    ours = await make_sessions()
    theirs = await make_sessions(table_name=f"{ours.table.name}_2")
    await ours.insert(SCOPE, "ada")
    assert len(await ours.list_sessions("ada")) == 1
    assert await theirs.list_sessions("ada") == []


# --- the database ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["", "nonsense", "sessions.db", "http://example.com", "oracle://host/name", None, 7]
)
def test_a_nonsense_url_is_refused_with_one_that_works(url: object) -> None:
    message = refusal(url)
    assert "invalid database URL" in message
    assert "'sqlite:///sessions.db'" in message


@pytest.mark.parametrize("url", ["nonsense://ada:hush@host/name", "ada:hush@host"])
def test_a_refused_url_does_not_show_its_password(url: str) -> None:
    assert "hush" not in refusal(url)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file::memory:?cache=shared&uri=true",
        "sqlite:///file:x?mode=memory&cache=shared&uri=true",
    ],
)
def test_an_in_memory_database_is_refused_with_a_file_to_use(url: str) -> None:
    message = refusal(url)
    assert "in-memory" in message
    assert "another one for each connection" in message
    assert "use a file, for instance 'sqlite:///sessions.db'" in message
    assert "tmp_path" in message  # for tests
    database = Database(url)
    assert refusal(database) == message
    if "cache" in url:  # the app's own is the app's to close; `databases` has no way for that
        database._backend._pool._memref.close()


@pytest.mark.parametrize(
    ("url", "driver", "extra"),
    [
        ("postgresql://host/name", "asyncpg", "asgi-login-sessions[postgresql]"),
        ("mysql://host/name", "aiomysql", "asgi-login-sessions[mysql]"),
        ("postgresql+psycopg://host/name", "psycopg", "asgi-login-sessions[psycopg]"),
    ],
)
def test_a_missing_driver_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch, url: str, driver: str, extra: str
) -> None:
    monkeypatch.setitem(sys.modules, driver, None)  # as if it were not installed
    for module in [name for name in sys.modules if name.startswith("databases.backends.")]:
        monkeypatch.delitem(sys.modules, module)
    message = refusal(url)
    assert f"({driver})" in message
    assert extra in message


def test_the_size_of_the_statement_cache_can_be_in_the_url() -> None:
    url = "postgresql://host/name?statement_cache_size=0&max_size=7"
    database = make(url).database
    assert database.options == {
        "statement_cache_size": 0,
        "min_size": 1,
        "max_inactive_connection_lifetime": 240,
    }
    message = refusal("postgresql://host/name?statement_cache_size=none")
    assert "statement_cache_size: use a whole number, 0 or more" in message


def test_a_database_of_the_apps_own_is_taken_as_it_is() -> None:
    database = Database(URL)
    assert make(database).database is database


def test_to_make_sessions_touches_no_file(tmp_path: Path) -> None:
    make(f"sqlite:///{tmp_path}/sessions.db")
    assert list(tmp_path.iterdir()) == []


# --- repr -----------------------------------------------------------------------------------------

WITH_PASSWORD = "sqlite://ada:hush@localhost/sessions.db"  # needs no driver


@pytest.mark.parametrize("database", [WITH_PASSWORD, Database(WITH_PASSWORD)])
def test_the_repr_shows_neither_key_nor_password(database: str | Database) -> None:
    sessions = make(database, old_secret_keys=[OLD_KEY], app_id="shop")
    shown = repr(sessions)
    assert shown == "Sessions('sqlite://ada:********@localhost/sessions.db', app_id='shop')"


def test_no_key_is_shown_by_what_sessions_is_made_of() -> None:
    sessions = make(old_secret_keys=[OLD_KEY])
    for thing in (sessions, sessions._core.settings, sessions._core.settings.keys):
        shown = f"{thing!r} {thing!s}"
        assert KEY not in shown
        assert OLD_KEY not in shown


@pytest.mark.parametrize(
    "url", ["sqlite://ada:hush@host:port/sessions.db", "sqlite://ada:hu/sh@host/sessions.db"]
)
def test_a_url_whose_parts_cannot_be_told_apart_is_refused(url: str) -> None:
    assert "invalid database URL" in refusal(url)
