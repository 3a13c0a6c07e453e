"""Many of everything on one node: connected devices, registered identities, open calls, waiting calls. Figures are
printed; only what must hold is asserted."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any

import httpx
import pytest

from methodhub.core.calls import MethodRequest, Outcome
from methodhub.core.errors import ErrorCode, HubError
from methodhub.core.identity import Authentication, Identity, Target
from methodhub.core.ports import InsertIdentity
from tests.harness import API_VERSION, PATIENCE, Program, RunningHub, local_bus
from tests.verify.hub_process import HubProcess, fill
from tests.verify.peers import Caller, Device, keep_silent, run

pytestmark = pytest.mark.verify

CONNECTED, REGISTERED = 5_000, 100_000
OPEN_CALLS = 1_000
WAITING_CALLS = 20_000
TOOLS = Path(__file__).resolve().parents[2] / "benchmarks" / "tools.py"


def load_tool() -> Path:
    """The C program of the benchmarks: thousands of devices in Python would be measured instead of the hub."""
    spec = importlib.util.spec_from_file_location("benchmark_tools", TOOLS)
    assert spec and spec.loader
    tools: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tools)
    built: Path = tools.load_tool()
    return built


@contextmanager
def idle_devices(hub: HubProcess, device_ids: list[str], file: Path) -> Iterator[None]:
    """Connected, subscribed and answering `{"device": id}`."""
    lines = [f"{each}\t{hub.user_name(each)}\t{hub.device_token(each)}\n" for each in device_ids]
    file.write_text("".join(lines))
    at = f"{hub.address}:{hub.mqtt_port}"
    with Program([str(load_tool()), "--devices", str(file), "--mqtt", at, "--device-tls", "--idle"]) as program:
        program.expect("{", patience=6 * PATIENCE)
        yield
        assert program.process.stdin is not None
        program.process.stdin.close()
        assert json.loads(program.expect("dropped"))["dropped"] == 0


def name(number: int) -> str:
    return f"device-{number:06}"


def timed(work: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def look_ups(client: httpx.Client, registered: int) -> tuple[float, float]:
    """Median milliseconds of reading one identity, and of a list of 1,000."""
    chance = random.Random(1)
    reads = [timed(lambda: found(client, name(chance.randrange(registered)))) for _ in range(200)]
    lists = [timed(lambda: client.get("/devices", params={"top": 1000}).raise_for_status()) for _ in range(3)]
    return median(reads), median(lists)


def found(client: httpx.Client, device_id: str) -> None:
    assert client.get(f"/devices/{device_id}").json()["deviceId"] == device_id


def called(client: httpx.Client, device_id: str) -> str:
    """The name of the error."""
    path = f"/twins/{device_id}/methods"
    answer = client.post(path, json={"methodName": "m"}, params={"api-version": API_VERSION})
    return answer.headers["iothub-errorcode"]


def all_pages(client: httpx.Client) -> list[str]:
    ids: list[str] = []
    while page := client.get("/admin/devices", params={"after": ids[-1] if ids else ""}).json():
        ids += [each["deviceId"] for each in page]
    return ids


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    """A hub with 100,000 registered devices."""
    data = tmp_path_factory.mktemp("crowded") / "hub"
    fill(data, map(name, range(REGISTERED)))
    with HubProcess(data) as hub:
        yield hub


def test_look_ups_and_lists_work_with_100_000_identities(crowded: HubProcess, tmp_path: Path) -> None:
    few = tmp_path / "few"
    fill(few, map(name, range(1_000)))
    with HubProcess(few) as hub, hub.admin() as client:
        read_few, list_few = look_ups(client, 1_000)
    with crowded.admin() as client:
        read_many, list_many = look_ups(client, REGISTERED)
        assert all_pages(client) == list(map(name, range(REGISTERED)))
        assert client.get("/devices/nobody").status_code == 404
        assert called(client, name(99_999)) == "DeviceNotOnline"
        assert called(client, "nobody") == "DeviceNotFound"
    print(f"\n1,000 -> 100,000 registered: one read {read_few:.2f} -> {read_many:.2f} ms, "
          f"a list of 1,000 {list_few:.0f} -> {list_many:.0f} ms")  # fmt: skip


def test_5_000_connected_devices_answer(crowded: HubProcess, tmp_path: Path) -> None:
    ids = list(map(name, range(0, REGISTERED, REGISTERED // CONNECTED)))
    with idle_devices(crowded, ids[:100], tmp_path / "first.txt"):
        before = crowded.memory()
        start = time.monotonic()
        with idle_devices(crowded, ids[100:], tmp_path / "rest.txt"):
            connecting = time.monotonic() - start
            each = (crowded.memory() - before) / (CONNECTED - 100) / 1024
            assert crowded.metric("connected_targets") == CONNECTED
            run(call_at_random(crowded, ids))
            with crowded.admin() as client:
                assert client.get(f"/devices/{ids[7]}").json()["connectionState"] == "Connected"
    run(crowded.until(lambda: crowded.metric("connected_targets") == 0))
    print(f"\n{CONNECTED} devices connected over TLS in {connecting:.1f} s, {each:.1f} KB of the hub's memory each")


async def call_at_random(hub: HubProcess, ids: list[str]) -> None:
    async def calls(seed: int) -> list[float]:
        chance, caller, seconds = random.Random(seed), Caller(hub), []
        for _ in range(250):
            device_id = chance.choice(ids)
            outcome = await caller.call(device_id, None)
            assert (outcome.code, outcome.value) == (0, {"device": device_id})
            seconds.append(outcome.seconds)
        return seconds

    taken = sorted(chain.from_iterable(await asyncio.gather(*map(calls, range(8)))))
    print(f"\n2,000 calls to random devices: median {taken[1000] * 1000:.1f} ms, p99 {taken[1980] * 1000:.1f} ms")


def test_a_device_holds_1_000_open_calls_and_no_more(tmp_path: Path) -> None:
    """[HUB-limits]"""
    with HubProcess(tmp_path / "hub", "--in-memory") as hub:
        hub.create("d1")
        run(fill_up(hub))


async def fill_up(hub: HubProcess) -> None:
    device = await Device(hub, "d1", keep_silent).connect()
    callers = [Caller(hub) for _ in range(OPEN_CALLS + 1)]
    calls = [asyncio.create_task(caller.call("d1", number)) for number, caller in enumerate(callers[:-1])]
    await device.has_seen(OPEN_CALLS)
    refused = await callers[-1].call("d1", None)
    assert refused.code == ErrorCode.DeviceMaximumInflightMethodExceeded
    for request in reversed(device.seen):
        device.answer(request)
    outcomes = await asyncio.gather(*calls)
    assert [(outcome.code, outcome.value) for outcome in outcomes] == [(0, number) for number in range(OPEN_CALLS)]
    assert len(device.seen) == OPEN_CALLS
    last = asyncio.create_task(callers[-1].call("d1", "room again"))
    await device.has_seen(OPEN_CALLS + 1)
    device.answer(device.seen[-1])
    assert (await last).value == "room again"


def test_20_000_waiting_calls_end_at_their_time(tmp_path: Path) -> None:
    """[HUB-connect-timeout] On real time."""
    with RunningHub(tmp_path / "hub") as hub:
        ends = hub.run(wait_together(hub))
        assert hub.on_loop(lambda: (len(hub.hub.methods.open), len(local_bus(hub).waiters.targets()))) == (0, 0)
    early = [timeout - seconds for timeout, seconds in ends]
    assert len(early) == WAITING_CALLS
    assert max(early) < 0.3
    print(f"\n{WAITING_CALLS} waiting calls ended {min(early) * 1000:.0f} to {max(early) * 1000:.0f} ms "
          f"(median {median(early) * 1000:.0f}) before their nominal end")  # fmt: skip
    assert min(early) > -1.0, "far too late"


async def wait_together(hub: RunningHub) -> list[tuple[float, float]]:
    """For each call its connect timeout and the seconds it took."""
    methods, clock = hub.hub.methods, hub.hub.clock
    everybody = [Identity(Target(name(number)), "1", "e", Authentication()) for number in range(WAITING_CALLS)]
    await hub.hub.identity_store.apply([InsertIdentity(identity) for identity in everybody])
    ends: list[tuple[float, float]] = []
    all_ended = asyncio.Event()

    def begin(number: int) -> None:
        timeout, started = float(5 + number % 6), clock.monotonic()

        def settle(outcome: Outcome) -> None:
            assert isinstance(outcome, HubError) and outcome.code is ErrorCode.DeviceNotOnline
            ends.append((timeout, clock.monotonic() - started))
            if len(ends) == WAITING_CALLS:
                all_ended.set()

        methods.invoke(Target(name(number)), MethodRequest("m", None, 30, timeout), settle)

    for number in range(WAITING_CALLS):
        begin(number)
    assert len(methods.open) == WAITING_CALLS
    await all_ended.wait()
    return ends
