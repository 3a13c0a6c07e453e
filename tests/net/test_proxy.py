"""The PROXY header: read before TLS, from named addresses only, within the caps of strangers."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.net.proxy import HEAD, MAX_HEADER, SIGNATURE, NotProxied, is_within, parse_header

from .conftest import Run
from .world import Certificates, World, ended, receive, send

LOOPBACK = [ip_network("127.0.0.0/8")]


def header(source: str, command: int = 0x21, more: bytes = b"") -> bytes:
    version = socket.AF_INET6 if ":" in source else socket.AF_INET
    family = 0x21 if version == socket.AF_INET6 else 0x11
    address = socket.inet_pton(version, source)
    body = address + address + struct.pack("!HH", 50_000, 443) + more
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


@pytest.mark.parametrize("source", ["192.0.2.7", "2001:db8::7"])
def test_who_the_peer_is(source: str) -> None:
    """[HUB-proxy-header] Whole, with more fields, cut anywhere, with bytes behind it."""
    whole = header(source, more=b"\x04\x00\x01x")
    assert parse_header(whole + b"rest") == (source, len(whole))
    assert all(parse_header(whole[:cut]) is None for cut in range(len(whole)))
    assert parse_header(header(source, command=0x20)) == ("", len(header(source)))
    unix = SIGNATURE + struct.pack("!BBH", 0x21, 0x31, 216) + bytes(216)
    assert parse_header(unix) == ("", len(unix))


@pytest.mark.parametrize(
    "wrong",
    [
        b"PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n",
        b"\x16\x03\x01",
        SIGNATURE + struct.pack("!BBH", 0x11, 0x11, 12) + bytes(12),
        SIGNATURE + struct.pack("!BBH", 0x22, 0x11, 12) + bytes(12),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, 11) + bytes(11),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x21, 35) + bytes(35),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_HEADER - HEAD + 1),
    ],
)
def test_what_is_no_header(wrong: bytes) -> None:
    """[HUB-proxy-header]"""
    with pytest.raises(NotProxied):
        parse_header(wrong)


@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: SIGNATURE + tail))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        found = parse_header(data)
    except NotProxied:
        return
    assert found is None or found[1] <= len(data)


def test_networks() -> None:
    """[HUB-proxy-allow-list]"""
    networks = [ip_network("10.0.0.0/8"), ip_network("2001:db8::/32")]
    assert is_within("10.1.2.3", networks)
    assert is_within("::ffff:10.1.2.3", networks)
    assert is_within("2001:db8::1%eth0", networks)
    assert not is_within("11.1.2.3", networks)
    assert not is_within("", networks)


def test_a_stream_behind_a_balancer(run: Run, certificates: Certificates) -> None:
    """[HUB-proxy-header] The peer's address is the one told; TLS begins behind the header, in the same chunk too."""

    async def main() -> None:
        async with World(proxies=LOOPBACK) as world:
            world.echo = True
            client = await world.tcp()
            await send(client, header("192.0.2.7") + b"hello")
            assert await receive(client, 5) == b"hello"
            assert (await world.next()).stream.peer.address == "192.0.2.7"
            slow = await world.tcp()
            for byte in header("2001:db8::7"):
                await send(slow, bytes([byte]))
            await send(slow, b"hello")
            assert await receive(slow, 5) == b"hello"
            assert (await world.next()).stream.peer.address == "2001:db8::7"
            check = await world.tcp()
            await send(check, header("192.0.2.7", command=0x20) + b"x")
            assert await receive(check, 1) == b"x"
            assert (await world.next()).stream.peer.address == "127.0.0.1"

    run(main())


def test_a_balancer_without_a_header_is_shut_out(run: Run) -> None:
    async def main() -> None:
        async with World(proxies=LOOPBACK) as world:
            client = await world.tcp()
            await send(client, b"GET / HTTP/1.1\r\n\r\n")
            assert await ended(client)
            assert world.listener.admission.not_proxied_headers == 1
            silent = await world.tcp()
            await send(silent, SIGNATURE)
            world.advance(31)
            assert await ended(silent)
            assert world.listener.connections == 0

    run(main())


def test_others_are_not_asked_for_one(run: Run) -> None:
    """[HUB-proxy-allow-list] What they send as one is their own first bytes."""

    async def main() -> None:
        async with World(proxies=[ip_network("192.0.2.0/24")]) as world:
            world.echo = True
            client = await world.tcp()
            sent = header("198.51.100.9")
            await send(client, sent)
            assert await receive(client, len(sent)) == sent
            assert (await world.next()).stream.peer.address == "127.0.0.1"

    run(main())
