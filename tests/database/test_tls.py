"""What of a login crosses the network in plain text, told by servers that write down each byte.

They know the first words of the protocols, up to where a client has logged in.

A connection of the app's own database is opened as the private driver opens it, because `databases`
would open a pool of several.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import asyncpg
import pytest

from asgi_sessions import Sessions, SessionsUnavailable
from asgi_sessions._database.pools.databases import DatabasesPool
from tests.support import KEY
from tests.support.certificates import make_certificate

#: What must not be read on the way. A password of MySQL is hashed, but comes with its user.
USER, PASSWORD = "unmistakable", "hush-hush"


class Wire:
    """A server that notes what it was sent, in plain text and encrypted.

    Args:
        certificate: with its key; None for a server without TLS.
        host: where it listens.
    """

    def __init__(self, certificate: Path | None, host: str = "127.0.0.1") -> None:
        self.plain, self.encrypted = bytearray(), bytearray()
        self._context: ssl.SSLContext | None = None
        if certificate is not None:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificate)
        self._listener = socket.create_server((host, 0))
        self.host, self.port = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)  # or `accept` goes on
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(5)
            with client, contextlib.suppress(OSError, EOFError):  # it goes away, it will not trust
                self.talk(client)

    def talk(self, client: socket.socket) -> None:
        raise NotImplementedError

    def read(self, client: socket.socket, size: int) -> bytes:
        """So many bytes."""
        heard = bytearray()
        while len(heard) < size:
            piece = client.recv(size - len(heard))
            (self.encrypted if isinstance(client, ssl.SSLSocket) else self.plain).extend(piece)
            if not piece:
                raise EOFError
            heard += piece
        return bytes(heard)

    def upgrade(self, client: socket.socket) -> socket.socket:
        if self._context is None:
            return client
        return self._context.wrap_socket(client, server_side=True)


class AsyncpgDriver(Wire):
    def talk(self, client: socket.socket) -> None:
        (size,) = struct.unpack("!i", self.read(client, 4))
        rest = self.read(client, size - 4)
        if rest == struct.pack("!i", 80877103):  # SSLRequest
            client.sendall(b"N" if self._context is None else b"S")
            client = self.upgrade(client)
            with client:
                (size,) = struct.unpack("!i", self.read(client, 4))
                self.read(client, size - 4)
                self.refuse(client)
        else:
            self.refuse(client)

    def refuse(self, client: socket.socket) -> None:
        with client:
            client.sendall(b"R" + struct.pack("!ii", 8, 3))  # AuthenticationCleartextPassword
            (size,) = struct.unpack("!xi", self.read(client, 5))
            self.read(client, size - 4)
            fault = b"SFATAL\0C28P01\0Mno\0\0"
            client.sendall(b"E" + struct.pack("!i", len(fault) + 4) + fault)


class MySQLDriver(Wire):
    def talk(self, client: socket.socket) -> None:
        # PROTOCOL_41, SECURE_CONNECTION, PLUGIN_AUTH, CONNECT_WITH_DB, and perhaps SSL
        can = 0x200 | 0x8000 | 0x80000 | 0x8 | (0 if self._context is None else 0x800)
        hello = b"\x0a8.0.0\0" + struct.pack("<I", 1) + b"salt" * 2 + b"\0"
        hello += struct.pack("<HBHHB", can & 0xFFFF, 45, 2, can >> 16, 21) + bytes(10)
        self.tell(client, 0, hello + b"salt" * 3 + b"\0" + b"mysql_native_password\0")
        sequence, said = self.packet(client)
        if len(said) == 32:  # SSLRequest
            if self._context is None:
                client.settimeout(0.1)  # seconds in which to say more
                self.read(client, 1 << 16)
            client = self.upgrade(client)
            sequence, _ = self.packet(client)
        with client:
            self.tell(client, sequence + 1, b"\xff" + struct.pack("<H", 1045) + b"#28000no")

    def tell(self, client: socket.socket, sequence: int, payload: bytes) -> None:
        client.sendall(struct.pack("<I", len(payload))[:3] + bytes([sequence]) + payload)

    def packet(self, client: socket.socket) -> tuple[int, bytes]:
        size = int.from_bytes(self.read(client, 3), "little")
        (sequence,) = self.read(client, 1)
        return sequence, self.read(client, size)


SERVERS: dict[str, type[Wire]] = {
    "postgresql": AsyncpgDriver,
    "postgresql+psycopg": AsyncpgDriver,
    "mysql": MySQLDriver,
    "mysql+asyncmy": MySQLDriver,
}
#: Options that say the same: {} is a file of certificates to trust.
VERIFIED = {
    "postgresql": ["sslmode=verify-full&sslrootcert={}", "sslmode=verify-full&sslrootcert=system"],
    "mysql": ["ssl=true&ssl_ca={}", "ssl-mode=VERIFY_IDENTITY&ssl-ca={}"],
}
ANY_NAME = {
    "postgresql": ["sslmode=verify-ca&sslrootcert={}", "sslmode=require&sslrootcert={}"],
    "mysql": ["ssl_mode=VERIFY_CA&ssl_ca={}"],
}
ENCRYPTED = {"postgresql": ["sslmode=require", "ssl=require"], "mysql": ["ssl_mode=REQUIRED"]}
PLAIN = {
    "postgresql": ["sslmode=disable", "ssl=false"],
    "mysql": ["ssl=false", "ssl-mode=DISABLED"],
}
BY_SYSTEM = {name: ["ssl=true"] for name in VERIFIED}


@pytest.fixture(params=SERVERS)
def scheme(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "mysql+asyncmy":
        pytest.importorskip("asyncmy")  # it comes with the group of tests with servers
    return name


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Without anything that this machine has set for libpq."""
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def certificate(home: Path) -> Path:
    return make_certificate(home).file


@pytest.fixture
def trusted_by_system(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


def each(scheme: str, options: dict[str, list[str]]) -> list[str]:
    return options[scheme.partition("+")[0]]


@contextlib.asynccontextmanager
async def listening(
    scheme: str, certificate: Path | None, host: str = "127.0.0.1"
) -> AsyncIterator[Wire]:
    wire = SERVERS[scheme](certificate, host)
    try:
        yield wire
    finally:
        await asyncio.to_thread(wire.close)  # the client's end is closed by the event loop


async def log_in(scheme: str, wire: Wire, query: str) -> None:
    """Log in to the database, as far as the server of the test lets anybody."""
    url = f"{scheme}://{USER}:{PASSWORD}@{wire.host}:{wire.port}/test?{query}"
    sessions = Sessions(url, secret_key=KEY, timeout=timedelta(seconds=2))
    with pytest.raises(SessionsUnavailable):
        await sessions.connect()
    await sessions.disconnect()


def tells(heard: bytearray) -> bool:
    return USER.encode() in heard or PASSWORD.encode() in heard


async def test_what_is_verified_is_encrypted(scheme: str, certificate: Path) -> None:
    for query in each(scheme, VERIFIED):
        if "system" in query:
            continue
        async with listening(scheme, certificate) as wire:
            await log_in(scheme, wire, query.format(certificate))
        assert tells(wire.encrypted), query
        assert not tells(wire.plain), query


@pytest.mark.usefixtures("trusted_by_system")
async def test_ssl_true_means_the_certificates_of_the_system(
    scheme: str, certificate: Path
) -> None:
    for query in (*each(scheme, BY_SYSTEM), *each(scheme, VERIFIED)):
        async with listening(scheme, certificate) as wire:
            await log_in(scheme, wire, query.format(certificate))
        assert tells(wire.encrypted), query
        assert not tells(wire.plain), query


async def test_somebody_in_between_hears_nothing(scheme: str, certificate: Path) -> None:
    (certificate.parent / "other").mkdir()
    foreign = make_certificate(certificate.parent / "other").file
    for query in (*each(scheme, BY_SYSTEM), *each(scheme, VERIFIED), *each(scheme, ANY_NAME)):
        async with listening(scheme, foreign) as wire:
            await log_in(scheme, wire, query.format(certificate))
        assert wire.plain, query
        assert not tells(wire.plain + wire.encrypted), query


async def test_a_server_of_another_name_hears_nothing(scheme: str, certificate: Path) -> None:
    for query in each(scheme, VERIFIED):
        async with listening(scheme, certificate, "127.0.0.2") as wire:  # not in the certificate
            await log_in(scheme, wire, query.format(certificate))
        assert not tells(wire.plain + wire.encrypted), query
    for query in each(scheme, ANY_NAME):
        async with listening(scheme, certificate, "127.0.0.2") as wire:
            await log_in(scheme, wire, query.format(certificate))
        assert tells(wire.encrypted), query
        assert not tells(wire.plain), query


async def test_a_server_without_tls_hears_nothing(scheme: str, certificate: Path) -> None:
    queries = (VERIFIED, ANY_NAME, ENCRYPTED, BY_SYSTEM)
    for query in [query for options in queries for query in each(scheme, options)]:
        async with listening(scheme, None) as wire:
            await log_in(scheme, wire, query.format(certificate))
        assert not tells(wire.plain), query


async def test_where_encryption_alone_is_asked_for_any_certificate_will_do(
    scheme: str, certificate: Path
) -> None:
    for query in each(scheme, ENCRYPTED):
        async with listening(scheme, certificate) as wire:
            await log_in(scheme, wire, query)
        assert tells(wire.encrypted), query
        assert not tells(wire.plain), query


async def test_plain_text_is_what_it_says(scheme: str, certificate: Path) -> None:
    for query in each(scheme, PLAIN):
        async with listening(scheme, certificate) as wire:
            await log_in(scheme, wire, query)
        assert tells(wire.plain), query  # so the server of these tests does hear it
        assert not wire.encrypted, query


async def test_the_connection_that_listens_is_encrypted_as_the_others_are(
    certificate: Path,
) -> None:
    for query in [*VERIFIED["postgresql"][:1], *ENCRYPTED["postgresql"]]:
        for theirs in (None, certificate):
            async with listening("postgresql", theirs) as wire:
                url = f"postgresql://{USER}:{PASSWORD}@{wire.host}:{wire.port}/test?{query}"
                database = Sessions(url.format(certificate), secret_key=KEY).database
                with pytest.raises((OSError, asyncpg.PostgresError)):
                    await DatabasesPool(database, owned=True).connect()
            assert not tells(wire.plain), query
            assert tells(wire.encrypted) == (theirs is not None), query
