"""Throttles on a clock that stands until it is moved: what passes, in which order, and who is refused."""

from __future__ import annotations

import pytest

from methodhub.core.deadlines import Deadlines
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.throttles.limits import Rate, Tier, method_blocks, throttle_limits
from methodhub.core.throttles.throttle import MAX_LINE, MAX_WAIT, Throttle, Waiting
from methodhub.metrics import Metrics
from tests.clock import ManualClock


class Line:
    """A throttle and who has passed it, in their order."""

    def __init__(self, rate: Rate) -> None:
        self.clock, self.metrics = ManualClock(), Metrics()
        self.deadlines = Deadlines(self.clock.monotonic())
        self.throttle = Throttle("things", rate, self.deadlines, self.clock, self.metrics)
        self.passed: list[int] = []
        self.waiting: dict[int, Waiting] = {}

    def enter(self, number: int, cost: int = 1) -> ErrorCode | None:
        try:
            waiting = self.throttle.enter(cost, lambda: self.passed.append(number))
        except HubError as error:
            return error.code
        if waiting is None:
            self.passed.append(number)
        else:
            self.waiting[number] = waiting
        return None

    def advance(self, seconds: float) -> None:
        """In steps that are shorter than the gap between two."""
        for _ in range(round(seconds / 0.01)):
            self.clock.advance(0.01)
            self.deadlines.expire(self.clock.monotonic())


@pytest.mark.parametrize(
    ("tier", "units", "calls", "per_minute"),
    [("S1", 1, 40, 100), ("S1", 3, 120, 300), ("S2", 1, 120, 100), ("S3", 1, 6_000, 5_000), ("S3", 2, 12_000, 10_000)],
)
def test_exactly_so_many_pass_in_a_time(tier: Tier, units: int, calls: int, per_minute: int) -> None:
    """[HUB-throttle] A burst of as many as pass in a second; then as many in each second."""
    limits = throttle_limits(tier, units)
    line = Line(limits.method_blocks)
    for number in range(calls):
        assert line.enter(number) is None
    assert len(line.passed) == calls and not line.waiting
    assert line.enter(calls) is None
    assert len(line.passed) == calls
    for second in (1, 2):
        line.clock.advance(1)
        line.deadlines.expire(line.clock.monotonic())
        while len(line.passed) < calls * (second + 1):
            assert line.enter(0) is None and len(line.waiting) == second
        line.enter(0)
        assert len(line.passed) == calls * (second + 1)
    registry = Line(limits.registry)
    for _ in range(per_minute + 1):
        registry.enter(0)
    assert len(registry.passed) == per_minute


@pytest.mark.parametrize(
    ("tier", "units", "found"),
    [
        ("S1", 1, (20, 100, 50, 100, 10, 1)),
        ("S1", 10, (200, 100, 50, 120, 10, 1)),
        ("S2", 1, (20, 100, 50, 120, 10, 5)),
        ("S2", 20, (400, 200, 100, 2_400, 20, 5)),
        ("S3", 2, (2_000, 1_000, 500, 12_000, 100, 10)),
    ],
)
def test_the_numbers_of_the_original(tier: Tier, units: int, found: tuple[int, ...]) -> None:
    limits = throttle_limits(tier, units)
    rates = (limits.queries, limits.twin_reads, limits.twin_writes, limits.connections)
    assert (*(rate.count for rate in rates), limits.job_device_rate, limits.running_jobs) == found
    assert [rate.seconds for rate in rates] == [60, 1, 1, 1]


@pytest.mark.parametrize(("size", "blocks"), [(0, 1), (1, 1), (4_096, 1), (4_097, 2), (8_192, 2), (131_072, 32)])
def test_a_call_counts_by_the_blocks_of_its_payload(size: int, blocks: int) -> None:
    """[HUB-throttle-methods]"""
    assert method_blocks(size) == blocks


def test_first_come_first_served() -> None:
    """[HUB-throttle] A small one does not overtake a large one."""
    line = Line(Rate(4))
    line.enter(0, 4)
    for number, cost in ((1, 1), (2, 4), (3, 1), (4, 1)):
        assert line.enter(number, cost) is None
    line.advance(0.24)
    assert line.passed == [0]
    line.advance(0.02)
    assert line.passed == [0, 1]
    line.advance(0.98)
    assert line.passed == [0, 1]
    line.advance(0.52)
    assert line.passed == [0, 1, 2, 3, 4]
    assert line.metrics.throttled == {("things", "delayed"): 4}


def test_nobody_waits_in_vain() -> None:
    """[HUB-throttle] Whose turn would come too late is told so at once."""
    line = Line(Rate(10))
    codes = [line.enter(number) for number in range(10 + int(MAX_WAIT * 10) + 5)]
    assert codes == [None] * 40 + [ErrorCode.ThrottlingBacklogTimeout] * 5
    line.advance(MAX_WAIT + 0.05)
    assert line.passed == list(range(40))
    assert line.metrics.throttled["things", "ThrottlingBacklogTimeout"] == 5


def test_a_full_line() -> None:
    line = Line(Rate(1_000))
    codes = [line.enter(number) for number in range(1_000 + MAX_LINE + 2)]
    assert codes == [None] * (1_000 + MAX_LINE) + [ErrorCode.ThrottleBacklogLimitExceeded] * 2


def test_whoever_hangs_up_frees_their_place() -> None:
    """[HUB-throttle-hang-up]"""
    line = Line(Rate(1))
    for number in range(4):
        line.enter(number)
    assert line.enter(9) is ErrorCode.ThrottlingBacklogTimeout
    line.waiting[1].cancel()
    line.waiting[1].cancel()
    assert line.enter(4) is None
    line.advance(1.02)
    assert line.passed == [0, 2]
    line.waiting[2].cancel()
    line.advance(2.04)
    assert line.passed == [0, 2, 3, 4]


def test_one_that_costs_more_than_ever_passes_at_once_takes_all_there_is() -> None:
    line = Line(Rate(10))
    assert line.enter(0, 50) is None
    assert line.passed == [0]
    assert line.enter(1) is None
    assert line.passed == [0]
