"""What the connections of all device protocols do alike: events in their order, bytes out, a bound on unread ones."""

from __future__ import annotations

import asyncio
from typing import Generic, Protocol, TypeVar

from methodhub.device.sequence import Sequence
from methodhub.device.services import DeviceServices
from methodhub.net.stream import ByteStream

E = TypeVar("E")


class EventProtocol(Protocol[E]):
    """What of a pure protocol is needed here."""

    def events(self) -> list[E]: ...

    def data_to_send(self) -> bytes: ...


class EventConnection(asyncio.Protocol, Generic[E]):
    """Brings a protocol and its stream together. Subclasses handle the events, and end what does not read."""

    __slots__ = ("_pump", "_sequence", "_services", "_stream")

    def __init__(self, services: DeviceServices, stream: ByteStream, protocol: EventProtocol[E]) -> None:
        self._services = services
        self._stream = stream
        self._pump = protocol
        self._sequence: Sequence[E] = Sequence(self._handle, self._resume)

    def _handle(self, event: E) -> None:
        raise NotImplementedError

    def _end_slow_reader(self) -> None:
        raise NotImplementedError

    def _take_events(self) -> None:
        for event in self._pump.events():
            self._sequence.add(event)
        if self._sequence.is_waiting:
            self._stream.pause_reading()
        self._flush()

    def _resume(self) -> None:
        self._stream.resume_reading()
        self._flush()

    def _flush(self) -> None:
        data = self._pump.data_to_send()
        if data and not self._stream.is_closing():
            self._stream.write(data)
            if self._stream.get_write_buffer_size() > self._services.table.limits.unsent_bytes:
                self._end_slow_reader()
