"""A device over AMQP, for an event loop that holds many: no SASL, a put-token, two links."""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Any, Self
from uuid import UUID

from methodhub.wire.amqp import frames
from methodhub.wire.amqp.codec import decode_described
from methodhub.wire.amqp.messages import AmqpValue, Message, MessageId, decode_message, encode_message
from methodhub.wire.amqp.sasl import AMQP_HEADER
from tests.amqp.peers import TOKEN_TYPE, methods_address
from tests.hub.peers import Request
from tests.verify.peers import CUT, Device
from tests.wire.amqp.peer import attach, begin, frame, open_frame, transfer, uint

PORT = 5671
CLAIMS, CLAIMED, ANSWERS, CALLS = range(1, 5)
"""Links: senders and receivers in turn."""
PLENTY = 100_000


class AmqpDevice(Device):
    async def connect(self, clean: bool = True, keep_alive: int = 0) -> Self:
        """As over MQTT; neither of the two is known here."""
        await self.open(PORT)
        self._numbers = count()
        self._settled = -1
        self._is_settled = asyncio.Condition()
        self.send_bytes(AMQP_HEADER + open_frame() + begin(0, PLENTY) + self._links(CLAIMS, "$cbs"))
        await self.reader.readexactly(len(AMQP_HEADER))
        for code in (frames.OPEN, frames.BEGIN, frames.ATTACH, frames.ATTACH):
            await self._expect(code)
        properties = {"operation": "put-token", "type": TOKEN_TYPE, "name": self.device_id}
        self._post(CLAIMS, Message(AmqpValue(self._token), 0, application_properties=properties))
        status = decode_message(await self._expect(frames.TRANSFER)).application_properties["status-code"]
        if status != 200:
            self.drop()
            raise PermissionError(f"put-token {status}")
        self.send_bytes(self._links(ANSWERS, methods_address(self.device_id)))
        await self._expect(frames.ATTACH)
        await self._expect(frames.ATTACH)
        self.reading = asyncio.create_task(self._read())
        return self

    def _links(self, first: int, address: str) -> bytes:
        credit = [uint(value) for value in (0, PLENTY, 0, PLENTY, first + 1, 0, PLENTY)]
        return (
            attach(0, first, f"link-{first}", "sender", "x", address)
            + attach(0, first + 1, f"link-{first + 1}", "receiver", address, "x")
            + frame(0, frames.FLOW, credit)
        )

    def _post(self, link: int, message: Message) -> int:
        number = next(self._numbers)
        self.send_bytes(transfer(0, link, number, encode_message(message)))
        return number

    async def _frame(self) -> tuple[int, list[Any], bytes]:
        """Code, fields and payload."""
        while True:
            size = int.from_bytes(await self.reader.readexactly(4))
            data = await self.reader.readexactly(size - 4)
            start = 4 * data[0] - 4
            if start < len(data):  # else it is a heartbeat
                code, fields, end = decode_described(data, start, len(data))
                return code, [*fields], data[end:]

    async def _expect(self, code: int) -> bytes:
        """The payload of the next frame of this kind. Raises PermissionError if the hub takes something away."""
        while True:
            found, fields, payload = await self._frame()
            if found in {frames.DETACH, frames.END, frames.CLOSE}:
                self.drop()
                raise PermissionError(f"{found:#x} {fields}")
            if found == code:
                return payload

    async def _read(self) -> None:
        try:
            while True:
                code, fields, payload = await self._frame()
                if code == frames.TRANSFER:
                    await self._called(decode_message(payload))
                elif code == frames.DISPOSITION:
                    self._settled = fields[2] if len(fields) > 2 and fields[2] is not None else fields[1]
                    async with self._is_settled:
                        self._is_settled.notify_all()
                elif code in {frames.DETACH, frames.END, frames.CLOSE}:
                    break
        except CUT:
            pass
        self.drop()

    async def _called(self, message: Message) -> None:
        name, rid = message.application_properties["IoThub-methodname"], message.correlation_id
        assert isinstance(name, str) and isinstance(message.body, bytes) and isinstance(rid, UUID)
        await self._received(Request(name, str(rid), message.body))

    def answer(self, request: Request) -> None:
        self._answer(UUID(request.rid), request.payload)

    def _answer(self, to: MessageId, body: bytes) -> int:
        return self._post(ANSWERS, Message(body, correlation_id=to, application_properties={"IoThub-status": 200}))

    async def ping(self) -> None:
        """An answer that belongs to nothing, until it is settled."""
        number = self._answer("nothing", b"")
        async with self._is_settled:
            await self._is_settled.wait_for(lambda: self._settled >= number)
