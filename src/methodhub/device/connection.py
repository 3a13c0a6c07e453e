"""What the connections of all device protocols do alike: events in their order, bytes out, a bound on unread ones."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Generic, Protocol, TypeVar

import structlog

from methodhub.core.ports import StoreUnavailable
from methodhub.device.sequence import Sequence
from methodhub.device.services import DeviceServices
from methodhub.net.stream import ByteStream

log = structlog.get_logger()

E = TypeVar("E")

GOODBYE = "it said goodbye"
LOST = "the connection was lost"
"""Why a connection ended that the hub did not end."""


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
        self._sequence: Sequence[E] = Sequence(self._handle, self._resume, self._fail)

    def _handle(self, event: E) -> None:
        raise NotImplementedError

    def _end(self, reason: str | None = None) -> None:
        """Nothing is open any more, and no further event is handled. `reason`: why, where it is not told yet."""
        raise NotImplementedError

    def _fail(self) -> None:
        """An error that the hub did not expect is told to its log; the peer may come again."""
        log.exception("device connection failed", peer=self._stream.peer.address)
        self._end()
        self._stream.abort()

    async def _guarded(self, step: Awaitable[None]) -> None:
        try:
            await step
        except StoreUnavailable as error:
            log.warning("device connection closed", reason="the store is away", error=str(error))
            self._end()
            self._stream.close()
        except Exception:  # noqa: BLE001
            self._fail()

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
