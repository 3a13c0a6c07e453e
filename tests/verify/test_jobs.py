"""The hub is killed in the middle of jobs over a thousand connected devices, again and again: each device ends with
exactly one recorded outcome, and none was called twice."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.verify.hub_process import HubProcess, fill
from tests.verify.peers import CUT, Device, run

pytestmark = pytest.mark.verify

DEVICES, JOBS, KILLS = 1_000, 3, 3
PART = DEVICES // (KILLS + 1)
AT_ONCE = 50
BACK_OFF = 0.05
"""Seconds between two attempts of a device that finds no hub."""

ENDED = {"completed", "failed", "cancelled"}


class JobBook:
    """A back end through the hub's socket."""

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub

    def create(self, job_id: str, work: dict[str, Any]) -> None:
        body = work | {"jobId": job_id, "queryCondition": "*", "maxExecutionTimeInSeconds": 300}
        with self._hub.admin() as client:
            client.put(f"/jobs/v2/{job_id}", json=body).raise_for_status()

    def has_ended(self, job_id: str) -> bool:
        """Its counts add up whenever it is looked at."""
        with self._hub.admin() as client:
            job = client.get(f"/jobs/v2/{job_id}").raise_for_status().json()
        counts = job["deviceJobStatistics"]
        parts = ("succeededCount", "failedCount", "runningCount", "pendingCount")
        assert counts["deviceCount"] == sum(counts[part] for part in parts), counts
        return job["status"] in ENDED

    def counts(self, job_id: str) -> dict[str, int]:
        with self._hub.admin() as client:
            counts: dict[str, int] = client.get(f"/jobs/v2/{job_id}").json()["deviceJobStatistics"]
        return counts

    def devices(self, job_id: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        headers = {"x-ms-max-item-count": "1000"}
        with self._hub.admin() as client:
            while True:
                query = {"query": f"SELECT * FROM devices.jobs WHERE jobId = '{job_id}'"}
                answer = client.post("/devices/query", json=query, headers=headers).raise_for_status()
                for each in answer.json():
                    assert each["deviceId"] not in found
                    found[each["deviceId"]] = each
                if "x-ms-continuation" not in answer.headers:
                    return found
                headers["x-ms-continuation"] = answer.headers["x-ms-continuation"]


class Fleet:
    """Devices that answer after a moment, and reconnect as long as they may."""

    def __init__(self, hub: HubProcess, ids: list[str]) -> None:
        self.devices = [Device(hub, device_id, self._later) for device_id in ids]
        self.seen = 0
        self.more = asyncio.Event()
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._random = random.Random(7)

    def _later(self, device: Device, request: Any) -> None:
        self.seen += 1
        self.more.set()
        asyncio.get_running_loop().call_later(self._random.uniform(0.001, 0.05), device.answer, request)

    async def stay(self, device: Device) -> None:
        """Connected, again and again."""
        while True:
            try:
                async with self._slots:
                    await device.connect()
            except CUT:
                await asyncio.sleep(BACK_OFF)
                continue
            await device.reading

    async def has_seen(self, total: int) -> None:
        """Wait until so many calls have come."""
        async with asyncio.timeout(60):
            while self.seen < total:
                self.more.clear()
                await self.more.wait()

    def calls(self, payload: bytes) -> Counter[str]:
        return Counter(
            device.device_id for device in self.devices for request in device.seen if request.payload == payload
        )


def test_each_device_of_a_job_has_one_outcome_whenever_the_hub_is_killed(tmp_path: Path) -> None:
    """[HUB-job-once]"""
    ids = [f"d{number:04}" for number in range(DEVICES)]
    fill(tmp_path / "data", ids)
    chance = random.Random(11)

    async def work() -> None:
        with HubProcess(tmp_path / "data", "--set", "job_concurrency=60") as hub:
            fleet, book = Fleet(hub, ids), JobBook(hub)
            staying = [asyncio.create_task(fleet.stay(device)) for device in fleet.devices]
            await hub.until(lambda: hub.metric("connected_targets") == DEVICES)
            for number in range(JOBS):
                job_id, payload = f"job-{number}", f'"{number}"'.encode()
                method = {"methodName": "m", "payload": str(number)}
                before = fleet.seen
                book.create(job_id, {"cloudToDeviceMethod": method})
                for kill in range(KILLS):
                    await fleet.has_seen(before + kill * PART + chance.randrange(1, PART))
                    hub.kill()
                    hub.start()
                await hub.until(lambda job_id=job_id: book.has_ended(job_id))  # type: ignore[misc]
                check(book, job_id, fleet.calls(payload))
            for task in staying:
                task.cancel()

    run(work())


def check(book: JobBook, job_id: str, calls: Counter[str]) -> None:
    found, counts = book.devices(job_id), book.counts(job_id)
    assert counts["deviceCount"] == len(found) == DEVICES
    statuses = Counter(each["status"] for each in found.values())
    assert statuses == {"completed": counts["succeededCount"], "failed": counts["failedCount"]}
    assert set(calls.values()) == {1}, "a device was called twice"
    for device_id, each in found.items():
        if each["status"] == "completed":
            assert calls[device_id] == 1
        else:
            assert each["error"]["code"] == "DeviceConnectionClosedRemotely"
    # What was at risk at each kill: the calls in flight, and the answers of a moment that were not written yet.
    assert 0 < counts["failedCount"] <= KILLS * 200


def test_a_twins_job_reaches_each_device_whenever_the_hub_is_killed(tmp_path: Path) -> None:
    ids = [f"d{number:04}" for number in range(DEVICES)]
    fill(tmp_path / "data", ids)

    async def work() -> None:
        with HubProcess(tmp_path / "data") as hub:
            book = JobBook(hub)
            book.create("twins", {"updateTwin": {"etag": "*", "tags": {"wave": 1}}})
            for _ in range(KILLS):
                await hub.until(lambda: book.counts("twins")["deviceCount"] > 0)
                hub.kill()
                hub.start()
            await hub.until(lambda: book.has_ended("twins"))
            assert book.counts("twins")["succeededCount"] == DEVICES
            with hub.admin() as client:
                query = {"query": "SELECT COUNT() AS n FROM devices WHERE tags.wave = 1"}
                assert client.post("/devices/query", json=query).json() == [{"n": DEVICES}]

    run(work())
