"""Calls that succeed: every pairing of the SDKs, devices and modules, every shape of payload, every answer."""

from __future__ import annotations

from typing import Any

import pytest

from tests.interop.conftest import Pool
from tests.interop.peers import ABSENT, Failure, Language

LIMIT = 131_072

SHAPES: list[Any] = [
    None,
    "",
    "text with spaces, {braces} and \"quotes\" and 'ticks'",
    '{"method_number":"42"}',
    0,
    -7,
    3.25,
    1e300,
    2**53,
    True,
    False,
    [],
    [1, "two", [3, None]],
    {},
    {"ключ": "значение", "emoji": "🚀", "": "empty key"},
    {"a": {"b": {"c": [{"d": [[[["deep"]]]]}]}}},
]

BOTH: list[Language] = ["python", "node"]


@pytest.mark.parametrize("device", BOTH)
@pytest.mark.parametrize("service", BOTH)
def test_payloads_of_every_shape_arrive_and_return(pool: Pool, device: Language, service: Language) -> None:
    callee, caller = pool.device(device), pool.service(service)
    for shape in SHAPES:
        answer = caller.call(callee.device_id, "echo", shape)
        seen = callee.request()
        # The Python service SDK replaces None by the empty string before it sends anything.
        expected = "" if shape is None and service == "python" else shape
        assert seen.payload == expected
        assert type(seen.payload) is type(expected)
        assert (answer["status"], answer.get("payload")) == (200, expected)


@pytest.mark.parametrize("device", BOTH)
@pytest.mark.parametrize("service", BOTH)
def test_modules(pool: Pool, device: Language, service: Language) -> None:
    callee = pool.device(device, "m1")
    answer = pool.service(service).call(callee.device_id, "echo", {"to": "module"}, module_id="m1")
    assert answer == {"status": 200, "payload": {"to": "module"}}
    assert callee.request().payload == {"to": "module"}


def test_no_payload_reaches_the_device_as_an_empty_body(pool: Pool) -> None:
    """No service SDK can leave it out: Node sends null, Python the empty string. Hence raw HTTP."""
    with pool.hub.service() as client:
        for language, seen in (("python", None), ("node", ABSENT)):
            callee = pool.device(language)  # type: ignore[arg-type]
            response = client.post(f"/twins/{callee.device_id}/methods", json={"methodName": "echo"})
            if language == "python":
                # Version 2.14.0 reads it as null; older ones could not read it.
                assert response.json() == {"status": 200, "payload": None}
                assert callee.request().payload is seen
            else:
                # An empty body is a truthy Buffer for Node's SDK, which then answers by itself.
                assert response.json()["status"] == 400


@pytest.mark.parametrize("service", BOTH)
def test_a_payload_of_128_kilobytes_passes_and_one_byte_more_is_400004(pool: Pool, service: Language) -> None:
    caller = pool.service(service)
    for device in BOTH:
        callee = pool.device(device)
        assert caller.call(callee.device_id, "size", "x" * (LIMIT - 2)) == {"status": 200, "payload": LIMIT - 2}
        callee.request()
        failure = caller.call(callee.device_id, "size", "x" * (LIMIT - 1))
        assert isinstance(failure, Failure)
        assert failure.code == 400004


@pytest.mark.parametrize("device", BOTH)
def test_an_answer_of_128_kilobytes_passes_and_one_byte_more_is_502000(
    pool: Pool, device: Language, language: Language
) -> None:
    callee, caller = pool.device(device), pool.service(language)
    answer = caller.call(callee.device_id, "big", LIMIT)
    assert (answer["status"], len(answer["payload"])) == (200, LIMIT - 2)
    failure = caller.call(callee.device_id, "big", LIMIT + 1)
    assert isinstance(failure, Failure)
    assert (failure.code, failure.status) == (502000, 502)
    assert failure.type == ("HttpOperationError" if language == "python" else "BadDeviceResponseError")
    # The connection was kept.
    assert caller.call(callee.device_id, "echo", "still here") == {"status": 200, "payload": "still here"}
    for _ in range(3):
        callee.request()


@pytest.mark.parametrize("device", BOTH)
def test_the_status_of_the_device_is_its_own_affair(pool: Pool, device: Language, language: Language) -> None:
    callee, caller = pool.device(device), pool.service(language)
    # Node's device SDK throws on the status 0 before it sends anything.
    for status in (*((0,) if device == "python" else ()), -1, 200, 204, 404, 500, 503, 2**31 - 1):
        answer = caller.call(callee.device_id, "answer", {"status": status, "payload": ["ok"]})
        assert answer == {"status": status, "payload": ["ok"]}
        callee.request()


@pytest.mark.parametrize("device", BOTH)
def test_an_answer_without_payload(pool: Pool, device: Language, language: Language) -> None:
    callee = pool.device(device)
    answer = pool.service(language).call(callee.device_id, "answer", {"status": 204})
    callee.request()
    assert answer["status"] == 204
    assert answer.get("payload") is None


def test_calls_overlap_and_each_gets_its_own_answer(pool: Pool, language: Language) -> None:
    callee, caller = pool.device("python"), pool.service(language)
    numbers = [caller.begin_call(callee.device_id, "hold", index) for index in range(8)]
    requests = [callee.request() for _ in numbers]
    for request in reversed(requests):
        callee.answer(request.rid, 200, {"for": request.payload})
    assert [caller.end(number)["payload"] for number in numbers] == [{"for": index} for index in range(8)]
