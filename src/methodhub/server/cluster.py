"""This node among others: its name in the store, its bus, and what it keeps true of nodes that died."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import structlog

from methodhub.bus.line import LineFailure, servers
from methodhub.bus.nats import NatsBus, Surroundings
from methodhub.config import Settings
from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.core.jobs.node import Node
from methodhub.core.ports import HubStore, StoreUnavailable
from methodhub.metrics import Metrics
from methodhub.process import StartError

log = structlog.get_logger()

CLUSTER_BEAT = 1.0
"""Seconds between two signs of life where other nodes wait for them."""


def nats_bus(
    settings: Settings,
    url: str,
    node: Node,
    hub_store: HubStore,
    clock: Clock,
    deadlines: Deadlines,
    metrics: Metrics,
    missed: Callable[[], None],
    hub: str,
) -> NatsBus:
    """Not yet started. Raises StartError."""
    around = Surroundings(clock, deadlines, metrics, node.live_nodes, hub_store.next_generation, missed, hub)
    try:
        found = servers(url, tls_context(settings))
    except ValueError as error:
        raise StartError(f"nats_url cannot be used: {error}.") from None
    return NatsBus(found, node.name, around, settings.nats_prefix, settings.hub_open_calls)


async def start_bus(bus: NatsBus) -> None:
    """Returns when NATS is reached. Raises StartError."""
    try:
        await bus.start()
    except (LineFailure, OSError, StoreUnavailable) as error:
        raise StartError(f"NATS cannot be used: {error}. Check nats_url, its user and password, and nats_ca.") from None


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Raises StartError."""
    try:
        return ssl.create_default_context(cafile=str(settings.nats_ca) if settings.nats_ca else None)
    except (OSError, ssl.SSLError) as error:
        raise StartError(f"nats_ca = {settings.nats_ca} cannot be read: {error}") from error
