"""The SDKs' devices and modules with certificates: of their own, and signed by a registered CA."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.identity import Target
from tests.certificates import CA, Issued, authority, self_signed
from tests.harness import RunningHub
from tests.interop.peers import Device, Language, SdkProgram, Service, device_env, service_env
from tests.x509.peers import SIGNED, add_authority, pin, put, remove_authority

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FACTORY = authority("Factory")
KINDS = ["thumbprint", "CA"]
WAYS = [
    ("python", "mqtt", "device"),
    ("python", "mqtt", "device/module"),
    ("python", "mqtt-ws", "device"),
    ("python", "mqtt-ws", "device/module"),
    ("node", "mqtt", "device"),
    ("node", "mqtt-ws", "device"),
    ("node", "amqp", "device"),
    ("node", "amqp-ws", "device"),
    # A module of the Node SDK takes no certificate: NotImplementedError.
]


def issue(hub: RunningHub, kind: str, name: str) -> Issued:
    """Create the identity, and the certificate that lets it in; that of a CA comes with an intermediate."""
    if "/" in name:
        put(hub, name.split("/", maxsplit=1)[0], {"type": "sas"})
    if kind == "thumbprint":
        issued = self_signed("anything")
        put(hub, name, pin(issued, digest="sha1"))
        return issued
    put(hub, name, SIGNED)
    add_authority(hub, "factory", FACTORY)
    return FACTORY.issue("Line 4", CA).issue(name)


def options(language: Language, issued: Issued, directory: Path) -> dict[str, Any]:
    certificate, key = issued.files(directory)
    if language == "python":
        return {"cert": certificate, "key": key}
    return {"cert": Path(certificate).read_text(), "key": Path(key).read_text()}


@contextmanager
def device_of(
    hub: RunningHub, language: Language, name: str, issued: Issued, directory: Path, transport: str = "mqtt"
) -> Iterator[Device]:
    device, _, module = name.partition("/")
    text = f"HostName={hub.address};DeviceId={device}{f';ModuleId={module}' if module else ''};x509=true"
    more = options(language, issued, directory)
    with Device(hub, language, device, module, connection_string=text, transport=transport, **more) as program:
        yield program.is_ready()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("sdk", "transport", "name"), WAYS)
def test_a_device_or_module_with_a_certificate_answers(
    hub: RunningHub, tmp_path: Path, sdk: Language, transport: str, kind: str, name: str
) -> None:
    issued = issue(hub, kind, name)
    with device_of(hub, sdk, name, issued, tmp_path, transport) as device, Service(hub, "python") as service:
        answer = service.call(device.device_id, "echo", {"a": [1, "ü"]}, module_id=device.module_id)
        assert answer == {"status": 200, "payload": {"a": [1, "ü"]}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sdk", ["python", "node"])
def test_it_reconnects_by_itself_and_answers_again(hub: RunningHub, tmp_path: Path, sdk: Language, kind: str) -> None:
    issued = issue(hub, kind, "device")
    with device_of(hub, sdk, "device", issued, tmp_path) as device:
        for _ in range(3):
            dropped = hub.hub.table.get(Target("device"))
            assert dropped is not None
            hub.on_loop(dropped.connection._stream.abort)  # type: ignore[attr-defined]
            call = {"methodName": "echo", "payload": 1, "connectTimeoutInSeconds": 30}
            hub.until(lambda dropped=dropped: hub.hub.table.get(Target("device")) is not dropped)  # type: ignore[misc]
            with hub.service() as client:
                assert client.post("/twins/device/methods", json=call).json() == {"status": 200, "payload": 1}
            device.request()


def test_a_ca_that_is_removed_lets_the_device_in_no_more(hub: RunningHub, tmp_path: Path) -> None:
    issued = issue(hub, "CA", "device")
    with device_of(hub, "python", "device", issued, tmp_path):
        remove_authority(hub, "factory")
        hub.until(lambda: hub.hub.metrics.connects_refused.get(5, 0) > 0)
        assert hub.on_loop(lambda: hub.hub.table.get(Target("device"))) is None


@pytest.mark.parametrize("kind", KINDS)
def test_python_device_of_the_how_to_with_a_certificate(hub: RunningHub, tmp_path: Path, kind: str) -> None:
    """Its statements but for how the device proves itself; its reboot takes 20 s."""
    certificate, key = issue(hub, kind, "d1").files(tmp_path)
    env = device_env(hub, "") | {
        "IOTHUB_HOSTNAME": hub.address,
        "IOTHUB_DEVICE_ID": "d1",
        "IOTHUB_CERTIFICATE_FILE": certificate,
        "IOTHUB_KEY_FILE": key,
    }
    service = service_env(hub, hub.policy_connection_string("service")) | {"IOTHUB_DEVICE_ID": "d1"}
    with SdkProgram("python", EXAMPLES / "python/device_x509", env, "-i") as device:
        hub.until(lambda: is_listening(hub, "d1"))
        with SdkProgram("python", EXAMPLES / "python/service", service) as caller:
            device.expect("Device rebooted", patience=30)
            caller.expect("{'Response': 'This is the response from the device'}")
            assert caller.wait() == 0


def is_listening(hub: RunningHub, device_id: str) -> bool:
    attachment = hub.hub.table.get(Target(device_id))
    return attachment is not None and attachment.connection.accepts("rebootDevice")
