"""The two peers of a hub, byte by byte: a back end on a raw HTTPS socket and a device on a raw MQTT one. Blocking, with
a patience; whoever waits for an end of the connection gets it or fails."""

from __future__ import annotations

import json
import socket
import ssl
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any, Self

from tests.harness import API_VERSION, PATIENCE, RunningHub

NO_CHECK_TIME = 0x200000
"""OpenSSL's flag: a manual clock may be days away from this machine's."""

ALL_METHODS = "$iothub/methods/POST/#"


@cache
def tls_context(ca_pem: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca_pem)
    context.verify_flags |= NO_CHECK_TIME
    return context


class Peer:
    """One TLS connection to a port of the hub."""

    def __init__(self, hub: RunningHub, port: int, tls: bool = True) -> None:
        self.hub = hub
        raw = socket.create_connection((hub.address, port), PATIENCE)
        self.socket = tls_context(hub.ca_file.read_text()).wrap_socket(raw, server_hostname=hub.address) if tls else raw
        self.socket.settimeout(PATIENCE)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    close = __exit__

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def _more(self) -> bool:
        try:
            data = self.socket.recv(65_536)
        except (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError):
            data = b""
        self._buffer += data
        return bool(data)

    def read(self, count: int) -> bytes:
        """So many bytes, or fewer if the connection ends before."""
        while len(self._buffer) < count and self._more():
            pass
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def read_line(self) -> bytes:
        while b"\r\n" not in self._buffer and self._more():
            pass
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def rest(self) -> bytes:
        """All that comes until the hub ends the connection."""
        while self._more():
            pass
        data, self._buffer = self._buffer, b""
        return data

    def is_quiet(self) -> bool:
        """Nothing is there to read: neither bytes nor the end. Asked after something that the hub did later."""
        self.socket.settimeout(0.0)
        try:
            return not self._buffer and not self.socket.recv(1)
        except (BlockingIOError, ssl.SSLWantReadError):
            return True
        finally:
            self.socket.settimeout(PATIENCE)


# --- HTTP --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Response:
    status: int
    reason: str
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> int:
        """The error code of either format; 0 where there is none."""
        message = json.loads(self.body)["Message"]
        if message.startswith("{"):
            return int(json.loads(message)["errorCode"])
        return 0


class Caller(Peer):
    """A back end. `policy`: whose token it shows; empty for none."""

    def __init__(self, hub: RunningHub, policy: str = "iothubowner") -> None:
        assert hub.facts.https_port
        super().__init__(hub, hub.facts.https_port)
        self.token = hub.token(policy, 30 * 86_400) if policy else ""

    def request(self, method: str, path: str, body: bytes | None = None, version: str = "1.1", **headers: str) -> bytes:
        """The bytes of a request; underscores in header names are hyphens."""
        if "api-version" not in path:
            path += ("&" if "?" in path else "?") + f"api-version={API_VERSION}"
        lines = {"Host": self.hub.address, "Authorization": self.token}
        if body is not None:
            lines["Content-Length"] = str(len(body))
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value)
        return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode("latin-1") + (body or b"")

    def call(self, target: str, name: str = "m", payload: Any = None, **fields: Any) -> bytes:
        body = json.dumps({"methodName": name, "payload": payload, **fields}).encode()
        return self.request("POST", f"/twins/{target}/methods", body)

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Response:
        """A whole exchange; `body` is bytes, or else becomes JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        self.send(self.request(method, path, body, **headers))
        return self.response(bodiless=method == "HEAD")

    def invoke(self, target: str, name: str = "m", payload: Any = None, **fields: Any) -> Response:
        self.send(self.call(target, name, payload, **fields))
        return self.response()

    def response(self, bodiless: bool = False) -> Response:
        status_line = self.read_line().decode()
        assert status_line, "the hub closed the connection without an answer"
        _, status, reason = status_line.split(" ", 2)
        headers: dict[str, str] = {}
        while line := self.read_line().decode("latin-1"):
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        assert "transfer-encoding" not in headers
        length = 0 if bodiless or status in {"100", "204"} else int(headers["content-length"])
        body = self.read(length)
        assert len(body) == length
        return Response(int(status), reason, headers, body)


# --- MQTT --------------------------------------------------------------------------------------------------------


def packet(first_byte: int, body: bytes) -> bytes:
    length, encoded = len(body), b""
    while True:
        length, digit = divmod(length, 128)
        encoded += bytes([digit | (0x80 if length else 0)])
        if not length:
            return bytes([first_byte]) + encoded + body


def text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">H", len(data)) + data


def connect_packet(
    client_id: str, user_name: str | None, password: str | None, clean: bool, keep_alive: int = 0, level: int = 4
) -> bytes:
    flags = (2 if clean else 0) | (0x80 if user_name is not None else 0) | (0x40 if password is not None else 0)
    body = text("MQTT") + bytes([level, flags]) + struct.pack(">H", keep_alive) + text(client_id)
    return packet(0x10, body + b"".join(text(value) for value in (user_name, password) if value is not None))


def subscribe_packet(packet_id: int, *filters: str, qos: int = 0) -> bytes:
    return packet(0x82, struct.pack(">H", packet_id) + b"".join(text(name) + bytes([qos]) for name in filters))


def publish_packet(topic: str | bytes, payload: bytes = b"", qos: int = 0, packet_id: int = 1) -> bytes:
    return packet(0x30 | qos << 1, text(topic) + (struct.pack(">H", packet_id) if qos else b"") + payload)


@dataclass(frozen=True)
class Request:
    name: str
    rid: str
    payload: bytes


class Device(Peer):
    """A device or module. `user_name`, `client_id`, `token` default to what is right for it."""

    def __init__(self, hub: RunningHub, device_id: str, module_id: str = "", token: str | None = None) -> None:
        assert hub.facts.mqtt_port
        super().__init__(hub, hub.facts.mqtt_port)
        self.name(device_id, module_id, token)

    def name(self, device_id: str, module_id: str, token: str | None = None) -> None:
        """Who it says it is, and with what."""
        hub = self.hub
        self.client_id = f"{device_id}/{module_id}" if module_id else device_id
        self.user_name = f"{hub.address}/{self.client_id}/?api-version=2021-04-12"
        self.token = hub.device_token(device_id, module_id) if token is None else token
        self._packet_id = 0

    def hello(self, clean: bool = True, keep_alive: int = 0) -> bytes:
        return connect_packet(self.client_id, self.user_name, self.token, clean, keep_alive)

    def connect(self, clean: bool = True, keep_alive: int = 0) -> tuple[int, int]:
        """Session present and return code of CONNACK."""
        self.send(self.hello(clean, keep_alive))
        return self.connack()

    def connack(self) -> tuple[int, int]:
        kind, body = self.packet()
        assert kind == 0x20, (kind, body)
        return body[0], body[1]

    def subscribe(self, *filters: str, qos: int = 0) -> list[int]:
        self._packet_id += 1
        self.send(subscribe_packet(self._packet_id, *(filters or (ALL_METHODS,)), qos=qos))
        kind, body = self.packet()
        assert kind == 0x90 and body[:2] == struct.pack(">H", self._packet_id), (kind, body)
        return list(body[2:])

    def packet(self) -> tuple[int, bytes]:
        """First byte and body of the next packet; (0, b"") if the hub ended the connection."""
        first = self.read(1)
        if not first:
            return 0, b""
        length = shift = 0
        while True:
            digit = self.read(1)[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return first[0], self.read(length)

    def is_closed(self) -> bool:
        """The hub ends the connection, and says nothing before."""
        return self.rest() == b""

    def request(self) -> Request:
        kind, body = self.packet()
        assert kind == 0x30, (kind, body)
        size = struct.unpack(">H", body[:2])[0]
        parts = body[2 : 2 + size].decode().split("/")
        assert parts[:3] == ["$iothub", "methods", "POST"] and parts[4].startswith("?$rid="), parts
        return Request(parts[3], parts[4].removeprefix("?$rid="), body[2 + size :])

    def answer(self, request: Request, payload: bytes = b"{}", status: str | int = 200) -> None:
        self.send(publish_packet(f"$iothub/methods/res/{status}/?$rid={request.rid}", payload))

    def ping(self) -> None:
        """A round trip: the hub has read all that was sent before."""
        self.send(b"\xc0\x00")
        assert self.packet() == (0xD0, b"")


def ready_device(hub: RunningHub, device_id: str = "d1", module_id: str = "") -> Device:
    """Connected and subscribed to all methods; the identity must exist."""
    device = Device(hub, device_id, module_id)
    assert device.connect() == (0, 0)
    assert device.subscribe() == [0]
    return device
