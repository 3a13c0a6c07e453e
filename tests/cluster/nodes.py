"""Nodes of one hub as an operator runs them: processes with addresses of their own between a real PostgreSQL and a real
NATS, or a cluster of it."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Self

from tests.cluster.proxy import Proxy
from tests.harness import new_address
from tests.nats_server import RunningNats
from tests.verify.hub_process import HubProcess

DURABLE = {"synchronous_commit": "on", "full_page_writes": "on"}
"""Of a PostgreSQL that is killed: what it acknowledged is there afterwards."""


class Cluster:
    """`database_url` and `nats_urls` are as in the settings; node n is given the n-th of the latter, or the only one.
    Nodes share a trust in each other's authorities. `with` starts all at once, and ends what still runs."""

    def __init__(self, folder: Path, database_url: str, nats_urls: Sequence[str], count: int, *flags: str) -> None:
        addresses = [new_address() for _ in range(count)]
        self.nodes = [
            HubProcess(
                folder / f"node{number}",
                *flags,
                address=address,
                hostnames=addresses,
                env={
                    "METHODHUB_DATABASE_URL": database_url,
                    "METHODHUB_NATS_URL": nats_urls[number % len(nats_urls)],
                },
            )
            for number, address in enumerate(addresses)
        ]

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for node in self.nodes:
                stack.push(node.__exit__)
            with ThreadPoolExecutor() as threads:
                list(threads.map(HubProcess.start, self.nodes))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def __getitem__(self, number: int) -> HubProcess:
        return self.nodes[number]

    def __len__(self) -> int:
        return len(self.nodes)


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


@contextmanager
def nats_cluster(count: int = 3) -> Iterator[list[RunningNats]]:
    """Servers with routes among each other."""
    ports = free_ports(count)
    with ExitStack() as stack:
        servers = []
        for port in ports:
            routes = ", ".join(f'"nats://127.0.0.1:{each}"' for each in ports if each != port)
            more = f'cluster {{ name: hub, listen: "127.0.0.1:{port}", no_advertise: true, routes: [{routes}] }}'
            servers.append(stack.enter_context(RunningNats(more)))
        yield servers


@contextmanager
def proxied(nats: RunningNats) -> Iterator[tuple[Proxy, str]]:
    with Proxy(nats.port) as proxy:
        yield proxy, nats.url.replace(f":{nats.port}", f":{proxy.port}")
