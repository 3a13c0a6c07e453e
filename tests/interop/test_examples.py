"""The programs of `examples/`, run as they stand. The Python ones are those of the how-to of the original, whose device
takes 20 s to reboot: two of these tests take that long."""

from __future__ import annotations

from pathlib import Path

from methodhub.core.identity import Target
from tests.harness import RunningHub
from tests.interop.peers import SdkProgram, device_env, service_env

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SLEEP = 20.0


def is_listening(hub: RunningHub, device_id: str) -> bool:
    attachment = hub.hub.table.get(Target(device_id))
    return attachment is not None and attachment.connection.accepts("rebootDevice")


def how_to_device(hub: RunningHub) -> SdkProgram:
    """With -i, since the how-to's program ends once its handler is attached."""
    env = device_env(hub, hub.device_connection_string("d1"))
    return SdkProgram("python", EXAMPLES / "python/device", env, "-i")


def test_python_device_and_service_of_the_how_to(hub: RunningHub) -> None:
    hub.create_device("d1")
    device = how_to_device(hub)
    env = service_env(hub, hub.policy_connection_string("service")) | {"IOTHUB_DEVICE_ID": "d1"}
    with device:
        hub.until(lambda: is_listening(hub, "d1"))
        with SdkProgram("python", EXAMPLES / "python/service", env) as service:
            device.expect("Rebooting device")
            device.expect("Device rebooted", patience=SLEEP + 10)
            service.expect("Successfully invoked the device to reboot.")
            service.expect("{'Response': 'This is the response from the device'}")
            assert service.wait() == 0


def test_python_service_of_the_how_to_prints_the_failure(hub: RunningHub) -> None:
    hub.create_device("d1")
    env = service_env(hub, hub.policy_connection_string("service")) | {"IOTHUB_DEVICE_ID": "d1"}
    with SdkProgram("python", EXAMPLES / "python/service", env) as service:
        service.expect("Unexpected error Operation returned an invalid status code 'Not Found'")
        assert service.wait() == 0


def test_node_device_and_service(hub: RunningHub) -> None:
    hub.create_device("d1")
    device = SdkProgram("node", EXAMPLES / "node/device", device_env(hub, hub.device_connection_string("d1")))
    env = service_env(hub, hub.policy_connection_string("service")) | {"IOTHUB_DEVICE_ID": "d1"}
    with device, SdkProgram("node", EXAMPLES / "node/service", env) as service:
        device.expect('Rebooting device, told {"method_number":"42"}')
        device.expect("Device rebooted")
        service.expect('{"status":200,"payload":{"Response":"This is the response from the device"}}')
        assert service.wait() == 0


def test_an_old_answer_of_the_how_to_device_settles_no_newer_call(hub: RunningHub) -> None:
    """[HUB-rid] Its connection drops while its handler sleeps, a new call follows, then the old answer comes."""
    hub.create_device("d1")
    device = how_to_device(hub)
    env = service_env(hub, hub.policy_connection_string("service")) | {"IOTHUB_DEVICE_ID": "d1"}
    with device:
        hub.until(lambda: is_listening(hub, "d1"))
        dropped = hub.hub.table.get(Target("d1"))
        with SdkProgram("python", EXAMPLES / "python/service", env) as first:
            device.expect("Rebooting device")
            drop(hub, "d1")
            first.expect("Unexpected error Operation returned an invalid status code 'Not Found'")
        hub.until(lambda: hub.hub.table.get(Target("d1")) is not dropped and is_listening(hub, "d1"))
        with SdkProgram("python", EXAMPLES / "python/service", env) as second:
            device.expect("Rebooting device")
            device.expect("Device rebooted", patience=SLEEP + 10)
            hub.until(lambda: hub.hub.metrics.late_answers == 1)
            assert hub.on_loop(lambda: len(hub.hub.methods.open)) == 1, "the old answer ended the new call"
            device.expect("Device rebooted", patience=SLEEP + 10)
            second.expect("{'Response': 'This is the response from the device'}")
            assert second.wait() == 0
    assert hub.hub.metrics.late_answers == 1


def drop(hub: RunningHub, device_id: str) -> None:
    """Cut the device's connection, as a network does."""
    attachment = hub.hub.table.get(Target(device_id))
    assert attachment is not None
    hub.on_loop(attachment.connection._stream.abort)  # type: ignore[attr-defined]
