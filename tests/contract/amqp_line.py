"""A device over AMQP 1.0 without a socket: frames in, frames out."""

from __future__ import annotations

import asyncio
from typing import Any, cast
from urllib.parse import quote

from methodhub.core.identity import Identity, Target
from methodhub.device.amqp import AmqpConnection
from methodhub.device.amqp_target import AmqpTarget
from methodhub.iothub.sas import build_token
from methodhub.net.stream import Stream
from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import decode_described
from methodhub.wire.amqp.messages import AmqpValue, Message, MessageId, decode_message, encode_message
from methodhub.wire.amqp.sasl import AMQP_HEADER
from tests.contract.lines import HUB, FakeStream, line_services
from tests.rooms.world import World
from tests.wire.amqp.peer import attach, begin, code_of, detach, flow, open_frame, split, transfer

CBS_OUT, CBS_IN, EVENTS, ANSWERS, REQUESTS = range(5)
"""Handles."""


class AmqpLine:
    """Takes all methods or none: AMQP knows no others."""

    def __init__(self, world: World, target: Target) -> None:
        self.stream = FakeStream(world.loop)
        self.target = target
        self.services = line_services(world)
        self.carrier = AmqpConnection(self.services, cast(Stream, self.stream))
        self.stream.protocol = self.carrier
        self.connection: AmqpTarget
        """The target's, from `connect` on."""
        self.requests: list[tuple[str, bytes]] = []
        """Method name and payload of what was received."""
        self.rids: list[MessageId | None] = []
        self.frames: list[tuple[int, Any]] = []
        """Code and fields of everything that was received."""
        self._path = f"devices/{quote(target.device_id, safe='')}"
        if target.module_id:
            self._path += f"/modules/{quote(target.module_id, safe='')}"
        self._deliveries = 0

    # --- what a device does --------------------------------------------------------------------------------------

    async def connect(self, identity: Identity, clean: bool = True) -> None:
        """Its token, and a link that takes no calls."""
        assert clean, "AMQP has no sessions that outlive a connection"
        resource = f"{HUB}/{self._path}"
        token = build_token(resource, identity.authentication.keys[0], int(self.services.clock.wall()) + 3600)
        properties = {"operation": "put-token", "type": "servicebus.windows.net:sastoken", "name": resource}
        await self.send(
            AMQP_HEADER
            + open_frame()
            + begin(0)
            + attach(0, CBS_OUT, "out", "sender", None, "$cbs")
            + attach(0, CBS_IN, "in", "receiver", "$cbs", None)
            + flow(0, CBS_IN, 10)
        )
        await self._post(CBS_OUT, Message(AmqpValue(token), "1", application_properties=properties))
        await self.send(attach(0, EVENTS, "events", "sender", None, f"/{self._path}/messages/events"))
        self.connection = self.carrier._targets[self.target]

    async def subscribe(self, *methods: str) -> None:
        address = f"amqps://{HUB}/{self._path}/methods/deviceBound"
        await self.send(attach(0, ANSWERS, "answers", "sender", None, address))
        await self.send(attach(0, REQUESTS, "requests", "receiver", address, None) + flow(0, REQUESTS, 1_000))

    async def unsubscribe(self, *methods: str) -> None:
        await self.send(detach(0, ANSWERS) + detach(0, REQUESTS))

    async def answer(self, number: int = -1, status: str = "200", payload: bytes = b"{}") -> None:
        value = int(status) if status.lstrip("-").isdigit() else status
        properties = {"IoThub-status": value}
        rid = self.rids[number]
        await self._post(ANSWERS, Message(payload, correlation_id=rid, application_properties=properties))

    async def lose(self) -> None:
        """The socket breaks."""
        self.stream.is_closed = True
        self.carrier.connection_lost(ConnectionResetError())
        await self.turn()

    # --- inside --------------------------------------------------------------------------------------------------

    async def _post(self, handle: int, message: Message) -> None:
        data = transfer(0, handle, self._deliveries, encode_message(message))
        self._deliveries += 1
        await self.send(data)

    async def send(self, data: bytes) -> None:
        self.carrier.data_received(data)
        await self.turn()

    async def turn(self) -> None:
        """Let the hub finish what it does with what came, and read what it says."""
        while (task := self.carrier._sequence._task) is not None and not task.cancelled():
            await asyncio.wait([task])
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.read()

    def read(self) -> None:
        for part in split(bytes(self.stream.written)):
            if code_of(part):
                code, fields, end = decode_described(part, 8, len(part))
                self.frames.append((code, fields))
                message = decode_message(part[end:]) if code == frames.TRANSFER else Message()
                if "IoThub-methodname" in message.application_properties:
                    assert isinstance(message.body, bytes)
                    self.requests.append((str(message.application_properties["IoThub-methodname"]), message.body))
                    self.rids.append(message.correlation_id)
        self.stream.written.clear()
