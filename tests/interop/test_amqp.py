"""AMQP beside the device SDKs: a back end that opens it, and two AMQP libraries that do what no SDK does."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from proton import Connection, Event, Message, Sender, SSLDomain
from proton.handlers import MessagingHandler
from proton.reactor import Container

from tests.harness import PATIENCE, RunningHub
from tests.interop.conftest import Pool
from tests.interop.peers import PROGRAMS, Failure, SdkProgram


@pytest.mark.parametrize("transport", ["amqp", "amqp-ws"])
@pytest.mark.parametrize("policy", ["iothubowner", "service"])
def test_the_service_sdk_opens_and_calls(pool: Pool, transport: str, policy: str) -> None:
    """Its links attach; what it sends to a device is rejected, and told why."""
    device, service = pool.device("node"), pool.service("node")
    more: dict[str, Any] = {"transport": transport, "connection": pool.hub.policy_connection_string(policy)}
    assert service.ask("open", **more) is None
    assert service.ask("feedback", **more) is None
    assert service.call(device.device_id, "echo", "opened", **more) == {"status": 200, "payload": "opened"}
    device.request()
    failure = service.ask("send", device.device_id, "hello", **more)
    assert isinstance(failure, Failure)
    assert failure.type == "NotImplementedError"
    assert service.ask("close", **more) is None


@pytest.mark.parametrize("transport", ["amqp", "amqp-ws"])
def test_a_wrong_key_does_not_open(pool: Pool, transport: str) -> None:
    service = pool.service("node")
    text = pool.hub.policy_connection_string().split(";SharedAccessKey=")[0] + ";SharedAccessKey=d3Jvbmc="
    failure = service.ask("open", transport=transport, connection=text)
    assert isinstance(failure, Failure)
    assert failure.message == "AMQP Transport: Could not connect"


# --- rhea --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["text", "pieces", "data"])
@pytest.mark.parametrize("start", ["plain", "cbs"])
def test_a_device_on_rhea(pool: Pool, start: str, shape: str) -> None:
    """Sessions apart, one credit at a time, small frames, ids as text in capitals, a status of 64 bits, bodies that
    are text or come in pieces."""
    hub, name = pool.hub, f"rhea-{start}-{shape}"
    hub.create_device(name)
    options = {"host": hub.address, "device": name, "token": hub.device_token(name), "shape": shape}
    if start == "plain":
        options["user"] = f"{name}@sas.hub"
    env = {"IOTHUB_CA_FILE": str(hub.ca_file), "DEVICE_OPTIONS": json.dumps(options)}
    with SdkProgram("node", PROGRAMS / "rhea", env) as device, hub.service() as client:
        device.expect("ready")
        for payload in ({"a": [1, "ü"]}, "x" * 20_000, None, 0):
            call = {"methodName": "echo", "payload": payload, "connectTimeoutInSeconds": 20}
            response = client.post(f"/twins/{name}/methods", json=call)
            assert response.json() == {"status": 201, "payload": payload}
            device.expect("request echo")
            device.expect("settled")


# --- Proton ------------------------------------------------------------------------------------------------------


class ProtonDevice(MessagingHandler):
    """A device on Proton's own container: it echoes calls, and settles what it gets when it has answered."""

    def __init__(self, hub: RunningHub, name: str) -> None:
        super().__init__(prefetch=3, auto_accept=False)
        self.hub, self.name = hub, name
        self.address = f"amqps://{hub.address}:5671/devices/{name}/methods/deviceBound"
        self.ready = threading.Event()
        self.sender: Sender
        self.connection: Connection

    def on_start(self, event: Event) -> None:
        trust = SSLDomain(SSLDomain.MODE_CLIENT)
        trust.set_trusted_ca_db(str(self.hub.ca_file))
        trust.set_peer_authentication(SSLDomain.VERIFY_PEER)
        self.connection = event.container.connect(
            f"amqps://{self.hub.address}:5671",
            ssl_domain=trust,
            user=f"{self.name}@sas.hub",
            password=self.hub.device_token(self.name),
            allowed_mechs="PLAIN",
            reconnect=False,
            heartbeat=10,
        )
        self.sender = event.container.create_sender(self.connection, self.address)
        event.container.create_receiver(self.connection, self.address)

    def on_link_opened(self, event: Event) -> None:
        if event.receiver is not None:
            self.ready.set()

    def on_message(self, event: Event) -> None:
        message = event.message
        properties = {"IoThub-status": 200}
        answer = Message(message.body, inferred=True, correlation_id=message.correlation_id, properties=properties)
        self.sender.send(answer)
        assert event.delivery is not None
        self.accept(event.delivery)


def test_a_device_on_proton(pool: Pool) -> None:
    """SASL PLAIN by the library's own implementation, its windows and heartbeats."""
    hub = pool.hub
    hub.create_device("proton")
    device = ProtonDevice(hub, "proton")
    container = Container(device)
    thread = threading.Thread(target=container.run, daemon=True)
    thread.start()
    assert device.ready.wait(PATIENCE)
    with hub.service() as client:
        for number in range(200):
            payload = {"n": number, "filling": "x" * (number * 100)}
            call = {"methodName": "echo", "payload": payload, "connectTimeoutInSeconds": 20}
            assert client.post("/twins/proton/methods", json=call).json() == {"status": 200, "payload": payload}
    with hub.admin() as client:
        client.delete("/devices/proton", headers={"If-Match": "*"}).raise_for_status()
    thread.join(PATIENCE)  # it was told that it is gone, and ended
    assert not thread.is_alive()
