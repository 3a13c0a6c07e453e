"""Tells the devices of this node of their desired properties, in the order of versions; what one has missed is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from itertools import islice

import structlog

from methodhub.core.connections import ConnectionTable
from methodhub.core.identity import Target
from methodhub.core.ports import DesiredChanged, Event, HubStore, StoreUnavailable
from methodhub.core.twins.twins import desired_changed

log = structlog.get_logger()

CHUNK = 500
"""Twins that are read at once."""


class DesiredPushes:
    """`spawn`: begins what goes on beside everything else."""

    def __init__(
        self, table: ConnectionTable, store: HubStore, spawn: Callable[[Coroutine[object, object, None]], None]
    ) -> None:
        self._table = table
        self._store = store
        self._spawn = spawn
        self._behind: dict[Target, None] = {}
        """Whose desired properties are to be read: those of connections, and of a chunk that ended meanwhile."""
        self._reading = False

    def hear(self, event: Event) -> None:
        """[HUB-twin-order] Changes that nodes make at the same moment may come out of order, or not at all: a device
        that lacks an earlier one is told everything, since a later change does not repeat it."""
        if not isinstance(event, DesiredChanged):
            return
        attachment = self._table.get(event.target)
        if attachment is None:
            return
        if attachment.known_desired and event.version > attachment.known_desired + 1:
            self._behind[event.target] = None
            self.catch_up()
        else:
            self._table.push_desired(event)

    def missed(self) -> None:
        """[HUB-one-truth] Events of other nodes may have been lost."""
        self._behind.update((each.target, None) for each in self._table if each.connection.wants_desired)
        self.catch_up()

    def catch_up(self) -> None:
        """Begin with what is to be read, or begin again where the store was away."""
        if self._behind and not self._reading:
            self._reading = True
            self._spawn(self._read())

    async def _read(self) -> None:
        try:
            while self._behind:
                some = list(islice(self._behind, CHUNK))
                for target in some:
                    del self._behind[target]
                await self._tell(some)
        except StoreUnavailable as error:
            log.warning("desired properties could not be read", devices=len(self._behind), error=str(error))
        finally:
            self._reading = False

    async def _tell(self, some: list[Target]) -> None:
        wanted = [target for target in some if self._wants(target)]
        try:
            twins = await self._store.twins(wanted) if wanted else []
        except StoreUnavailable:
            self._behind.update(dict.fromkeys(wanted))
            raise
        for twin in twins:
            attachment = self._table.get(twin.target)
            if attachment is not None and twin.desired.version > attachment.known_desired:
                self._table.push_desired(desired_changed(twin, twin.desired.values))

    def _wants(self, target: Target) -> bool:
        attachment = self._table.get(target)
        return attachment is not None and attachment.connection.wants_desired
