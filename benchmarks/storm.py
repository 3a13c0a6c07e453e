"""All devices of a hub lose their connections and come back at once, while others are called.

    python3 benchmarks/storm.py [--devices 15000] [--tls] [--at-once 1000]

One hub with a database file, on one core; 100 devices stay, and are called by eight callers before and during it.
`--at-once`: how many of the devices connect at the same time; the others wait for their turn. A device that is turned
away comes again within a second. Prints JSON objects.
"""

import argparse
import json
import os
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jobs
import measure
import tools
from subjects import Running

STAY = 100
CALLERS = 8
PIECE = 2.0
"""Seconds of each measurement of calls: the storm is seen piece by piece."""


def cpu(pid: int) -> float:
    """Seconds of processor time that it has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def brief(figures: dict[str, Any]) -> dict[str, Any]:
    """Of calls; all of them were answered rightly, or it says so."""
    wrong = {name: figures[name] for name in ("not_200", "wrong", "errors", "devices_dropped") if figures[name]}
    kept = ("calls_per_second", "p50_ms", "p99_ms", "max_ms", "server_busy")
    return {name: figures[name] for name in kept} | wrong


def called(running: Running, stack: ExitStack, seconds: float) -> Any:
    """A load that calls the devices that stay; returned once they are connected, before it calls."""
    options = ["--http", running.http, "--callers", str(CALLERS), "--seconds", str(seconds), "--warmup", "1"]
    options += ["--pids", str(running.connections)] + (["--http-tls"] if running.tls else [])
    process = stack.enter_context(measure.load(running, running.devices[:STAY], *options))
    measure.line(process)
    return process


def storm(running: Running, given: argparse.Namespace) -> dict[str, Any]:
    """The devices are gone with their process; the next one connects them at once."""
    devices, pid = running.devices[STAY:], running.connections
    with ExitStack() as stack:
        with measure.load(running, devices, "--idle") as process:
            print(json.dumps({"first": measure.line(process), "memory_mb": mb(pid)}), flush=True)
            calm = called(running, stack, PIECE)
            print(json.dumps({"calls before": brief(measure.line(calm))}), flush=True)
            during = called(running, stack, given.seconds)
        begun, used = time.monotonic(), cpu(pid)
        with measure.load(running, devices, "--idle", "--retry", "--at-once", str(given.at_once)) as process:
            ready = measure.line(process)
            taken, used = time.monotonic() - begun, cpu(pid) - used
            peak = mb(pid)
            calls = measure.line(during)
            return {
                "seconds_to_all_ready": round(taken, 1),
                "connects_per_second": ready["connects_per_second"],
                "hub_ms_per_connect": round((used - calls_cpu(calls, taken)) / len(devices) * 1000, 3),
                "turned_away": ready["retries"],
                "transport": ready["transport"],
                "memory_mb": peak,
                "calls during": brief(calls),
                "calls_seconds": calls["seconds"] + 1,
            }


def calls_cpu(calls: dict[str, Any], seconds: float) -> float:
    """What the calls will have used of the hub's time, at 60 us each."""
    return float(calls["calls_per_second"]) * seconds * 60e-6


def mb(pid: int) -> float:
    return round(measure.memory(pid) / 2**20, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=15_000)
    parser.add_argument("--at-once", type=int, default=1_000)
    parser.add_argument("--seconds", type=float, default=8, help="of calls during the storm: less than it lasts")
    parser.add_argument("--tls", action="store_true")
    given = parser.parse_args()
    with jobs.running(given.tls, False, given.devices + STAY) as (running, _):
        print(json.dumps({"storm": storm(running, given)}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except tools.Missing as missing:
        raise SystemExit(str(missing)) from None
