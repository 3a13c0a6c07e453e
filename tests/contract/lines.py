"""The device's end of a connection without a socket, one class per protocol: what the contract of DeviceConnection is
tested through."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import cast

from methodhub.core.access import Policies
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.identity import Identity, Target
from methodhub.core.twins.twins import Twins
from methodhub.device.mqtt import MqttConnection
from methodhub.device.services import DeviceServices
from methodhub.iothub.rest import MethodRules
from methodhub.iothub.sas import build_token
from methodhub.net.chains import verify_chain
from methodhub.net.stream import Peer, Stream
from methodhub.wire.mqtt.packets import (
    ConnAck,
    Connect,
    Packet,
    Publish,
    SubAck,
    Subscribe,
    UnsubAck,
    Unsubscribe,
    parse,
    parse_remaining_length,
    serialize,
)
from tests.rooms.world import ALL, World

HUB = "hub.local"


class FakeStream:
    """A byte stream that keeps what it is given, and tells its protocol of the end as the real one does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.peer = Peer("192.0.2.1")
        self.protocol: asyncio.Protocol
        self.written = bytearray()
        self.unsent = 0
        self.is_authenticated = False
        self.is_closed = False
        self.is_aborted = False
        self.is_reading = True

    def write(self, data: bytes) -> None:
        if not self.is_closed:
            self.written += data

    def writelines(self, parts: Iterable[bytes]) -> None:
        self.write(b"".join(parts))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        self.is_aborted = True
        self.close()

    def authenticated(self) -> None:
        self.is_authenticated = True

    def pause_reading(self) -> None:
        self.is_reading = False

    def resume_reading(self) -> None:
        self.is_reading = True

    def get_write_buffer_size(self) -> int:
        return self.unsent


def method_filters(methods: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"$iothub/methods/POST/{'' if name == ALL else name + '/'}#" for name in methods)


def line_services(world: World) -> DeviceServices:
    return DeviceServices(
        world.registry,
        Policies(frozenset({HUB})),
        world.table,
        world.hub_store,
        world.deadlines,
        world.clock,
        world.metrics,
        MethodRules(),
        CertificateAuthorities(world.hub_store, world.bus, world.clock, verify_chain),
        Twins(world.hub_store, world.registry, world.bus, world.clock),
    )


class MqttLine:
    """A device over MQTT 3.1.1: packets in, packets out."""

    def __init__(self, world: World, target: Target) -> None:
        self.stream = FakeStream(world.loop)
        self.target = target
        self.services = line_services(world)
        self.connection = MqttConnection(self.services, cast(Stream, self.stream))
        self.stream.protocol = self.connection
        self.requests: list[tuple[str, bytes]] = []
        """Method name and payload of what was received."""
        self.rids: list[str] = []
        self.answers: list[Packet] = []
        self.received: list[Packet] = []
        """Both, in their order."""
        self._packet_id = 0

    # --- what a device does --------------------------------------------------------------------------------------

    async def connect(self, identity: Identity, clean: bool = True) -> None:
        resource = f"{HUB}/devices/{self.target.device_id}"
        if self.target.module_id:
            resource += f"/modules/{self.target.module_id}"
        key = identity.authentication.keys[0]
        token = build_token(resource, key, int(self.services.clock.wall()) + 3600)
        packet = Connect(
            client_id=str(self.target),
            clean_session=clean,
            keep_alive=60,
            user_name=f"{HUB}/{self.target}/?api-version=2021-04-12",
            password=token.encode(),
            will=None,
        )
        await self.send(packet)
        assert isinstance(self.answers[-1], ConnAck)
        assert self.answers[-1].return_code == 0

    async def subscribe(self, *methods: str) -> None:
        """To these methods, or with ALL to any."""
        filters = method_filters(methods)
        before = len(self.received)
        await self.send(Subscribe(self._next_id(), tuple((each, 0) for each in filters)))
        assert isinstance(self.received[before], SubAck)

    async def unsubscribe(self, *methods: str) -> None:
        await self.send(Unsubscribe(self._next_id(), method_filters(methods)))
        assert isinstance(self.answers[-1], UnsubAck)

    async def answer(self, number: int = -1, status: str = "200", payload: bytes = b"{}") -> None:
        topic = f"$iothub/methods/res/{status}/?$rid={self.rids[number]}"
        await self.send(Publish(topic, payload, 0, False, False, None))

    async def lose(self) -> None:
        """The socket breaks."""
        self.stream.is_closed = True
        self.connection.connection_lost(ConnectionResetError())
        await self.turn()

    # --- inside --------------------------------------------------------------------------------------------------

    async def send(self, packet: Packet) -> None:
        self.connection.data_received(serialize(packet))
        await self.turn()

    async def turn(self) -> None:
        """Let the hub finish what it does with what came, and read what it says."""
        while self.connection._sequence._task is not None and not self.connection._sequence._task.cancelled():
            await asyncio.wait([self.connection._sequence._task])
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.read()

    def read(self) -> None:
        data = bytes(self.stream.written)
        position = 0
        while position < len(data):
            header = parse_remaining_length(data, position + 1)
            assert header is not None
            length, start = header
            packet = parse(data[position], data[start : start + length])
            position = start + length
            self.received.append(packet)
            if isinstance(packet, Publish):
                name, rid = packet.topic.removeprefix("$iothub/methods/POST/").split("/?$rid=")
                self.requests.append((name, packet.payload))
                self.rids.append(rid)
                assert packet.qos == 0
            else:
                self.answers.append(packet)
        self.stream.written.clear()

    def _next_id(self) -> int:
        self._packet_id += 1
        return self._packet_id
