"""Identities as rows of a database. Decides nothing about them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Row, Select, bindparam, delete, select, update
from sqlalchemy.exc import IntegrityError

from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import ConnectionRecord
from methodhub.store.database import Database
from methodhub.store.tables import BY_CERTIFICATE, identities

ROW = identities.c
KEY = (ROW.device_id == bindparam("device"), ROW.module_id == bindparam("module"))
KEPT = {
    *("device_id", "module_id", "parent_module_id"),
    *("connected", "connection_updated_time", "last_activity_time"),
}
"""Columns that `replace` leaves alone."""

GET = select(identities).where(*KEY)
MODULES = select(identities).where(ROW.device_id == bindparam("device"), ROW.module_id > "").order_by(ROW.module_id)
PAGE = (
    select(identities)
    .where(ROW.device_id > bindparam("after"), ROW.module_id == "")
    .order_by(ROW.device_id)
    .limit(bindparam("limit"))
)
REPLACE = update(identities).where(*KEY)
REPLACE_IF = REPLACE.where(ROW.etag == bindparam("if_etag"))
LOCK = select(ROW.etag).where(*KEY).with_for_update()
MODULE_IDS = MODULES.with_only_columns(ROW.module_id)
DELETE = delete(identities).where(*KEY)
RECORD = (
    update(identities)
    .where(*KEY)
    .values(
        connected=bindparam("is_connected"),
        connection_updated_time=bindparam("updated"),
        last_activity_time=bindparam("heard"),
    )
)
DISCONNECT_ALL = (
    update(identities).where(ROW.connected.is_(True)).values(connected=False, connection_updated_time=bindparam("now"))
)

EXPECTS_CERTIFICATES = select(ROW.device_id).where(BY_CERTIFICATE).limit(1)


class SqlIdentityStore:
    """The port `IdentityStore` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.insert(identities).on_conflict_do_nothing()

    async def get(self, target: Target) -> Identity | None:
        rows = await self._database.rows(GET, key(target))
        return identity_of(rows[0]) if rows else None

    async def insert(self, identity: Identity) -> bool:
        """Raises LookupError for a module whose device does not exist."""
        try:
            return await self._database.execute(self._insert, row_of(identity)) == 1
        except IntegrityError as error:
            raise LookupError(f"the device of {identity.target} does not exist") from error

    async def replace(self, identity: Identity, if_etag: str | None) -> bool:
        columns = {name: value for name, value in row_of(identity).items() if name not in KEPT}
        parameters = columns | key(identity.target)
        if if_etag is None:
            return await self._database.execute(REPLACE, parameters) == 1
        return await self._database.execute(REPLACE_IF, parameters | {"if_etag": if_etag}) == 1

    async def delete(self, target: Target, if_etag: str | None) -> list[Target] | None:
        def work(connection: Connection) -> list[Target] | None:
            etag = connection.execute(LOCK, key(target)).scalar()
            if etag is None or if_etag not in (None, etag):
                return None
            gone = [target]
            if not target.module_id:
                modules = connection.execute(MODULE_IDS, {"device": target.device_id}).scalars()
                gone += [Target(target.device_id, module_id) for module_id in modules]
            # The rows of its modules and sessions go by the foreign keys.
            connection.execute(DELETE, key(target))
            return gone

        return await self._database.write(work)

    async def page_devices(self, after: str, limit: int) -> list[Identity]:
        return await self._identities(PAGE, {"after": after, "limit": limit})

    async def modules(self, device_id: str) -> list[Identity]:
        return await self._identities(MODULES, {"device": device_id})

    async def record_connections(self, records: Iterable[ConnectionRecord]) -> None:
        parameters = [
            key(record.target)
            | {
                "is_connected": record.connected,
                "updated": record.updated_time,
                "heard": record.last_activity_time,
            }
            for record in records
        ]
        if parameters:
            await self._database.execute(RECORD, parameters)

    async def expects_certificates(self) -> bool:
        return bool(await self._database.rows(EXPECTS_CERTIFICATES, {}))

    async def disconnect_all(self, now: float) -> None:
        await self._database.execute(DISCONNECT_ALL, {"now": now})

    async def _identities(self, query: Select[Any], parameters: dict[str, Any]) -> list[Identity]:
        return [identity_of(row) for row in await self._database.rows(query, parameters)]


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
