"""What may befall nodes, their bus and their database, one after another, while two hundred devices are called through
all nodes: the rules of the ledger hold throughout, no acknowledged write is lost, and service is back in time."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from methodhub.core.jobs.node import LIFE as LEASE
from tests.cluster.fleet import Fleet
from tests.cluster.ledger import Ledger
from tests.cluster.nodes import DURABLE, Cluster, nats_cluster, proxied
from tests.hub_jobs.peers import ENDED
from tests.nats_server import RunningNats
from tests.postgres import PostgresServer, running_server
from tests.verify.hub_process import HubProcess
from tests.verify.peers import run

pytestmark = pytest.mark.verify

BACK = 5.0
"""Seconds after the end of a cause until each device answers through each node."""
DISK = "160m"
AWAY, LOST, REPLACED, NOT_SERVED, UNSURE, LATE = 404103, 404104, 400027, 503001, 503101, 504101

JOB = -1
"""The number of a job's calls."""

Work = Callable[[Fleet], Awaitable[None]]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def database(stack: ExitStack) -> PostgresServer:
    return stack.enter_context(running_server(DURABLE))


@pytest.fixture
def nats(stack: ExitStack) -> RunningNats:
    return stack.enter_context(RunningNats())


@pytest.fixture
def cluster(stack: ExitStack, tmp_path: Path, database: PostgresServer, nats: RunningNats) -> Cluster:
    return stack.enter_context(Cluster(tmp_path, database.fresh(), [nats.url], 3))


def try_out(cluster: Cluster, work: Work, *allowed: int) -> Ledger:
    """Let `work` happen under load, and look at the traces."""
    ledger = Ledger()

    async def load() -> None:
        cluster[0].create(*(f"d{number}" for number in range(200)))
        async with Fleet(cluster, ledger) as fleet:
            fleet.usual = await fleet.back()
            begun = time.monotonic()
            await work(fleet)
            await fleet.stop_calling()
            await asyncio.to_thread(fleet.check_created)
            print(
                f"\n{time.monotonic() - begun:.1f} s, codes {ledger.codes(begun)}, late {ledger.late()}, back after "
                f"{fleet.times}, usually {fleet.usual:.2f} s; {len(fleet.created)} created, {fleet.refused} refused"
            )

    run(load())
    ledger.check({*allowed})
    return ledger


class BackEndOfJobs:
    def __init__(self, node: HubProcess) -> None:
        self._node = node

    def create(self, job_id: str, payload: object, condition: str) -> None:
        method = {"methodName": "m", "payload": payload, "responseTimeoutInSeconds": 30}
        body = {"jobId": job_id, "cloudToDeviceMethod": method, "queryCondition": condition}
        with self._node.admin() as client:
            client.put(f"/jobs/v2/{job_id}", json=body).raise_for_status()

    async def ended(self, job_id: str, seconds: float) -> dict[str, int]:
        """Its counts, when it has."""
        async with asyncio.timeout(seconds):
            while True:
                job = await asyncio.to_thread(self._get, job_id)
                if job["status"] in ENDED:
                    counts: dict[str, int] = job["deviceJobStatistics"]
                    return counts
                await asyncio.sleep(0.2)

    def _get(self, job_id: str) -> dict[str, Any]:
        with self._node.admin() as client:
            job: dict[str, Any] = client.get(f"/jobs/v2/{job_id}").raise_for_status().json()
            return job


async def pause(seconds: float) -> None:
    """The failure lasts; nothing is waited for."""
    await asyncio.sleep(seconds)


async def is_back(fleet: Fleet, *nodes: int) -> None:
    """The time includes what the asking takes when all is well."""
    seconds = await fleet.back([*nodes] or None)
    fleet.times.append(round(seconds, 2))
    assert seconds - fleet.usual < BACK, f"service was back after {seconds:.1f} s, {fleet.usual:.1f} s of them as usual"


# --- nodes -------------------------------------------------------------------------------------------------------


def test_a_node_is_killed(cluster: Cluster) -> None:
    """[HUB-lost-node]"""

    async def work(fleet: Fleet) -> None:
        trouble = fleet.ledger.trouble(0, "killed")
        await asyncio.to_thread(cluster[0].kill)
        await is_back(fleet, 1, 2)
        await asyncio.to_thread(cluster[0].start)
        trouble.until = time.monotonic()
        await is_back(fleet)

    try_out(cluster, work, AWAY, LOST, REPLACED, UNSURE, LATE)


def test_a_job_goes_on_when_a_node_is_killed(
    stack: ExitStack, tmp_path: Path, database: PostgresServer, nats: RunningNats
) -> None:
    """[HUB-job-lease] [HUB-job-once] Each device gets one outcome, and none is called twice: what the dead node may
    have handed over is told as such."""
    flags = ("--set", "job_concurrency=10")
    cluster = stack.enter_context(Cluster(tmp_path, database.fresh(), [nats.url], 3, *flags))

    async def work(fleet: Fleet) -> None:
        job = BackEndOfJobs(cluster[1])
        await asyncio.to_thread(job.create, "j", {"number": JOB, "wait": 1.0}, "STARTSWITH(deviceId, 'd')")
        async with asyncio.timeout(20):
            await fleet.received(JOB, 40)
        trouble = fleet.ledger.trouble(0, "killed")
        await asyncio.to_thread(cluster[0].kill)
        await is_back(fleet, 1, 2)
        await asyncio.to_thread(cluster[0].start)
        trouble.until = time.monotonic()
        begun = time.monotonic()
        counts = await job.ended("j", LEASE + 30)
        calls = fleet.ledger.delivered[JOB]
        print(f"\nthe job ended {time.monotonic() - begun:.1f} s after the node was back: {counts}, {len(calls)} calls")
        assert counts["deviceCount"] == counts["succeededCount"] + counts["failedCount"] == len(fleet.ids)
        assert len(calls) == len(set(calls)), "a device was called twice"
        assert counts["succeededCount"] <= len(calls)
        assert counts["failedCount"] <= 3 * 10 + 10  # those in flight on the dead node, or to its devices

    try_out(cluster, work, AWAY, LOST, REPLACED, UNSURE, LATE)


def test_a_node_is_stopped(cluster: Cluster) -> None:
    """[HUB-drain] What a device was handed is answered; no device comes back to the node that it was sent away from."""
    told = 0.0

    async def work(fleet: Fleet) -> None:
        nonlocal told
        trouble = fleet.ledger.trouble(0, "drained")
        told = time.monotonic()
        assert await asyncio.to_thread(cluster[0].terminate) == 0
        ended = time.monotonic()
        print(f"\ndrained in {ended - told:.1f} s")
        await is_back(fleet, 1, 2)
        assert not [
            life for lives in fleet.ledger.lives.values() for life in lives if life.node == 0 and life.since > told + 1
        ]
        await asyncio.to_thread(cluster[0].start)
        trouble.until = time.monotonic()
        await is_back(fleet)

    try_out(cluster, work, AWAY, NOT_SERVED, UNSURE)


def test_a_node_stalls(cluster: Cluster) -> None:
    """[HUB-stalled]"""

    async def work(fleet: Fleet) -> None:
        trouble = fleet.ledger.trouble(0, "paused")
        cluster[0].signal(signal.SIGSTOP)
        await pause(7)
        cluster[0].signal(signal.SIGCONT)
        trouble.until = time.monotonic()
        await is_back(fleet)

    try_out(cluster, work, AWAY, LOST, REPLACED, NOT_SERVED, UNSURE, LATE)


# --- the bus -----------------------------------------------------------------------------------------------------


def test_nats_is_killed_and_started_again(cluster: Cluster, nats: RunningNats) -> None:
    """[HUB-bus-down] [HUB-bus-lost] A device on the node that is asked is called all the while."""

    async def work(fleet: Fleet) -> None:
        await asyncio.to_thread(nats.end)
        await pause(2)
        fleet.shake()
        await pause(2)
        await asyncio.to_thread(nats.start)
        await is_back(fleet)
        await asyncio.to_thread(nats.restart)
        await is_back(fleet)

    try_out(cluster, work, AWAY, LOST, NOT_SERVED, UNSURE)


def test_a_nats_cluster_loses_a_server(stack: ExitStack, tmp_path: Path, database: PostgresServer) -> None:
    servers = stack.enter_context(nats_cluster())
    urls = [",".join(each.url for each in servers[number:] + servers[:number]) for number in range(3)]
    cluster = stack.enter_context(Cluster(tmp_path, database.fresh(), urls, 3))

    async def work(fleet: Fleet) -> None:
        await asyncio.to_thread(servers[0].end)
        await is_back(fleet)
        await asyncio.to_thread(servers[0].start)
        await is_back(fleet)

    try_out(cluster, work, AWAY, LOST, REPLACED, NOT_SERVED, UNSURE)


@pytest.mark.parametrize("how", ["cut", "silence"])
def test_a_node_is_cut_off_from_nats(
    stack: ExitStack, tmp_path: Path, database: PostgresServer, nats: RunningNats, how: str
) -> None:
    """[HUB-roll-call] Its devices are online, and never called offline; it goes on serving them itself."""
    proxy, url = stack.enter_context(proxied(nats))
    cluster = stack.enter_context(Cluster(tmp_path, database.fresh(), [url, nats.url, nats.url], 3))

    async def work(fleet: Fleet) -> None:
        (proxy.cut if how == "cut" else proxy.silence)()
        await pause(4)
        fleet.shake()
        await pause(4)
        proxy.heal()
        await is_back(fleet)

    try_out(cluster, work, AWAY, LOST, REPLACED, NOT_SERVED, UNSURE, LATE)


# --- the database ------------------------------------------------------------------------------------------------


def test_the_database_is_restarted(cluster: Cluster, database: PostgresServer) -> None:
    """[HUB-database-restart] Killed, and after a while started: calls do not need it."""

    async def work(fleet: Fleet) -> None:
        await asyncio.to_thread(database.stop, signal.SIGQUIT)
        await pause(2)
        fleet.shake()
        await pause(2)
        await asyncio.to_thread(database.start)
        await is_back(fleet)

    try_out(cluster, work, AWAY, LOST, NOT_SERVED)


@pytest.mark.parametrize("seconds", [6, LEASE + 5])
def test_the_database_hangs(cluster: Cluster, database: PostgresServer, seconds: float) -> None:
    """Its processes stand still with their connections open, the second time for longer than a node's lease: calls go
    on, what needs the store waits for it, and no node that could not renew its lease stays taken for dead."""

    async def work(fleet: Fleet) -> None:
        database.signal(signal.SIGSTOP)
        try:
            await pause(2)
            fleet.shake()
            await pause(seconds - 2)
        finally:
            database.signal(signal.SIGCONT)
        await is_back(fleet)

    try_out(cluster, work, AWAY, LOST, REPLACED, NOT_SERVED)


def test_the_database_fails_over(stack: ExitStack, tmp_path: Path, nats: RunningNats) -> None:
    """To a standby that had confirmed each commit, and that the URL names beside the primary."""
    primary = stack.enter_context(running_server(DURABLE))
    name = primary.fresh().rpartition("/")[2].partition("?")[0]
    standby = stack.enter_context(running_server(DURABLE, primary))
    primary.sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
    primary.sql("SELECT pg_reload_conf()")
    url = f"postgresql://hub@/{name}?host={primary.folder},{standby.folder}&target_session_attrs=read-write"
    cluster = stack.enter_context(Cluster(tmp_path, url, [nats.url], 3))

    async def work(fleet: Fleet) -> None:
        await asyncio.to_thread(primary.stop, signal.SIGQUIT)
        fleet.shake()
        await pause(2)
        await asyncio.to_thread(standby.sql, "SELECT pg_promote()")
        await is_back(fleet)
        async with asyncio.timeout(BACK):
            await fleet.more(created=10)

    try_out(cluster, work, AWAY, LOST, NOT_SERVED)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, which only some users may mount."""
    place = Path(tempfile.mkdtemp(prefix="pg-"))
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "none", str(place)]
    if subprocess.run(command, check=False, capture_output=True).returncode:
        place.rmdir()
        pytest.skip("this user may not mount a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)
        place.rmdir()


def test_the_disk_of_the_database_is_full(
    stack: ExitStack, tmp_path: Path, nats: RunningNats, small_disk: Path
) -> None:
    """[HUB-store-unavailable] PostgreSQL itself may end then, and is started again when there is room."""
    folder = small_disk / "pg"
    folder.mkdir(mode=0o755)
    database = PostgresServer(folder, DURABLE | {"max_wal_size": "32MB", "min_wal_size": "32MB"})
    stack.callback(database.stop, signal.SIGQUIT)
    database.start()
    cluster = stack.enter_context(Cluster(tmp_path, database.fresh(), [nats.url], 3))

    async def work(fleet: Fleet) -> None:
        filler = small_disk / "filler"
        await asyncio.to_thread(fill_up, filler)
        async with asyncio.timeout(60):
            for _ in range(10):  # what fits into pages that exist is still taken
                await fleet.more(refused=1)
                await asyncio.to_thread(fill_up, filler)
        filler.unlink()
        if not database.is_running:
            print("\nPostgreSQL had ended")
            await asyncio.to_thread(database.stop)
            await asyncio.to_thread(database.start)
        await is_back(fleet)
        async with asyncio.timeout(BACK):
            await fleet.more(created=10)

    try_out(cluster, work, AWAY, NOT_SERVED)


def fill_up(path: Path) -> None:
    with path.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
