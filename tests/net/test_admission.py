"""Caps and clocks before authentication."""

from __future__ import annotations

import asyncio
import ssl

from methodhub.net.listener import PreAuthenticationLimits, SocketBudget

from .conftest import Run
from .world import Certificates, Recorder, World, ended, receive, send, soon


def test_one_clock_of_thirty_seconds_from_accept(run: Run, certificates: Certificates) -> None:
    """Silent, in the handshake, or past it and unauthenticated: the same end."""

    async def main() -> None:
        async with World(certificates.holder()) as world:
            world.authenticate = False
            silent = await world.tcp()
            half = await world.tcp()
            await send(half, b"\x16\x03\x01")
            stranger = await world.tls(certificates.client())
            protocol = await world.next()
            known = await world.tls(certificates.client())
            (await world.next()).stream.authenticated()
            assert world.listener.admission.unauthenticated == 3
            world.advance(29.8)
            await send(stranger, b"still there?")
            assert await receive(stranger, 12) == b"still there?"
            world.advance(0.4)
            await soon(protocol.lost)
            assert await ended(silent) and await ended(half)
            assert world.listener.admission.timed_out == 3
            await send(known, b"x")
            assert await receive(known, 1) == b"x"
            assert world.listener.connections == 1

    run(main())


def test_bytes_are_counted_at_the_socket(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder(), PreAuthenticationLimits(bytes=10_000)) as world:
            world.authenticate = world.echo = False
            client = await world.tls(certificates.client())
            protocol = await world.next()
            handshake = protocol.stream.received_bytes
            assert 300 < handshake < 5_000
            data = bytes(10_000 - handshake - 22)  # a record of TLS 1.3 costs 22 bytes
            await send(client, data)
            await asyncio.wait_for(protocol.got_data.wait(), 10)
            assert protocol.stream.received_bytes == 10_000
            assert not protocol.stream.is_closing()
            await send(client, b"x")
            await soon(protocol.lost)
            assert world.listener.admission.over_bytes == 1

    run(main())


def test_a_chunk_that_authenticates_is_not_cut(run: Run) -> None:
    async def main() -> None:
        async with World(limits=PreAuthenticationLimits(bytes=10)) as world:
            world.authenticate = False
            world.on_made = lambda p: setattr(p, "on_data", lambda _: p.stream.authenticated())
            client = await world.tcp()
            await send(client, bytes(5_000))
            assert len(await receive(client, 5_000)) == 5_000
            assert (await world.next()).stream.is_authenticated

    run(main())


def test_the_oldest_stranger_makes_place(run: Run) -> None:
    async def main() -> None:
        async with World(limits=PreAuthenticationLimits(sockets=3)) as world:
            world.authenticate = False
            protocols: list[Recorder] = []
            for _ in range(3):
                await world.tcp()
                protocols.append(await world.next())
            protocols[0].stream.authenticated()
            protocols[0].stream.authenticated()
            assert world.listener.admission.unauthenticated == 2
            for _ in range(3):
                await world.tcp()
                protocols.append(await world.next())
            await soon(protocols[1].lost)
            await soon(protocols[2].lost)
            assert [p.lost.done() for p in protocols] == [False, True, True, False, False, False]
            assert world.listener.admission.dropped_oldest == 2
            assert world.listener.admission.unauthenticated == 3

    run(main())


def test_a_full_process_refuses_at_once(run: Run) -> None:
    async def main() -> None:
        budget = SocketBudget(2)
        async with World(budget=budget) as world:
            first = await world.tcp()
            await world.tcp()
            protocol = await world.next()
            await world.next()
            assert await ended(await world.tcp())
            assert world.listener.admission.refused == 1
            assert world.made.empty()
            first.close()
            await soon(protocol.lost)
            again = await world.tcp()
            await send(again, b"x")
            assert await receive(again, 1) == b"x"

    run(main())


def test_a_flood_of_strangers_does_not_lock_an_honest_peer_out(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder(), PreAuthenticationLimits(sockets=20)) as world:
            for _ in range(100):
                await world.tcp()
            client = await world.tls(certificates.client(ssl.TLSVersion.TLSv1_3))
            await send(client, b"x")
            assert await receive(client, 1) == b"x"
            assert world.listener.admission.unauthenticated == 19
            assert world.listener.admission.dropped_oldest == 81

    run(main())
