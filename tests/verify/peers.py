"""Devices and callers by the thousand in one event loop, byte by byte, and the book that says what became of calls."""

from __future__ import annotations

import asyncio
import json
import resource
import ssl
import struct
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Self

import uvloop

from tests.harness import API_VERSION, PATIENCE
from tests.hub.peers import ALL_METHODS, Request, connect_packet, publish_packet, subscribe_packet
from tests.verify.hub_process import HubProcess

BROKEN = -1
"""The code of a call whose connection ended: the caller cannot know more."""

CUT = (OSError, asyncio.IncompleteReadError, ssl.SSLError)
"""How the end of a connection shows itself."""


_writers: set[asyncio.StreamWriter] = set()
"""Of all peers that were opened and not dropped."""


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's peers on the loop that holds many of them cheaply, and let go of them."""

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    async def main() -> None:
        try:
            await work
        finally:
            for writer in _writers:
                writer.transport.abort()
            _writers.clear()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.wait(others, timeout=1) if others else None
            await asyncio.sleep(0)

    uvloop.run(main())


class Peer:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter | None = None

    def __init__(self, hub: HubProcess) -> None:
        self.hub = hub

    async def open(self, port: int) -> None:
        self.drop()
        async with asyncio.timeout(PATIENCE * 2):
            self.reader, self.writer = await asyncio.open_connection(
                self.hub.address, port, ssl=self.hub.tls, limit=1 << 20, ssl_handshake_timeout=PATIENCE * 2
            )
        _writers.add(self.writer)

    def drop(self) -> None:
        """Gone without a word."""
        if self.writer is not None:
            self.writer.transport.abort()
            _writers.discard(self.writer)
            self.writer = None

    def send_bytes(self, data: bytes) -> None:
        """Lost if the connection is."""
        if self.writer is not None:
            self.writer.write(data)


class Device(Peer):
    """`on_request`: what it does with a request instead of answering it with its own payload."""

    def __init__(
        self, hub: HubProcess, device_id: str, on_request: Callable[[Device, Request], None] | None = None
    ) -> None:
        super().__init__(hub)
        self.device_id = device_id
        self.seen: list[Request] = []
        self._on_request = on_request or Device.answer
        self._token = hub.device_token(device_id)
        self._pongs: asyncio.Queue[None] = asyncio.Queue()
        self._arrived = asyncio.Condition()
        self.reading: asyncio.Task[None]

    async def connect(self, clean: bool = True, keep_alive: int = 0) -> Self:
        """Connected and subscribed. Raises one of CUT, or PermissionError for a refusal."""
        await self.open(self.hub.mqtt_port)
        user_name = self.hub.user_name(self.device_id)
        self.send_bytes(connect_packet(self.device_id, user_name, self._token, clean, keep_alive))
        kind, body = await self._packet()
        if kind != 0x20 or body[1]:
            self.drop()
            raise PermissionError(f"CONNACK {body!r}")
        if not body[0]:
            self.send_bytes(subscribe_packet(1, ALL_METHODS))
            kind, body = await self._packet()
            assert kind == 0x90, (kind, body)
        self.reading = asyncio.create_task(self._read())
        return self

    async def _packet(self) -> tuple[int, bytes]:
        first = (await self.reader.readexactly(1))[0]
        length = shift = 0
        while True:
            digit = (await self.reader.readexactly(1))[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return first, await self.reader.readexactly(length)

    async def _read(self) -> None:
        """Until the connection ends."""
        try:
            while True:
                kind, body = await self._packet()
                if kind == 0x30:
                    await self._requested(body)
                elif kind == 0xD0:
                    self._pongs.put_nowait(None)
        except CUT:
            self.drop()

    async def _requested(self, body: bytes) -> None:
        size = struct.unpack(">H", body[:2])[0]
        _, _, _, name, rid = body[2 : 2 + size].decode().split("/")
        await self._received(Request(name, rid.removeprefix("?$rid="), body[2 + size :]))

    async def _received(self, request: Request) -> None:
        self.seen.append(request)
        self._on_request(self, request)
        async with self._arrived:
            self._arrived.notify_all()

    async def has_seen(self, number: int) -> None:
        async with asyncio.timeout(PATIENCE * 2), self._arrived:
            await self._arrived.wait_for(lambda: len(self.seen) >= number)

    def answer(self, request: Request) -> None:
        self.send_bytes(publish_packet(f"$iothub/methods/res/200/?$rid={request.rid}", request.payload))

    def send_ping(self) -> None:
        self.send_bytes(b"\xc0\x00")

    async def ping(self) -> None:
        """A round trip. Raises TimeoutError if the connection is dead."""
        self.send_ping()
        async with asyncio.timeout(PATIENCE):
            await self._pongs.get()


def keep_silent(device: Device, request: Request) -> None:
    """A device that never answers."""


@dataclass
class Outcome:
    """`code`: 0 for a result, BROKEN, or the hub's number."""

    code: int
    value: Any
    seconds: float


class Caller(Peer):
    """A back end on one keep-alive connection, opened anew after it ended."""

    def __init__(self, hub: HubProcess) -> None:
        super().__init__(hub)
        self._token = hub.token()

    async def connect(self) -> Self:
        await self.open(self.hub.https_port)
        return self

    async def call(self, device_id: str, payload: Any, response: int = 30, connect: int = 0) -> Outcome:
        start = time.monotonic()
        try:
            if self.writer is None:
                await self.connect()
            self.send(device_id, payload, response, connect)
            status, body = await self.response()
        except CUT:
            self.drop()
            return Outcome(BROKEN, None, time.monotonic() - start)
        code, value = (0, body["payload"]) if status == 200 else (json.loads(body["Message"])["errorCode"], None)
        return Outcome(code, value, time.monotonic() - start)

    def send(self, device_id: str, payload: Any, response: int = 30, connect: int = 0) -> None:
        fields = {"responseTimeoutInSeconds": response, "connectTimeoutInSeconds": connect}
        body = json.dumps({"methodName": "m", "payload": payload, **fields}).encode()
        head = (
            f"POST /twins/{device_id}/methods?api-version={API_VERSION} HTTP/1.1\r\nHost: {self.hub.address}\r\n"
            f"Authorization: {self._token}\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self.send_bytes(head.encode() + body)

    async def response(self) -> tuple[int, Any]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        return int(head.split()[1]), json.loads(await self.reader.readexactly(length))


@dataclass
class Book:
    """For each call: what its caller got. The devices know what they saw."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    targets: dict[int, str] = field(default_factory=dict)
    _numbers: count[int] = field(default_factory=count)
    _more: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def call(self, caller: Caller, device_id: str, response: int, connect: int) -> Outcome:
        number = next(self._numbers)
        self.targets[number] = device_id
        outcome = await caller.call(device_id, number, response, connect)
        assert number not in self.outcomes
        self.outcomes[number] = outcome
        assert outcome.seconds < response + connect + 2, (number, outcome)
        async with self._more:
            self._more.notify_all()
        return outcome

    @property
    def answered(self) -> int:
        return sum(outcome.code == 0 for outcome in self.outcomes.values())

    async def more_answers(self, number: int) -> None:
        """Wait until so many more calls have been answered."""
        wanted = self.answered + number
        async with asyncio.timeout(3 * PATIENCE), self._more:
            await self._more.wait_for(lambda: self.answered >= wanted)

    def codes(self) -> Counter[int]:
        return Counter(outcome.code for outcome in self.outcomes.values())

    def check(self, devices: list[Device], allowed: set[int], never_delivered: set[int]) -> None:
        """No call without its one outcome, none delivered twice or to another, none answered but by its device."""
        assert self.outcomes.keys() == self.targets.keys()
        seen = Counter((int(request.payload), device.device_id) for device in devices for request in device.seen)
        assert set(seen.values()) <= {1}, "a call was delivered twice"
        assert all(self.targets[number] == device_id for number, device_id in seen), "delivered to another device"
        delivered = {number for number, _ in seen}
        for number, outcome in self.outcomes.items():
            if outcome.code == 0:
                assert outcome.value == number and number in delivered, (number, outcome)
            else:
                assert outcome.code in allowed, outcome
            if outcome.code in never_delivered:
                assert number not in delivered, (number, outcome)
