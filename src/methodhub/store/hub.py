"""The hub's own rows in a database: policies, secrets, CA certificates, device sessions, twins. Decides nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from sqlalchemy import Connection, Text, bindparam, delete, select, update

from methodhub.core.access import RIGHT_NAMES, Policy, Right
from methodhub.core.certificates.rules import CertificateAuthority
from methodhub.core.identity import Target
from methodhub.core.ports import Session
from methodhub.core.twins.batches import Batches
from methodhub.core.twins.model import Twin
from methodhub.store.database import Database
from methodhub.store.rows import key
from methodhub.store.tables import (
    certificate_authorities,
    device_sessions,
    generations,
    identities,
    policies,
    secrets,
)
from methodhub.store.twins import TwinRows, of_targets, twin_of

RIGHTS = {name: right for right, name in RIGHT_NAMES.items()}

NEXT_GENERATION = select(generations.next_value())
POLICIES = select(policies).order_by(policies.c.name)
AUTHORITIES = select(certificate_authorities).order_by(certificate_authorities.c.name)
REPLACE_AUTHORITY = update(certificate_authorities).where(certificate_authorities.c.name == bindparam("of_name"))
DELETE_AUTHORITY = delete(certificate_authorities).where(certificate_authorities.c.name == bindparam("of_name"))
SESSION_KEY = (
    device_sessions.c.device_id == bindparam("device"),
    device_sessions.c.module_id == bindparam("module"),
)
DELETE_SESSION = delete(device_sessions).where(*SESSION_KEY)
NEW_SESSION = select(
    identities.c.device_id,
    identities.c.module_id,
    identities.c.generation_id,
    bindparam("subscriptions", type_=Text),
).where(
    identities.c.device_id == bindparam("device"),
    identities.c.module_id == bindparam("module"),
    identities.c.generation_id == bindparam("generation"),
)
REPLACE_POLICY = update(policies).where(
    policies.c.name == bindparam("of_name"),
    policies.c.primary_key == bindparam("old_primary"),
    policies.c.secondary_key == bindparam("old_secondary"),
)
HELD_POLICIES = select(policies.c.name).order_by(policies.c.name).with_for_update()
DELETE_POLICY = delete(policies).where(policies.c.name == bindparam("of_name"))
SECRET = select(secrets.c.value).where(secrets.c.name == bindparam("of_name"))


class SqlHubStore:
    """The port `HubStore` on a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._by_targets = of_targets(select(device_sessions), device_sessions, database.targets)
        self._reads: Batches[Target, tuple[str, Session] | None] = Batches(self._sessions)
        self._insert_policy = database.insert(policies).on_conflict_do_nothing()
        self._insert_secret = database.insert(secrets).on_conflict_do_nothing()
        self._twins = TwinRows(database)
        self._insert_authority = database.insert(certificate_authorities).on_conflict_do_nothing()
        save = database.insert(device_sessions).from_select(list(device_sessions.c.keys()), NEW_SESSION)
        self._save_session = save.on_conflict_do_update(
            index_elements=["device_id", "module_id"],
            set_={
                "generation_id": save.excluded.generation_id,
                "subscriptions": save.excluded.subscriptions,
            },
        )

    async def policies(self) -> list[Policy]:
        """In the order of their names."""
        return [
            Policy(row.name, rights_of(row.rights), row.primary_key, row.secondary_key)
            for row in await self._database.rows(POLICIES, {})
        ]

    async def insert_policies(self, policies: Iterable[Policy]) -> None:
        """A policy whose name is there stays as it is."""
        rows = [policy_row(policy) for policy in policies]
        if rows:
            await self._database.execute(self._insert_policy, rows)

    async def replace_policy(self, old: Policy, new: Policy) -> bool:
        named = {"of_name": old.name, "old_primary": old.primary_key, "old_secondary": old.secondary_key}
        return await self._database.execute(REPLACE_POLICY, policy_row(new) | named) == 1

    async def delete_policy(self, name: str) -> bool:
        def work(connection: Connection) -> bool:
            if connection.execute(HELD_POLICIES).scalars().all() == [name]:
                return False
            connection.execute(DELETE_POLICY, {"of_name": name})
            return True

        return await self._database.write(work)

    async def next_generation(self) -> int:
        if self._database.dialect == "sqlite":
            return time.monotonic_ns()  # the nodes of a file are processes of one machine, and share this clock
        return int((await self._database.rows(NEXT_GENERATION, {}))[0][0])

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """[HUB-secret] What was stored first, for nodes that start at once."""

        def work(connection: Connection) -> bytes:
            connection.execute(self._insert_secret, {"name": name, "value": fresh})
            return bytes(connection.execute(SECRET, {"of_name": name}).scalar_one())

        return await self._database.write(work)

    async def authorities(self) -> list[CertificateAuthority]:
        """In the order of their names."""
        rows = await self._database.rows(AUTHORITIES, {})
        return [CertificateAuthority(row.name, row.pem, row.verified, row.verification_code) for row in rows]

    async def insert_authority(self, authority: CertificateAuthority) -> bool:
        return await self._database.execute(self._insert_authority, asdict(authority)) == 1

    async def replace_authority(self, authority: CertificateAuthority) -> bool:
        row = asdict(authority) | {"of_name": authority.name}
        return await self._database.execute(REPLACE_AUTHORITY, row) == 1

    async def delete_authority(self, name: str) -> None:
        await self._database.execute(DELETE_AUTHORITY, {"of_name": name})

    async def session(self, target: Target, generation_id: str) -> Session | None:
        """[HUB-session] None for a session of another generation: it ended with the identity it was of."""
        stored = await self._reads.do(target)
        return None if stored is None or stored[0] != generation_id else stored[1]

    async def _sessions(self, targets: Sequence[Target]) -> list[tuple[str, Session] | None]:
        rows = await self._database.rows(self._by_targets, self._database.parameters_of(targets))
        found = {
            Target(row.device_id, row.module_id): (row.generation_id, Session(subscriptions_of(row.subscriptions)))
            for row in rows
        }
        return [found.get(target) for target in targets]

    async def save_session(self, target: Target, generation_id: str, session: Session) -> None:
        """Without effect if no identity has this generation: the session would outlive it."""
        await self._database.execute(
            self._save_session,
            key(target) | {"generation": generation_id, "subscriptions": json.dumps(session.subscriptions)},
        )

    async def delete_session(self, target: Target) -> None:
        await self._database.execute(DELETE_SESSION, key(target))

    async def twins(self, targets: Sequence[Target]) -> list[Twin]:
        rows = await self._database.rows(self._twins.by_targets, self._database.parameters_of(targets))
        stored = {twin.target: twin for twin in map(twin_of, rows)}
        return [stored.get(target) or Twin(target) for target in targets]

    async def save_twins(self, twins: Sequence[tuple[Twin, int]]) -> list[bool]:
        return await self._database.write(lambda connection: self._twins.save(connection, twins))


def policy_row(policy: Policy) -> dict[str, Any]:
    return {
        "name": policy.name,
        "rights": ",".join(RIGHT_NAMES[right] for right in policy.rights),
        "primary_key": policy.primary_key,
        "secondary_key": policy.secondary_key,
    }


def rights_of(text: str) -> Right:
    rights = Right(0)
    for name in filter(None, text.split(",")):
        rights |= RIGHTS[name]
    return rights


def subscriptions_of(text: str) -> tuple[tuple[str, int], ...]:
    return tuple((topic_filter, qos) for topic_filter, qos in json.loads(text))
