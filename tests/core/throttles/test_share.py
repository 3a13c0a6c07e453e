"""Throttles of several nodes on one clock: together they let pass what one would, however many there are."""

from __future__ import annotations

from functools import partial

import pytest

from methodhub.core.deadlines import Deadlines
from methodhub.core.errors import HubError
from methodhub.core.jobs.pace import Pace
from methodhub.core.throttles.limits import throttle_limits
from methodhub.core.throttles.throttles import Throttles
from methodhub.metrics import Metrics
from tests.clock import ManualClock

LIMIT = 40
"""Method blocks per second of S1."""


class Nodes:
    """`live` of them, each of which sees that number."""

    def __init__(self, live: int) -> None:
        self.clock = ManualClock()
        self.deadlines = Deadlines(self.clock.monotonic())
        self.live = live
        self.passed = 0
        self.nodes = [self._node() for _ in range(3)]

    def _node(self) -> Throttles:
        return Throttles(throttle_limits("S1", 1), self.deadlines, self.clock, Metrics(), lambda: 1 / self.live)

    def become(self, live: int) -> None:
        """A node that is gone takes its line along."""
        self.live = live
        self.nodes[live:] = [self._node() for _ in range(live, 3)]

    def _passes(self, node: Throttles, cost: int) -> None:
        if node in self.nodes:
            self.passed += cost

    async def second(self, cost: int = 1) -> int:
        """What passes while each live node is asked for three times the limit."""
        before = self.passed
        for node in self.nodes:
            await node.take_share()
        for _ in range(100):
            self.clock.advance(0.01)
            self.deadlines.expire(self.clock.monotonic())
            for node in self.nodes[: self.live]:
                try:
                    if node.methods.enter(cost, partial(self._passes, node, cost)) is None:
                        self._passes(node, cost)
                except HubError:
                    continue
        return self.passed - before


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
@pytest.mark.parametrize("live", [1, 2, 3])
async def test_the_total_stays_within_a_fifth(live: int) -> None:
    """[HUB-throttle-share]"""
    nodes = Nodes(live)
    await nodes.second()
    for _ in range(5):
        assert LIMIT * 0.8 <= await nodes.second() <= LIMIT * 1.2


@pytest.mark.anyio
async def test_nodes_that_come_and_go_change_the_shares_within_a_second() -> None:
    nodes = Nodes(1)
    await nodes.second()
    for live in (3, 2, 1, 3):
        nodes.become(live)
        await nodes.second()
        assert LIMIT * 0.8 <= await nodes.second() <= LIMIT * 1.2


@pytest.mark.anyio
async def test_what_costs_more_than_a_share_passes_and_is_paid_for() -> None:
    """A payload of 128 KB is 32 blocks, a third of S1 is 13."""
    nodes = Nodes(3)
    for node in nodes.nodes:
        await node.take_share()
    passed = sum([await nodes.second(32) for _ in range(20)])
    assert LIMIT * 20 * 0.8 <= passed <= LIMIT * 20 * 1.2


@pytest.mark.anyio
async def test_what_waits_for_more_than_the_new_share_still_has_its_turn() -> None:
    nodes = Nodes(1)
    [node, *_] = nodes.nodes
    assert node.methods.enter(40, lambda: None) is None
    turns: list[int] = []
    assert node.methods.enter(40, lambda: turns.append(1)) is not None
    nodes.live = 3
    await node.take_share()
    for _ in range(101):
        nodes.clock.advance(0.01)
        nodes.deadlines.expire(nodes.clock.monotonic())
    assert turns == [1]


@pytest.mark.parametrize("live", [1, 2, 3])
def test_jobs_of_several_nodes_keep_the_rate_together(live: int) -> None:
    """[HUB-throttle-share] Also a rate that gives each node less than a device at once."""
    paces = [Pace(10, 0.0, lambda: 1 / live) for _ in range(live)]
    taken = 0
    for step in range(1, 1001):
        for pace in paces:
            turns = pace.turns(step / 100)
            pace.take(turns)
            taken += turns
    assert 100 * 0.8 <= taken <= 100 * 1.2
