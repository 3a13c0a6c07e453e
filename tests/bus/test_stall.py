"""A node whose process is stopped and goes on, for real."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import uvloop

from methodhub.bus.line import servers
from tests.bus.nodes import Cluster
from tests.bus.peers import Caller, D, Device
from tests.nats_server import RunningNats

ROOT = Path(__file__).parent.parent.parent


async def test_a_process_that_was_stopped_hands_over_nothing_stale(runner: asyncio.Runner, nats: RunningNats) -> None:
    """[HUB-stalled] Whoever gave up meanwhile is not served; whoever waits is, once."""
    cluster = Cluster(nats.server)
    cluster.live.add("stopped")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bus.test_stall"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(nats.url.encode() + b"\n")
        async for line in process.stdout:
            if line == b"ready\n":
                break
        async with cluster.node("a") as a:
            assert await Caller(a, "before").end() == "ok"
            process.send_signal(signal.SIGSTOP)
            gave_up, waits = Caller(a, "gave-up"), Caller(a, "waits")
            gave_up.remote.cancel()
            await asyncio.sleep(1.5)  # what a stopped process has no event for
            process.send_signal(signal.SIGCONT)
            assert await waits.end() == "ok"
            assert await Caller(a, "after").end() == "ok"
        output, _ = await process.communicate(b"")
        (told,) = (line for line in output.splitlines() if line.startswith(b"[{"))  # among what it logs
        assert json.loads(told) == [{"before": 1, "waits": 1, "after": 1}, 2]
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def claim_until_told(url: str) -> None:
    device = Device("ok")
    async with Cluster(servers(url)[0]).node("stopped") as bus:
        await bus.claim(D, device.answer, device.lose)
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        print(json.dumps([device.handed, bus.taken.sent_back]), flush=True)


if __name__ == "__main__":
    uvloop.run(claim_until_told(sys.stdin.readline().strip()))
