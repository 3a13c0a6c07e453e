"""Devices that come back: after a dropped connection, a restart of the hub, the renewal of a token; and one behind a
gateway name. The Python SDK never subscribes again: it lives on the session that the hub keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from methodhub.core.connections import Attachment
from methodhub.core.identity import Target
from methodhub.core.ports import CloseReason
from tests.harness import RunningHub, new_address
from tests.interop.peers import Device, Language, Service

BOTH: list[Language] = ["python", "node"]


def attachment(hub: RunningHub, device_id: str = "d1") -> Attachment | None:
    return hub.hub.table.get(Target(device_id))


def call(hub: RunningHub, payload: Any) -> Any:
    """Called as soon as the device is there and takes methods."""
    body = {"methodName": "echo", "payload": payload, "connectTimeoutInSeconds": 30}
    with hub.service() as client:
        client.timeout = 60
        return client.post("/twins/d1/methods", json=body).json()


@pytest.mark.parametrize("language", BOTH)
def test_a_device_comes_back_after_its_connection_dropped(hub: RunningHub, language: Language) -> None:
    with Device(hub, language, "d1") as device:
        device.is_ready()
        before = attachment(hub)
        assert before is not None
        hub.on_loop(before.connection._stream.abort)  # type: ignore[attr-defined]
        assert call(hub, "back") == {"status": 200, "payload": "back"}
        assert attachment(hub) is not before


@pytest.mark.parametrize("transport", ["mqtt", "mqtt-ws", "amqp", "amqp-ws"])
def test_a_device_of_node_comes_back_at_once_when_its_node_stops(hub: RunningHub, transport: str) -> None:
    """[HUB-drain]"""
    with Device(hub, "node", "d1", transport=transport) as device:
        device.is_ready()
        hub.on_loop(lambda: hub.hub.table.close_all(CloseReason.STOPPING))
        body = {"methodName": "echo", "payload": 1, "connectTimeoutInSeconds": 5, "responseTimeoutInSeconds": 5}
        with hub.service() as client:
            assert client.post("/twins/d1/methods", json=body).json() == {"status": 200, "payload": 1}


@pytest.mark.parametrize("language", BOTH)
def test_a_device_survives_a_restart_of_the_hub(tmp_path: Path, language: Language) -> None:
    """[HUB-session] On the same data directory: the restarted hub knows what the device had subscribed to."""
    address = new_address()
    options: dict[str, Any] = {"connection_retry_interval": 1} if language == "python" else {}
    with RunningHub(tmp_path / "hub", address=address, in_memory=False) as hub:
        device = Device(hub, language, "d1", **options)
        try:
            device.is_ready()
        except BaseException:
            device.__exit__()
            raise
    with device, RunningHub(tmp_path / "hub", address=address, in_memory=False) as hub:
        assert call(hub, "restarted") == {"status": 200, "payload": "restarted"}
        with Service(hub, language) as service:
            assert service.call("d1", "echo", "again") == {"status": 200, "payload": "again"}


RENEWAL: dict[Language, dict[str, Any]] = {
    # The SDK renews 120 s before the end.
    "python": {"sastoken_ttl": 123},
    "node": {"tokenRenewal": {"tokenValidTimeInSeconds": 123, "tokenRenewalMarginInSeconds": 120}},
}


@pytest.mark.parametrize("language", BOTH)
def test_a_device_renews_its_token_and_takes_calls_on(hub: RunningHub, language: Language) -> None:
    with Device(hub, language, "d1", **RENEWAL[language]) as device:
        device.is_ready()
        before = attachment(hub)
        assert before is not None
        hub.until(lambda: attachment(hub) not in {before, None})
        assert call(hub, "renewed") == {"status": 200, "payload": "renewed"}


@pytest.mark.parametrize("language", BOTH)
def test_an_application_that_sets_only_gateway_host_name_works(tmp_path: Path, language: Language) -> None:
    """It keeps the HostName of production: in its user name and in the resource of its token."""
    address = new_address()
    names = ("myhub.azure-devices.net", address)
    with RunningHub(tmp_path / "hub", address=address, hostname=names) as hub:
        hub.create_device("d1")
        text = hub.device_connection_string("d1").replace(f"HostName={address}", f"HostName={names[0]}")
        text += f";GatewayHostName={address}"
        with Device(hub, language, "d1", connection_string=text) as device:
            device.is_ready()
            assert call(hub, "through the gateway") == {"status": 200, "payload": "through the gateway"}
