"""A job over many connected devices against single calls of the same devices: rates, and the hub's memory meanwhile.

    python3 benchmarks/jobs.py [--devices 10000] [--tls] [--in-memory]

One hub, whose devices are held and answered for by the load tool. First it is called as in `run.py`; then jobs run, one
after the other. Each job is followed over its own connection, twenty times a second.
"""

import argparse
import contextlib
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hub
import measure
import tools
from subjects import Device, Running, end, free_port, spawn

BULK = 100
POLL = 0.05


@contextlib.contextmanager
def running(tls: bool, in_memory: bool, devices: int) -> Iterator[tuple[Running, hub.UnixConnection]]:
    with tempfile.TemporaryDirectory(prefix="methodhub-bench-") as place:
        data, https, mqtt, amqp = Path(place), *(free_port(hub.HOST) for _ in range(3))
        command, env = hub.hub_command(hub.default_python(), data, https, mqtt, amqp, tls, in_memory)
        process = spawn("hub", command, env)
        try:
            hub.await_ready(process, https, tls)
            with contextlib.closing(hub.UnixConnection(data / "methodhub.sock")) as admin:
                policies = {policy["name"]: policy for policy in hub.ask(admin, "GET", "/admin/policies")}
                token = hub.sas_token(hub.HOST, policies["service"]["primaryKey"], "service")
                known = provision(admin, devices, policies["device"]["primaryKey"])
                at = (f"{hub.HOST}:{https}", f"{hub.HOST}:{mqtt}")
                load = ["--header", f"Authorization: {token}"]
                yield Running(*at, tls, [process.pid], known, process.pid, load, "mqtt"), admin
        finally:
            end(process)


def provision(admin: hub.UnixConnection, count: int, key: str) -> list[Device]:
    """In bulk; they show tokens of the policy `device`."""
    ids = [f"bench-{i:06}" for i in range(count)]
    for start in range(0, count, BULK):
        some = [{"id": device_id, "importMode": "create"} for device_id in ids[start : start + BULK]]
        hub.ask(admin, "POST", f"/devices?{hub.API}", some)
    return [
        Device(each, f"{hub.HOST}/{each}/?{hub.API}", hub.sas_token(f"{hub.HOST}/devices/{each}", key, "device"))
        for each in ids
    ]


def run_job(admin: hub.UnixConnection, job_id: str, pid: int) -> dict[str, Any]:
    before = peak = measure.memory(pid)
    method = {"methodName": "m", "payload": {"a": 1}}
    body = {"type": "scheduleDeviceMethod", "cloudToDeviceMethod": method, "queryCondition": "*"}
    begun = time.monotonic()
    hub.ask(admin, "PUT", f"/jobs/v2/{job_id}?{hub.API}", body)
    while True:
        job = hub.ask(admin, "GET", f"/jobs/v2/{job_id}?{hub.API}")
        seconds = time.monotonic() - begun
        counts = job["deviceJobStatistics"]
        parts = ("succeededCount", "failedCount", "runningCount", "pendingCount")
        assert counts["deviceCount"] == sum(counts[part] for part in parts), counts
        if job["status"] == "completed":
            break
        peak = max(peak, measure.memory(pid))
        time.sleep(POLL)
    assert counts["succeededCount"] == counts["deviceCount"], counts
    return {
        "devices": counts["deviceCount"],
        "seconds": round(seconds, 2),
        "devices_per_s": round(counts["deviceCount"] / seconds),
        "memory_before_mb": round(before / 2**20, 1),
        "memory_peak_mb": round(peak / 2**20, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--devices", type=int, default=10_000)
    parser.add_argument("--jobs", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--in-memory", action="store_true")
    given = parser.parse_args()
    with running(given.tls, given.in_memory, given.devices) as (subject, admin):
        calls = measure.calls(subject, subject.devices, measure.Plan(given.seconds, 2, 32))
        print(json.dumps({"single calls": calls}), flush=True)
        with measure.load(subject, subject.devices, "--idle") as process:
            print(json.dumps({"connected": measure.line(process)}), flush=True)
            for number in range(given.jobs):
                print(json.dumps({f"job {number}": run_job(admin, f"bench-{number}", subject.pids[0])}), flush=True)


if __name__ == "__main__":
    try:
        main()
    except tools.Missing as missing:
        raise SystemExit(str(missing)) from None
