"""Every transport of the device SDKs beyond MQTT over TCP: calls from both service SDKs, and devices that come back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.connections import Attachment
from methodhub.core.identity import Target
from methodhub.net.websocket import WebSocketStream
from tests.harness import RunningHub
from tests.interop.conftest import Pool
from tests.interop.peers import Device, Language, Transport

PAIRS: list[tuple[Language, Transport]] = [
    ("python", "mqtt-ws"),
    ("node", "mqtt-ws"),
    ("node", "amqp"),
    ("node", "amqp-ws"),
]

ROUNDS = 20


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def pair(request: pytest.FixtureRequest) -> tuple[Language, Transport]:
    chosen: tuple[Language, Transport] = request.param
    return chosen


def attachment(hub: RunningHub, device: Device) -> Attachment | None:
    return hub.hub.table.get(Target(device.device_id, device.module_id))


def stream_of(found: Attachment) -> Any:
    """Of whatever carries it; over AMQP an identity is one of those on a connection."""
    connection: Any = found.connection
    return getattr(connection, "_connection", connection)._stream


@pytest.fixture(scope="module")
def callees(pool: Pool, pair: tuple[Language, Transport]) -> Iterator[tuple[Device, Device]]:
    """A device and a module of that same device, with a connection each."""
    language, transport = pair
    name = f"{language}-{transport}"
    with ExitStack() as stack:
        device = stack.enter_context(Device(pool.hub, language, name, transport=transport))
        pool.hub.create_module(name, "m1")
        text = pool.hub.device_connection_string(name, "m1")
        module = stack.enter_context(
            Device(pool.hub, language, name, "m1", connection_string=text, transport=transport)
        )
        both = device.is_ready(), module.is_ready()
        for callee in both:
            found = attachment(pool.hub, callee)
            assert found is not None
            assert isinstance(stream_of(found), WebSocketStream) == transport.endswith("ws")
        yield both


def test_devices_and_modules_take_calls_from_both_sdks(
    pool: Pool, callees: tuple[Device, Device], language: Language
) -> None:
    service = pool.service(language)
    for callee in callees:
        for payload in ({"to": callee.module_id}, "", [1, {"ключ": "🚀"}], "x" * 100_000):
            answer = service.call(callee.device_id, "echo", payload, module_id=callee.module_id)
            assert answer == {"status": 200, "payload": payload}
            assert callee.request().payload == payload


def test_calls_overlap(pool: Pool, callees: tuple[Device, Device], language: Language) -> None:
    callee, service = callees[0], pool.service(language)
    numbers = [service.begin_call(callee.device_id, "hold", index) for index in range(5)]
    requests = [callee.request() for _ in numbers]
    for request in reversed(requests):
        callee.answer(request.rid, 200, {"for": request.payload})
    assert [service.end(number)["payload"] for number in numbers] == [{"for": index} for index in range(5)]


def test_it_comes_back_after_its_connection_dropped(
    pool: Pool, callees: tuple[Device, Device], language: Language
) -> None:
    """Each call reaches the new connection, once."""
    for callee in callees:
        for number in range(ROUNDS):
            before = attachment(pool.hub, callee)
            assert before is not None
            pool.hub.on_loop(stream_of(before).abort)
            more: dict[str, Any] = {"module_id": callee.module_id, "connect_timeout": 30}
            answer = pool.service(language).call(callee.device_id, "echo", number, **more)
            assert answer == {"status": 200, "payload": number}
            assert callee.request().payload == number
            assert attachment(pool.hub, callee) is not before


RENEWAL: dict[Language, dict[str, Any]] = {
    # The SDK renews 120 s before the end.
    "python": {"sastoken_ttl": 123},
    "node": {"tokenRenewal": {"tokenValidTimeInSeconds": 123, "tokenRenewalMarginInSeconds": 120}},
}


def test_it_renews_its_token_and_takes_calls_on(tmp_path: Path, pair: tuple[Language, Transport]) -> None:
    language, transport = pair
    with (
        RunningHub(tmp_path / "hub") as hub,
        Device(hub, language, "d1", transport=transport, **RENEWAL[language]) as device,
    ):
        device.is_ready()
        before = attachment(hub, device)
        assert before is not None
        if transport.startswith("amqp"):  # on the same links
            grants = before.connection._connection._grants  # type: ignore[attr-defined]
            expiry = grants.next_expiry()
            hub.until(lambda: grants.next_expiry() > expiry)
            assert attachment(hub, device) is before
        else:
            hub.until(lambda: attachment(hub, device) not in {before, None})
        call = {"methodName": "echo", "payload": "renewed", "connectTimeoutInSeconds": 30}
        with hub.service() as client:
            client.timeout = 60
            assert client.post("/twins/d1/methods", json=call).json() == {"status": 200, "payload": "renewed"}


def test_it_says_goodbye(tmp_path: Path, pair: tuple[Language, Transport]) -> None:
    """A program that ends takes its device offline."""
    language, transport = pair
    with RunningHub(tmp_path / "hub") as hub:
        with Device(hub, language, "d1", transport=transport) as device:
            device.is_ready()
        hub.until(lambda: attachment(hub, device) is None)
