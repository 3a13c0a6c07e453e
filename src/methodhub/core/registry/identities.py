"""The identity registry: single changes of identities, and their copies in memory, so that a call touches no store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from methodhub.core.clock import Clock
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import ID_PATTERN, Identity, Target
from methodhub.core.ports import (
    Bus,
    CertificateExpected,
    CloseReason,
    Event,
    IdentitiesChanged,
    IdentityStore,
    RegistryStatistics,
    TargetRevoked,
)
from methodhub.core.registry.capacity import MAX_DEVICES, Capacity
from methodhub.core.registry.rules import (
    already_exists,
    changed,
    check_active,
    check_if_match,
    device_not_found,
    lost_a_credential,
    made,
    not_found,
    precondition_failed,
)

CACHE_SIZE = 20_000
"""Identities kept beside those of connected targets; as many unknown ids."""
ATTEMPTS = 20
"""How often a change that asks for no etag is tried while others change the same."""


def may_exist(target: Target) -> bool:
    """The store is not asked for what can be no id: PostgreSQL refuses some of it."""
    return all(ID_PATTERN.fullmatch(part) for part in target if part)


class Registry:
    def __init__(
        self,
        store: IdentityStore,
        bus: Bus,
        clock: Clock,
        modules_per_device: int = 50,
        max_devices: int = MAX_DEVICES,
    ) -> None:
        self.capacity = Capacity(store, max_devices)
        self._store = store
        self._bus = bus
        self._clock = clock
        self._modules_per_device = modules_per_device
        self._pinned: dict[Target, Identity] = {}
        self._cache: OrderedDict[Target, Identity | None] = OrderedDict()
        self._changes = 0
        self._is_telling = False
        """The event that is told is this node's own, whose memory is right."""
        bus.subscribe(self._hear)

    # --- reading -------------------------------------------------------------------------------------------------

    def in_memory(self, target: Target) -> Identity | None:
        """The identity, or None if it is known not to exist. Raises KeyError if memory does not know."""
        identity = self._pinned.get(target)
        return identity if identity is not None else self._cache[target]

    def is_known_active(self, target: Target) -> bool:
        """Whether memory says that the target and its device exist and are enabled; no means ask `active`."""
        try:
            identity = self.in_memory(target)
            device = self.in_memory(target.device) if target.module_id else identity
        except KeyError:
            return False
        return check_active(target, identity, device) is None

    def is_current(self, identity: Identity, device: Identity) -> bool:
        """Whether memory holds these very versions of an identity and its device."""
        try:
            return self.in_memory(identity.target) is identity and self.in_memory(device.target) is device
        except KeyError:
            return False

    async def find(self, target: Target) -> Identity | None:
        """The identity, from memory or from the store, which is not asked for what can be no id."""
        try:
            return self.in_memory(target)
        except KeyError:
            seen = self._changes
        if not may_exist(target):
            return None
        identity = await self._store.get(target)
        if self._changes == seen:  # else a write overtook the read: do not remember what may be old
            self._remember(target, identity)
        return identity

    async def active(self, target: Target) -> tuple[Identity, Identity]:
        """The identity and its device. Raises 404001 or 404010 unless both exist and are enabled."""
        device = await self.find(target.device)
        identity = await self.find(target) if target.module_id else device
        error = check_active(target, identity, device)
        if error is not None or identity is None or device is None:
            raise error or not_found(target)
        return identity, device

    async def get(self, target: Target) -> Identity:
        """Raises 404001 or 404010."""
        if target.module_id and await self.find(target.device) is None:
            raise device_not_found(target)
        identity = await self.find(target)
        if identity is None:
            raise not_found(target)
        return identity

    async def read(self, target: Target) -> Identity:
        """The identity as it is stored, times of its connections included: memory keeps those of its own read.

        Raises 404001 or 404010.
        """
        if target.module_id:
            await self.get(target.device)
        stored = await self._store.get(target) if may_exist(target) else None
        if stored is None:
            raise not_found(target)
        return stored

    async def page_devices(self, after: str, limit: int) -> list[Identity]:
        return await self._store.page_devices(after, limit)

    async def modules(self, device_id: str) -> list[Identity]:
        await self.get(Target(device_id))
        return await self._store.modules(device_id)

    async def statistics(self) -> RegistryStatistics:
        return await self._store.statistics()

    def pin(self, identity: Identity, device: Identity) -> None:
        """Keep a connected target's identity, and its device's, in memory."""
        self._pinned[identity.target] = identity
        if device is not identity:
            self._remember(device.target, device)

    def unpin(self, target: Target) -> None:
        identity = self._pinned.pop(target, None)
        if identity is not None:
            self._remember(target, identity)

    def _remember(self, target: Target, identity: Identity | None) -> None:
        if target in self._pinned and identity is not None:
            self._pinned[target] = identity
            return
        self._cache[target] = identity
        self._cache.move_to_end(target)
        if len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)

    def forget_cached(self) -> None:
        """Other nodes may have changed anything."""
        self._changes += 1
        self._cache.clear()

    def take(self, identity: Identity) -> None:
        """What was read anew of a target that is connected here; unless that was changed meanwhile."""
        if identity.target in self._pinned:
            self._changes += 1
            self._pinned[identity.target] = identity

    def _hear(self, event: Event) -> None:
        """[HUB-one-truth] Another node wrote: what is kept here of that is old."""
        if isinstance(event, IdentitiesChanged) and not self._is_telling:
            for target in event.targets:
                self._forget(target)

    def _tell(self, *targets: Target) -> None:
        self._is_telling = True
        try:
            self._bus.publish(IdentitiesChanged(targets))
        finally:
            self._is_telling = False

    def _forget(self, target: Target) -> None:
        self._changes += 1
        self._pinned.pop(target, None)
        self._cache.pop(target, None)

    # --- writing -------------------------------------------------------------------------------------------------

    async def create(self, identity: Identity) -> Identity:
        """Store a new identity, with keys where it has none.

        Raises 400004, 400028, 403002, 404001, 409001, 409301, 413003.
        """
        target = identity.target
        created = made(identity)
        if target.module_id:
            await self._check_room_for_module(target)
        else:
            await self.capacity.take(1)
        try:
            is_new = await self._store.insert(created)
        finally:
            self._forget(target)  # an error may come of a write that was done
        if not is_new:
            raise already_exists(target)
        self.was_created(created)
        return created

    def was_created(self, created: Identity) -> None:
        """Tell whoever must know of an identity that was just stored."""
        self._forget(created.target)
        self._tell(created.target)
        self._tell_certificate(created)

    async def _check_room_for_module(self, target: Target) -> None:
        self.check_room(target.device_id, len(await self.modules(target.device_id)))

    def check_room(self, device_id: str, modules: int) -> None:
        """Whether a device that has this many modules may have one more. Raises 413003."""
        if modules >= self._modules_per_device:
            raise HubError(
                ErrorCode.TooManyModulesOnDevice,
                f"Device {device_id} has {modules} modules of at most {self._modules_per_device}.",
            )

    async def update(self, identity: Identity, if_match: str | None) -> Identity:
        """Write an identity anew. `if_match` is an etag, or None for any. Keys that are missing stay as they were.

        Raises 400004, 400028, 404001, 404010, 412001; 503001 where others are always faster. What used a credential
        that is no longer valid is closed.
        """
        target = identity.target
        for _ in range(ATTEMPTS):
            current = await self.read(target)
            check_if_match(current, if_match)
            new = changed(identity, current, self._clock.wall())
            seen = self._changes
            if await self._store.replace(new, current.etag):
                await self.was_changed(current, new, seen)
                return new
        raise HubError(ErrorCode.ServiceUnavailable, f"{target} is changed too often; try again.")

    async def was_changed(self, old: Identity, new: Identity, seen: int | None = None) -> None:
        """Tell whoever must know of a change that was just stored. What used a credential that is no longer valid is
        closed. `seen`: how much had changed before the write; None if that is not known."""
        target = new.target
        if self._changes == seen:
            self._changes += 1
            self._remember(target, new)
        else:
            self._forget(target)  # it may have been written once more before this node was told of its own write
        self._tell(target)
        if not new.enabled:
            await self._revoke_with_modules(target, CloseReason.DISABLED)
        elif lost_a_credential(old.authentication, new.authentication):
            self._bus.publish(TargetRevoked(target, CloseReason.CREDENTIALS_CHANGED))
        self._tell_certificate(new)

    def _tell_certificate(self, written: Identity) -> None:
        if written.authentication.type.is_certificate:
            self._bus.publish(CertificateExpected())

    async def delete(self, target: Target, if_match: str | None) -> None:
        """Delete an identity; a device with its modules, sessions and waiting calls. Raises 404001, 404010, 412001."""
        try:
            current = await self.read(target)
        except HubError:
            if target in self._pinned:  # an earlier delete was done, though its caller was told of an error
                self.were_deleted([target])
            raise
        check_if_match(current, if_match)
        gone = await self._store.delete(target, if_match)
        if gone is None:
            raise precondition_failed(await self.read(target), if_match or "*")
        self.were_deleted(gone)

    def were_deleted(self, gone: Sequence[Target]) -> None:
        """Tell whoever must know of identities that were just deleted."""
        for each in gone:
            self._forget(each)
        self._tell(*gone)
        for each in gone:
            self._bus.publish(TargetRevoked(each, CloseReason.DELETED))

    async def _revoke_with_modules(self, target: Target, reason: CloseReason) -> None:
        modules = [] if target.module_id else await self._store.modules(target.device_id)
        for each in (target, *(module.target for module in modules)):
            self._bus.publish(TargetRevoked(each, reason))
