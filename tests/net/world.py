"""A listener on loopback under a manual clock, a protocol that records, and blocking clients in threads."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from methodhub.core.deadlines import Deadlines
from methodhub.net.certificates import Authority, ensure_authority, ensure_server_certificate
from methodhub.net.listener import Listener, PreAuthenticationLimits, SocketBudget
from methodhub.net.proxy import Network
from methodhub.net.stream import Stream
from methodhub.net.tls import TlsContextHolder

from ..clock import ManualClock

T = TypeVar("T")


class Certificates:
    """Made once for all tests of the session."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.authority: Authority = ensure_authority(directory, time.time())
        self.server = ensure_server_certificate(
            directory, self.authority, ["127.0.0.1", "localhost"], "p256", time.time()
        )

    def holder(self, *, request_client_certificates: bool = True) -> TlsContextHolder:
        return TlsContextHolder(
            self.server.chain_pem, self.server.key_pem, request_client_certificates=request_client_certificates
        )

    def client(self, version: ssl.TLSVersion | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if version is not None:
            context.minimum_version = context.maximum_version = version
        return context


class Recorder(asyncio.Protocol):
    """Records what it is told; echoes if asked; `on_data` may do more."""

    def __init__(self, stream: Stream, world: World) -> None:
        self.stream = stream
        self.world = world
        self.data = b""
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.paused = asyncio.Event()
        self.resumed = asyncio.Event()
        self.got_data = asyncio.Event()
        self.eof = False
        self.keep_open_at_eof = False
        self.on_data: Callable[[bytes], None] = lambda data: None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert transport is self.stream
        self.world.made.put_nowait(self)
        if self.world.authenticate:
            self.stream.authenticated()
        self.world.on_made(self)

    def data_received(self, data: bytes) -> None:
        self.data += data
        self.got_data.set()
        if self.world.echo:
            self.stream.write(data)
        self.on_data(data)

    def eof_received(self) -> bool:
        self.eof = True
        return self.keep_open_at_eof

    def pause_writing(self) -> None:
        self.paused.set()

    def resume_writing(self) -> None:
        self.resumed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


class World:
    def __init__(
        self,
        tls: TlsContextHolder | None = None,
        limits: PreAuthenticationLimits | None = None,
        budget: SocketBudget | None = None,
        proxies: Sequence[Network] = (),
    ) -> None:
        self.clock = ManualClock()
        self.deadlines = Deadlines(self.clock.monotonic())
        self.made: asyncio.Queue[Recorder] = asyncio.Queue()
        self.echo = True
        self.authenticate = True
        self.on_made: Callable[[Recorder], None] = lambda recorder: None
        self.listener = Listener(
            "test",
            lambda stream: Recorder(stream, self),
            limits=limits or PreAuthenticationLimits(),
            deadlines=self.deadlines,
            clock=self.clock,
            tls=tls,
            budget=budget,
            proxies=proxies,
        )
        self.sockets: list[socket.socket] = []

    async def __aenter__(self) -> World:
        await self.listener.bind_tcp("127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        for sock in self.sockets:
            sock.close()
        self.listener.stop_accepting()
        self.listener.abort_all()
        await asyncio.wait_for(self.listener.wait_closed(), 10)

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.deadlines.expire(self.clock.monotonic())

    async def tcp(self) -> socket.socket:
        sock = await asyncio.to_thread(socket.create_connection, self.listener.addresses[0], 10)
        self.sockets.append(sock)
        return sock

    async def tls(self, context: ssl.SSLContext, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
        raw = await self.tcp()
        wrapped = await asyncio.to_thread(
            lambda: context.wrap_socket(raw, server_hostname="127.0.0.1", session=session)
        )
        self.sockets.append(wrapped)
        return wrapped

    def raw(self, client: ssl.SSLSocket) -> socket.socket:
        """The socket below the TLS of a client."""
        raw = socket.socket(fileno=os.dup(client.fileno()))
        raw.settimeout(10)
        self.sockets.append(raw)
        return raw

    async def next(self) -> Recorder:
        return await asyncio.wait_for(self.made.get(), 10)


async def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly `size` bytes, or fewer at the end of the stream."""

    def read() -> bytes:
        data = bytearray()
        while len(data) < size and (more := sock.recv(min(size - len(data), 1 << 20))):
            data += more
        return bytes(data)

    return await asyncio.to_thread(read)


async def send(sock: socket.socket, data: bytes) -> None:
    await asyncio.to_thread(sock.sendall, data)


async def ended(sock: socket.socket) -> bool:
    """The peer has closed, in order or by a reset."""
    try:
        return await asyncio.to_thread(sock.recv, 1) == b""
    except ConnectionError:
        return True


async def soon(future: asyncio.Future[T]) -> T:
    return await asyncio.wait_for(future, 10)
