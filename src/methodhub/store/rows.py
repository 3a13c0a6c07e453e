"""Identities as rows: their columns, and the statements on one row that several rooms use."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Row, bindparam, delete, update

from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.store.tables import identities

ROW = identities.c
KEY = (ROW.device_id == bindparam("device"), ROW.module_id == bindparam("module"))
KEPT = {
    *("device_id", "module_id", "parent_module_id"),
    *("connected", "connected_node", "connection_updated_time", "last_activity_time"),
}
"""Columns that `replace` leaves alone."""

REPLACE = update(identities).where(*KEY)
DELETE = delete(identities).where(*KEY)


def key(target: Target) -> dict[str, Any]:
    return {"device": target.device_id, "module": target.module_id}


def row_of(identity: Identity) -> dict[str, Any]:
    target, authentication = identity.target, identity.authentication
    return {
        "device_id": target.device_id,
        "module_id": target.module_id,
        "parent_module_id": "" if target.module_id else None,
        "generation_id": identity.generation_id,
        "etag": identity.etag,
        "authentication_type": authentication.type.value,
        "primary_key": authentication.primary_key,
        "secondary_key": authentication.secondary_key,
        "primary_thumbprint": authentication.primary_thumbprint,
        "secondary_thumbprint": authentication.secondary_thumbprint,
        "enabled": identity.enabled,
        "status_reason": identity.status_reason,
        "status_updated_time": identity.status_updated_time,
        "iot_edge": identity.iot_edge,
        "device_scope": identity.device_scope,
        "parent_scopes": json.dumps(identity.parent_scopes),
        "managed_by": identity.managed_by,
        "connected": identity.connected,
        "connection_updated_time": identity.connection_updated_time,
        "last_activity_time": identity.last_activity_time,
    }


def replaced_columns(identity: Identity) -> dict[str, Any]:
    return {name: value for name, value in row_of(identity).items() if name not in KEPT}


def identity_of(row: Row[Any]) -> Identity:
    return Identity(
        target=Target(row.device_id, row.module_id),
        generation_id=row.generation_id,
        etag=row.etag,
        authentication=Authentication(
            type=AuthenticationType(row.authentication_type),
            primary_key=row.primary_key,
            secondary_key=row.secondary_key,
            primary_thumbprint=row.primary_thumbprint,
            secondary_thumbprint=row.secondary_thumbprint,
        ),
        enabled=row.enabled,
        status_reason=row.status_reason,
        status_updated_time=row.status_updated_time,
        iot_edge=row.iot_edge,
        device_scope=row.device_scope,
        parent_scopes=tuple(json.loads(row.parent_scopes)),
        managed_by=row.managed_by,
        connected=row.connected,
        connection_updated_time=row.connection_updated_time,
        last_activity_time=row.last_activity_time,
    )
