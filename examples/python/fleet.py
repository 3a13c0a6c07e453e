"""A fleet of meters in one process, for the tutorial: each is a device that answers the method `readMeter`.

From the environment: IOTHUB_CONNECTION_STRING of a policy that may sign for devices (`methodhub connection-string
--policy device`), and IOTHUB_CA_FILE, the hub's CA certificate. The argument: how many meters there are; every tenth of
them is simulated. As in life, a few are away (every 500th), and a few never answer (those with a 250 at the end).
"""

import asyncio
import contextlib
import json
import os
import ssl
import sys
import time
from typing import Any

import uvloop

from methodhub.iothub.sas import build_token
from methodhub.wire.mqtt import packets
from methodhub.wire.mqtt.packets import ConnAck, Connect, Publish, SubAck, Subscribe

AT_ONCE = 50
"""Connections that are being made at the same time."""

PARTS = dict(part.split("=", 1) for part in os.environ["IOTHUB_CONNECTION_STRING"].strip().split(";"))
HOST = PARTS["HostName"].partition(":")[0]
EXPIRY = int(time.time()) + 86_400


class Meter(asyncio.Protocol):
    """One device: connects, subscribes to methods, and answers."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.name = f"meter-{number:05}"
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._data = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        token = build_token(
            f"{HOST}/devices/{self.name}", PARTS["SharedAccessKey"], EXPIRY, PARTS["SharedAccessKeyName"]
        )
        user = f"{HOST}/{self.name}/?api-version=2021-04-12"
        self._send(Connect(self.name, True, 0, user, token.encode(), None))

    def data_received(self, data: bytes) -> None:
        self._data += data
        while len(self._data) > 1 and (found := packets.parse_remaining_length(self._data, 1)):
            length, start = found
            if len(self._data) < start + length:
                return
            packet = packets.parse(self._data[0], self._data[start : start + length])
            self._data = self._data[start + length :]
            self._act(packet)

    def _act(self, packet: packets.Packet) -> None:
        match packet:
            case ConnAck(return_code=0):
                self._send(Subscribe(1, (("$iothub/methods/POST/#", 0),)))
            case ConnAck(return_code=code):
                self._fail(f"{self.name} was refused: CONNACK {code}")
            case SubAck():
                self.ready.set_result(None)
            case Publish(topic=topic):
                name, _, rid = topic.removeprefix("$iothub/methods/POST/").partition("/?$rid=")
                self._answer(name, rid)

    def _answer(self, name: str, rid: str) -> None:
        if self.number % 500 == 250:
            return
        status, answer = (200, {"kWh": self.number % 97}) if name == "readMeter" else (404, {"unknown": name})
        self._send(
            Publish(f"$iothub/methods/res/{status}/?$rid={rid}", json.dumps(answer).encode(), 0, False, False, None)
        )

    def _send(self, packet: packets.Packet) -> None:
        self._transport.write(packets.serialize(packet))

    def _fail(self, why: str) -> None:
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(why))

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(f"{self.name} lost its connection: {error}")


async def main(count: int) -> None:
    context = ssl.create_default_context(cafile=os.environ["IOTHUB_CA_FILE"])
    gate = asyncio.Semaphore(AT_ONCE)

    async def start(number: int) -> None:
        async with gate:
            loop = asyncio.get_running_loop()
            _, meter = await loop.create_connection(lambda: Meter(number), HOST, 8883, ssl=context)
            await meter.ready

    numbers = [number for number in range(10, count + 1, 10) if number % 500]
    await asyncio.gather(*map(start, numbers))
    print(f"{len(numbers)} meters are connected; Ctrl-C ends them", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main(int(sys.argv[1])))
