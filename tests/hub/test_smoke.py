"""The hub as a whole, in a few strokes."""

from __future__ import annotations

from tests.harness import RunningHub


def test_a_call_to_a_device_that_is_not_connected_is_404103(hub: RunningHub) -> None:
    hub.create_device("d1")
    with hub.service() as client:
        response = client.post("/twins/d1/methods", json={"methodName": "reboot"})
    assert response.status_code == 404
    assert response.headers["iothub-errorcode"] == "DeviceNotOnline"


def test_ready_means_ready(hub: RunningHub) -> None:
    with hub.service() as client:
        assert client.get("/health/ready").status_code == 200
