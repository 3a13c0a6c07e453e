"""The identity registry: the rules of creating, changing and deleting identities, and their copies in memory, so
that a call touches no store."""

from __future__ import annotations

import base64
import binascii
import re
import secrets
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

from methodhub.core.access import generate_key
from methodhub.core.clock import Clock
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import ID_PATTERN, ID_RULE, Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import Bus, CertificateExpected, CloseReason, IdentityStore, TargetRevoked

CACHE_SIZE = 20_000
"""Identities kept beside those of connected targets; as many unknown ids."""

_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}|[0-9A-Fa-f]{64}")
_MAX_TEXT = 128


def device_not_found(target: Target) -> HubError:
    return HubError(
        ErrorCode.DeviceNotFound, f"Device {target.device_id} is not registered, or is disabled.", reason=None
    )


def module_not_found(target: Target) -> HubError:
    return HubError(
        ErrorCode.ModuleNotFound, f"Module {target.module_id} is not registered on device {target.device_id}."
    )


def not_found(target: Target) -> HubError:
    return module_not_found(target) if target.module_id else device_not_found(target)


class Registry:
    def __init__(self, store: IdentityStore, bus: Bus, clock: Clock, modules_per_device: int = 50) -> None:
        self._store = store
        self._bus = bus
        self._clock = clock
        self._modules_per_device = modules_per_device
        self._pinned: dict[Target, Identity] = {}
        self._cache: OrderedDict[Target, Identity | None] = OrderedDict()
        self._changes = 0

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
        """The identity, from memory or from the store."""
        try:
            return self.in_memory(target)
        except KeyError:
            seen = self._changes
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
        stored = await self._store.get(target)
        if stored is None:
            raise not_found(target)
        return stored

    async def page_devices(self, after: str, limit: int) -> list[Identity]:
        return await self._store.page_devices(after, limit)

    async def modules(self, device_id: str) -> list[Identity]:
        await self.get(Target(device_id))
        return await self._store.modules(device_id)

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

    def _forget(self, target: Target) -> None:
        self._changes += 1
        self._pinned.pop(target, None)
        self._cache.pop(target, None)

    # --- writing -------------------------------------------------------------------------------------------------

    async def create(self, identity: Identity) -> Identity:
        """Store a new identity, with keys where it has none. Raises 400004, 404001, 409001, 409301, 413003."""
        target = identity.target
        check_identity(identity)
        if target.module_id:
            await self._check_room_for_module(target)
        created = replace(
            identity,
            authentication=complete(identity.authentication),
            generation_id=str(secrets.randbelow(9 * 10**17) + 10**17),
            etag=new_etag(),
        )
        if not await self._store.insert(created):
            if target.module_id:
                raise HubError(
                    ErrorCode.ModuleAlreadyExistsOnDevice, f"Module {target.module_id} exists on {target.device_id}."
                )
            raise HubError(ErrorCode.DeviceAlreadyExists, target.device_id)
        self._forget(target)
        self._tell_certificate(created)
        return created

    async def _check_room_for_module(self, target: Target) -> None:
        modules = await self.modules(target.device_id)
        if len(modules) >= self._modules_per_device:
            raise HubError(
                ErrorCode.TooManyModulesOnDevice,
                f"Device {target.device_id} has {len(modules)} modules of at most {self._modules_per_device}.",
            )

    async def update(self, identity: Identity, if_match: str | None) -> Identity:
        """Write an identity anew. `if_match` is an etag, or None for any. Keys that are missing stay as they were.

        Raises 400004, 404001, 404010, 412001. What used a credential that is no longer valid is closed.
        """
        target = identity.target
        current = await self.read(target)
        check_if_match(current, if_match)
        check_identity(identity)
        changed = replace(
            identity,
            authentication=complete(identity.authentication, current.authentication),
            generation_id=current.generation_id,
            etag=new_etag(),
            status_updated_time=current.status_updated_time
            if identity.enabled == current.enabled
            else self._clock.wall(),
        )
        if not await self._store.replace(changed, current.etag):
            raise precondition_failed(current, if_match)
        self._changes += 1
        self._remember(target, changed)
        if not changed.enabled:
            await self._revoke_with_modules(target, CloseReason.DISABLED)
        elif lost_a_credential(current.authentication, changed.authentication):
            self._bus.publish(TargetRevoked(target, CloseReason.CREDENTIALS_CHANGED))
        self._tell_certificate(changed)
        return changed

    def _tell_certificate(self, written: Identity) -> None:
        if written.authentication.type.is_certificate:
            self._bus.publish(CertificateExpected())

    async def delete(self, target: Target, if_match: str | None) -> None:
        """Delete an identity; a device with its modules, sessions and waiting calls. Raises 404001, 404010, 412001."""
        current = await self.read(target)
        check_if_match(current, if_match)
        gone = await self._store.delete(target, current.etag)
        if gone is None:
            raise precondition_failed(current, if_match)
        for each in gone:
            self._forget(each)
        for each in gone:
            self._bus.publish(TargetRevoked(each, CloseReason.DELETED))

    async def _revoke_with_modules(self, target: Target, reason: CloseReason) -> None:
        modules = [] if target.module_id else await self._store.modules(target.device_id)
        for each in (target, *(module.target for module in modules)):
            self._bus.publish(TargetRevoked(each, reason))


def check_active(target: Target, identity: Identity | None, device: Identity | None) -> HubError | None:
    if device is None or not device.enabled:
        return device_not_found(target)
    if identity is None:
        return module_not_found(target)
    return None if identity.enabled else device_not_found(target)


def check_if_match(current: Identity, if_match: str | None) -> None:
    if if_match is not None and if_match != current.etag:
        raise precondition_failed(current, if_match)


def precondition_failed(current: Identity, if_match: str | None) -> HubError:
    return HubError(
        ErrorCode.PreconditionFailed,
        f"Precondition failed: Device version did not match, existingVersion:{current.etag} newVersion:{if_match}",
    )


def new_etag() -> str:
    return base64.b64encode(secrets.token_bytes(9)).decode()


def lost_a_credential(old: Authentication, new: Authentication) -> bool:
    """Whether something that proved the identity before no longer does."""
    if old.type != new.type:
        return True
    thumbprints = {old.primary_thumbprint, old.secondary_thumbprint} - {
        new.primary_thumbprint,
        new.secondary_thumbprint,
    }
    return bool(set(old.keys) - set(new.keys) or thumbprints - {None})


def complete(wanted: Authentication, current: Authentication | None = None) -> Authentication:
    """Fill in the keys of a SAS identity: those given, else those it has, else new ones."""
    if wanted.type is not AuthenticationType.SAS:
        return replace(wanted, primary_key=None, secondary_key=None)
    old = current if current is not None and current.type is AuthenticationType.SAS else Authentication()
    return replace(
        wanted,
        primary_key=wanted.primary_key or old.primary_key or generate_key(),
        secondary_key=wanted.secondary_key or old.secondary_key or generate_key(),
    )


def check_identity(identity: Identity) -> None:
    """Raise 400004 for what the wire allows and the rules do not (`wire/service.md` 3.2)."""
    for kind, value in (("deviceId", identity.target.device_id), ("moduleId", identity.target.module_id or "m")):
        if not ID_PATTERN.fullmatch(value):
            raise invalid(f"{kind} {value[:140]!r} is not {ID_RULE}.")
    texts: Mapping[str, str | None] = {
        "statusReason": identity.status_reason,
        "managedBy": identity.managed_by,
    }
    for kind, text in texts.items():
        if text is not None and len(text) > _MAX_TEXT:
            raise invalid(f"{kind} has {len(text)} characters of at most {_MAX_TEXT}.")
    authentication = identity.authentication
    if bool(authentication.primary_key) != bool(authentication.secondary_key):
        raise invalid("primaryKey and secondaryKey are given together or not at all.")
    for key in authentication.keys:
        check_key(key)
    for thumbprint in (authentication.primary_thumbprint, authentication.secondary_thumbprint):
        if thumbprint and not _THUMBPRINT.fullmatch(thumbprint):
            raise invalid("A thumbprint is 40 (SHA-1) or 64 (SHA-256) hexadecimal digits.")
    if authentication.type is AuthenticationType.SELF_SIGNED and not (
        authentication.primary_thumbprint or authentication.secondary_thumbprint
    ):
        raise invalid("An identity of type selfSigned needs a primaryThumbprint or a secondaryThumbprint.")


def check_key(key: str) -> None:
    try:
        size = len(base64.b64decode(key, validate=True))
    except (binascii.Error, ValueError):
        raise invalid("A symmetric key is base64 text.") from None
    if not 16 <= size <= 64:
        raise invalid(f"A symmetric key holds 16 to 64 bytes, not {size}.")


def invalid(message: str) -> HubError:
    return HubError(ErrorCode.ArgumentInvalid, message)
