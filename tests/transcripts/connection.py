"""A client's end of a TLS connection to the hub: a blocking socket that checks the hub's certificate, and that waits
for bytes, never for time."""

from __future__ import annotations

import json
import socket
import ssl
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol as Frames
from websockets.protocol import Side

from methodhub.core.errors import ErrorCode
from tests.harness import PATIENCE, RunningHub

HTTPS_PORT = 443
MQTT_PORT = 8883


@lru_cache
def context(ca_file: Path, tls: str = "") -> ssl.SSLContext:
    """Trusts the hub's CA and checks its name. `tls` 1.2 is Python's device SDK, which takes no other."""
    made = ssl.create_default_context(cafile=str(ca_file))
    if tls == "1.2":
        made.maximum_version = ssl.TLSVersion.TLSv1_2
    return made


class Connection:
    def __init__(self, hub: RunningHub, port: int, tls: str = "") -> None:
        raw = socket.create_connection((hub.address, port), PATIENCE)
        self._socket = context(hub.ca_file, tls).wrap_socket(raw, server_hostname=hub.address)
        self._unread = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65_536)
        except (ConnectionError, ssl.SSLEOFError):
            return b""

    def read(self, size: int) -> bytes:
        while len(self._unread) < size:
            data = self._receive()
            assert data, f"the hub closed; unread: {self._unread!r}"
            self._unread += data
        data, self._unread = self._unread[:size], self._unread[size:]
        return data

    def read_until(self, end: bytes) -> bytes:
        while end not in self._unread:
            data = self._receive()
            assert data, f"the hub closed; unread: {self._unread!r}"
            self._unread += data
        return self.read(self._unread.index(end) + len(end))

    def read_packet(self) -> bytes:
        """One whole MQTT packet."""
        data = self.read(2)
        while data[-1] & 0x80:
            data += self.read(1)
        length = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(data[1:]))
        return data + self.read(length)

    def wait_closed(self) -> None:
        """Until the hub has closed; it may not say anything before."""
        data = self._unread or self._receive()
        assert not data, f"the hub should have closed; it sent {data!r}"

    def close(self) -> None:
        """Without a word: what a broken network does."""
        self._socket.close()


class WebSocketConnection(Connection):
    """The same inside a WebSocket: each send is a message. Takes no more than Paho for Java does: whole binary
    messages and close."""

    def __init__(self, hub: RunningHub, target: str, subprotocol: str, tls: str = "") -> None:
        super().__init__(hub, HTTPS_PORT, tls)
        self._frames: Frames | None = None
        super().send(
            f"GET {target} HTTP/1.1\r\nHost: {hub.address}:443\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: {subprotocol}\r\n"
            f"Sec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        lines = self.read_until(b"\r\n\r\n").decode().split("\r\n")
        assert lines[0] == "HTTP/1.1 101 Switching Protocols"
        wanted = {f"Sec-WebSocket-Protocol: {subprotocol}", "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}
        assert wanted | {"Upgrade: websocket", "Connection: Upgrade"} <= set(lines), lines
        assert not self._unread, "Paho for Java may lose what comes in one piece with the answer"
        self._frames = Frames(Side.CLIENT)

    def send(self, data: bytes) -> None:
        super().send(Frame(Opcode.BINARY, data).serialize(mask=True))

    def _receive(self) -> bytes:
        if self._frames is None:
            return super()._receive()
        data = b""
        while not data and (raw := super()._receive()):
            self._frames.receive_data(raw)
            for frame in self._frames.events_received():
                assert isinstance(frame, Frame)
                assert frame.opcode in {Opcode.BINARY, Opcode.CLOSE} and frame.fin
                data += bytes(frame.data) if frame.opcode is Opcode.BINARY else b""
        return data


@dataclass(frozen=True, slots=True)
class Response:
    """An HTTP response as it came. Names of headers in lower case."""

    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def check_error(self, code: int) -> None:
        """It is this error in format F1: status, header and body say the same."""
        found = (self.status, self.headers.get("iothub-errorcode"), json.loads(self.json()["Message"])["errorCode"])
        assert found == (code // 1000, ErrorCode(code).name, code), f"{found}: {self.body!r}"


def read_response(connection: Connection) -> Response:
    lines = connection.read_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
    version, status, reason = lines[0].split(" ", 2)
    assert version == "HTTP/1.1"
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:-2])}
    return Response(int(status), reason, headers, connection.read(int(headers.get("content-length", "0"))))


def exchange(hub: RunningHub, request: bytes) -> Response:
    """One request on a connection of its own."""
    connection = Connection(hub, HTTPS_PORT)
    try:
        connection.send(request)
        return read_response(connection)
    finally:
        connection.close()


class Callers:
    """Back ends that call while the test goes on, each in a thread of its own."""

    def __init__(self, hub: RunningHub) -> None:
        self._hub = hub
        self._threads = ThreadPoolExecutor(max_workers=4)

    def start(self, request: bytes) -> Future[Response]:
        """Send a method call. Returns when the hub holds it open, or has answered it."""
        methods = self._hub.hub.methods
        before = len(methods.open)
        call = self._threads.submit(exchange, self._hub, request)
        self._hub.until(lambda: len(methods.open) > before or call.done())
        return call

    def close(self) -> None:
        """Waits for them: whatever they called must be gone by now."""
        self._threads.shutdown()
