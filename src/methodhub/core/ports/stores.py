"""What is kept: rows of identities, of the hub itself and of jobs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from methodhub.core.access import Policy
from methodhub.core.certificates.rules import CertificateAuthority
from methodhub.core.errors import HubError
from methodhub.core.identity import Identity, Target
from methodhub.core.jobs.model import DeviceJobStatus, Job, JobStatus, JobType, Lease, Orphan, Progress, Report
from methodhub.core.twins.model import Twin


class StoreUnavailable(Exception):
    """A store cannot do its work at this time: its disk is full, its database locked or away. The text says why."""


class QueryTooSlow(Exception):
    """A query took longer than it may, or found no connection in that time."""


@dataclass(frozen=True, slots=True)
class Session:
    """What outlives a connection with CleanSession=0: the granted filters and their QoS."""

    subscriptions: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class ConnectionRecord:
    """Whether a target is connected, since when, and when it was last heard (seconds since 1970, UTC)."""

    target: Target
    connected: bool
    updated_time: float
    last_activity_time: float
    node_id: str = ""
    """Of the node that tells it. What it tells of an end is not recorded where another has the target by now."""


@dataclass(frozen=True, slots=True)
class InsertIdentity:
    """Fails if the target exists, or for a module if its device does not."""

    identity: Identity
    twin: Twin | None = None


@dataclass(frozen=True, slots=True)
class ReplaceIdentity:
    """As `IdentityStore.replace`; fails if the row is gone or has another etag."""

    identity: Identity
    if_etag: str | None


@dataclass(frozen=True, slots=True)
class DeleteIdentity:
    """As `IdentityStore.delete`, with what belongs to it; fails if the row is gone or has another etag."""

    target: Target
    if_etag: str | None


@dataclass(frozen=True, slots=True)
class ReplaceTwin:
    """As one of `HubStore.save_twins`; fails if the stored twin has another version or its identity is gone."""

    twin: Twin
    if_version: int


Change = InsertIdentity | ReplaceIdentity | DeleteIdentity | ReplaceTwin


@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """How many devices there are; modules are not counted (`wire/service.md` 3.1)."""

    total: int
    enabled: int
    disabled: int


class IdentityStore(Protocol):
    """Rows of identities. Each method is one transaction; none decides meaning."""

    async def get(self, target: Target) -> Identity | None: ...

    async def get_many(self, targets: Sequence[Target]) -> list[Identity | None]:
        """In the order of the targets."""
        ...

    async def insert(self, identity: Identity) -> bool:
        """False if the target exists. A module whose device does not exist is a caller's error."""
        ...

    async def replace(self, identity: Identity, if_etag: str | None) -> bool:
        """Write everything but the connection's state. False if the row is gone or has another etag than `if_etag`."""
        ...

    async def delete(self, target: Target, if_etag: str | None) -> list[Target] | None:
        """Delete the identity, with a device its modules, and their sessions. The targets that went, or None if the
        row is not there or has another etag."""
        ...

    async def page_devices(self, after: str, limit: int) -> list[Identity]:
        """Devices in the order of their ids, after the id `after` (empty: from the first)."""
        ...

    async def modules(self, device_id: str) -> list[Identity]: ...

    async def modules_of(self, device_ids: Collection[str]) -> list[Target]:
        """Of all these devices."""
        ...

    async def record_connections(self, records: Iterable[ConnectionRecord]) -> None: ...

    async def expects_certificates(self) -> bool:
        """Whether any identity proves itself by a certificate."""
        ...

    async def disconnect_all(self, now: float) -> None:
        """After a start: whoever is recorded as connected is so no more."""
        ...

    async def disconnect_dead(self, now: float) -> None:
        """Whoever is recorded as connected to a node that is no more is so no longer."""
        ...

    async def connected_devices(self) -> int: ...

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply changes in their order, in one transaction; for each, whether its condition held. One that did not
        leaves its own rows alone and stops no other; but behind an identity that was not replaced its twin is not."""
        ...

    async def statistics(self) -> RegistryStatistics: ...


class HubStore(Protocol):
    """The hub's own rows: policies, CA certificates, device sessions and twins."""

    async def policies(self) -> list[Policy]: ...

    async def insert_policies(self, policies: Iterable[Policy]) -> None: ...

    async def authorities(self) -> list[CertificateAuthority]:
        """In the order of their names."""
        ...

    async def insert_authority(self, authority: CertificateAuthority) -> bool:
        """False if the name is taken."""
        ...

    async def replace_authority(self, authority: CertificateAuthority) -> bool:
        """False if there is none of this name."""
        ...

    async def delete_authority(self, name: str) -> None: ...

    async def session(self, target: Target, generation_id: str) -> Session | None: ...

    async def save_session(self, target: Target, generation_id: str, session: Session) -> None: ...

    async def delete_session(self, target: Target) -> None: ...

    async def replace_policy(self, old: Policy, new: Policy) -> bool:
        """Write the policy of this name anew. False if its keys are no longer the old ones, or it is gone."""
        ...

    async def delete_policy(self, name: str) -> bool:
        """False if it is the last one, which stays; of several that are deleted at once, one does."""
        ...

    async def next_generation(self) -> int:
        """A number higher than each that any node was given before."""
        ...

    async def secret(self, name: str, fresh: bytes) -> bytes:
        """The hub's secret of this name: what was stored first, `fresh` if nothing was."""
        ...

    async def twins(self, targets: Sequence[Target]) -> list[Twin]:
        """In the order of the targets; one that was never changed is fresh. It is not looked up if it exists."""
        ...

    async def save_twins(self, twins: Sequence[tuple[Twin, int]]) -> list[bool]:
        """Write each twin if the stored one has the version given with it (FRESH_VERSION: or there is none), all in one
        transaction. False for one that has another version, or whose identity is gone."""
        ...


class Insertion(StrEnum):
    """How the insert of a job ended."""

    DONE = "it is stored"
    EXISTS = "its id is taken"
    FULL = "as many jobs are active as may be"


class JobStore(Protocol):
    """Jobs, their devices, and the nodes that call them. Each method is one transaction, in which the counts of a job
    change with the states of its devices. `now`: seconds since 1970 by the hub's clock; a node's life is measured by
    the database's."""

    async def insert(self, job: Job, active_limit: int) -> Insertion:
        """Unless its id is taken; or it begins now, and so many jobs are queued or run already."""
        ...

    async def get(self, job_id: str) -> Job | None: ...

    async def page(self, job_type: JobType | None, status: JobStatus | None, after: str, limit: int) -> list[Job]:
        """In the order of their ids, behind the id `after`."""
        ...

    async def due(self, now: float, limit: int) -> list[Job]:
        """Those that run, then those that should, the earliest first."""
        ...

    async def next_start(self, now: float) -> float | None:
        """When the next job begins that does not yet."""
        ...

    async def begin(self, job_id: str, now: float) -> Progress | None:
        """It runs from now on, and its devices are being chosen. None if it runs already, or has ended."""
        ...

    async def select(
        self, job: Job, after: Target, targets: Sequence[Target], last: bool, now: float
    ) -> tuple[Progress, Target]:
        """Add devices that were chosen behind the target `after`; `last`: there are no more. Without effect if others
        were added meanwhile, or no more are wanted. Also returns the last device that is chosen now."""
        ...

    async def open_rest(self, job_id: str) -> Progress:
        """The devices behind the first ones of a rollout may be called."""
        ...

    async def give_up(self, job_id: str, reason: str) -> Progress:
        """No further device is to be called, and the job fails; unless it is being cancelled."""
        ...

    async def lease(
        self, job_id: str, node_id: str, now: float, limit: int, below: int | None
    ) -> tuple[list[Lease], Progress]:
        """Mark due devices as running on this node, so that no other takes them. `below`: of the first so many only."""
        ...

    async def next_due(self, job_id: str, now: float) -> float | None:
        """When the next device is due that is not yet and does not wait for its connect."""
        ...

    async def record(self, node_id: str, reports: Sequence[Report], now: float) -> dict[str, Progress]:
        """Write what became of devices, each if this node still has its lease. The progress of their jobs, by id."""
        ...

    async def end_pending(
        self, job_id: str, status: DeviceJobStatus, error: HubError | None, now: float, limit: int
    ) -> Progress:
        """End so many devices that wait. `error`: of those that have none of an earlier call."""
        ...

    async def finish(self, job_id: str, status: JobStatus, now: float) -> Progress:
        """End a running job none of whose devices is left."""
        ...

    async def cancel(self, job_id: str, now: float) -> Job | None:
        """End a job that has not begun; let one that runs begin no further device. None if there is no such job."""
        ...

    async def wake(self, targets: Sequence[Target], now: float) -> set[str]:
        """Devices that wait for their connect are due. The ids of their jobs."""
        ...

    async def enabled(self, targets: Sequence[Target]) -> dict[Target, bool]:
        """Of those that exist, whether each is enabled."""
        ...

    async def enroll(self, node_id: str, seconds: float, alone: bool) -> None:
        """A node lives for so many seconds. `alone`: every other one is dead, as its caller knows."""
        ...

    async def clock(self) -> float:
        """Seconds since 1970, UTC, by the database's clock."""
        ...

    async def renew(self, node_id: str, seconds: float) -> bool:
        """It lives for so many seconds from now. False if it was taken for dead: its leases are no longer its own."""
        ...

    async def retire(self, node_id: str) -> None: ...

    async def bury(self) -> int:
        """Forget the nodes whose time is over. How many there were."""
        ...

    async def live_nodes(self, left: float) -> set[str]:
        """Those that live for more than so many seconds yet, by the database's clock."""
        ...

    async def orphans(self, limit: int) -> list[Orphan]:
        """Devices that run on a node which is no more."""
        ...

    async def purge(self, before: float, limit: int) -> bool:
        """Delete jobs that ended before, so many rows of one. False if there was none."""
        ...
