"""Connections of devices, and the bus that finds them and spreads events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from methodhub.core.calls import MethodRequest, Outcome, Settle
from methodhub.core.identity import Target


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


class DeviceConnection(Protocol):
    """A live, authenticated connection of one target."""

    target: Target

    @property
    def wants_desired(self) -> bool:
        """Whether the device has asked to be told of changed desired properties."""
        ...

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
        """Tell the device of changed desired properties (`patch`: JSON), if it wants to know. Never raises."""
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
class IdentitiesChanged:
    """Identities were created, changed or deleted: what other nodes keep of them in memory is old."""

    targets: tuple[Target, ...]


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


@dataclass(frozen=True, slots=True)
class TargetAttached:
    """A target has connected to a node; its older connections to others are over. `generation` as in `Bus.claim`."""

    target: Target
    generation: int


Event = (
    AuthoritiesChanged
    | CertificateExpected
    | DesiredChanged
    | IdentitiesChanged
    | PolicyChanged
    | TargetAttached
    | TargetRevoked
)


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
