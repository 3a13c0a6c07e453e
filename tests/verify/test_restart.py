"""The hub ends under load, again and again, and comes back: no call has two outcomes, is delivered twice or hangs, and
no acknowledged write is lost."""

from __future__ import annotations

import asyncio
import random
from itertools import count
from pathlib import Path

import httpx
import pytest

from methodhub.core.errors import ErrorCode
from tests.verify.hub_process import HubProcess, device_body
from tests.verify.peers import BROKEN, CUT, Book, Caller, Device, run

pytestmark = pytest.mark.verify

DEVICES, CALLERS, WRITERS = 20, 16, 4
NEVER_DELIVERED = {int(ErrorCode.DeviceNotOnline), int(ErrorCode.ServiceUnavailable)}
ALLOWED = NEVER_DELIVERED | {
    BROKEN,
    int(ErrorCode.DeviceConnectionClosedRemotely),
    int(ErrorCode.ConnectionForcefullyClosedOnNewConnection),
    int(ErrorCode.GatewayTimeout),
}
BACK_OFF = 0.05
"""Seconds between two attempts of a peer that finds no hub."""


class Registrar:
    """Writes identities without pause and knows which states a row may be in: the last acknowledged one, or the one
    of a write whose answer never came. None: no such row."""

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub
        self.acknowledged: dict[str, str | None] = {}
        self.unknown: dict[str, set[str | None]] = {}

    async def work(self, prefix: str, stop: asyncio.Event) -> None:
        for number in count():
            if stop.is_set():
                return
            device_id = f"{prefix}-{number}"
            await self._write("PUT", device_id, None, "first")
            for version in range(3):
                await self._write("PUT", device_id, "*", f"version {version}")
            if number % 3 == 0:
                await self._write("DELETE", device_id, "*", None)

    async def _write(self, method: str, device_id: str, if_match: str | None, reason: str | None) -> None:
        body = device_body(device_id, statusReason=reason) if reason else None
        try:
            transport = httpx.AsyncHTTPTransport(verify=False, uds=str(self._hub.data_dir / "methodhub.sock"))
            async with httpx.AsyncClient(transport=transport, verify=False, base_url="http://localhost") as client:
                headers = {"If-Match": if_match} if if_match else {}
                response = await client.request(method, f"/devices/{device_id}", json=body, headers=headers)
        except httpx.HTTPError:
            self.unknown.setdefault(device_id, set()).add(reason)
            await asyncio.sleep(BACK_OFF)
            return
        if response.is_success:
            self.acknowledged[device_id] = reason
            self.unknown.pop(device_id, None)
        else:  # an update of what an unanswered write had not created, or had
            assert response.status_code in {404, 409} and device_id in self.unknown, response.text

    def check(self) -> None:
        with self._hub.admin() as client:
            for device_id in self.acknowledged.keys() | self.unknown.keys():
                found = client.get(f"/devices/{device_id}")
                state = found.json().get("statusReason") if found.status_code == 200 else None
                possible = {self.acknowledged.get(device_id)} | self.unknown.get(device_id, set())
                assert state in possible, (device_id, state, possible)


async def live(device: Device) -> None:
    """A device as the SDKs are: connected, or on its way back."""
    while True:
        try:
            await device.connect(clean=False)
            await device.reading
        except (*CUT, PermissionError):
            await asyncio.sleep(BACK_OFF)


async def keep_calling(hub: HubProcess, book: Book, seed: int, stop: asyncio.Event) -> None:
    chance = random.Random(seed)
    caller = Caller(hub)
    while not stop.is_set():
        device_id = f"d{chance.randrange(DEVICES)}"
        outcome = await book.call(caller, device_id, response=5, connect=chance.choice((0, 5)))
        if outcome.code:
            await asyncio.sleep(BACK_OFF)


async def end_under_load(hub: HubProcess, times: int, by_kill: bool) -> None:
    devices = [Device(hub, f"d{number}") for number in range(DEVICES)]
    book, registrar, stop = Book(), Registrar(hub), asyncio.Event()
    lives = [asyncio.create_task(live(device)) for device in devices]
    writes = [asyncio.create_task(registrar.work(f"written-{number}", stop)) for number in range(WRITERS)]
    calls = [asyncio.create_task(keep_calling(hub, book, seed, stop)) for seed in range(CALLERS)]
    for _ in range(times):
        await book.more_answers(500)
        if by_kill:
            await asyncio.to_thread(hub.kill)
        else:
            assert await asyncio.to_thread(hub.terminate) == 0
        await asyncio.to_thread(hub.start)
    await book.more_answers(500)
    assert not any(task.done() for task in (*lives, *calls, *writes)), "a peer failed"
    stop.set()
    await asyncio.gather(*writes, *calls)
    for task in lives:
        task.cancel()
    await asyncio.gather(*lives, return_exceptions=True)
    book.check(devices, ALLOWED, NEVER_DELIVERED)
    registrar.check()
    print(f"\n{times} x {'kill -9' if by_kill else 'SIGTERM'}: {dict(book.codes())} calls by outcome (0: answered, "
          f"-1: connection cut), {len(registrar.acknowledged)} devices written")  # fmt: skip


@pytest.mark.parametrize(("times", "by_kill"), [(5, True), (3, False)], ids=["kill", "terminate"])
def test_no_call_and_no_write_is_lost_or_doubled(tmp_path: Path, times: int, by_kill: bool) -> None:
    """[HUB-durable] [HUB-stop] [HUB-session] [HUB-rid]"""
    with HubProcess(tmp_path / "hub") as hub:
        hub.create(*(f"d{number}" for number in range(DEVICES)))
        run(end_under_load(hub, times, by_kill))
