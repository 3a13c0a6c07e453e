"""One accepted connection as a transport: bytes, flow control, an end that is told, and who the peer is. Knows no
protocol that runs over it."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol, cast

from methodhub.core.deadlines import Deadline
from methodhub.net.admission import Admission, Waiting

CLOSE_GRACE = 5.0
"""Seconds a peer gets to take what was written before the close, and to close its own side. Renewed while it takes."""

CLOSE_GRACE_AT_MOST = 30.0

Data = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True)
class Peer:
    """`address`: without a port; empty on a UNIX socket. `certificates`: DER of the chain a TLS client showed, the leaf
    first, whose key it holds; empty without one. Whether to believe it is for others to judge."""

    address: str
    certificates: tuple[bytes, ...] = ()


class ByteStream(Protocol):
    """What a protocol needs of a stream, whatever carries it. See `Stream`."""

    @property
    def peer(self) -> Peer: ...

    @property
    def is_authenticated(self) -> bool: ...

    def authenticated(self) -> None: ...

    def write(self, data: Data) -> None: ...

    def writelines(self, list_of_data: Iterable[Data]) -> None: ...

    def get_write_buffer_size(self) -> int: ...

    def is_closing(self) -> bool: ...

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class _Grace(Deadline):
    """Ends a stream whose peer does not take the last bytes, or does not close its side."""

    __slots__ = ("_left", "_stream", "_until")

    def __init__(self, stream: Stream) -> None:
        super().__init__()
        self._stream = stream
        self._left = stream.get_write_buffer_size()
        admission = stream._admission
        now = admission.clock.monotonic()
        self._until = now + CLOSE_GRACE_AT_MOST
        admission.deadlines.add(now + CLOSE_GRACE, self)

    def expired(self) -> None:
        admission = self._stream._admission
        now = admission.clock.monotonic()
        left = self._stream.get_write_buffer_size()
        if 0 < left < self._left and now < self._until:
            self._left = left
            admission.deadlines.add(now + CLOSE_GRACE, self)
        else:
            self._stream.abort()


class Stream(asyncio.Transport, asyncio.Protocol):
    """The transport that protocols are given, and the protocol of the event loop's own transport below.

    `close()` is the protocol's last word: it is told `connection_lost(None)` at once, and the stream alone sends what
    is left, says goodbye and waits for the peer's end, for a bounded time. Closing a socket with unread bytes in it
    would make the kernel send a reset, and the peer would lose the error it was just told.
    """

    __slots__ = (
        "_address",
        "_admission",
        "_closing",
        "_factory",
        "_grace",
        "_inner",
        "_peer_ended",
        "_protocol",
        "_waiting",
        "received_bytes",
    )

    def __init__(self, admission: Admission, factory: Callable[[Stream], asyncio.Protocol]) -> None:
        # Not super().__init__(): it would hang a dictionary on each connection.
        self._admission = admission
        self._factory: Callable[[Stream], asyncio.Protocol] | None = factory
        self._inner = cast(asyncio.Transport, None)
        self._protocol = cast(asyncio.Protocol, None)
        self._waiting: Waiting | None = None
        self._grace: _Grace | None = None
        self._closing = False
        self._peer_ended = False
        self._address = ""
        self.received_bytes = 0

    # What a stream knows of its peer

    @property
    def address(self) -> str:
        return self._address

    @property
    def peer(self) -> Peer:
        return Peer(self._address)

    def speaks_for(self, address: str) -> None:
        """A balancer in front told who its peer is ('': itself). Before `connection_made`."""
        self._address = address

    @property
    def is_authenticated(self) -> bool:
        return self._waiting is None

    def authenticated(self) -> None:
        """The peer proved who it is: no clock, no cap on its bytes, no place among strangers. Cheap when repeated."""
        if self._waiting is not None:
            self._admission.release(self)

    # As the protocol of the event loop's transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._inner = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        if isinstance(name, tuple) and not self._address:
            self._address = str(name[0])
        if self._admission.admit(self):
            self._open()
        else:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closing = True
        self._admission.lost(self)
        if self._grace is not None:
            self._grace.cancel_deadline()
            self._grace = None
        self._tell_lost(exc)

    def pause_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._protocol is not None:
            self._protocol.resume_writing()

    @abstractmethod
    def data_received(self, data: bytes) -> None: ...

    def eof_received(self) -> bool:
        self._peer_ended = True
        if self._closing:
            return False
        self._tell_eof()
        return True

    # As the transport of a protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast(asyncio.Protocol, protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`peername` and `sockname`; `sslcontext` is not None on TLS. `socket` is missing: it would cost memory."""
        if name in ("peername", "sockname"):
            return self._inner.get_extra_info(name, default)
        return default

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return self._inner.is_reading()

    def pause_reading(self) -> None:
        if not self._closing:
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        if not self._closing:
            self._inner.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._inner.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._inner.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Bytes that the peer has not taken."""
        return self._inner.get_write_buffer_size()

    @abstractmethod
    def write(self, data: Data) -> None: ...

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        if self._closing:
            return
        self._say_goodbye()
        self._end()

    def abort(self) -> None:
        self._closing = True
        self._inner.abort()

    # Inside

    @abstractmethod
    def _open(self) -> None:
        """The connection is admitted."""

    @abstractmethod
    def _say_goodbye(self) -> None:
        """Hand down what is left to send."""

    def _start_protocol(self) -> None:
        factory, self._factory = self._factory, None
        assert factory is not None
        self._protocol = factory(self)
        self._protocol.connection_made(self)

    def _tell_lost(self, exc: Exception | None) -> None:
        protocol, self._protocol = self._protocol, cast(asyncio.Protocol, None)
        if protocol is not None:
            protocol.connection_lost(exc)

    def _tell_eof(self) -> None:
        if not self._protocol.eof_received():
            self.close()

    def _end(self) -> None:
        """No more to send: end our side, and wait a while for the peer's."""
        self._closing = True
        inner = self._inner
        asyncio.get_running_loop().call_soon(self._tell_lost, None)
        if inner.is_closing():
            return
        self._grace = _Grace(self)
        if self._peer_ended:
            inner.close()
        else:
            inner.resume_reading()
            inner.write_eof()

    def _check_bytes(self) -> None:
        """After a chunk was fed, so that one whose head authenticates the peer is not cut."""
        if self._waiting is not None and self.received_bytes > self._admission.limits.bytes and not self._closing:
            self._admission.too_many_bytes(self)


class PlainStream(Stream):
    """TCP or a UNIX socket as it is."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        self.received_bytes += len(data)
        if self._closing:
            return
        self._protocol.data_received(data)
        if self._waiting is not None:
            self._check_bytes()

    def write(self, data: Data) -> None:
        if not self._closing:
            self._inner.write(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        if not self._closing:
            self._inner.write_eof()

    def _open(self) -> None:
        self._start_protocol()

    def _say_goodbye(self) -> None:
        pass
