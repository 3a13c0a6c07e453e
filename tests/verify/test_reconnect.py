"""Devices that drop and come back twenty times in a row: each call reaches the newest connection, once."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.connections import Attachment
from methodhub.core.identity import Target
from tests.harness import API_VERSION, PATIENCE, RunningHub
from tests.hub.peers import Device, ready_device
from tests.interop.peers import Device as SdkDevice

pytestmark = pytest.mark.verify

ROUNDS = 20


def cut(hub: RunningHub, device_id: str) -> Attachment:
    """The network between hub and device goes: neither says anything. What was cut."""

    def work() -> Attachment:
        attachment = hub.hub.table.get(Target(device_id))
        assert attachment is not None
        attachment.connection._stream.abort()  # type: ignore[attr-defined]
        return attachment

    return hub.on_loop(work)


def invoke(hub: RunningHub, device_id: str, payload: Any, connect_timeout: int = 20) -> Any:
    fields = {"payload": payload, "connectTimeoutInSeconds": connect_timeout}
    with hub.service() as client:
        response = client.post(
            f"/twins/{device_id}/methods",
            json={"methodName": "echo", **fields},
            params={"api-version": API_VERSION},
            timeout=2 * PATIENCE,
        )
    return response.json()


def test_the_python_sdk_takes_each_call_after_a_cut_once(tmp_path: Path) -> None:
    """[HUB-session] It never subscribes again: its session answers for it."""
    with (
        RunningHub(tmp_path / "hub", in_memory=False) as hub,
        SdkDevice(hub, "python", "sdk", connection_retry_interval=1) as device,
    ):
        device.is_ready()
        connections = set()
        for number in range(ROUNDS):
            connections.add(cut(hub, "sdk"))
            assert invoke(hub, "sdk", number) == {"status": 200, "payload": number}
        assert invoke(hub, "sdk", "last") == {"status": 200, "payload": "last"}
        assert [device.request().payload for _ in range(ROUNDS + 1)] == [*range(ROUNDS), "last"]
        assert len(connections) == ROUNDS


@pytest.mark.parametrize("clean", [True, False], ids=["clean session", "kept session"])
def test_a_device_takes_each_call_after_a_cut_once(tmp_path: Path, clean: bool) -> None:
    """Half of the calls wait while it is away; the other half come when it is back."""
    with RunningHub(tmp_path / "hub", in_memory=False) as hub, ThreadPoolExecutor() as pool:
        hub.create_device("d1")
        device = ready_device(hub) if clean else come_back(hub, clean, known=False)
        for number in range(ROUNDS):
            device.close()
            hub.until(lambda: hub.hub.table.get(Target("d1")) is None)
            if number % 2:
                device = come_back(hub, clean)
                call = pool.submit(invoke, hub, "d1", number)
            else:
                call = pool.submit(invoke, hub, "d1", number)
                hub.until(lambda: bool(hub.hub.methods.open))
                device = come_back(hub, clean)
            answer_one(device, number)
            assert call.result(PATIENCE) == {"status": 200, "payload": number}
            device.ping()  # nothing but the pong: the call came once
        device.close()


@pytest.mark.parametrize("clean", [True, False], ids=["clean session", "kept session"])
def test_each_newer_connection_takes_the_calls_over(tmp_path: Path, clean: bool) -> None:
    """[HUB-takeover] The older connection is open, and has an unanswered call, until the newer one pushes it out."""
    with RunningHub(tmp_path / "hub", in_memory=False) as hub, ThreadPoolExecutor() as pool:
        hub.create_device("d1")
        device = ready_device(hub) if clean else come_back(hub, clean, known=False)
        for number in range(ROUNDS):
            unanswered = pool.submit(invoke, hub, "d1", f"for the older {number}")
            old_request = device.request()
            newer = come_back(hub, clean)
            failure = json.loads(unanswered.result(PATIENCE)["Message"])
            assert failure["errorCode"] == 400027
            call = pool.submit(invoke, hub, "d1", number)
            request = newer.request()
            assert device.is_closed()  # and was sent no call
            newer.answer(old_request, b'"an answer to the older connection"')
            newer.ping()
            assert not call.done()
            newer.answer(request, request.payload)
            assert call.result(PATIENCE) == {"status": 200, "payload": number}
            device.close()
            device = newer
        device.close()


def come_back(hub: RunningHub, clean: bool, known: bool = True) -> Device:
    """Connected and subscribed, with CleanSession=0 by its session if it is known."""
    device = Device(hub, "d1")
    assert device.connect(clean) == (0 if clean or not known else 1, 0)
    if clean or not known:
        assert device.subscribe() == [0]
    return device


def answer_one(device: Device, number: int) -> None:
    request = device.request()
    assert request.payload == str(number).encode()
    device.answer(request, request.payload)
