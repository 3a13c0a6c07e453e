"""All listeners of a hub, which share limits, clock and a budget of sockets; and the port of HTTPS, which not every
user may bind. Knows no protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from methodhub.core.clock import Clock
from methodhub.core.deadlines import Deadlines
from methodhub.metrics import Metrics
from methodhub.net.admission import PreAuthenticationLimits, SocketBudget
from methodhub.net.listener import BindError, Listener
from methodhub.net.proxy import Network
from methodhub.net.stream import Stream
from methodhub.net.tls import TlsContextHolder

HTTPS_PORT = 443
FALLBACK_HTTPS_PORT = 8443

FALLBACK_NOTE = (
    f"HTTPS listens on {FALLBACK_HTTPS_PORT}: this user may not bind {HTTPS_PORT}. That shuts out the "
    "service SDKs for Node, C#, Java and C and every device over WebSocket, which know no other port; "
    "the Python service SDK and az take HostName=name:8443. To grant the port: "
    "sudo sysctl net.ipv4.ip_unprivileged_port_start=443"
)


class Listeners:
    """`max_connections`: sockets of all of them together; None: as many as the process may open. `proxies`,
    `shares_ports`: see `Listener`."""

    def __init__(
        self,
        limits: PreAuthenticationLimits,
        deadlines: Deadlines,
        clock: Clock,
        max_connections: int | None,
        proxies: Sequence[Network] = (),
        shares_ports: bool = False,
    ) -> None:
        self._limits = limits
        self._deadlines = deadlines
        self._clock = clock
        self._max_connections = max_connections
        self._proxies = proxies
        self._shares_ports = shares_ports
        self._budget: SocketBudget | None = None
        self._all: list[Listener] = []

    def __iter__(self) -> Iterator[Listener]:
        return iter(self._all)

    def add(
        self, name: str, protocol_factory: Callable[[Stream], asyncio.Protocol], tls: TlsContextHolder | None = None
    ) -> Listener:
        if self._budget is None:  # not sooner: the process may raise its limit until then
            limit = self._max_connections
            self._budget = SocketBudget.of_process() if limit is None else SocketBudget(limit)
        listener = Listener(
            name,
            protocol_factory,
            limits=self._limits,
            deadlines=self._deadlines,
            clock=self._clock,
            tls=tls,
            budget=self._budget,
            proxies=self._proxies,
            shares_ports=self._shares_ports,
        )
        self._all.append(listener)
        return listener

    def count(self, metrics: Metrics) -> None:
        """Let the gauges tell the open sockets of each listener."""
        for listener in self._all:
            _count(metrics.gauges, listener)

    def stop_accepting(self) -> None:
        for listener in self._all:
            listener.stop_accepting()

    def close_all(self) -> None:
        for listener in self._all:
            listener.close_all()

    def abort_all(self) -> None:
        for listener in self._all:
            listener.abort_all()

    async def wait_closed(self) -> None:
        await asyncio.gather(*(listener.wait_closed() for listener in self._all))


def _count(gauges: dict[str, Any], listener: Listener) -> None:
    name = listener.name
    gauges[f"{name}_connections"] = (f"Open sockets of {name}", lambda: listener.connections)
    gauges[f"{name}_unauthenticated"] = (
        f"Sockets of {name} that have not authenticated",
        lambda: listener.admission.unauthenticated,
    )


async def bind_https(listener: Listener, host: str, port: int | None) -> str:
    """443 unless told otherwise; where the system forbids it, 8443, which some SDKs cannot reach: the note about that,
    else nothing. Raises BindError."""
    try:
        await listener.bind_tcp(host, HTTPS_PORT if port is None else port)
    except BindError as error:
        if port is not None or error.reason != "permission":
            raise
        await listener.bind_tcp(host, FALLBACK_HTTPS_PORT)
        return FALLBACK_NOTE
    return ""
