"""Names of system properties: their spelling in answers, and what stands before them in a query."""

from __future__ import annotations

from methodhub.core.query.tree import Collection, Path

TWIN_NAMES: dict[str, dict[str, object]] = {
    "deviceId": {},
    "moduleId": {},
    "etag": {},
    "deviceEtag": {},
    "status": {},
    "statusReason": {},
    "statusUpdateTime": {},
    "connectionState": {},
    "lastActivityTime": {},
    "cloudToDeviceMessageCount": {},
    "authenticationType": {},
    "x509Thumbprint": {"primaryThumbprint": {}, "secondaryThumbprint": {}},
    "capabilities": {"iotEdge": {}},
    "deviceScope": {},
    "parentScopes": {},
    "modelId": {},
    "version": {},
    "tags": {},
    "properties": {"desired": {}, "reported": {}},
}
JOB_NAMES: dict[str, dict[str, object]] = {
    "deviceId": {},
    "moduleId": {},
    "jobId": {},
    "jobType": {},
    "status": {},
    "startTimeUtc": {},
    "endTimeUtc": {},
    "createdDateTimeUtc": {},
    # The documentation of the original asks for it by this name, too.
    "createdTimeUtc": {},
    "lastUpdatedDateTimeUtc": {},
    "outcome": {"deviceMethodResponse": {"status": {}, "payload": {}}},
    "error": {"code": {}, "description": {}},
}


def canonical(steps: tuple[str, ...], collection: Collection) -> Path:
    """A path as it was written, without the collection before it and with system names in camelCase: those count in any
    case, everything below `tags` and the two sections of `properties` exactly (`wire/service.md` 5)."""
    known: object = JOB_NAMES if collection is Collection.JOBS else TWIN_NAMES
    rest = _without_prefix(steps, collection)
    spelled: list[str] = []
    while rest and isinstance(known, dict):
        name = next((name for name in known if name.lower() == rest[0].lower()), None)
        if name is None:
            break
        spelled.append(name)
        known = known[name]
        rest = rest[1:]
    return Path((*spelled, *rest))


def _without_prefix(steps: tuple[str, ...], collection: Collection) -> tuple[str, ...]:
    for prefix in (collection.value.split("."), ["devices"]):
        given = [step.lower() for step in steps[: len(prefix)]]
        if given == prefix and len(steps) > len(prefix):
            return steps[len(prefix) :]
    return steps
