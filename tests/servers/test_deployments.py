"""Each server behind each proxy, with the lines of docs/deployment.md: the app learns from where a
browser comes, that it came by https, to which host, and below which prefix.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from asgi_sessions import Sessions
from tests.servers.process import ENVIRONMENT, LOOPBACK, as_account, find_binary, free_port
from tests.support import KEY
from tests.support.certificates import make_certificate
from tests.support.pages import blocks
from tests.support.repository import DOCS, ROOT

pytestmark = pytest.mark.servers

PAGE = DOCS / "deployment.md"
PATIENCE = 30
#: Where the browsers of these tests are: neither the proxy's address, nor what they claim.
CLIENT, CLAIMED = "127.0.0.2", "198.51.100.7"
SERVERS = ("uvicorn", "gunicorn", "hypercorn", "granian")
PROXIES = ("nginx", "haproxy")
#: These give the app the path as it comes, and need the prefix in it.
WHOLE_PATH = ("hypercorn", "granian")

_NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory};
    proxy_temp_path {directory};
    fastcgi_temp_path {directory};
    uwsgi_temp_path {directory};
    scgi_temp_path {directory};
    {servers}
    {map}
}}
"""
_HAPROXY = """
defaults
    timeout connect 5s
    timeout client 30s
    timeout server 30s
"""


def block(language: str, word: str) -> str:
    """The block of the page that has this word."""
    (found,) = [one.source for one in blocks(PAGE, language) if word in one.source]
    return found


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, old
    return text.replace(old, new)


class Place(NamedTuple):
    """A server, and where each proxy serves it."""

    port: int
    proxied: dict[str, int]


class Machine:
    """A directory with the app of the page, and the processes that were started in it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.certificate = str(make_certificate(directory).file)
        self.places = {
            server: Place(free_port(), {proxy: free_port() for proxy in PROXIES})
            for server in SERVERS
        }
        self._processes: list[subprocess.Popen[bytes]] = []

    def write_app(self) -> None:
        """The modules, as their readers name them."""
        app = block("python", "app = Starlette")
        url = 'os.environ["DATABASE_URL"]'
        (self.directory / "main.py").write_text(replaced(app, '"sqlite:///sessions.db"', url))
        (self.directory / "worker.py").write_text(block("py", "uvicorn_worker"))
        for server in WHOLE_PATH:
            (self.directory / f"behind_{server}.py").write_text(block("py", f"from {server}"))

    def start(self, name: str, *command: str, **environment: str) -> None:
        with (self.directory / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [*as_account("root")[:2], "--", *command],  # it ends when we do
                    cwd=self.directory,
                    env={**ENVIRONMENT, "HOME": str(self.directory), **environment},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            )

    def start_server(self, server: str) -> None:
        line = replaced(block("sh", f"{server} "), "8000", str(self.places[server].port))
        program, *arguments = line.split()
        database = f"sqlite:///{self.directory}/{server}.db"
        asyncio.run(_make_tables(database))
        path = os.pathsep.join(map(str, [self.directory, ROOT]))
        self.start(
            server,
            str(Path(sys.executable).parent / program),
            *arguments,
            DATABASE_URL=database,
            SECRET_KEY=KEY,
            PYTHONPATH=path,
        )

    def start_nginx(self) -> None:
        source, _, upgrade = block("nginx", "server {").partition("\nmap ")
        servers = ""
        for server, place in self.places.items():
            text = replaced(source, "/etc/ssl/shop.pem", self.certificate)
            text = replaced(text, "listen 443", f"listen {LOOPBACK}:{place.proxied['nginx']}")
            slash = "" if server in WHOLE_PATH else "/"
            servers += replaced(text, ":8000/;", f":{place.port}{slash};")
        conf = self.directory / "nginx.conf"
        conf.write_text(
            _NGINX.format(directory=self.directory, servers=servers, map=f"map {upgrade}")
        )
        nginx = find_binary("nginx", "nginx")
        self.start("nginx", nginx, "-p", str(self.directory), "-c", str(conf), "-e", "stderr")

    def start_haproxy(self) -> None:
        source, sections = block("haproxy", "frontend"), _HAPROXY
        for server, place in self.places.items():
            text = replaced(source, "/etc/ssl/shop.pem", self.certificate)
            text = replaced(text, "bind :443", f"bind {LOOPBACK}:{place.proxied['haproxy']}")
            text = replaced(text, ":8000", f":{place.port}")
            for old, new in (("frontend https", f"frontend {server}"), (" shop", f" {server}")):
                text = replaced(text, old, new)
            if server in WHOLE_PATH:
                text, count = re.subn(r"\n.*the whole path.*", "", text)
                assert count == 1
            sections += text
        conf = self.directory / "haproxy.cfg"
        conf.write_text(sections)
        self.start("haproxy", find_binary("haproxy", "haproxy"), "-db", "-f", str(conf))

    def wait(self) -> None:
        """Until all listen."""
        ports = {place.port for place in self.places.values()}
        ports |= {port for place in self.places.values() for port in place.proxied.values()}
        deadline = time.monotonic() + PATIENCE
        while ports:
            assert time.monotonic() < deadline, self.logs()
            assert all(one.poll() is None for one in self._processes), self.logs()
            ports = {port for port in ports if not _listens(port)}
            time.sleep(0.05)

    def logs(self) -> str:
        return "\n".join(file.read_text() for file in self.directory.glob("*.log"))

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(PATIENCE)


async def _make_tables(database: str) -> None:
    async with Sessions(database, secret_key=KEY) as sessions:
        await sessions.create_tables()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, port)):
        return True
    return False


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    machine.write_app()
    try:
        for server in SERVERS:
            machine.start_server(server)
        machine.start_nginx()
        machine.start_haproxy()
        machine.wait()
        yield machine
    finally:
        machine.stop()
    assert "Traceback" not in machine.logs()


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("server", SERVERS)
def test_the_app_learns_who_comes_and_where_it_is(
    machine: Machine, server: str, proxy: str
) -> None:
    port = machine.places[server].proxied[proxy]
    site = f"https://localhost:{port}"
    trust = ssl.create_default_context(cafile=machine.certificate)
    headers = {"x-forwarded-for": CLAIMED, "x-forwarded-proto": "http"}
    with httpx.Client(
        transport=httpx.HTTPTransport(verify=trust, local_address=CLIENT),
        base_url=site,
        headers=headers,
    ) as browser:
        login = browser.post("/shop/login")
        assert login.headers["location"] == f"{site}/shop/"
        assert "; Secure" in login.headers["set-cookie"]
        seen = browser.get("/shop/").json()
        assert seen["from"] == CLIENT

        # Where a browser goes from our own pages, and where a socket belongs.
        html = {"accept": "text/html", "origin": site}
        ended = browser.post("/shop/sessions/end-others", headers=html)
        assert str(ended.url.join(ended.headers["location"])).startswith(f"{site}/shop/sessions/?")
        ((name, value),) = browser.cookies.items()
        handshake = {"cookie": f"{name}={value}", "origin": site}
        with connect(
            f"wss://localhost:{port}/shop/echo", ssl=trust, additional_headers=handshake, proxy=None
        ) as peer:
            assert peer.recv() == seen["sid"]
        old = {"origin": site}  # a browser that sends no Sec-Fetch-Site
        assert browser.post("/shop/logout", headers=old).headers["location"] == "/shop/"
        assert browser.get("/shop/").json() == {"sid": None, "from": None}
