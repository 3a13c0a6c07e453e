"""A TCP proxy that can be cut, or go silent, and be healed: a network between a node and its bus."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Self

from tests.harness import PATIENCE


class Proxy:
    """`with Proxy(port) as proxy:` takes connections at `proxy.port` of loopback for those of `port`."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._writers: set[asyncio.StreamWriter] = set()
        self._passing = asyncio.Event()
        self._is_cut = False

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(PATIENCE)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        self._loop.close()

    def cut(self) -> None:
        """Reset what there is and whatever comes."""
        self._do(self._cut)

    def silence(self) -> None:
        """Nothing arrives any more, on either side; it arrives when the proxy is healed, as with a network that lost
        packets for a time."""
        self._do(self._passing.clear)

    def heal(self) -> None:
        self._do(self._heal)

    def _do(self, work: Callable[[], None]) -> None:
        async def call() -> None:
            work()

        asyncio.run_coroutine_threadsafe(call(), self._loop).result(PATIENCE)

    def _cut(self) -> None:
        self._is_cut = True
        for writer in self._writers:
            writer.transport.abort()

    def _heal(self) -> None:
        self._is_cut = False
        self._passing.set()

    async def _listen(self) -> None:
        self._passing.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        self._cut()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, near_reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self._writers.add(near)
        try:
            await self._passing.wait()
            if self._is_cut:
                return
            far_reader, far = await asyncio.open_connection("127.0.0.1", self._target)
            self._writers.add(far)
            try:
                await self._pump_both(near_reader, near, far_reader, far)
            finally:
                far.transport.abort()
                self._writers.discard(far)
        except OSError:
            pass
        finally:
            near.transport.abort()
            self._writers.discard(near)

    async def _pump_both(
        self,
        near_reader: asyncio.StreamReader,
        near: asyncio.StreamWriter,
        far_reader: asyncio.StreamReader,
        far: asyncio.StreamWriter,
    ) -> None:
        """Until either side ends."""
        pumps = [asyncio.ensure_future(self._pump(*each)) for each in ((near_reader, far), (far_reader, near))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65_536):
            await self._passing.wait()
            writer.write(data)
            await writer.drain()
