"""The system properties of twins and device jobs: where their values stand. Each agrees with the JSON that is answered
for the row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, FromClause, Integer, Join, Text, and_, case, cast, func, literal

from methodhub.core.jobs.model import DeviceJobStatus
from methodhub.core.query.tree import Collection, Path
from methodhub.core.twins.model import FRESH_VERSION
from methodhub.store.query.documents import Documents, Kind
from methodhub.store.query.values import (
    MISSING,
    Value,
    boolean,
    container,
    optional_text,
    text,
    time,
    whole_number,
    within,
)
from methodhub.store.tables import device_jobs, identities, jobs, twins

IDENTITY, TWIN, PART, JOB = identities.c, twins.c, device_jobs.c, jobs.c
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
NEVER_UPDATED = '{"$lastUpdated":"0001-01-01T00:00:00Z"}'

TWINS: Join = identities.outerjoin(
    twins, and_(twins.c.device_id == identities.c.device_id, twins.c.module_id == identities.c.module_id)
)
DEVICE_JOBS: Join = device_jobs.join(jobs, jobs.c.job_id == device_jobs.c.job_id)

IS_MODULE = identities.c.module_id != ""


def rows_of(collection: Collection) -> tuple[FromClause, ColumnElement[bool] | None, tuple[ColumnElement[str], ...]]:
    """What a collection is made of: its tables, a condition that holds for all of its rows, and the key in whose order
    they come."""
    if collection is Collection.JOBS:
        return DEVICE_JOBS, None, (PART.job_id, PART.device_id, PART.module_id)
    if collection is Collection.MODULES:
        return TWINS, IS_MODULE, (IDENTITY.device_id, IDENTITY.module_id)
    return TWINS, ~IS_MODULE, (IDENTITY.device_id,)


def property_of(documents: Documents, collection: Collection, path: Path) -> Value:
    """MISSING for a name that the collection does not have."""
    if collection is Collection.JOBS:
        made = JOB_PROPERTIES.get(path.steps)
        return MISSING if made is None else made()
    section = SECTIONS.get(path.steps[:2])
    if section is not None and len(path.steps) > 2:
        return _section(documents, section, path.steps[2:])
    if path.steps[0] == "tags" and len(path.steps) > 1:
        return within(documents, documents.readable(func.coalesce(TWIN.tags, "{}")), path.steps[1:])
    if path.steps in MODULE_PROPERTIES and collection is not Collection.MODULES:
        return MISSING
    if path.steps in DEVICE_PROPERTIES and collection is Collection.MODULES:
        return MISSING
    made = TWIN_PROPERTIES.get(path.steps)
    return MISSING if made is None else made()


def _section(documents: Documents, name: str, steps: tuple[str, ...]) -> Value:
    if steps[0] == "$version":
        version = func.coalesce(TWIN[f"{name}_version"], FRESH_VERSION)
        return whole_number(version) if len(steps) == 1 else MISSING
    if steps[0] == "$metadata":
        if len(steps) == 1:
            return container(Kind.OBJECT)
        stored = func.coalesce(TWIN[f"{name}_metadata"], "{}")
        metadata = case((stored == "{}", literal(NEVER_UPDATED, Text)), else_=documents.readable(stored))
        return within(documents, metadata, steps[1:])
    return within(documents, documents.readable(func.coalesce(TWIN[name], "{}")), steps)


def _etag() -> Value:
    """Base64 of eight bytes (`core/twins/model.py`): 64 bits in ten letters of six and one of four."""
    version = func.coalesce(TWIN.version - TWIN.reported_version + FRESH_VERSION, FRESH_VERSION, type_=BigInteger)
    sextets = [version.bitwise_rshift(literal(58 - 6 * at, Integer)).bitwise_and(63) for at in range(10)]
    sextets.append(version.bitwise_and(15).bitwise_lshift(literal(2, Integer)))
    letters = [func.substr(BASE64, cast(sextet + 1, Integer), 1, type_=Text) for sextet in sextets]
    joined: ColumnElement[str] = letters[0]
    for letter in letters[1:]:
        joined = joined.concat(letter)
    return text(joined.concat("="))


def _choice(condition: ColumnElement[bool], yes: str, no: str) -> Value:
    return text(case((condition, literal(yes, Text)), else_=literal(no, Text)))


SECTIONS: dict[tuple[str, ...], str] = {("properties", "desired"): "desired", ("properties", "reported"): "reported"}
MODULE_PROPERTIES = {("moduleId",)}
DEVICE_PROPERTIES = {("deviceScope",), ("parentScopes",)}

TWIN_PROPERTIES: dict[tuple[str, ...], Callable[[], Value]] = {
    ("deviceId",): lambda: text(IDENTITY.device_id),
    ("moduleId",): lambda: text(IDENTITY.module_id),
    ("etag",): _etag,
    ("deviceEtag",): lambda: text(IDENTITY.etag),
    ("status",): lambda: _choice(IDENTITY.enabled.is_(True), "enabled", "disabled"),
    ("statusReason",): lambda: optional_text(IDENTITY.status_reason, has_null=True),
    ("statusUpdateTime",): lambda: time(IDENTITY.status_updated_time, has_never=True),
    ("connectionState",): lambda: _choice(IDENTITY.connected.is_(True), "Connected", "Disconnected"),
    ("lastActivityTime",): lambda: time(IDENTITY.last_activity_time, has_never=True),
    ("cloudToDeviceMessageCount",): lambda: whole_number(literal(0)),
    ("authenticationType",): lambda: text(IDENTITY.authentication_type),
    ("x509Thumbprint",): lambda: container(Kind.OBJECT),
    ("x509Thumbprint", "primaryThumbprint"): lambda: optional_text(IDENTITY.primary_thumbprint, has_null=True),
    ("x509Thumbprint", "secondaryThumbprint"): lambda: optional_text(IDENTITY.secondary_thumbprint, has_null=True),
    ("capabilities",): lambda: container(Kind.OBJECT),
    ("capabilities", "iotEdge"): lambda: boolean(IDENTITY.iot_edge),
    # An empty scope is told as none.
    ("deviceScope",): lambda: optional_text(func.nullif(IDENTITY.device_scope, ""), has_null=False),
    ("parentScopes",): lambda: container(Kind.ARRAY),
    ("modelId",): lambda: optional_text(TWIN.model_id, has_null=False),
    ("version",): lambda: whole_number(func.coalesce(TWIN.version, FRESH_VERSION)),
    ("tags",): lambda: container(Kind.OBJECT),
    ("properties",): lambda: container(Kind.OBJECT),
    ("properties", "desired"): lambda: container(Kind.OBJECT),
    ("properties", "reported"): lambda: container(Kind.OBJECT),
}


def _optional_object(column: ColumnElement[Any]) -> Value:
    given = column.is_not(None)
    return Value(given, {Kind.OBJECT: given})


FAILED = PART.status == literal(DeviceJobStatus.FAILED.value, Text)


def _of_error(column: ColumnElement[Any]) -> Value:
    kinds = {Kind.STRING: and_(FAILED, column.is_not(None)), Kind.NULL: and_(FAILED, column.is_(None))}
    return Value(FAILED, kinds, text=case((FAILED, column)))


JOB_PROPERTIES: dict[tuple[str, ...], Callable[[], Value]] = {
    ("deviceId",): lambda: text(PART.device_id),
    ("moduleId",): lambda: optional_text(func.nullif(PART.module_id, ""), has_null=False),
    ("jobId",): lambda: text(PART.job_id),
    ("jobType",): lambda: text(JOB.type),
    ("status",): lambda: text(PART.status),
    ("startTimeUtc",): lambda: time(PART.start_time, has_never=False),
    ("endTimeUtc",): lambda: time(PART.end_time, has_never=False),
    ("createdDateTimeUtc",): lambda: time(PART.created_time, has_never=False),
    ("createdTimeUtc",): lambda: time(PART.created_time, has_never=False),
    ("lastUpdatedDateTimeUtc",): lambda: time(PART.updated_time, has_never=False),
    ("outcome",): lambda: _optional_object(PART.outcome_status),
    ("outcome", "deviceMethodResponse"): lambda: _optional_object(PART.outcome_status),
    ("outcome", "deviceMethodResponse", "status"): lambda: whole_number(PART.outcome_status),
    ("error",): lambda: Value(FAILED, {Kind.OBJECT: FAILED}),
    ("error", "code"): lambda: _of_error(PART.error_code),
    ("error", "description"): lambda: _of_error(PART.error_description),
}
"""The payload of an answer is bytes to the hub: no query looks into it."""
