"""Two nodes of one hub between a real NATS and a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.cluster.pair import Pair, open_pair
from tests.hub_jobs.peers import close_devices
from tests.nats_server import RunningNats


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, postgresql: Callable[[], str]) -> Iterator[Pair]:
    with RunningNats() as nats, open_pair(tmp_path_factory.mktemp("nodes"), postgresql(), nats.url) as nodes:
        yield nodes


@pytest.fixture(autouse=True)
def _devices() -> Iterator[None]:
    """Those of a test are gone after it."""
    yield
    close_devices()
