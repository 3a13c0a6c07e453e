"""The ports: what the domain needs from the outside. Each has at least two implementations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from methodhub.core.access import Policy
from methodhub.core.calls import MethodRequest, Outcome, Settle
from methodhub.core.certificates.rules import CertificateAuthority
from methodhub.core.identity import Identity, Target
from methodhub.core.twins.model import Twin


class CloseReason(StrEnum):
    """Why the hub ends a device's connection; told to the log, not to the device."""

    TAKEN_OVER = "the same identity connected again"
    DELETED = "the identity was deleted"
    DISABLED = "the identity was disabled"
    CREDENTIALS_CHANGED = "its key, thumbprint or policy was changed"
    TOKEN_EXPIRED = "its token expired"  # noqa: S105
    KEEP_ALIVE = "nothing was heard for one and a half keep-alive intervals"
    PROTOCOL_ERROR = "it broke the protocol"
    SLOW_READER = "it does not read what it is sent"
    STOPPING = "the hub stops"


class StoreUnavailable(Exception):
    """A store cannot do its work at this time: its disk is full, its database locked or away. The text says why."""


class DeviceConnection(Protocol):
    """A live, authenticated connection of one target."""

    target: Target

    def accepts(self, method_name: str) -> bool:
        """Whether the device has subscribed to this method."""
        ...

    def unsent_bytes(self) -> int:
        """Bytes written and not yet taken by the device."""
        ...

    def deliver(self, rid: int, request: MethodRequest) -> None:
        """Hand the request to the device. Never raises: a connection that breaks ends through its own end."""
        ...

    def push_desired(self, version: int, patch: bytes) -> None:
        """Tell the device of changed desired properties (`patch`: JSON), if it has asked to be told. Never raises."""
        ...

    def close(self, reason: CloseReason) -> None: ...


class Handed(Protocol):
    """A call on its way; `cancel` forgets it because its caller went away."""

    def cancel(self) -> None: ...


class NotClaimed:
    """Nobody has claimed the target, or the claimant is not subscribed to the method: not delivered."""


NOT_CLAIMED = NotClaimed()

Answer = Callable[[MethodRequest, Settle], Handed | NotClaimed | None]
"""A claimant's way to take a call: hands it to the device at once, settles it with an error (None), or declines."""


class Claim(Protocol):
    def renew(self) -> None:
        """The target takes more methods than before: wake who waits for it."""
        ...

    def release(self) -> None: ...


@dataclass(frozen=True, slots=True)
class TargetRevoked:
    """An identity was deleted, disabled or got other credentials: whoever holds something of it lets go."""

    target: Target
    reason: CloseReason


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    name: str


@dataclass(frozen=True, slots=True)
class AuthoritiesChanged:
    """A CA certificate was added, verified or removed."""


@dataclass(frozen=True, slots=True)
class CertificateExpected:
    """An identity was created, or changed, that proves itself by a certificate: listeners ask for one."""


@dataclass(frozen=True, slots=True)
class DesiredChanged:
    """A back end changed desired properties: the device's connection is told the patch, JSON with its `$version`."""

    target: Target
    version: int
    patch: bytes


Event = DesiredChanged | TargetRevoked | PolicyChanged | AuthoritiesChanged | CertificateExpected


class Bus(Protocol):
    """Finds the claimant of a target, on this node or another, and spreads events to all nodes."""

    async def claim(
        self, target: Target, answer: Answer, lost: Callable[[], None], generation: int | None = None
    ) -> Claim:
        """Hold the target. When this returns, every node's calls find it.

        `lost` is called at most once: another node has claimed the target with a higher generation, a number that
        grows with each authentication of the target on any node. Without one, a number is drawn now.
        """
        ...

    def call(
        self,
        target: Target,
        request: MethodRequest,
        settle: Callable[[Outcome | NotClaimed], None],
    ) -> Handed | None:
        """Hand the request to the claimant. `settle` is called once: with the outcome, or with NOT_CLAIMED."""
        ...

    def wait_claimed(self, target: Target, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` at each claim (or renewal) of the target from now on, until the returned function is called."""
        ...

    def publish(self, event: Event) -> None: ...

    def subscribe(self, receive: Callable[[Event], None]) -> None: ...


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

    async def record_connections(self, records: Iterable[ConnectionRecord]) -> None: ...

    async def expects_certificates(self) -> bool:
        """Whether any identity proves itself by a certificate."""
        ...

    async def disconnect_all(self, now: float) -> None:
        """After a start: whoever is recorded as connected is so no more."""
        ...

    async def apply(self, changes: Sequence[Change]) -> list[bool]:
        """Apply changes in their order, in one transaction; for each, whether its condition held. One that did not
        leaves its own rows alone and stops no other."""
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

    async def replace_policies(self, policies: Iterable[Policy]) -> None:
        """Write these policies anew, and those that are new."""
        ...

    async def delete_policy(self, name: str) -> None: ...

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
