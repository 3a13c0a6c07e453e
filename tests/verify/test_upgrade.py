"""From the last version to the present one under calls: nothing is lost, and no call has a second outcome."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cluster.fleet import BackEnd, Fleet
from tests.cluster.nodes import DURABLE, Cluster
from tests.cluster.test_failures import AWAY, NOT_SERVED, UNSURE, is_back, try_out
from tests.harness import new_address
from tests.nats_server import RunningNats
from tests.postgres import running_server
from tests.upgrade.old_code import unpack
from tests.verify.hub_process import HubProcess
from tests.verify.peers import Caller, Device, run

pytestmark = pytest.mark.verify

DEVICES = [f"d{number}" for number in range(50)]


class CarefulBackEnd(BackEnd):
    """As HTTP clients do, it looks whether its idle connection has ended before it uses it again."""

    async def reach(self) -> None:
        if self.writer is not None and self.reader.at_eof():
            self.drop()
        await super().reach()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def old(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that runs the last version."""
    return {"PYTHONPATH": str(unpack(tmp_path / "old"))}


def methodhub(*arguments: str, env: dict[str, str]) -> None:
    command = [sys.executable, "-m", "methodhub", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ | env)
    assert done.returncode == 0, done.stderr


async def call_all(caller_at: HubProcess, devices: list[Device]) -> None:
    """Each device answers once, and no other hears of it."""
    caller = Caller(caller_at)
    await caller.connect()
    for device in devices:
        before = len(device.seen)
        outcome = await caller.call(device.device_id, device.device_id)
        assert (outcome.code, outcome.value) == (0, device.device_id)
        assert len(device.seen) == before + 1
    caller.drop()


def test_a_single_hub_of_the_last_version_becomes_a_cluster_of_this_one(
    stack: ExitStack, tmp_path: Path, old: dict[str, str]
) -> None:
    """[HUB-upgrade] SQLite to PostgreSQL, one node to two; devices keep their keys, their session and their CA."""
    addresses = [new_address(), new_address()]
    first = HubProcess(tmp_path / "first", address=addresses[0], hostnames=addresses, env=old)

    async def before() -> None:
        first.create(*DEVICES)
        devices = [await Device(first, device_id).connect(clean=False) for device_id in DEVICES]
        await call_all(first, devices)
        assert await asyncio.to_thread(first.terminate) == 0

    with first:
        trusted = first.tls
        run(before())
    database = stack.enter_context(running_server(DURABLE))
    env = {"METHODHUB_DATABASE_URL": database.fresh()}
    methodhub("export", str(tmp_path / "hub.jsonl"), "--data-dir", str(tmp_path / "first"), env={})
    methodhub("import", str(tmp_path / "hub.jsonl"), "--data-dir", str(tmp_path / "first"), env=env)
    env["METHODHUB_NATS_URL"] = stack.enter_context(RunningNats()).url
    nodes = [
        stack.enter_context(HubProcess(tmp_path / name, address=address, hostnames=addresses, env=env))
        for name, address in zip(("first", "second"), addresses, strict=True)
    ]
    for node in nodes:
        node.tls = trusted

    async def after() -> None:
        devices = []
        for number, device_id in enumerate(DEVICES):
            device = await Device(nodes[number % 2], device_id).connect(clean=False)
            devices.append(device)
        for node in nodes:
            await call_all(node, devices)

    run(after())


def test_a_node_of_the_last_version_serves_on_while_the_database_is_migrated(
    stack: ExitStack, tmp_path: Path, old: dict[str, str]
) -> None:
    """[HUB-upgrade] Expand first: new nodes start beside the old one, which then stops."""
    serve_beside(stack, tmp_path, old)


def serve_beside(stack: ExitStack, tmp_path: Path, old: dict[str, str]) -> None:
    if not Path(old["PYTHONPATH"], "methodhub/store/engines/postgresql.py").exists():
        pytest.skip("the last version knows no PostgreSQL")
    database = stack.enter_context(running_server(DURABLE))
    env = {"METHODHUB_DATABASE_URL": database.fresh()}
    addresses = [new_address(), new_address()]
    first = stack.enter_context(
        HubProcess(tmp_path / "first", address=addresses[0], hostnames=addresses, env=env | old)
    )
    first.create(*DEVICES)
    nats = stack.enter_context(RunningNats())
    second = HubProcess(
        tmp_path / "second", address=addresses[1], hostnames=addresses, env=env | {"METHODHUB_NATS_URL": nats.url}
    )

    async def work() -> None:
        devices = [await Device(first, device_id).connect() for device_id in DEVICES]
        await call_all(first, devices)
        await asyncio.to_thread(stack.enter_context, second)
        await call_all(first, devices)
        await asyncio.to_thread(first.create, "late")
        late = await Device(second, "late").connect()
        await call_all(second, [late])
        assert await asyncio.to_thread(first.terminate) == 0
        devices = [await Device(second, device_id).connect() for device_id in DEVICES]
        await call_all(second, [*devices, late])

    run(work())


def test_nodes_are_replaced_one_by_one_under_calls(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[HUB-upgrade] The rules of the ledger hold throughout; acknowledged writes are there."""
    monkeypatch.setattr("tests.cluster.fleet.BackEnd", CarefulBackEnd)
    database = stack.enter_context(running_server(DURABLE))
    nats = stack.enter_context(RunningNats())
    cluster = stack.enter_context(Cluster(tmp_path, database.fresh(), [nats.url], 3))

    async def work(fleet: Fleet) -> None:
        for number in range(3):
            trouble = fleet.ledger.trouble(number, "drained")
            assert await asyncio.to_thread(cluster[number].terminate) == 0
            await is_back(fleet, *({0, 1, 2} - {number}))
            await asyncio.to_thread(cluster[number].start)
            trouble.until = time.monotonic()
            await is_back(fleet)

    try_out(cluster, work, AWAY, NOT_SERVED, UNSURE)
