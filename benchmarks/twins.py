"""Twin requests per second on one hub: devices that read and report over MQTT, back ends that read and patch over HTTP.

    python3 benchmarks/twins.py [--devices 50] [--seconds 5] [--in-memory]

Without TLS, on loopback. Each device, and each connection of a back end, has one request under way.
"""

import argparse
import asyncio
import json
import struct
import time
from collections.abc import Awaitable, Callable

import hub
import tools
from jobs import running
from subjects import Device, Running

Ask = Callable[[int], Awaitable[None]]


class Mqtt:
    """A device that knows just enough of MQTT."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: str, device: Device) -> "Mqtt":
        made = cls(*await asyncio.open_connection(*address.split(":")))
        texts = (device.device_id, device.user_name, device.password)
        await made.send(0x10, text("MQTT") + b"\x04\xc2\x00\x00" + b"".join(map(text, texts)))
        assert await made.packet() == (0x20, b"\0\0")
        await made.send(0x82, b"\0\1" + text("$iothub/twin/res/#") + b"\0")
        assert (await made.packet())[0] == 0x90
        return made

    async def send(self, kind: int, body: bytes) -> None:
        length, digits = len(body), b""
        while length or not digits:
            length, digit = divmod(length, 128)
            digits += bytes([digit | (0x80 if length else 0)])
        self._writer.write(bytes([kind]) + digits + body)
        await self._writer.drain()

    async def packet(self) -> tuple[int, bytes]:
        kind, length, shift = (await self._reader.readexactly(1))[0], 0, 0
        while True:
            digit = (await self._reader.readexactly(1))[0]
            length |= (digit & 0x7F) << shift
            shift += 7
            if digit < 0x80:
                return kind, await self._reader.readexactly(length)

    async def get(self, number: int) -> None:
        await self.send(0x30, text(f"$iothub/twin/GET/?$rid={number}"))
        assert b"/res/200/" in (await self.packet())[1]

    async def report(self, number: int) -> None:
        body = json.dumps({"temperature": number, "fw": {"v": "1.2"}}).encode()
        await self.send(0x30, text(f"$iothub/twin/PATCH/properties/reported/?$rid={number}") + body)
        assert b"/res/204/" in (await self.packet())[1]


class BackEnd:
    """One connection of a back end, which asks for the twin of one device."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str, path: str) -> None:
        self._reader, self._writer, self._token, self._path = reader, writer, token, path

    async def ask(self, verb: str, body: bytes) -> None:
        head = f"{verb} {self._path}?{hub.API} HTTP/1.1\r\nHost: {hub.HOST}\r\n{self._token}\r\n"
        self._writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        answer = await self._reader.readuntil(b"\r\n\r\n")
        assert b" 200 " in answer[:16], answer
        length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await self._reader.readexactly(length)

    async def get(self, number: int) -> None:
        await self.ask("GET", b"")

    async def patch(self, number: int) -> None:
        await self.ask("PATCH", json.dumps({"properties": {"desired": {"interval": number}}}).encode())


def text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


async def rate(asks: list[Ask], seconds: float) -> int:
    end = time.monotonic() + seconds
    counts = [0] * len(asks)

    async def one(index: int) -> None:
        while time.monotonic() < end:
            await asks[index](counts[index])
            counts[index] += 1

    await asyncio.gather(*map(one, range(len(asks))))
    return round(sum(counts) / seconds)


async def measure_all(subject: Running, seconds: float) -> None:
    devices = [await Mqtt.connect(subject.door, device) for device in subject.devices]
    token = subject.load[1]
    ends = [
        BackEnd(*await asyncio.open_connection(*subject.http.split(":")), token, f"/twins/{device.device_id}")
        for device in subject.devices
    ]
    kinds: dict[str, list[Ask]] = {
        "device reads": [each.get for each in devices],
        "device reports": [each.report for each in devices],
        "back end reads": [each.get for each in ends],
        "back end patches desired": [each.patch for each in ends],
    }
    for name, asks in kinds.items():
        print(json.dumps({name: {"per_s": await rate(asks, seconds)}}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--in-memory", action="store_true")
    given = parser.parse_args()
    with running(False, given.in_memory, given.devices) as (subject, _):
        asyncio.run(measure_all(subject, given.seconds))


if __name__ == "__main__":
    try:
        main()
    except tools.Missing as missing:
        raise SystemExit(str(missing)) from None
