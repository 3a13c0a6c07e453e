"""A WebSocket as one more byte stream: frames off and on, message boundaries forgotten. Knows no protocol that runs
over it (`wire/device.md` 2, 4)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import structlog
from websockets.datastructures import Headers
from websockets.exceptions import NegotiationError
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request, Response
from websockets.protocol import Protocol as Frames
from websockets.protocol import Side, State
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from methodhub.net.stream import ByteStream, Data, Peer

log = structlog.get_logger()

MAX_MESSAGE = 1_048_576
"""Bytes of one message of the peer: more than any packet or frame of what runs over it."""

MAX_UNSENT = 262_144
"""Bytes that the peer has not taken, above which it gets no pongs: it asks for what it does not read."""

Factory = Callable[[ByteStream], asyncio.Protocol]
"""Makes the protocol above. It has its stream from then on: `connection_made` is not called."""

_quiet = logging.getLogger("websockets")
_quiet.setLevel(logging.ERROR)


def answer_handshake(path: str, headers: Iterable[tuple[str, str]], known: Iterable[str]) -> tuple[Response, str]:
    """Of a GET: 101 and the chosen subprotocol, or the status of its refusal. `known`: in lower case.

    [HUB-websocket-subprotocol] Compared in any case and echoed as it was sent, since some insist on that; extensions
    are never taken, so nothing is compressed.
    """
    names = frozenset(known)

    def select(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol:
        for name in offered:
            if name.lower() in names:
                return name
        raise NegotiationError("it offers none of the subprotocols " + ", ".join(sorted(names)))

    protocol = ServerProtocol(select_subprotocol=select, logger=_quiet)
    response = protocol.accept(Request(path, Headers(headers)))
    return response, protocol.subprotocol or ""


class WebSocketStream(asyncio.Protocol):
    """The server's side of one WebSocket over another stream, which keeps its peer: clock, caps and facts.

    Every write is one unfragmented binary message, and no pings are sent: some peers end the connection at anything
    else. [HUB-websocket-end] What is wrong ends it: one of them does not mask its close, which ends it as well.
    """

    __slots__ = ("_frames", "_protocol", "_stream")

    def __init__(self, stream: ByteStream, factory: Factory) -> None:
        self._stream = stream
        self._frames = Frames(Side.SERVER, max_size=MAX_MESSAGE, logger=_quiet)
        self._protocol = factory(self)

    # --- as the protocol of the stream below ---------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        frames = self._frames
        if frames.state is not State.OPEN:
            return
        frames.receive_data(data)
        for frame in frames.events_received():
            if self._stream.is_closing():
                return
            if isinstance(frame, Frame):
                self._take(frame)
        if frames.parser_exc is not None:
            self._log_end(str(frames.parser_exc))
        self._flush()

    def _take(self, frame: Frame) -> None:
        if frame.opcode in (Opcode.BINARY, Opcode.CONT):
            if frame.data:
                self._protocol.data_received(bytes(frame.data))
        elif frame.opcode is Opcode.TEXT:
            self._log_end("it sent text")
            self._end(CloseCode.UNSUPPORTED_DATA)
        elif frame.opcode is Opcode.PING and self._stream.get_write_buffer_size() > MAX_UNSENT:
            self._log_end("it sends pings and does not read the pongs")
            self._stream.abort()

    def _log_end(self, reason: str) -> None:
        log.info("websocket broken", reason=reason, peer=self._stream.peer.address)

    def connection_lost(self, exc: Exception | None) -> None:
        protocol, self._protocol = self._protocol, cast(asyncio.Protocol, None)
        self._frames.parser.close()  # it refers to itself, and would stay until the collector comes
        protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        self._protocol.pause_writing()

    def resume_writing(self) -> None:
        self._protocol.resume_writing()

    # --- as the stream of the protocol above ---------------------------------------------------------------------

    @property
    def peer(self) -> Peer:
        return self._stream.peer

    @property
    def is_authenticated(self) -> bool:
        return self._stream.is_authenticated

    def authenticated(self) -> None:
        self._stream.authenticated()

    def write(self, data: Data) -> None:
        if data and self._frames.state is State.OPEN and not self._stream.is_closing():
            self._frames.send_binary(data)
            self._flush()

    def writelines(self, list_of_data: Iterable[Data]) -> None:
        self.write(b"".join(list_of_data))

    def get_write_buffer_size(self) -> int:
        return self._stream.get_write_buffer_size()

    def is_closing(self) -> bool:
        return self._stream.is_closing()

    def pause_reading(self) -> None:
        self._stream.pause_reading()

    def resume_reading(self) -> None:
        self._stream.resume_reading()

    def close(self) -> None:
        if not self._stream.is_closing():
            self._end(CloseCode.NORMAL_CLOSURE)

    def abort(self) -> None:
        self._stream.abort()

    # --- inside --------------------------------------------------------------------------------------------------

    def _end(self, code: CloseCode) -> None:
        """Say so, unless the peer did, and close."""
        self._frames.fail(code)
        self._flush()

    def _flush(self) -> None:
        for data in self._frames.data_to_send():
            if data:
                self._stream.write(data)
            else:
                self._stream.close()
