"""Identities as rows of a database. Decides nothing about them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import Boolean, Connection, Select, Text, bindparam, func, or_, select, update
from sqlalchemy.exc import IntegrityError

from methodhub.core.identity import Identity, Target
from methodhub.core.ports import Change, ConnectionRecord, RegistryStatistics
from methodhub.core.twins.batches import Batches
from methodhub.store.changes import Changes
from methodhub.store.database import Database
from methodhub.store.rows import DELETE, KEY, REPLACE, ROW, identity_of, key, replaced_columns, row_of
from methodhub.store.tables import BY_CERTIFICATE, DEVICES, identities, nodes
from methodhub.store.twins import of_targets

MODULES = select(identities).where(ROW.device_id == bindparam("device"), ROW.module_id > "").order_by(ROW.module_id)
PAGE = (
    select(identities)
    .where(ROW.device_id > bindparam("after"), ROW.module_id == "")
    .order_by(ROW.device_id)
    .limit(bindparam("limit"))
)
REPLACE_IF = REPLACE.where(ROW.etag == bindparam("if_etag"))
LOCK = select(ROW.etag).where(*KEY).with_for_update()
MODULE_IDS = MODULES.with_only_columns(ROW.module_id)
IS_CONNECTED = bindparam("is_connected", type_=Boolean)
RECORD = (
    update(identities)
    .where(*KEY)
    # [HUB-takeover] The end of an older connection never erases the presence of a newer one on another node.
    .where(or_(IS_CONNECTED, ROW.connected_node.is_(None), ROW.connected_node == bindparam("node", type_=Text)))
    .values(
        connected=IS_CONNECTED,
        connected_node=bindparam("node", type_=Text),
        connection_updated_time=bindparam("updated"),
        last_activity_time=bindparam("heard"),
    )
)
DISCONNECT_ALL = (
    update(identities).where(ROW.connected.is_(True)).values(connected=False, connection_updated_time=bindparam("now"))
)

DISCONNECT_DEAD = DISCONNECT_ALL.where(
    or_(ROW.connected_node.is_(None), ROW.connected_node.not_in(select(nodes.c.node_id)))
)
CONNECTED_DEVICES = select(func.count()).select_from(identities).where(ROW.connected.is_(True), ROW.module_id == "")

EXPECTS_CERTIFICATES = select(ROW.device_id).where(BY_CERTIFICATE).limit(1)

STATISTICS = select(ROW.enabled, func.count().label("devices")).where(DEVICES).group_by(ROW.enabled)


class SqlIdentityStore:
    """The port `IdentityStore` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = database.insert(identities).on_conflict_do_nothing()
        self._changes = Changes(database)
        self._gets: Batches[Target, Identity | None] = Batches(self.get_many)
        targets = database.targets
        self._get_many = of_targets(select(identities), identities, targets)
        self._modules_of = select(ROW.device_id, ROW.module_id).join_from(
            targets, identities, (ROW.device_id == targets.c.device_id) & (ROW.module_id > "")
        )

    async def get(self, target: Target) -> Identity | None:
        """Those who ask at the same time, as reconnecting devices do, share a statement."""
        return await self._gets.do(target)

    async def get_many(self, targets: Sequence[Target]) -> list[Identity | None]:
        found = {each.target: each for each in await self._identities(self._get_many, self._parameters(targets))}
        return [found.get(target) for target in targets]

    async def modules_of(self, device_ids: Collection[str]) -> list[Target]:
        devices = [Target(device_id) for device_id in device_ids]
        return [Target(*row) for row in await self._database.rows(self._modules_of, self._parameters(devices))]

    def _parameters(self, targets: Iterable[Target]) -> dict[str, Any]:
        return self._database.parameters_of(targets)

    async def insert(self, identity: Identity) -> bool:
        """Raises LookupError for a module whose device does not exist."""
        try:
            return await self._database.execute(self._insert, row_of(identity)) == 1
        except IntegrityError as error:
            raise LookupError(f"the device of {identity.target} does not exist") from error

    async def replace(self, identity: Identity, if_etag: str | None) -> bool:
        parameters = replaced_columns(identity) | key(identity.target)
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
                "node": record.node_id,
            }
            for record in records
        ]
        if parameters:
            await self._database.execute(RECORD, parameters)

    async def expects_certificates(self) -> bool:
        return bool(await self._database.rows(EXPECTS_CERTIFICATES, {}))

    async def disconnect_all(self, now: float) -> None:
        await self._database.execute(DISCONNECT_ALL, {"now": now})

    async def disconnect_dead(self, now: float) -> None:
        await self._database.execute(DISCONNECT_DEAD, {"now": now})

    async def connected_devices(self) -> int:
        return int((await self._database.rows(CONNECTED_DEVICES, {}))[0][0])

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        return await self._database.write(lambda connection: self._changes.apply(connection, changes))

    async def statistics(self) -> RegistryStatistics:
        """[HUB-statistics] Counted exactly, in the small index `identities_devices`: no row is read."""
        counts = {row.enabled: row.devices for row in await self._database.rows(STATISTICS, {})}
        enabled, disabled = counts.get(True, 0), counts.get(False, 0)
        return RegistryStatistics(enabled + disabled, enabled, disabled)

    async def _identities(self, query: Select[Any], parameters: dict[str, Any]) -> list[Identity]:
        return [identity_of(row) for row in await self._database.rows(query, parameters)]
