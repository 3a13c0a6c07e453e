"""The failure table of `docs/design.md`, row by row, through both service SDKs: the exception each raises and the code
that can be read from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.errors import ErrorCode
from methodhub.core.identity import Target
from tests.harness import RunningHub
from tests.interop.conftest import Pool, now_clock
from tests.interop.peers import Device, Failure, Language, Service

NODE_TYPES = {
    400: "ArgumentError",
    401: "UnauthorizedError",
    403: "TooManyDevicesError",
    404: "Error",
    409: "DeviceAlreadyExistsError",
    412: "InvalidEtagError",
    429: "ThrottlingError",
    503: "ServiceUnavailableError",
    504: "GatewayTimeoutError",
}
PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    409: "Conflict",
    412: "Precondition Failed",
    429: "Too Many Requests",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}


def check(failure: Any, code: int, language: Language) -> Failure:
    """The exception is what this SDK makes of the code, and the code can be read from it."""
    assert isinstance(failure, Failure), f"the call succeeded: {failure}"
    assert failure.code == code
    status = code // 1000
    assert failure.status == status
    assert failure.header == ErrorCode(code).name
    if language == "python":
        assert failure.type == "HttpOperationError"
        assert failure.message == f"Operation returned an invalid status code '{PHRASES[status]}'"
    else:
        assert failure.type == NODE_TYPES[status]
    return failure


def with_key(connection_string: str, key: str) -> str:
    return connection_string.rsplit("SharedAccessKey=", 1)[0] + f"SharedAccessKey={key}"


@contextmanager
def held_call(hub: RunningHub, caller: Service, **more: Any) -> Iterator[tuple[int, Device, str]]:
    """A call that a device has received and not answered."""
    with Device(hub, "python", "d1", connection_retry=False) as device:
        device.expect("ready")
        number = caller.begin_call("d1", "hold", **more)
        yield number, device, device.request().rid


# --- row 1: who may call -----------------------------------------------------------------------------------------


def test_a_wrong_key_is_401002(pool: Pool, language: Language) -> None:
    wrong = with_key(pool.hub.policy_connection_string("service"), "d3Jvbmcga2V5")
    check(pool.service(language).call("d1", connection=wrong), 401002, language)


def test_a_missing_right_is_401002(pool: Pool, language: Language) -> None:
    reader = pool.hub.policy_connection_string("registryRead")
    check(pool.service(language).call("d1", connection=reader), 401002, language)


def test_an_expired_token_is_401002(timed_hub: RunningHub, language: Language) -> None:
    """The SDKs sign for an hour; the hub is ahead of them by that and the skew it allows."""
    timed_hub.advance(3600 + 290)
    with Service(timed_hub, language) as caller:
        check(caller.call("d1"), 404001, language)
    timed_hub.advance(300)
    with Service(timed_hub, language) as caller:
        check(caller.call("d1"), 401002, language)


# --- row 1: what may be asked ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call",
    [
        {"response_timeout": 301},
        {"response_timeout": 4},
        {"connect_timeout": 301},
        {"connect_timeout": -1},
        {"name": "two words"},
        {"name": "hash#"},
        {"name": "n" * 129},
    ],
    ids=lambda call: "-".join(f"{key}-{value!s:.10}" for key, value in call.items()),
)
def test_what_is_out_of_range_is_400004(pool: Pool, language: Language, call: dict[str, Any]) -> None:
    failure = check(pool.service(language).call("d1", **call), 400004, language)
    assert failure.inner["message"].startswith(("responseTimeout", "connectTimeout", "methodName"))
    assert "info" not in failure.inner


# --- row 2: whom ---------------------------------------------------------------------------------------------------


def test_an_unknown_device_is_404001(pool: Pool, language: Language) -> None:
    check(pool.service(language).call("nobody"), 404001, language)


def test_an_unknown_module_is_404010(pool: Pool, language: Language) -> None:
    pool.hub.create_device(f"no-module-{language}")
    check(pool.service(language).call(f"no-module-{language}", module_id="nothing"), 404010, language)


def test_a_module_of_an_unknown_device_is_404001(pool: Pool, language: Language) -> None:
    check(pool.service(language).call("nobody", module_id="m1"), 404001, language)


def test_a_disabled_device_is_404001(pool: Pool, language: Language) -> None:
    pool.hub.create_device(f"disabled-{language}", status="disabled")
    check(pool.service(language).call(f"disabled-{language}"), 404001, language)


# --- row 2: is it there --------------------------------------------------------------------------------------------


def test_an_offline_device_is_404103(pool: Pool, language: Language) -> None:
    pool.hub.create_device(f"offline-{language}")
    failure = check(pool.service(language).call(f"offline-{language}"), 404103, language)
    assert failure.inner["info"] == {"timeout": "00:00:00"}


def test_a_connected_device_without_subscription_is_404103(pool: Pool, language: Language) -> None:
    name = f"deaf-{language}"
    hub = pool.hub
    hub.create_device(name)
    with Device(hub, "node", name, connection_string=hub.device_connection_string(name), listen=False) as device:
        device.expect("ready")
        assert hub.hub.table.get(Target(name)) is not None
        check(pool.service(language).call(name), 404103, language)


def test_the_connect_timeout_used_up_is_404103(timed_hub: RunningHub, language: Language) -> None:
    timed_hub.create_device("d1")
    with Service(timed_hub, language) as caller:
        number = caller.begin_call("d1", connect_timeout=20)
        timed_hub.until(lambda: any(call._stop_waiting for call in timed_hub.hub.methods.open))
        timed_hub.advance(20)
        failure = check(caller.end(number), 404103, language)
        assert failure.inner["info"] == {"timeout": "00:00:20"}


def test_a_device_that_connects_within_the_connect_timeout_is_called(pool: Pool, language: Language) -> None:
    name, hub = f"late-{language}", pool.hub
    hub.create_device(name)
    number = pool.service(language).begin_call(name, "echo", "at last", connect_timeout=30)
    hub.until(lambda: len(hub.hub.methods.open) == 1)
    with Device(hub, "python", name, connection_string=hub.device_connection_string(name)):
        assert pool.service(language).end(number) == {"status": 200, "payload": "at last"}


# --- row 4: after delivery -----------------------------------------------------------------------------------------


def test_a_connection_that_drops_during_the_call_is_404104(hub: RunningHub, language: Language) -> None:
    with Service(hub, language) as caller, held_call(hub, caller) as (number, device, _):
        device.process.kill()
        check(caller.end(number), 404104, language)


def test_a_connection_that_is_replaced_during_the_call_is_400027(hub: RunningHub, language: Language) -> None:
    """And the process that connected last gets the next call."""
    with Service(hub, language) as caller, held_call(hub, caller) as (number, first, _):
        again = hub.device_connection_string("d1")
        with Device(hub, "python", "d1", connection_string=again) as second:
            second.expect("ready")
            check(caller.end(number), 400027, language)
            first.expect("disconnected")
            assert caller.call("d1", "echo", "who?") == {"status": 200, "payload": "who?"}
            assert second.request().payload == "who?"


def test_no_answer_is_504101_and_the_late_one_is_counted(timed_hub: RunningHub, language: Language) -> None:
    with (
        Service(timed_hub, language) as caller,
        held_call(timed_hub, caller, response_timeout=20) as (number, device, rid),
    ):
        timed_hub.advance(19)
        assert timed_hub.on_loop(lambda: len(timed_hub.hub.methods.open)) == 1
        timed_hub.advance(1)
        failure = check(caller.end(number), 504101, language)
        assert failure.inner["message"] == "Timed out waiting for the response from device."
        assert failure.inner["info"] == {"timeout": "00:00:20"}
        device.answer(rid, 200, "too late")
        device.expect(f"sent {rid}")
        timed_hub.until(lambda: timed_hub.hub.metrics.late_answers == 1)
        assert caller.call("d1", "echo", "next") == {"status": 200, "payload": "next"}


def test_a_second_answer_is_ignored_and_counted(hub: RunningHub, language: Language) -> None:
    with Service(hub, language) as caller, held_call(hub, caller) as (number, device, rid):
        device.answer(rid, 200, "first")
        assert caller.end(number) == {"status": 200, "payload": "first"}
        device.answer(rid, 500, "second")
        hub.until(lambda: hub.hub.metrics.late_answers == 1)
        assert caller.call("d1", "echo", "next") == {"status": 200, "payload": "next"}


# --- the hub stops -------------------------------------------------------------------------------------------------


def finish(hub: RunningHub, stopped: Future[None]) -> None:
    """Let the time run that peers get to close their side: an idle back end of Python does not look."""
    for _ in range(100):
        try:
            stopped.result(0.1)
            return
        except TimeoutError:
            hub.advance(5)
    pytest.fail("the hub does not stop")


def test_when_the_hub_stops_503001_before_delivery_and_404104_after(tmp_path: Path, language: Language) -> None:
    with RunningHub(tmp_path / "hub", now_clock(), stop_grace=10) as hub:
        hub.create_device("away")
        with Service(hub, language) as caller, held_call(hub, caller, response_timeout=300) as (delivered, _, _):
            waiting = caller.begin_call("away", connect_timeout=200)
            hub.until(lambda: len(hub.hub.methods.open) == 2)
            stopped = asyncio.run_coroutine_threadsafe(hub.hub.stop(), hub._loop)
            check(caller.end(waiting), 503001, language)
            assert not stopped.done()
            hub.advance(11)
            check(caller.end(delivered), 404104, language)
            finish(hub, stopped)


def test_a_delivered_call_may_finish_while_the_hub_stops(tmp_path: Path, language: Language) -> None:
    with (
        RunningHub(tmp_path / "hub", now_clock(), stop_grace=10) as hub,
        Service(hub, language) as caller,
        held_call(hub, caller) as (number, device, rid),
    ):
        stopped = asyncio.run_coroutine_threadsafe(hub.hub.stop(), hub._loop)
        device.answer(rid, 200, "just in time")
        assert caller.end(number) == {"status": 200, "payload": "just in time"}
        finish(hub, stopped)


# --- too many ------------------------------------------------------------------------------------------------------


def test_too_many_calls_to_one_device_are_403800(tmp_path: Path, language: Language) -> None:
    with (
        RunningHub(tmp_path / "hub", device_open_calls=1) as hub,
        Service(hub, language) as caller,
        held_call(hub, caller) as (number, device, rid),
    ):
        check(caller.call("d1", "hold"), 403800, language)
        device.answer(rid, 200, "done")
        assert caller.end(number)["payload"] == "done"
        assert caller.call("d1", "echo", "room again")["payload"] == "room again"


def test_too_many_calls_in_the_hub_are_429001(tmp_path: Path, language: Language) -> None:
    with (
        RunningHub(tmp_path / "hub", hub_open_calls=1) as hub,
        Service(hub, language) as caller,
        held_call(hub, caller) as (number, device, rid),
    ):
        check(caller.call("d1", "hold"), 429001, language)
        device.answer(rid, 200, "done")
        assert caller.end(number)["payload"] == "done"
        assert caller.call("d1", "echo", "room again")["payload"] == "room again"


def test_node_repeats_a_503_by_itself(hub: RunningHub) -> None:
    """With its own retry policy, at once and then for four minutes; hence no 503 after delivery, ever."""
    hub.create_device("d1")
    hub.run(hub.hub.methods.stop())
    with Service(hub, "node") as caller:
        caller.begin_call("d1", retries=True)
        hub.until(lambda: hub.hub.metrics.calls.get("ServiceUnavailable", 0) >= 2)
