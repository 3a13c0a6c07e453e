"""Requests that come while others are under way go together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from methodhub.core.ports import StoreUnavailable
from methodhub.core.twins.batches import LARGEST, Batches


class Work:
    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.fails = False

    async def __call__(self, items: Sequence[int]) -> list[str]:
        self.batches.append(list(items))
        await self.gate.wait()
        if self.fails:
            raise ValueError("no")
        return [str(item) for item in items]


def test_what_waits_goes_together() -> None:
    async def run() -> tuple[list[str], Work]:
        work = Work()
        batches = Batches(work)
        first = asyncio.ensure_future(batches.do(-1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        rest = [asyncio.ensure_future(batches.do(number)) for number in range(LARGEST + 1)]
        await asyncio.sleep(0)
        work.gate.set()
        return await asyncio.gather(first, *rest), work

    results, work = asyncio.run(run())
    assert results == [str(number) for number in range(-1, LARGEST + 1)]
    assert [len(batch) for batch in work.batches] == [1, LARGEST, 1]


def test_what_fails_fails_for_its_batch_alone() -> None:
    async def run() -> tuple[list[str | BaseException], str]:
        work = Work()
        work.gate.set()
        work.fails = True
        batches = Batches(work)
        failed = list(await asyncio.gather(batches.do(1), batches.do(2), return_exceptions=True))
        work.fails = False
        return failed, await batches.do(3)

    failed, later = asyncio.run(run())
    assert [type(each) for each in failed] == [ValueError, ValueError]
    assert later == "3"


def test_one_that_fails_takes_no_other_along() -> None:
    """But where the store is away, nobody is asked again one by one."""

    async def work(items: Sequence[int]) -> list[str]:
        asked.append(list(items))
        if 13 in items:
            raise ValueError("thirteen")
        if 99 in items:
            raise StoreUnavailable("away")
        return [str(item) for item in items]

    async def run(*items: int) -> list[str | BaseException]:
        asked.clear()
        batches = Batches(work)
        return list(await asyncio.gather(*map(batches.do, items), return_exceptions=True))

    asked: list[list[int]] = []
    one, bad, two = asyncio.run(run(1, 13, 2))
    assert (one, type(bad), two) == ("1", ValueError, "2")
    assert asked == [[1, 13, 2], [1], [13], [2]]
    assert [type(each) for each in asyncio.run(run(1, 99))] == [StoreUnavailable] * 2
    assert asked == [[1, 99]]


def test_who_is_cancelled_holds_up_nobody() -> None:
    async def run() -> tuple[str, Work]:
        work = Work()
        batches = Batches(work)
        gone, stays = (asyncio.ensure_future(batches.do(number)) for number in (1, 2))
        await asyncio.sleep(0)
        gone.cancel()
        work.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await gone
        return await stays, work

    result, work = asyncio.run(run())
    assert result == "2"
    assert work.batches == [[1, 2]]
