"""The line to NATS: one connection at a time, made anew without limit. What was written on a lost one is gone, and
nothing is written between two. Knows no subject and no message of ours."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol, cast
from urllib.parse import unquote, urlsplit

import structlog

from methodhub.core.clock import Clock
from methodhub.wire.nats.protocol import (
    PING,
    PONG,
    Info,
    Message,
    NatsProtocol,
    NatsViolation,
    Refusal,
    Signal,
    connect,
)

log = structlog.get_logger()

CONNECT_TIMEOUT = 1.0
RECONNECT_WAIT = 0.25
"""Seconds between two attempts, at most."""
PING_EVERY = 0.5
SUSPECT = 0.75
"""Seconds that an answer to PING may take until nothing new is entrusted to the line."""
SILENCE = 2.0
"""Seconds that it may take until the line is given up."""
PAUSE = 1.0
"""Seconds without a turn after which this process was stopped, or starved."""
WRITE_BUFFER = 4 * 1024 * 1024
"""Bytes not yet taken by the server until nothing new is entrusted to the line."""
WRITE_BUFFER_AT_MOST = 64 * 1024 * 1024
DEFAULT_PORT = 4222
LEAST_PAYLOAD = 256 * 1024
"""Bytes of a message that a server must take: a call with its payload, or the claims of one announcement."""
REFUSED_SUBSCRIPTION = ("permissions violation for subscription", "maximum subscriptions exceeded")


class LineFailure(Exception):
    """NATS cannot be reached, or refuses us. The text names no secret."""


@dataclass(frozen=True, slots=True)
class Server:
    host: str
    port: int
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://{self.host}:{self.port}"


def servers(urls: str, tls: ssl.SSLContext | None = None) -> tuple[Server, ...]:
    """`nats://user:password@host:port`, `tls://token@host`, or several of a cluster with commas between them. `tls` is
    the context for those that begin with tls. Raises ValueError; its text names no secret."""
    found = []
    for url in urls.split(","):
        try:
            parts = urlsplit(url.strip())
            host, port = parts.hostname, parts.port or DEFAULT_PORT
        except ValueError:
            raise ValueError("the URL of NATS is malformed") from None
        if parts.scheme not in {"nats", "tls"} or not host or parts.path.strip("/") or parts.query or parts.fragment:
            raise ValueError("the URL of NATS is not like nats://user:password@host:4222, or tls://...")
        context = (tls or ssl.create_default_context()) if parts.scheme == "tls" else None
        user = unquote(parts.username) if parts.username is not None else None
        if parts.password is None:
            found.append(Server(host, port, context, token=user))
        else:
            found.append(Server(host, port, context, user, unquote(parts.password)))
    return tuple(found)


class LineOwner(Protocol):
    def line_up(self) -> None:
        """A new connection stands. What is sent now comes first on it."""
        ...

    def line_down(self) -> None:
        """The connection is gone, and with it what was on its way."""
        ...

    def line_ready(self) -> None:
        """`Line.is_ready` has become true again on a connection that stayed."""
        ...

    def line_refused(self, text: str) -> None:
        """Not all that was subscribed on this connection is."""
        ...

    def received(self, message: Message) -> None:
        """Never raises."""
        ...


class _Socket(asyncio.Protocol):
    """One connection to a server."""

    def __init__(self, line: Line) -> None:
        loop = asyncio.get_running_loop()
        self.line = line
        self.transport = cast(asyncio.Transport, None)
        self.protocol = NatsProtocol()
        self.info: asyncio.Future[Info] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.refusal = ""
        self.pings: deque[tuple[float, Callable[[], None]]] = deque()
        """When each PING that is not yet answered was sent, and whom to tell of the answer."""
        self.is_full = False
        self.is_dead = False
        self._unsent: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Sent with all that is written in this turn of the loop: a system call for each message would be the greater
        part of what a call to another node costs."""
        if not self._unsent:
            asyncio.get_running_loop().call_soon(self.flush)
        self._unsent.append(data)

    def flush(self) -> None:
        if self._unsent and not self.is_dead:
            self.transport.write(b"".join(self._unsent))
        self._unsent.clear()

    def unsent_bytes(self) -> int:
        return self.transport.get_write_buffer_size() + sum(map(len, self._unsent))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance
        self.transport.set_write_buffer_limits(high=WRITE_BUFFER)

    def data_received(self, data: bytes) -> None:
        self.line.notice_pause()
        try:
            events = self.protocol.receive_data(data)
        except NatsViolation as error:
            self.refusal = f"not NATS: {error}"
            self.abort()
            return
        for event in events:
            if self.is_dead:
                return
            if type(event) is Message:
                self.line.owner.received(event)
            elif event is Signal.PONG:
                if self.pings:
                    self.pings.popleft()[1]()
                    self.line.note_ready()
            elif event is Signal.PING:
                self.write(PONG)
            elif isinstance(event, Refusal):
                self._refused(event.text)
            elif isinstance(event, Info) and not self.info.done():
                self.info.set_result(event)

    def _refused(self, text: str) -> None:
        """Most refusals end the connection. Without the right to publish it is worth nothing; without that to
        subscribe it still takes what it may."""
        self.refusal = text
        log.warning("NATS refuses", error=text)
        if text.lower().startswith("permissions violation for publish"):
            self.abort()
        elif text.lower().startswith(REFUSED_SUBSCRIPTION):
            self.line.owner.line_refused(text)

    def ping(self, answered: Callable[[], None]) -> None:
        self.pings.append((self.line.clock.monotonic(), answered))
        self.write(PING)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        self.line.note_ready()

    def connection_lost(self, error: Exception | None) -> None:
        self._end()

    def abort(self) -> None:
        """End at once. With a reset: what the kernel still holds must not arrive when nobody counts on it any more."""
        sock = self.transport.get_extra_info("socket")
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()
        self._end()

    def _end(self) -> None:
        self.is_dead = True
        if not self.ended.done():
            self.ended.set_result(None)
            if not self.info.done():
                self.info.set_exception(LineFailure(self.refusal or "the server closed the connection"))
                self.info.exception()  # whether somebody awaits it or not
            self.line.lost(self)


class Line:
    """`is_trusted`: what is read now was written since the last PING was answered, so that whoever wrote it still
    waits for the answer. `is_ready`: the server takes what is written, as far as can be known."""

    def __init__(self, servers: tuple[Server, ...], name: str, clock: Clock, owner: LineOwner) -> None:
        self.clock = clock
        self.owner = owner
        self.is_trusted = False
        self.is_ready = False
        self.max_payload = 0
        self.failure = ""
        """Why the last attempt to connect failed; empty if it did not."""
        self._servers = servers
        self._name = name
        self._socket: _Socket | None = None
        self._last_turn = clock.monotonic()
        self._running: asyncio.Task[None] | None = None
        self._proofs = 0
        self._wait = 0.0

    @property
    def is_up(self) -> bool:
        return self._socket is not None

    def start(self) -> None:
        self._last_turn = self.clock.monotonic()
        self._running = asyncio.get_running_loop().create_task(self._keep_up())

    async def stop(self) -> None:
        """Send what is written, and close. Bounded by CONNECT_TIMEOUT."""
        current, self._socket, self.is_ready = self._socket, None, False
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        if current is not None and not current.is_dead:
            current.flush()
            current.transport.close()  # sends first what it holds
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await asyncio.shield(current.ended)
            if not current.ended.done():
                current.abort()

    def send(self, data: bytes) -> None:
        """Does nothing while the line is down."""
        current = self._socket
        if current is not None:
            current.write(data)

    def give_up(self, seconds: float) -> None:
        """Close the connection, and make none for so long."""
        self._wait = seconds
        if self._socket is not None:
            self._socket.abort()

    def ping(self, answered: Callable[[], None]) -> None:
        """Call `answered` when the server has read all that was sent before; never if the line is lost first."""
        if self._socket is not None:
            self._socket.ping(answered)

    def distrust(self) -> None:
        """[HUB-stalled] Until the server answers a PING, what is read may be older than its sender's patience."""
        self.is_trusted = False
        if self._socket is not None:
            current = self._socket
            now = self.clock.monotonic()
            current.pings = deque((now, answered) for _, answered in current.pings)
            self._prove(current)

    def _prove(self, current: _Socket) -> None:
        self._proofs += 1
        number = self._proofs

        def answered() -> None:
            self.is_trusted = number == self._proofs

        current.ping(answered)

    def notice_pause(self) -> None:
        """Whoever has a turn asks first whether the last one was too long ago: reads come before timers."""
        now = self.clock.monotonic()
        if now - self._last_turn > PAUSE:
            self._last_turn = now
            self.distrust()

    def turn(self) -> None:
        """To be called at least every PING_EVERY / 2 seconds."""
        self.notice_pause()
        now = self._last_turn = self.clock.monotonic()
        current = self._socket
        if current is None:
            return
        waits = now - current.pings[0][0] if current.pings else 0.0
        if waits > SILENCE or current.unsent_bytes() > WRITE_BUFFER_AT_MOST:
            log.warning("NATS is silent", seconds=round(waits, 1))
            current.abort()
            return
        if waits > SUSPECT or current.is_full:
            self.is_ready = False
        if not current.pings:
            current.ping(lambda: None)

    def note_ready(self) -> None:
        current = self._socket
        if current is not None and not self.is_ready and not current.is_full:
            waits = self.clock.monotonic() - current.pings[0][0] if current.pings else 0.0
            if waits <= SUSPECT:
                self.is_ready = True
                self.owner.line_ready()

    def lost(self, ended: _Socket) -> None:
        if self._socket is ended:
            self._socket = None
            self.is_ready = self.is_trusted = False
            log.warning("the bus is down", error=ended.refusal or "connection lost")
            self.failure = ended.refusal
            self.owner.line_down()

    async def _keep_up(self) -> None:
        position = 0
        while True:
            server = self._servers[position % len(self._servers)]
            position += 1
            try:
                current = await self._connect(server)
            except (OSError, TimeoutError, LineFailure) as error:
                text = str(error) or type(error).__name__
                if text != self.failure:
                    log.warning("NATS cannot be reached", server=str(server), error=text)
                self.failure = text
            except Exception as error:  # whatever it is: without the line the node is cut off for good
                log.exception("the line to NATS failed")
                self.failure = type(error).__name__
            else:
                self.failure = ""
                if not current.is_dead:
                    self._begin(current, server)
                await asyncio.shield(current.ended)
            wait, self._wait = self._wait, 0.0
            await asyncio.sleep(wait + random.uniform(RECONNECT_WAIT / 5, RECONNECT_WAIT))  # noqa: S311 - to spread nodes

    def _begin(self, current: _Socket, server: Server) -> None:
        self._socket = current
        self.max_payload = current.info.result().max_payload
        self.is_trusted = False
        self.is_ready = True
        log.info("the bus is up", server=str(server))
        self.owner.line_up()
        self._prove(current)

    async def _connect(self, server: Server) -> _Socket:
        current = _Socket(self)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await loop.create_connection(lambda: current, server.host, server.port)
                await self._greet(current, server)
        except BaseException:
            if current.transport is not None and not current.is_dead:
                current.abort()
            raise
        return current

    async def _greet(self, current: _Socket, server: Server) -> None:
        loop = asyncio.get_running_loop()
        info = await current.info
        if server.tls is not None:
            if not info.tls_required:
                raise LineFailure("the server has no TLS")
            transport = await loop.start_tls(current.transport, current, server.tls, server_hostname=server.host)
            if transport is None:
                raise LineFailure("the TLS handshake failed")
            current.connection_made(transport)
        elif info.tls_required:
            raise LineFailure("the server wants TLS: its URL begins with tls://")
        if not info.headers:
            raise LineFailure("the server is too old: it cannot tell that nobody is subscribed")
        if info.max_payload < LEAST_PAYLOAD:
            raise LineFailure(f"its max_payload is {info.max_payload} bytes; the hub needs {LEAST_PAYLOAD} or more")
        answered = asyncio.Event()
        current.write(connect(self._name, server.user, server.password, server.token))
        current.ping(answered.set)
        answer = loop.create_task(answered.wait())
        try:
            await asyncio.wait((answer, current.ended), return_when=asyncio.FIRST_COMPLETED)
        finally:
            answer.cancel()
        if current.is_dead or not answered.is_set():
            raise LineFailure(current.refusal or "the server closed the connection")
