"""TLS with servers as they are: PostgreSQL and MariaDB with a certificate of the test's."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asgi_sessions import Sessions, SessionsUnavailable
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.support import KEY, Browser, make_app
from tests.support.certificates import make_certificate

pytestmark = pytest.mark.servers

IS_ENCRYPTED = {
    "postgresql": "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()",
    "mysql": "SELECT variable_value <> '' FROM information_schema.session_status"
    " WHERE variable_name = 'Ssl_cipher'",
}
VERIFIED = {
    "postgresql": "sslmode=verify-full&sslrootcert={}",
    "mysql": "ssl=true&ssl_ca={}",
    "mysql+asyncmy": "ssl=true&ssl_ca={}",
}
IN_CLEAR = {"postgresql": "sslmode=disable", "mysql": "ssl=false", "mysql+asyncmy": "ssl=false"}


class EncryptedPostgres(PostgresServer):
    certificate: Path

    async def init(self) -> None:
        await super().init()
        own = self.data / "server.pem"
        shutil.copy(self.certificate, own)
        own.chmod(0o600)
        self.own(own)
        self.settings |= {"ssl": "on", "ssl_cert_file": str(own), "ssl_key_file": str(own)}


class EncryptedMariaDB(MariaDBServer):
    certificate: Path

    async def init(self) -> None:
        await super().init()
        own = self.data / "server.pem"
        shutil.copy(self.certificate, own)
        self.own(own)
        self.settings |= {"ssl-cert": str(own), "ssl-key": str(own)}


@pytest.fixture(params=VERIFIED)
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return make_certificate(tmp_path).file


@pytest.fixture
async def server(
    anyio_backend: str, scheme: str, certificate: Path
) -> AsyncIterator[PostgresServer | MariaDBServer]:
    encrypted = EncryptedPostgres() if scheme == "postgresql" else EncryptedMariaDB()
    encrypted.certificate = certificate
    async with encrypted as server:
        yield server


async def test_a_verified_connection_is_encrypted_and_works(
    scheme: str, server: PostgresServer | MariaDBServer, certificate: Path, tmp_path: Path
) -> None:
    url = server.url_at(server.port, scheme)
    question = IS_ENCRYPTED[scheme.partition("+")[0]]
    verified = VERIFIED[scheme]
    async with Sessions(f"{url}?{verified.format(certificate)}", secret_key=KEY) as sessions:
        await sessions.create_tables()
        browser = Browser(make_app(sessions))
        sid = await browser.login("ann")
        assert (await browser.see())["sid"] == sid
        assert await sessions.database.fetch_val(question)
    async with Sessions(f"{url}?{IN_CLEAR[scheme]}", secret_key=KEY) as sessions:
        assert not await sessions.database.fetch_val(question)
    (tmp_path / "other").mkdir()
    foreign = make_certificate(tmp_path / "other").file
    sessions = Sessions(f"{url}?{verified.format(foreign)}", secret_key=KEY)
    with pytest.raises(SessionsUnavailable):
        await sessions.connect()
    await sessions.disconnect()


async def test_a_server_without_tls_is_not_talked_to(scheme: str, certificate: Path) -> None:
    server = PostgresServer() if scheme == "postgresql" else MariaDBServer()
    async with server:
        url = server.url_at(server.port, scheme)
        sessions = Sessions(f"{url}?{VERIFIED[scheme].format(certificate)}", secret_key=KEY)
        with pytest.raises(SessionsUnavailable):
            await sessions.connect()
        await sessions.disconnect()
