"""The NATS server that a hub starts for its own workers."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from methodhub.bus import server as module
from methodhub.bus.line import LineFailure
from methodhub.bus.server import OwnServer
from tests.bus.nodes import Cluster

OTHERS = stat.S_IRWXG | stat.S_IRWXO


@asynccontextmanager
async def own(directory: Path) -> AsyncIterator[OwnServer]:
    server = OwnServer(directory)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_its_secrets_are_told_to_nobody_else(runner: asyncio.Runner, tmp_path: Path) -> None:
    async with own(tmp_path) as server:
        (config,) = tmp_path.iterdir()
        assert not config.stat().st_mode & OTHERS
        assert server.server.password is not None
        assert server.server.password in config.read_text()
        assert server.server.password in server.url
        for name in ("cmdline", "environ"):
            assert server.server.password.encode() not in Path(f"/proc/{server.pid}/{name}").read_bytes()
        assert server.server.password not in repr(server.server) + str(server.server)
    assert not list(tmp_path.iterdir())


async def test_it_comes_back_on_the_same_port(runner: asyncio.Runner, tmp_path: Path) -> None:
    back = asyncio.Event()
    async with own(tmp_path) as server, Cluster(server.server).node("a", missed=back.set):
        before = server.url
        os.kill(server.pid, signal.SIGKILL)
        async with asyncio.timeout(10):
            await back.wait()
        assert server.url == before


async def test_it_leaves_nothing_behind(runner: asyncio.Runner, tmp_path: Path) -> None:
    async with own(tmp_path) as server:
        pid = server.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


async def test_one_that_is_not_installed_is_told_so(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROGRAM", "no-such-nats-server")
    with pytest.raises(LineFailure, match="not installed"):
        await OwnServer(tmp_path).start()


async def test_one_that_cannot_start_says_why(
    runner: asyncio.Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CONFIG", 'listen: "127.0.0.1:{port}"\nno_such_setting: 1\n#{user}{password}')
    with pytest.raises(LineFailure, match="did not start"):
        await OwnServer(tmp_path).start()
