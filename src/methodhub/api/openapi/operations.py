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


def device_and_module() -> list[Operation]:
    """What there is for a device, and once more for a module."""
    found = []
    for what, devices, twins, schema in (
        ("Device", "/devices/{device_id}", "/twins/{device_id}", ref("Device")),
        (
            "Module",
            "/devices/{device_id}/modules/{module_id}",
            "/twins/{device_id}/modules/{module_id}",
            ref("Module"),
        ),
    ):
        it, calls, twin, update = f"a {what.lower()}", (403, 404, 413, 415, 502, 504), ref("Twin"), ref("TwinUpdate")
        change: dict[str, Any] = {"body": update, "parameters": (IF_MATCH,), "headers": ETAG}
        sets: dict[str, Any] = {"body": ref("IdentityUpdate"), "parameters": (IF_MATCH,), "headers": ETAG}
        found += [
            Operation(
                "POST",
                f"{twins}/methods",
                f"invoke{what}Method",
                f"Call a method of {it}",
                "ServiceConnect",
                ref("MethodResult"),
                calls,
                ref("MethodCall"),
            ),
            Operation(
                "GET", twins, f"get{what}Twin", f"The twin of {it}", "ServiceConnect", twin, (404,), headers=ETAG
            ),
            Operation(
                "PATCH",
                twins,
                f"update{what}Twin",
                f"Merge into the twin of {it}",
                "ServiceConnect",
                twin,
                (404, *WRITES),
                **change,
            ),
            Operation(
                "PUT",
                twins,
                f"replace{what}Twin",
                f"Replace tags and desired properties of {it}",
                "ServiceConnect",
                twin,
                (404, *WRITES),
                **change,
            ),
            Operation("GET", devices, f"get{what}", f"Read {it}", "RegistryRead", schema, (404,), headers=ETAG),
            Operation(
                "PUT",
                devices,
                f"put{what}",
                f"Create {it}; with If-Match update it",
                "RegistryWrite",
                schema,
                (403, 404, *WRITES),
                **sets,
            ),
            Operation(
                "DELETE",
                devices,
                f"delete{what}",
                f"Delete {it}",
                "RegistryWrite",
                None,
                (404, 412),
                parameters=(IF_MATCH,),
            ),
            Operation(
                "DELETE",
                f"{devices}/commands",
                f"purge{what}Messages",
                f"Purge the queue of {it}",
                "ServiceConnect",
                ref("PurgeResult"),
                (404,),
            ),
        ]
    return found


REGISTRY = [
    Operation(
        "GET",
        "/devices",
        "listDevices",
        "List devices in the order of their ids",
        "RegistryRead",
        array(ref("Device")),
        parameters=(parameter("query", "top", number(1, 1000)),),
    ),
    Operation(
        "POST",
        "/devices",
        "changeDevices",
        "Create, change or delete up to 100 identities",
        "RegistryWrite",
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
        "RegistryWrite",
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
        "RegistryRead",
        array(ref("Module")),
        (404,),
    ),
    Operation(
        "POST",
        "/devices/query",
        "query",
        "Ask for devices, modules or device jobs",
        "ServiceConnect",
        ROWS,
        (408, 413, 415),
        ref("Query"),
        PAGE,
        PAGED,
    ),
    Operation(
        "GET", "/statistics/devices", "deviceStatistics", "Count devices", "RegistryRead", ref("DeviceStatistics")
    ),
    Operation(
        "GET",
        "/statistics/service",
        "serviceStatistics",
        "Count connected devices",
        "RegistryRead",
        ref("ServiceStatistics"),
    ),
]

COMMANDS = [
    Operation(
        "POST",
        f"/digitaltwins/{{device_id}}{component}/commands/{{name}}",
        f"invoke{what}Command",
        summary,
        "ServiceConnect",
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
        "ServiceConnect",
        {"anyOf": [ref("Job"), ref("DryRun")]},
        (403, *WRITES),
        ref("JobRequest"),
    ),
    Operation("GET", "/jobs/v2/{job_id}", "getJob", "A job and how far it is", "ServiceConnect", ref("Job"), (404,)),
    Operation(
        "POST",
        "/jobs/v2/{job_id}/cancel",
        "cancelJob",
        "Cancel a job, also one that runs",
        "ServiceConnect",
        ref("Job"),
        (404, 412, 413, 415),
    ),
    Operation(
        "GET",
        "/jobs/v2/{job_id}/progress",
        "watchJob",
        "A job as server-sent events until it ends",
        "ServiceConnect",
        text(),
        (404,),
        media_type=EVENTS,
    ),
    Operation(
        "GET",
        "/jobs/v2/query",
        "listJobs",
        "Jobs, page by page; azure-iot-hub gets an object instead",
        "ServiceConnect",
        {"oneOf": [array(ref("Job")), ref("JobPage")]},
        parameters=(parameter("query", "jobType", text()), parameter("query", "jobStatus", text()), *PAGE),
        headers=PAGED,
    ),
    Operation("GET", "/jobs", "listImportJobs", "Import and export jobs: none", "ServiceConnect", array({})),
    Operation(
        "POST",
        "/jobs/create",
        "createImportJob",
        "Refused: there is no blob storage",
        "ServiceConnect",
        None,
        (413, 415),
    ),
    Operation("GET", "/jobs/{job_id}", "getImportJob", "Not found: there is none", "ServiceConnect", None, (404,)),
    Operation(
        "DELETE", "/jobs/{job_id}", "cancelImportJob", "Not found: there is none", "ServiceConnect", None, (404,)
    ),
]

PROBES = [
    Operation("GET", "/metrics", "metrics", "Prometheus text", "ServiceConnect", text(), media_type=PLAIN),
    Operation("GET", "/health/live", "live", "The process answers", "", {"type": "object"}),
    Operation("GET", "/health/ready", "ready", "Every listener accepts; else 503", "", {"type": "object"}),
    Operation("GET", "/openapi.json", "openapi", "This document", "", {"type": "object"}),
]

OPERATIONS = [*device_and_module(), *REGISTRY, *COMMANDS, *JOBS, *PROBES]
