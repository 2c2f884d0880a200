"""Each option in the query of a database URL is honoured, or refused by its name.

What reads a URL is private. `Sessions` is given one.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from databases import Database, DatabaseURL
from sqlalchemy.pool import QueuePool

from asgi_sessions import ConfigurationError, SessionMiddleware, Sessions
from asgi_sessions._database.pools.databases import kind_of
from asgi_sessions._database.pools.sqlalchemy import EngineURLSource
from asgi_sessions._database.url import read
from asgi_sessions._database.url_options import rules_for
from tests.support import KEY
from tests.support.certificates import make_certificate
from tests.support.repository import DOCS

PAGE = DOCS / "databases.md"
POSTGRESQL = "postgresql://ann:hush@host/name"
AIOMYSQL = "mysql://ann:hush@host/name"
PSYCOPG = "postgresql+psycopg://ann:hush@host/name"
ASYNCMY = "mysql+asyncmy://ann:hush@host/name"
MYSQLS = [AIOMYSQL, ASYNCMY]


@pytest.fixture(autouse=True)
def no_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing that this machine has set for libpq."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def pem(tmp_path: Path) -> str:
    """A certificate with its key."""
    return str(make_certificate(tmp_path).file)


def options(url: str) -> dict[str, Any]:
    """What `databases` is given beside the URL, but for the sizes of the pool."""
    place = DatabaseURL(url)
    made = read(place, rules_for(place), kind_of(place).sizes)
    return {k: v for k, v in made.items() if k not in {"min_size", "max_size"}}


def refusal(database: str | Database) -> str:
    with pytest.raises(ConfigurationError) as caught:
        Sessions(database, secret_key=KEY)
    assert "hush" not in str(caught.value)
    return str(caught.value)


# --- what is honoured -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("", {}),
        ("ssl=true", {}),  # which `databases` reads
        ("ssl=disable&min_size=1&max_size=3", {}),
        ("sslmode=require", {"dsn": "postgresql:///?sslmode=require"}),
        ("sslmode=disable", {"dsn": "postgresql:///?sslmode=disable"}),
        ("sslmode=verify-full&sslrootcert=system", {"ssl": True}),
        ("sslrootcert=system", {"ssl": True}),
        ("statement_cache_size=0", {"statement_cache_size": 0}),
        ("connect_timeout=3&command_timeout=4", {"timeout": 3, "command_timeout": 4}),
        ("connect_timeout=0", {"timeout": None}),
        ("application_name=a%20b", {"dsn": "postgresql:///?application_name=a+b"}),
        ("target_session_attrs=primary", {"dsn": "postgresql:///?target_session_attrs=primary"}),
        ("channel_binding=prefer", {}),
        (
            "sslmode=require&options=-c%20search_path%3Dauth",
            {"dsn": "postgresql:///?sslmode=require&options=-c+search_path%3Dauth"},
        ),
    ],
)
def test_postgresql_is_told_what_its_url_says(query: str, given: dict[str, Any]) -> None:
    assert options(f"{POSTGRESQL}?{query}") == given
    assert options(f"{POSTGRESQL.replace('postgresql', 'postgres')}?{query}") == given


@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("", {}),
        (
            "sslmode=require&application_name=a%20b",
            {"sslmode": "require", "application_name": "a b"},
        ),
        ("ssl=true", {"sslmode": "verify-full", "sslrootcert": "system"}),
        ("ssl=false", {"sslmode": "disable"}),
        ("ssl=require", {"sslmode": "require"}),
        ("connect_timeout=3", {"connect_timeout": 3}),
        ("channel_binding=require", {"channel_binding": "require"}),
        ("prepare_threshold=none", {"prepare_threshold": None}),
        ("prepare_threshold=0", {"prepare_threshold": 0}),
        ("max_size=3&pool_recycle=60", {}),  # of the pool
    ],
)
def test_psycopg_is_told_what_its_url_says(query: str, given: dict[str, Any]) -> None:
    source = EngineURLSource(f"{PSYCOPG}?{query}", max_idle=240)
    told: Any = source._options["connect_args"]
    assert {k: v for k, v in told.items() if not k.startswith("keepalives")} == given
    pool = source.database.pool
    assert isinstance(pool, QueuePool)
    assert pool.size() == (3 if "max_size" in query else 8)
    assert source.max_idle == pool._recycle == (60 if "recycle" in query else 240)
    assert str(source.database.url.query) == "immutabledict({})"


@pytest.mark.parametrize(
    ("spelled", "same"),
    [
        (
            "postgresql+asyncpg://host/name?sslmode=require",
            "postgresql://host/name?sslmode=require",
        ),
        ("mariadb://host/name?ssl=false", "mysql://host/name?ssl=false"),
        ("mariadb+aiomysql://host/name", "mysql+aiomysql://host/name"),
        ("mysql+aiomysql://host/name", "mysql://host/name"),
        pytest.param(
            "mariadb+asyncmy://host/name?charset=utf8mb4",
            "mysql+asyncmy://host/name?charset=utf8mb4",
            marks=pytest.mark.skipif(
                find_spec("asyncmy") is None, reason="the driver is not installed"
            ),
        ),
        ("sqlite+aiosqlite:///name.db", "sqlite:///name.db"),
    ],
)
def test_urls_are_understood_as_sqlalchemy_spells_them(spelled: str, same: str) -> None:
    one, other = (Sessions(url, secret_key=KEY).database for url in (spelled, same))
    assert type(one._backend) is type(other._backend)
    assert {**one.options} == {**other.options}
    assert one.url.database == other.url.database
    engines = [Sessions(url, secret_key=KEY)._source.driver for url in (spelled, same)]
    assert engines[0] is engines[1]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg2://host/name",
        "mysql+pymysql://host/name",
        "mariadb+mariadbconnector://host/name",
        "sqlite+pysqlite:///name.db",
    ],
)
def test_a_library_that_is_not_supported_is_refused_with_those_that_are(url: str) -> None:
    assert "is not supported: use sqlite (aiosqlite), postgresql (asyncpg)" in refusal(url)


@pytest.mark.parametrize(
    "url", ["postgresql+psycopg://u:hush@host:x/name", "postgresql+psycopg://"]
)
def test_a_url_of_psycopg_that_is_none_is_refused(url: str) -> None:
    if url.endswith("name"):
        assert "invalid database URL" in refusal(url)
    else:  # libpq knows where
        assert Sessions(url, secret_key=KEY).database.url.database is None


@pytest.mark.parametrize(
    "query", ["sslmode=verify-full&sslrootcert={0}", "sslmode=require&sslcert={0}&sslkey={0}"]
)
def test_files_of_certificates_reach_asyncpg(query: str, pem: str) -> None:
    (said,) = options(f"{POSTGRESQL}?{query.format(pem)}").values()
    assert DatabaseURL(said).options == DatabaseURL(f"x://y?{query.format(pem)}").options


@pytest.mark.parametrize("named", ["environment", "home"])
def test_certificates_that_libpq_finds_by_itself_are_enough(
    named: str, pem: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for mode in ("sslmode=verify-full", "ssl=verify-full", "sslmode=verify-ca"):
        assert "sslrootcert=system" in refusal(f"{POSTGRESQL}?{mode}")
    if named == "environment":
        monkeypatch.setenv("PGSSLROOTCERT", pem)
    else:
        (tmp_path / ".postgresql").mkdir()
        Path(pem).rename(tmp_path / ".postgresql/root.crt")
    assert options(f"{POSTGRESQL}?sslmode=verify-full")


def test_the_mode_of_the_environment_counts_where_the_url_has_none(
    monkeypatch: pytest.MonkeyPatch, pem: str
) -> None:
    assert "nothing is verified" in refusal(f"{POSTGRESQL}?sslrootcert={pem}")
    monkeypatch.setenv("PGSSLMODE", "verify-full")
    assert options(f"{POSTGRESQL}?sslrootcert={pem}")


@pytest.mark.parametrize("url", MYSQLS)
@pytest.mark.parametrize(
    ("query", "verified", "names"),
    [
        ("ssl=true", True, True),
        ("ssl_ca={0}", True, True),
        ("ssl=true&ssl_ca={0}&ssl_cert={0}&ssl_key={0}", True, True),
        ("ssl_verify_cert=true&ssl_verify_identity=true", True, True),
        ("ssl_mode=VERIFY_IDENTITY", True, True),
        ("ssl-mode=VERIFY_CA&ssl-ca={0}", True, False),
        ("ssl-mode=REQUIRED", False, False),
    ],
)
def test_both_drivers_of_mysql_encrypt_alike(
    url: str, query: str, verified: bool, names: bool, pem: str
) -> None:
    (context,) = options(f"{url}?{query.format(pem)}").values()
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode == (ssl.CERT_REQUIRED if verified else ssl.CERT_NONE)
    assert context.check_hostname == names
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT  # Python's, not the databases'


@pytest.mark.parametrize("url", MYSQLS)
@pytest.mark.parametrize(
    ("query", "given"),
    [
        ("ssl=false", {"ssl": False}),
        ("ssl_mode=DISABLED", {"ssl": False}),
        ("charset=utf8mb4&program_name=shop", {"charset": "utf8mb4", "program_name": "shop"}),
        ("connect_timeout=3&pool_recycle=-1", {"connect_timeout": 3}),
        ("unix_socket=/run/mysqld.sock", {}),
    ],
)
def test_mysql_is_told_what_its_url_says(url: str, query: str, given: dict[str, Any]) -> None:
    assert options(f"{url}?{query}") == given


def test_the_host_may_be_an_option_where_the_url_has_none() -> None:
    assert options("postgresql:///name?host=/run/postgresql") == {}  # `databases` reads it
    assert options("mysql:///name?host=localhost") == {}


def test_sqlite_is_told_what_its_url_says() -> None:
    assert options("sqlite:///file:sessions.db?mode=rw&uri=true") == {"uri": True}


async def test_a_file_that_sqlite_must_not_make_is_not_made(tmp_path: Path) -> None:
    place = tmp_path / "sessions.db"
    async with Sessions(f"sqlite:///{place}", secret_key=KEY) as sessions:
        await sessions.create_tables()
    await live(f"sqlite:///file:{place}?mode=rw&uri=true")
    await live(Database(f"sqlite:///file:{place}?mode=rw", uri=True))
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {"sessions.db"}
    place.unlink()
    with pytest.raises(Exception, match="sessions database failed"):
        await live(f"sqlite:///file:{place}?mode=rw&uri=true")
    assert not place.exists()


async def live(database: str | Database) -> None:
    sessions = Sessions(database, secret_key=KEY)
    await sessions.insert({"type": "http", "headers": []}, "ann")
    assert len(await sessions.list_sessions("ann")) >= 1
    await sessions.disconnect()


@pytest.mark.parametrize("url", [POSTGRESQL, PSYCOPG, *MYSQLS, "sqlite:///sessions.db"])
def test_the_page_has_each_option(url: str) -> None:
    rules = rules_for(DatabaseURL(url))
    rows = [
        cells[1]
        for line in PAGE.read_text().splitlines()
        if line.startswith(("| a", "| psycopg"))
        and rules.driver in (cells := line.split("|")[1:])[0]
    ]
    honoured = {name for name, option in rules.options.items() if option.honoured}
    assert set(re.findall("`(.+?)`", "".join(rows))) == {n for n in honoured if "-" not in n}


# --- what is refused ------------------------------------------------------------------------------

REFUSED: list[tuple[str, str, str]] = [
    (
        POSTGRESQL,
        "max_sizee=3",
        "max_sizee: asyncpg has no such option in a URL; do you mean max_size",
    ),
    (POSTGRESQL, "password=x", "password: asyncpg has no such option in a URL; leave it out"),
    (POSTGRESQL, "keepalives=1", "keepalives: "),
    (POSTGRESQL, "pool_recycle=x", "pool_recycle: use a whole number, -1 or more"),
    (POSTGRESQL, "sslmode", "sslmode: it has no value"),
    (POSTGRESQL, "sslmode=", "sslmode: it has no value"),
    (POSTGRESQL, "sslmode=disable&sslmode=require", "sslmode: it is there twice"),
    (POSTGRESQL, "application_name=a#sslmode=require", "write # as %23"),
    (POSTGRESQL, "sslmode=verify_full", "sslmode: use disable, allow, prefer, require, "),
    (POSTGRESQL, "ssl=yes", "ssl: use true, false, disable"),
    (POSTGRESQL, "ssl=true&sslmode=require", "ssl: it does not go with sslmode"),
    (POSTGRESQL, "ssl=true&sslrootcert=x", "ssl: it does not go with sslrootcert; write sslmode"),
    (POSTGRESQL, "sslmode=require&sslrootcert=system", "sslrootcert=system: it goes with sslmode="),
    (POSTGRESQL, "sslrootcert=system&sslcert=x", "no other option of TLS"),
    (POSTGRESQL, "sslmode=disable&sslcert=x", "sslcert: nothing is encrypted"),
    (POSTGRESQL, "sslmode=prefer&sslrootcert=x", "sslrootcert: nothing is verified"),
    (POSTGRESQL, "sslmode=verify-full&sslrootcert=/no.pem", "sslrootcert: not to be used"),
    (POSTGRESQL, "sslcert=/no.pem", "sslcert, sslkey: not to be used"),
    (POSTGRESQL, "sslkey=/no.pem", "sslkey: it goes with sslcert"),
    (POSTGRESQL, "channel_binding=require", "channel_binding: asyncpg binds no channel; leave it"),
    (POSTGRESQL, "channel_binding=x", "use disable, prefer or require"),
    (POSTGRESQL, "min_size=x", "min_size: use a whole number, 0 or more"),
    (POSTGRESQL, "max_size=0", "max_size: use a whole number, 1 or more"),
    (POSTGRESQL, "min_size=9", "min_size: 9 is more than max_size (8); give both"),
    (POSTGRESQL, "host=elsewhere", "host: the URL has a host before its path"),
    ("postgresql:///name", "host=a,b", "host: use one host"),
    ("postgresql://u:123", "ush@host/name", "write # as %23, ? as %3F"),
    (PSYCOPG, "min_size=1", "min_size: connections are opened when they are needed; leave it out"),
    (PSYCOPG, "statement_cache_size=0", "statement_cache_size: use prepare_threshold=none"),
    (PSYCOPG, "command_timeout=3", "command_timeout: use options=-c%20statement_timeout%3D5000"),
    ("postgresql+psycopg:///name", "unix_sock=/run", "unix_sock: use host"),
    (PSYCOPG, "prepare_threshold=x", "prepare_threshold: use a whole number, 0 or more"),
    (PSYCOPG, "sslmode=verify-full", "sslmode=verify-full: it needs sslrootcert=FILE"),
    (PSYCOPG, "ssl=true&sslmode=require", "ssl: it does not go with sslmode"),
    (PSYCOPG, "sslmodee=require", "sslmodee: psycopg has no such option in a URL; do you mean"),
    *(
        (url, query, mend)
        for url in MYSQLS
        for query, mend in [
            ("sslmode=require", "sslmode: use ssl_mode=VERIFY_IDENTITY"),
            ("sslrootcert=x", "sslrootcert: use ssl_ca"),
            ("application_name=x", "application_name: use program_name"),
            ("autocommit=false", "autocommit: "),
            ("statement_cache_size=0", "statement_cache_size: "),
            ("charset=latin1", "charset: use utf8mb4"),
            ("ssl=require", "ssl: use true or false"),
            ("ssl=true&ssl_mode=REQUIRED", "ssl, ssl_mode: they say the same"),
            ("ssl-mode=DISABLED&ssl_mode=REQUIRED", "ssl-mode: it is there twice"),
            ("ssl_mode=PREFERRED", "ssl_mode: whoever is in between"),
            ("ssl_mode=required", "ssl_mode: use DISABLED, REQUIRED, VERIFY_CA or VERIFY_IDENTITY"),
            ("ssl_mode=REQUIRED&ssl_ca=x", "ssl_ca: not with REQUIRED; use ssl_mode=VERIFY_IDEN"),
            ("ssl=false&ssl_ca=x", "ssl_ca: not with DISABLED"),
            ("ssl_verify_cert=false", "ssl_verify_cert: use ssl_mode=REQUIRED"),
            ("ssl_verify_identity=false", "ssl_verify_identity: use ssl_mode=VERIFY_CA"),
            ("ssl_ca=/no.pem", "ssl_ca: not to be used"),
            ("ssl=true&unix_socket=/x", "ssl: nobody listens in on a unix_socket"),
            ("pool_recycle=soon", "pool_recycle: use a whole number, -1 or more"),
        ]
    ),
    ("sqlite:///x.db", "timeout=3", "timeout: give Sessions(timeout=timedelta(seconds=...))"),
    ("sqlite:///x.db", "mode=rw", "mode: SQLite reads options from a URI alone; write one like"),
    ("sqlite:///x.db", "mode=rw&uri=true", "sqlite:///file:sessions.db?mode=rw&uri=true"),
    ("sqlite:///file:x.db", "mode=ro&uri=true", "mode: use rw or rwc"),
    ("sqlite:///file:x.db", "cache=shared&uri=true", "cache: it would break sessions"),
    ("sqlite:///file:x.db", "uri=false", "uri: leave it out, with all other options"),
    ("sqlite:///x.db", "moed=rw", "moed: aiosqlite has no such option in a URL; do you mean mode?"),
]


@pytest.mark.parametrize(("url", "query", "mend"), REFUSED, ids=lambda text: text.split("#")[0])
def test_what_cannot_be_honoured_is_refused_by_name_and_with_the_mend(
    url: str, query: str, mend: str
) -> None:
    message = refusal(f"{url}?{query}")
    assert re.match(r"options of the database URL \((a|psycopg)", message)
    assert mend in message


def test_all_faults_of_a_url_come_in_one_message() -> None:
    message = refusal(f"{POSTGRESQL}?max_size=x&sslmode=full&nonsense=1&ssl=")
    for name in ("max_size", "sslmode", "nonsense", "ssl"):
        assert f"{name}: " in message


def test_an_encrypted_key_is_refused_without_asking_for_its_password(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
    )

    file = make_certificate(tmp_path).file
    text = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"hush")
    )
    (tmp_path / "key.pem").write_bytes(text)
    message = refusal(f"{AIOMYSQL}?ssl_cert={file}&ssl_key={tmp_path}/key.pem")
    assert "ssl_cert, ssl_key: not to be used" in message


# --- an app's own database ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "query", "beside"),
    [
        (POSTGRESQL, "min_size=1&max_size=3&ssl=require", {}),
        (POSTGRESQL, "statement_cache_size=0", {"statement_cache_size": 0}),
        (POSTGRESQL, "sslmode=require&sslrootcert=x", {"ssl": True}),
        (POSTGRESQL, "application_name=x", {"server_settings": {"application_name": "y"}}),
        (POSTGRESQL, "connect_timeout=3", {"timeout": 3}),
        ("postgresql:///name", "host=/run/postgresql", {}),
        (AIOMYSQL, "ssl=true&pool_recycle=3&min_size=1&unix_socket=/x", {}),
        (AIOMYSQL, "charset=utf8mb4&ssl_ca=x", {"charset": "utf8mb4", "ssl": {"ca": "x"}}),
        ("sqlite:///file:x.db", "mode=ro", {"uri": True}),
    ],
)
def test_what_reaches_the_driver_of_an_apps_own_database_is_taken(
    url: str, query: str, beside: dict[str, Any]
) -> None:
    database = Database(f"{url}?{query}", **beside)
    assert Sessions(database, secret_key=KEY).database is database


@pytest.mark.parametrize(
    ("url", "query", "beside", "mend"),
    [
        (POSTGRESQL, "statement_cache_size=0", {}, "Database(url, statement_cache_size=...)"),
        (POSTGRESQL, "sslmode=verify-full", {}, "sslmode: `databases` does not read it from a URL"),
        (POSTGRESQL, "application_name=x", {"server_settings": {"jit": "off"}}, "server_settings="),
        (POSTGRESQL, "max_sizee=3", {"max_size": 3}, "max_sizee: `databases` does not read it"),
        (POSTGRESQL, "sslmode=", {"ssl": True}, "sslmode: it has no value"),
        (AIOMYSQL, "ssl_ca=x", {}, "databases.Database(url, ssl=...)"),
        ("sqlite:///x.db", "mode=rw", {}, "Database(url, uri=...)"),
        ("sqlite:///x.db", "mode=rw", {"uri": True}, "mode: "),  # part of the file's name
        ("sqlite:///x.db", "timeout=3", {"timeout": 3}, "timeout: "),  # as well
    ],
)
def test_what_nobody_reads_of_the_url_of_an_apps_own_database_is_refused(
    url: str, query: str, beside: dict[str, Any], mend: str
) -> None:
    assert mend in refusal(Database(f"{url}?{query}", **beside))


# --- trio -----------------------------------------------------------------------------------------


def refused_without_asyncio(step: Callable[[], Any]) -> str:
    """Drive a coroutine by hand, as another event loop than asyncio's would."""
    with pytest.raises(ConfigurationError) as caught:
        step().send(None)
    return str(caught.value)


async def app(scope: Any, receive: Any, send: Any) -> None:
    raise AssertionError("it has been reached")


@pytest.fixture
def unused(tmp_path: Path) -> Iterator[Sessions]:
    with pytest.raises(RuntimeError):  # or the tests below show nothing
        asyncio.get_running_loop()
    yield Sessions(f"sqlite:///{tmp_path}/sessions.db", secret_key=KEY)
    assert list(tmp_path.iterdir()) == []


STEPS: dict[str, Callable[[Sessions], Any]] = {
    "connect": lambda sessions: sessions.connect(),
    "disconnect": lambda sessions: sessions.disconnect(),
    "create_tables": lambda sessions: sessions.create_tables(),
    "list_sessions": lambda sessions: sessions.list_sessions("ann"),
    "insert": lambda sessions: sessions.insert({"type": "http", "headers": []}, "ann"),
    "middleware": lambda sessions: SessionMiddleware(app, sessions=sessions)(
        {"type": "http", "headers": []}, None, None
    ),
}


@pytest.mark.parametrize("step", STEPS)
def test_without_asyncio_as_under_trio_it_says_what_is_missing(step: str, unused: Sessions) -> None:
    message = refused_without_asyncio(lambda: STEPS[step](unused))
    assert "runs on asyncio" in message
    assert "trio" in message


def test_the_lifespan_of_other_apps_passes_without_asyncio(unused: Sessions) -> None:
    with pytest.raises(AssertionError, match="reached"):
        SessionMiddleware(app, sessions=unused)({"type": "lifespan"}, None, None).send(None)
    assert str(unused.database.url).startswith("sqlite:")
