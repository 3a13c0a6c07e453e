"""Many changes of identities in one transaction, in few statements. Decides nothing about them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from sqlalchemy import Connection, select

from methodhub.core.identity import Target
from methodhub.core.ports import Change, DeleteIdentity, InsertIdentity, ReplaceIdentity, ReplaceTwin
from methodhub.store.database import Database
from methodhub.store.rows import DELETE, REPLACE, key, replaced_columns, row_of
from methodhub.store.tables import identities
from methodhub.store.twins import TwinRows, of_targets

ROW = identities.c


class Changes:
    """Applies changes in runs of one kind that touch different rows: their order within a run is of no effect."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._twins = TwinRows(database)
        self._insert = database.insert(identities).on_conflict_do_nothing().returning(ROW.device_id, ROW.module_id)
        etags = of_targets(select(ROW.device_id, ROW.module_id, ROW.etag), identities, database.targets)
        self._lock = etags.with_for_update(of=identities)
        keys = etags.with_only_columns(ROW.device_id)
        self._hold = keys.with_for_update(read=True, key_share=True, of=identities)
        self._steps: dict[type[Any], Callable[[Connection, Any], list[bool]]] = {
            InsertIdentity: self._inserts,
            ReplaceIdentity: self._replaces,
            DeleteIdentity: self._deletes,
            ReplaceTwin: self._replace_twins,
        }

    def apply(self, connection: Connection, changes: Sequence[Change]) -> list[bool]:
        outcomes: list[bool] = []
        refused: set[Target] = set()
        for run in runs(changes):
            able = [change for change in run if not (isinstance(change, ReplaceTwin) and target_of(change) in refused)]
            done = self._steps[type(run[0])](connection, able) if able else []
            held = {target_of(change) for change, is_done in zip(able, done, strict=True) if is_done}
            if isinstance(run[0], ReplaceIdentity):
                refused = (refused | set(map(target_of, run))) - held
            outcomes += [target_of(change) in held for change in run]
        return outcomes

    def _inserts(self, connection: Connection, run: list[InsertIdentity]) -> list[bool]:
        parents = {change.identity.target.device for change in run if change.identity.target.module_id}
        held = {Target(row[0]) for row in connection.execute(self._hold, self._parameters(parents))} if parents else ()
        able = [each for each in run if not each.identity.target.module_id or each.identity.target.device in held]
        # In the order of their keys: two transactions then wait for each other in one direction only.
        rows = [row_of(each.identity) for each in sorted(able, key=target_of)]
        written = {Target(*row) for row in connection.execute(self._insert, rows)} if rows else set()
        self._twins.insert(connection, [each.twin for each in able if each.twin and target_of(each) in written])
        return [target_of(each) in written for each in run]

    def _replaces(self, connection: Connection, run: list[ReplaceIdentity]) -> list[bool]:
        outcomes = self._conditions(connection, run)
        rows = [
            replaced_columns(each.identity) | key(each.identity.target)
            for each, held in zip(run, outcomes, strict=True)
            if held
        ]
        if rows:
            connection.execute(REPLACE, rows)
        return outcomes

    def _deletes(self, connection: Connection, run: list[DeleteIdentity]) -> list[bool]:
        outcomes = self._conditions(connection, run)
        rows = [key(each.target) for each, held in zip(run, outcomes, strict=True) if held]
        if rows:
            # The rows of modules, sessions and twins go by the foreign keys.
            connection.execute(DELETE, rows)
        return outcomes

    def _replace_twins(self, connection: Connection, run: list[ReplaceTwin]) -> list[bool]:
        return self._twins.save(connection, [(each.twin, each.if_version) for each in run])

    def _conditions(self, connection: Connection, run: Sequence[ReplaceIdentity | DeleteIdentity]) -> list[bool]:
        """Whether each row is there with its etag. It stays so until the transaction ends."""
        rows = connection.execute(self._lock, self._parameters(map(target_of, run)))
        etags = {Target(*row[:2]): row[2] for row in rows}
        return [target_of(each) in etags and each.if_etag in (None, etags[target_of(each)]) for each in run]

    def _parameters(self, targets: Iterable[Target]) -> dict[str, Any]:
        return self._database.parameters_of(targets)


def target_of(change: Change) -> Target:
    match change:
        case InsertIdentity(identity) | ReplaceIdentity(identity):
            return identity.target
        case ReplaceTwin(twin):
            return twin.target
        case DeleteIdentity(target):
            return target


def runs(changes: Iterable[Change]) -> list[list[Change]]:
    """Neighbours of one kind, parted where a target, or the device of a module, comes again."""
    found: list[list[Change]] = []
    seen: set[Target] = set()
    for change in changes:
        target = target_of(change)
        if not found or type(found[-1][0]) is not type(change) or target in seen or target.device in seen:
            found.append([])
            seen = set()
        found[-1].append(change)
        seen.add(target)
    return found
