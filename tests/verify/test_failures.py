"""What may befall one node: paused, a full disk, no file descriptors left, storms of strangers and of devices, callers
that hang up. Honest peers go on, and nothing stays behind."""

from __future__ import annotations

import asyncio
import resource
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.verify.hub_process import HubProcess, device_body, fill
from tests.verify.peers import CUT, Caller, Device, keep_silent, run

pytestmark = pytest.mark.verify

KEEP_ALIVE = 2
PAUSE = 4.0
"""Seconds: longer than a device of KEEP_ALIVE may be silent."""

STORM = 2_000
HANG_UPS, HANG_UP_ROUNDS, WARM = 200, 40, 12


async def answers(device: Device, caller: Caller) -> None:
    """The device is there and a call to it succeeds."""
    outcome = await caller.call(device.device_id, "still there?")
    assert (outcome.code, outcome.value) == (0, "still there?"), outcome


# --- paused ------------------------------------------------------------------------------------------------------


def test_devices_and_callers_survive_a_pause(tmp_path: Path) -> None:
    """[HUB-pause] [MQTT-3.1.2-24] The devices were not silent, the hub was deaf: it listens before it judges."""
    with HubProcess(tmp_path / "hub", "--in-memory") as hub:
        hub.create(*(f"d{number}" for number in range(200)))
        run(pause(hub))


async def pause(hub: HubProcess) -> None:
    devices = [await Device(hub, f"d{number}").connect(keep_alive=KEEP_ALIVE) for number in range(200)]
    callers = [await Caller(hub).connect() for _ in devices]
    hub.signal(signal.SIGSTOP)
    calls = [asyncio.create_task(caller.call(each.device_id, 1)) for caller, each in zip(callers, devices, strict=True)]
    end = time.monotonic() + PAUSE
    while time.monotonic() < end:  # the pause itself, not a wait for something
        for device in devices:
            device.send_ping()
        await asyncio.sleep(KEEP_ALIVE / 2)
    hub.signal(signal.SIGCONT)
    outcomes = await asyncio.gather(*calls)
    assert {outcome.code for outcome in outcomes} == {0}
    assert not any(device.reading.done() for device in devices), "a device was disconnected"
    assert hub.metric("connected_targets") == len(devices)


# --- full disk ---------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """A disk of its own, if this user may mount one."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "none", place], check=False, capture_output=True)
    if mounted.returncode:
        yield None
        return
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


class FullDisk:
    """A disk without room, or where none may be mounted a limit that forbids files to grow."""

    def __init__(self, hub: HubProcess, disk: Path | None) -> None:
        self._hub = hub
        self._file = disk / "filler" if disk else None

    def fill(self) -> None:
        if self._file is None:
            self._hub.limit(resource.RLIMIT_FSIZE, 0)
            return
        with self._file.open("wb", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass

    def clear(self) -> None:
        if self._file is None:
            self._hub.limit(resource.RLIMIT_FSIZE, resource.RLIM_INFINITY)
        else:
            self._file.unlink()


def test_with_a_full_disk_writes_fail_clearly_and_calls_go_on(tmp_path: Path, small_disk: Path | None) -> None:
    """[HUB-store-unavailable]"""
    with HubProcess((small_disk or tmp_path) / "hub") as hub:
        hub.create("d1", "d2")
        disk = FullDisk(hub, small_disk)
        run(write_on_a_full_disk(hub, disk))
        hub.kill()
        hub.start()
        with hub.admin() as client:
            ids = [each["deviceId"] for each in client.get("/devices").json()]
    print(f"\nfull disk by {'a small file system' if small_disk else 'a limit of file size'}")
    assert ids == ["after", "d1", "d2"]


async def write_on_a_full_disk(hub: HubProcess, disk: FullDisk) -> None:
    device, caller = await Device(hub, "d1").connect(), Caller(hub)
    disk.fill()
    await asyncio.to_thread(fail_to_write, hub)
    await answers(device, caller)
    newcomer = await Device(hub, "d2").connect()  # CleanSession=1 needs no room
    await answers(newcomer, caller)
    kept = Device(hub, "d1")
    with pytest.raises((PermissionError, *CUT)):  # a session that cannot be kept is not promised
        await kept.connect(clean=False)
    disk.clear()
    await asyncio.to_thread(hub.create, "after")
    await kept.connect(clean=False)
    await answers(kept, caller)
    await answers(newcomer, caller)


def fail_to_write(hub: HubProcess) -> None:
    with hub.admin() as client:
        for number in range(30):  # the first ones may fit into what the log holds already
            response = client.put(f"/devices/full-{number}", json=device_body(f"full-{number}"))
            if not response.is_success:
                break
            client.delete(f"/devices/full-{number}", headers={"If-Match": "*"})
        assert (response.status_code, response.headers["iothub-errorcode"]) == (503, "ServiceUnavailable")
        assert "full" in response.text or "disk I/O error" in response.text
        assert client.get("/devices/d1").status_code == 200


# --- no file descriptors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("flags", [(), ("--set", "max_connections=10000")], ids=["budget", "no budget"])
def test_without_file_descriptors_honest_devices_keep_working(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """With the hub's own budget of sockets, and where it is set too high and the system says no."""
    with HubProcess(tmp_path / "hub", *flags, files=300) as hub:
        hub.create("d1", "d2")
        run(exhaust(hub))


async def exhaust(hub: HubProcess) -> None:
    device, caller = await Device(hub, "d1").connect(clean=False), await Caller(hub).connect()
    await answers(device, caller)
    before = hub.open_files()
    strangers = await asyncio.gather(*(stranger(hub.address, hub.mqtt_port) for _ in range(600)))
    for _ in range(20):
        await answers(device, caller)
        await device.ping()
    print(f"\n{before} open files, {hub.open_files()} with {len(strangers)} strangers at the door")
    for writer in strangers:
        if writer is not None:
            writer.transport.abort()
    await hub.until(lambda: hub.open_files() <= before + 2)
    late = await Device(hub, "d2").connect()
    await answers(late, await Caller(hub).connect())
    await asyncio.to_thread(hub.create, "d3")
    assert not device.reading.done()


async def stranger(address: str, port: int) -> asyncio.StreamWriter | None:
    """A socket that says nothing; None if the hub would not have it."""
    try:
        _, writer = await asyncio.open_connection(address, port)
    except OSError:
        return None
    return writer


# --- storms ------------------------------------------------------------------------------------------------------


def test_2_000_devices_that_connect_at_once_all_come_in(tmp_path: Path) -> None:
    """And those who are there already are served meanwhile."""
    ids = [f"device-{number}" for number in range(STORM)]
    fill(tmp_path / "hub", ["d1", *ids])
    with HubProcess(tmp_path / "hub") as hub:
        run(storm(hub, ids))


async def storm(hub: HubProcess, ids: list[str]) -> None:
    device, caller = await Device(hub, "d1").connect(), await Caller(hub).connect()
    devices = [Device(hub, each) for each in ids]
    start = time.monotonic()
    coming = asyncio.gather(*(each.connect() for each in devices))
    waits = []
    while not coming.done():
        begun = time.monotonic()
        await answers(device, caller)
        waits.append(time.monotonic() - begun)
    await coming
    took = time.monotonic() - start
    assert hub.metric("connected_targets") == STORM + 1
    await asyncio.gather(*(answers(each, caller) for each in devices[:1]))
    waits.sort()
    print(f"\n{STORM} devices at once: all connected after {took:.1f} s; {len(waits)} calls meanwhile, "
          f"median {waits[len(waits) // 2] * 1000:.0f} ms, longest {waits[-1] * 1000:.0f} ms")  # fmt: skip


def test_2_000_handshakes_that_are_cut_leave_nothing(tmp_path: Path) -> None:
    with HubProcess(tmp_path / "hub", "--in-memory") as hub:
        hub.create("d1")
        run(cut_handshakes(hub))


async def cut_handshakes(hub: HubProcess) -> None:
    device, caller = await Device(hub, "d1").connect(), await Caller(hub).connect()
    await answers(device, caller)
    before = hub.open_files()
    sizes = []
    for _ in range(3):
        for port in (hub.mqtt_port, hub.https_port):
            await asyncio.gather(*(cut_handshake(hub.address, port) for _ in range(STORM // 2)))
            await answers(device, caller)
        await hub.until(lambda: hub.open_files() <= before + 1)
        sizes.append(hub.memory() / 1024 / 1024)
    assert hub.metric("mqtt_unauthenticated") == hub.metric("https_unauthenticated") == 0
    print(f"\n{STORM} cut handshakes, three times: {' '.join(f'{size:.1f}' for size in sizes)} MB after each")
    assert sizes[-1] - sizes[0] < 8


async def cut_handshake(address: str, port: int) -> None:
    """A ClientHello, and the socket is gone when the hub has answered it."""
    hello, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(hello, out, server_hostname=address)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    reader, writer = await asyncio.open_connection(address, port)
    writer.write(out.read())
    await reader.read(1)
    writer.transport.abort()


# --- callers that hang up ----------------------------------------------------------------------------------------


def test_callers_that_hang_up_again_and_again_leave_nothing(tmp_path: Path) -> None:
    """[HUB-hang-up] 8,000 of them: more than a device may have open."""
    with HubProcess(tmp_path / "hub", "--in-memory") as hub:
        hub.create("d1", "away")
        run(hang_up_again_and_again(hub))


async def hang_up_again_and_again(hub: HubProcess) -> None:
    device = await Device(hub, "d1", keep_silent).connect()
    before = hub.open_files()
    sizes = []
    for number in range(HANG_UP_ROUNDS):
        callers = await asyncio.gather(*(Caller(hub).connect() for _ in range(HANG_UPS)))
        for index, caller in enumerate(callers):
            caller.send("d1" if index % 4 else "away", "x" * 1000, response=300, connect=300)
        await device.has_seen((number + 1) * HANG_UPS * 3 // 4)
        await hub.until(lambda: hub.metric("open_calls") == HANG_UPS)
        for caller in callers:
            caller.drop()
        await hub.until(lambda: hub.metric("open_calls") == 0 and hub.open_files() <= before + 1)
        sizes.append(hub.memory() / 1024 / 1024)
    print(f"\n{HANG_UPS} callers hung up, {HANG_UP_ROUNDS} times: {sizes[WARM]:.1f} MB after {WARM} times, "
          f"{sizes[-1]:.1f} MB after the last")  # fmt: skip
    assert sizes[-1] - sizes[WARM] < 15  # a connection and its call that stayed would be three times as much
    for request in device.seen:  # late answers settle nothing
        device.answer(request)
    await device.ping()
    again = await Device(hub, "d1").connect()
    await answers(again, Caller(hub))
    assert hub.metric("late_answers_total") == len(device.seen)
