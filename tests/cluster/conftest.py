"""Two nodes of one hub, each on a loop and a loopback address of its own, between a real NATS and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.cluster.pair import Pair
from tests.harness import RunningHub, new_address
from tests.hub_jobs.peers import close_devices
from tests.nats_server import RunningNats


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgresql: Callable[[], str]) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("nodes")
    addresses = (new_address(), new_address())
    with ExitStack() as stack:
        nats = stack.enter_context(RunningNats())
        url = postgresql()
        a, b = (
            stack.enter_context(
                RunningHub(
                    folder / str(number),
                    address=address,
                    hostname=addresses,
                    in_memory=False,
                    database_url=url,
                    nats_url=nats.url,
                )
            )
            for number, address in enumerate(addresses)
        )
        yield Pair(a, b)


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    """Those of a test are gone after it."""
    yield
    close_devices()
