"""Two hundred devices, over MQTT and AMQP in turn, that find their way back by themselves, back ends that call them
through all nodes, and one that creates devices, all the while; everything is written into the ledger."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import defaultdict
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Self

from tests.cluster.ledger import BROKEN, Call, Ledger, Life, Trouble
from tests.cluster.nodes import Cluster
from tests.harness import API_VERSION
from tests.hub.peers import Request
from tests.verify.amqp_device import AmqpDevice
from tests.verify.hub_process import HubProcess, device_body
from tests.verify.peers import CUT, Caller, Device

FAILED = (*CUT, TimeoutError, PermissionError)
"""How an attempt to connect ends that is repeated."""
ATTEMPT = 3.0
"""Seconds that a device gives an attempt to connect, and an answer to its ping."""
PING_EVERY = 2.0
RESPONSE = 5
"""Seconds: the least response timeout."""
GIVE_UP = 40.0
"""Seconds after which a call counts as one that hangs."""


class BackEnd(Caller):
    """Raises one of CUT or TimeoutError where its connection ends or cannot be made."""

    def __init__(self, node: HubProcess) -> None:
        super().__init__(node)
        self._owner = node.token("iothubowner")

    async def reach(self) -> None:
        if self.writer is not None and (self.reader.at_eof() or self.reader.exception() is not None):
            self.drop()  # while it was idle
        if self.writer is None:
            async with asyncio.timeout(ATTEMPT):
                await self.connect()

    async def put(self, path: str, body: dict[str, Any]) -> int:
        """The HTTP status."""
        data = json.dumps(body).encode()
        self.send_bytes(
            f"PUT {path}?api-version={API_VERSION} HTTP/1.1\r\nHost: {self.hub.address}\r\n"
            f"Authorization: {self._owner}\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            + data
        )
        return (await self.response())[0]


class Fleet:
    """`async with` brings all devices up; leaving ends everything that it began."""

    def __init__(self, cluster: Cluster, ledger: Ledger, devices: int = 200, callers: int = 20) -> None:
        self.cluster = cluster
        self.ledger = ledger
        self.ids = [f"d{number}" for number in range(devices)]
        self._kinds = {device_id: (Device, AmqpDevice)[number % 2] for number, device_id in enumerate(self.ids)}
        self.created: list[str] = []
        """Whose creation was acknowledged."""
        self.refused = 0
        self.usual = 0.0
        """Seconds that `back` takes when all is well."""
        self.times: list[float] = []
        self.refused_devices: dict[int, int] = defaultdict(int)
        self._callers = callers
        self._tasks: set[asyncio.Task[None]] = set()
        self._calling: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Condition()
        self._ready: set[str] = set()
        self._connected: dict[str, Device] = {}
        self._is_calling = True

    async def __aenter__(self) -> Self:
        for device_id in self.ids:
            self._start(self._be_device(device_id))
        await self.all_ready()
        for number in range(self._callers):
            self._calling.add(self._start(self._be_caller(number)))
        self._calling.add(self._start(self._be_writer()))
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        return task

    async def all_ready(self) -> None:
        async with asyncio.timeout(60), self._changed:
            await self._changed.wait_for(lambda: len(self._ready) == len(self.ids))

    def shake(self) -> None:
        """Every third device loses its connection, and looks for another node."""
        for device_id in self.ids[::3]:
            self._connected[device_id].drop()

    async def stop_calling(self) -> None:
        """Returns when each call that was begun has its outcome."""
        self._is_calling = False
        async with asyncio.timeout(2 * GIVE_UP):
            await asyncio.gather(*self._calling)

    # --- devices -------------------------------------------------------------------------------------------------

    async def _be_device(self, device_id: str) -> None:
        while True:
            number = random.randrange(len(self.cluster))
            device = self._kinds[device_id](self.cluster[number], device_id, self._called)
            try:
                async with asyncio.timeout(ATTEMPT):
                    await device.connect()
            except FAILED:
                device.drop()
                self.refused_devices[number] += 1
                await asyncio.sleep(random.uniform(0.05, 0.25))
                continue
            life = Life(number, time.monotonic())
            self.ledger.lives[device_id].append(life)
            self._connected[device_id] = device
            await self._note(device_id, True)
            try:
                await self._live(device)
            finally:
                life.until = time.monotonic()
                device.reading.cancel()
                device.drop()
            await self._note(device_id, False)
            await asyncio.sleep(random.uniform(0.0, 0.2))

    async def _live(self, device: Device) -> None:
        """Until the connection ends, or does not answer any more."""
        while not device.reading.done():
            with suppress(TimeoutError):
                async with asyncio.timeout(random.uniform(PING_EVERY / 2, PING_EVERY)):
                    await asyncio.shield(device.reading)
                    return
            pong = asyncio.create_task(device.ping())
            await asyncio.wait((pong, device.reading), timeout=ATTEMPT, return_when=asyncio.FIRST_COMPLETED)
            if not pong.done():
                pong.cancel()
                return

    async def _note(self, device_id: str, ready: bool) -> None:
        (self._ready.add if ready else self._ready.discard)(device_id)
        async with self._changed:
            self._changed.notify_all()

    def _called(self, device: Device, request: Request) -> None:
        body = json.loads(request.payload)
        self.ledger.delivered[body["number"]].append(device.device_id)
        answer = Request(request.name, request.rid, str(body["number"]).encode())
        asyncio.get_running_loop().call_later(body["wait"], device.answer, answer)

    # --- callers -------------------------------------------------------------------------------------------------

    async def _be_caller(self, position: int) -> None:
        back_ends: dict[int, BackEnd] = {}
        while self._is_calling:
            number = random.randrange(len(self.cluster))
            if position > 1 and self._is_paused(number):  # else all of them would soon hang there, and call no more
                continue
            back_end = back_ends.get(number)
            if back_end is None:
                back_end = back_ends[number] = BackEnd(self.cluster[number])
            wait = random.choice((0.0, 0.0, 0.0, 0.3, 1.5))
            await self.call(back_end, number, random.choice(self.ids), wait, random.choice((0, 0, 3)))
            await asyncio.sleep(random.uniform(0.0, 0.03))

    def _is_paused(self, number: int) -> bool:
        return any(each.node == number and each.until == float("inf") for each in self._paused())

    def _paused(self) -> list[Trouble]:
        return [each for each in self.ledger.troubles if each.kind == "paused"]

    async def call(
        self, back_end: BackEnd, node: int, device_id: str, wait: float = 0.0, connect: int = 0
    ) -> Call | None:
        """The call with its outcome; None if the node could not be reached, so that there was none."""
        try:
            await back_end.reach()
        except FAILED:
            back_end.drop()
            await asyncio.sleep(0.05)
            return None
        call = self.ledger.begin(device_id, node, RESPONSE, connect)
        try:
            async with asyncio.timeout(GIVE_UP):
                outcome = await back_end.call(device_id, {"number": call.number, "wait": wait}, RESPONSE, connect)
            self.ledger.end(call, outcome.code, outcome.value)
        except TimeoutError:
            back_end.drop()
        except asyncio.CancelledError:
            if call.code is None:
                self.ledger.end(call, BROKEN)
            raise
        return call

    # --- service is back -----------------------------------------------------------------------------------------

    async def back(self, nodes: list[int] | None = None) -> float:
        """Seconds from now until each device has answered a call through each of the nodes."""
        start = time.monotonic()
        chosen = list(range(len(self.cluster))) if nodes is None else nodes
        await asyncio.gather(*(self._probe(number, self.ids[part::4]) for number in chosen for part in range(4)))
        return time.monotonic() - start

    async def _probe(self, node: int, ids: list[str]) -> None:
        back_end = BackEnd(self.cluster[node])
        missing = list(ids)
        async with asyncio.timeout(GIVE_UP):
            while missing:
                for device_id in list(missing):
                    call = await self.call(back_end, node, device_id)
                    if call is None:
                        break
                    if call.code == 0:
                        missing.remove(device_id)
                await asyncio.sleep(0.02)
        back_end.drop()

    # --- a writer ------------------------------------------------------------------------------------------------

    async def _be_writer(self) -> None:
        number = 0
        back_ends: dict[int, BackEnd] = {}
        while self._is_calling:
            node = random.randrange(len(self.cluster))
            if self._is_paused(node):
                continue
            number += 1
            device_id = f"w{number}"
            back_end = back_ends.setdefault(node, BackEnd(self.cluster[node]))
            try:
                await back_end.reach()
                async with asyncio.timeout(GIVE_UP):
                    status = await back_end.put(f"/devices/{device_id}", device_body(device_id))
            except FAILED:
                back_end.drop()
                status = 0
            if status == 200:
                self.created.append(device_id)
            else:
                self.refused += 1
            async with self._changed:
                self._changed.notify_all()
            await asyncio.sleep(0.03)

    async def received(self, number: int, times: int) -> None:
        """Wait until devices have received the call of this number so often. Other things wake whoever waits."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.ledger.delivered[number]) >= times)

    async def more(self, *, created: int = 0, refused: int = 0) -> None:
        """Wait until so many more devices were created, or refused."""
        created += len(self.created)
        refused += self.refused
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.created) >= created and self.refused >= refused)

    def check_created(self) -> None:
        """No acknowledged write is lost: each node has all of them."""
        for node in self.cluster.nodes:
            with node.admin() as client:
                there: set[str] = set()
                while page := client.get("/admin/devices", params={"after": max(there, default="")}).json():
                    there |= {each["deviceId"] for each in page}
            lost = set(self.created) - there
            assert not lost, f"{len(lost)} of {len(self.created)} are lost: {sorted(lost)[:10]}"
