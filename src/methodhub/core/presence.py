"""Which targets are connected, as the registry tells it: true when read, written behind in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import structlog

from methodhub.core.clock import Clock
from methodhub.core.connections import Attachment, ConnectionTable
from methodhub.core.identity import Identity, Target
from methodhub.core.ports import ConnectionRecord, IdentityStore, StoreUnavailable

log = structlog.get_logger()

WRITE_INTERVAL = 1.0
"""Seconds between two writes."""


class Presence:
    def __init__(
        self,
        table: ConnectionTable,
        store: IdentityStore,
        clock: Clock,
        node_id: Callable[[], str],
        *,
        shared: bool = False,
    ) -> None:
        """`shared`: other nodes write who is connected to them."""
        self._table = table
        self._store = store
        self._clock = clock
        self._node_id = node_id
        self._shared = shared
        self._writing = asyncio.Lock()
        self._unwritten: dict[Target, ConnectionRecord] = {}
        self._written: dict[Target, ConnectionRecord] = {}
        """What the last write took: whoever reads a row while it is written may get the old one."""

    def changed(self, attachment: Attachment, connected: bool) -> None:
        """An attachment began or ended."""
        now = self._clock.wall()
        self._unwritten[attachment.target] = ConnectionRecord(
            attachment.target, connected, now, now if connected else self._last_activity(attachment), self._node_id()
        )

    def tell_again(self) -> None:
        """This node has another id now: what it wrote under the old one counts for nothing."""
        for attachment in self._table:
            self.changed(attachment, True)

    def forget(self, target: Target) -> None:
        """The identity was deleted: another one of its name begins anew."""
        self._unwritten.pop(target, None)
        self._written.pop(target, None)

    def _last_activity(self, attachment: Attachment) -> float:
        return self._clock.wall() - (self._clock.monotonic() - attachment.heard)

    def overlay(self, identity: Identity) -> Identity:
        """A stored identity with its connection as it is at this moment."""
        attachment = self._table.get(identity.target)
        if attachment is not None:
            return replace(
                identity,
                connected=True,
                connection_updated_time=attachment.since,
                last_activity_time=self._last_activity(attachment),
            )
        record = self._unwritten.get(identity.target) or self._written.get(identity.target)
        if record is not None:
            return replace(
                identity,
                connected=False,
                connection_updated_time=record.updated_time,
                last_activity_time=record.last_activity_time,
            )
        return identity if self._shared else replace(identity, connected=False)

    async def connected_devices(self) -> int:
        """How many devices are connected to any node; their modules do not count. Raises StoreUnavailable."""
        await self.write()
        return await self._store.connected_devices()

    async def write(self) -> None:
        """Write what has changed since the last time, after whatever is being written: then all of it is there, the
        newest last. After a failure it is kept for the next one."""
        async with self._writing:
            batch = self._written = self._unwritten
            self._unwritten = {}
            if not batch:
                return
            try:
                await self._store.record_connections(batch.values())
            except Exception as error:
                known = isinstance(error, StoreUnavailable)
                log.error("connection states were not written; trying again", error=str(error), exc_info=not known)
                self._unwritten = {**batch, **self._unwritten}
