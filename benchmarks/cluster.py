"""One node, two workers, three nodes: calls of devices on the same node and on another, a job, and NATS by itself.

    python3 benchmarks/cluster.py [--tls] [--seconds 5] [--job 2000] [--only one,workers,nodes,nats]

Needs requirements-dev.txt in the interpreter, for PostgreSQL and NATS. Each line is a JSON object. Nothing but the load
has a core of its own: compare CPU per call, which counts all of the hub's processes and NATS, and only then calls/s.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import hub
import jobs
import measure
import subjects
import tools
from subjects import Running, end, free_port, spawn

sys.path[:0] = [str(tools.ROOT), str(tools.ROOT / "src")]

from tests.nats_server import RunningNats  # noqa: E402 - found by the line above
from tests.postgres import running_server  # noqa: E402

CALLERS = (1, 32)
"""One shows what a call takes, many how many there can be."""
Figures = dict[str, Any]
Node = tuple[Running, hub.UnixConnection]


@contextlib.contextmanager
def started(tls: bool, env: dict[str, str], *flags: str) -> Iterator[Node]:
    """A node with a file or `env`'s database, as `hub.Hub` but with all cores; no devices yet."""
    with tempfile.TemporaryDirectory(prefix="methodhub-bench-") as place:
        data, https, mqtt, amqp = Path(place), *(free_port(hub.HOST) for _ in range(3))
        command, more = hub.hub_command(sys.executable, data, https, mqtt, amqp, tls, in_memory=False)
        process = spawn("hub", [*command, *flags], env | more)
        os.sched_setaffinity(process.pid, set(subjects.CORES))
        try:
            hub.await_ready(process, https, tls)
            with contextlib.closing(hub.UnixConnection(data / "methodhub.sock")) as admin:
                policies = {policy["name"]: policy for policy in hub.ask(admin, "GET", "/admin/policies")}
                token = hub.sas_token(hub.HOST, policies["service"]["primaryKey"], "service")
                at = (f"{hub.HOST}:{https}", f"{hub.HOST}:{mqtt}")
                pids = [process.pid, *children(process.pid)]
                load = ["--header", f"Authorization: {token}"]
                yield Running(*at, tls, pids, [], process.pid, load), admin
        finally:
            end(process)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def provision(admin: hub.UnixConnection, count: int) -> list[subjects.Device]:
    policies = {policy["name"]: policy for policy in hub.ask(admin, "GET", "/admin/policies")}
    return jobs.provision(admin, count, policies["device"]["primaryKey"])


def together(loads: list[Running], callers: int, seconds: float) -> Figures:
    """Each of `loads` with its own devices and callers, at the same time; all must count the same processes."""
    plan = measure.Plan(seconds, 1.5, max(1, callers // len(loads)))
    with ThreadPoolExecutor() as threads:
        all_figures = list(threads.map(lambda each: measure.calls(each, each.devices, plan), loads))
    for each in all_figures:
        assert not any(each[bad] for bad in ("not_200", "wrong", "errors", "unanswered", "devices_dropped")), each
    rate = sum(each["calls_per_second"] for each in all_figures)
    busy = sum(each["server_busy"] for each in all_figures) / len(loads)
    return {
        "calls_per_second": round(rate),
        "p50_ms": max(each["p50_ms"] for each in all_figures),
        "p99_ms": max(each["p99_ms"] for each in all_figures),
        "cpu_us_per_call": round(busy / rate * 1e6, 1),
    }


def show(what: str, figures: Figures) -> Figures:
    print(json.dumps({what: figures}), flush=True)
    return figures


def measured(what: str, loads: list[Running], seconds: float) -> None:
    for callers in CALLERS:
        if callers >= len(loads):
            show(f"{what}, {callers} callers", together(loads, callers, seconds))


def one(given: argparse.Namespace, what: str, *flags: str) -> None:
    with started(given.tls, {}, *flags) as (running, admin):
        measured(what, [replace(running, devices=provision(admin, 100))], given.seconds)


def crossed(nodes: list[Running], devices: list[subjects.Device], step: int) -> list[Running]:
    """Devices at each node, called through the node that is `step` further."""
    share = len(devices) // len(nodes)
    return [
        replace(node, http=nodes[(n + step) % len(nodes)].http, devices=devices[n * share : (n + 1) * share])
        for n, node in enumerate(nodes)
    ]


def three(given: argparse.Namespace) -> None:
    with contextlib.ExitStack() as stack:
        nats = stack.enter_context(RunningNats())
        postgres = stack.enter_context(running_server({"fsync": "on", "synchronous_commit": "on"}))
        env = {"METHODHUB_DATABASE_URL": postgres.fresh(), "METHODHUB_NATS_URL": nats.url}
        found: list[Node] = [stack.enter_context(started(given.tls, env)) for _ in range(3)]
        admin = found[0][1]
        pids = [nats.process.pid, *(pid for node, _ in found for pid in node.pids)]
        nodes = [replace(node, pids=pids) for node, _ in found]
        devices = provision(admin, given.job)
        for name, step in (("local", 0), ("cross-node", 1)):
            pairs = crossed(nodes, devices[:99], step)
            measured(f"three nodes, {name}, devices at one", pairs[:1], given.seconds)
            measured(f"three nodes, {name}, devices at all", pairs, given.seconds)
        for number, node in enumerate(nodes):
            some = replace(node, devices=devices[number::3])
            connected = measure.line(stack.enter_context(measure.load(some, some.devices, "--idle")))
            show(f"three nodes, connects at node {number}", connected)
        for number in range(3):
            show(f"three nodes, job {number}", jobs.run_job(admin, f"bench-{number}", nodes[0].connections))


def nats_alone(given: argparse.Namespace) -> None:
    with RunningNats() as nats:
        script = str(tools.HERE / "peers" / "request_reply.py")
        to = ["127.0.0.1", str(nats.port), nats.user, nats.password]
        env = os.environ | {"PYTHONPATH": str(tools.ROOT / "src")}
        with subprocess.Popen([sys.executable, script, "answer", *to], env=env, stdout=subprocess.PIPE) as answerer:
            assert answerer.stdout
            answerer.stdout.readline()
            pids = f"{nats.process.pid},{answerer.pid}"
            for callers in CALLERS:
                command = [sys.executable, script, "ask", *to, str(callers), str(given.seconds), pids]
                done = subprocess.run(command, env=env, stdout=subprocess.PIPE, check=True)
                show(f"NATS request-reply, {callers} callers", json.loads(done.stdout))
            answerer.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tls", action="store_true")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--job", type=int, default=2000, help="devices of the job on three nodes")
    parser.add_argument("--only", default="nats,one,workers,nodes")
    given = parser.parse_args()
    parts = {
        "nats": lambda: nats_alone(given),
        "one": lambda: one(given, "one node"),
        "workers": lambda: one(given, "two workers", "--workers", "2"),
        "nodes": lambda: three(given),
    }
    for name in given.only.split(","):
        parts[name]()


if __name__ == "__main__":
    try:
        main()
    except tools.Missing as missing:
        raise SystemExit(str(missing)) from None
