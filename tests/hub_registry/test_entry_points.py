"""What clients probe beside the registry: counts, purges, old jobs, digital twins, and paths that are not there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.harness import RunningHub
from tests.hub.peers import Caller, Device, Response, ready_device


def name_of(answer: Response) -> tuple[int, str]:
    return answer.status, answer.headers.get("iothub-errorcode", "")


# --- counts and purges -------------------------------------------------------------------------------------------


def test_counts(hub: RunningHub) -> None:
    """Of devices alone; connected is who is so at this moment."""
    for each in ("a", "b", "c"):
        hub.create_device(each, status="disabled" if each == "c" else "enabled")
    hub.create_module("a", "m")
    with Caller(hub, "registryRead") as caller, ready_device(hub, "a"), ready_device(hub, "a", "m"):
        assert json.loads(caller.ask("GET", "/statistics/devices").body) == {
            "totalDeviceCount": 3,
            "enabledDeviceCount": 2,
            "disabledDeviceCount": 1,
        }
        assert json.loads(caller.ask("GET", "/statistics/service/").body) == {"connectedDeviceCount": 1}


@pytest.mark.parametrize("route", ["devices", "service"])
def test_who_may_count(shared: RunningHub, route: str) -> None:
    with Caller(shared, "service") as caller:
        assert caller.ask("GET", f"/statistics/{route}").status == 401


def test_there_is_nothing_to_purge(shared: RunningHub) -> None:
    """[HUB-purge]"""
    shared.create_device("purged")
    shared.create_module("purged", "m")
    with Caller(shared, "service") as caller:
        for path, module in (("purged", None), ("purged/modules/m", "m")):
            answer = caller.ask("DELETE", f"/devices/{path}/commands")
            assert answer.status == 200
            assert json.loads(answer.body) == {"totalMessagesPurged": 0, "deviceId": "purged", "moduleId": module}
        assert name_of(caller.ask("DELETE", "/devices/nobody/commands")) == (404, "DeviceNotFound")
        assert name_of(caller.ask("DELETE", "/devices/purged/modules/x/commands")) == (404, "ModuleNotFound")
    with Caller(shared, "registryReadWrite") as caller:
        assert caller.ask("DELETE", "/devices/purged/commands").status == 401


# --- old jobs ----------------------------------------------------------------------------------------------------


def test_there_are_no_old_jobs(shared: RunningHub) -> None:
    """[HUB-old-jobs] An array for those who look; nobody can make one."""
    with Caller(shared, "service") as caller:
        for path in ("/jobs", "/jobs/"):
            answer = caller.ask("GET", path)
            assert (answer.status, answer.body) == (200, b"[]")
        assert name_of(caller.ask("GET", "/jobs/j1")) == (404, "JobNotFound")
        assert name_of(caller.ask("DELETE", "/jobs/j1")) == (404, "JobNotFound")
        answer = caller.ask("POST", "/jobs/create", {"type": "export"})
        assert name_of(answer) == (400, "InvalidOperation")
        assert b"POST /devices" in answer.body


# --- paths that are not there ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("POST", "/devices/a", 405),
        ("PATCH", "/devices/a", 405),
        ("PUT", "/devices", 405),
        ("DELETE", "/devices", 405),
        ("PUT", "/devices/a/modules", 405),
        ("PUT", "/devices/a/modules/", 405),
        ("PUT", "/devices/a/modules//", 405),
        ("POST", "/twins/a/modules//methods", 405),
        ("GET", "/devices/keys/regenerate", 405),
        ("GET", "/devices/a/commands", 405),
        ("PUT", "/statistics/devices", 405),
        ("PUT", "/jobs/x", 405),
        ("GET", "/digitaltwins/a/commands/c", 405),
        ("GET", "/digitaltwins/a", 404),
        ("GET", "/statistics", 404),
        ("GET", "/nowhere", 404),
        ("POST", "/configurations/testQueries", 404),
    ],
)
def test_wrong_verbs_and_paths(shared: RunningHub, method: str, path: str, code: int) -> None:
    """[HUB-routing-errors] Format F4: a body that holds `Message` only."""
    with Caller(shared) as caller:
        answer = caller.ask(method, path, {} if method in {"PUT", "POST", "PATCH"} else None)
        assert answer.status == code
        assert set(json.loads(answer.body)) == {"Message"}


# --- digital twins -----------------------------------------------------------------------------------------------

PATH = "/digitaltwins/dt/commands/reboot"


@pytest.fixture(scope="module")
def device(shared: RunningHub) -> Iterator[Device]:
    shared.create_device("dt")
    with ready_device(shared, "dt") as device:
        yield device


@pytest.mark.parametrize(
    ("path", "method"),
    [
        (PATH, "reboot"),
        (PATH + "/", "reboot"),
        ("/digitaltwins/dt/components/thermostat1/commands/getMaxMin", "thermostat1*getMaxMin"),
    ],
)
@pytest.mark.parametrize("payload", [b'{"a": 1.0}', b'"x"', b"null", b""])
def test_a_call_by_its_plug_and_play_name(
    shared: RunningHub, device: Device, path: str, method: str, payload: bytes
) -> None:
    """[HUB-digital-twins] The body is the payload, byte for byte; the answer's status is a header."""
    with Caller(shared, "service") as caller:
        caller.send(caller.request("POST", path + "?responseTimeoutInSeconds=10&CONNECTtimeoutInSeconds=5", payload))
        request = device.request()
        assert (request.name, request.payload) == (method, payload)
        device.answer(request, b'{"b": 2.0}', 404)
        answer = caller.response()
        assert (answer.status, answer.body) == (200, b'{"b": 2.0}')
        assert answer.headers["x-ms-command-statuscode"] == "404"
        assert answer.headers["x-ms-request-id"]


def test_an_answer_without_a_body(shared: RunningHub, device: Device) -> None:
    with Caller(shared, "service") as caller:
        caller.send(caller.request("POST", PATH, b"1"))
        device.answer(device.request(), b"", 204)
        answer = caller.response()
        assert (answer.status, answer.body, answer.headers["x-ms-command-statuscode"]) == (200, b"null", "204")


@pytest.mark.parametrize(
    ("path", "payload", "status", "code"),
    [
        ("/digitaltwins/nobody/commands/c", b"{}", 404, 404001),
        ("/digitaltwins/no%20body/commands/c", b"{}", 404, 404001),
        ("/digitaltwins/dt-offline/commands/c", b"{}", 404, 404103),
        ("/digitaltwins/dt/commands/c?responseTimeoutInSeconds=4", b"{}", 400, 400004),
        ("/digitaltwins/dt/commands/c?connectTimeoutInSeconds=301", b"{}", 400, 400004),
        ("/digitaltwins/dt/commands/c?connectTimeoutInSeconds=soon", b"{}", 400, 400004),
        ("/digitaltwins/dt/commands/a@b", b"{}", 400, 400004),
        (f"/digitaltwins/dt/components/{'c' * 64}/commands/{'n' * 64}", b"{}", 400, 400004),
        (PATH, b"{", 400, 400006),
        (PATH, b'"' + b"x" * 131_071 + b'"', 400, 400004),
        (PATH, b'"' + b"x" * 300_000 + b'"', 400, 400004),
    ],
)
def test_failures_are_those_of_method_calls(
    shared: RunningHub, device: Device, path: str, payload: bytes, status: int, code: int
) -> None:
    """In format F1, as of calls."""
    with Caller(shared) as caller:
        caller.ask("PUT", "/devices/dt-offline", {})
        answer = caller.ask("POST", path, payload)
        assert answer.status == status
        body = json.loads(answer.body)
        assert body["ExceptionMessage"] == ""
        assert json.loads(body["Message"])["errorCode"] == code


def test_who_may_call(shared: RunningHub) -> None:
    with Caller(shared, "registryReadWrite") as caller:
        assert name_of(caller.ask("POST", PATH, b"{}")) == (401, "IotHubUnauthorizedAccess")


def test_a_caller_that_hangs_up_leaves_nothing(shared: RunningHub, device: Device) -> None:
    """[HUB-hang-up] Nor does a late answer of the device harm anybody."""
    with Caller(shared, "service") as caller:
        caller.send(caller.request("POST", PATH, b"{}"))
        request = device.request()
        shared.until(lambda: len(shared.hub.methods.open) == 1)
    shared.until(lambda: not shared.hub.methods.open)
    device.answer(request)
    device.ping()
