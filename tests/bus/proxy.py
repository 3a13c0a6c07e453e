"""A TCP proxy in front of a server that can be cut, held and healed. It remembers what went up."""

from __future__ import annotations

import asyncio
from typing import Self

from methodhub.bus.line import Server


class _Side(asyncio.Protocol):
    """One end of a connection; what it reads goes to `other`."""

    def __init__(self, proxy: Proxy, *, is_down: bool) -> None:
        self.proxy = proxy
        self.is_down = is_down
        """Whether it reads what the server says."""
        self.other: _Side | None = None
        self.transport: asyncio.Transport | None = None
        self.kept = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.proxy.sides.append(self)
        if not self.is_down:
            self.proxy.spawn(self.connect())

    async def connect(self) -> None:
        other = _Side(self.proxy, is_down=True)
        other.other = self
        server = self.proxy.behind
        try:
            await asyncio.get_running_loop().create_connection(lambda: other, server.host, server.port)
        except OSError:
            assert self.transport is not None
            self.transport.abort()
            return
        self.other = other
        self.pass_on()

    def data_received(self, data: bytes) -> None:
        self.kept += data
        self.proxy.came.set()
        self.pass_on()

    def pass_on(self) -> None:
        held = self.proxy.holds_down if self.is_down else self.proxy.holds_up
        if self.other is None or self.other.transport is None or held:
            return
        if self.other.transport.is_closing():
            assert self.transport is not None
            self.transport.abort()
        elif self.kept:
            if not self.is_down:
                self.proxy.went_up += self.kept
            self.other.transport.write(self.kept)
            self.kept = b""

    def connection_lost(self, error: Exception | None) -> None:
        if self in self.proxy.sides:
            self.proxy.sides.remove(self)
        if self.other is not None and self.other.transport is not None and not self.proxy.holds_up:
            self.other.transport.abort()


class Proxy:
    """`hold` keeps bytes and connections, as a network that lost its way; `cut` ends connections and takes no new."""

    def __init__(self, behind: Server) -> None:
        self.behind = behind
        self.sides: list[_Side] = []
        self.holds_up = self.holds_down = False
        self.came = asyncio.Event()
        """Set at each arrival of bytes."""
        self.went_up = b""
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: asyncio.Server | None = None
        self.port = 0

    @property
    def server(self) -> Server:
        return Server("127.0.0.1", self.port, user=self.behind.user, password=self.behind.password)

    def spawn(self, coroutine) -> None:  # type: ignore[no-untyped-def]
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def kept(self, text: bytes, *, down: bool) -> None:
        """Return when bytes with `text` in them have come from the server (`down`) or the node, and are held."""
        while not any(side.is_down == down and text in side.kept for side in self.sides):
            self.came.clear()
            await self.came.wait()

    async def passed_up(self, text: bytes) -> None:
        """Return when bytes with `text` in them have gone to the server."""
        while text not in self.went_up:
            self.came.clear()
            await self.came.wait()

    def hold(self, *, up: bool = True, down: bool = True) -> None:
        self.holds_up, self.holds_down = up, down

    def release(self) -> None:
        """Pass on what was held."""
        self.holds_up = self.holds_down = False
        for side in list(self.sides):
            side.pass_on()

    async def cut(self) -> None:
        """End what is held, unseen by the server as far as bytes go, and refuse what comes."""
        if self._listening is not None:
            self._listening.close()
            self._listening = None
        for side in list(self.sides):
            side.kept = b""
            if side.transport is not None:
                side.transport.abort()
        self.holds_up = self.holds_down = False

    async def heal(self) -> None:
        loop = asyncio.get_running_loop()
        self._listening = await loop.create_server(
            lambda: _Side(self, is_down=False), "127.0.0.1", self.port, reuse_address=True
        )
        self.port = self._listening.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.heal()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)
