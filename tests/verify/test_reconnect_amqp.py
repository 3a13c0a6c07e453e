"""Devices over AMQP that drop, or are pushed out, twenty times in a row: each call meets the newest one, once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from methodhub.core.identity import Target
from tests.amqp.peers import AmqpDevice
from tests.harness import PATIENCE, RunningHub
from tests.hub.peers import Device, ready_device
from tests.verify.test_reconnect import ROUNDS, invoke

pytestmark = pytest.mark.verify


def answer_one(device: AmqpDevice, number: int) -> None:
    request = device.methods.request()
    assert request.payload == str(number).encode()
    device.methods.answer(request, request.payload)


def test_a_device_takes_each_call_after_a_cut_once(tmp_path: Path) -> None:
    """Half of the calls wait while it is away; the other half come when it is back."""
    with RunningHub(tmp_path / "hub") as hub, ThreadPoolExecutor() as pool:
        hub.create_device("d1")
        device = AmqpDevice(hub)
        for number in range(ROUNDS):
            device.close()
            hub.until(lambda: hub.hub.table.get(Target("d1")) is None)
            if number % 2:
                device = AmqpDevice(hub)
                call = pool.submit(invoke, hub, "d1", number)
            else:
                call = pool.submit(invoke, hub, "d1", number)
                hub.until(lambda: bool(hub.hub.methods.open))
                device = AmqpDevice(hub)
            answer_one(device, number)
            assert call.result(PATIENCE) == {"status": 200, "payload": number}
            device.round_trip()  # nothing but its settlement: the call came once
        device.close()


def test_each_newer_connection_takes_the_calls_over_whatever_it_speaks(tmp_path: Path) -> None:
    """[HUB-takeover] AMQP, MQTT, AMQP: an answer of the older connection meets no call of the newer."""
    with RunningHub(tmp_path / "hub") as hub, ThreadPoolExecutor() as pool:
        hub.create_device("d1")
        older: AmqpDevice | Device = ready_device(hub)
        for number in range(ROUNDS):
            newer = AmqpDevice(hub) if isinstance(older, Device) else ready_device(hub)
            call = pool.submit(invoke, hub, "d1", number)
            if isinstance(newer, Device):
                request = newer.request()
                newer.answer(request, request.payload)
            else:
                answer_one(newer, number)
            assert call.result(PATIENCE) == {"status": 200, "payload": number}
            if isinstance(older, Device):
                assert older.is_closed()  # and was sent no call
            else:
                closed = older.ended()
                assert closed is not None and closed.condition == "amqp:link:stolen"
                assert older.methods.receiver.count == 1
            older.close()
            older = newer
        older.close()
