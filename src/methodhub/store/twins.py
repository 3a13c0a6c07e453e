"""Twins as rows: read by their targets, written where the stored version is the expected one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, FromClause, Row, Select, bindparam, select, update

from methodhub.core.identity import Target
from methodhub.core.twins.model import FRESH_VERSION, Section, Twin
from methodhub.store.database import Database
from methodhub.store.rows import key
from methodhub.store.tables import identities, twins

ROW = twins.c
PARTS = ("desired", "reported")
UPDATE = update(twins).where(ROW.device_id == bindparam("device"), ROW.module_id == bindparam("module"))


class TwinRows:
    """Statements on twins, within a transaction of the caller's."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.by_targets = of_targets(select(twins), twins, database.targets)
        versions = of_targets(select(ROW.device_id, ROW.module_id, ROW.version), twins, database.targets)
        self._lock_versions = versions.with_for_update(of=twins)
        owners = of_targets(select(identities.c.device_id, identities.c.module_id), identities, database.targets)
        # Weak enough for a session or another twin to be written beside it, strong enough against a delete.
        self._hold_owners = owners.with_for_update(read=True, key_share=True, of=identities)
        self._insert = database.insert(twins).on_conflict_do_nothing().returning(ROW.device_id, ROW.module_id)

    def save(self, connection: Connection, changes: Sequence[tuple[Twin, int]]) -> list[bool]:
        """As `HubStore.save_twins`; of several for one target, each is judged by what the one before it left."""
        outcomes: list[bool] = []
        for run in distinct(changes):
            outcomes += self._save(connection, run)
        return outcomes

    def insert(self, connection: Connection, fresh: Sequence[Twin]) -> set[Target]:
        """The targets whose twin was written: those that had none."""
        rows = [row_of(twin) for twin in fresh]
        return {Target(*row) for row in connection.execute(self._insert, rows)} if rows else set()

    def _save(self, connection: Connection, changes: Sequence[tuple[Twin, int]]) -> list[bool]:
        targets = self._database.parameters_of(twin.target for twin, _ in changes)
        owners = {Target(*row) for row in connection.execute(self._hold_owners, targets)}
        versions = {Target(*row[:2]): row[2] for row in connection.execute(self._lock_versions, targets)}
        updated: dict[Target, Twin] = {}
        created: list[Twin] = []
        for twin, if_version in changes:
            target = twin.target
            if target in owners and versions.get(target, FRESH_VERSION) == if_version:
                if target in versions:
                    updated[target] = twin
                else:
                    created.append(twin)
        if updated:
            connection.execute(UPDATE, [columns_of(twin) | key(target) for target, twin in updated.items()])
        written = self.insert(connection, created) | updated.keys()
        return [twin.target in written for twin, _ in changes]


def of_targets(query: Select[Any], table: FromClause, targets: FromClause) -> Select[Any]:
    """The rows of `table` at the bound targets, in the order of their keys: locks are taken in that order, too."""
    device_id, module_id = table.c.device_id, table.c.module_id
    both = (device_id == targets.c.device_id) & (module_id == targets.c.module_id)
    return query.join_from(targets, table, both).order_by(device_id, module_id)


def distinct(changes: Sequence[tuple[Twin, int]]) -> list[list[tuple[Twin, int]]]:
    """Runs in which no target comes twice."""
    runs: list[list[tuple[Twin, int]]] = []
    seen: set[Target] = set()
    for change in changes:
        target = change[0].target
        if not runs or target in seen:
            runs.append([])
            seen = set()
        runs[-1].append(change)
        seen.add(target)
    return runs


def row_of(twin: Twin) -> dict[str, Any]:
    return {"device_id": twin.target.device_id, "module_id": twin.target.module_id} | columns_of(twin)


def columns_of(twin: Twin) -> dict[str, Any]:
    row = {
        "version": twin.version,
        "tags": json_of(twin.tags),
        "model_id": twin.model_id,
    }
    for part in PARTS:
        section: Section = getattr(twin, part)
        row[part] = json_of(section.values)
        row[f"{part}_metadata"] = json_of(section.metadata)
        row[f"{part}_version"] = section.version
    return row


def twin_of(row: Row[Any]) -> Twin:
    desired, reported = (section_of(row, part) for part in PARTS)
    return Twin(
        Target(row.device_id, row.module_id), row.version, json.loads(row.tags), desired, reported, row.model_id
    )


def section_of(row: Row[Any], part: str) -> Section:
    values, metadata = json.loads(getattr(row, part)), json.loads(getattr(row, f"{part}_metadata"))
    return Section(values, metadata, getattr(row, f"{part}_version"))


def json_of(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
