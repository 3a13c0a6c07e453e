"""Each route of back ends as an operation of OpenAPI: one row each, in the order of `docs/reference/routes.md`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from methodhub.api.openapi.schemas import ID_PATTERN as ID
from methodhub.api.openapi.schemas import JOB_ID_PATTERN, Schema, array, number, ref, text

JSON, PLAIN, EVENTS = "application/json", "text/plain", "text/event-stream"


def parameter(place: str, name: str, schema: Schema, description: str = "", required: bool = False) -> Schema:
    found = {"name": name, "in": place, "schema": schema, "required": required or place == "path"}
    return found | ({"description": description} if description else {})


PATH_SCHEMAS = {"device_id": text(pattern=ID), "module_id": text(pattern=ID), "job_id": text(pattern=JOB_ID_PATTERN)}

IF_MATCH = parameter("header", "If-Match", text(), "an etag, quoted or not, or * for any")
PAGE = (
    parameter("header", "x-ms-max-item-count", text(pattern="^[1-9][0-9]{0,3}$"), "items of one page"),
    parameter("header", "x-ms-continuation", text(), "what the page before gave"),
)
TIMEOUTS = (
    parameter("query", "responseTimeoutInSeconds", number(5, 300)),
    parameter("query", "connectTimeoutInSeconds", number(0, 300)),
)
PAGED = {
    "x-ms-item-type": {"schema": text(), "description": "Twin, DeviceJob, JobResponse or Raw"},
    "x-ms-continuation": {"schema": text(), "description": "absent on the last page"},
}
ETAG = {"ETag": {"schema": text()}}
COMMAND = {"x-ms-command-statuscode": {"schema": text(pattern="^-?[0-9]+$"), "description": "the device's own status"}}

ROWS = array({"type": "object"})
WRITES = (409, 412, 413, 415)


@dataclass(frozen=True, slots=True)
class Operation:
    """`right`: empty for none. `answer`: the schema of a 200, None for a 204. `errors`: HTTP statuses beside those of
    every route; `results`: statuses whose body is `answer`, too."""

    verb: str
    path: str
    name: str
    summary: str
    right: str
    answer: Schema | None
    errors: tuple[int, ...] = ()
    body: Schema | None = None
    parameters: tuple[Schema, ...] = ()
    headers: dict[str, Any] = field(default_factory=dict)
    media_type: str = JSON
    results: tuple[int, ...] = ()


SERVICE, READ, WRITE = "ServiceConnect", "RegistryRead", "RegistryWrite"
UPDATE: dict[str, Any] = {"body": ref("TwinUpdate"), "parameters": (IF_MATCH,), "headers": ETAG}
IDENTITY: dict[str, Any] = {"body": ref("IdentityUpdate"), "parameters": (IF_MATCH,), "headers": ETAG}
CALL_ERRORS = (403, 404, 413, 415, 502, 504)


def of_twins(what: str, path: str) -> list[Operation]:
    """Calls and the twin of a device or module."""
    it, call, twin, errors = f"a {what.lower()}", ref("MethodCall"), ref("Twin"), (404, *WRITES)
    merge, replace = f"Merge into the twin of {it}", f"Replace tags and desired properties of {it}"
    answer = ref("MethodResult")
    methods = f"{path}/methods"
    return [
        Operation("POST", methods, f"invoke{what}Method", f"Call a method of {it}", SERVICE, answer, CALL_ERRORS, call),
        Operation("GET", path, f"get{what}Twin", f"The twin of {it}", SERVICE, twin, (404,), headers=ETAG),
        Operation("PATCH", path, f"update{what}Twin", merge, SERVICE, twin, errors, **UPDATE),
        Operation("PUT", path, f"replace{what}Twin", replace, SERVICE, twin, errors, **UPDATE),
    ]


def of_identities(what: str, path: str) -> list[Operation]:
    """The identity of a device or module."""
    it, found, errors = f"a {what.lower()}", ref(what), (403, 404, *WRITES)
    create, purge = f"Create {it}; with If-Match update it", f"Purge the queue of {it}"
    delete: dict[str, Any] = {"parameters": (IF_MATCH,)}
    commands = f"{path}/commands"
    return [
        Operation("GET", path, f"get{what}", f"Read {it}", READ, found, (404,), headers=ETAG),
        Operation("PUT", path, f"put{what}", create, WRITE, found, errors, **IDENTITY),
        Operation("DELETE", path, f"delete{what}", f"Delete {it}", WRITE, None, (404, 412), **delete),
        Operation("DELETE", commands, f"purge{what}Messages", purge, SERVICE, ref("PurgeResult"), (404,)),
    ]


REGISTRY = [
    Operation(
        "GET",
        "/devices",
        "listDevices",
        "List devices in the order of their ids",
        READ,
        array(ref("Device")),
        parameters=(parameter("query", "top", number(1, 1000)),),
    ),
    Operation(
        "POST",
        "/devices",
        "changeDevices",
        "Create, change or delete up to 100 identities",
        WRITE,
        ref("BulkResult"),
        (403, 413, 415),
        array(ref("BulkItem"), maxItems=100),
        headers={"IotHubErrorCode": {"schema": text(), "description": "of a 400 whose body is a result"}},
        results=(400,),
    ),
    Operation(
        "POST",
        "/devices/keys/regenerate",
        "regenerateKeys",
        "Give up to 100 identities new keys",
        WRITE,
        ref("KeyRegenerationResult"),
        (403, 413, 415),
        ref("KeyRegeneration"),
        results=(207, 400),
    ),
    Operation(
        "GET",
        "/devices/{device_id}/modules",
        "listModules",
        "List the modules of a device",
        READ,
        array(ref("Module")),
        (404,),
    ),
    Operation(
        "POST",
        "/devices/query",
        "query",
        "Ask for devices, modules or device jobs",
        SERVICE,
        ROWS,
        (408, 413, 415),
        ref("Query"),
        PAGE,
        PAGED,
    ),
    Operation("GET", "/statistics/devices", "deviceStatistics", "Count devices", READ, ref("DeviceStatistics")),
    Operation(
        "GET",
        "/statistics/service",
        "serviceStatistics",
        "Count connected devices",
        READ,
        ref("ServiceStatistics"),
    ),
]

COMMANDS = [
    Operation(
        "POST",
        f"/digitaltwins/{{device_id}}{component}/commands/{{name}}",
        f"invoke{what}Command",
        summary,
        SERVICE,
        {},
        (403, 404, 413, 415, 502, 504),
        {},
        TIMEOUTS,
        COMMAND,
    )
    for component, what, summary in (
        ("", "Root", "Call a method; the body is its payload"),
        ("/components/{component}", "Component", "Call the method `component*name`; the body is its payload"),
    )
]

JOBS = [
    Operation(
        "PUT",
        "/jobs/v2/{job_id}",
        "createJob",
        "Start a job on every device that matches",
        SERVICE,
        {"anyOf": [ref("Job"), ref("DryRun")]},
        (403, *WRITES),
        ref("JobRequest"),
    ),
    Operation("GET", "/jobs/v2/{job_id}", "getJob", "A job and how far it is", SERVICE, ref("Job"), (404,)),
    Operation(
        "POST",
        "/jobs/v2/{job_id}/cancel",
        "cancelJob",
        "Cancel a job, also one that runs",
        SERVICE,
        ref("Job"),
        (404, 412, 413, 415),
    ),
    Operation(
        "GET",
        "/jobs/v2/{job_id}/progress",
        "watchJob",
        "A job as server-sent events until it ends",
        SERVICE,
        ref("JobEvent"),
        (404,),
        media_type=EVENTS,
    ),
    Operation(
        "GET",
        "/jobs/v2/query",
        "listJobs",
        "Jobs, page by page; azure-iot-hub gets an object instead",
        SERVICE,
        {"oneOf": [array(ref("Job")), ref("JobPage")]},
        parameters=(parameter("query", "jobType", text()), parameter("query", "jobStatus", text()), *PAGE),
        headers=PAGED,
    ),
    Operation("GET", "/jobs", "listImportJobs", "Import and export jobs: none", SERVICE, array({})),
    Operation(
        "POST",
        "/jobs/create",
        "createImportJob",
        "Refused: there is no blob storage",
        SERVICE,
        None,
        (413, 415),
    ),
    Operation("GET", "/jobs/{job_id}", "getImportJob", "Not found: there is none", SERVICE, None, (404,)),
    Operation("DELETE", "/jobs/{job_id}", "cancelImportJob", "Not found: there is none", SERVICE, None, (404,)),
]

PROBES = [
    Operation("GET", "/metrics", "metrics", "Prometheus text", SERVICE, text(), media_type=PLAIN),
    Operation("GET", "/health/live", "live", "The process answers", "", {"type": "object"}),
    Operation("GET", "/health/ready", "ready", "Every listener accepts; else 503", "", {"type": "object"}),
    Operation("GET", "/openapi.json", "openapi", "This document", "", {"type": "object"}),
]

OPERATIONS = [
    *of_twins("Device", "/twins/{device_id}"),
    *of_twins("Module", "/twins/{device_id}/modules/{module_id}"),
    *of_identities("Device", "/devices/{device_id}"),
    *of_identities("Module", "/devices/{device_id}/modules/{module_id}"),
    *REGISTRY,
    *COMMANDS,
    *JOBS,
    *PROBES,
]
