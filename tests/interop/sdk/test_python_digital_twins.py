"""Plug and play calls of the Python service SDK: its methods that reach a device's methods, and those that the hub does
not have."""

from __future__ import annotations

from typing import Any

import pytest

from tests.hub.peers import ready_device
from tests.interop.peers import Service
from tests.interop.sdk.conftest import Caller, World, refused


@pytest.fixture
def twins(python_service: Service) -> Caller:
    return Caller(python_service, "DigitalTwinClient")


@pytest.mark.parametrize("payload", [{"since": 1}, "text", ""])
@pytest.mark.parametrize(
    ("verb", "names", "method"),
    [
        ("invoke_command", ("reboot",), "reboot"),
        ("invoke_component_command", ("thermostat1", "getMaxMin"), "thermostat1*getMaxMin"),
    ],
)
def test_a_call(world: World, twins: Caller, verb: str, names: tuple[str, ...], method: str, payload: Any) -> None:
    """[HUB-digital-twins] Whatever status the device gives."""
    device_id = f"pnp-{verb}-{type(payload).__name__}-{bool(payload)}"
    world.hub.create_device(device_id)
    with ready_device(world.hub, device_id) as device:
        for answer, wanted in ((b'{"max": 3}', {"max": 3}), (b"", None)):
            number = twins.service.begin(verb, device_id, *names, payload, 5, 10, on=twins.on)
            request = device.request()
            assert request.name == method
            device.answer(request, answer, 500)
            assert twins.service.end(number) == wanted


def test_failures(world: World, twins: Caller) -> None:
    refused(twins.fails("invoke_command", "pnp-nobody", "c", {}), "DeviceNotFound", 404)
    world.hub.create_device("pnp-away")
    refused(twins.fails("invoke_command", "pnp-away", "c", {}), "DeviceNotOnline", 404)
    refused(twins.fails("invoke_component_command", "pnp-away", "c", "d", {}, 0, 301), "ArgumentInvalid", 400)


def test_what_the_hub_does_not_have(world: World, twins: Caller) -> None:
    world.hub.create_device("pnp-twin")
    refused(twins.fails("get_digital_twin", "pnp-twin"), "GenericNotFound", 404)
    refused(twins.fails("update_digital_twin", "pnp-twin", []), "GenericNotFound", 404)
