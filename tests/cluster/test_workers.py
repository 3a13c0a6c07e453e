"""Several processes that are one hub on one machine: they share its ports and its SQLite file, and stand in for each
other. A node that is stopped lets its devices go in order."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from methodhub.config import Settings
from methodhub.server import StartError
from methodhub.server.workers import WORKER, Workers, worker_arguments, worker_environment
from tests.cluster.pair import Pair, open_pair
from tests.harness import PATIENCE, administrator
from tests.hub.peers import Caller, ready_device
from tests.nats_server import RunningNats
from tests.verify.hub_process import HubProcess
from tests.verify.peers import Caller as AsyncCaller
from tests.verify.peers import Device, run
from tests.x509.peers import SAS, put

NUMBER = 24
"""Devices: that all of them come to one of two workers is as likely as one in eight million."""


def workers(hub: HubProcess) -> dict[int, int]:
    """Their process ids by their numbers."""
    found = {}
    for pid in children(hub.pid):
        with suppress(OSError):
            for entry in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                name, _, value = entry.decode().partition("=")
                if name == WORKER:
                    found[int(value.split()[0])] = pid
    return found


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def listening(hub: HubProcess) -> int:
    """How many sockets take devices."""
    address = f"{socket.inet_aton(hub.address)[::-1].hex()}:{hub.mqtt_port:04x}".upper()
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(line[1] == address and line[3] == "0A" for line in lines)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubProcess]:
    with HubProcess(tmp_path / "hub", "--workers", "2") as running:
        running.create(*(f"d{number}" for number in range(NUMBER)))
        yield running


async def connect(hub: HubProcess) -> list[Device]:
    return [await Device(hub, f"d{number}").connect() for number in range(NUMBER)]


async def all_answer(hub: HubProcess, devices: list[Device]) -> None:
    """Through several connections, and so through both workers."""
    callers = [await AsyncCaller(hub).connect() for _ in range(8)]
    for position, caller in enumerate(callers):
        for device in devices[position % 2 :: 2]:
            outcome = await caller.call(device.device_id, position)
            assert (outcome.code, outcome.value) == (0, position), outcome
    for caller in callers:
        caller.drop()


def test_workers_share_devices_and_stand_in_for_each_other(hub: HubProcess) -> None:
    """[HUB-workers]"""
    run(share(hub))


async def share(hub: HubProcess) -> None:
    devices = await connect(hub)
    counts = connected(hub)
    assert sum(counts) == NUMBER
    assert min(counts) > 0
    assert hub.metric("worker_up") == 2
    await all_answer(hub, devices)
    assert hub.metric("calls_total") == 8 * NUMBER / 2
    for number in (1, 0):
        before = workers(hub)
        os.kill(before[number], signal.SIGKILL)
        await hub.until(lambda: listening(hub) == 1)
        await hub.until(lambda: listening(hub) == 2)
        lost = [device for device in devices if await has_ended(device)]
        assert 0 < len(lost) < NUMBER
        for device in lost:
            await device.connect()
        await hub.until(lambda: administers(hub))
        await all_answer(hub, devices)
        after = workers(hub)
        assert after[number] != before[number]
        assert after[1 - number] == before[1 - number]


def connected(hub: HubProcess) -> list[int]:
    """Devices of each worker, as either of them tells."""
    pattern = re.compile(r'methodhub_connected_targets\{worker="(\d)"\} (\d+)\.0')
    told = []
    for name in ("methodhub.sock", "worker-1.sock"):
        with administrator(hub.data_dir, name) as client:
            told.append(sorted(pattern.findall(client.get("/metrics").text)))
    assert told[0] == told[1]
    return [int(count) for _, count in told[0]]


async def has_ended(device: Device) -> bool:
    """A connection that lives answers a ping."""
    ping = asyncio.create_task(device.ping())
    await asyncio.wait((ping, device.reading), return_when=asyncio.FIRST_COMPLETED)
    ping.cancel()
    return device.reading.done()


def administers(hub: HubProcess) -> bool:
    try:
        with hub.admin() as client:
            return client.get("/health/ready").is_success
    except (OSError, httpx.HTTPError):
        return False


def test_workers_end_with_the_process_that_started_them(hub: HubProcess) -> None:
    """However it ends; and then another one can start in its place."""
    run(outlive(hub))


async def outlive(hub: HubProcess) -> None:
    devices = await connect(hub)
    pids = children(hub.pid)
    assert len(pids) == 3  # with NATS
    hub.kill()
    await hub.until(lambda: not any(map(is_running, pids)))
    await asyncio.gather(*(device.reading for device in devices))
    await asyncio.to_thread(hub.start)
    await all_answer(hub, await connect(hub))
    pids = children(hub.pid)
    assert await asyncio.to_thread(hub.terminate) == 0
    assert not any(map(is_running, pids))


def test_workers_go_on_when_their_bus_ends(hub: HubProcess) -> None:
    """[HUB-workers] It is started again."""
    run(lose_bus(hub))


async def lose_bus(hub: HubProcess) -> None:
    devices = await connect(hub)
    (nats,) = set(children(hub.pid)) - set(workers(hub).values())
    os.kill(nats, signal.SIGKILL)
    await hub.until(lambda: not is_running(nats) and len(children(hub.pid)) == 3)
    caller = AsyncCaller(hub)
    for device in devices:
        code = 503001
        while code != 0:  # [HUB-bus-down] until both have found the new one
            code = (await caller.call(device.device_id, 1)).code
            assert code in {0, 404104, 503001, 503101}, code
    assert not any(device.reading.done() for device in devices)


# --- leaving -----------------------------------------------------------------------------------------------------


def test_a_node_that_stops_lets_its_devices_go_when_they_have_answered(
    tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    """[HUB-drain] Idle ones first; a busy one is still called, until it is idle."""
    with RunningNats() as nats, open_pair(tmp_path, postgresql(), nats.url) as pair:
        leave(pair)


def leave(pair: Pair) -> None:
    a, b = pair
    for name in ("idle", "busy", "late"):
        put(a, name, SAS)
    with ready_device(a, "idle") as idle, ready_device(a, "busy") as busy, Caller(b) as one, Caller(b) as two:
        one.send(one.call("busy", payload=1))
        first = busy.request()
        stopping = asyncio.run_coroutine_threadsafe(a.hub.stop(), a._loop)
        assert idle.is_closed()
        with pytest.raises(OSError, match="refused"):
            ready_device(a, "late")
        two.send(two.call("busy", payload=2))
        second = busy.request()
        busy.answer(first, b"1")
        assert one.response().status == 200
        busy.ping()
        assert not stopping.done()
        busy.answer(second, b"2")
        assert two.response().status == 200
        assert busy.is_closed()
        idle.close()
        busy.close()
        stopping.result(PATIENCE)
        for name in ("idle", "busy"):
            with ready_device(b, name) as device, Caller(b) as caller:
                caller.send(caller.call(name, payload=3))
                device.answer(device.request(), b"3")
                assert caller.response().status == 200


def test_workers_are_given_no_url_as_an_argument() -> None:
    """[HUB-no-keys] It may hold a password, and any user can read arguments."""
    given = ["serve", "--database-url", "postgresql://u:SECRET@h/d", "--nats-url=nats://u:SECRET@h", "--workers", "2"]
    given += ["--set", "database_url=postgresql://u:SECRET@h/d", "--set=nats_url=nats://u:SECRET@h", "--set", "units=2"]
    given += ["--set", "database-url=postgresql://u:SECRET@h/d", "--set=nats-url = nats://u:SECRET@h"]
    assert worker_arguments(given)[3:] == ["serve", "--workers", "2", "--set", "units=2", "--json"]
    settings = Settings(data_dir=Path("d"), database_url="postgresql://u:SECRET@h/d", database_plaintext=True)
    assert worker_environment(settings) == {"METHODHUB_DATABASE_URL": "postgresql://u:SECRET@h/d"}


def test_a_worker_that_begins_while_the_hub_stops_is_told(tmp_path: Path) -> None:
    """It is no process yet when the others are told."""
    program = "import sys; sys.stdin.read()"

    async def stop_at_once() -> int:
        workers = Workers(Settings(data_dir=tmp_path), [sys.executable, "-c", program])
        ready = workers._launch(0, "nats://127.0.0.1")
        await asyncio.sleep(0)  # it has begun to begin
        async with asyncio.timeout(PATIENCE):
            code = await workers.stop(asyncio.Event())
        with pytest.raises(StartError, match="Worker 0 did not start"):
            await ready
        return code

    assert asyncio.run(stop_at_once()) == 0


def test_callers_of_other_nodes_devices_are_told_when_a_node_stops(
    tmp_path: Path, postgresql: Callable[[], str]
) -> None:
    """[HUB-stop] At the end of the grace period, by the hub: the connection is not just closed."""
    with RunningNats() as nats, open_pair(tmp_path, postgresql(), nats.url) as (a, b):
        put(a, "d", SAS)
        with ready_device(b, "d") as device, Caller(a) as caller:
            caller.send(caller.call("d", payload=1))
            device.request()
            at_once = asyncio.Event()
            stopping = asyncio.run_coroutine_threadsafe(a.hub.stop(at_once), a._loop)
            a.on_loop(at_once.set)
            assert caller.response().code == 404104
            stopping.result(PATIENCE)


def test_workers_do_not_share_their_ports_with_another_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[HUB-workers] Half of the devices would have come to it."""
    monkeypatch.setattr("methodhub.server.workers.PORT_PATIENCE", 0.0)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        settings = Settings(data_dir=tmp_path, bind="127.0.0.1", https_port=port, workers=2)
        with pytest.raises(StartError, match=f"https cannot listen on 127.0.0.1:{port}: another program"):
            asyncio.run(Workers(settings, []).start())


def test_a_worker_that_cannot_be_started_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[HUB-workers] For want of open files, say."""
    monkeypatch.setattr("methodhub.server.workers.RESTART_WAIT", 0.0)
    program = "import sys; print('{}', flush=True); sys.stdin.read()"

    async def scenario() -> None:
        workers = Workers(Settings(data_dir=tmp_path), [sys.executable, "-c", program])
        begin = workers._begin
        failures = [OSError("too many open files")] * 2
        again = asyncio.Event()

        async def begin_at_last(number: int, url: str) -> asyncio.subprocess.Process:
            if failures and ready.done():
                raise failures.pop()
            if ready.done():
                again.set()
            return await begin(number, url)

        monkeypatch.setattr(workers, "_begin", begin_at_last)
        ready = workers._launch(0, "nats://127.0.0.1")
        async with asyncio.timeout(PATIENCE):
            await ready
            workers._processes[0].kill()
            await again.wait()
            assert not failures
            await workers.stop(asyncio.Event())

    asyncio.run(scenario())
