"""One truth on all nodes: what this one keeps in memory follows what others write, by their events; and by itself, in
case some were lost."""

from __future__ import annotations

import asyncio

import structlog

from methodhub.core.access import Policies, is_still_valid
from methodhub.core.certificates.authorities import CertificateAuthorities
from methodhub.core.connections import Attachment, ConnectionTable
from methodhub.core.identity import Identity
from methodhub.core.ports import (
    AuthoritiesChanged,
    Bus,
    CloseReason,
    DesiredChanged,
    Event,
    HubStore,
    IdentityStore,
    PolicyChanged,
    StoreUnavailable,
    TargetAttached,
    TargetRevoked,
)
from methodhub.core.presence import Presence
from methodhub.core.registry import Registry
from methodhub.core.twins.pushes import DesiredPushes
from methodhub.server.background import Background

log = structlog.get_logger()

RECHECK_INTERVAL = 60.0
"""Seconds after which memory is compared with the store, though no event told of a change."""
CHUNK = 500


class Truth:
    """`shared`: other nodes write to the store, too, and their events come over the bus."""

    def __init__(
        self,
        identities: IdentityStore,
        hub: HubStore,
        registry: Registry,
        policies: Policies,
        authorities: CertificateAuthorities,
        table: ConnectionTable,
        presence: Presence,
        pushes: DesiredPushes,
        background: Background,
        bus: Bus,
        *,
        shared: bool,
    ) -> None:
        self._identities = identities
        self._hub = hub
        self._registry = registry
        self._policies = policies
        self._authorities = authorities
        self._table = table
        self._presence = presence
        self._pushes = pushes
        self._background = background
        self._bus = bus
        self._shared = shared
        self._rechecking = False
        self._again = False

    def hear(self, event: Event) -> None:
        if isinstance(event, TargetRevoked):
            self._revoke(event)
        elif isinstance(event, DesiredChanged):
            self._pushes.hear(event)
        elif isinstance(event, TargetAttached):
            newer = self._table.attached(event)
            if newer is not None:
                self._bus.publish(newer)
        elif isinstance(event, AuthoritiesChanged | PolicyChanged):
            if self._shared:
                self._background.spawn(self._reload())
            else:
                self._close_invalid()

    # --- one identity --------------------------------------------------------------------------------------------

    def _revoke(self, event: TargetRevoked) -> None:
        """An identity was revoked: close what it holds, unless what let it in still does."""
        if event.reason is CloseReason.CREDENTIALS_CHANGED:
            attachment = self._table.get(event.target)
            if attachment is not None:
                self._close_if_invalid(attachment)
            return
        self._table.close(event.target, event.reason)
        if event.reason is CloseReason.DELETED:
            self._presence.forget(event.target)

    def _close_if_invalid(self, attachment: Attachment) -> None:
        """As far as memory knows; what it does not know is read."""
        try:
            identity = self._registry.in_memory(attachment.target)
        except KeyError:
            self._background.spawn(self._check(attachment))
            return
        if identity is None or not self._lets_in(attachment, identity):
            self._table.close(attachment.target, CloseReason.CREDENTIALS_CHANGED)

    async def _check(self, attachment: Attachment) -> None:
        """Another node wrote the identity: read it."""
        try:
            stored = await self._identities.get(attachment.target)
        except StoreUnavailable:  # the device may come again, and is judged when it can be
            self._table.close(attachment.target, CloseReason.CREDENTIALS_CHANGED)
            return
        self._judge(attachment, stored)

    def _judge(self, attachment: Attachment, stored: Identity | None) -> None:
        if attachment.ended:
            return
        if stored is None:
            self._table.close(attachment.target, CloseReason.DELETED)
        elif not stored.enabled:
            self._table.close(attachment.target, CloseReason.DISABLED)
        elif not self._lets_in(attachment, stored):
            self._table.close(attachment.target, CloseReason.CREDENTIALS_CHANGED)
        else:
            self._registry.take(stored)

    # --- policies and authorities --------------------------------------------------------------------------------

    async def _reload(self) -> None:
        try:
            await self._load()
        except StoreUnavailable as error:
            log.warning("policies and authorities could not be read again", error=str(error))
            return
        self._close_invalid()

    async def _load(self) -> None:
        self._policies.load(await self._hub.policies())
        await self._authorities.load()

    def _close_invalid(self) -> None:
        for attachment in self._table:
            self._close_if_invalid(attachment)
        self._policies.tell_watchers()

    def _lets_in(self, attachment: Attachment, identity: Identity) -> bool:
        return is_still_valid(attachment.credential, identity.authentication, self._policies, self._authorities)

    # --- everything ----------------------------------------------------------------------------------------------

    def missed(self) -> None:
        """[HUB-one-truth] Events of other nodes may have been lost."""
        self._registry.forget_cached()
        self._pushes.missed()
        self._again = True
        if not self._rechecking:
            self._rechecking = True
            self._background.spawn(self._recheck_until_done())

    async def _recheck_until_done(self) -> None:
        try:
            while self._again:
                self._again = False
                await self.recheck()
        finally:
            self._rechecking = False

    async def recheck(self) -> None:
        """Compare what is kept in memory with the store."""
        try:
            await self._load()
            self._registry.forget_cached()  # not before: calls go on with what is known while the store is away
            self._policies.tell_watchers()
            attachments = list(self._table)
            for start in range(0, len(attachments), CHUNK):
                some = attachments[start : start + CHUNK]
                devices = await self._identities.get_many([each.target.device for each in some])
                own = await self._identities.get_many([each.target for each in some])
                for attachment, device, stored in zip(some, devices, own, strict=True):
                    is_disabled = device is not None and not device.enabled and stored is not None
                    self._judge(attachment, device if is_disabled else stored)
                    if stored is not None and not stored.connected and not attachment.ended:
                        self._presence.changed(attachment, True)  # what an older connection's node wrote came later
                await asyncio.sleep(0)
            self._pushes.catch_up()
        except StoreUnavailable as error:
            log.warning("memory could not be compared with the store", error=str(error))
