"""Each method of azure-iothub's JobClient and Query, one test each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.interop.sdk.conftest import Caller, World

NEVER = {"$": "Date", "at": "2099-01-01T00:00:00Z"}
NOW = {"$": "Date", "at": "2020-01-01T00:00:00Z"}
METHOD = {"methodName": "echo", "payload": {"n": 1}}


def refused(failure: Any, name: str, status: int) -> None:
    assert (failure.header, failure.status) == (name, status), failure


def pages_of(node: Caller, query: str) -> Iterator[list[dict[str, Any]]]:
    """What a kept query finds."""
    page = node("next", on=query)
    yield page["items"]
    while page["more"]:
        page = node("next", page["token"], on=query)
        yield page["items"]


def rows_of(node: Caller, text: str, size: int | None = None) -> list[dict[str, Any]]:
    """Every row of a query, page by page."""
    node("createQuery", text, *([size] if size else []), keep="a query")
    return [row for page in pages_of(node, "a query") for row in page]


# --- jobs --------------------------------------------------------------------------------------------------------


def test_JobClient_scheduleDeviceMethod(node: Caller, node_jobs: Caller, world: World) -> None:
    """A method on several devices, one of them with a device SDK; each answer and each failure can be read."""
    devices = world.answering("js-job", 4)
    world.tag(world.sdk_device("node").device_id, group="js-job")
    made = node_jobs("scheduleDeviceMethod", "js-job", "tags.group = 'js-job'", METHOD, NOW, 60)
    assert (made["jobId"], made["type"], made["status"]) == ("js-job", "scheduleDeviceMethod", "queued")
    ended = world.job_ends("js-job")
    count = ended["deviceJobStatistics"]
    assert (ended["status"], count["deviceCount"], count["succeededCount"]) == ("completed", 5, 5)
    assert [[request.payload for request in device.seen] for device in devices] == [[b'{"n":1}']] * 4
    found = {row["deviceId"]: row for row in rows_of(node, "SELECT * FROM devices.jobs WHERE jobId = 'js-job'")}
    answers = {name: row["outcome"]["deviceMethodResponse"] for name, row in found.items()}
    assert answers.pop("sdk-node") == {"status": 200, "payload": {"n": 1}}
    assert answers == {f"js-job-{n}": {"status": 200, "payload": {"by": f"js-job-{n}"}} for n in range(4)}
    again = node_jobs.fails("scheduleDeviceMethod", "js-job", "*", METHOD, NOW, 60)
    refused(again, "JobAlreadyExists", 409)
    assert again.type == "DeviceAlreadyExistsError"


def test_JobClient_scheduleDeviceMethod_on_a_device_that_is_away(node: Caller, node_jobs: Caller, world: World) -> None:
    """It is waited for until the job's time ends."""
    node("create", {"deviceId": "js-away"})
    node_jobs("scheduleDeviceMethod", "js-away", "deviceId = 'js-away'", METHOD, NOW, 1)
    ended = world.job_ends("js-away")
    assert ended["deviceJobStatistics"]["failedCount"] == 1
    (row,) = rows_of(node, "SELECT * FROM devices.jobs WHERE jobId = 'js-away'")
    assert row["status"] == "failed"
    assert row["error"]["code"]


@pytest.mark.parametrize("style", ["promise", "callback"])
def test_JobClient_scheduleTwinUpdate(node: Caller, node_jobs: Caller, world: World, style: str) -> None:
    name = f"js-twin-{style}"
    node("create", {"deviceId": name})
    patch = {"etag": "*", "tags": {"new": True}, "properties": {"desired": {"a": 1}}}
    made = node_jobs("scheduleTwinUpdate", name, f"deviceId = '{name}'", patch, NOW, 60, style=style)
    assert (made["type"], made["status"]) == ("scheduleUpdateTwin", "queued")
    assert world.job_ends(name)["deviceJobStatistics"]["succeededCount"] == 1
    twin = node("getTwin", name)
    assert (twin["tags"], twin["properties"]["desired"]["a"]) == ({"new": True}, 1)


def test_JobClient_getJob(node_jobs: Caller) -> None:
    node_jobs("scheduleDeviceMethod", "js-get", "*", METHOD, NEVER, 60)
    for style in ("promise", "callback"):
        found = node_jobs("getJob", "js-get", style=style)
        assert (found["status"], found["queryCondition"], found["maxExecutionTimeInSeconds"]) == ("scheduled", "*", 60)
        assert found["startTime"].startswith("2099-01-01T00:00:00")
        assert found["cloudToDeviceMethod"]["methodName"] == "echo"
    refused(node_jobs.fails("getJob", "js-nothing"), "JobNotFound", 404)


def test_JobClient_cancelJob(node_jobs: Caller) -> None:
    node_jobs("scheduleDeviceMethod", "js-cancel", "*", METHOD, NEVER, 60)
    assert node_jobs("cancelJob", "js-cancel")["jobId"] == "js-cancel"
    assert node_jobs("getJob", "js-cancel")["status"] == "cancelled"
    refused(node_jobs.fails("cancelJob", "js-nothing"), "JobNotFound", 404)


def test_JobClient_createQuery(node_jobs: Caller) -> None:
    """Jobs come page by page, as an array."""
    for number in range(3):
        node_jobs("scheduleDeviceMethod", f"js-list-{number}", "*", METHOD, NEVER, 60)
    assert node_jobs("createQuery", "scheduleDeviceMethod", "scheduled", 2, keep="jobs")["more"] is True
    seen = []
    for page in pages_of(node_jobs, "jobs"):
        assert 1 <= len(page) <= 2
        assert {item["status"] for item in page} == {"scheduled"}
        seen += [item["jobId"] for item in page]
    assert len(seen) == len(set(seen))
    assert {f"js-list-{number}" for number in range(3)} <= set(seen)


# --- queries -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def five(world: World) -> list[str]:
    """Devices with a tag of their own."""
    names = [f"js-query-{number}" for number in range(5)]
    for number, name in enumerate(names):
        world.hub.create_device(name)
        world.tag(name, group="js-query", even=str(number % 2 == 0))
    return names


def test_Registry_createQuery(node: Caller, five: list[str]) -> None:
    text = (
        "SELECT deviceId AS name, tags.even FROM devices WHERE tags.group = 'js-query' AND STARTSWITH(deviceId, 'js-')"
    )
    assert node("createQuery", text, 2, keep="a query") == {"more": True}
    assert [len(page) for page in pages_of(node, "a query")] == [2, 2, 1]
    rows = rows_of(node, text, 2)
    assert sorted((row["name"], row["even"]) for row in rows) == [
        (name, str(number % 2 == 0)) for number, name in enumerate(five)
    ]
    groups = rows_of(
        node, "SELECT tags.even, COUNT() AS n FROM devices WHERE tags.group = 'js-query' GROUP BY tags.even"
    )
    assert sorted((row["even"], row["n"]) for row in groups) == [("False", 2), ("True", 3)]


@pytest.mark.parametrize("style", ["promise", "callback"])
def test_Query_next(node: Caller, five: list[str], style: str) -> None:
    node("createQuery", "SELECT * FROM devices WHERE tags.group = 'js-query'", 3, keep="a query")
    first = node("next", on="a query", style=style)
    # As a promise it goes on only where it is told; a callback's remembers.
    second = node("next", *([first["token"]] if style == "promise" else []), on="a query", style=style)
    assert (len(first["items"]), first["more"], len(second["items"]), second["more"]) == (3, True, 2, False)
    assert sorted(twin["deviceId"] for twin in first["items"] + second["items"]) == five
    node("createQuery", "SELECT", keep="a wrong query")
    assert node.fails("next", on="a wrong query", style=style).type == "ArgumentError"


def test_Query_nextAsTwin(node: Caller, five: list[str]) -> None:
    node("createQuery", "SELECT * FROM devices WHERE tags.group = 'js-query'", 4, keep="a query")
    first = node("nextAsTwin", on="a query")
    second = node("nextAsTwin", on="a query")
    assert set(first["types"] + second["types"]) == {"Twin"}
    assert sorted(twin["deviceId"] for twin in first["items"] + second["items"]) == five
    assert second["more"] is False
