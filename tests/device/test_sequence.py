"""Events in strict order, whatever any of them waits for."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from methodhub.device.sequence import Sequence


class Recorder:
    """`waits`: how many turns of the loop each event waits for; 0 for those that are done at once, -1 for those that
    fail."""

    def __init__(self, waits: dict[int, int]) -> None:
        self.waits = waits
        self.log: list[str] = []
        self.sequence: Sequence[int] = Sequence(
            self._handle, lambda: self.log.append("resumed"), lambda: self.log.append("failed")
        )

    def _handle(self, event: int) -> None:
        self.log.append(f"begin {event}")
        if self.waits.get(event) == -1:
            raise ValueError(event)
        if self.waits.get(event):
            self.sequence.wait_for(self._wait(event))

    async def _wait(self, event: int) -> None:
        for _ in range(self.waits[event]):
            await asyncio.sleep(0)
        self.log.append(f"end {event}")

    async def idle(self) -> None:
        while (task := self.sequence._task) is not None:
            await task


@given(st.lists(st.integers(0, 3), max_size=12))
def test_each_begins_when_the_one_before_has_ended(waits: list[int]) -> None:
    async def run() -> None:
        recorder = Recorder(dict(enumerate(waits)))
        for event in range(len(waits)):
            recorder.sequence.add(event)
        await recorder.idle()
        expected = []
        for event, turns in enumerate(waits):
            expected += [f"begin {event}"] + ([f"end {event}"] if turns else [])
        assert [line for line in recorder.log if line != "resumed"] == expected
        assert not recorder.sequence.is_waiting

    asyncio.run(run())


def test_an_event_that_fails_is_told_and_holds_up_nothing() -> None:
    """Nor one that waited: what is behind it would have waited for ever."""

    async def run() -> None:
        recorder = Recorder({1: 2, 2: -1, 4: -1})
        for event in range(6):
            recorder.sequence.add(event)
        await recorder.idle()
        assert not recorder.sequence.is_waiting
        assert recorder.log == [
            "begin 0", "begin 1", "end 1", "begin 2", "failed", "begin 3", "begin 4", "failed", "begin 5", "resumed"
        ]  # fmt: skip

    asyncio.run(run())


def test_it_tells_when_nothing_waits_any_more() -> None:
    async def run() -> None:
        recorder = Recorder({1: 2})
        for event in range(3):
            recorder.sequence.add(event)
        assert recorder.sequence.is_waiting
        assert recorder.log == ["begin 0", "begin 1"]
        await recorder.idle()
        assert recorder.log == ["begin 0", "begin 1", "end 1", "begin 2", "resumed"]

    asyncio.run(run())


@pytest.mark.parametrize("waiting", [False, True])
def test_after_cancel_nothing_more_happens(waiting: bool) -> None:
    async def run() -> None:
        recorder = Recorder({0: 5} if waiting else {})
        recorder.sequence.add(0)
        recorder.sequence.add(1)
        await asyncio.sleep(0)  # a step begins before a connection can be lost
        recorder.sequence.cancel()
        before = list(recorder.log)
        for _ in range(10):
            await asyncio.sleep(0)
        assert recorder.log == before

    asyncio.run(run())
