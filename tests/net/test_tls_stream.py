"""TLS as clients see it: real sockets, Python's ssl at the other end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import ssl
import time
from pathlib import Path

import pytest
from OpenSSL import SSL

from methodhub.net.certificates import ensure_server_certificate
from methodhub.net.stream import CLOSE_GRACE, Stream
from methodhub.net.tls import MAX_INTERMEDIATES

from ..certificates import CA, Issued, authority, self_signed
from .conftest import Run
from .world import Certificates, World, ended, receive, send, soon

BOTH = pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])


@BOTH
def test_echo_of_a_megabyte(run: Run, certificates: Certificates, version: ssl.TLSVersion) -> None:
    data = random.Random(1).randbytes(1 << 20)

    async def main() -> None:
        async with World(certificates.holder()) as world:
            reader, writer = await asyncio.open_connection(
                *world.listener.addresses[0], ssl=certificates.client(version), limit=1 << 22
            )
            client = writer.get_extra_info("ssl_object")
            assert client.version() == ("TLSv1.3" if version is ssl.TLSVersion.TLSv1_3 else "TLSv1.2")
            assert client.compression() is None
            writer.write(data)
            assert await asyncio.wait_for(reader.readexactly(len(data)), 30) == data
            writer.close()
            await writer.wait_closed()
            protocol = await world.next()
            assert protocol.stream.peer.address == "127.0.0.1"
            assert protocol.stream.get_extra_info("sslcontext") is not None
            assert protocol.stream.get_extra_info("peername")[0] == "127.0.0.1"
            assert protocol.stream.received_bytes > len(data)  # at the socket, records and handshake included

    run(main())


@BOTH
def test_byte_by_byte_at_the_socket(run: Run, certificates: Certificates, version: ssl.TLSVersion) -> None:
    """Handshake and records in pieces of one byte."""

    async def main() -> None:
        async with World(certificates.holder()) as world:
            sock = await world.tcp()
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = certificates.client(version).wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

            def shake_hands() -> bool:
                client.do_handshake()
                return True

            def drive(step: object) -> object:
                while True:
                    try:
                        result = step()  # type: ignore[operator]
                    except ssl.SSLWantReadError:
                        result = None
                    for byte in outgoing.read():
                        sock.sendall(bytes([byte]))
                    if result is not None:
                        return result
                    incoming.write(sock.recv(7))

            await asyncio.to_thread(drive, shake_hands)
            await asyncio.to_thread(drive, lambda: client.write(b"hello"))
            assert await asyncio.to_thread(drive, lambda: client.read(5)) == b"hello"

    run(main())


def test_writes_of_one_delivery_share_a_record(run: Run, certificates: Certificates) -> None:
    def answer(stream: Stream) -> None:
        stream.write(b"one")
        stream.write(b"two")
        stream.close()

    async def main() -> None:
        async with World(certificates.holder()) as world:
            world.echo = False
            world.on_made = lambda p: setattr(p, "on_data", lambda _: answer(p.stream))
            client = await world.tls(certificates.client())
            await send(client, b"?")
            assert await asyncio.to_thread(client.recv, 100) == b"onetwo"
            assert await ended(client)
            assert await soon((await world.next()).lost) is None

    run(main())


def test_older_versions_and_plain_bytes_are_refused(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder()) as world:
            admission = world.listener.admission
            for number, data in enumerate(
                [b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", os.urandom(2_000), b"\x10\x20" * 50], 1
            ):
                sock = await world.tcp()
                await send(sock, data)
                sock.shutdown(socket.SHUT_WR)  # random bytes may look like the start of a long record
                await receive(sock, 1_000)  # an alert perhaps, then the end
                sock.close()
                assert admission.handshake_failures == number
            old = SSL.Context(SSL.TLS_CLIENT_METHOD)
            old.set_cipher_list(b"ALL:@SECLEVEL=0")
            old.set_min_proto_version(SSL.TLS1_1_VERSION)
            old.set_max_proto_version(SSL.TLS1_1_VERSION)
            sock = await world.tcp()
            client = SSL.Connection(old, sock)
            client.set_connect_state()
            sock.settimeout(None)
            with pytest.raises(SSL.Error):
                await asyncio.to_thread(client.do_handshake)
            client.sock_shutdown(socket.SHUT_RDWR)
            assert admission.handshake_failures == 4
            assert world.made.empty()

    run(main())


def test_hang_up_in_the_handshake(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder()) as world:
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = certificates.client().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
            with pytest.raises(ssl.SSLWantReadError):
                client.do_handshake()
            sock = await world.tcp()
            await send(sock, outgoing.read())
            await asyncio.to_thread(sock.recv, 1)  # the server is in the middle of it
            sock.close()
            await asyncio.wait_for(world.listener.wait_closed(), 10)
            assert world.listener.admission.handshake_failures == 1

    run(main())


def test_rubbish_after_the_handshake_ends_the_connection(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder()) as world:
            client = await world.tls(certificates.client())
            protocol = await world.next()
            await send(world.raw(client), b"\x17\x03\x03\x00\x20" + bytes(32))
            assert await soon(protocol.lost) is None
            assert world.listener.admission.tls_errors == 1
            with pytest.raises(ssl.SSLError, match=r"(?i)bad.record.mac"):
                await asyncio.to_thread(client.recv, 1)

    run(main())


@BOTH
def test_any_client_certificate_is_taken_and_shown(
    run: Run, certificates: Certificates, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    device = self_signed("device-1", days=(-2, -1))  # expired: also for others to judge
    path, der = device.files(tmp_path), device.der

    async def main() -> None:
        async with World(certificates.holder()) as world:
            context = certificates.client(version)
            context.load_cert_chain(*path)
            client = await world.tls(context)
            assert (await world.next()).stream.peer.certificates == (der,)
            await send(client, b"x")
            assert await receive(client, 1) == b"x"
            # No resumption: the certificate would be gone in the second connection.
            again = await world.tls(context, client.session)
            assert not again.session_reused
            assert (await world.next()).stream.peer.certificates == (der,)
            await world.tls(certificates.client(version))
            assert (await world.next()).stream.peer.certificates == ()

    run(main())


@BOTH
def test_the_whole_chain_is_shown_up_to_a_limit(
    run: Run, certificates: Certificates, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    """Whoever sends more certificates than are looked at is not held up for it; the first ones are shown."""
    top = authority()
    for depth in range(MAX_INTERMEDIATES + 2):
        device = top.issue("device-1")
        chain = device.chain
        assert len(chain) == depth + 1

        async def main(device: Issued = device, chain: tuple[bytes, ...] = chain) -> None:
            async with World(certificates.holder()) as world:
                context = certificates.client(version)
                context.load_cert_chain(*device.files(tmp_path))
                client = await world.tls(context)
                recorder = await world.next()
                assert recorder.stream.peer.certificates == chain[: MAX_INTERMEDIATES + 1]
                client.close()
                await soon(recorder.lost)
                assert recorder.stream.peer.address == "127.0.0.1"

        run(main())
        top = top.issue(f"Intermediate {depth}", CA)


@BOTH
def test_asking_for_certificates_is_switched_while_connections_live(
    run: Run, certificates: Certificates, version: ssl.TLSVersion, tmp_path: Path
) -> None:
    device = self_signed("device-1")

    async def main() -> None:
        holder = certificates.holder(request_client_certificates=False)
        async with World(holder) as world:
            context = certificates.client(version)
            context.load_cert_chain(*device.files(tmp_path))
            shown, clients = [], []
            for ask in (False, True, True, False):
                holder.ask_for_certificates(ask)
                clients.append(await world.tls(context))
                shown.append((await world.next()).stream.peer.certificates)
            assert shown == [(), (device.der,), (device.der,), ()]
            for client in clients:
                await send(client, b"x")
                assert await receive(client, 1) == b"x"
            holder.ask_for_certificates(True)
            holder.replace(certificates.server.chain_pem, certificates.server.key_pem)
            assert holder.asks_for_certificates
            await world.tls(context)
            assert (await world.next()).stream.peer.certificates == (device.der,)

    run(main())


def test_the_certificate_is_swapped_while_connections_live(
    run: Run, certificates: Certificates, tmp_path: Path
) -> None:
    async def main() -> None:
        holder = certificates.holder()
        async with World(holder) as world:
            context = certificates.client()
            before = await world.tls(context)
            new = ensure_server_certificate(tmp_path, certificates.authority, ["127.0.0.1"], "rsa", time.time())
            with pytest.raises(SSL.Error):
                holder.replace(new.chain_pem, certificates.server.key_pem)
            holder.replace(new.chain_pem, new.key_pem)
            after = await world.tls(context)
            assert before.getpeercert(binary_form=True) != after.getpeercert(binary_form=True)
            for client in (before, after):
                await send(client, b"still here")
                assert await receive(client, 10) == b"still here"

    run(main())


def test_renegotiation_is_refused(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder()) as world:
            context = SSL.Context(SSL.TLS_CLIENT_METHOD)
            context.set_max_proto_version(SSL.TLS1_2_VERSION)
            sock = await world.tcp()
            sock.settimeout(None)
            client = SSL.Connection(context, sock)
            client.set_connect_state()

            def renegotiate() -> None:
                client.do_handshake()
                client.renegotiate()
                client.do_handshake()

            with pytest.raises(SSL.Error, match="no renegotiation"):
                await asyncio.to_thread(renegotiate)

    run(main())


def test_both_sides_say_goodbye(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder()) as world:
            client = await world.tls(certificates.client())
            protocol = await world.next()
            await asyncio.to_thread(client.unwrap)  # returns once the server's close_notify is there
            await soon(protocol.lost)
            assert protocol.eof
            second = await world.tls(certificates.client())
            protocol = await world.next()
            protocol.stream.close()
            assert await soon(protocol.lost) is None
            assert await asyncio.to_thread(second.recv, 1) == b""  # no SSLEOFError: the end was said
            second.close()
            client.close()
            await asyncio.wait_for(world.listener.wait_closed(), 10)

    run(main())


def test_half_close(run: Run, certificates: Certificates) -> None:
    """A peer that has said all may still be answered, if the protocol wants so."""

    async def main() -> None:
        async with World(certificates.holder()) as world:
            world.echo = False
            client = await world.tls(certificates.client())
            protocol = await world.next()
            protocol.keep_open_at_eof = True
            finished: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            received = protocol.eof_received

            def eof_received() -> bool:
                finished.set_result(None)
                return received()

            protocol.eof_received = eof_received  # type: ignore[method-assign]
            await asyncio.to_thread(client.sendall, b"question")
            raw = world.raw(client)
            raw.shutdown(socket.SHUT_WR)
            await soon(finished)
            assert not protocol.stream.is_closing()
            protocol.stream.write(b"answer")
            protocol.stream.close()
            assert len(await receive(raw, 1_000)) > len(b"answer")  # records, up to the end

    run(main())


def test_a_peer_that_does_not_read(run: Run, certificates: Certificates) -> None:
    """The protocol is paused at the high water, and close() does not wait for ever."""

    async def main() -> None:
        async with World(certificates.holder()) as world:
            client = await world.tls(certificates.client())
            protocol = await world.next()
            stream = protocol.stream
            total = 0
            while not protocol.paused.is_set():
                stream.write(bytes(100_000))
                total += 100_000
                await asyncio.sleep(0)
            assert stream.get_write_buffer_size() > 65_536
            assert len(await receive(client, total)) == total
            await asyncio.wait_for(protocol.resumed.wait(), 10)
            assert stream.get_write_buffer_size() <= 16_384

            stream.write(bytes(30_000_000))
            assert stream.get_write_buffer_size() > 65_536
            stream.close()
            assert await soon(protocol.lost) is None
            assert world.listener.connections == 1
            world.advance(CLOSE_GRACE + 0.1)  # it took some meanwhile, perhaps: one more grace
            world.advance(CLOSE_GRACE + 0.1)
            await asyncio.wait_for(world.listener.wait_closed(), 10)

    run(main())


def test_data_after_close_is_not_delivered_and_writes_are_ignored(run: Run, certificates: Certificates) -> None:
    async def main() -> None:
        async with World(certificates.holder()) as world:
            client = await world.tls(certificates.client())
            protocol = await world.next()
            protocol.stream.close()
            protocol.stream.close()
            protocol.stream.write(b"too late")
            await send(client, b"x" * 1_000)
            assert await asyncio.to_thread(client.recv, 1) == b""
            client.close()
            await asyncio.wait_for(world.listener.wait_closed(), 10)
            assert protocol.data == b""

    run(main())


def test_an_error_told_before_close_reaches_a_peer_that_still_sends(run: Run, certificates: Certificates) -> None:
    """Closing with unread bytes would reset the connection, and the error would be lost."""

    def refuse(stream: Stream) -> None:
        stream.write(b"413 too large")
        stream.close()

    async def main() -> None:
        async with World(certificates.holder()) as world:
            world.echo = False
            world.on_made = lambda p: setattr(p, "on_data", lambda _: refuse(p.stream))
            client = await world.tls(certificates.client())
            await send(client, bytes(3_000_000))
            assert await receive(client, 100) == b"413 too large"

    run(main())
