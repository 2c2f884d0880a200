"""The device as the server sees it: a User-Agent and an address. Never a reason to fail."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

StoreIP = Literal["full", "truncated", "none"]

#: Characters of a User-Agent that are kept; real ones are under 300.
USER_AGENT_LENGTH = 500

_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
# An IPv4 address in its one spelling, as servers give it: found in a fifth of the time.
_IPV4 = re.compile(rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}", re.ASCII)


class Device(NamedTuple):
    """What the request tells of its device; None where it tells nothing usable."""

    user_agent: str | None
    ip_address: str | None


def device_from_scope(scope: Mapping[str, Any]) -> Device:
    """Read the first User-Agent header and ``scope["client"]``; behind a proxy, let the server
    (``uvicorn --proxy-headers``) or a trusted middleware put the real address there.
    """
    agent = next((value for name, value in scope.get("headers", ()) if name == b"user-agent"), b"")
    client = scope.get("client")
    return Device(
        clean_user_agent(agent.decode("utf-8", "replace")),
        clean_address(client[0]) if client else None,
    )


def clean_user_agent(text: str) -> str | None:
    """At most 500 characters, of which none breaks a database or a terminal."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text[:USER_AGENT_LENGTH].strip() or None


def clean_address(text: object) -> str | None:
    """The one spelling of an address; an IPv4-mapped one as IPv4, a zone dropped, nonsense None."""
    if isinstance(text, str) and _IPV4.fullmatch(text):
        return text
    try:
        address = ipaddress.ip_address(str(text).partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    return str(address)


def address_to_store(address: str | None, store_ip: StoreIP) -> str | None:
    """As allowed: all of it, its /24 (IPv4) or /48 (IPv6) network, or nothing."""
    if address is None or store_ip == "none":
        return None
    if store_ip == "full":
        return address
    if ":" in address:
        return str(ipaddress.ip_network((address, 48), strict=False).network_address)
    return address.rpartition(".")[0] + ".0"
