"""kill -9 in the middle of bulk requests: each of them is there as a whole, twins included, or not at all."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from tests.verify.hub_process import HubProcess

ITEMS = 100
CALLERS = 3


def ids(number: int) -> list[str]:
    return [f"batch-{number:04}-{index:03}" for index in range(ITEMS)]


def test_a_kill_leaves_nothing_half(tmp_path: Path) -> None:
    """[HUB-bulk] And what was answered stays."""
    acknowledged: list[int] = []
    enough = threading.Event()

    def create(caller: int) -> None:
        with hub.admin() as client:
            for number in range(caller, 1_000, CALLERS):
                items = [{"id": each, "tags": {"batch": number}} for each in ids(number)]
                try:
                    client.post("/devices", json=items).raise_for_status()
                except httpx.TransportError:
                    return
                acknowledged.append(number)
                if len(acknowledged) >= 12:
                    enough.set()

    with HubProcess(tmp_path / "hub", "--https-port", "0", "--mqtt-port", "0", "--amqp-port", "0") as hub:
        with ThreadPoolExecutor(CALLERS) as pool:
            callers = [pool.submit(create, caller) for caller in range(CALLERS)]
            assert enough.wait(60)
            hub.kill()
            for caller in callers:
                caller.result()
        hub.start()
        with hub.admin() as client:
            found: list[str] = []
            while page := client.get(
                "/admin/devices", params={"after": found[-1] if found else "", "limit": "1000"}
            ).json():
                found += [device["deviceId"] for device in page]
            there = {int(each.split("-")[1]) for each in found}
            assert there >= set(acknowledged)
            assert len(acknowledged) >= 12
            assert found == [each for number in sorted(there) for each in ids(number)]
            for number in there:
                for each in (ids(number)[0], ids(number)[-1]):
                    assert client.get(f"/twins/{each}").json()["tags"] == {"batch": number}
