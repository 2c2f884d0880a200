"""Each server behind each proxy, with the lines of docs/deployment.md: the app learns from where a
browser comes, that it came by https, to which host, and below which prefix.
"""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Iterator
from typing import NamedTuple

import httpx
import pytest
from websockets.sync.client import connect

from tests.servers.machine import Machine
from tests.servers.process import LOOPBACK
from tests.support.certificates import make_certificate
from tests.support.pages import the_block
from tests.support.repository import DOCS

pytestmark = pytest.mark.servers

PAGE = DOCS / "deployment.md"
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


def replaced(text: str, old: str, new: str) -> str:
    assert old in text, old
    return text.replace(old, new)


class Place(NamedTuple):
    """A server, and where each proxy serves it."""

    port: int
    proxied: dict[str, int]


class Proxied(NamedTuple):
    """A machine with all of them."""

    machine: Machine
    certificate: str
    places: dict[str, Place]

    def write_app(self) -> None:
        """The modules, as their readers name them."""
        app = the_block(PAGE, "python", "app = Starlette")
        url = 'os.environ["DATABASE_URL"]'
        self.machine.write("main.py", replaced(app, '"sqlite:///sessions.db"', url))
        self.machine.write("worker.py", the_block(PAGE, "py", "uvicorn_worker"))
        for server in WHOLE_PATH:
            self.machine.write(f"behind_{server}.py", the_block(PAGE, "py", f"from {server}"))

    def start_server(self, server: str) -> None:
        line = the_block(PAGE, "sh", f"{server} ")
        program, *arguments = replaced(line, "8000", str(self.places[server].port)).split()
        self.machine.start(program, *arguments, DATABASE_URL=self.machine.database(server))

    def start_nginx(self) -> None:
        source, _, upgrade = the_block(PAGE, "nginx", "server {").partition("\nmap ")
        servers = ""
        for server, place in self.places.items():
            text = replaced(source, "/etc/ssl/shop.pem", self.certificate)
            text = replaced(text, "listen 443", f"listen {LOOPBACK}:{place.proxied['nginx']}")
            slash = "" if server in WHOLE_PATH else "/"
            servers += replaced(text, ":8000/;", f":{place.port}{slash};")
        here = self.machine.directory
        text = _NGINX.format(directory=here, servers=servers, map=f"map {upgrade}")
        conf = self.machine.write("nginx.conf", text)
        self.machine.start("nginx", "-p", str(here), "-c", conf, "-e", "stderr")

    def start_haproxy(self) -> None:
        source, sections = the_block(PAGE, "haproxy", "frontend"), _HAPROXY
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
        self.machine.start("haproxy", "-db", "-f", self.machine.write("haproxy.cfg", sections))


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    with Machine(tmp_path_factory.mktemp("machine")) as machine:
        places = {
            server: Place(machine.port(), {proxy: machine.port() for proxy in PROXIES})
            for server in SERVERS
        }
        certificate = str(make_certificate(machine.directory).file)
        proxied = Proxied(machine, certificate, places)
        proxied.write_app()
        for server in SERVERS:
            proxied.start_server(server)
        proxied.start_nginx()
        proxied.start_haproxy()
        machine.wait()
        yield proxied


@pytest.mark.parametrize("proxy", PROXIES)
@pytest.mark.parametrize("server", SERVERS)
def test_the_app_learns_who_comes_and_where_it_is(
    proxied: Proxied, server: str, proxy: str
) -> None:
    port = proxied.places[server].proxied[proxy]
    site = f"https://localhost:{port}"
    trust = ssl.create_default_context(cafile=proxied.certificate)
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
        url = f"wss://localhost:{port}/shop/echo"
        line = socket.create_connection((LOOPBACK, port))  # no proxy of this machine's
        with connect(url, sock=line, ssl=trust, additional_headers=handshake) as peer:
            assert peer.recv() == seen["sid"]
        old = {"origin": site}  # a browser that sends no Sec-Fetch-Site
        assert browser.post("/shop/logout", headers=old).headers["location"] == "/shop/"
        assert browser.get("/shop/").json() == {"sid": None, "from": None}
