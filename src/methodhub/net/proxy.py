"""The PROXY protocol, version 2, in front of TLS: a load balancer tells whom it speaks for. Believed only from
addresses that the operator names. Knows no protocol behind it."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import cast

from methodhub.net.admission import Admission, Waiting
from methodhub.net.stream import Stream

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
"""With it every header of version 2 begins (HAProxy's proxy-protocol.txt, 2.2)."""
HEAD = 16
MAX_HEADER = HEAD + 2_048
"""Addresses and additional fields; balancers send a few hundred bytes at most."""

_LOCAL, _PROXY = 0x20, 0x21
_ADDRESSES = {1: (socket.AF_INET, 4), 2: (socket.AF_INET6, 16)}

Network = IPv4Network | IPv6Network


class NotProxied(ValueError):
    """The bytes are no PROXY header of version 2. The text says why, for the log."""


def parse_header(data: bytes) -> tuple[str, int] | None:
    """The peer's address ('' where the balancer speaks for itself, or of no IP peer) and the header's length, or None
    while it is incomplete. [HUB-proxy-header] Raises NotProxied."""
    if not SIGNATURE.startswith(data[: len(SIGNATURE)]):
        raise NotProxied("it does not begin with the signature of version 2")
    if len(data) < HEAD:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    if command not in (_LOCAL, _PROXY):
        raise NotProxied(f"version and command {command:#04x} are not known")
    end = HEAD + length
    if end > MAX_HEADER:
        raise NotProxied(f"it has {end} bytes of at most {MAX_HEADER}")
    kind = _ADDRESSES.get(family >> 4)
    if command == _PROXY and kind is not None and length < 2 * kind[1] + 4:
        raise NotProxied(f"it has {length} bytes for two addresses and ports")
    if len(data) < end:
        return None
    if command == _LOCAL or kind is None:
        return "", end
    version, size = kind
    return socket.inet_ntop(version, data[HEAD : HEAD + size]), end


class ProxyPrelude(asyncio.Protocol):
    """Reads the header of one accepted connection and makes way for its stream. [HUB-proxy-allow-list] A peer that is
    not in `networks` speaks for itself: its first bytes are not looked at."""

    def __init__(self, admission: Admission, networks: Sequence[Network], make: Callable[[], Stream]) -> None:
        self._admission = admission
        self._networks = networks
        self._make = make
        self._transport = cast(asyncio.Transport, None)
        self._received = b""
        self._admitted = False
        self._waiting: Waiting | None = None
        self.address = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self.address = str(name[0]) if isinstance(name, tuple) else ""
        if not is_within(self.address, self._networks):
            self._make_way("", b"")
        elif self._admission.admit(self):
            self._admitted = True
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            parsed = parse_header(self._received)
        except NotProxied as error:
            self._admission.not_proxied(self, str(error))
            self.abort()
            return
        if parsed is not None:
            address, end = parsed
            self._make_way(address, self._received[end:])

    def _make_way(self, address: str, rest: bytes) -> None:
        self._leave()
        stream = self._make()
        stream.speaks_for(address)
        self._transport.set_protocol(stream)
        stream.connection_made(self._transport)
        if rest and not self._transport.is_closing():
            stream.data_received(rest)

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def abort(self) -> None:
        self._transport.abort()

    def _leave(self) -> None:
        if self._admitted:
            self._admitted = False
            self._admission.lost(self)


def is_within(address: str, networks: Sequence[Network]) -> bool:
    """Whether an address, of IPv4 in IPv6 form too, lies in one of the networks."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(found, "ipv4_mapped", None)
    return any(each in network for each in (found, mapped) if each is not None for network in networks)
