"""Twins as the JSON of back ends and of devices (`wire/service.md` 6, `wire/device.md` 1.9)."""

from __future__ import annotations

from typing import Any

import msgspec

from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Identity
from methodhub.core.twins.model import Section, Twin
from methodhub.core.twins.rules import TwinUpdate
from methodhub.iothub.payload import json_error
from methodhub.iothub.rest import timestamp

NEVER_UPDATED = "0001-01-01T00:00:00Z"
"""Of a section that was never changed."""

Object = dict[str, Any]


def twin_json(identity: Identity, twin: Twin) -> Object:
    """A twin as REST and queries tell it, without keys: whoever may read twins need not know credentials."""
    authentication = identity.authentication
    names: Object = {"deviceId": identity.target.device_id}
    scopes: Object = {}
    if identity.target.module_id:
        names["moduleId"] = identity.target.module_id
    else:
        scopes["parentScopes"] = list(identity.parent_scopes)
        if identity.device_scope:
            scopes["deviceScope"] = identity.device_scope
    if twin.model_id is not None:
        scopes["modelId"] = twin.model_id
    return {
        **names,
        "etag": twin.etag,
        "deviceEtag": identity.etag,
        "status": "enabled" if identity.enabled else "disabled",
        "statusReason": identity.status_reason,
        "statusUpdateTime": timestamp(identity.status_updated_time),
        "connectionState": "Connected" if identity.connected else "Disconnected",
        "lastActivityTime": timestamp(identity.last_activity_time),
        "cloudToDeviceMessageCount": 0,
        "authenticationType": authentication.type.value,
        "x509Thumbprint": {
            "primaryThumbprint": authentication.primary_thumbprint,
            "secondaryThumbprint": authentication.secondary_thumbprint,
        },
        "version": twin.version,
        **scopes,
        "tags": twin.tags,
        "properties": {"desired": section_json(twin.desired), "reported": section_json(twin.reported)},
        "capabilities": {"iotEdge": identity.iot_edge},
    }


def section_json(section: Section) -> Object:
    metadata = section.metadata or {"$lastUpdated": NEVER_UPDATED}
    return {**section.values, "$metadata": metadata, "$version": section.version}


def device_twin(twin: Twin) -> bytes:
    """What a device reads: both sections with their versions, without metadata."""
    return msgspec.json.encode(
        {
            "desired": {**twin.desired.values, "$version": twin.desired.version},
            "reported": {**twin.reported.values, "$version": twin.reported.version},
        }
    )


def device_error(error: HubError) -> bytes:
    """Why a twin request failed: JSON always, since one SDK reads nothing else."""
    return msgspec.json.encode({"errorCode": int(error.code), "message": error.message})


def parse_update(body: bytes, *, replaces: bool) -> TwinUpdate:
    """What a PATCH or a PUT of a twin asks for. Raises 400004 or 400006."""
    return update_of(json_object(body, "The body"), replaces=replaces)


def update_of(twin: Object, *, replaces: bool = False) -> TwinUpdate:
    """The change that a twin stands for: its tags and desired properties. What else a twin holds is not a back end's to
    write, and ignored, as it comes back unchanged from whoever read it. Raises 400004."""
    properties = _member(twin, "properties", "properties") or {}
    desired = _member(properties, "desired", "properties.desired")
    if desired is not None:
        desired = {key: value for key, value in desired.items() if key not in {"$metadata", "$version"}}
    return TwinUpdate(_member(twin, "tags", "tags"), desired, replaces)


def _member(parent: Object, key: str, path: str) -> Object | None:
    """Some callers write null for what they do not mean to change."""
    value = parent.get(key)
    if value is not None and not isinstance(value, dict):
        raise HubError(ErrorCode.ArgumentInvalid, f"{path} is no JSON object.")
    return value


def parse_report(body: bytes) -> Object:
    """The reported properties that a device sends. Raises 400004 or 400006."""
    return json_object(body, "The patch")


def json_object(body: bytes, what: str) -> Object:
    try:
        value = msgspec.json.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        wrong = json_error(body) or "it holds a number beyond a double, or half a character as an escape"
        raise HubError(ErrorCode.IotHubFormatError, f"{what} cannot be taken: {wrong}.") from None
    if not isinstance(value, dict):
        raise HubError(ErrorCode.ArgumentInvalid, f"{what} is no JSON object.")
    return value
