"""Many small requests as few large ones: what comes while one is under way goes into the next, together. Knows not what
they are about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from methodhub.core.ports import StoreUnavailable

Item = TypeVar("Item")
Result = TypeVar("Result")

LARGEST = 200


class Batches(Generic[Item, Result]):
    """`work` takes some items and gives a result for each, in their order; where it fails for several, each is done
    alone."""

    def __init__(self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]]) -> None:
        self._work = work
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def do(self, item: Item) -> Result:
        """The result of this item. Whoever is cancelled meanwhile leaves it to be done all the same."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Result] = loop.create_future()
        self._waiting.append((item, future))
        if self._task is None:
            self._task = loop.create_task(self._run())
        return await future

    async def _run(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            try:
                await self._do(batch)
            except Exception as error:  # noqa: BLE001 - who waits is told
                if len(batch) == 1 or isinstance(error, StoreUnavailable):
                    self._tell(batch, error)
                    continue
                for single in batch:  # one of them is to blame
                    try:
                        await self._do([single])
                    except Exception as own:  # noqa: BLE001
                        self._tell([single], own)
        self._task = None

    async def _do(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        results = await self._work([item for item, _ in batch])
        for (_, future), result in zip(batch, results, strict=True):
            if not future.done():
                future.set_result(result)

    @staticmethod
    def _tell(batch: list[tuple[Item, asyncio.Future[Result]]], error: Exception) -> None:
        for _, future in batch:
            if not future.done():
                future.set_exception(error)
