"""Many changes of the registry in one request: each item is judged by the rules of single changes, and all that may be
done is stored in one transaction. Knows no wire."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from methodhub.core.access import generate_key
from methodhub.core.clock import Clock
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, AuthenticationType, Identity, Target
from methodhub.core.ports import (
    Change,
    DeleteIdentity,
    HubStore,
    IdentityStore,
    InsertIdentity,
    ReplaceIdentity,
    ReplaceTwin,
)
from methodhub.core.registry.identities import ATTEMPTS, Registry
from methodhub.core.registry.items import BulkItem, ImportMode
from methodhub.core.registry.rules import (
    already_exists,
    changed,
    check_if_match,
    device_not_found,
    invalid,
    made,
    not_found,
    precondition_failed,
)
from methodhub.core.twins.model import Twin
from methodhub.core.twins.rules import Object, TwinUpdate, created, updated
from methodhub.core.twins.twins import Twins
from methodhub.core.twins.twins import precondition_failed as twin_precondition_failed

MAX_ITEMS = 100


@dataclass(slots=True)
class _Step:
    """What is done for one item. `error` is set as soon as it is known to fail."""

    item: BulkItem
    error: HubError | None = None
    current: Identity | None = None
    written: Identity | None = None
    modules: list[Target] = field(default_factory=list)
    """Of a device that is deleted, or of one that gets a module."""
    twin: Twin | None = None
    patch: Object | None = None

    @property
    def target(self) -> Target:
        return self.item.target


_DELETES = {ImportMode.DELETE, ImportMode.DELETE_IF_MATCH}
_UPDATES = {ImportMode.UPDATE, ImportMode.UPDATE_IF_MATCH}
_TWIN_UPDATES = {ImportMode.UPDATE_TWIN, ImportMode.UPDATE_TWIN_IF_MATCH}
_CONDITIONAL = {ImportMode.UPDATE_IF_MATCH, ImportMode.UPDATE_TWIN_IF_MATCH}


class Bulk:
    def __init__(
        self, registry: Registry, store: IdentityStore, hub_store: HubStore, twins: Twins, clock: Clock
    ) -> None:
        self._registry = registry
        self._store = store
        self._hub_store = hub_store
        self._twins = twins
        self._clock = clock

    async def apply(self, items: Sequence[BulkItem]) -> list[HubError | None]:
        """Do what the items ask for, in their order; for each, why it failed. Raises 413002.

        [HUB-bulk] What is not refused beforehand is stored in one transaction: after a crash all of it is there, or
        nothing. An item that fails stops no other.
        """
        check_count(len(items))
        steps = [_Step(item, item.error) for item in items]
        refuse_repeated(steps)
        await self._read(steps)
        await self._take_room(steps)
        self._plan_identities(steps)
        async with self._twins.held([step.target for step in steps if step.error is None and touches_twin(step.item)]):
            await self._write(steps)
        return [step.error for step in steps]

    async def regenerate(self, targets: Sequence[Target], names: Sequence[str]) -> list[Identity | HubError]:
        """New random keys (`names`: primary_key, secondary_key) for identities that have keys. Raises 413002.

        [HUB-regenerate] What is connected with a replaced key is closed.
        """
        check_count(len(targets))
        outcomes: dict[int, Identity | HubError] = {}
        left = list(range(len(targets)))
        for _ in range(ATTEMPTS):
            outcomes |= zip(left, await self._regenerate([targets[each] for each in left], names), strict=True)
            left = [each for each in left if was_overtaken(outcomes[each])]
            if not left:
                break
        return [outcomes[each] for each in range(len(targets))]

    async def _regenerate(self, targets: Sequence[Target], names: Sequence[str]) -> list[Identity | HubError]:
        items = []
        for target, current in zip(targets, await self._store.get_many(targets), strict=True):
            item = BulkItem(target, ImportMode.UPDATE_IF_MATCH)
            if current is None:
                item = replace(item, error=await self._missing(target))
            elif current.authentication.type is not AuthenticationType.SAS:
                error = HubError(ErrorCode.InvalidOperation, f"{target} proves itself by no key.")
                item = replace(item, error=error)
            else:
                fresh = regenerated(current.authentication, names)
                item = replace(item, identity=replace(current, authentication=fresh), etag=current.etag)
            items.append(item)
        errors = await self.apply(items)
        return [error or item.identity or not_found(item.target) for item, error in zip(items, errors, strict=True)]

    # --- reading -------------------------------------------------------------------------------------------------

    async def _read(self, steps: Sequence[_Step]) -> None:
        """What the steps must know of the store: current identities, and modules of devices."""
        alive = [step for step in steps if step.error is None]
        looked_up = [step for step in alive if step.item.mode is not ImportMode.CREATE]
        found = await self._store.get_many([step.target for step in looked_up])
        for step, current in zip(looked_up, found, strict=True):
            step.current = current
            if step.current is None:
                step.error = await self._missing(step.target)
        families = [
            step
            for step in alive
            if step.error is None
            and (bool(step.target.module_id) if step.item.mode is ImportMode.CREATE else step.item.mode in _DELETES)
        ]
        modules = await self._store.modules_of({step.target.device_id for step in families}) if families else []
        for step in families:
            step.modules = [module for module in modules if module.device_id == step.target.device_id]

    async def _missing(self, target: Target) -> HubError:
        if target.module_id and await self._store.get(target.device) is None:
            return device_not_found(target)
        return not_found(target)

    async def _take_room(self, steps: Sequence[_Step]) -> None:
        """Room for the devices that are created; without it none is."""
        creations = [
            step
            for step in steps
            if step.error is None and step.item.mode is ImportMode.CREATE and not step.target.module_id
        ]
        try:
            if creations:
                await self._registry.capacity.take(len(creations))
        except HubError as error:
            for step in creations:
                step.error = error

    # --- deciding ------------------------------------------------------------------------------------------------

    def _plan_identities(self, steps: Sequence[_Step]) -> None:
        """Everything that can be refused is refused before anything is written."""
        created_modules: Counter[str] = Counter()
        for step in steps:
            if step.error is not None:
                continue
            try:
                self._plan(step, created_modules)
            except HubError as error:
                step.error = error

    def _plan(self, step: _Step, created_modules: Counter[str]) -> None:
        item, current = step.item, step.current
        if item.mode is ImportMode.CREATE:
            assert item.identity is not None
            step.written = made(item.identity)
            if item.tags or item.desired:
                step.twin = created(item.target, item.tags, item.desired, self._clock.wall())
            if item.target.module_id:
                device_id = item.target.device_id
                self._registry.check_room(device_id, len(step.modules) + created_modules[device_id])
                created_modules[device_id] += 1
            return
        assert current is not None
        if item.mode in {ImportMode.UPDATE_IF_MATCH, ImportMode.DELETE_IF_MATCH}:
            if not item.etag:
                raise invalid(f"{item.mode} needs an eTag.")
            check_if_match(current, None if item.etag == "*" else item.etag)
        if item.mode is ImportMode.UPDATE_TWIN_IF_MATCH and not item.twin_etag:
            raise invalid(f"{item.mode} needs a twinETag.")
        if item.mode in _UPDATES:
            assert item.identity is not None
            step.written = changed(item.identity, current, self._clock.wall())

    async def _plan_twins(self, steps: Sequence[_Step]) -> list[tuple[_Step, ReplaceTwin]]:
        """The twins as they will be: read, judged and changed under their locks."""
        plans = []
        for step, twin in zip(steps, await self._hub_store.twins([step.target for step in steps]), strict=True):
            item = step.item
            try:
                if item.mode in _CONDITIONAL and item.twin_etag not in (None, "*", twin.etag):
                    raise twin_precondition_failed(twin, item.twin_etag or "")
                new, step.patch = updated(twin, TwinUpdate(item.tags, item.desired), self._clock.wall())
            except HubError as error:
                step.error = error
                continue
            step.twin = new
            if new is not twin:
                plans.append((step, ReplaceTwin(new, twin.version)))
        return plans

    # --- writing -------------------------------------------------------------------------------------------------

    async def _write(self, steps: Sequence[_Step]) -> None:
        twins = await self._plan_twins([each for each in steps if each.error is None and touches_twin(each.item)])
        twin_of = {id(step): change for step, change in twins}
        planned: list[tuple[_Step, Change]] = []
        for step in steps:
            if step.error is None:
                planned += [(step, change) for change in identity_changes(step)]
                planned += [(step, twin_of[id(step)])] if id(step) in twin_of else []
        overtaken = []
        outcomes = await self._store.apply([change for _, change in planned]) if planned else []
        for (step, change), done in zip(planned, outcomes, strict=True):
            if step.error is not None:
                continue
            if not done and isinstance(change, ReplaceTwin):
                overtaken.append(step)
            elif done:
                await self._tell(step, change)
            else:
                step.error = await self._once_more(step)
        await self._write_overtaken(overtaken)

    async def _write_overtaken(self, steps: Sequence[_Step]) -> None:
        """Twins that another node changed between their reading and their writing: once more."""
        for _ in range(ATTEMPTS):
            if not steps:
                return
            plans = await self._plan_twins(steps)
            outcomes = await self._store.apply([change for _, change in plans])
            left = []
            for (step, change), done in zip(plans, outcomes, strict=True):
                if done:
                    await self._tell(step, change)
                elif await self._store.get(step.target) is None:
                    step.error = await self._missing(step.target)
                else:
                    left.append(step)
            steps = left
        for step in steps:
            step.error = HubError(
                ErrorCode.ServiceUnavailable, f"The twin of {step.target} is changed too often; try again."
            )

    async def _once_more(self, step: _Step) -> HubError | None:
        """Somebody else was faster: that stops only who asked for a certain etag."""
        if step.item.mode is not ImportMode.UPDATE:
            return await self._explain(step)
        assert step.item.identity is not None
        try:
            await self._registry.update(step.item.identity, None)
        except HubError as error:
            return error
        return None

    async def _explain(self, step: _Step) -> HubError:
        """Why the store refused: somebody else was faster, or an earlier item of the request."""
        item = step.item
        found = await self._store.get(item.target)
        if item.mode is ImportMode.CREATE:
            return already_exists(item.target) if found is not None else device_not_found(item.target)
        return precondition_failed(found, item.etag) if found is not None else await self._missing(item.target)

    async def _tell(self, step: _Step, change: Change) -> None:
        """Caches and events, as after single changes."""
        match change:
            case InsertIdentity(identity):
                self._registry.was_created(identity)
            case ReplaceIdentity(identity):
                assert step.current is not None
                await self._registry.was_changed(step.current, identity)
            case ReplaceTwin(twin):
                self._twins.tell(twin, step.patch)
            case DeleteIdentity(target):
                modules = [] if target.module_id else step.modules
                self._registry.were_deleted([target, *modules])


def regenerated(keys: Authentication, names: Sequence[str]) -> Authentication:
    return replace(
        keys,
        primary_key=generate_key() if "primary_key" in names else keys.primary_key,
        secondary_key=generate_key() if "secondary_key" in names else keys.secondary_key,
    )


def was_overtaken(outcome: Identity | HubError) -> bool:
    return isinstance(outcome, HubError) and outcome.code is ErrorCode.PreconditionFailed


def check_count(count: int) -> None:
    if count > MAX_ITEMS:
        raise HubError(ErrorCode.TooManyDevices, f"The request has {count} items of at most {MAX_ITEMS}.")


def refuse_repeated(steps: Sequence[_Step]) -> None:
    """[HUB-bulk-once] Which of two items for one identity would be meant is unknown: neither is done."""
    times = Counter(step.target for step in steps)
    for step in steps:
        if times[step.target] > 1 and step.error is None:
            step.error = HubError(
                ErrorCode.DeviceDefinedMultipleTimes,
                f"{step.target} is named by {times[step.target]} items of the request.",
            )


def touches_twin(item: BulkItem) -> bool:
    return item.mode in _TWIN_UPDATES or (item.mode in _UPDATES and bool(item.tags or item.desired or item.twin_etag))


def identity_changes(step: _Step) -> list[Change]:
    item = step.item
    if item.mode in _DELETES:
        assert step.current is not None
        return [DeleteIdentity(item.target, step.current.etag if item.mode is ImportMode.DELETE_IF_MATCH else None)]
    if step.written is None:
        return []
    if item.mode is ImportMode.CREATE:
        return [InsertIdentity(step.written, step.twin)]
    assert step.current is not None
    return [ReplaceIdentity(step.written, step.current.etag)]
