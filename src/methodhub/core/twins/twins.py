"""Reading and changing stored twins: one change of a target at a time on a node, judged by version across nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from weakref import WeakValueDictionary

import msgspec

from methodhub.core.clock import Clock
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Target
from methodhub.core.ports import Bus, DesiredChanged, HubStore
from methodhub.core.registry import Registry, not_found
from methodhub.core.twins.batches import Batches
from methodhub.core.twins.model import Twin
from methodhub.core.twins.rules import Object, TwinUpdate, reported, updated

ATTEMPTS = 20
"""How often a change is tried while other nodes change the same twin."""

Change = Callable[[Twin], tuple[Twin, Object | None]]


class Twins:
    def __init__(self, store: HubStore, registry: Registry, bus: Bus, clock: Clock) -> None:
        self._store = store
        self._registry = registry
        self._bus = bus
        self._clock = clock
        self._reads: Batches[Target, Twin] = Batches(self._read_many)
        self._writes: Batches[tuple[Twin, int], bool] = Batches(store.save_twins)
        self._locks: WeakValueDictionary[Target, asyncio.Lock] = WeakValueDictionary()

    async def get(self, target: Target) -> Twin:
        """The twin, also of a disabled identity. Raises 404001 or 404010."""
        await self._registry.get(target)
        return await self.read(target)

    async def read(self, target: Target) -> Twin:
        """The twin of a target that exists: of a connected device."""
        return await self._reads.do(target)

    async def _read_many(self, targets: Sequence[Target]) -> list[Twin]:
        found = {twin.target: twin for twin in await self._store.twins(list(dict.fromkeys(targets)))}
        return [found[target] for target in targets]

    async def update(self, target: Target, update: TwinUpdate, if_match: str | None = None) -> Twin:
        """Change tags and desired properties as a back end does. `if_match` is the twin's etag, or None for any.

        Raises 400004, 404001, 404010, 412001; 503001 where other nodes never let it through.
        """
        await self._registry.get(target)

        def change(twin: Twin) -> tuple[Twin, Object | None]:
            if if_match is not None and if_match != twin.etag:
                raise precondition_failed(twin, if_match)
            return updated(twin, update, self._clock.wall())

        return await self._change(target, change)

    async def report(self, target: Target, patch: Object) -> Twin:
        """Merge what a device reports. Raises 400004, 404001, 404010, 503001."""
        return await self._change(target, lambda twin: (reported(twin, patch, self._clock.wall()), None))

    async def set_model_id(self, target: Target, model_id: str | None) -> None:
        """Keep the model that a device names when it connects. Raises 404001, 404010, 503001."""
        if (await self.read(target)).model_id != model_id:
            await self._change(target, lambda twin: (replace(twin, version=twin.version + 1, model_id=model_id), None))

    async def _change(self, target: Target, change: Change) -> Twin:
        outcome = (await self._change_many([target], change))[target]
        if isinstance(outcome, HubError):
            raise outcome
        return outcome

    async def update_many(self, targets: Sequence[Target], update: TwinUpdate) -> dict[Target, HubError | None]:
        """The same change for many targets, in one transaction where nobody else changes them: what failed, or None."""
        outcomes = await self._change_many(targets, lambda twin: updated(twin, update, self._clock.wall()))
        return {target: each if isinstance(each, HubError) else None for target, each in outcomes.items()}

    async def _change_many(self, targets: Sequence[Target], change: Change) -> dict[Target, Twin | HubError]:
        """[HUB-twin-versions] Under the locks of all targets until devices are told: pushes keep the order of versions.
        Sorted, so that two batches never wait for each other."""
        outcomes: dict[Target, Twin | HubError] = {}
        async with self.held(targets):
            left = list(dict.fromkeys(targets))
            for _ in range(ATTEMPTS):
                left = await self._try(left, change, outcomes)
                if not left:
                    return outcomes
            for target in left:
                outcomes[target] = HubError(
                    ErrorCode.ServiceUnavailable, f"The twin of {target} is changed too often; try again."
                )
        return outcomes

    @asynccontextmanager
    async def held(self, targets: Sequence[Target]) -> AsyncIterator[None]:
        """The locks of these twins: whoever writes one tells its device (`tell`) before it lets go."""
        async with AsyncExitStack() as locks:
            for target in sorted(set(targets)):
                await locks.enter_async_context(self._locks.setdefault(target, asyncio.Lock()))
            yield

    async def _try(
        self, targets: Sequence[Target], change: Change, outcomes: dict[Target, Twin | HubError]
    ) -> list[Target]:
        """Read, change, write; returns the targets whose twins were changed by others meanwhile."""
        changes: list[tuple[Twin, int, Object | None]] = []
        alone = len(targets) == 1  # with whoever else is alone: one transaction costs more than many twins
        for twin in [await self.read(targets[0])] if alone else await self._store.twins(targets):
            try:
                changed, patch = change(twin)
            except HubError as error:
                outcomes[twin.target] = error
                continue
            if changed is twin:
                outcomes[twin.target] = twin
            else:
                changes.append((changed, twin.version, patch))
        overtaken = []
        saves = [(twin, version) for twin, version, _ in changes]
        if alone or not saves:
            saved = [await self._writes.do(each) for each in saves]
        else:
            saved = await self._store.save_twins(saves)
        for (twin, _, patch), done in zip(changes, saved, strict=True):
            if done:
                outcomes[twin.target] = twin
                self.tell(twin, patch)
            elif await self._registry.find(twin.target) is None:
                outcomes[twin.target] = not_found(twin.target)
            else:
                overtaken.append(twin.target)
        return overtaken

    def tell(self, twin: Twin, patch: Object | None) -> None:
        """Tell the device of changed desired properties, if any changed."""
        if patch is not None:
            self._bus.publish(desired_changed(twin, patch))


def desired_changed(twin: Twin, patch: Object) -> DesiredChanged:
    version = twin.desired.version
    return DesiredChanged(twin.target, version, msgspec.json.encode({**patch, "$version": version}))


def precondition_failed(twin: Twin, if_match: str) -> HubError:
    return HubError(
        ErrorCode.PreconditionFailed,
        f"Precondition failed: Twin version did not match, existingVersion:{twin.etag} newVersion:{if_match}",
    )
