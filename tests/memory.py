"""The same rows in plain dictionaries, for a hub that keeps nothing. Knows no database."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from methodhub.core.access import Policy
from methodhub.core.certificates.rules import CertificateAuthority
from methodhub.core.identity import Identity, Target
from methodhub.core.ports import (
    Change,
    ConnectionRecord,
    DeleteIdentity,
    InsertIdentity,
    RegistryStatistics,
    ReplaceIdentity,
    ReplaceTwin,
    Session,
)
from methodhub.core.twins.model import FRESH_VERSION, Twin


@dataclass(frozen=True, slots=True)
class MemoryTables:
    """What the stores share, as they would share a database: sessions go with their identities."""

    devices: dict[str, dict[str, Identity]] = field(default_factory=dict)
    """By device id, then by module id: the device itself under '', and its modules."""
    policies: dict[str, Policy] = field(default_factory=dict)
    authorities: dict[str, CertificateAuthority] = field(default_factory=dict)
    sessions: dict[Target, tuple[str, Session]] = field(default_factory=dict)
    """By target: the generation of the identity, and its session."""
    twins: dict[Target, Twin] = field(default_factory=dict)
    secrets: dict[str, bytes] = field(default_factory=dict)

    def identity(self, target: Target) -> Identity | None:
        return self.devices.get(target.device_id, {}).get(target.module_id)

    def save_twin(self, twin: Twin, if_version: int) -> bool:
        stored = self.twins.get(twin.target)
        if self.identity(twin.target) is None or if_version != (stored.version if stored else FRESH_VERSION):
            return False
        self.twins[twin.target] = twin
        return True


class MemoryIdentityStore:
    """The port `IdentityStore` in memory. A page costs a look at every device."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables
        self._devices = tables.devices

    async def get(self, target: Target) -> Identity | None:
        return self._tables.identity(target)

    async def get_many(self, targets: Sequence[Target]) -> list[Identity | None]:
        return [self._tables.identity(target) for target in targets]

    async def modules_of(self, device_ids: Collection[str]) -> list[Target]:
        return [module.target for device_id in device_ids for module in await self.modules(device_id)]

    async def insert(self, identity: Identity) -> bool:
        """Raises LookupError for a module whose device does not exist."""
        device_id, module_id = identity.target
        if self._tables.identity(identity.target) is not None:
            return False
        if not module_id:
            self._devices[device_id] = {"": identity}
        elif device_id in self._devices:
            self._devices[device_id][module_id] = identity
        else:
            raise LookupError(f"the device of {identity.target} does not exist")
        return True

    async def replace(self, identity: Identity, if_etag: str | None) -> bool:
        former = self._tables.identity(identity.target)
        if former is None or if_etag not in (None, former.etag):
            return False
        self._put(
            replace(
                identity,
                connected=former.connected,
                connection_updated_time=former.connection_updated_time,
                last_activity_time=former.last_activity_time,
            )
        )
        return True

    async def delete(self, target: Target, if_etag: str | None) -> list[Target] | None:
        former = self._tables.identity(target)
        if former is None or if_etag not in (None, former.etag):
            return None
        device_id, module_id = target
        family = self._devices[device_id]
        gone = [target] if module_id else [Target(device_id, each) for each in sorted(family)]
        for each in gone:
            del family[each.module_id]
            self._tables.sessions.pop(each, None)
            self._tables.twins.pop(each, None)
        if not family:
            del self._devices[device_id]
        return gone

    async def disconnect_dead(self, now: float) -> None:
        raise NotImplementedError("of a double")

    async def connected_devices(self) -> int:
        return sum(each.connected for family in self._devices.values() for name, each in family.items() if not name)

    async def page_devices(self, after: str, limit: int) -> list[Identity]:
        following = sorted(device_id for device_id in self._devices if device_id > after)
        return [self._devices[device_id][""] for device_id in following[:limit]]

    async def modules(self, device_id: str) -> list[Identity]:
        family = self._devices.get(device_id, {})
        return [family[module_id] for module_id in sorted(family) if module_id]

    async def record_connections(self, records: Iterable[ConnectionRecord]) -> None:
        for record in records:
            identity = self._tables.identity(record.target)
            if identity is not None:
                self._put(
                    replace(
                        identity,
                        connected=record.connected,
                        connection_updated_time=record.updated_time,
                        last_activity_time=record.last_activity_time,
                    )
                )

    async def expects_certificates(self) -> bool:
        families = self._devices.values()
        return any(each.authentication.type.is_certificate for family in families for each in family.values())

    async def disconnect_all(self, now: float) -> None:
        for family in self._devices.values():
            for module_id, identity in family.items():
                if identity.connected:
                    family[module_id] = replace(identity, connected=False, connection_updated_time=now)

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        outcomes = []
        refused: set[Target] = set()
        for change in changes:
            done = not (isinstance(change, ReplaceTwin) and change.twin.target in refused) and await self._apply(change)
            if isinstance(change, ReplaceIdentity):
                (refused.discard if done else refused.add)(change.identity.target)
            outcomes.append(done)
        return outcomes

    async def _apply(self, change: Change) -> bool:
        match change:
            case InsertIdentity(identity, twin):
                target = identity.target
                done = (not target.module_id or target.device_id in self._devices) and await self.insert(identity)
                if done and twin is not None:
                    self._tables.twins[target] = twin
                return done
            case ReplaceIdentity(identity, if_etag):
                return await self.replace(identity, if_etag)
            case DeleteIdentity(target, if_etag):
                return await self.delete(target, if_etag) is not None
            case ReplaceTwin(twin, if_version):
                return self._tables.save_twin(twin, if_version)

    async def statistics(self) -> RegistryStatistics:
        enabled = sum(family[""].enabled for family in self._devices.values())
        return RegistryStatistics(len(self._devices), enabled, len(self._devices) - enabled)

    def _put(self, identity: Identity) -> None:
        self._devices[identity.target.device_id][identity.target.module_id] = identity


class MemoryHubStore:
    """The port `HubStore` in memory."""

    def __init__(self, tables: MemoryTables) -> None:
        self._tables = tables

    async def next_generation(self) -> int:
        return time.monotonic_ns()

    async def policies(self) -> list[Policy]:
        """In the order of their names."""
        return [policy for _, policy in sorted(self._tables.policies.items())]

    async def insert_policies(self, policies: Iterable[Policy]) -> None:
        """A policy whose name is there stays as it is."""
        for policy in policies:
            self._tables.policies.setdefault(policy.name, policy)

    async def replace_policy(self, old: Policy, new: Policy) -> bool:
        stored = self._tables.policies.get(old.name)
        if stored is None or (stored.primary_key, stored.secondary_key) != (old.primary_key, old.secondary_key):
            return False
        self._tables.policies[old.name] = new
        return True

    async def delete_policy(self, name: str) -> bool:
        if list(self._tables.policies) == [name]:
            return False
        self._tables.policies.pop(name, None)
        return True

    async def secret(self, name: str, fresh: bytes) -> bytes:
        return self._tables.secrets.setdefault(name, fresh)

    async def twins(self, targets: Sequence[Target]) -> list[Twin]:
        return [self._tables.twins.get(target) or Twin(target) for target in targets]

    async def save_twins(self, twins: Sequence[tuple[Twin, int]]) -> list[bool]:
        return [self._tables.save_twin(twin, if_version) for twin, if_version in twins]

    async def authorities(self) -> list[CertificateAuthority]:
        """In the order of their names."""
        return [authority for _, authority in sorted(self._tables.authorities.items())]

    async def insert_authority(self, authority: CertificateAuthority) -> bool:
        return self._tables.authorities.setdefault(authority.name, authority) is authority

    async def replace_authority(self, authority: CertificateAuthority) -> bool:
        if authority.name not in self._tables.authorities:
            return False
        self._tables.authorities[authority.name] = authority
        return True

    async def delete_authority(self, name: str) -> None:
        self._tables.authorities.pop(name, None)

    async def session(self, target: Target, generation_id: str) -> Session | None:
        """[HUB-session] None for a session of another generation: it ended with the identity it was of."""
        generation, session = self._tables.sessions.get(target, ("", None))
        return session if generation == generation_id else None

    async def save_session(self, target: Target, generation_id: str, session: Session) -> None:
        """Without effect if no identity has this generation: the session would outlive it."""
        identity = self._tables.identity(target)
        if identity is not None and identity.generation_id == generation_id:
            self._tables.sessions[target] = (generation_id, session)

    async def delete_session(self, target: Target) -> None:
        self._tables.sessions.pop(target, None)
