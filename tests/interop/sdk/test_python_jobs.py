"""Each method of azure-iot-hub's IoTHubJobManager, one test each."""

from __future__ import annotations

from typing import Any

from tests.interop.sdk.conftest import Caller, World, refused

NEVER = "2099-01-01T00:00:00Z"


def method_job(job_id: str, condition: str, name: str = "m", payload: Any = None, **fields: Any) -> dict[str, Any]:
    return {
        "$": "JobRequest",
        "job_id": job_id,
        "type": "scheduleDeviceMethod",
        "cloud_to_device_method": {"$": "CloudToDeviceMethod", "method_name": name, "payload": payload},
        "query_condition": condition,
        "max_execution_time_in_seconds": 60,
        **fields,
    }


def device_jobs(python: Caller, job_id: str) -> dict[str, dict[str, Any]]:
    """What became of each device, read with the registry's own query."""
    text = f"SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '{job_id}'"
    page = python("query_iot_hub", {"$": "QuerySpecification", "query": text})
    assert page["type"] == "DeviceJob"
    return {each["device_id"]: each for each in page["items"]}


def test_create_scheduled_job(python: Caller, python_jobs: Caller, world: World) -> None:
    """A method on several devices, one of them with a device SDK; each answer can be read."""
    devices = world.answering("py-job", 5)
    world.tag(world.sdk_device("python").device_id, group="py-job")
    made = python_jobs(
        "create_scheduled_job", "py-job", method_job("py-job", "tags.group = 'py-job'", "echo", {"n": 1})
    )
    assert (made["job_id"], made["type"], made["status"]) == ("py-job", "scheduleDeviceMethod", "queued")
    ended = world.job_ends("py-job")
    assert ended["status"] == "completed"
    assert ended["deviceJobStatistics"] == {
        "deviceCount": 6,
        "succeededCount": 6,
        "failedCount": 0,
        "runningCount": 0,
        "pendingCount": 0,
        "canceledCount": 0,
    }
    assert [[request.payload for request in device.seen] for device in devices] == [[b'{"n": 1}']] * 5
    found = device_jobs(python, "py-job")
    assert set(found) == {*(f"py-job-{n}" for n in range(5)), "sdk-python"}
    assert {each["status"] for each in found.values()} == {"completed"}
    refused(python_jobs.fails("create_scheduled_job", "py-job", method_job("py-job", "*")), "JobAlreadyExists", 409)


def test_create_scheduled_job_that_updates_twins(python: Caller, python_jobs: Caller, world: World) -> None:
    world.answering("py-twins", 2)
    update = {
        "$": "Twin",
        "etag": "*",
        "tags": {"new": True},
        "properties": {"$": "TwinProperties", "desired": {"a": 1}},
    }
    job = {
        "$": "JobRequest",
        "type": "scheduleUpdateTwin",
        "update_twin": update,
        "query_condition": "deviceId IN ['py-twins-0', 'py-twins-1']",
    }
    python_jobs("create_scheduled_job", "py-twins", job)
    assert world.job_ends("py-twins")["deviceJobStatistics"]["succeededCount"] == 2
    for number in range(2):
        twin = python("get_twin", f"py-twins-{number}")
        assert twin["tags"] == {"group": "py-twins", "new": True}
        assert twin["properties"]["desired"]["a"] == 1


def test_get_scheduled_job(python_jobs: Caller) -> None:
    python_jobs("create_scheduled_job", "py-get", method_job("py-get", "*", start_time=NEVER))
    found = python_jobs("get_scheduled_job", "py-get")
    assert (found["job_id"], found["status"], found["query_condition"]) == ("py-get", "scheduled", "*")
    assert found["start_time"].startswith("2099-01-01T00:00:00")
    assert found["max_execution_time_in_seconds"] == 60
    assert found["cloud_to_device_method"]["method_name"] == "m"
    refused(python_jobs.fails("get_scheduled_job", "py-nothing"), "JobNotFound", 404)


def test_cancel_scheduled_job(python_jobs: Caller) -> None:
    python_jobs("create_scheduled_job", "py-cancel", method_job("py-cancel", "*", start_time=NEVER))
    assert python_jobs("cancel_scheduled_job", "py-cancel")["job_id"] == "py-cancel"
    assert python_jobs("get_scheduled_job", "py-cancel")["status"] == "cancelled"
    refused(python_jobs.fails("cancel_scheduled_job", "py-nothing"), "JobNotFound", 404)


def test_query_scheduled_jobs(python_jobs: Caller, world: World) -> None:
    """[HUB-job-list] This SDK wants an object where every other client wants an array."""
    python_jobs("create_scheduled_job", "py-list", method_job("py-list", "*", start_time=NEVER))
    found = python_jobs("query_scheduled_jobs", "scheduleDeviceMethod", "scheduled")
    assert "py-list" in {item["jobId"] for item in found["items"]}
    assert found["type"] == "jobResponse"
    with world.hub.service() as client:
        others = client.get("/jobs/v2/query", params={"jobStatus": "Scheduled"}).json()
    assert "py-list" in {item["jobId"] for item in others}


# --- import and export -------------------------------------------------------------------------------------------


def test_create_import_export_job(python_jobs: Caller) -> None:
    """Blob containers are not there: the hub says so."""
    job = {"$": "JobProperties", "type": "export", "output_blob_container_uri": "https://example.invalid/container"}
    failure = python_jobs.fails("create_import_export_job", job)
    assert failure.status == 400
    assert failure.header


def test_get_import_export_jobs(python_jobs: Caller) -> None:
    assert python_jobs("get_import_export_jobs") == []


def test_get_import_export_job(python_jobs: Caller) -> None:
    refused(python_jobs.fails("get_import_export_job", "py-nothing"), "JobNotFound", 404)


def test_cancel_import_export_job(python_jobs: Caller) -> None:
    refused(python_jobs.fails("cancel_import_export_job", "py-nothing"), "JobNotFound", 404)
