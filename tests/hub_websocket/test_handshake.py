"""The upgrade on the HTTPS port: what the SDKs send for it, what they insist on, and what is refused."""

from __future__ import annotations

import pytest

from tests.harness import RunningHub
from tests.hub.peers import Caller
from tests.hub_websocket.peers import ACCEPT, PATH, WebSocketDevice, read_head, upgrade_request

PAHO_PYTHON = upgrade_request(Host="h:443", Origin="https://h:443", Sec_WebSocket_Protocol="mqtt")
NODE = upgrade_request(Sec_WebSocket_Extensions="permessage-deflate; client_max_window_bits")
C = upgrade_request(Sec_WebSocket_Protocol="MQTT")
JAVA_MQTT = upgrade_request(f"{PATH}?iothub-no-client-cert=true")
JAVA_ABSOLUTE = upgrade_request(f"https://hub.local{PATH}?iothub-no-client-cert=true", Connection="Upgrade,Keep-Alive")
ENCODED = upgrade_request("/%24iothub/websocket/")


@pytest.mark.parametrize(
    ("request_bytes", "echo"),
    [
        (PAHO_PYTHON, "mqtt"),
        (NODE, "mqtt"),
        (C, "MQTT"),
        (JAVA_MQTT, "mqtt"),
        (JAVA_ABSOLUTE, "mqtt"),
        (ENCODED, "mqtt"),
    ],
    ids=["python", "node", "c", "java", "java-absolute", "encoded"],
)
def test_the_answer_holds_what_they_insist_on(shared: RunningHub, request_bytes: bytes, echo: str) -> None:
    """[HUB-websocket-subprotocol] Every line but the date, to the letter: paho-python wants `upgrade` on each line that
    has `connection`, others compare the status line; and nothing comes behind it."""
    shared.create_device("d1")
    try:
        with WebSocketDevice(shared, "d1", request=request_bytes) as device:
            head = [line for line in device.head if not line.startswith("Date: ")]
            assert head == [
                "HTTP/1.1 101 Switching Protocols",
                "Upgrade: websocket",
                "Connection: Upgrade",
                f"Sec-WebSocket-Accept: {ACCEPT}",
                f"Sec-WebSocket-Protocol: {echo}",
            ]
            assert device.is_quiet()
            assert device.connect() == (0, 0)
    finally:
        with shared.admin() as admin:
            admin.delete("/devices/d1")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (upgrade_request("/"), 404),
        (upgrade_request("/twins/d1/methods"), 404),
        (upgrade_request("/$iothub/websockets"), 404),
        (upgrade_request(Sec_WebSocket_Protocol="mqttv5"), 400),
        (upgrade_request(Sec_WebSocket_Protocol=None), 400),
        (upgrade_request(Sec_WebSocket_Key="bad"), 400),
        (upgrade_request(Sec_WebSocket_Version="12"), 400),
        (upgrade_request(version="1.0"), 400),
        (upgrade_request(method="POST"), 400),
        (upgrade_request(method="POST", Content_Length="4") + b"body", 400),
        (upgrade_request(Upgrade="h2c"), 426),
        (upgrade_request("/devices/d1", Upgrade="h2c"), 426),
    ],
)
def test_what_is_no_upgrade_of_ours_is_refused(shared: RunningHub, request_bytes: bytes, status: int) -> None:
    """[HUB-websocket] With a body that says why, and the connection is closed."""
    with Caller(shared, policy="") as caller:
        caller.send(request_bytes)
        answer = caller.response()
        assert (answer.status, b'{"Message":' in answer.body) == (status, True)
        assert ("upgrade" in answer.headers) == (status == 426)
        assert caller.rest() == b""


def test_a_path_without_an_upgrade_is_no_route(shared: RunningHub) -> None:
    with Caller(shared) as caller:
        assert caller.ask("GET", PATH).status == 404


def test_an_upgrade_may_follow_requests_on_the_same_connection(shared: RunningHub) -> None:
    """A reverse proxy sends on whatever connection it holds."""
    with Caller(shared) as caller:
        assert caller.ask("GET", "/health/live").status == 200
        caller.send(upgrade_request())
        assert read_head(caller)[0] == "HTTP/1.1 101 Switching Protocols"


def test_an_upgrade_behind_an_unanswered_request_ends_the_connection(shared: RunningHub) -> None:
    """Its answer would be taken for that of the earlier one."""
    shared.create_device("waits")
    with Caller(shared) as caller:
        caller.send(caller.call("waits", connectTimeoutInSeconds=30) + upgrade_request())
        assert caller.rest() == b""


def test_there_is_no_websocket_on_the_administrators_socket(shared: RunningHub) -> None:
    with shared.admin() as admin:
        headers = dict(line.split(": ", 1) for line in upgrade_request().decode().split("\r\n")[1:-2])
        assert admin.get(PATH, headers=headers).status_code == 404
