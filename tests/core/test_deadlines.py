"""Deadlines: each runs once, within one tick of its time, never after it has been looked at."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.core.deadlines import TICK, Deadline, Deadlines

STARTS = st.floats(0, 1e7)
AFTER = st.floats(0, 700)


@given(STARTS, AFTER)
def test_a_deadline_runs_once_within_a_tick_of_its_time(start: float, after: float) -> None:
    deadlines, ran = Deadlines(start), list[int]()
    when = start + after
    deadlines.call_at(when, lambda: ran.append(1))
    if after > 1.001 * TICK:
        deadlines.expire(when - 1.001 * TICK)
        assert not ran
    deadlines.expire(when)
    deadlines.expire(when + 1)
    assert ran == [1]
    assert len(deadlines) == 0


@given(STARTS, st.lists(st.tuples(AFTER, st.booleans()), max_size=20), st.lists(AFTER, max_size=5))
def test_of_many_those_that_are_due_and_not_cancelled_run_oldest_first(
    start: float, wanted: list[tuple[float, bool]], looks: list[float]
) -> None:
    deadlines, ran = Deadlines(start), list[float]()
    armed = [(start + after, cancel) for after, cancel in wanted]
    made = [deadlines.call_at(when, partial(ran.append, when)) for when, _ in armed]
    for deadline, (_, cancel) in zip(made, armed, strict=True):
        if cancel:
            deadline.cancel_deadline()
            deadline.cancel_deadline()
    kept = sorted(when for when, cancel in armed if not cancel)
    assert len(deadlines) == len(kept)
    now = start
    for look in sorted(looks):
        now = start + look
        deadlines.expire(now)
        assert all(when < now + 1.001 * TICK for when in ran)
        assert set(kept) - set(ran) <= {when for when in kept if when > now}
    deadlines.expire(start + 1_000)
    assert sorted(ran) == kept
    assert all(later > earlier - TICK for earlier, later in pairwise(ran))
    assert len(deadlines) == 0


def test_armed_again_it_moves() -> None:
    deadlines, ran = Deadlines(0), list[int]()
    deadline = deadlines.call_at(5, lambda: ran.append(1))
    deadlines.add(9, deadline)
    assert len(deadlines) == 1
    deadlines.expire(8)
    assert not ran
    deadlines.expire(9)
    assert ran == [1]


def test_one_that_is_due_already_runs_at_the_next_look() -> None:
    deadlines, ran = Deadlines(100), list[int]()
    deadlines.expire(200)
    deadlines.call_at(50, lambda: ran.append(1))
    deadlines.expire(200 + 2 * TICK)
    assert ran == [1]


def test_one_may_cancel_another_of_the_same_tick() -> None:
    deadlines, ran = Deadlines(0), list[str]()
    made: list[Deadline] = []

    def first() -> None:
        ran.append("first")
        made[1].cancel_deadline()

    made += [deadlines.call_at(1, first), deadlines.call_at(1, lambda: ran.append("second"))]
    deadlines.expire(2)
    assert ran == ["first"]
    assert len(deadlines) == 0


def test_one_that_arms_another_in_the_past_does_not_loop() -> None:
    deadlines, ran = Deadlines(0), list[int]()

    def again() -> None:
        ran.append(1)
        deadlines.call_at(0, again)

    deadlines.call_at(0, again)
    deadlines.expire(1)
    assert ran == [1]
    deadlines.expire(2)
    assert ran == [1, 1]


def test_time_that_stands_or_runs_back_runs_nothing() -> None:
    deadlines, ran = Deadlines(10), list[int]()
    deadlines.call_at(10, lambda: ran.append(1))
    deadlines.expire(5)
    assert not ran
    deadlines.expire(10)
    deadlines.expire(10)
    assert ran == [1]


def test_a_failure_takes_no_other_deadline_along() -> None:
    deadlines, ran = Deadlines(0), list[int]()

    def fail() -> None:
        raise ZeroDivisionError

    deadlines.call_at(1, fail)
    deadlines.call_at(1, lambda: ran.append(1))
    deadlines.call_at(1.5, fail)
    deadlines.call_at(2, lambda: ran.append(2))
    with pytest.raises(ExceptionGroup) as caught:
        deadlines.expire(2)
    assert [type(error) for error in caught.value.exceptions] == [ZeroDivisionError] * 2
    assert ran == [1, 2]
    assert len(deadlines) == 0


def test_the_base_class_has_nothing_to_do() -> None:
    with pytest.raises(NotImplementedError):
        Deadline().expired()
