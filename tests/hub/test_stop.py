"""`methodhub serve` as a process: how it starts, stops and dies, and what is left then."""

from __future__ import annotations

import json
import signal
import socket
import sqlite3
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from methodhub.core.clock import SystemClock
from methodhub.iothub.sas import build_token
from tests.harness import Program, RunningHub, administrator, new_address
from tests.hub.peers import Caller, Device, ready_device


class ServedHub:
    """What the peers need to know of a hub, told by one that runs in a process of its own."""

    def __init__(self, program: Program, facts: dict[str, Any], address: str) -> None:
        self.program = program
        self.address = address
        self.data_dir = Path(facts["dataDir"])
        self.ca_file = Path(facts["caFile"])
        self.facts = SimpleNamespace(https_port=facts["httpsPort"], mqtt_port=facts["mqttPort"])

    def admin(self) -> httpx.Client:
        return administrator(self.data_dir)

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        with self.admin() as client:
            answer = client.request(method, path, json=body)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def token(self, name: str, seconds: int) -> str:
        (key,) = (each["primaryKey"] for each in self.ask("GET", "/admin/policies") if each["name"] == name)
        return build_token(self.address, key, int(SystemClock.wall()) + seconds, name)

    def device_token(self, device_id: str, module_id: str = "") -> str:
        key = self.ask("GET", f"/devices/{device_id}")["authentication"]["symmetricKey"]["primaryKey"]
        return build_token(f"{self.address}/devices/{device_id}", key, int(SystemClock.wall()) + 3600)

    @property
    def as_hub(self) -> RunningHub:
        return cast(RunningHub, self)

    def keys(self) -> set[str]:
        """Every key of the store, and the private keys of the certificates line by line."""
        with sqlite3.connect(self.data_dir / "methodhub.db") as database:
            found = {
                value
                for table in ("policies", "identities")
                for row in database.execute(f"SELECT primary_key, secondary_key FROM {table}")
                for value in row
                if value
            }
        database.close()
        for file in ("ca-key.pem", "server-key.pem"):
            found |= set((self.data_dir / file).read_text().splitlines()[1:-1])
        return found


def command(data_dir: Path, address: str, *more: str) -> list[str]:
    arguments = ["--data-dir", str(data_dir), "--hostname", address, "--bind", address, "--json", *more]
    return [sys.executable, "-m", "methodhub", "serve", *arguments]


@contextmanager
def serving(data_dir: Path, address: str, *more: str) -> Iterator[ServedHub]:
    with Program(command(data_dir, address, *more)) as program:
        facts = json.loads(program.expect('"ready"'))
        yield ServedHub(program, facts, address)


def drained(program: Program) -> str:
    """All it printed; only after its end."""
    with pytest.raises(AssertionError, match="ended before"):
        program.expect("\0")
    return "\n".join(program.lines)


# --- SIGTERM -----------------------------------------------------------------------------------------------------


def test_stopping(tmp_path: Path) -> None:
    """[HUB-stop] Waiting calls end with 503001 at once, and new ones do; a delivered one may finish, another ends
    with 404104 when the grace is over: never a 503 after delivery. Devices are closed, the exit code is 0."""
    address = new_address()
    with serving(tmp_path / "data", address, "--set", "stop_grace=2") as served:
        for device_id in ("d1", "away"):
            served.ask("PUT", f"/devices/{device_id}", {})
        hub = served.as_hub
        callers = [Caller(hub) for _ in range(4)]
        waiting, finishing, unanswered, later = callers
        try:
            with ready_device(hub) as device:
                waiting.send(waiting.call("away", connectTimeoutInSeconds=300))
                finishing.send(finishing.call("d1"))
                answered = device.request()
                unanswered.send(unanswered.call("d1"))
                device.request()
                assert later.invoke("away").code == 404103
                served.program.process.send_signal(signal.SIGTERM)
                assert waiting.response().code == 503001
                assert later.invoke("d1").code == 503001
                device.answer(answered, b'"done"')
                assert json.loads(finishing.response().body)["payload"] == "done"
                assert unanswered.response().code == 404104
                assert device.is_closed()
            for caller in callers:
                assert caller.rest() == b""
                caller.close()
            assert served.program.wait() == 0
        finally:
            for caller in callers:
                caller.close()
        assert not (served.data_dir / "methodhub.sock").exists()


def test_stopping_at_once(tmp_path: Path) -> None:
    """[HUB-stop] A second signal cuts the grace short; what was delivered still ends with 404104."""
    with serving(tmp_path / "data", new_address(), "--set", "stop_grace=3600") as served:
        for device_id in ("d1", "away"):
            served.ask("PUT", f"/devices/{device_id}", {})
        hub = served.as_hub
        with ready_device(hub) as device, Caller(hub) as caller, Caller(hub) as probe:
            caller.send(caller.call("d1"))
            device.request()
            assert probe.invoke("unknown").code == 404001
            served.program.process.send_signal(signal.SIGTERM)
            while probe.invoke("away").code != 503001:
                pass  # until the signal has arrived
            served.program.process.send_signal(signal.SIGINT)
            assert caller.response().code == 404104
            assert device.is_closed()
        assert served.program.wait() == 0


# --- kill -9 -----------------------------------------------------------------------------------------------------


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """[HUB-durable] [HUB-session] [HUB-no-keys] Writes until the very last answer are there; nobody is connected any
    more; a device's session lives, so a call right after it reconnects reaches it. No key was ever printed."""
    address = new_address()
    data_dir = tmp_path / "data"
    acknowledged: dict[str, str] = {}
    with serving(data_dir, address, "--log-level", "debug") as served:
        hub = served.as_hub
        served.ask("PUT", "/devices/d1", {})
        with Device(hub, "d1") as device, Caller(hub) as caller:
            assert device.connect(clean=False) == (0, 0)
            device.subscribe()
            caller.send(caller.call("d1"))
            device.answer(device.request())
            assert caller.response().status == 200
            for number in range(200):
                answer = caller.ask("PUT", f"/devices/k{number}", {})
                acknowledged[f"k{number}"] = json.loads(answer.body)["etag"]
                if number % 3 == 0:
                    assert caller.ask("DELETE", f"/devices/k{number}").status == 204
                    del acknowledged[f"k{number}"]
            served.program.process.kill()
            served.program.wait()
    printed = drained(served.program)
    with serving(data_dir, address, "--log-level", "debug") as served:
        assert served.ask("GET", "/devices/d1")["connectionState"] == "Disconnected"
        found = {each["deviceId"]: each["etag"] for each in served.ask("GET", "/devices")}
        assert {name: etag for name, etag in found.items() if name != "d1"} == acknowledged
        with Device(served.as_hub, "d1") as device, Caller(served.as_hub) as caller:
            assert device.connect(clean=False) == (1, 0)
            caller.send(caller.call("d1"))
            device.answer(device.request())
            assert caller.response().status == 200
            assert served.ask("GET", "/devices/d1")["connectionState"] == "Connected"
        check_modes(served)
        keys = served.keys()
        served.program.process.send_signal(signal.SIGTERM)
        assert served.program.wait() == 0
    printed += drained(served.program)
    assert len(keys) > 250 and "device connected" in printed
    assert not [key for key in keys if key in printed]
    assert "SharedAccessSignature" not in printed and "sig=" not in printed


def check_modes(served: ServedHub) -> None:
    """Only the owner may enter the directory; database, socket and keys are for the owner alone."""
    assert stat.S_IMODE(served.data_dir.stat().st_mode) == 0o700
    public = {"ca.pem", "server.pem"}
    names = set()
    for path in served.data_dir.iterdir():
        names.add(path.name)
        assert stat.S_IMODE(path.stat().st_mode) == (0o644 if path.name in public else 0o600), path
    assert names >= {"methodhub.db", "methodhub.sock", "methodhub.lock", "ca-key.pem", "server-key.pem", *public}


# --- starting ----------------------------------------------------------------------------------------------------


def test_a_second_hub_on_the_same_data(tmp_path: Path) -> None:
    """Refused, with what to do; the first one does not notice."""
    with serving(tmp_path / "data", new_address()) as served:
        with Program(command(tmp_path / "data", new_address())) as second:
            second.expect("in use by another hub")
            assert second.wait() != 0
        assert served.ask("GET", "/admin/hub")["running"]


@pytest.mark.parametrize("port", [443, 8883])
def test_a_port_in_use(tmp_path: Path, port: int) -> None:
    """Which, why, and how to find out who has it."""
    address = new_address()
    with socket.create_server((address, port)), Program(command(tmp_path / "data", address)) as program:
        line = program.expect(f"{address}:{port}")
        text = line + drained(program)
        assert "another program listens there" in text and "ss -ltnp" in text
        assert program.wait() != 0


WITHOUT_THE_RIGHT = """
import ctypes, os, sys
CAP_NET_BIND_SERVICE, PR_CAPBSET_DROP = 10, 24
if os.getuid() == 0 and ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_NET_BIND_SERVICE, 0, 0, 0) != 0:
    sys.exit("may not give up a capability")
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_443_that_this_user_may_not_bind(tmp_path: Path) -> None:
    """8443, and a note that says whom that shuts out and how to grant the port; asked for 443, it is an error."""
    if int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text()) <= 443:
        pytest.skip("everybody may bind 443 here")
    address = new_address()
    without = [sys.executable, "-c", WITHOUT_THE_RIGHT]
    with Program([*without, *command(tmp_path / "data", address)]) as program:
        facts = json.loads(program.expect('"ready"'))
        assert facts["httpsPort"] == 8443
        (note,) = facts["notes"]
        assert "8443" in note and "Node" in note and "ip_unprivileged_port_start=443" in note
        program.process.send_signal(signal.SIGTERM)
        assert program.wait() == 0
    with Program([*without, *command(tmp_path / "data", address, "--https-port", "443")]) as program:
        program.expect("permission denied")
        assert program.wait() != 0
