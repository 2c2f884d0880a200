"""The device as the server sees it: a User-Agent and an address. Never a reason to fail."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Any, Literal, NamedTuple

StoreIP = Literal["full", "truncated", "none"]

#: Characters of a User-Agent that are kept; real ones are under 300.
USER_AGENT_LENGTH = 500

_BYTE = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
# An IPv4 address in its one spelling, as servers give it: found in a fifth of the time.
_IPV4 = re.compile(rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}", re.ASCII)
# An address as a proxy may write it (RFC 7239, 6): with brackets, with a port, with both.
_IN_BRACKETS = re.compile(r"\[([^\[\]]*)\](?::\d{1,5})?", re.ASCII)
_WITH_PORT = re.compile(r"([\d.]+):\d{1,5}", re.ASCII)
#: Characters of an address that are looked at: of the longest, with its zone and its port.
_ADDRESS_LENGTH = 100
#: Bytes of a User-Agent that are looked at: no character has more than four.
_USER_AGENT_BYTES = 4 * USER_AGENT_LENGTH


class Device(NamedTuple):
    """What the request tells of its device; None where it tells nothing usable."""

    user_agent: str | None
    ip_address: str | None


#: The device of the one session that all devices beyond `max_scope_sessions` share. It is stored in
#: rows, and part of the key of the device: it must not be changed or translated.
OTHER_DEVICES = Device("Other devices", None)


def headers_of(scope: Mapping[str, Any]) -> Sequence[tuple[bytes, bytes]]:
    """The headers of a scope. ASGI allows any iterable: one that can be read only once is put back
    as a list, for the app and for whoever else reads it.
    """
    headers: Iterable[tuple[bytes, bytes]] = scope.get("headers", ())
    if not isinstance(headers, list | tuple):
        headers = list(headers)
        if isinstance(scope, MutableMapping):
            scope["headers"] = headers
    return headers


def device_from_scope(scope: Mapping[str, Any]) -> Device:
    """Read the first User-Agent header and ``scope["client"]``; behind a proxy, let the server
    (``uvicorn --proxy-headers``) or a trusted middleware put the real address there.
    """
    agent = next((value for name, value in headers_of(scope) if name == b"user-agent"), b"")
    client = scope.get("client")
    return Device(
        clean_user_agent(agent[:_USER_AGENT_BYTES].decode("utf-8", "replace")),
        clean_address(client[0]) if client else None,
    )


def clean_user_agent(text: str) -> str | None:
    """At most 500 characters, of which none breaks a database or a terminal."""
    text = text[:USER_AGENT_LENGTH]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text.strip() or None


def clean_address(text: object) -> str | None:
    """The one spelling of an address, without a proxy's brackets and port; an IPv4-mapped one as
    IPv4, a zone dropped, nonsense None.
    """
    if isinstance(text, str) and _IPV4.fullmatch(text):
        return text
    try:
        given = str(text)  # an integer of more digits than Python spells is a ValueError
        if len(given) > _ADDRESS_LENGTH:
            return None
        match = _IN_BRACKETS.fullmatch(given) or _WITH_PORT.fullmatch(given)
        address = ipaddress.ip_address((match[1] if match else given).partition("%")[0])
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
