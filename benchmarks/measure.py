"""One measurement at a time: the call load, the memory of idle connections. Returns the load tool's own figures."""

import contextlib
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tools
from subjects import LOAD_CORE, Device, Running

BASE = 100
"""Connections held before memory is first read, so that what the first ones allocate for all is not counted."""
SETTLE = 2.0
"""Seconds between the last connection and the reading: TLS tickets, timers and collectors come to rest."""


@contextlib.contextmanager
def load(running: Running, devices: list[Device], *options: str) -> Iterator[subprocess.Popen[str]]:
    with tempfile.TemporaryDirectory(prefix="methodhub-load-") as place:
        listing = Path(place) / "devices"
        lines = (f"{d.device_id}\t{d.user_name}\t{d.password}\n" for d in devices)
        listing.write_text("".join(lines))
        command = [str(tools.load_tool()), "--devices", str(listing), *running.load, *options]
        command += [f"--{running.protocol}", running.door]
        process = subprocess.Popen(
            command + (["--device-tls"] if running.tls else []),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: os.sched_setaffinity(0, {LOAD_CORE}),  # noqa: PLW1509 - no threads here
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout and process.stderr
    text = process.stdout.readline()
    if not text:
        raise tools.Missing(process.stderr.read().strip() or "the load tool ended without a word")
    figures: dict[str, Any] = json.loads(text)
    return figures


@dataclass(frozen=True)
class Plan:
    """How long and how hard: seconds, seconds before that count for nothing, concurrent callers."""

    seconds: float
    warmup: float
    callers: int


def calls(running: Running, devices: list[Device], plan: Plan, called: int = 0) -> dict[str, Any]:
    """Connects `devices` and calls the first `called` of them (0: all) in turn."""
    options = ["--http", running.http, "--callers", str(plan.callers), "--called", str(called or len(devices))]
    options += ["--seconds", str(plan.seconds), "--warmup", str(plan.warmup)]
    options += ["--pids", ",".join(map(str, running.pids))] + (["--http-tls"] if running.tls else [])
    with load(running, devices, *options) as process:
        return line(process) | line(process)


def memory(pid: int) -> int:
    """Bytes: the process's share of the pages it has in memory."""
    for entry in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if entry.startswith("Pss:"):
            return int(entry.split()[1]) * 1024
    raise ValueError("no Pss")


def idle(running: Running, count: int) -> dict[str, Any]:
    """KB per idle connection, and connects per second (64 at a time)."""
    with load(running, running.devices[:BASE], "--idle") as base:
        line(base)
        time.sleep(SETTLE)
        before = memory(running.connections)
        with load(running, running.devices[BASE : BASE + count], "--idle") as process:
            figures = line(process)
            time.sleep(SETTLE)
            figures["kb_per_connection"] = (memory(running.connections) - before) / count / 1024
            return figures
