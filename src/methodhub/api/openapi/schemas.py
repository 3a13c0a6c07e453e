"""The JSON of requests and answers as JSON Schema (`wire/service.md` 1 to 6). What a schema does not name is ignored in
requests and may appear in answers."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

ID_PATTERN = r"^[A-Za-z0-9\-:.+%_#*?!(),=@;$']{1,128}$"
JOB_ID_PATTERN = r"^[A-Za-z0-9-]{1,64}$"


def text(description: str = "", **more: Any) -> Schema:
    return {"type": "string", **({"description": description} if description else {}), **more}


def one_of(*values: str) -> Schema:
    return {"type": "string", "enum": list(values)}


def number(low: int | None = None, high: int | None = None, description: str = "") -> Schema:
    found: Schema = {"type": "integer"}
    found |= {} if low is None else {"minimum": low}
    found |= {} if high is None else {"maximum": high}
    return found | ({"description": description} if description else {})


def array(items: Schema, **more: Any) -> Schema:
    return {"type": "array", "items": items, **more}


def or_null(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def record(required: str = "", /, **fields: Schema) -> Schema:
    """An object; `required`: names with spaces between."""
    found: Schema = {"type": "object", "properties": fields}
    return found | ({"required": required.split()} if required else {})


SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
TIME = text("UTC, such as 2026-11-20T22:33:35.8326650Z; 0001-01-01T00:00:00 stands for never")
OBJECT: Schema = {"type": "object"}
ANY: Schema = {"description": "any JSON"}
STATUS = one_of("enabled", "disabled")
CONNECTION = one_of("Connected", "Disconnected")

ERRORS: dict[str, Schema] = {
    "Error": record(
        "Message",
        Message=text(
            "`ErrorCode:<name>;<text>`; below /twins JSON text with errorCode and message; of routing a sentence"
        ),
        ExceptionMessage=text(),
    ),
}

IDENTITIES: dict[str, Schema] = {
    "SymmetricKey": record(primaryKey=or_null(text()), secondaryKey=or_null(text())),
    "Thumbprints": record(primaryThumbprint=or_null(text()), secondaryThumbprint=or_null(text())),
    "Authentication": record(
        type=one_of("sas", "selfSigned", "certificateAuthority", "none"),
        symmetricKey=or_null(ref("SymmetricKey")),
        x509Thumbprint=or_null(ref("Thumbprints")),
    ),
    "Capabilities": record(iotEdge={"type": "boolean"}),
    "IdentityUpdate": record(
        deviceId=text(),
        moduleId=or_null(text()),
        status=STATUS,
        statusReason=or_null(text(maxLength=128)),
        authentication=ref("Authentication"),
        capabilities=ref("Capabilities"),
        deviceScope=or_null(text()),
        parentScopes=or_null(array(text())),
        managedBy=or_null(text()),
        etag=or_null(text()),
    ),
    "Device": record(
        "deviceId generationId etag connectionState status authentication capabilities",
        deviceId=text(),
        generationId=text(),
        etag=text(),
        connectionState=CONNECTION,
        connectionStateUpdatedTime=TIME,
        lastActivityTime=TIME,
        cloudToDeviceMessageCount=number(0),
        authentication=ref("Authentication"),
        status=STATUS,
        statusReason=or_null(text()),
        statusUpdatedTime=TIME,
        capabilities=ref("Capabilities"),
        deviceScope=or_null(text()),
        parentScopes=array(text()),
    ),
    "Module": record(
        "deviceId moduleId generationId etag connectionState authentication",
        deviceId=text(),
        moduleId=text(),
        generationId=text(),
        etag=text(),
        connectionState=CONNECTION,
        connectionStateUpdatedTime=TIME,
        lastActivityTime=TIME,
        authentication=ref("Authentication"),
        managedBy=or_null(text()),
    ),
    "DeviceStatistics": record(
        "totalDeviceCount enabledDeviceCount disabledDeviceCount",
        totalDeviceCount=number(0),
        enabledDeviceCount=number(0),
        disabledDeviceCount=number(0),
    ),
    "ServiceStatistics": record("connectedDeviceCount", connectedDeviceCount=number(0)),
    "PurgeResult": record(
        "totalMessagesPurged deviceId",
        totalMessagesPurged=number(0),
        deviceId=text(),
        moduleId=or_null(text()),
    ),
}

BULK: dict[str, Schema] = {
    "BulkItem": record(
        "id",
        id=text(),
        moduleId=or_null(text()),
        eTag=or_null(text()),
        importMode=one_of(
            "create",
            "update",
            "updateIfMatchETag",
            "delete",
            "deleteIfMatchETag",
            "updateTwin",
            "updateTwinIfMatchETag",
        ),
        status=STATUS,
        statusReason=or_null(text()),
        authentication=ref("Authentication"),
        twinETag=or_null(text()),
        tags=OBJECT,
        properties=record(desired=OBJECT),
        capabilities=ref("Capabilities"),
        deviceScope=or_null(text()),
        parentScopes=or_null(array(text())),
        managedBy=or_null(text()),
    ),
    "BulkError": record(
        "deviceId errorCode errorStatus",
        deviceId=or_null(text()),
        moduleId=or_null(text()),
        errorCode=text("the name of an error code"),
        errorStatus=text(),
        operation=text(),
    ),
    "BulkResult": record(
        "isSuccessful errors warnings",
        isSuccessful={"type": "boolean"},
        errors=array(ref("BulkError")),
        warnings=array(OBJECT),
    ),
    "KeyRegeneration": record(
        "policyKey devices",
        policyKey=one_of("primaryKey", "secondaryKey", "both"),
        devices=array(record("id", id=text(), moduleId=or_null(text())), maxItems=100),
    ),
    "KeyRegenerationResult": record("rotatedKeys errors", rotatedKeys=array(OBJECT), errors=array(OBJECT)),
}

TWINS: dict[str, Schema] = {
    "Twin": record(
        "deviceId etag version status connectionState tags properties",
        deviceId=text(),
        moduleId=text(),
        etag=text(),
        deviceEtag=text(),
        version=number(1),
        status=STATUS,
        statusReason=or_null(text()),
        statusUpdateTime=TIME,
        connectionState=CONNECTION,
        lastActivityTime=TIME,
        cloudToDeviceMessageCount=number(0),
        authenticationType=text(),
        x509Thumbprint=ref("Thumbprints"),
        capabilities=ref("Capabilities"),
        deviceScope=text(),
        parentScopes=array(text()),
        modelId=text(),
        tags=OBJECT,
        properties=record("desired reported", desired=ref("TwinSection"), reported=ref("TwinSection")),
    ),
    "TwinSection": record("$metadata $version", **{"$metadata": OBJECT, "$version": number(1)}),
    "TwinUpdate": record(tags=or_null(OBJECT), properties=or_null(record(desired=or_null(OBJECT)))),
}

CALLS: dict[str, Schema] = {
    "MethodCall": record(
        "methodName",
        methodName=text(minLength=1, maxLength=128),
        payload=ANY,
        responseTimeoutInSeconds=or_null(number(5, 300)),
        connectTimeoutInSeconds=or_null(number(0, 300)),
    ),
    "MethodResult": record("status payload", status=number(), payload=ANY),
    "Query": record("query", query=text(maxLength=8192)),
}

JOBS: dict[str, Schema] = {
    "JobRequest": record(
        "queryCondition",
        jobId=text(),
        type=one_of("scheduleDeviceMethod", "scheduleUpdateTwin"),
        cloudToDeviceMethod=ref("MethodCall"),
        updateTwin=ref("TwinUpdate"),
        queryCondition=text("what follows WHERE in a query, or * for every device"),
        startTime=or_null(text("ISO 8601; absent or null for now", format="date-time")),
        maxExecutionTimeInSeconds=or_null(number(1)),
        rate=or_null({"type": "number", "exclusiveMinimum": 0, "description": "devices per second"}),
        concurrency=or_null(number(1, description="devices at once")),
        retry=or_null(ref("Retry")),
        abortThreshold=or_null({**SHARE, "description": "stop when this share of the ended devices failed"}),
        abortMinimum=number(1, description="devices that must have ended before the share counts"),
        rollout=or_null(ref("Rollout")),
        dryRun={"type": "boolean", "description": "only tell which devices it would be"},
    ),
    "Retry": record(
        "count",
        count=number(0),
        backoffSeconds={"type": "number", "minimum": 0, "description": "before the first repetition; then it doubles"},
        on=array(text("the name of an error code")),
    ),
    "Rollout": record("first", first=number(1), minimumSuccess=SHARE),
    "JobStatistics": record(
        "deviceCount failedCount succeededCount runningCount pendingCount",
        deviceCount=number(0),
        failedCount=number(0),
        succeededCount=number(0),
        runningCount=number(0),
        pendingCount=number(0),
        canceledCount=number(0, description="a part of failedCount"),
    ),
    "Job": record(
        "jobId type status",
        jobId=text(),
        type=one_of("scheduleDeviceMethod", "scheduleUpdateTwin"),
        status=one_of("queued", "scheduled", "running", "completed", "failed", "cancelled"),
        queryCondition=text(),
        createdTime=TIME,
        startTime=TIME,
        endTime=TIME,
        maxExecutionTimeInSeconds=number(1),
        cloudToDeviceMethod=OBJECT,
        updateTwin=OBJECT,
        failureReason=text(),
        statusMessage=text(),
        deviceJobStatistics=ref("JobStatistics"),
    ),
    "DryRun": record(
        "jobId type dryRun deviceCount deviceIds",
        jobId=text(),
        type=one_of("scheduleDeviceMethod", "scheduleUpdateTwin"),
        dryRun={"const": True},
        deviceCount=number(0),
        deviceIds=array(text(), description="the first of the devices that it would be"),
    ),
    "JobEvent": record(
        "event data",
        event=one_of("progress", "end"),
        data=text("the job in JSON, without cloudToDeviceMethod and updateTwin"),
    ),
    "JobPage": record("type items", type=text(), items=array(ref("Job")), continuationToken=text()),
}

SCHEMAS: dict[str, Schema] = {**ERRORS, **IDENTITIES, **BULK, **TWINS, **CALLS, **JOBS}
