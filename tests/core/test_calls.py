"""The ledger of one connection: each call is settled once or forgotten, and leaves nothing behind."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.calls import (
    MethodResult,
    Outcome,
    PendingCalls,
    response_timed_out,
    seconds_text,
)
from methodhub.core.deadlines import Deadlines
from methodhub.core.errors import ErrorCode, HubError

OK = MethodResult(200, b"{}")


class Ledger:
    def __init__(self, first_rid: int = 7) -> None:
        self.deadlines = Deadlines(0)
        self.pending = PendingCalls(first_rid, self.deadlines)
        self.outcomes: dict[int, list[Outcome]] = {}

    def open(self, due: float = 30) -> int:
        outcomes: list[Outcome] = []
        rid = self.pending.open(30, due, outcomes.append).rid
        self.outcomes[rid] = outcomes
        return rid


def test_ids_count_up_from_the_first() -> None:
    """[HUB-rid]"""
    ledger = Ledger(2**31 - 1)
    assert [ledger.open() for _ in range(3)] == [2**31 - 1, 2**31, 2**31 + 1]


def test_an_answer_settles_its_call_once() -> None:
    ledger = Ledger()
    first, second = ledger.open(), ledger.open()
    assert ledger.pending.settle(first, OK)
    assert not ledger.pending.settle(first, OK)
    assert not ledger.pending.settle(first - 1, OK)
    assert ledger.outcomes == {first: [OK], second: []}
    assert len(ledger.pending) == len(ledger.deadlines) == 1


def test_without_an_answer_a_call_times_out() -> None:
    """[HUB-response-timeout]"""
    ledger = Ledger()
    early, late = ledger.open(10), ledger.open(20)
    ledger.deadlines.expire(15)
    (outcome,) = ledger.outcomes[early]
    assert isinstance(outcome, HubError)
    assert (outcome.code, outcome.info) == (ErrorCode.GatewayTimeout, {"timeout": "00:00:30"})
    assert outcome.message == "Timed out waiting for the response from device."
    assert ledger.outcomes[late] == []
    assert not ledger.pending.settle(early, OK)
    assert len(ledger.pending) == 1


def test_a_forgotten_call_is_told_nothing() -> None:
    ledger = Ledger()
    outcomes: list[Outcome] = []
    call = ledger.pending.open(30, 30, outcomes.append)
    call.cancel()
    call.cancel()
    assert not ledger.pending.settle(call.rid, OK)
    assert not outcomes
    assert len(ledger.pending) == len(ledger.deadlines) == 0


def test_all_fail_together_and_those_opened_meanwhile_stay() -> None:
    """A caller may call again at once: its new call is not of those that fail."""
    ledger = Ledger()
    again: list[Outcome] = []
    ledger.pending.open(30, 30, lambda _: void(ledger.pending.open(30, 30, again.append)))
    ledger.open()
    error = HubError(ErrorCode.DeviceConnectionClosedRemotely, "gone")
    ledger.pending.fail_all(lambda: error)
    assert list(ledger.outcomes.values()) == [[error]]
    assert again == []
    assert len(ledger.pending) == len(ledger.deadlines) == 1


def void(_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "00:00:00"), (30, "00:00:30"), (299.9, "00:04:59"), (3661, "01:01:01")]
)
def test_seconds_are_written_as_the_original_does(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text
    assert response_timed_out(seconds).info == {"timeout": text}


@given(st.lists(st.tuples(st.sampled_from(["open", "settle", "forget", "fail"]), st.integers(0, 12))))
def test_any_sequence_settles_each_call_at_most_once(steps: list[tuple[str, int]]) -> None:
    ledger, open_rids = Ledger(0), set[int]()
    for step, rid in steps:
        if step == "open":
            open_rids.add(ledger.open())
        elif step == "settle":
            assert ledger.pending.settle(rid, OK) == (rid in open_rids)
            open_rids.discard(rid)
        elif step == "forget":
            ledger.pending.forget(rid)
            open_rids.discard(rid)
        else:
            ledger.pending.fail_all(lambda: HubError(ErrorCode.ServerError, ""))
            open_rids.clear()
        assert len(ledger.pending) == len(ledger.deadlines) == len(open_rids)
        for each, outcomes in ledger.outcomes.items():
            assert len(outcomes) <= (each not in open_rids)
