"""A device that speaks MQTT inside a WebSocket, byte by byte: the peers of `tests/hub`, one layer further in."""

from __future__ import annotations

import base64
import hashlib

from websockets.frames import Close, Frame, Opcode
from websockets.protocol import Protocol as Frames
from websockets.protocol import Side

from tests.harness import RunningHub
from tests.hub.peers import Device, Peer

KEY = base64.b64encode(b"sixteen bytes!!!").decode()
ACCEPT = base64.b64encode(hashlib.sha1(f"{KEY}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()).decode()
PATH = "/$iothub/websocket"


def upgrade_request(target: str = PATH, version: str = "1.1", method: str = "GET", **headers: str | None) -> bytes:
    """Underscores in names are hyphens; None leaves a header out."""
    lines: dict[str, str | None] = {
        "Host": "hub.local",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Protocol": "mqtt",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value is not None)
    return f"{method} {target} HTTP/{version}\r\n{head}\r\n".encode()


def masked(opcode: Opcode, data: bytes = b"", fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def read_head(peer: Peer) -> list[str]:
    """The lines of a response's head, as they came."""
    lines = []
    while line := peer.read_line().decode():
        lines.append(line)
    return lines


class WebSocketDevice(Device):
    """`pipelined`: sent right behind the request, which no client of the SDKs does."""

    def __init__(
        self,
        hub: RunningHub,
        device_id: str,
        module_id: str = "",
        request: bytes | None = None,
        pipelined: bytes = b"",
    ) -> None:
        assert hub.facts.https_port
        Peer.__init__(self, hub, hub.facts.https_port)
        self.name(device_id, module_id)
        self.frames = Frames(Side.CLIENT)
        self.closed_with: int | None = None
        self.pongs: list[bytes] = []
        self._behind_head = False
        Peer.send(self, (request or upgrade_request()) + pipelined)
        self.head = read_head(self)
        assert self.head[0] == "HTTP/1.1 101 Switching Protocols", [*self.head, self.rest().decode()]
        self._behind_head = True
        early, self._buffer = self._buffer, b""
        self._unwrap(early)

    def raw_send(self, data: bytes) -> None:
        Peer.send(self, data)

    def send(self, data: bytes) -> None:
        self.raw_send(masked(Opcode.BINARY, data))

    def _more(self) -> bool:
        if not self._behind_head:
            return super()._more()
        kept, self._buffer = self._buffer, b""
        more = super()._more()
        raw, self._buffer = self._buffer, kept
        self._unwrap(raw)
        return more

    def _unwrap(self, raw: bytes) -> None:
        self.frames.receive_data(raw)
        assert self.frames.parser_exc is None
        for frame in self.frames.events_received():
            assert isinstance(frame, Frame)
            data = bytes(frame.data)
            if frame.opcode is Opcode.CLOSE:
                self.closed_with = Close.parse(data).code
            elif frame.opcode is Opcode.PONG:
                self.pongs.append(data)
            else:
                assert frame.opcode is Opcode.BINARY and frame.fin, "Paho for Java takes nothing else"
                self._buffer += data


def ready_device(hub: RunningHub, device_id: str, module_id: str = "") -> WebSocketDevice:
    device = WebSocketDevice(hub, device_id, module_id)
    assert device.connect() == (0, 0)
    assert device.subscribe() == [0]
    return device
