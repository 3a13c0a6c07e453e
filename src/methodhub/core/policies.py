"""Changes of the shared access policies: what they may be, and that whatever a key let in goes with it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import replace
from enum import StrEnum

from methodhub.core.access import RIGHT_NAMES, Policies, Policy, Right, generate_key
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.ports import Bus, HubStore, PolicyChanged
from methodhub.core.registry.rules import check_key, invalid

MAX_POLICIES = 16
MAX_SERVICE_POLICIES = 10
"""With the right ServiceConnect (`wire/service.md` 2.2)."""

ATTEMPTS = 20
"""How often a policy is rotated while other nodes rotate it, too."""

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_RIGHTS = {name.lower(): right for right, name in RIGHT_NAMES.items()}


class Rotation(StrEnum):
    """What happens to the two keys of a policy."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    SWAP = "swap"


class PolicyChanges:
    def __init__(self, store: HubStore, policies: Policies, bus: Bus) -> None:
        self._store = store
        self._policies = policies
        self._bus = bus
        self._lock = asyncio.Lock()

    async def create(self, name: str, rights: Iterable[str], keys: tuple[str | None, str | None]) -> Policy:
        """Store a new policy, with keys where it is given none. Raises 400003, 400004, 409000."""
        check_name(name)
        granted = parse_rights(rights)
        for key in filter(None, keys):
            check_key(key)
        async with self._lock:
            present = await self._store.policies()
            if any(policy.name == name for policy in present):
                raise HubError(ErrorCode.GenericConflict, f"There is a policy {name!r}.")
            check_room(present, granted)
            policy = Policy(name, granted, keys[0] or generate_key(), keys[1] or generate_key())
            await self._store.insert_policies([policy])
            if await self._find(name) != policy:  # another node was faster
                raise HubError(ErrorCode.GenericConflict, f"There is a policy {name!r}.")
            await self._publish(name)
        return policy

    async def delete(self, name: str) -> None:
        """Raises 404000; 400003 for the last one: a hub without any makes the five it began with at its next start."""
        async with self._lock:
            await self._find(name)
            if not await self._store.delete_policy(name):
                raise HubError(ErrorCode.InvalidOperation, f"{name!r} is the last policy; create another one first.")
            await self._publish(name)

    async def rotate(self, name: str, rotation: Rotation) -> Policy:
        """Give the policy a new key, or swap its two. [HUB-rotate] The other key goes on. Raises 404000, 503001."""
        async with self._lock:
            for _ in range(ATTEMPTS):
                policy = await self._find(name)
                rotated = rotated_keys(policy, rotation)
                if await self._store.replace_policy(policy, rotated):
                    await self._publish(name)
                    return rotated
        raise HubError(ErrorCode.ServiceUnavailable, f"The policy {name!r} is changed too often; try again.")

    async def _find(self, name: str) -> Policy:
        for policy in await self._store.policies():
            if policy.name == name:
                return policy
        raise HubError(ErrorCode.GenericNotFound, f"There is no policy {name!r}.")

    async def _publish(self, name: str) -> None:
        self._policies.load(await self._store.policies())
        self._bus.publish(PolicyChanged(name))


def rotated_keys(policy: Policy, rotation: Rotation) -> Policy:
    if rotation is Rotation.PRIMARY:
        return replace(policy, primary_key=generate_key())
    if rotation is Rotation.SECONDARY:
        return replace(policy, secondary_key=generate_key())
    return replace(policy, primary_key=policy.secondary_key, secondary_key=policy.primary_key)


def check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise invalid(f"{name[:80]!r} is no name of a policy: 1 to 64 of ASCII letters, digits, - _ and the full stop.")


def parse_rights(names: Iterable[str]) -> Right:
    """RegistryWrite includes RegistryRead, as in the original. Raises 400004."""
    rights = Right(0)
    for name in names:
        if name.lower() not in _RIGHTS:
            raise invalid(f"{name[:40]!r} is no right; there are {', '.join(RIGHT_NAMES.values())}.")
        rights |= _RIGHTS[name.lower()]
    if not rights:
        raise invalid("A policy has at least one right.")
    return rights | Right.REGISTRY_READ if rights & Right.REGISTRY_WRITE else rights


def check_room(present: Iterable[Policy], granted: Right) -> None:
    """[HUB-max-policies] Raises 400003."""
    policies = list(present)
    if len(policies) >= MAX_POLICIES:
        raise HubError(ErrorCode.InvalidOperation, f"The hub has {len(policies)} policies of at most {MAX_POLICIES}.")
    serving = sum(bool(policy.rights & Right.SERVICE_CONNECT) for policy in policies)
    if granted & Right.SERVICE_CONNECT and serving >= MAX_SERVICE_POLICIES:
        raise HubError(
            ErrorCode.InvalidOperation,
            f"{serving} policies have the right ServiceConnect, of at most {MAX_SERVICE_POLICIES}.",
        )
